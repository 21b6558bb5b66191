package core

import (
	"testing"
	"time"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal/entry"
)

// A node that was away, and held nothing back by what it had told, begins its next life. Until its groups are open it tells nothing, so
// that everything is kept for it. A full journal does not drop it for that before it had time to connect; one that does not, or that dies
// again and again, is dropped as any. Proves TR-5.
func TestNodeThatReturnsIsNotDroppedForItsSilence(t *testing.T) {
	const least = 10 * time.Second
	g := &fsm.Group{
		Spec: fsm.GroupSpec{Name: "g", Secondaries: 1, JournalFull: fsm.JournalFullDrop}, Phase: fsm.PhaseOpened, Epoch: 1, OpenEpoch: 1, OpenNode: "a", Primary: "a",
		InSync: []ident.NodeID{"a"}, History: ident.HistoryTable{{Epoch: 1, Node: "a", SW: 1, First: 1}},
	}
	far, near := pos(1, 900), pos(1, 5)
	tells := func(id ident.NodeID, life ident.Incarnation, at ident.Position, end ident.Sequence) *fsm.Node {
		n := &fsm.Node{ID: id, Kind: fsm.KindData, Incarnation: life}
		if !at.IsZero() {
			n.Flushed, n.Copies = map[ident.GroupName]ident.Position{"g": at}, map[ident.GroupName]fsm.Ends{"g": {"a": end}}
		}
		return n
	}
	nodes := map[ident.NodeID]*fsm.Node{"a": tells("a", 1, far, 900), "b": tells("b", 2, far, 900), "c": tells("c", 3, near, 5)}
	oldest := OldestReceiver{Author: "a", First: 1, Last: 100, Runs: []entry.Run{{Epoch: 1, From: 1, To: 900, First: 1, Last: 900}}, Flushed: far}
	r := NewRoster("a")
	connects := map[ident.NodeID]bool{}
	for _, n := range []ident.NodeID{"b", "c"} {
		r.Add(n, "a")
	}
	drops := func(at time.Duration) ident.NodeID {
		t.Helper()
		for n := range connects {
			r.Began(n, "a")
			r.Stands(n, "a", Standing{Phase: ShipLive, Over: true})
		}
		a := fsm.Assignment{Self: "a", Group: g, Nodes: nodes}
		r.Members(at, Outlook{Assignment: a, Alive: func(ident.NodeID) bool { return true }, Last: far, Outstanding: func(Acked) bool { return false }})
		n, _ := DecideDrop(a, oldest, func(n ident.NodeID) bool { return r.Absent(n, at) >= least })
		return n
	}
	if got := drops(0); got != "" {
		t.Fatalf("drops %q, who has just gone", got)
	}
	if got := drops(time.Minute); got != "c" {
		t.Fatalf("drops %q, want c: b needs nothing", got)
	}
	nodes["b"] = tells("b", 4, ident.Position{}, 0) // its next life, which has said nothing
	if got := drops(time.Minute + time.Second); got != "" {
		t.Fatalf("drops %q, which has only just returned, and without it nothing becomes free", got)
	}
	if got := r.Stalled("b", time.Minute+time.Second); got != time.Minute+time.Second {
		t.Fatalf("people are told that it lags by %s", got)
	}
	if got := drops(time.Minute + least); got != "" {
		t.Fatalf("drops %q too early", got)
	}
	nodes["b"] = tells("b", 4, far, 900)
	if got := drops(time.Minute + least); got != "c" {
		t.Fatalf("drops %q, want c", got)
	}
	nodes["b"] = tells("b", 5, ident.Position{}, 0) // and another one, without having been heard
	if got := drops(time.Minute + time.Second + least); got != "b" {
		t.Fatalf("drops %q, want b: it dies again and again, and does not connect", got)
	}
	connects["b"] = true
	if got := drops(2 * time.Minute); got != "" || r.Absent("b", 2*time.Minute) != 0 {
		t.Fatalf("drops %q, which is connected", got)
	}
	delete(connects, "b")
	r.Began("b", "a")
	drops(3 * time.Minute)
	nodes["b"] = tells("b", 6, ident.Position{}, 0)
	if got := drops(4 * time.Minute); got != "" {
		t.Fatalf("drops %q: it was there in between, so it is given time again", got)
	}

	r.Add("d", "a") // registered, and never seen; its first life is one that begins, too
	nodes["b"], nodes["d"] = tells("b", 6, far, 900), tells("d", 0, ident.Position{}, 0)
	drops(4 * time.Minute)
	if got := drops(5 * time.Minute); got != "d" {
		t.Fatalf("drops %q, want d", got)
	}
	nodes["d"] = tells("d", 1, ident.Position{}, 0)
	if got := drops(6 * time.Minute); got != "" {
		t.Fatalf("drops %q, which has only just begun to live", got)
	}
}
