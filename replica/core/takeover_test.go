package core

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/understudy-ha/understudy/internal/ident"
)

// Whatever a takeover does not deposit again is committed by the table, in its store, or confirmed by whoever wrote it; and what it goes on
// from lies on the branch that it makes the history. Proves RJ-8 and I3.
func TestConfirmedEndLeavesNothingOut(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := drawTree(t)
		table := w.table(rapid.IntRange(0, len(w.before)-1).Draw(t, "opened"))
		var store ident.Position
		if rapid.Bool().Draw(t, "something is in the store") {
			store = w.draw(t, "store", rapid.IntRange(0, len(w.before)-1).Draw(t, "epoch of the store"))
		}
		held, sure := w.held(t), w.held(t)
		grove := NewGrove(table, store, append(held, sure...)...)
		best := grove.Best()
		at, ok := ConfirmedEnd(grove, sure, best)
		if !ok {
			t.Fatalf("no way to %s", best)
		}
		stored := map[ident.Position]bool{}
		for p := store; !p.IsZero(); p = w.down(p) {
			stored[p] = true
		}
		through := at.IsZero()
		for p := best; !p.IsZero(); p = w.down(p) {
			through = through || p == at
			_, confirmed := covering(sure, p)
			known := confirmed || table.Contains(p) && p.History <= BeforeRow(table).History
			if p.History <= at.History && !known && !stored[p] {
				t.Fatalf("from %s to %s: %s is left out, which is neither in the store at %s nor confirmed", at, best, p, store)
			}
			if p.History == at.History+1 && known {
				t.Fatalf("from %s to %s: %s is known, and deposited again", at, best, p)
			}
		}
		if !through && !table.Contains(at) {
			t.Fatalf("%s is not on the way to %s", at, best)
		}
	})
}

// The store applied what an operator gave up since; the epoch that was begun instead did not open, and its SW is all there is of it.
func TestConfirmedEndIsNotWhatTheStoreHasBeyondTheFork(t *testing.T) {
	table := ident.HistoryTable{row(1, "c", 1)}
	grove := NewGrove(table, pos(1, 20), run("c", 1, 1, 20, ident.Position{}), run("a", 2, 20, 20, pos(1, 19)))
	if best := grove.Best(); best != pos(2, 20) {
		t.Fatalf("it goes on from %s", best)
	}
	if at, ok := ConfirmedEnd(grove, nil, pos(2, 20)); !ok || at != pos(1, 19) {
		t.Fatalf("confirmed up to %s, %t: SW of epoch 2 would not be deposited again", at, ok)
	}
}
