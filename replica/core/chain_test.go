package core

import (
	"slices"
	"testing"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal/entry"
)

func pos(e ident.Epoch, h ident.History) ident.Position { return ident.Position{Epoch: e, History: h} }

func row(e ident.Epoch, n ident.NodeID, sw ident.History) ident.HistoryRow {
	return ident.HistoryRow{Epoch: e, Node: n, SW: sw}
}

// run stands in author's journal: epoch e, from..to, continuing before.
func run(author ident.NodeID, e ident.Epoch, from, to ident.History, before ident.Position) Bough {
	return Bough{Author: author, Run: entry.Run{Epoch: e, From: from, To: to, Before: before, First: ident.Sequence(from), Last: ident.Sequence(to)}}
}

func TestGrove(t *testing.T) {
	one := ident.HistoryTable{row(1, "a", 1)}
	cases := []struct {
		name     string
		table    ident.HistoryTable
		store    ident.Position
		boughs   []Bough
		best     ident.Position
		connects []ident.Position
		holes    []ident.Position
	}{
		{name: "nothing", best: pos(0, 0), connects: []ident.Position{{}}, holes: []ident.Position{pos(1, 1)}},
		{
			name: "one journal", table: one, boughs: []Bough{run("a", 1, 1, 9, pos(0, 0))},
			best: pos(1, 9), connects: []ident.Position{pos(1, 1), pos(1, 9)}, holes: []ident.Position{pos(1, 10), pos(2, 3)},
		},
		{
			name: "the store bridges what was deleted", table: one, store: pos(1, 5), boughs: []Bough{run("a", 1, 4, 9, pos(1, 3))},
			best: pos(1, 9), connects: []ident.Position{pos(1, 2), pos(1, 5), pos(1, 6)},
		},
		{
			name: "a gap above the store", table: one, store: pos(1, 5), boughs: []Bough{run("a", 1, 7, 9, pos(1, 6))},
			best: pos(1, 5), holes: []ident.Position{pos(1, 7), pos(1, 9)},
		},
		{
			name: "the tail lives on in another journal", table: one,
			boughs: []Bough{
				run("a", 1, 1, 19, pos(0, 0)), run("b", 1, 20, 25, pos(1, 19)), run("b", 2, 26, 30, pos(1, 25)),
			},
			best: pos(2, 30), connects: []ident.Position{pos(2, 26)},
		},
		{
			name: "grown from the present journal only: a hole below", table: one,
			boughs: []Bough{run("b", 1, 20, 25, pos(1, 19)), run("b", 2, 26, 30, pos(1, 25))},
			best:   pos(0, 0), holes: []ident.Position{pos(2, 30), pos(1, 20)},
		},
		{
			name: "what a later row left aside is dead", table: ident.HistoryTable{row(1, "a", 1), row(3, "b", 6)},
			boughs: []Bough{run("a", 1, 1, 9, pos(0, 0)), run("b", 3, 6, 7, pos(1, 5))},
			best:   pos(3, 7), connects: []ident.Position{pos(1, 5), pos(3, 6)}, holes: []ident.Position{pos(1, 6), pos(1, 9)},
		},
		{
			name: "an epoch that never opened is dead once a later one did", table: ident.HistoryTable{row(1, "a", 1), row(3, "b", 6)},
			boughs: []Bough{run("a", 1, 1, 9, pos(0, 0)), run("c", 2, 10, 12, pos(1, 9))},
			best:   pos(1, 5), holes: []ident.Position{pos(2, 12)},
		},
		{
			name: "an epoch newer than the table counts", table: one,
			boughs: []Bough{run("a", 1, 1, 9, pos(0, 0)), run("b", 2, 8, 8, pos(1, 7)), run("c", 3, 10, 10, pos(1, 9))},
			best:   pos(3, 10), connects: []ident.Position{pos(2, 8), pos(3, 10)},
		},
		{
			name: "a store that left the history holds it up to the fork", table: ident.HistoryTable{row(1, "a", 1), row(2, "b", 6)}, store: pos(1, 9),
			boughs: []Bough{run("b", 2, 6, 8, pos(1, 5))},
			best:   pos(2, 8), connects: []ident.Position{pos(1, 5), pos(2, 6)}, holes: []ident.Position{pos(1, 6)},
		},
		{
			name: "a store of an epoch without a row: its own branch shows the fork", table: ident.HistoryTable{row(1, "a", 1), row(3, "b", 6)}, store: pos(2, 9),
			boughs: []Bough{run("c", 2, 4, 9, pos(1, 3)), run("b", 3, 6, 8, pos(1, 5))},
			best:   pos(1, 3), connects: []ident.Position{pos(1, 3)}, holes: []ident.Position{pos(1, 4), pos(3, 8)},
		},
		{
			name: "a store of an epoch without a row and without its branch: nothing is taken for shared", table: ident.HistoryTable{row(1, "a", 1), row(3, "b", 6)},
			store: pos(2, 9), boughs: []Bough{run("b", 3, 6, 8, pos(1, 5))},
			best: pos(0, 0), holes: []ident.Position{pos(1, 3), pos(3, 8)},
		},
		{
			name: "handed over: the row stands before its SW", table: ident.HistoryTable{row(1, "a", 1), row(2, "b", 10)},
			boughs: []Bough{run("a", 1, 1, 9, pos(0, 0))},
			best:   pos(1, 9),
		},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			for range 2 {
				g := NewGrove(c.table, c.store, c.boughs...)
				if got := g.Best(); got != c.best {
					t.Errorf("best is %s, want %s", got, c.best)
				}
				for _, p := range c.connects {
					inside := c.table.Contains(c.store) // else the store has something to undo first
					if !g.Connects(p) || inside && g.End(p) != p {
						t.Errorf("%s is held, but does not connect", p)
					}
				}
				for _, p := range c.holes {
					if g.Connects(p) || !g.End(p).IsZero() {
						t.Errorf("%s connects over a hole", p)
					}
				}
				slices.Reverse(c.boughs) // the order of the journals does not matter
			}
		})
	}
}

