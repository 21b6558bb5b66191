package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"time"

	"github.com/understudy-ha/understudy/client"
)

// Back-off between two runs of the program with the same batch.
const (
	firstRetry = 100 * time.Millisecond
	lastRetry  = 10 * time.Second
)

// received is one thing that came: a line to hand over, or only the news that everything up to after was seen.
type received struct {
	line     []byte
	after    string // where to go on behind it
	position string // the history position there, if it is known
	err      error  // the last one: why no more comes
}

// batch is what is handed over at once.
type batch struct {
	lines       bytes.Buffer
	count       int
	first, last string
	position    string
}

func (b *batch) add(r received) {
	if b.count == 0 {
		b.first = r.after
	}
	b.count++
	b.last = r.after
	if r.position != "" {
		b.position = r.position
	}
	b.lines.Write(r.line)
	b.lines.WriteByte('\n')
}

// consumer hands over what comes, batch by batch, and moves its place after each.
type consumer struct {
	a     *app
	o     receiveOptions
	place *place
}

// errStopped: a signal ended it in good order.
var errStopped = errors.New("stopped")

// run receives until ctx ends or, without --follow, until all was handed over that there is.
func (c *consumer) run(ctx context.Context, cl *client.Client) error {
	reading, stop := context.WithCancel(ctx)
	in := make(chan received) // not buffered: what is not wanted yet stays at the node
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer close(in)
		c.read(reading, cl, in)
	}()
	defer func() { stop(); <-done }()
	c.place.hold(ctx)
	for {
		b, end, err := c.collect(ctx, in)
		if err == nil && b.count > 0 {
			err = c.hand(ctx, b)
		}
		if err == nil {
			err = end
		}
		switch {
		case errors.Is(err, errStopped), err != nil && ctx.Err() != nil && errors.Is(err, ctx.Err()):
			c.place.hold(ctx)
			c.a.notice("Stopped after %s.", orNone(c.place.after))
			return nil
		case errors.Is(err, errAtEnd):
			c.place.hold(ctx)
			return nil
		case err != nil:
			return err
		}
	}
}

// errAtEnd: everything that there is was handed over.
var errAtEnd = errors.New("at the end")

// collect fills a batch. End says that no other one follows.
func (c *consumer) collect(ctx context.Context, in <-chan received) (b *batch, end, err error) {
	b = &batch{}
	var late <-chan time.Time
	for {
		if b.count >= c.o.batch || int64(b.lines.Len()) >= c.o.batchBytes {
			return b, nil, nil
		}
		if c.o.exec == "" && b.count > 0 { // printing does not wait
			select {
			case r, ok := <-in:
				if !ok || r.err != nil || r.line == nil { // closed: the next look finds out why
					return b, r.err, nil
				}
				b.add(r)
				continue
			default:
				return b, nil, nil
			}
		}
		select {
		case r, ok := <-in:
			switch {
			case !ok:
				return &batch{}, nil, errStopped
			case r.err != nil:
				return b, r.err, nil
			case r.line == nil && b.count == 0:
				if err := c.place.move(ctx, r.after, r.position); err != nil {
					return b, nil, err
				}
			case r.line != nil:
				if b.count == 0 {
					t := time.NewTimer(c.o.batchWait)
					defer t.Stop()
					late = t.C
				}
				b.add(r)
			}
		case <-late:
			return b, nil, nil
		case <-ctx.Done():
			return &batch{}, nil, errStopped // what was collected was not handed over
		}
	}
}

// hand hands a batch over, again and again if need be, and moves the place.
func (c *consumer) hand(ctx context.Context, b *batch) error {
	if c.o.exec == "" {
		if _, err := c.a.out.Write(b.lines.Bytes()); err != nil {
			return fmt.Errorf("print entries: %w", err)
		}
		return c.place.move(ctx, b.last, b.position)
	}
	pause := firstRetry
	for attempt := 1; ; attempt++ {
		err := c.program(b, attempt)
		if err == nil {
			return c.place.move(ctx, b.last, b.position)
		}
		stands := fmt.Sprintf("the batch %s to %s (%s) was not taken: %v", b.first, b.last, plural(b.count, "entry", "entries"), err)
		if c.o.retries >= 0 && attempt > c.o.retries {
			return exitWith(exitIncomplete, "%s, %d times; everything up to %s was taken; mend the program and start again", stands, attempt, orNone(c.place.after))
		}
		c.a.notice("understudy: %s; again in %s", stands, humanDuration(pause))
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return errStopped
		}
		pause = min(2*pause, lastRetry)
	}
}

