package core_test

import (
	"testing"

	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/replica/core"
)

// Proves TR-2 (receipts): a write is done when it stands in the committed history, not done once the history has passed it,
// and undecided in between.
func TestOutcomeOfPosition(t *testing.T) {
	at := func(e, h uint64) ident.Position {
		return ident.Position{Epoch: ident.Epoch(e), History: ident.History(h)}
	}
	// Epoch 1 begins at 1; epoch 3 at 51, where epoch 1 was left; epoch 2 was promoted and never opened; epoch 4 at 80.
	table := ident.HistoryTable{{Epoch: 1, Node: "a", SW: 1}, {Epoch: 3, Node: "b", SW: 51}, {Epoch: 4, Node: "a", SW: 80}}
	for _, tc := range []struct {
		name         string
		table        ident.HistoryTable
		p, committed ident.Position
		want         core.Outcome
	}{
		{"first fact", table, at(1, 1), at(4, 90), core.Done},
		{"last one before the switch", table, at(1, 50), at(4, 90), core.Done},
		{"first one left aside", table, at(1, 51), at(4, 90), core.NotDone},
		{"far beyond the switch", table, at(1, 5000), at(4, 90), core.NotDone},
		{"of an epoch that never opened, below the next row", table, at(2, 50), at(4, 90), core.NotDone},
		{"of an epoch that never opened, above it", table, at(2, 60), at(4, 90), core.NotDone},
		{"below its own epoch's beginning", table, at(3, 50), at(4, 90), core.NotDone},
		{"the SW itself", table, at(3, 51), at(4, 90), core.Done},
		{"newest epoch, committed", table, at(4, 90), at(4, 90), core.Done},
		{"newest epoch, in flight", table, at(4, 91), at(4, 90), core.Undecided},
		{"older epoch, but the store is not there yet", table, at(3, 60), at(1, 40), core.Undecided},
		{"the store has left the history: what it holds says nothing", table, at(1, 50), at(1, 70), core.Undecided},
		{"an epoch that has not begun here", table, at(5, 60), at(4, 90), core.Undecided},
		{"an epoch that has not begun here, far below", table, at(5, 3), at(4, 90), core.Undecided},
		{"no position", table, at(0, 0), at(4, 90), core.Undecided},
		{"nothing was opened", nil, at(1, 5), at(0, 0), core.Undecided},
	} {
		if got := core.OutcomeOf(tc.table, tc.committed, tc.p); got != tc.want {
			t.Errorf("%s: %s is %s, want %s", tc.name, tc.p, got, tc.want)
		}
	}
}

// Proves TR-2 (receipts): what one table calls not done no later table takes back, and it never calls something done that
// was not.
func TestNotDoneIsFinal(t *testing.T) {
	opened := func(table ident.HistoryTable, e ident.Epoch, sw ident.History) ident.HistoryTable {
		next, err := table.Opened([]ident.HistoryRow{{Epoch: e, Node: "a", SW: sw}})
		if err != nil {
			t.Fatal(err)
		}
		return next
	}
	var grow func(table ident.HistoryTable, e ident.Epoch, depth int)
	tables := 0
	grow = func(table ident.HistoryTable, e ident.Epoch, depth int) {
		tables++
		if depth == 0 {
			return
		}
		for sw := range ident.History(7) {
			next := opened(table, e, sw+1)
			for pe := range e + 2 {
				for h := range ident.History(9) {
					p := ident.Position{Epoch: pe, History: h}
					for top := range ident.History(9) {
						end := ident.Position{Epoch: next.EpochAt(top), History: top}
						if core.OutcomeOf(table, ident.Position{}, p) == core.NotDone && core.OutcomeOf(next, end, p) != core.NotDone {
							t.Fatalf("%s: not done by %+v, but %s by %+v", p, table, core.OutcomeOf(next, end, p), next)
						}
					}
				}
			}
			grow(next, e+1, depth-1)
		}
	}
	grow(ident.HistoryTable{{Epoch: 1, Node: "a", SW: 1}}, 2, 3)
	if tables < 300 {
		t.Fatalf("only %d tables", tables)
	}
}
