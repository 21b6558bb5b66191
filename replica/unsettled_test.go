package replica

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal"
	"github.com/understudy-ha/understudy/replica/core"
)

// undoneBesideAFullCopy has a, which wrote what did not live on, undo it while its copy of the new primary's journal has room for
// nothing: not for the switch either, which begins a receiver.
func undoneBesideAFullCopy(t *testing.T) (c *cluster, copied *journal.Journal) {
	c = newCluster(t, fsm.GroupSpec{KeepReceivers: 1, Delivery: fsm.DeliveryAsync}, "b", "a")
	a, b := c.nodes["a"], c.nodes["b"]
	for i := range 10 {
		b.mustPut(fmt.Sprint("k", i), strings.Repeat("x", 20<<10))
	}
	c.level("a")
	c.failover("a", true)
	c.serves("a")
	a.mustPut("k1", "common")
	c.level("b")
	c.eventually("b's turn is over", func() bool {
		own, _ := b.rep.Journal("b")
		return own.State() == journal.Standby
	})
	c.wires.sever("a", "b", true)
	a.mustPut("k1", "lost")
	a.mustPut("new", "lost")
	if err := a.store.Flush(t.Context()); err != nil { // a crash brings that back, until something else is flushed
		t.Fatal(err)
	}
	c.plane.isolate("a", true)
	copied, _ = a.rep.Journal("b")
	a.rep.shelf.mu.Lock() // the group has no cap: this copy alone is given one
	copied.SetLimits(journal.Limits{ReceiverBytes: c.spec.ReceiverBytes, SpareBytes: -1, MaximumBytes: copied.Space().Held})
	a.rep.shelf.mu.Unlock()
	c.failover("b", true)
	c.serves("b")
	for i := range 4 {
		b.mustPut(fmt.Sprint("later", i), strings.Repeat("y", 20<<10))
	}
	c.plane.isolate("a", false)
	c.wires.sever("a", "b", false)
	c.eventually("a has undone what does not live on", func() bool { _, ok := a.event(EventBackedOut); return ok })
	c.eventually("its copy is full", func() bool {
		for _, s := range b.rep.Status().Targets {
			if s.Node == "a" && strings.Contains(s.Reason, "is full") {
				return true
			}
		}
		return false
	})
	return c, copied
}

// Proves RJ-10, RJ-5, TR-5: a copy that is full while an undo is pending gets room by itself: the undo is settled at the fork, receivers that
// nobody needs go, and the node becomes level.
func TestFullCopyWithAnUndo(t *testing.T) {
	c, copied := undoneBesideAFullCopy(t)
	held := len(copied.Receivers())
	c.renew("a", "b")
	c.eventually("receivers that nobody needs go", func() bool { return copied.Receivers()[0].Number > 1 })
	c.eventually("a is level", func() bool {
		c.renew("a", "b")
		return c.nodes["a"].rep.Status().Applied == c.nodes["b"].rep.Status().Applied
	})
	c.level("a")
	c.nodes["a"].mustGet("k1", "common", true)
	t.Logf("%d receivers were held, %d are", held, len(copied.Receivers()))
}

// Proves RJ-10, I4: once an undo is settled, the power may fail: the store is at the fork then, though nothing beyond it was flushed.
func TestPowerCutAfterAnUndo(t *testing.T) {
	c, _ := undoneBesideAFullCopy(t)
	a := c.nodes["a"]
	c.eventually("the undo is settled", func() bool { return !a.rep.undos.settle(c.plane.group().History, a.rep.data.Flushed()) })
	a.crash(0)
	a = c.start("a") // the group has no cap: in this life the copy has room
	if at := a.store.Group(orders).Position(); !c.plane.group().History.Contains(at) {
		t.Fatalf("the store is back at %s, outside the history %v", at, c.plane.group().History)
	}
	c.level("a")
	a.mustGet("k1", "common", true)
}

// Nothing is deleted, of any journal, while an undo is pending: after a crash it may be wanted again. Proves RJ-5, RJ-10.
func TestNothingGoesWhileAnUndoIsPending(t *testing.T) {
	c := newCluster(t, fsm.GroupSpec{}, "a", "b") // receivers stay
	a, b := c.nodes["a"], c.nodes["b"]
	c.inSync("a", "b")
	for range 4 {
		a.mustPut("k", strings.Repeat("x", 4<<10))
		if _, err := a.rep.ChangeReceiver(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	a.mustPut("k", "last")
	c.level("b")
	copied, _ := b.rep.Journal("a")
	held := len(copied.Receivers())
	look, _ := b.rep.assignment()
	c.eventually("all is flushed and told", func() bool {
		c.renew("a", "b")
		look, _ = b.rep.assignment()
		flushed, ok := core.LowestFlushed(look, b.rep.data.Flushed())
		return ok && flushed == a.rep.Status().Applied && core.LowestCopy(look, "a") > copied.Receivers()[1].Last
	})
	g := *look.Group
	g.Spec.KeepReceivers = 1
	look.Group = &g
	retain := func() (err error) {
		for range 2 { // what may go is asked for in between
			err = errors.Join(err, b.rep.retain(t.Context(), look))
			b.rep.permits.work.Wait()
		}
		return err
	}
	at := b.rep.data.Position()
	fork := ident.Position{Epoch: at.Epoch, History: at.History + 1} // not reached: no flush settles it
	b.rep.undos.record(ident.Position{Epoch: at.Epoch, History: at.History + 9}, fork)
	if err := retain(); err != nil || len(copied.Receivers()) != held {
		t.Fatalf("%d of %d receivers are kept: %v", len(copied.Receivers()), held, err)
	}
	b.rep.undos.mu.Lock()
	b.rep.undos.log = core.UndoLog{}
	b.rep.undos.mu.Unlock()
	if err := retain(); err != nil || len(copied.Receivers()) >= held {
		t.Fatalf("without one %d of %d receivers are kept: %v", len(copied.Receivers()), held, err)
	}
}
