package replica

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal"
	"github.com/understudy-ha/understudy/journal/entry"
)

// hang makes the disk of a node's own journal hang until the returned function is called: entries still go out.
func (n *node) hang() (release func()) {
	gate := make(chan struct{})
	n.fail.Store("journal.sync:orders/"+string(n.id), func() error {
		<-gate
		return errors.New("the disk hung")
	})
	return func() { close(gate) }
}

// asyncPut writes in the background and passes the outcome on.
func (n *node) asyncPut(key, value string) <-chan error {
	done := make(chan error, 1)
	n.wg.Go(func() {
		_, err := n.put(key, value)
		done <- err
	})
	return done
}

// Proves RJ-8: an unplanned switch-over keeps what was received unconfirmed, in the local journal of the new primary, and
// removes it from the copy.
func TestTakeoverKeepsUnconfirmedTail(t *testing.T) {
	c := newCluster(t, fsm.GroupSpec{}, "a", "b", "c")
	a, b := c.nodes["a"], c.nodes["b"]
	c.keepInSync("a", "b")
	for i := range 5 {
		a.mustPut(fmt.Sprint("k", i), "confirmed")
	}
	c.level("b", "c")
	copied, _ := b.rep.Journal("a")
	var before journal.View
	c.eventually("b knows everything confirmed", func() bool {
		before, _ = copied.View()
		return before.Confirmed == before.Last
	})
	release := a.hang()
	// One bundle is on its way at a time, so the hung disk lets exactly one out.
	first := a.asyncPut("tail", "unconfirmed")
	c.eventually("the tail is durable at b", func() bool {
		v, _ := copied.View()
		return v.Durable > before.Last
	})
	if v, _ := copied.View(); v.Confirmed != before.Last {
		t.Fatalf("b takes %s for confirmed", v.Confirmed)
	}
	a.mute.Store(true)
	c.plane.isolate("a", true)
	c.failover("b", false)
	c.serves("b")
	b.mustGet("tail", "unconfirmed", false)
	e, ok := b.event(EventRejournaled)
	if !ok {
		t.Fatal("nothing was re-journaled")
	}
	own, _ := b.rep.Journal("b")
	bundle, err := own.BundleAt(e.First)
	if err != nil {
		t.Fatal(err)
	}
	if bundle.Origin != before.Last+1 || bundle.Session != 2 || bundle.Fact.Epoch != 1 || bundle.Before != before.After {
		t.Fatalf("re-journaled bundle %+v", bundle.Header)
	}
	sw, err := own.BundleAt(e.Last + 1)
	if err != nil || !sw.Holds(entry.User, entry.Switch) {
		t.Fatalf("no SW after the re-journaled tail: %+v %v", sw.Header, err)
	}
	data, _, _, err := b.rep.readSwitch(sw.Fact)
	if err != nil || data.Journal != "orders/a" || data.Received != before.Last+1 || data.Last != before.Last {
		t.Fatalf("SW says %+v, %v", data, err)
	}
	// Step 7: the copy is cut to what was confirmed, at b and, once b's journal got there, at c.
	for _, id := range []ident.NodeID{"b", "c"} {
		j, _ := c.nodes[id].rep.Journal("a")
		c.eventually("the copy is trimmed at "+string(id), func() bool {
			v, _ := j.View()
			return v.Last == before.Last
		})
	}
	c.level("c")
	release()
	err = <-first
	var unknown *UnknownOutcomeError
	if !errors.As(err, &unknown) || unknown.Position != bundle.After() {
		t.Fatalf("the old primary answered %v, want an unknown outcome at %s", err, bundle.After())
	}
	if !c.plane.group().History.Contains(unknown.Position) {
		t.Fatal("the receipt says that the write is lost, but it lives on")
	}
}

