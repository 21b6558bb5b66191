package replica

import (
	"context"
	"errors"
	"testing"

	"github.com/hashicorp/go-hclog"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/replica/store"
)

// A backup that needs priming says so once, acknowledges nothing as held, and is not chosen.
func TestNeedsPriming(t *testing.T) {
	c := newCluster(t, fsm.GroupSpec{Delivery: fsm.DeliveryAsync, Images: fsm.ImagesAfter}, "a", "b")
	a, b := c.nodes["a"], c.nodes["b"]
	a.mustPut("k", "1")
	c.level("b")
	c.wires.sever("a", "b", true)
	a.mustPut("k", "2") // applied at a alone, without its before-image
	if err := a.store.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	a.stop()
	c.failover("b", true)
	c.serves("b")
	c.wires.sever("a", "b", false)
	a = c.start("a")
	c.eventually("a needs priming", func() bool { return a.rep.Status().NeedsPriming })
	b.mustPut("k", "3")
	c.eventually("a receives", func() bool {
		for _, s := range b.rep.Status().Targets {
			if s.Node == "a" && s.Durable >= b.rep.Status().Sequence {
				return s.Held.IsZero()
			}
		}
		return false
	})
	c.goesOn("a") // several of its sessions end meanwhile
	n := 0
	a.mu.Lock()
	for _, e := range a.events {
		if e.Kind == EventNeedsPriming {
			n++
		}
	}
	a.mu.Unlock()
	if n != 1 || !a.rep.Status().NeedsPriming {
		t.Errorf("told %d times, still needed: %t", n, a.rep.Status().NeedsPriming)
	}
	report, err := a.rep.Promise(t.Context(), c.plane.group().Epoch)
	if err != nil || report.Unable == "" {
		t.Errorf("report %+v, %v", report, err)
	}
}

// Proves RJ-10: how far a store can be taken back is known before it is tried: down to the newest change that was journaled without the record
// as it was, and no bundle in parts. Who asks for more later is not answered by what was found for less.
func TestHowFarAStoreCanBeTakenBack(t *testing.T) {
	c := newCluster(t, fsm.GroupSpec{Delivery: fsm.DeliveryAsync, Images: fsm.ImagesAfter}, "a", "b")
	a := c.nodes["a"]
	at := func() ident.Position { return a.rep.data.Position() }
	a.mustPut("k", "1")
	one := at()
	a.mustPut("k", "2") // the first "k" is not in it
	two := at()
	a.mustPut("l", "1")
	three := at()
	if _, err := a.rep.Write(t.Context(), Transaction{Writes: []Write{{File: "f", Key: []byte("m"), Value: []byte("1")}, {File: "f", Key: []byte("n"), Value: []byte("1")}}}); err != nil {
		t.Fatal(err)
	}
	end := at()
	if one.History >= two.History || two.History >= three.History || three.History+2 != end.History {
		t.Fatal(one, two, three, end)
	}
	inside := ident.Position{Epoch: end.Epoch, History: end.History - 1}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	for _, s := range []struct {
		name     string
		ctx      context.Context
		from, to ident.Position
		want     bool
	}{
		{"nobody waits any more", over, end, three, false},
		{"nothing", t.Context(), end, end, true},
		{"a bundle of new records", t.Context(), end, three, true},
		{"two", t.Context(), end, two, true},
		{"a record that was there", t.Context(), end, one, false},
		{"less, once more", t.Context(), end, two, true},
		{"from the middle of a bundle", t.Context(), inside, three, false},
		{"from elsewhere", t.Context(), two, one, false},
		{"from below it", t.Context(), one, ident.Position{Epoch: one.Epoch, History: one.History - 1}, true},
	} {
		if got := a.rep.undoes(s.ctx, s.from)(s.to); got != s.want {
			t.Errorf("%s: from %s to %s: %v", s.name, s.from, s.to, got)
		}
	}
}

// Proves RJ-10, I3: a node that cannot undo what it has applied says so in its report before it has tried: while the group is fenced it does not
// try. It is not chosen although it has received more than anybody.
func TestNodeThatCannotUndoIsNotChosen(t *testing.T) {
	for _, images := range []string{fsm.ImagesAfter, fsm.ImagesBoth} {
		c := newCluster(t, fsm.GroupSpec{Delivery: fsm.DeliveryAsync, Images: images}, "a", "b")
		a := c.nodes["a"]
		a.mustPut("k", "1")
		c.level("b")
		c.wires.sever("a", "b", true)
		a.mustPut("k", "2")
		if err := a.store.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		a.stop()
		c.failover("b", true)
		c.serves("b")
		g := c.plane.group()
		o := a.rep.o // another life, in which nothing is tried
		var err error
		if o.Store, err = store.Open(store.Options{FS: a.fs, Dir: c.path("a", "store"), Logger: hclog.NewNullLogger()}); err != nil {
			t.Fatal(err)
		}
		rep, err := Open(o)
		if err != nil {
			t.Fatal(err)
		}
		if at := rep.data.Position(); g.History.Contains(at) {
			t.Fatalf("its store is at %s, in the history", at)
		}
		rep.Attach(still{fsm.Assignment{Self: "a", Life: o.Life, Group: g}})
		report, err := rep.Promise(t.Context(), g.Epoch+1)
		if err != nil || (report.Unable == "") != (images == fsm.ImagesBoth) {
			t.Errorf("images %s: report %+v, %v", images, report, err)
		}
		over, cancel := context.WithCancelCause(t.Context())
		ended := errors.New("ended")
		cancel(ended)
		if report, err := rep.Promise(over, g.Epoch+1); !errors.Is(err, ended) {
			t.Errorf("a report of a look that was broken off: %+v, %v", report, err)
		}
		if err := errors.Join(rep.Close(), o.Store.Close()); err != nil {
			t.Error(err)
		}
	}
}
