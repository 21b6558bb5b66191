//go:build mutant

package simulation

import (
	"flag"
	"fmt"
	"strings"
	"testing"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/internal/mutant"
	"github.com/understudy-ha/understudy/journal/entry"
	"github.com/understudy-ha/understudy/replica/core"
)

var (
	schedules = flag.Uint64("sim.schedules", 1000, "how many schedules a broken rule may survive")
	only      = flag.String("sim.mutant", "", "break this rule only")
)

// script shows a broken rule directly, where random worlds cannot, or hardly ever: why says so. It tells whether the rule
// decides wrongly.
type script struct {
	why  string
	play func() bool
}

func scripts() map[mutant.Variant]script {
	at := func(e ident.Epoch, h ident.History) ident.Position { return ident.Position{Epoch: e, History: h} }
	run := func(e ident.Epoch, from, to ident.History, before ident.Position) core.Bough {
		return core.Bough{Run: entry.Run{Epoch: e, From: from, To: to, Before: before, First: ident.Sequence(from), Last: ident.Sequence(to)}, Author: "a"}
	}
	row := func(e ident.Epoch, n ident.NodeID, sw ident.History) ident.HistoryRow {
		return ident.HistoryRow{Epoch: e, Node: n, SW: sw, First: 1}
	}
	return map[mutant.Variant]script{
		mutant.IgnoreCommitted: {"takes a disk that loses what it said to have synced", func() bool {
			nodes := map[ident.NodeID]*fsm.Node{}
			for i, n := range []ident.NodeID{"a", "b", "c"} {
				nodes[n] = &fsm.Node{ID: n, Kind: fsm.KindData, Incarnation: ident.Incarnation(i + 1)}
			}
			g := &fsm.Group{Phase: fsm.PhaseFenced, Epoch: 2, Primary: "a", InSync: []ident.NodeID{"a", "b"}, Reports: []fsm.Report{
				{Node: "b", Epoch: 2, Incarnation: 2, Received: at(1, 5)}, {Node: "c", Epoch: 2, Incarnation: 3, Received: at(1, 9), Committed: at(1, 9)},
			}}
			_, _, _, chosen, _ := fsm.ChooseCandidate(g, nodes, func(ident.NodeID) bool { return false }, true)
			return chosen
		}},
		mutant.TrustBeforeOpen: {"takes an epoch that never opened, and two more after it, within one lag of Raft", func() bool {
			// b was promoted at epoch 2 without 1.1, its SW 2.1 went to a, which opened at 3. c knows epoch 1 only, holds 1.1, and
			// hears that everything up to the sequence of 2.1 is committed.
			g := &fsm.Group{Phase: fsm.PhasePromoted, Epoch: 3, Primary: "a", OpenEpoch: 1, OpenNode: "a", History: ident.HistoryTable{row(1, "a", 1)}}
			var k core.Known
			if core.Trusts(g, core.Caller{From: "a", Author: "a", Epoch: 3}, at(3, 2)) {
				k.Learn(3, at(3, 2))
			}
			return core.ApplyLimit(k.Committed(g.History), func() ident.Position { return at(1, 1) }).History >= 1
		}},
		mutant.FreeWhileGrowing: {"takes a session that begins anew between the last acknowledgement and the growth", func() bool {
			r := core.NewRoster("a")
			r.Add("b", "a")
			r.Add("b", "c")
			live := core.Standing{Phase: core.ShipLive, Over: true}
			r.Wait("b", 0)
			r.Stands("b", "c", live)
			r.Began("b", "a")
			r.Stands("b", "a", live)
			r.Heard("b", "a", core.Acked{Durable: 9, Held: at(1, 9)}, at(1, 9))
			free := r.Free("b", "c", &fsm.Group{Phase: fsm.PhaseOpened, OpenEpoch: 1, InSync: []ident.NodeID{"a"}}, 1)
			counts, _ := r.HoldsFresh("b", core.Acked{Durable: 9, Held: at(1, 9)})
			return free && counts
		}},
		mutant.UndoUnguarded: {"takes an author that lost what its copies applied", func() bool {
			g := &fsm.Group{Phase: fsm.PhaseOpened, Epoch: 3, OpenEpoch: 3, History: ident.HistoryTable{row(1, "a", 1), row(3, "b", 6)}}
			var u core.UndoLog
			rule := core.CutRule{Group: g, Other: []core.Bough{run(1, 1, 5, at(0, 0))}, Undo: u.Guard(g.History, at(1, 7), at(1, 5))}
			return rule.Keeps(headerOf(6, 2, at(1, 5), 1, 1)) == ""
		}},
		mutant.DroppedJoins: {"takes a dropped node that has everything, and no state that shows its drop", func() bool {
			nodes := map[ident.NodeID]*fsm.Node{"a": {ID: "a", Kind: fsm.KindData}, "b": {ID: "b", Kind: fsm.KindData}}
			g := &fsm.Group{Spec: fsm.GroupSpec{Secondaries: 1}, Phase: fsm.PhasePromoted, Primary: "a", InSync: []ident.NodeID{"a"}, Dropped: []fsm.Dropped{{Node: "b"}}}
			return len(core.OpenSet(g, nodes, "a", func(ident.NodeID) bool { return true })) > 1
		}},
		mutant.PromoteDropped: {"takes a failover with loss in which only the dropped are left", func() bool {
			nodes := map[ident.NodeID]*fsm.Node{"a": {ID: "a", Kind: fsm.KindData, Incarnation: 1}, "b": {ID: "b", Kind: fsm.KindData, Incarnation: 2}}
			g := &fsm.Group{
				Phase: fsm.PhaseFenced, Epoch: 2, Primary: "a", InSync: []ident.NodeID{"a"}, Dropped: []fsm.Dropped{{Node: "b"}},
				Reports:   []fsm.Report{{Node: "b", Epoch: 2, Incarnation: 2, Received: at(1, 5)}},
				Operation: &fsm.Operation{Kind: fsm.OperationFailover, AllowLoss: true},
			}
			_, _, _, chosen, _ := fsm.ChooseCandidate(g, nodes, func(ident.NodeID) bool { return false }, true)
			return chosen
		}},
		mutant.HoldsByNumber: {"takes a hold of what a failover with loss put out, and a reader who is slower than everybody else", func() bool {
			g := &fsm.Group{
				Phase: fsm.PhaseOpened, Epoch: 3, OpenEpoch: 3, Primary: "a", History: ident.HistoryTable{row(1, "b", 1), row(3, "a", 6)},
				Consumers: []fsm.Hold{{Name: "reader", Position: at(1, 9)}},
			}
			nodes := map[ident.NodeID]*fsm.Node{"a": {ID: "a", Kind: fsm.KindData, Flushed: map[ident.GroupName]ident.Position{"": at(3, 20)}}}
			low, ok := core.LowestFlushed(fsm.Assignment{Self: "a", Group: g, Nodes: nodes}, at(3, 20))
			return ok && low != at(1, 5)
		}},
		mutant.GrowAcrossDelivery: {"takes two changes of the delivery while one growth is under way", func() bool {
			r := core.NewRoster("a")
			r.Add("b", "a")
			g := &fsm.Group{Phase: fsm.PhaseOpened, OpenEpoch: 1, InSync: []ident.NodeID{"a"}, SetVersion: 1}
			r.Settle(g)
			r.Wait("b", 0)
			g.Deliveries, g.SetVersion = 2, 3
			r.Settle(g)
			return r.IsGrowing("b")
		}},
	}
}