// A write in flight when the epoch is fenced has an unknown outcome, and is in the history once or not at all.
func TestFencedInMidWrite(t *testing.T) {
	for _, reaches := range []bool{true, false} {
		t.Run(fmt.Sprint("reaches the target ", reaches), func(t *testing.T) {
			c := newCluster(t, fsm.GroupSpec{}, "a", "b", "c")
			a, b := c.nodes["a"], c.nodes["b"]
			c.keepInSync("a", "b")
			a.mustPut("k", "old")
			if !reaches {
				c.plane.isolate("a", true) // else the set would shrink
				c.wires.sever("a", "b", true)
				c.wires.sever("a", "c", true)
			} else {
				c.plane.lease("a", false) // held back from the start: use the disk instead
				c.plane.lease("a", true)
				release := a.hang()
				defer release()
				a.mute.Store(true)
			}
			last := a.rep.Status().Sequence
			done := a.asyncPut("k", "new")
			c.eventually("the write is sequenced", func() bool { return a.rep.Status().Sequence > last })
			if reaches {
				copied, _ := b.rep.Journal("a")
				c.eventually("the write is at b", func() bool {
					v, _ := copied.View()
					return v.Durable > last
				})
			}
			c.plane.isolate("a", true)
			c.failover("b", false)
			c.serves("b")
			want := "old"
			if reaches {
				want = "new"
			}
			b.mustGet("k", want, false)
			c.plane.isolate("a", false)
			var unknown *UnknownOutcomeError
			if err := <-done; !errors.As(err, &unknown) {
				t.Fatalf("the write ended with %v", err)
			}
			c.wires.sever("a", "b", false)
			c.wires.sever("a", "c", false)
			b.mustPut("k2", "after")
			if in := c.plane.group().History.Contains(unknown.Position); in != reaches {
				t.Fatalf("position %s in the history: %t", unknown.Position, in)
			}
			count := 0
			for _, s := range b.history() {
				if s == "k=new" {
					count++
				}
			}
			if reaches && count != 1 || !reaches && count != 0 {
				t.Fatalf("the write stands %d times in the history", count)
			}
		})
	}
}

// Proves RJ-10: the old primary backs out what does not live on, reports it, and ends equal to the new primary.
func TestRestartBacksOut(t *testing.T) {
	for _, crash := range []string{"no", "stop", "power"} {
		t.Run("crash: "+crash, func(t *testing.T) {
			c := newCluster(t, fsm.GroupSpec{Delivery: fsm.DeliveryAsync}, "a", "b", "c")
			a, b := c.nodes["a"], c.nodes["b"]
			for i := range 10 {
				a.mustPut(fmt.Sprint("k", i), "common")
			}
			c.level("b", "c")
			c.wires.sever("a", "b", true)
			c.wires.sever("a", "c", true)
			a.mustPut("k1", "lost")
			a.mustPut("new", "lost")
			if _, err := a.rep.Write(t.Context(), Transaction{Writes: []Write{{File: "f", Key: []byte("k2"), Delete: true}}}); err != nil {
				t.Fatal(err)
			}
			a.mustGet("k1", "lost", false)
			if err := a.store.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
			c.plane.isolate("a", true)
			switch crash {
			case "stop":
				a.stop()
			case "power":
				a.crash(0)
			}
			c.failover("b", true)
			c.serves("b")
			b.mustGet("k1", "common", false)
			for i := range 10 {
				b.mustPut(fmt.Sprint("later", i), "b")
			}
			c.plane.isolate("a", false)
			c.wires.sever("a", "b", false)
			c.wires.sever("a", "c", false)
			if crash != "no" {
				a = c.start("a")
			}
			c.level("a", "c")
			a.mustGet("k1", "common", true)
			a.mustGet("k2", "common", true)
			if _, err := a.get("new", true); !errors.Is(err, ErrNotFound) {
				t.Fatalf("a record that was backed out: %v", err)
			}
			own, _ := a.rep.Journal("a")
			c.eventually("the local journal of the old primary is STANDBY", func() bool { return own.State() == journal.Standby })
			reports, err := a.rep.Backouts()
			if err != nil || len(reports) != 1 {
				t.Fatalf("reports %+v, %v", reports, err)
			}
			r, err := a.rep.Backout(reports[0].ID)
			if err != nil || len(r.Entries) != 3 || r.Lost != 3 || r.Undone != 3 || r.Epoch != 2 {
				t.Fatalf("report %+v, %v", r, err)
			}
			e := r.Entries[0]
			if string(e.Key) != "k1" || string(e.Before) != "common" || string(e.After) != "lost" || e.LivesOn || e.Journal.Node != "a" {
				t.Fatalf("entry %+v", e)
			}
			// And back, so that the author's copies elsewhere with the dead tail have to agree with it.
			if crash == "no" {
				return
			}
			c.eventually("nothing of the undo is pending", func() bool {
				return !a.rep.undos.settle(c.plane.group().History, a.rep.data.Flushed())
			})
		})
	}
}

