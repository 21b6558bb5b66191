package core

import (
	"strings"
	"testing"
	"time"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal/entry"
)

// Proves TR-5: who is dropped at a full journal, and why nobody is.
func TestDecideDrop(t *testing.T) {
	type node struct {
		flushed ident.History
		copied  ident.Sequence
	}
	far, level := node{3, 4}, node{99, 100}
	for _, c := range []struct {
		name   string
		nodes  map[ident.NodeID]node // besides a, which has everything
		absent string
		set    func(*fsm.Assignment)
		want   ident.NodeID
		why    string
	}{
		{name: "the absent one", nodes: map[ident.NodeID]node{"b": level, "c": far}, absent: "c", want: "c"},
		{name: "the last other copy", nodes: map[ident.NodeID]node{"b": far}, absent: "b", want: "b"},
		{name: "the furthest of two", nodes: map[ident.NodeID]node{"b": {5, 6}, "c": far}, absent: "b c", want: "c"},
		{name: "equally far: by name, one after the other", nodes: map[ident.NodeID]node{"b": far, "c": far}, absent: "b c", want: "b"},
		{name: "after one was dropped", nodes: map[ident.NodeID]node{"b": far, "c": far}, absent: "b c", want: "c",
			set: func(a *fsm.Assignment) { a.Group.Dropped = []fsm.Dropped{{Node: "b"}} }},
		{name: "one that never reported", nodes: map[ident.NodeID]node{"b": level, "c": {}}, absent: "c", want: "c"},
		{name: "only its copy is short", nodes: map[ident.NodeID]node{"b": level, "c": {99, 4}}, absent: "c", want: "c"},
		{name: "it is connected", nodes: map[ident.NodeID]node{"b": level, "c": far}, why: "node c, which is connected or"},
		{name: "one is absent, another one connected", nodes: map[ident.NodeID]node{"b": far, "c": far}, absent: "b", why: "node c, which is connected or"},
		{name: "a member", nodes: map[ident.NodeID]node{"b": far, "c": level}, absent: "b", why: "node b, which is in the in-sync set",
			set: func(a *fsm.Assignment) { a.Group.InSync = []ident.NodeID{"a", "b"} }},
		{name: "nobody needs it", nodes: map[ident.NodeID]node{"b": level, "c": level}, absent: "c", why: "nobody needs it"},
		{name: "a consumer holds it", nodes: map[ident.NodeID]node{"b": far}, absent: "b", why: "consumer reader",
			set: func(a *fsm.Assignment) { a.Group.Consumers = []fsm.Hold{{Name: "reader", Position: pos(1, 3)}} }},
		{name: "a consumer further on", nodes: map[ident.NodeID]node{"b": far}, absent: "b", want: "b",
			set: func(a *fsm.Assignment) { a.Group.Consumers = []fsm.Hold{{Name: "reader", Position: pos(1, 90)}} }},
		{name: "stall", nodes: map[ident.NodeID]node{"b": far}, absent: "b", why: "stall",
			set: func(a *fsm.Assignment) { a.Group.Spec.JournalFull = "" }},
		{name: "paused", nodes: map[ident.NodeID]node{"b": far}, absent: "b", why: "paused",
			set: func(a *fsm.Assignment) { a.Pause = &fsm.Pause{} }},
		{name: "during a switch-over", nodes: map[ident.NodeID]node{"b": far}, absent: "b", why: "operation",
			set: func(a *fsm.Assignment) { a.Group.Operation = &fsm.Operation{} }},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := &fsm.Group{Spec: fsm.GroupSpec{Name: "g", JournalFull: fsm.JournalFullDrop}, Phase: fsm.PhaseOpened, Epoch: 1, Primary: "a",
				InSync: []ident.NodeID{"a"}, History: ident.HistoryTable{{Epoch: 1, Node: "a", SW: 1, First: 1}}}
			a := fsm.Assignment{Self: "a", Group: g, Nodes: map[ident.NodeID]*fsm.Node{"w": {ID: "w", Kind: fsm.KindWitness}}}
			c.nodes["a"] = level
			for id, n := range c.nodes {
				x := &fsm.Node{ID: id, Kind: fsm.KindData, Copies: map[ident.GroupName]fsm.Ends{"g": {"a": n.copied}}}
				if n.flushed > 0 {
					x.Flushed = map[ident.GroupName]ident.Position{"g": pos(1, n.flushed)}
				}
				a.Nodes[id] = x
			}
			if c.set != nil {
				c.set(&a)
			}
			o := OldestReceiver{Author: "a", First: 1, Last: 20, Flushed: pos(1, 99), Runs: []entry.Run{{Epoch: 1, From: 1, To: 99, First: 1, Last: 100}}}
			got, why := DecideDrop(a, o, func(n ident.NodeID) bool { return strings.Contains(c.absent, string(n)) })
			if got != c.want || !strings.Contains(why, c.why) || (got == "") != (why != "") {
				t.Fatalf("drops %q (%s), want %q (%s)", got, why, c.want, c.why)
			}
			if got != "" && !g.HoldsBack(got, a.Nodes) {
				t.Fatal("the state would refuse it")
			}
			own := o
			own.Flushed = pos(1, 2)
			if got, why := DecideDrop(a, own, func(ident.NodeID) bool { return true }); got != "" || why == "" {
				t.Fatalf("dropped %s although this node needs the receiver itself", got)
			}
		})
	}
}

