package core

import (
	"testing"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal/entry"
)

// Proves HB-6, TR-4: an archived receiver leaves the disk for those only who are away or are fed from the archive already; what
// this node, or one that is here, has not flushed or copied keeps it.
func TestSpare(t *testing.T) {
	at := func(h uint64) ident.Position { return ident.Position{Epoch: 1, History: ident.History(h)} }
	// The receiver in question has sequences 101 to 200, and the facts 101 to 200.
	runs := []entry.Run{{Epoch: 1, From: 1, To: 500, First: 1, Last: 500}}
	type peer struct {
		alive   bool
		flushed uint64
		copy    ident.Sequence
	}
	const held = ident.Sequence(101)
	for name, c := range map[string]struct {
		own   uint64
		other peer
		want  bool
	}{
		"all have it":                       {300, peer{true, 250, 300}, true},
		"away, and has nothing":             {300, peer{false, 0, 0}, true},
		"away, in the middle of it":         {300, peer{false, 150, 150}, true},
		"here, in the middle of it":         {300, peer{true, 150, 150}, false},
		"here, copied and not flushed":      {300, peer{true, 150, 300}, false},
		"here, goes on from its first":      {300, peer{true, 100, 100}, false},
		"here, fed from the archive":        {300, peer{true, 50, 50}, true},
		"here, empty: fed from the archive": {300, peer{true, 0, 0}, true},
		"not flushed here":                  {150, peer{false, 0, 0}, false},
		"nothing flushed here":              {0, peer{false, 0, 0}, false},
	} {
		a := fsm.Assignment{Self: "a", Group: &fsm.Group{Spec: fsm.GroupSpec{Name: "g"}, History: ident.HistoryTable{{Epoch: 1, Node: "a", SW: 1}}}, Nodes: map[ident.NodeID]*fsm.Node{
			"a": {Kind: fsm.KindData},
			"w": {Kind: fsm.KindWitness},
			"b": {Kind: fsm.KindData, Flushed: map[ident.GroupName]ident.Position{"g": at(c.other.flushed)}, Copies: map[ident.GroupName]fsm.Ends{"g": {"a": c.other.copy}}},
		}}
		if c.other.flushed == 0 {
			a.Nodes["b"].Flushed = nil
		}
		own := at(c.own)
		if c.own == 0 {
			own = ident.Position{}
		}
		alive := func(ident.NodeID) bool { return c.other.alive }
		if got := Spare(a, "a", own, held, alive, runs, 101, 200); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
		// The same of a journal that the other one wrote: it needs no copy of it, this node needs its own.
		a.Nodes["a"].Copies = map[ident.GroupName]fsm.Ends{"g": {"b": 150}}
		if Spare(a, "b", own, held, alive, runs, 101, 200) {
			t.Errorf("%s: this node's copy of the journal ends inside", name)
		}
	}
}

// Proves HB-6: an empty copy begins where the journal does when the store has what went before; else all of it is needed.
func TestRecallNeeded(t *testing.T) {
	at := func(e, h uint64) ident.Position {
		return ident.Position{Epoch: ident.Epoch(e), History: ident.History(h)}
	}
	a := fsm.Assignment{Group: &fsm.Group{Spec: fsm.GroupSpec{Name: "g"}, History: ident.HistoryTable{{Epoch: 1, Node: "a", SW: 1}, {Epoch: 3, Node: "b", SW: 80}}}, Nodes: map[ident.NodeID]*fsm.Node{"b": {}}}
	for _, c := range []struct {
		from    ident.Sequence
		flushed ident.Position
		want    bool
	}{
		{50, at(3, 1000), true}, {1, ident.Position{}, true}, {1, at(1, 59), true}, {1, at(1, 60), false}, {1, at(3, 90), false}, {1, at(2, 90), true},
	} {
		a.Nodes["b"].Flushed = map[ident.GroupName]ident.Position{"g": c.flushed}
		if got := RecallNeeded(a, "b", "a", c.from, at(1, 60)); got != c.want {
			t.Errorf("from %s, flushed %s: %v", c.from, c.flushed, got)
		}
	}
	a.Nodes["b"].Copies = map[ident.GroupName]fsm.Ends{"g": {"a": 7}}
	if !RecallNeeded(a, "b", "a", 1, at(1, 60)) {
		t.Error("a report from before the copy was emptied is believed")
	}
	if RecallNeeded(a, "unknown", "a", 1, at(1, 60)) {
		t.Error("for a node that nobody knows")
	}
}