func TestPathAndRows(t *testing.T) {
	table := ident.HistoryTable{row(1, "a", 1)}
	g := NewGrove(table, pos(1, 4),
		run("a", 1, 1, 9, pos(0, 0)), run("b", 1, 8, 9, pos(1, 7)), run("b", 2, 10, 12, pos(1, 9)),
		run("c", 2, 12, 12, pos(2, 11)), run("c", 4, 13, 13, pos(2, 12)))
	path, ok := g.Path(pos(4, 13))
	if !ok {
		t.Fatal("no path")
	}
	var got []string
	for _, b := range path {
		got = append(got, string(b.Author)+" "+pos(b.Epoch, b.From).String()+".."+b.To.String()+" after "+b.Before.String())
	}
	want := []string{"a 1.5..9 after 1.4", "b 2.10..12 after 1.9", "c 4.13..13 after 2.12"}
	if !slices.Equal(got, want) {
		t.Fatalf("path %q, want %q", got, want)
	}
	rows := RowsFor(table, path)
	if len(rows) != 2 || rows[0] != row(2, "b", 10) || rows[1] != row(4, "c", 13) {
		t.Fatalf("rows %+v", rows)
	}
	if path, ok := g.Path(pos(1, 3)); !ok || len(path) != 0 {
		t.Fatalf("path into the store: %+v, %t", path, ok)
	}
}

func TestRunsUpTo(t *testing.T) {
	runs := []entry.Run{
		{Epoch: 1, From: 1, To: 9, First: 1, Last: 4}, {Epoch: 2, From: 10, To: 14, First: 6, Last: 9}, {Epoch: 3, From: 15, To: 15, First: 11, Last: 11},
	}
	got := RunsUpTo(runs, 7, pos(2, 12))
	if len(got) != 2 || got[0] != runs[0] || got[1].To != 12 || got[1].Last != 7 {
		t.Fatalf("durable runs %+v", got)
	}
	if got := RunsUpTo(runs, 5, pos(1, 9)); len(got) != 1 {
		t.Fatalf("durable runs %+v", got)
	}
}

func TestForkOfOpenedRow(t *testing.T) {
	table := ident.HistoryTable{row(1, "a", 1), row(2, "b", 6), row(5, "c", 9)}
	for at, want := range map[ident.Position]ident.Position{
		pos(1, 9): pos(1, 5), pos(2, 8): pos(2, 8), pos(2, 12): pos(2, 8), pos(5, 30): pos(5, 30), {}: {},
	} {
		if got := forkOf(table, at, nil); got != want {
			t.Errorf("fork of %s is %s, want %s", at, got, want)
		}
	}
}