// Another life of the promoted node never serves the epoch.
func TestSecondLifeWaitsForFence(t *testing.T) {
	c := newCluster(t, fsm.GroupSpec{}, "a", "b")
	c.keepInSync("a", "b")
	c.nodes["a"].mustPut("k", "v")
	c.level("b")
	c.nodes["a"].crash(0)
	a := c.start("a")
	c.eventually("a runs as a backup", func() bool { return a.rep.Status().Role == RoleBackup })
	a.cancel() // its sessions end
	if err := a.rep.RunPrimary(t.Context(), a.link); err == nil {
		t.Fatal("another life took the role")
	}
	a.stop()
	a = c.start("a")
	c.failover("a", false)
	c.serves("a")
	a.mustGet("k", "v", false)
	if e := c.plane.group().OpenEpoch; e != 2 {
		t.Fatalf("serves epoch %s", e)
	}
	c.inSync("a", "b")
	c.level("b")
}

// Proves RJ-9: after a power cut of all nodes the data is what was acknowledged.
func TestPowerCutOfAll(t *testing.T) {
	c := newCluster(t, fsm.GroupSpec{}, "a", "b", "c")
	c.keepInSync("a", "b")
	for i := range 50 {
		c.nodes["a"].mustPut(fmt.Sprint("k", i), fmt.Sprint("v", i))
	}
	for _, id := range []ident.NodeID{"a", "b", "c"} {
		c.nodes[id].crash(0)
	}
	for _, id := range []ident.NodeID{"a", "b", "c"} {
		c.start(id)
	}
	c.failover("b", false)
	c.serves("b")
	for i := range 50 {
		c.nodes["b"].mustGet(fmt.Sprint("k", i), fmt.Sprint("v", i), false)
	}
	c.level("a", "c")
}

// A node that is promoted twice without ever opening keeps what it had, and the rows name both epochs if both live on.
func TestPromotedButNeverOpened(t *testing.T) {
	c := newCluster(t, fsm.GroupSpec{Secondaries: 2}, "a", "b", "c")
	c.keepInSync("a", "b", "c")
	c.nodes["a"].mustPut("k", "v")
	c.level("b", "c")
	opens := 0
	c.plane.mu.Lock()
	c.plane.veto = func(cmd fsm.Command) bool {
		if cmd.Open != nil && cmd.Open.Epoch == 2 {
			opens++
			return true
		}
		return false
	}
	c.plane.mu.Unlock()
	c.nodes["a"].crash(0)
	c.failover("b", false)
	c.eventually("b asks to open", func() bool {
		c.plane.mu.Lock()
		defer c.plane.mu.Unlock()
		return opens > 0
	})
	copied := func() bool {
		j, ok := c.nodes["c"].rep.Journal("b")
		if !ok {
			return false
		}
		v, _ := j.View()
		return len(v.Runs) > 0 && v.Runs[len(v.Runs)-1].Epoch == 2
	}
	c.eventually("c has b's SW", copied)
	c.nodes["b"].crash(0)
	c.failover("c", false)
	c.serves("c")
	c.nodes["c"].mustGet("k", "v", false)
	h := c.plane.group().History
	if len(h) != 3 || h[1].Epoch != 2 || h[1].Node != "b" || h[2].Epoch != 3 || h[2].SW != h[1].SW+1 {
		t.Fatalf("history %+v", h)
	}
	c.start("a")
	c.start("b")
	c.level("a", "b")
	c.nodes["c"].mustPut("k2", "v2")
	c.level("a", "b")
}

// Without a valid lease the primary answers nothing; what was committed meanwhile is answered when the lease is back.
func TestLeaseCheckedAfterTheWork(t *testing.T) {
	c := newCluster(t, fsm.GroupSpec{}, "a", "b")
	a, b := c.nodes["a"], c.nodes["b"]
	c.keepInSync("a", "b") // alone, a would acknowledge the write
	a.mustPut("k", "v")
	gate := make(chan struct{})
	b.fail.Store("journal.sync:orders/a", func() error { <-gate; return nil })
	before := a.rep.Status()
	done := a.asyncPut("k", "w") // sequenced with a lease
	c.eventually("the write is sequenced", func() bool { return a.rep.Status().Sequence > before.Sequence })
	c.plane.lease("a", false)
	close(gate)
	c.eventually("the write is committed without a lease", func() bool { return a.rep.Status().Applied != before.Applied })
	read := make(chan string, 1)
	a.wg.Go(func() {
		v, _ := a.get("k", false)
		read <- v
	})
	late := a.asyncPut("k", "x") // not sequenced before the lease is back
	select {
	case err := <-done:
		t.Fatalf("answered without a lease: %v", err)
	case v := <-read:
		t.Fatalf("read %q without a lease", v)
	case <-time.After(100 * time.Millisecond):
	}
	if s := a.rep.Status(); s.Sequence != before.Sequence+1 {
		t.Fatalf("sequenced without a lease: %s, was %s", s.Sequence, before.Sequence)
	}
	c.plane.lease("a", true)
	if err := errors.Join(<-done, <-late); err != nil {
		t.Fatal(err)
	}
	if v := <-read; v != "w" && v != "x" {
		t.Fatalf("read %q", v)
	}
}

