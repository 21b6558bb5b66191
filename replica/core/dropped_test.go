package core

import (
	"strings"
	"testing"
	"time"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal/entry"
)

// A node that keeps a receiver by what this node knows, and does not by what was reported, is not dropped yet: the state would refuse
// it. Proves TR-5.
func TestDropWaitsForTheReports(t *testing.T) {
	g := &fsm.Group{
		Spec: fsm.GroupSpec{Name: "g", JournalFull: fsm.JournalFullDrop}, Phase: fsm.PhaseOpened, Epoch: 1, Primary: "a", InSync: []ident.NodeID{"a"},
		History: ident.HistoryTable{{Epoch: 1, Node: "a", SW: 1, First: 1}},
	}
	node := func(id ident.NodeID) *fsm.Node { // the primary's own report is as old as the other one's
		return &fsm.Node{ID: id, Kind: fsm.KindData, Flushed: map[ident.GroupName]ident.Position{"g": pos(1, 3)}, Copies: map[ident.GroupName]fsm.Ends{"g": {"a": 4}}}
	}
	a := fsm.Assignment{Self: "a", Group: g, Nodes: map[ident.NodeID]*fsm.Node{"a": node("a"), "b": node("b")}}
	o := OldestReceiver{Author: "a", First: 1, Last: 20, Flushed: pos(1, 99), Runs: []entry.Run{{Epoch: 1, From: 1, To: 99, First: 1, Last: 100}}}
	absent := func(ident.NodeID) bool { return true }
	if got, why := DecideDrop(a, o, absent); got != "" || !strings.Contains(why, "reported last") {
		t.Fatalf("drops %q: %s", got, why)
	}
	a.Nodes["a"].Flushed["g"] = pos(1, 99)
	if got, why := DecideDrop(a, o, absent); got != "b" {
		t.Fatalf("drops %q: %s", got, why)
	}
}

// A receiver that a consumer holds stays on the disk although the archive has it. Proves HB-6, RJ-5.
func TestSpareKeepsWhatIsHeld(t *testing.T) {
	g := &fsm.Group{Spec: fsm.GroupSpec{Name: "g"}, History: ident.HistoryTable{{Epoch: 1, Node: "a", SW: 1}}}
	a := fsm.Assignment{Self: "a", Group: g, Nodes: map[ident.NodeID]*fsm.Node{"a": {Kind: fsm.KindData}}}
	runs := []entry.Run{{Epoch: 1, From: 1, To: 500, First: 1, Last: 500}}
	for held, want := range map[ident.History]bool{0: false, 150: false, 199: false, 200: true, 250: true} {
		g.Consumers = []fsm.Hold{{Name: "reader"}}
		if held > 0 {
			g.Consumers[0].Position = pos(1, held)
		}
		if got := Spare(a, "a", pos(1, 300), 101, func(ident.NodeID) bool { return true }, runs, 101, 200); got != want {
			t.Errorf("held at %d: %v", held, got)
		}
	}
}

// Who was dropped is neither named by Open nor taken into the set, whatever it holds. Proves TR-5.
func TestDroppedNodeJoinsNothing(t *testing.T) {
	nodes := map[ident.NodeID]*fsm.Node{}
	for _, id := range []ident.NodeID{"a", "b"} {
		nodes[id] = &fsm.Node{ID: id, Kind: fsm.KindData}
	}
	for _, dropped := range []bool{false, true} {
		g := &fsm.Group{Spec: fsm.GroupSpec{Name: "g", Secondaries: 1}, Phase: fsm.PhaseOpened, Epoch: 1, OpenEpoch: 1, Primary: "a", InSync: []ident.NodeID{"a"}}
		if dropped {
			g.Dropped = []fsm.Dropped{{Node: "b"}}
		}
		if set := OpenSet(g, nodes, "a", func(ident.NodeID) bool { return true }); (len(set) == 1) != dropped {
			t.Errorf("dropped %t: Open names %v", dropped, set)
		}
		r := NewRoster("a")
		r.Add("b", "a")
		members, _ := r.Members(time.Second, Outlook{
			Assignment: fsm.Assignment{Self: "a", Group: g, Nodes: nodes}, Alive: func(ident.NodeID) bool { return true }, Outstanding: func(Acked) bool { return false },
		})
		if len(members) != 1 || members[0].Barred != dropped {
			t.Errorf("dropped %t: %+v", dropped, members)
		}
		able := Member{Node: "b", Alive: true, Connected: true, Level: true, Progress: true, Barred: dropped}
		if d := DecideSet(SetRule{Sync: true, Wanted: 1, ShrinkAfter: time.Second}, []Member{able}); (d.Action == SetWait) == dropped {
			t.Errorf("dropped %t: %+v", dropped, d)
		}
	}
}

// Who was dropped and is readmitted is given time to connect before it counts as absent again: else a full journal drops it at once.
// Proves TR-5.
func TestReadmittedNodeIsNotAbsentAtOnce(t *testing.T) {
	g := &fsm.Group{Spec: fsm.GroupSpec{Name: "g", Secondaries: 1}, Phase: fsm.PhaseOpened, Epoch: 1, OpenEpoch: 1, Primary: "a", InSync: []ident.NodeID{"a"}}
	nodes := map[ident.NodeID]*fsm.Node{"a": {ID: "a", Kind: fsm.KindData}, "b": {ID: "b", Kind: fsm.KindData}}
	r := NewRoster("a")
	r.Add("b", "a")
	look := func(at time.Duration) time.Duration {
		r.Members(at, Outlook{
			Assignment: fsm.Assignment{Self: "a", Group: g, Nodes: nodes}, Alive: func(ident.NodeID) bool { return true }, Outstanding: func(Acked) bool { return true },
		})
		return r.Stalled("b", at)
	}
	look(0)
	if got := look(time.Minute); got != time.Minute {
		t.Fatalf("absent for %s", got)
	}
	g.Dropped = []fsm.Dropped{{Node: "b"}}
	look(2 * time.Minute)
	g.Dropped = nil
	if got := r.Stalled("b", 3*time.Minute); got != 0 {
		t.Errorf("before anybody looks it is absent for %s", got)
	}
	look(3 * time.Minute)
	if got := look(3*time.Minute + time.Second); got != time.Second {
		t.Errorf("a second later it is absent for %s", got)
	}
}