// Proves RJ-9: a node whose Raft state is older than its store, as after every restart, takes nothing back.
func TestStoreNewerThanTheState(t *testing.T) {
	g := &fsm.Group{Phase: fsm.PhaseOpened, History: ident.HistoryTable{row(1, "a", 1), row(3, "b", 6)}}
	for at, want := range map[ident.Position]bool{
		{}: false, pos(1, 5): false, pos(3, 9): false, pos(1, 6): true, pos(2, 6): true, pos(3, 5): true, pos(4, 20): false,
	} {
		if got := LeftHistory(g, at); got != want {
			t.Errorf("a store at %s has left the history: %t", at, got)
		}
	}
	g.Phase = fsm.PhaseFenced
	if LeftHistory(g, pos(1, 6)) {
		t.Error("between two primaries nothing is decided")
	}
}

// Proves I3 after a loss that an operator allowed: who has to undo something before it can follow a position does not acknowledge it yet,
// and one who is at or below the fork does.
func TestNothingIsAcknowledgedBeforeTheUndo(t *testing.T) {
	table := ident.HistoryTable{row(1, "a", 1), row(2, "b", 5)}
	run := func(author ident.NodeID, e ident.Epoch, from, to ident.History, before ident.Position) Bough {
		return Bough{Run: entry.Run{Epoch: e, From: from, To: to, Before: before, First: 1, Last: 100}, Author: author}
	}
	boughs := []Bough{run("a", 1, 1, 4, ident.Position{}), run("b", 2, 5, 40, pos(1, 4)), run("d", 3, 5, 5, pos(1, 4)), run("e", 4, 41, 42, pos(2, 40))}
	for _, c := range []struct {
		name  string
		store ident.Position
		end   ident.Position
		want  bool
	}{
		{"it has applied beyond the fork", pos(2, 40), pos(3, 5), false},
		{"just beyond", pos(2, 5), pos(3, 5), false},
		{"it stands at the fork", pos(1, 4), pos(3, 5), true},
		{"below", pos(1, 2), pos(3, 5), true},
		{"the new epoch goes on where it is", pos(2, 40), pos(4, 42), true},
		{"it follows", pos(2, 30), pos(2, 40), true},
		{"it is further", pos(2, 40), pos(2, 30), true},
		{"it has left the history", pos(1, 7), pos(2, 40), false},
	} {
		held := append(boughs, run("x", 1, 5, 7, pos(1, 4)))
		if got := NewGrove(table, c.store, held...).End(c.end); (got == c.end) != c.want || got != c.end && !got.IsZero() {
			t.Errorf("%s: it acknowledges %s", c.name, got)
		}
	}
}

// Proves I3 and RJ-10 after a loss that an operator allowed: an epoch that never opened, and begins below what the store has, is the best end
// only of who holds everything that has to be undone for it. Who does not stays with what the store has.
func TestBestIsWhatTheStoreCanFollow(t *testing.T) {
	table := ident.HistoryTable{row(1, "a", 1), row(2, "b", 5)}
	never := run("c", 3, 28, 28, pos(2, 27))
	for _, c := range []struct {
		name   string
		store  ident.Position
		boughs []Bough
		want   ident.Position
	}{
		{"everything is held", pos(2, 58), []Bough{run("b", 2, 5, 58, pos(1, 4)), never}, pos(3, 28)},
		{"from the fork on", pos(2, 58), []Bough{run("b", 2, 28, 58, pos(2, 27)), never}, pos(3, 28)},
		{"in two journals", pos(2, 58), []Bough{run("b", 2, 40, 58, pos(2, 39)), run("d", 2, 20, 39, pos(2, 19)), never}, pos(3, 28)},
		{"deleted up to beyond the fork", pos(2, 58), []Bough{run("b", 2, 38, 58, pos(2, 37)), never}, pos(2, 58)},
		{"a hole in between", pos(2, 58), []Bough{run("b", 2, 40, 58, pos(2, 39)), run("d", 2, 20, 35, pos(2, 19)), never}, pos(2, 58)},
		{"nothing is held", pos(2, 58), []Bough{never}, pos(2, 58)},
		{"deleted, and more received", pos(2, 58), []Bough{run("b", 2, 38, 70, pos(2, 37)), never}, pos(2, 70)},
		{"the store stands at the fork", pos(2, 27), []Bough{never}, pos(3, 28)},
		{"below it", pos(2, 20), []Bough{run("b", 2, 21, 27, pos(2, 20)), never}, pos(3, 28)},
		{"the fork is in an earlier epoch", pos(2, 8), []Bough{run("b", 2, 5, 8, pos(1, 4)), run("a", 1, 3, 4, pos(1, 2)), run("c", 3, 4, 4, pos(1, 3))}, pos(3, 4)},
		{"in an earlier epoch, deleted", pos(2, 8), []Bough{run("b", 2, 6, 8, pos(2, 5)), run("c", 3, 4, 4, pos(1, 3))}, pos(2, 8)},
	} {
		if got := NewGrove(table, c.store, c.boughs...).Best(); got != c.want {
			t.Errorf("%s: best is %s, want %s", c.name, got, c.want)
		}
	}
}