// Received is not durable: a write is acknowledged only when the target's disk has it.
func TestAcknowledgedMeansDurableAtTheTarget(t *testing.T) {
	c := newCluster(t, fsm.GroupSpec{}, "a", "b")
	a, b := c.nodes["a"], c.nodes["b"]
	c.keepInSync("a", "b") // the set may not shrink
	a.mustPut("k", "v")
	gate := make(chan struct{})
	b.fail.Store("journal.sync:orders/a", func() error { <-gate; return nil })
	done := a.asyncPut("k", "w")
	copied, _ := b.rep.Journal("a")
	c.eventually("the write is received", func() bool {
		v, _ := copied.View()
		return v.Last > v.Durable
	})
	select {
	case err := <-done:
		t.Fatalf("acknowledged before the target's disk had it: %v", err)
	case <-time.After(100 * time.Millisecond):
	}
	close(gate)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// Reads stop before the role is handed over: the old primary never answers with what the new one may have changed, even
// when it does not hear of the Handover.
func TestReadsStopBeforeHandover(t *testing.T) {
	c := newCluster(t, fsm.GroupSpec{}, "a", "b")
	a, b := c.nodes["a"], c.nodes["b"]
	c.inSync("a", "b")
	a.mustPut("k", "old")
	c.plane.mu.Lock()
	c.plane.veto = func(cmd fsm.Command) bool {
		if cmd.Handover == nil {
			return false
		}
		before := c.plane.state.Snapshot() // what a goes on seeing
		c.plane.applyLocked(cmd)
		c.plane.away["a"] = before
		return true
	}
	c.plane.mu.Unlock()
	c.begins("b")
	c.serves("b")
	b.mustPut("k", "new")
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if image, _, err := a.rep.Read(ctx, "f", []byte("k"), false); err == nil {
		t.Fatalf("the old primary, which still believes in its lease, answers %q", image.Value)
	}
	c.plane.isolate("a", false)
	c.inSync("a", "b")
}

// What a session of a fenced epoch says is committed does not count, and nothing of it is applied, until this node's own
// state shows the epoch opened: the same sequences may mean something else.
func TestCommittedEndsNeedTheRow(t *testing.T) {
	c := newCluster(t, fsm.GroupSpec{}, "a", "b", "c")
	a, cc := c.nodes["a"], c.nodes["c"]
	c.inSync("a", "b")
	a.mustPut("k", "v")
	c.level("b", "c")
	at := cc.rep.Status().Applied
	cc.silent.Store(true)
	// c sees the group fenced, and nothing after: sessions go on, since it has not promised.
	c.plane.mu.Lock()
	fenced := c.plane.state.Snapshot()
	g := *fenced.Groups[orders]
	g.Epoch, g.Phase = g.Epoch+1, fsm.PhaseFenced
	fenced.Groups = map[ident.GroupName]*fsm.Group{orders: &g}
	c.plane.away["c"] = fenced
	c.plane.leases["a"] = true
	close(c.plane.changed)
	c.plane.changed = make(chan struct{})
	c.plane.mu.Unlock()
	a.mustPut("k", "w")
	copied, _ := cc.rep.Journal("a")
	c.eventually("c received the write", func() bool {
		v, _ := copied.View()
		return v.DurableAfter == a.rep.Status().Applied
	})
	c.goesOn("a") // several heartbeats: it must not be applied
	c.goesOn("c")
	if got := cc.rep.Status().Applied; got != at {
		t.Fatalf("applied up to %s by a committed end that does not count, was at %s", got, at)
	}
	c.plane.isolate("c", false)
	c.level("c")
}
