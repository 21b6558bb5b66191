package replica

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal"
	"github.com/understudy-ha/understudy/journal/entry"
)

// fedBy waits until a node gets its copy of the primary's journal from another one, and everybody who tells of it says so.
func (c *cluster) fedBy(target, feeder ident.NodeID) {
	c.t.Helper()
	c.eventually(fmt.Sprintf("%s feeds %s", feeder, target), func() bool {
		g := c.plane.group()
		p := c.nodes[g.Primary].rep.Status()
		if !p.Serving || c.nodes[target].rep.Status().FedBy != feeder {
			return false
		}
		for _, s := range p.Targets {
			if s.Node == target {
				return feeder == g.Primary && s.State != TargetFed && s.FedBy == "" || feeder != g.Primary && s.State == TargetFed && s.FedBy == feeder
			}
		}
		return false
	})
}

// writer writes one key after the other at whoever is primary, until it is stopped.
type writer struct {
	c     *cluster
	stop  context.CancelFunc
	wg    sync.WaitGroup
	mu    sync.Mutex
	acked []string
}

func (c *cluster) stream() *writer {
	ctx, cancel := context.WithCancel(context.Background())
	w := &writer{c: c, stop: cancel}
	w.wg.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			c.mu.Lock()
			n := c.nodes[c.plane.group().Primary]
			c.mu.Unlock()
			key := fmt.Sprint("load-", i)
			try, done := context.WithTimeout(ctx, 3*time.Second)
			_, err := n.rep.Write(try, Transaction{Writes: []Write{{File: "f", Key: []byte(key), Value: []byte(key)}}})
			done()
			if err == nil {
				w.mu.Lock()
				w.acked = append(w.acked, key)
				w.mu.Unlock()
			} else {
				_ = pause(ctx, 5*time.Millisecond) // the loop looks at ctx
			}
		}
	})
	c.t.Cleanup(w.end)
	return w
}

func (w *writer) end() {
	w.stop()
	w.wg.Wait()
}

// goesOn waits until something more was acknowledged.
func (w *writer) goesOn() {
	w.c.t.Helper()
	count := func() int { w.mu.Lock(); defer w.mu.Unlock(); return len(w.acked) }
	before := count()
	w.c.eventually("writes are acknowledged", func() bool { return count() >= before+5 })
}

// A copy is fed by the backup that the group names, by the primary while that one is away, and in any case when it is to become
// primary itself. Nothing acknowledged is lost on the way. Proves RJ-3, I3, I9.
func TestCascade(t *testing.T) {
	c := newCluster(t, fsm.GroupSpec{Feeds: map[ident.NodeID]ident.NodeID{"c": "b"}}, "a", "b", "c")
	w := c.stream()
	c.inSync("a", "b")
	c.fedBy("c", "b")
	w.goesOn()
	if _, ok := c.nodes["c"].event(EventFeeder); !ok {
		t.Error("c tells nothing of its feeder")
	}
	c.nodes["b"].crash(50)
	c.fedBy("c", "a")
	c.inSync("a", "c") // nobody else is left
	w.goesOn()
	c.start("b")
	c.eventually("c leaves the set for b", func() bool { g := c.plane.group(); return g.InSet("b") && !g.InSet("c") })
	c.fedBy("c", "b")
	w.goesOn()
	c.switchover("c")
	w.goesOn()
	c.switchover("b")
	c.fedBy("c", "b") // which is the primary
	w.goesOn()
	c.switchover("a")
	c.eventually("b is the only member", func() bool { g := c.plane.group(); return g.InSet("b") && !g.InSet("c") })
	c.keepInSync("a", "b")
	c.fedBy("c", "b")
	c.nodes["a"].crash(50)
	c.failover("b", false)
	w.goesOn()
	c.fedBy("c", "b")
	c.start("a")
	w.goesOn()
	w.end()
	c.level("a", "b", "c")
	for _, key := range w.acked {
		c.nodes["b"].mustGet(key, key, false)
	}
	t.Logf("%d writes", len(w.acked))
}