// Proves RJ-10: what is held, but was journaled without the images of what it changed, leads nowhere: whose store would have to be taken back
// below that is neither chosen for such an end nor said to return. Who need not be taken back is not asked.
func TestWhatCannotBeUndone(t *testing.T) {
	table := ident.HistoryTable{row(1, "a", 1), row(2, "b", 5)}
	held, never := run("b", 2, 5, 58, pos(1, 4)), run("c", 3, 28, 28, pos(2, 27))
	left := ident.HistoryTable{row(1, "a", 1), row(3, "c", 28)}
	for _, c := range []struct {
		name    string
		table   ident.HistoryTable
		store   ident.Position
		boughs  []Bough
		lowest  ident.History // with images above that
		asked   bool
		best    ident.Position
		returns bool
	}{
		{"in the history, all has images", table, pos(2, 58), []Bough{held, never}, 0, true, pos(3, 28), true},
		{"in the history, down to the fork", table, pos(2, 58), []Bough{held, never}, 27, true, pos(3, 28), true},
		{"in the history, one has none", table, pos(2, 58), []Bough{held, never}, 28, true, pos(2, 58), true},
		{"in the history, not all is held", table, pos(2, 58), []Bough{run("b", 2, 38, 58, pos(2, 37)), never}, 0, false, pos(2, 58), true},
		{"at the fork", table, pos(2, 27), []Bough{held, never}, 58, false, pos(3, 28), true},
		{"outside, down to the fork", left, pos(1, 58), []Bough{run("a", 1, 20, 58, pos(1, 19))}, 27, true, pos(1, 27), true},
		{"outside, one has none", left, pos(1, 58), []Bough{run("a", 1, 20, 58, pos(1, 19))}, 28, true, pos(1, 27), false},
		{"outside, not all is held", left, pos(1, 58), []Bough{run("a", 1, 29, 58, pos(1, 28))}, 0, false, pos(1, 27), false},
	} {
		asked := false
		g := NewGrove(c.table, c.store, c.boughs...).Undoes(func(fork ident.Position) bool {
			asked = true
			return fork.History >= c.lowest
		})
		if best, returns := g.Best(), g.Returns(); best != c.best || returns != c.returns || asked != c.asked {
			t.Errorf("%s: best is %s, want %s; returns %v, want %v; asked %v", c.name, best, c.best, returns, c.returns, asked)
		}
	}
}

// Proves RJ-10: who cannot take its store back into the history says so in its report, before it has tried.
func TestStoreThatCannotReturn(t *testing.T) {
	table := ident.HistoryTable{row(1, "a", 1), row(3, "c", 28)}
	for _, c := range []struct {
		name   string
		store  ident.Position
		boughs []Bough
		want   bool
	}{
		{"it stands in the history", pos(1, 20), nil, true},
		{"at its end", pos(3, 30), nil, true},
		{"newer than the table", pos(4, 40), nil, true},
		{"nothing", pos(0, 0), nil, true},
		{"everything is held", pos(1, 58), []Bough{run("a", 1, 20, 58, pos(1, 19))}, true},
		{"from the fork on", pos(1, 58), []Bough{run("a", 1, 28, 58, pos(1, 27))}, true},
		{"all but the first", pos(1, 58), []Bough{run("a", 1, 29, 58, pos(1, 28))}, false},
		{"all but the last", pos(1, 58), []Bough{run("a", 1, 20, 57, pos(1, 19))}, false},
		{"nothing is held", pos(1, 58), nil, false},
		{"an epoch without a row", pos(2, 9), []Bough{run("b", 2, 6, 9, pos(1, 5))}, true},
		{"an epoch without a row, deleted", pos(2, 9), []Bough{run("b", 2, 8, 9, pos(2, 7))}, false},
	} {
		if got := NewGrove(table, c.store, c.boughs...).Returns(); got != c.want {
			t.Errorf("%s: returns %v, want %v", c.name, got, c.want)
		}
	}
}
