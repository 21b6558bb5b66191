package core

import (
	"testing"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal/entry"
)

// Proves TR-5: those, and only those, are named who need the oldest receiver: who has not flushed it, has no copy of all of it, or has not read it.
func TestKeepers(t *testing.T) {
	table, err := ident.HistoryTable{}.Opened([]ident.HistoryRow{{Epoch: 1, Node: "a", SW: 1, First: 1}})
	if err != nil {
		t.Fatal(err)
	}
	at := func(h ident.History) ident.Position { return ident.Position{Epoch: 1, History: h} }
	node := func(kind fsm.NodeKind, flushed ident.History, copied ident.Sequence) *fsm.Node {
		return &fsm.Node{Kind: kind, Flushed: map[ident.GroupName]ident.Position{"g": at(flushed)}, Copies: map[ident.GroupName]fsm.Ends{"g": {"a": copied}}}
	}
	g := &fsm.Group{
		Spec: fsm.GroupSpec{Name: "g"}, Phase: fsm.PhaseOpened, Epoch: 1, Primary: "a", History: table,
		Consumers: []fsm.Hold{{Name: "read", Position: at(90)}, {Name: "behind", Position: at(4)}}, Dropped: []fsm.Dropped{{Node: "dropped"}},
	}
	a := fsm.Assignment{Self: "a", Group: g, Nodes: map[ident.NodeID]*fsm.Node{
		"a": node(fsm.KindData, 90, 0), "level": node(fsm.KindData, 90, 90), "away": node(fsm.KindData, 3, 3), "nocopy": node(fsm.KindData, 90, 3),
		"dropped": node(fsm.KindData, 1, 1), "witness": node(fsm.KindWitness, 0, 0), "silent": {Kind: fsm.KindData},
	}}
	for id, n := range a.Nodes {
		n.ID = id
	}
	o := OldestReceiver{Author: "a", First: 1, Last: 10, Runs: []entry.Run{{Epoch: 1, First: 1, Last: 100, From: 1, To: 100}}, Flushed: at(90)}
	got := Keepers(a, o, func(n ident.NodeID) bool { return n != "away" })
	want := []Keeper{
		{Kind: KeptByConsumer, Name: "behind", At: at(4)}, {Kind: KeptByNode, Name: "away", At: at(3), Absent: true},
		{Kind: KeptByNode, Name: "nocopy", At: at(90)}, {Kind: KeptByNode, Name: "silent"},
	}
	if len(got) != len(want) {
		t.Fatalf("%+v", got)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("%d: %+v, want %+v", i, got[i], want[i])
		}
	}
	o.Flushed = at(4)
	if got := Keepers(a, o, func(ident.NodeID) bool { return true }); len(got) != 5 || got[0].Kind != KeptHere {
		t.Errorf("what this node has not flushed: %+v", got)
	}
}
