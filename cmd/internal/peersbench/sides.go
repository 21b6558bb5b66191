package main

import (
	"bufio"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	readyWait = 60 * time.Second
	stopWait  = 20 * time.Second
)

// tools are the programs that a run needs.
type tools struct{ understudy, server, benchmark string }

func findTools(o options) (t tools, err error) {
	var missing []error
	if t.understudy, err = filepath.Abs(o.understudy); err == nil {
		_, err = os.Stat(t.understudy)
	}
	if err != nil {
		missing = append(missing, fmt.Errorf("%w: run `make build` first", err))
	}
	if t.server, err = exec.LookPath("redis-server"); err != nil {
		missing = append(missing, errors.New("redis-server is not installed; on Debian: apt-get install redis-server"))
	}
	if t.benchmark, err = exec.LookPath("redis-benchmark"); err != nil && o.requests > 0 {
		missing = append(missing, errors.New("redis-benchmark is not installed; on Debian: apt-get install redis-tools"))
	}
	return t, errors.Join(missing...)
}

// side is one of the two that are compared.
type side struct {
	name, address, about string
	wait                 bool // a write is followed by WAIT 1
}

// child is a process that this one has started.
type child struct {
	name string
	cmd  *exec.Cmd
	log  *os.File
	done chan struct{} // closed when it has ended
}

// start runs a program in a process group of its own, so that Ctrl-C reaches it only through stop.
func start(name, dir string, program string, args ...string) (*child, error) {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, err
	}
	log, err := os.Create(filepath.Join(dir, "output"))
	if err != nil {
		return nil, err
	}
	c := &child{name: name, cmd: exec.Command(program, args...), log: log, done: make(chan struct{})}
	c.cmd.Stdout, c.cmd.Stderr = log, log
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := c.cmd.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("start %s: %w", name, err), log.Close())
	}
	go func() {
		defer close(c.done)
		_ = c.cmd.Wait() // how it ends is of no interest
	}()
	return c, nil
}

// stop asks the process to end, and kills it and its children when it does not.
func (c *child) stop() error {
	_ = c.cmd.Process.Signal(os.Interrupt)
	select {
	case <-c.done:
	case <-time.After(stopWait):
	}
	_ = syscall.Kill(-c.cmd.Process.Pid, syscall.SIGKILL) // the group is gone when all went well
	<-c.done
	return c.log.Close()
}

// output is what the process has printed.
func (c *child) output() string {
	b, _ := os.ReadFile(c.log.Name())
	return string(b)
}

// startSides starts both. stop is never nil.
func startSides(ctx context.Context, t tools, dir string) (sides [2]side, stop func() error, err error) {
	var children []*child
	stop = func() (err error) {
		for i := len(children) - 1; i >= 0; i-- {
			err = errors.Join(err, children[i].stop())
		}
		return err
	}
	base, err := freeBase()
	if err != nil {
		return sides, stop, err
	}
	c, err := start("understudy", filepath.Join(dir, "understudy"), t.understudy, "dev", "--data", filepath.Join(dir, "understudy", "data"), "--base-port", strconv.Itoa(base))
	if err != nil {
		return sides, stop, err
	}
	children = append(children, c)
	if err := await(ctx, c, func() bool { return strings.Contains(c.output(), "The cluster is ready") }); err != nil {
		return sides, stop, err
	}
	version, _ := exec.Command(t.understudy, "version").Output()
	sides[0] = side{name: "Understudy", address: loopback(base + 4), about: firstLine(string(version)) + ", `understudy dev`: three nodes, one in-sync secondary"}

	var primary string
	for i := range 3 {
		port, err := freePort()
		if err != nil {
			return sides, stop, err
		}
		name := fmt.Sprint("redis", i)
		args := []string{"--bind", "127.0.0.1", "--port", strconv.Itoa(port), "--save", "", "--appendonly", "yes", "--appendfsync", "always", "--repl-diskless-sync-delay", "0"}
		if i > 0 {
			args = append(args, "--replicaof", strings.ReplaceAll(primary, ":", " "))
		} else {
			primary = loopback(port)
		}
		args = append(args, "--dir", filepath.Join(dir, name))
		c, err := start(name, filepath.Join(dir, name), t.server, args...)
		if err != nil {
			return sides, stop, err
		}
		children = append(children, c)
		if err := await(ctx, c, func() bool { return strings.Contains(asked(loopback(port), "PING"), "PONG") }); err != nil {
			return sides, stop, err
		}
	}
	both := func() bool {
		info := asked(primary, "INFO", "replication")
		return strings.Contains(info, "connected_slaves:2") && strings.Count(info, "state=online") == 2
	}
	if err := await(ctx, children[1], both); err != nil {
		return sides, stop, err
	}
	redis, _ := exec.Command(t.server, "--version").Output()
	sides[1] = side{name: "Redis", address: primary, wait: true, about: firstLine(string(redis)) + ": two replicas, appendonly yes, appendfsync always on all three"}
	return sides, stop, nil
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(s), "\n")
	return line
}

