package core

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal/entry"
)

// tree is a history with everything that was ever sequenced: epoch i+1 begins after before[i] and goes up to end[i].
type tree struct {
	before []ident.Position
	end    []ident.History
}

func drawTree(t *rapid.T) (w tree) {
	for e := range rapid.IntRange(1, 6).Draw(t, "epochs") {
		var before ident.Position
		if e > 0 {
			parent := rapid.IntRange(0, e-1).Draw(t, "parent")
			before = ident.Position{Epoch: ident.Epoch(parent + 1), History: ident.History(rapid.IntRange(int(w.first(parent)), int(w.end[parent])).Draw(t, "fork"))}
		}
		w.before = append(w.before, before)
		w.end = append(w.end, before.History+ident.History(rapid.IntRange(1, 6).Draw(t, "length")))
	}
	return w
}

func (w tree) first(e int) ident.History { return w.before[e].History + 1 }

// down returns the position before p on its branch.
func (w tree) down(p ident.Position) ident.Position {
	if e := int(p.Epoch) - 1; p.History == w.first(e) {
		return w.before[e]
	}
	return ident.Position{Epoch: p.Epoch, History: p.History - 1}
}

func (w tree) draw(t *rapid.T, label string, e int) ident.Position {
	return ident.Position{Epoch: ident.Epoch(e + 1), History: ident.History(rapid.IntRange(int(w.first(e)), int(w.end[e])).Draw(t, label))}
}

// table is the one in which epoch e+1 was opened last.
func (w tree) table(e int) (out ident.HistoryTable) {
	for {
		out = append(ident.HistoryTable{{Epoch: ident.Epoch(e + 1), Node: "n", SW: w.first(e), First: 1}}, out...)
		if w.before[e].IsZero() {
			return out
		}
		e = int(w.before[e].Epoch) - 1
	}
}

// held draws parts of the epochs, as journals hold them after receivers were deleted.
func (w tree) held(t *rapid.T) (out []Bough) {
	for e := range w.before {
		for range rapid.IntRange(0, 2).Draw(t, "runs") {
			from, to := w.draw(t, "from", e), w.draw(t, "to", e)
			if from.History > to.History {
				from, to = to, from
			}
			out = append(out, Bough{Run: entry.Run{Epoch: from.Epoch, From: from.History, To: to.History, Before: w.down(from), First: 1, Last: 9}, Author: "n"})
		}
	}
	return out
}

// Whatever was sequenced, opened, deleted: what a node holds of the history without a hole is never above what it promises, so that
// everything that was acknowledged to it counts. Where it promises an epoch that was never opened, its store can be brought there; and who says that its store
// cannot be taken back is right, by the way that the undo goes. Proves I3 and RJ-10.
func TestBestLosesNothingOfTheHistory(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := drawTree(t)
		table := w.table(rapid.IntRange(0, len(w.before)-1).Draw(t, "opened"))
		store := ident.Position{}
		if rapid.IntRange(0, 9).Draw(t, "empty") > 0 {
			store = w.draw(t, "store", rapid.IntRange(0, len(w.before)-1).Draw(t, "epoch of the store"))
		}
		boughs := w.held(t)
		grove := NewGrove(table, store, boughs...)
		best := grove.Best()
		undoable := func(fork ident.Position) bool { // bundle by bundle
			for at := store; at != fork; at = w.down(at) {
				if _, ok := find(boughs, at); !ok {
					return false
				}
			}
			return true
		}
		onto := func(p ident.Position) ident.Position { // the last position that the store's branch shares with that of p
			below := map[ident.Position]bool{{}: true}
			for ; !p.IsZero(); p = w.down(p) {
				below[p] = true
			}
			at := store
			for !below[at] {
				at = w.down(at)
			}
			return at
		}
		for e := range w.before {
			for h := w.first(e); h <= w.end[e]; h++ {
				p := ident.Position{Epoch: ident.Epoch(e + 1), History: h}
				if !grove.Connects(p) || p.Compare(best) <= 0 {
					continue
				}
				if table.Contains(p) {
					t.Fatalf("it holds %s of the history, and promises %s", p, best)
				}
				if table.Contains(store) && undoable(onto(p)) {
					t.Fatalf("it holds %s and could follow it, and promises %s", p, best)
				}
			}
		}
		if table.Contains(store) && !undoable(onto(best)) {
			t.Fatalf("it promises %s, and cannot take the store back from %s to %s", best, store, onto(best))
		}
		if Live(table, store) {
			if !grove.Returns() {
				t.Fatalf("a store at %s need not be taken back", store)
			}
			return
		}
		fork := store
		for !table.Contains(fork) {
			fork = w.down(fork)
		}
		if got := grove.Returns(); got != undoable(fork) {
			t.Fatalf("a store at %s returns to %s: %t", store, fork, got)
		}
	})
}

// A run that says to follow itself leads nowhere, and is not followed for ever.
func TestRunThatFollowsItself(t *testing.T) {
	table := ident.HistoryTable{row(1, "a", 1), row(3, "b", 3)}
	g := NewGrove(table, pos(2, 5), run("c", 2, 3, 5, pos(2, 5)))
	if g.Returns() {
		t.Fatal("the store can be taken back")
	}
}