// One that is fed knows how old its copy is, is level and recovered, over two steps too; whoever is cut off from its own source
// stops feeding, and whoever cannot be reached by its feeder is fed by the primary. Proves RJ-3.
func TestCascadeOverTwoSteps(t *testing.T) {
	c := newCluster(t, fsm.GroupSpec{Feeds: map[ident.NodeID]ident.NodeID{"c": "b", "d": "c"}}, "a", "b", "c", "d")
	c.inSync("a", "b")
	c.fedBy("c", "b")
	c.eventually("c feeds d", func() bool { return c.nodes["d"].rep.Status().FedBy == "c" })
	for i := range 20 {
		c.nodes["a"].mustPut(fmt.Sprint("k", i), "v")
	}
	c.level("b", "c", "d")
	fed := time.Now()
	for _, id := range []ident.NodeID{"c", "d"} {
		rep := c.nodes[id].rep
		c.eventually(string(id)+" knows how old its copy is", func() bool {
			behind, ok := rep.Behind()
			return ok && behind < time.Since(fed) && rep.Status().Resync == nil
		})
	}
	c.eventually("b tells that it feeds c", func() bool {
		s := c.nodes["b"].rep.Status().Feeds
		return len(s) == 1 && s[0].Node == "c" && s[0].State == TargetAsync
	})
	c.wires.sever("b", "c", true)
	c.eventually("a feeds c, which goes on to feed d", func() bool { return c.nodes["c"].rep.Status().FedBy == "a" && c.nodes["d"].rep.Status().FedBy == "c" })
	c.wires.sever("b", "c", false)
	c.fedBy("c", "b")
	c.wires.sever("a", "b", true)
	c.fedBy("c", "a")
	c.eventually("b, which gets nothing, feeds nobody", func() bool { return len(c.nodes["b"].rep.Status().Feeds) == 0 })
	c.nodes["a"].mustPut("k", "w")
	c.wires.sever("a", "b", false)
	c.fedBy("c", "b")
	c.nodes["a"].mustPut("k", "x")
	c.level("b", "c", "d")
	spec := c.plane.group().Spec
	spec.Feeds = nil
	c.must(fsm.Command{ChangeSpec: &fsm.ChangeSpec{Group: orders, Spec: spec}})
	c.eventually("the primary feeds all of them", func() bool {
		return c.nodes["c"].rep.Status().FedBy == "a" && c.nodes["d"].rep.Status().FedBy == "a" && len(c.nodes["c"].rep.Status().Feeds) == 0
	})
}

// A feeder that does not hold what a node needs leaves it to the primary, and does not disturb it for long. Proves RJ-3.
func TestFeederWithoutTheReceivers(t *testing.T) {
	c := newCluster(t, fsm.GroupSpec{ReceiverBytes: 64 << 10}, "a", "b", "c")
	a, b := c.nodes["a"], c.nodes["b"]
	c.inSync("a", "b")
	c.nodes["c"].stop()
	for range 20 {
		a.mustPut("k", string(make([]byte, 16<<10)))
	}
	c.level("b")
	j, _ := b.rep.Journal("a")
	if n := len(j.Receivers()); n < 3 {
		t.Fatalf("%d receivers", n)
	}
	if err := j.DeleteReceivers(j.Receivers()[1].Number); err != nil {
		t.Fatal(err)
	}
	spec := c.plane.group().Spec
	spec.Feeds = map[ident.NodeID]ident.NodeID{"c": "b"}
	c.must(fsm.Command{ChangeSpec: &fsm.ChangeSpec{Group: orders, Spec: spec}})
	c.disks["c"] = vfs.NewCrashableMem()
	c.start("c")
	c.level("c")
}

// A node that is fed by a backup is not absent: nothing is dropped for it. Proves TR-5.
func TestFedNodesAreNotAbsent(t *testing.T) {
	c := newCluster(t, fsm.GroupSpec{Feeds: map[ident.NodeID]ident.NodeID{"c": "b"}}, "a", "b", "c")
	c.inSync("a", "b")
	c.fedBy("c", "b")
	p := c.nodes["a"].rep.primary.Load()
	c.eventually("the primary has waited for c in vain", func() bool {
		p.targets.mu.Lock()
		defer p.targets.mu.Unlock()
		return p.targets.roster.Stalled("c", p.targets.now()) > 100*time.Millisecond
	})
	if p.targets.gone("c", 100*time.Millisecond) {
		t.Error("c counts as absent")
	}
	c.nodes["c"].stop()
	c.eventually("c is absent", func() bool { return p.targets.gone("c", 100*time.Millisecond) })
}

// What an applier had read may be removed before it may be applied, and stand in another journal by then. Proves RJ-7.
func TestApplierLooksAnew(t *testing.T) {
	c := newCluster(t, fsm.GroupSpec{}, "a", "b")
	c.inSync("a", "b")
	c.nodes["a"].mustPut("k", "v")
	c.level("b")
	a := &applier{r: c.nodes["b"].rep}
	defer a.close()
	j, _ := c.nodes["b"].rep.Journal("a")
	reader, err := j.Reader(0)
	if err != nil {
		t.Fatal(err)
	}
	a.reader, a.from, a.looked = reader, j, "as before"
	view, _ := j.View()
	a.peeked = &journal.Item{Header: entry.Header{First: view.Last + 1, Count: 1, Facts: 1, Before: view.After, Fact: ident.Position{Epoch: 1, History: view.After.History + 1}}}
	if _, ok, err := a.next(c.plane.group().History, view.After); ok || err != nil || a.peeked != nil {
		t.Errorf("%v %v: what is not held any more is still the next: %+v", ok, err, a.peeked)
	}
}

// A copy that began elsewhere, or was cut and written on, is searched again although it ends where it did.
func TestApplierTellsContentsApart(t *testing.T) {
	was := journal.View{First: 10, Last: 26, Durable: 26, Chain: 1}
	earlier, other, longer := was, was, was
	earlier.First = 1
	other.Chain = 2
	longer.Durable = 27
	for _, now := range []journal.View{earlier, other, longer} {
		if contents("a", now) == contents("a", was) {
			t.Errorf("%+v is taken for %+v", now, was)
		}
	}
	if contents("a", was) != contents("a", was) || contents("a", was) == contents("b", was) {
		t.Error("the same contents are not the same")
	}
}