// Proves TR-4, RJ-5: holds keep what dropped nodes do not.
func TestHoldsAndDroppedInRetention(t *testing.T) {
	g := &fsm.Group{Spec: fsm.GroupSpec{Name: "g"}, History: ident.HistoryTable{{Epoch: 1, Node: "a", SW: 1}, {Epoch: 3, Node: "b", SW: 50}}}
	a := fsm.Assignment{Self: "a", Group: g, Nodes: map[ident.NodeID]*fsm.Node{
		"a": {ID: "a", Kind: fsm.KindData},
		"b": {ID: "b", Kind: fsm.KindData, Flushed: map[ident.GroupName]ident.Position{"g": pos(1, 10)}, Copies: map[ident.GroupName]fsm.Ends{"g": {"a": 11}}},
	}}
	check := func(want ident.Position, ok bool, copied ident.Sequence) {
		t.Helper()
		if at, known := LowestFlushed(a, pos(3, 60)); known != ok || ok && at != want {
			t.Fatalf("%s %v, want %s %v", at, known, want, ok)
		}
		if got := LowestCopy(a, "a"); got != copied {
			t.Fatalf("copies end at %s, want %s", got, copied)
		}
	}
	check(pos(1, 10), true, 11)
	g.Dropped = []fsm.Dropped{{Node: "b"}}
	check(pos(3, 60), true, 1<<64-1)
	g.Consumers = []fsm.Hold{{Name: "r", Position: pos(1, 20)}, {Name: "s", Position: pos(3, 55)}}
	check(pos(1, 20), true, 1<<64-1)
	g.Consumers[0].Position = pos(1, 70) // what it read was undone from 50 on
	check(pos(1, 49), true, 1<<64-1)
	g.Consumers[0].Position = ident.Position{} // it has read nothing
	check(ident.Position{}, false, 1<<64-1)
}

