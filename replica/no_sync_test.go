package replica

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/replica/core"
)

// Proves on_no_sync hold and refuse on whole replicas: when the only secondary is lost what was sequenced has an unknown
// outcome, what waits ends by its deadline as not done or is answered when the secondary is back, and nothing is acknowledged
// by a lone primary. Status and events tell of it, once each way.
func TestNoSyncHoldsOrRefuses(t *testing.T) {
	for _, mode := range []string{fsm.NoSyncHold, fsm.NoSyncRefuse} {
		t.Run(mode, func(t *testing.T) {
			c := newSteadyCluster(t, fsm.GroupSpec{OnNoSync: mode}, "a", "b")
			a := c.nodes["a"]
			c.inSync("a", "b")
			c.eventually("writes are open", func() bool { return a.rep.Status().Writes == core.WritesOpen })
			a.mustPut("k", "v")
			b := c.nodes["b"]
			release := b.hangDisk("a") // so that the secondary is not missed before something is in flight
			last := a.rep.Status().Sequence
			sequenced := make(chan error, 1)
			go func() { _, err := a.put("flying", "v"); sequenced <- err }()
			c.eventually("it is in flight", func() bool { return a.rep.Status().Sequence > last })
			c.wires.sever("a", "b", true)
			b.fail.Delete("journal.sync:orders/a")
			release()
			want := map[string]core.Writes{fsm.NoSyncHold: core.WritesHeld, fsm.NoSyncRefuse: core.WritesRefused}[mode]
			c.eventually("the loss is noticed", func() bool { return a.rep.Status().Writes == want })

			c.eventually("it is told", func() bool { turns := a.turns(t); return len(turns) > 0 && turns[len(turns)-1] == EventNoSync })
			wait := patience // it is refused long before
			if mode == fsm.NoSyncHold {
				wait = 50 * time.Millisecond
			}
			short, cancel := context.WithTimeout(t.Context(), wait)
			defer cancel()
			_, err := a.rep.Write(short, Transaction{Writes: []Write{{File: "f", Key: []byte("late"), Value: []byte("w")}}})
			if !NotDone(err) || mode == fsm.NoSyncHold && !errors.Is(err, ErrNotSequenced) || mode == fsm.NoSyncRefuse && !errors.Is(err, ErrNoSync) {
				t.Fatalf("a write with a deadline: %v", err)
			}
			waiting := make(chan error, 1)
			go func() { _, err := a.put("patient", "v"); waiting <- err }()
			switch mode {
			case fsm.NoSyncHold:
				c.eventually("it waits", func() bool { return a.rep.Status().HeldWrites == 1 })
			case fsm.NoSyncRefuse:
				if err := <-waiting; !errors.Is(err, ErrNoSync) {
					t.Fatalf("a patient write is refused too: %v", err)
				}
			}
			select {
			case err := <-sequenced:
				t.Fatalf("the write in flight was answered by a lone primary: %v", err)
			default:
			}
			a.mustGet("k", "v", false)
			if g := c.plane.group(); !g.InSet("b") {
				t.Fatal("the last secondary was given up")
			}

			c.wires.sever("a", "b", false)
			if err := <-sequenced; err != nil {
				t.Fatalf("the write in flight: %v", err)
			}
			if mode == fsm.NoSyncHold {
				if err := <-waiting; err != nil {
					t.Fatalf("the held write: %v", err)
				}
			}
			c.eventually("writes are open again", func() bool { return a.rep.Status().Writes == core.WritesOpen })
			a.mustPut("k", "x")
			if _, err := a.get("late", false); !errors.Is(err, ErrNotFound) {
				t.Fatalf("what was said to be not done: %v", err)
			}
			c.eventually("it is told", func() bool { turns := a.turns(t); return turns[len(turns)-1] == EventSyncBack })
			c.level("b")
		})
	}
}

// turns returns the events of the loss of the last secondary and of its return, as the node has told them. None is told twice.
func (n *node) turns(t *testing.T) (out []EventKind) {
	t.Helper()
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, e := range n.events {
		if e.Kind == EventNoSync || e.Kind == EventSyncBack {
			out = append(out, e.Kind)
		}
	}
	for i, k := range out {
		if lost := k == EventNoSync; lost != (i%2 == 0) {
			t.Fatalf("not told in turns, the loss first: %v", out)
		}
	}
	return out
}

// Proves TR-1: in every mode a lost secondary is replaced by the standby without an operator, once; when it returns the number
// of secondaries wanted decides that it stays outside, and the set does not change any more. No write fails.
func TestStandbyReplacesSecondary(t *testing.T) {
	for _, mode := range []string{fsm.NoSyncDegrade, fsm.NoSyncHold, fsm.NoSyncRefuse} {
		t.Run(mode, func(t *testing.T) {
			c := newSteadyCluster(t, fsm.GroupSpec{OnNoSync: mode}, "a", "b", "c")
			c.inSync("a", "b")
			a := c.nodes["a"]
			c.eventually("writes are open", func() bool { _, err := a.put("k", "0"); return err == nil })
			c.nodes["b"].crash(0)
			c.eventually("the standby is in its place", func() bool { g := c.plane.group(); return len(g.InSync) == 2 && g.InSet("c") })
			for i := range 20 {
				c.eventually("writes go on", func() bool { _, err := a.put(fmt.Sprint(i), "v"); return err == nil })
			}
			version := c.plane.group().SetVersion
			c.start("b")
			c.level("b", "c")
			b := c.nodes["b"]
			c.eventually("b is told a spare and level", func() bool { return b.told() == "SRSTANDBY(a) SRRECOVERCMPL(a)" })
			for i := range 200 { // many looks of the conductor, with b as good a candidate as c
				a.mustPut(fmt.Sprint("again ", i), "v")
			}
			if g := c.plane.group(); g.SetVersion != version || !g.InSet("c") || g.InSet("b") {
				t.Fatalf("the set changed from version %d to %d: %v", version, g.SetVersion, g.InSync)
			}
			// One more than wanted, from elsewhere: the set goes back to what is wanted.
			g := c.plane.group()
			c.must(fsm.Command{ChangeSet: &fsm.ChangeSet{Group: orders, Epoch: g.Epoch, Version: g.SetVersion, Add: "b", Reason: "test"}})
			c.eventually("one of them goes", func() bool { return len(c.plane.group().InSync) == 2 })
			if g := c.plane.group(); !g.InSet("b") {
				t.Fatalf("b has the lower priority number and is out: %v", g.InSync)
			}
			a.mustPut("k", "1")
		})
	}
}
