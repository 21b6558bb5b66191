package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"sync"
	"time"
)

const (
	keySpace  = 100_000
	hashSpace = 1_000 // hashes of ten fields
	valueSize = 100
	msetPairs = 10
)

func allTests() []string { return []string{"set", "get", "incr", "mset", "hset"} }

// rate is what one measurement found.
type rate struct {
	perSecond float64
	p50, p99  time.Duration // of a pipeline, from its first byte to its last answer
}

// command appends one command of a test.
func command(b []byte, test string, value []byte) []byte {
	key := func(prefix string, space int) []byte { return fmt.Appendf(nil, "%s:%d", prefix, rand.IntN(space)) }
	switch test {
	case "set":
		return words(b, []byte("SET"), key("key", keySpace), value)
	case "get":
		return words(b, []byte("GET"), key("key", keySpace))
	case "incr":
		return words(b, []byte("INCR"), key("counter", keySpace))
	case "hset":
		return words(b, []byte("HSET"), key("hash", hashSpace), fmt.Appendf(nil, "field%d", rand.IntN(10)), value)
	}
	args := [][]byte{[]byte("MSET")}
	for range msetPairs {
		args = append(args, key("key", keySpace), value)
	}
	return words(b, args...)
}

func words(b []byte, args ...[]byte) []byte {
	b = fmt.Appendf(b, "*%d\r\n", len(args))
	for _, a := range args {
		b = append(append(fmt.Appendf(b, "$%d\r\n", len(a)), a...), '\r', '\n')
	}
	return b
}

// drive loads one side for a while.
func drive(ctx context.Context, s side, test string, depth int, o options) (rate, error) {
	ctx, cancel := context.WithTimeout(ctx, o.duration+time.Minute)
	defer cancel()
	end := time.Now().Add(o.duration)
	results := make([]worker, o.clients)
	var all sync.WaitGroup
	began := time.Now()
	for i := range results {
		all.Go(func() { results[i].run(ctx, s, test, depth, end) })
	}
	all.Wait()
	took := time.Since(began)
	var done int
	var times []time.Duration
	for _, w := range results {
		if w.err != nil {
			return rate{}, w.err
		}
		done += w.done
		times = append(times, w.times...)
	}
	slices.Sort(times)
	return rate{perSecond: float64(done) / took.Seconds(), p50: times[len(times)/2], p99: times[len(times)*99/100]}, nil
}

// worker is one connection.
type worker struct {
	done  int
	times []time.Duration
	err   error
}

func (w *worker) run(ctx context.Context, s side, test string, depth int, end time.Time) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", s.address)
	if err != nil {
		w.err = err
		return
	}
	defer func() { _ = conn.Close() }()
	if deadline, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(deadline)
	}
	in := bufio.NewReader(conn)
	value := bytes.Repeat([]byte("x"), valueSize)
	waits := s.wait && test != "get"
	var b []byte
	for ctx.Err() == nil && (time.Now().Before(end) || w.done == 0) {
		b = b[:0]
		for range depth {
			b = command(b, test, value)
		}
		if waits {
			b = words(b, []byte("WAIT"), []byte("1"), []byte("0"))
		}
		began := time.Now()
		if _, err := conn.Write(b); err != nil {
			w.err = err
			return
		}
		for range depth {
			if _, err := answer(in); err != nil {
				w.err = err
				return
			}
		}
		if waits {
			if n, err := answer(in); err != nil || n < 1 {
				w.err = errors.Join(err, fmt.Errorf("WAIT 1 answered %d", n))
				return
			}
		}
		w.times = append(w.times, time.Since(began))
		w.done += depth
	}
	w.err = ctx.Err()
}

// answer reads one reply, which is no list; a number is returned.
func answer(in *bufio.Reader) (int64, error) {
	line, err := in.ReadSlice('\n')
	if err != nil {
		return 0, err
	}
	switch line[0] {
	case '-':
		return 0, fmt.Errorf("it answers %q", line)
	case ':', '$':
		n, err := strconv.ParseInt(string(bytes.TrimSpace(line[1:])), 10, 64)
		if err == nil && line[0] == '$' && n >= 0 {
			_, err = io.CopyN(io.Discard, in, n+2)
		}
		return n, err
	case '+':
		return 0, nil
	}
	return 0, fmt.Errorf("it answers %q", line)
}
