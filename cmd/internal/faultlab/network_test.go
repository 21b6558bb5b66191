package faultlab

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"
)

// TestNetwork: each direction of a connection is held and delayed for itself, a reset reaches both ends, and who does not run refuses.
func TestNetwork(t *testing.T) {
	l := &Lab{names: []string{"a", "b"}, nodes: map[string]*Node{}}
	n, err := l.settleDown()
	must(t, err)
	t.Cleanup(n.close)
	n.pids = func() map[string][]int { return map[string][]int{"a": {os.Getpid()}} } // this test speaks for a
	b := n.stations["b"]
	if _, err := net.Dial("tcp", b.advertise[Raft]); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("b does not run, dialing it says %v", err)
	}
	ln, err := net.Listen("tcp", b.listen[Raft])
	must(t, err)
	t.Cleanup(func() { _ = ln.Close() })
	accepted := make(chan net.Conn, 1)
	go func() {
		if c, err := ln.Accept(); err == nil {
			accepted <- c
		}
	}()
	must(t, n.up(b))
	near, err := net.Dial("tcp", b.advertise[Raft])
	must(t, err)
	t.Cleanup(func() { _ = near.Close() })
	far := <-accepted
	t.Cleanup(func() { _ = far.Close() })

	there, back := Flow{"a", "b", Raft}, Flow{"b", "a", Raft}
	send := func(from net.Conn, text string) {
		t.Helper()
		if _, err := from.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	arrives := func(at net.Conn, text string, limit time.Duration) error {
		_ = at.SetReadDeadline(time.Now().Add(limit))
		buf := make([]byte, len(text))
		if _, err := io.ReadFull(at, buf); err != nil {
			return err
		}
		if string(buf) != text {
			t.Fatalf("%q arrived, %q was sent", buf, text)
		}
		return nil
	}
	const soon, never = time.Minute, 150 * time.Millisecond
	send(near, "1")
	must(t, arrives(far, "1", soon))

	n.Set(Condition{Hold: true}, there)
	send(near, "2")
	send(far, "back")
	must(t, arrives(near, "back", soon)) // the other direction is open
	if err := arrives(far, "2", never); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("held, and %v", err)
	}
	n.Set(Condition{}, there)
	must(t, arrives(far, "2", soon))
	if n.Touched(there) == 0 || n.Touched(back) != 0 {
		t.Errorf("touched: %d there, %d back", n.Touched(there), n.Touched(back))
	}

	n.Set(Condition{Delay: 200 * time.Millisecond}, back)
	began := time.Now()
	send(far, "late")
	must(t, arrives(near, "late", soon))
	if d := time.Since(began); d < 200*time.Millisecond {
		t.Errorf("it came after %s", d)
	}
	n.Heal()
	if n.Reset(there) != 1 {
		t.Error("no connection was reset")
	}
	for _, c := range []net.Conn{near, far} {
		if err := arrives(c, "x", soon); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("after a reset: %v", err)
		}
	}
	if n.Strangers() != 0 {
		t.Errorf("%d strangers", n.Strangers())
	}
}
