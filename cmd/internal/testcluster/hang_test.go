package testcluster

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/understudy-ha/understudy/client"
	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/watchdog"
)

// Proves the row "hung disk" of the fault matrix, on whole nodes: the disk of the primary hangs under writers. The watchdog
// ends that node within its limit, Close does not hang, another node takes over although the old one's process still heart-beats
// until then, nothing acknowledged is lost and every write with an unknown outcome is settled.
func TestHungDiskEndsTheNode(t *testing.T) {
	const limit = 2 * time.Second
	c := Start(t, Options{Watchdog: limit})
	w := c.write(4)
	c.Wait("writes go on", 20*time.Second, func() error {
		if n := w.count(); n < 100 {
			return fmt.Errorf("%d acknowledged", n)
		}
		return nil
	})
	p := c.primary()
	began := turns()
	p.Disk().Stall()
	var told error
	select {
	case told = <-p.running.Failed():
	case <-time.After(time.Minute):
		t.Fatal("the watchdog says nothing")
	}
	after := began()
	var hang *watchdog.HangError
	if !errors.As(told, &hang) || hang.For <= limit || after > 2*limit {
		t.Fatalf("told after %s: %v", after, told)
	}
	closing := turns()
	err := p.running.Close() // the disk still hangs
	took := closing()
	if took > 8*time.Second {
		t.Fatalf("closing the node took %s", took)
	}
	if err == nil || !strings.Contains(err.Error(), "left behind") {
		t.Fatalf("closed with %v", err)
	}
	t.Logf("told after %s: %v; closed after %s more", after.Round(time.Millisecond), told, took.Round(time.Millisecond))
	next := c.primary()
	if next == p {
		t.Fatal("the node whose disk hangs serves")
	}
	before := w.count()
	c.Wait("writes go on at another node", 20*time.Second, func() error {
		if n := w.count(); n < before+50 {
			return fmt.Errorf("%d acknowledged since", n-before)
		}
		return nil
	})
	w.finish()
	for key, value := range w.acked {
		r, err := next.Client().Get(t.Context(), "load", []byte(key), client.ReadOptions{})
		if err != nil || string(r.Value) != value {
			t.Fatalf("acknowledged %s is %q, %v", key, r.Value, err)
		}
	}
	p.forget()
}

// turns measures the time in which this process has its turn: a clock that stands still while the machine lets it wait. Call what it returns once.
func turns() func() time.Duration {
	const tick = 5 * time.Millisecond
	over, counted := make(chan struct{}), make(chan time.Duration)
	go func() {
		var sum time.Duration
		for last := time.Now(); ; {
			select {
			case <-over:
				counted <- sum
				return
			case <-time.After(tick):
				now := time.Now()
				sum += min(now.Sub(last), 2*tick)
				last = now
			}
		}
	}()
	return func() time.Duration { close(over); return <-counted }
}

// forget lets the goroutines that hung in a node's disk end, and forgets the node.
func (n *Node) forget() {
	n.disk.release()
	n.client.Close()
	n.running = nil
}

// Proves the row "hung disk" for a secondary: it is taken out, its process ends, the primary goes on with a standby.
func TestHungDiskOfSecondary(t *testing.T) {
	c := Start(t, Options{Watchdog: time.Second, Group: fsm.GroupSpec{}})
	p := c.primary()
	st, err := p.Client().Group(t.Context(), "default")
	if err != nil || len(st.InSync) != 1 {
		t.Fatalf("%+v, %v", st.InSync, err)
	}
	w := c.write(2)
	var s *Node
	for id, n := range c.nodes {
		if string(id) == st.InSync[0] {
			s = n
		}
	}
	s.Disk().Stall()
	var hang *watchdog.HangError
	select {
	case err := <-s.running.Failed():
		if !errors.As(err, &hang) {
			t.Fatal(err)
		}
	case <-time.After(time.Minute):
		t.Fatal("the watchdog says nothing")
	}
	if err := s.running.Close(); err == nil {
		t.Fatal("nothing was left behind")
	}
	c.Wait("the standby takes its place", 20*time.Second, func() error {
		g, err := p.Client().Group(t.Context(), "default")
		if err != nil || len(g.InSync) != 1 || g.InSync[0] == string(s.ID) || g.Primary != string(p.ID) {
			return fmt.Errorf("primary %s, in sync %v, %v", g.Primary, g.InSync, err)
		}
		return nil
	})
	before := w.count()
	c.Wait("writes go on", 20*time.Second, func() error {
		if n := w.count(); n < before+50 {
			return fmt.Errorf("%d acknowledged since", n-before)
		}
		return nil
	})
	w.finish()
	s.forget()
}