// program runs the program with a batch. A signal that is meant for us does not reach it: the batch is finished.
func (c *consumer) program(b *batch, attempt int) error {
	cmd := exec.Command("/bin/sh", "-c", c.o.exec)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	in, err := wholeInput(b.lines.Bytes())
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }() // it is unlinked already
	cmd.Stdin = in
	cmd.Stdout, cmd.Stderr = c.a.out, c.a.err
	journal := ""
	if c.o.node != "" {
		journal = c.place.source()
	}
	cmd.Env = append(os.Environ(), "UNDERSTUDY_GROUP="+c.o.group, "UNDERSTUDY_JOURNAL="+journal, "UNDERSTUDY_FIRST="+b.first, "UNDERSTUDY_LAST="+b.last,
		"UNDERSTUDY_COUNT="+strconv.Itoa(b.count), "UNDERSTUDY_POSITION="+b.last, "UNDERSTUDY_ATTEMPT="+strconv.Itoa(attempt))
	return cmd.Run()
}

// wholeInput puts a batch into a file without a name: a pipe would end early if this process was killed, and the program would
// take a part for the whole.
func wholeInput(lines []byte) (*os.File, error) {
	f, err := os.CreateTemp("", "understudy-batch-*")
	if err != nil {
		return nil, fmt.Errorf("keep the batch for the program: %w", err)
	}
	_, err = f.Write(lines)
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err = errors.Join(err, os.Remove(f.Name())); err != nil {
		return nil, fmt.Errorf("keep the batch for the program: %w", errors.Join(err, f.Close()))
	}
	return f, nil
}

// read sends what comes until it ends; the last thing says why.
func (c *consumer) read(ctx context.Context, cl *client.Client, in chan<- received) {
	send := func(r received) bool {
		select {
		case in <- r:
			return true
		case <-ctx.Done():
			return false
		}
	}
	end := errAtEnd
	for e, err := range c.source(ctx, cl, send) {
		if err != nil {
			end = err
			break
		}
		r := received{after: e.Position, position: e.Position}
		if c.o.node != "" {
			r.after = strconv.FormatUint(e.Sequence, 10)
		}
		if r.line, err = encodeLine(e); err != nil {
			end = err
			break
		}
		if !send(r) {
			return
		}
	}
	send(received{err: end})
}

func encodeLine(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return bytes.TrimSpace(b.Bytes()), err
}

// source iterates over what is wanted.
func (c *consumer) source(ctx context.Context, cl *client.Client, send func(received) bool) iter.Seq2[client.Entry, error] {
	o, after := c.o, c.place.after
	if after == "" {
		after = o.after
	}
	if !o.follow {
		return pages(ctx, cl, o, after, send)
	}
	complained := time.Time{}
	follow := client.FollowOptions{EntryFilter: o.filter, After: after, Notice: func(n client.Notice) {
		switch {
		case n.Heartbeat != nil:
			r := received{after: n.Heartbeat.After}
			if o.node == "" {
				r.position = r.after
			}
			send(r)
		case n.Rewound != nil:
			line, err := encodeLine(struct {
				Rewound *client.Rewound `json:"rewound"`
			}{n.Rewound})
			if err == nil {
				send(received{line: line, after: strconv.FormatUint(n.Rewound.After, 10)})
			}
		case n.Err != nil && time.Since(complained) > 10*time.Second:
			complained = time.Now()
			c.a.notice("understudy: %s: %v; trying the next node", n.Node, n.Err)
		}
	}}
	if after != "" {
		follow.From = 0
	}
	if o.node == "" {
		return cl.FollowHistory(ctx, o.group, follow)
	}
	return cl.FollowJournal(ctx, o.group, o.node, follow)
}

// pages iterates over what there is at the moment.
func pages(ctx context.Context, cl *client.Client, o receiveOptions, after string, send func(received) bool) iter.Seq2[client.Entry, error] {
	return func(yield func(client.Entry, error) bool) {
		f := o.filter
		f.Limit = 1000
		if n, err := strconv.ParseUint(after, 10, 64); o.node != "" && err == nil {
			f.From = n + 1
		} else if o.node != "" && after != "" {
			f.PositionFrom = after // one too many: left out below
		}
		for {
			items, more, err := page(ctx, cl, o, &f, &after)
			if err != nil {
				yield(client.Entry{}, err)
				return
			}
			for _, e := range items {
				if f.PositionFrom != "" && e.Position == f.PositionFrom {
					continue
				}
				if !yield(e, nil) {
					return
				}
			}
			if o.node == "" && !send(received{after: after, position: after}) || !more {
				return
			}
		}
	}
}

// page asks for the next page and moves f, or after, behind it.
func page(ctx context.Context, cl *client.Client, o receiveOptions, f *client.EntryFilter, after *string) (items []client.Entry, more bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	if o.node != "" {
		p, err := cl.EntryPage(ctx, o.group, o.node, *f)
		f.From = p.Next
		return p.Items, p.Next != 0, err
	}
	p, err := cl.Facts(ctx, o.group, *after, *f)
	if err == nil {
		*after = p.Next
	}
	return p.Items, p.More, err
}
