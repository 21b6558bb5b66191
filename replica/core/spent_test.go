package core

import (
	"testing"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal/entry"
)

// A fact of the history that is durable in no other journal may go once everybody has it in the store on disk, as receivers go then, and not
// before; where receivers are kept it never does. Proves RJ-5, RJ-6.
func TestSpentFactsMayBeCut(t *testing.T) {
	table := ident.HistoryTable{row(1, "a", 1), row(2, "b", 4)}
	group := func(change func(*fsm.Group)) *fsm.Group {
		g := &fsm.Group{Spec: fsm.GroupSpec{Name: "g", KeepReceivers: 1}, Phase: fsm.PhaseOpened, Epoch: 2, OpenEpoch: 2, Primary: "b", History: table}
		change(g)
		return g
	}
	for what, c := range map[string]struct {
		other ident.Position // what c has flushed
		fact  ident.Position
		edit  func(*fsm.Group)
		may   bool
	}{
		"everybody has it":                {pos(2, 9), pos(1, 3), func(*fsm.Group) {}, true},
		"exactly up to there":             {pos(1, 3), pos(1, 3), func(*fsm.Group) {}, true},
		"one has not":                     {pos(1, 2), pos(1, 3), func(*fsm.Group) {}, false},
		"one did not report":              {pos(0, 0), pos(1, 3), func(*fsm.Group) {}, false},
		"a reader has not":                {pos(2, 9), pos(1, 3), func(g *fsm.Group) { g.Consumers = []fsm.Hold{{Name: "r", Position: pos(1, 2)}} }, false},
		"receivers are kept":              {pos(2, 9), pos(1, 3), func(g *fsm.Group) { g.Spec.KeepReceivers = -1 }, false},
		"kept, but for the maximum":       {pos(2, 9), pos(1, 3), func(g *fsm.Group) { g.Spec.KeepReceivers, g.Spec.MaximumBlocks = -1, 9 }, true},
		"a failover is under way":         {pos(2, 9), pos(1, 3), func(g *fsm.Group) { g.Phase = fsm.PhaseFenced }, false},
		"of an epoch that did not open":   {pos(2, 9), pos(3, 5), func(*fsm.Group) {}, false},
		"this node was dropped meanwhile": {pos(2, 9), pos(1, 3), func(g *fsm.Group) { g.Dropped = []fsm.Dropped{{Node: "b"}} }, false},
	} {
		g := group(c.edit)
		nodes := map[ident.NodeID]*fsm.Node{}
		for _, id := range []ident.NodeID{"b", "c"} {
			nodes[id] = &fsm.Node{ID: id, Kind: fsm.KindData, Flushed: map[ident.GroupName]ident.Position{"g": c.other}}
		}
		rule := CutRule{Group: g, Spent: Spent(fsm.Assignment{Self: "b", Group: g, Nodes: nodes}, pos(2, 9))}
		h := entry.Header{First: 3, Count: 1, Facts: 1, Fact: c.fact, Before: ident.Position{Epoch: c.fact.Epoch, History: c.fact.History - 1}, Session: 1}
		if why := rule.Keeps(h); (why == "") != c.may {
			t.Errorf("%s: kept %q, may go: %t", what, why, c.may)
		}
	}
}