// Proves TR-5: the cap decides what goes, and the own journal is full first.
func TestSurplusAndCap(t *testing.T) {
	const mib = 1 << 20
	spec := fsm.GroupSpec{KeepReceivers: -1, ReceiverBytes: mib}
	sizes := []int64{mib, mib, mib, mib, mib, mib, mib}
	for _, c := range []struct {
		keep, maximum int
		total         int64
		want          int
	}{
		{-1, 0, 8 * mib, 0}, {2, 0, 8 * mib, 5}, {9, 0, 8 * mib, 0}, {0, 0, 8 * mib, 7},
		{-1, 16, 8 * mib, 0}, {-1, 8, 8 * mib, 3}, {-1, 4, 8 * mib, 6}, {6, 8, 8 * mib, 3}, {1, 8, 8 * mib, 6}, {-1, 4, 80 * mib, 7},
	} {
		spec.KeepReceivers, spec.MaximumBlocks = c.keep, c.maximum
		if got := Surplus(spec, sizes, c.total); got != c.want {
			t.Errorf("%+v: %d", c, got)
		}
	}
	spec.MaximumBlocks = 64
	if own, copied := Cap(spec, true), Cap(spec, false); own != 56*mib || copied != 64*mib {
		t.Errorf("caps %d and %d", own, copied)
	}
	spec.MaximumBlocks = 4
	if own := Cap(spec, true); own != 3*mib {
		t.Errorf("a small cap leaves %d", own)
	}
	if Cap(fsm.GroupSpec{}, true) != 0 {
		t.Error("no cap is one")
	}
}

// Proves TR-6: the time until a journal is full follows the rate of the last minutes.
func TestRunway(t *testing.T) {
	var g Growth
	if d := g.Runway(0, 5, 0, 100); d != RunwayUnknown {
		t.Fatalf("nothing was seen: %s", d)
	}
	at, bytes := time.Duration(0), int64(0)
	grow := func(perSecond int64, seconds int) {
		for range seconds {
			at, bytes = at+time.Second, bytes+perSecond
			g.See(at, bytes)
		}
	}
	near := func(want time.Duration, free, limit int64) {
		t.Helper()
		if d := g.Runway(at, bytes, free, limit); d < want-want/50 || d > want+want/50 {
			t.Fatalf("%s, want about %s", d, want)
		}
	}
	grow(1000, 60)
	near(100*time.Second, 0, bytes+100_000)
	near(50*time.Second, 50_000, bytes+100_000)
	near(50*time.Second, 50_000, 0)
	if d := g.Runway(at, bytes, 0, 0); d != RunwayUnknown {
		t.Fatalf("without a bound: %s", d)
	}
	if d := g.Runway(at, bytes, 0, bytes); d != 0 {
		t.Fatalf("full: %s", d)
	}
	grow(10, 400) // longer than the window
	near(1000*time.Second, 0, bytes+10_000)
	grow(0, 400)
	if d := g.Runway(at, bytes, 0, bytes+1); d != RunwayEndless {
		t.Fatalf("it does not grow: %s", d)
	}
	grow(-5, 60)
	if d := g.Runway(at, bytes, 0, bytes+1); d != RunwayEndless {
		t.Fatalf("it shrinks: %s", d)
	}
	if len(g.marks) > 70 {
		t.Fatalf("%d marks are kept", len(g.marks))
	}
}

// A node that was waited for under sync delivery is not taken for level after a time of async delivery, in which nobody waited,
// nor after it was dropped; also when only the two ends were seen. Proves I3.
func TestGrowthEndsWithTheDelivery(t *testing.T) {
	for name, g := range map[string]*fsm.Group{
		"async and sync again": {SetVersion: 4, Deliveries: 2, InSync: []ident.NodeID{"a"}},
		"dropped":              {SetVersion: 3, InSync: []ident.NodeID{"a"}, Dropped: []fsm.Dropped{{Node: "b"}}},
	} {
		r := NewRoster("a")
		r.Add("b", "a")
		r.Settle(&fsm.Group{SetVersion: 2, InSync: []ident.NodeID{"a"}})
		if _, began := r.Wait("b", 0); !began {
			t.Fatal("nobody is waited for")
		}
		r.Mark("b", pos(1, 5))
		r.Propose("b", 2)
		if r.Settle(g); r.IsGrowing("b") {
			t.Errorf("%s: the growth from before goes on", name)
		}
	}
}