// TestMutants proves that the oracles see: each broken rule is noticed within 1,000 schedules, in which the rules as they
// should be break nothing.
func TestMutants(t *testing.T) {
	if _, broken, _ := play(0, *schedules); broken != nil {
		report(t, broken)
	}
	var table strings.Builder
	byHand := scripts()
	for _, m := range mutant.All() {
		if *only != "" && *only != m.Name {
			continue
		}
		if s, ok := byHand[m.Variant]; ok {
			fine := s.play()
			restore := mutant.Choose(m.Variant)
			wrong := s.play()
			restore()
			if fine || !wrong {
				t.Errorf("%q: the script says wrong %t, and without the variant %t", m.Name, wrong, fine)
			}
			fmt.Fprintf(&table, "%-32s %-12s caught by a script: %s\n", m.Name, m.Violates, s.why)
			continue
		}
		restore := mutant.Choose(m.Variant)
		n, broken, _ := play(0, *schedules)
		restore()
		if broken == nil {
			t.Errorf("%q survives %d schedules: %s", m.Name, n, m.Breaks)
			fmt.Fprintf(&table, "%-32s %-10s not caught in %d\n", m.Name, m.Violates, n)
			continue
		}
		first, _, _ := strings.Cut(broken.Violation, "\n")
		fmt.Fprintf(&table, "%-32s %-12s caught by %-4s after %4d: %.150s\n", m.Name, m.Violates, broken.Oracle, broken.Seed+1, first)
	}
	t.Logf("\n%s", table.String())
}