// await waits until a process is ready.
func await(ctx context.Context, c *child, ready func() bool) error {
	for end := time.Now().Add(readyWait); ; {
		if ready() {
			return nil
		}
		select {
		case <-c.done:
			return fmt.Errorf("%s has ended:\n%s", c.name, c.output())
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
		if time.Now().After(end) {
			return fmt.Errorf("%s is not ready after %s:\n%s", c.name, readyWait, c.output())
		}
	}
}

// asked sends a command and returns what came first; "" when nothing did.
func asked(address string, command ...string) string {
	conn, err := net.DialTimeout("tcp", address, time.Second)
	if err != nil {
		return ""
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(time.Second))
	if _, err := io.WriteString(conn, strings.Join(command, " ")+"\r\n"); err != nil {
		return ""
	}
	b := make([]byte, 16<<10)
	n, _ := bufio.NewReader(conn).Read(b)
	return string(b[:n])
}

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	return l.Addr().(*net.TCPAddr).Port, l.Close()
}

// freeBase finds ports for three nodes: five in each of three tens.
func freeBase() (int, error) {
	for base := 17400; base < 30000; base += 100 {
		if free(base) {
			return base, nil
		}
	}
	return 0, errors.New("no free ports for a cluster")
}

func free(base int) bool {
	for i := range 15 {
		l, err := net.Listen("tcp", loopback(base+i/5*10+i%5))
		if err != nil {
			return false
		}
		_ = l.Close()
	}
	return true
}

// redisBenchmark runs redis-benchmark against one side. Keys are spread, but not the fields of its one hash: a hash of a hundred thousand
// fields is no use that docs/redis.md recommends.
func (t tools) redisBenchmark(ctx context.Context, s side, depth int, o options) (map[string]rate, error) {
	all := map[string]rate{}
	for _, spread := range []bool{true, false} {
		tests := slices.DeleteFunc(slices.Clone(o.tests), func(test string) bool { return spread == (test == "hset") })
		if len(tests) == 0 {
			continue
		}
		if err := t.redisBenchmarkOf(ctx, s, depth, o, tests, spread, all); err != nil {
			return nil, fmt.Errorf("redis-benchmark against %s: %w", s.name, err)
		}
	}
	return all, nil
}

func (t tools) redisBenchmarkOf(ctx context.Context, s side, depth int, o options, tests []string, spread bool, all map[string]rate) error {
	host, port, _ := net.SplitHostPort(s.address)
	args := []string{"-h", host, "-p", port, "-t", strings.Join(tests, ","), "-n", strconv.Itoa(o.requests * min(depth, 4)),
		"-c", strconv.Itoa(o.clients), "-P", strconv.Itoa(depth), "-d", strconv.Itoa(valueSize), "--csv"}
	if spread {
		args = append(args, "-r", strconv.Itoa(keySpace))
	}
	raw, err := exec.CommandContext(ctx, t.benchmark, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w\n%s", err, raw)
	}
	rows := csv.NewReader(strings.NewReader(string(raw)))
	rows.FieldsPerRecord = -1
	for {
		row, err := rows.Read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%w\n%s", err, raw)
		}
		if len(row) < 8 {
			continue
		}
		test, _, _ := strings.Cut(strings.ToLower(row[0]), " ")
		field := func(i int) float64 { f, _ := strconv.ParseFloat(row[i], 64); return f }
		ms := func(i int) time.Duration { return time.Duration(field(i) * float64(time.Millisecond)) }
		all[test] = rate{perSecond: field(1), p50: ms(4), p99: ms(6)} // test, rps, avg, min, p50, p95, p99, max
	}
}
