package testcluster

import (
	"fmt"
	"testing"
	"time"

	"github.com/understudy-ha/understudy/client"
	"github.com/understudy-ha/understudy/cmd/internal/switchload"
	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
)

// loaded starts clients that know exactly what they have to find. moves is for tests in which nodes are stopped.
func (c *Cluster) loaded(moves bool) *switchload.Load {
	o := switchload.Options{Redis: 12, Writers: 6, Timeout: time.Minute, Moves: moves, Think: time.Millisecond}
	for _, id := range c.options.Nodes {
		l := c.Node(id).config.Listen
		o.Nodes = append(o.Nodes, switchload.Endpoint{Node: string(id), HTTP: l.HTTP, Redis: l.Redis})
	}
	l := switchload.New(o)
	c.t.Cleanup(l.Close)
	return l
}

// checked lets the load rest and compares what its clients know, and all nodes' data.
func (c *Cluster) checked(l *switchload.Load) {
	c.t.Helper()
	l.Rest()
	if err := l.Check(c.t.Context()); err != nil {
		c.t.Fatal(err)
	}
	c.Wait("all have all", time.Minute, c.settled)
	c.equalDigests()
	if t := l.Tally(); t.Wrong() {
		c.t.Fatalf("%s: %q", t, t.Examples)
	}
}

// handTo hands the role over, however long the machine takes for it.
func (c *Cluster) handTo(to ident.NodeID) {
	c.t.Helper()
	c.Wait("the role goes to "+string(to), 2*time.Minute, func() error {
		q := client.SwitchoverRequest{To: string(to), MaxPause: client.Duration(30 * time.Second)}
		op, err := c.primary().Client().Switchover(c.t.Context(), "default", q, time.Minute)
		if err != nil || op.State != client.OperationDone {
			return fmt.Errorf("%+v, %v", op, err)
		}
		return nil
	})
}

// TestNobodyNoticesSwitchovers: Redis connections and HTTP writers at every node, of which each knows what the answer to its next write has to
// be, notice nothing while the role goes round; nothing is lost or done twice, and no connection is closed. Proves BX-1 and TR-3.
func TestNobodyNoticesSwitchovers(t *testing.T) {
	c := Start(t, Options{Timing: steady(), Group: fsm.GroupSpec{Preferred: "a"}})
	l := c.loaded(false)
	for _, to := range []ident.NodeID{"b", "c", "a", "c"} {
		l.Resume()
		w := l.Watch()
		c.handTo(to)
		if p, err := w.End(t.Context()); err != nil || p.Writes == 0 {
			t.Fatalf("to %s: %+v, %v", to, p, err)
		}
		c.checked(l)
	}
	if moved := l.Tally().Moved; moved > 0 {
		t.Errorf("%d connections were closed", moved)
	}
}

// TestNobodyNoticesARollingRestart: every node is stopped in good order and started again, one after the other, under the same load. Whoever
// speaks to another node notices nothing; whose own node stops gets an answer to everything that was taken, and goes on at another one; what a
// node did not take it did not do. Proves BX-1 and CL-3.
func TestNobodyNoticesARollingRestart(t *testing.T) {
	c := Start(t, Options{Group: fsm.GroupSpec{Preferred: "a"}})
	l := c.loaded(true)
	for _, id := range c.options.Nodes {
		n := c.Node(id)
		l.Resume()
		w := l.Watch()
		primary := c.primary() == n
		if moved := n.retire(); primary != (moved == 1) {
			t.Fatalf("%s, primary %t, handed %d roles over", id, primary, moved)
		}
		n.Start()
		if _, err := w.End(t.Context()); err != nil {
			t.Fatal(err)
		}
		l.Rest()
		c.Wait(fmt.Sprintf("%s is level again", id), time.Minute, c.settled)
		c.checked(l)
	}
	if l.Tally().Moved == 0 {
		t.Error("no connection was closed by a node that stopped")
	}
}

// TestSwitchoverMissesItsDeadline: a switch-over whose target does not get everything in max_pause is rolled back. Whoever wrote meanwhile, over
// HTTP or Redis and through any node, is answered by the old primary, on the same connection. Proves BX-1 and CL-5.
func TestSwitchoverMissesItsDeadline(t *testing.T) {
	c := Start(t, Options{Timing: steady(), Group: fsm.GroupSpec{Preferred: "a"}})
	p := c.primary()
	var target, other *Node // outside the set, and in it
	choose := func() error {
		g, err := p.client.Group(t.Context(), "default")
		if err != nil || len(g.InSync) != 1 || !g.Local.Serving {
			return fmt.Errorf("%+v, %v", g, err)
		}
		for _, id := range c.options.Nodes {
			switch n := c.Node(id); {
			case n == p:
			case string(id) == g.InSync[0]:
				other = n
			default:
				target = n
			}
		}
		return nil
	}
	record := func(n *Node, key string) error {
		_, err := n.client.Put(t.Context(), "file", []byte(key), []byte("value"), client.WriteOptions{Wait: time.Minute})
		return err
	}
	hangs := "journal.sync:default/" + string(p.ID)
	tries, missed := 0, false
	for ; !missed; tries++ { // a switch-over that was over before anybody wrote does not miss its deadline
		if tries == 10 {
			t.Fatal("nobody wrote in time")
		}
		if tries > 0 {
			c.handTo(p.ID)
		}
		if err := record(p, "before"); err != nil {
			t.Fatal(err)
		}
		c.Wait("all are level", time.Minute, c.settled)
		c.Wait("one is in the set", time.Minute, choose)
		target.Disk().Pause(hangs)
		op, err := p.client.Switchover(t.Context(), "default", client.SwitchoverRequest{To: string(target.ID), MaxPause: client.Duration(2 * time.Second)}, time.Millisecond)
		if err != nil {
			t.Fatal(err)
		}
		c.Wait("the old primary has its turn", time.Minute, func() error {
			if op, err = p.client.Operation(t.Context(), op.ID, 0); err != nil || op.Step == fsm.StepPrepare {
				return fmt.Errorf("%+v, %v", op, err)
			}
			return nil
		})
		answers := make(chan error, 5)
		for i, n := range []*Node{p, other, target} {
			go func() { answers <- record(n, fmt.Sprint("meanwhile-", i)) }()
		}
		for _, n := range []*Node{p, other} {
			r := c.redisOf(n.ID)
			go func() { answers <- r.Incr(t.Context(), "counter").Err() }()
		}
		if op, err = p.client.Operation(t.Context(), op.ID, time.Minute); err != nil {
			t.Fatal(err)
		}
		switch missed = op.State == client.OperationRolledBack; {
		case missed && op.Error == "", !missed && op.State != client.OperationDone:
			t.Fatalf("it ended as %+v", op)
		case !missed:
			target.Disk().Resume(hangs)
		}
		for range cap(answers) {
			if err := <-answers; err != nil {
				t.Errorf("a write of that time: %v", err)
			}
		}
	}
	if n, err := c.redisOf(other.ID).Get(t.Context(), "counter").Int(); err != nil || n != 2*tries {
		t.Errorf("the counter is %d, %v", n, err)
	}
	if now := c.primary(); now != p {
		t.Errorf("%s serves, want %s", now.ID, p.ID)
	}
	target.Disk().Resume(hangs)
	c.Wait("all are level again", time.Minute, c.settled)
	c.equalDigests()
}
