package ident

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// table is a history with a planned switch, a failover that kept a tail, and an epoch (4) that never opened.
var table = HistoryTable{
	{Epoch: 1, Node: "a", SW: 1, First: 1},
	{Epoch: 2, Node: "b", SW: 10, First: 1},
	{Epoch: 3, Node: "a", SW: 11, First: 30},
	{Epoch: 5, Node: "c", SW: 20, First: 1},
}

func pos(e Epoch, h History) Position { return Position{Epoch: e, History: h} }

func TestContains(t *testing.T) {
	for _, c := range []struct {
		p    Position
		want bool
	}{
		{pos(0, 0), true}, // before everything
		{pos(1, 0), false},
		{pos(0, 1), false},
		{pos(1, 1), true},
		{pos(1, 9), true},
		{pos(1, 10), false}, // beyond the fork of epoch 2
		{pos(1, 500), false},
		{pos(2, 9), false}, // before its own SW
		{pos(2, 10), true}, // an epoch of its SW alone
		{pos(2, 11), false},
		{pos(3, 11), true},
		{pos(3, 19), true},
		{pos(3, 20), false},
		{pos(4, 15), false}, // never opened
		{pos(5, 20), true},
		{pos(5, 1<<60), true}, // the newest epoch is open-ended
		{pos(6, 21), false},   // not opened yet
	} {
		if got := table.Contains(c.p); got != c.want {
			t.Errorf("Contains(%s) = %v", c.p, got)
		}
	}
	if (HistoryTable{}).Contains(pos(1, 1)) {
		t.Error("an empty history contains a fact")
	}
}

func TestEpochAt(t *testing.T) {
	for h, want := range map[History]Epoch{0: 0, 1: 1, 9: 1, 10: 2, 11: 3, 19: 3, 20: 5, 99: 5} {
		if got := table.EpochAt(h); got != want {
			t.Errorf("EpochAt(%s) = %s, want %s", h, got, want)
		}
	}
	if got := table[1:].EpochAt(5); got != 0 {
		t.Errorf("EpochAt before the first row = %s", got)
	}
}

func TestFork(t *testing.T) {
	for _, c := range []struct{ p, want Position }{
		{pos(0, 0), pos(0, 0)},
		{pos(2, 0), pos(0, 0)},
		{pos(3, 15), pos(3, 15)},
		{pos(1, 12), pos(1, 9)},  // the tail of epoch 1 that epoch 2 did not have
		{pos(2, 14), pos(2, 10)}, // writes of b that epoch 3 did not have
		{pos(3, 25), pos(3, 19)},
		{pos(4, 16), pos(3, 15)}, // its SW is at 16 or below: nothing from there on is shared
		{pos(4, 30), pos(3, 19)}, // epoch 5 began at 20
		{pos(6, 24), pos(5, 23)}, // promoted, not opened
		{pos(4, 1), pos(0, 0)},
	} {
		if got := table.Fork(c.p); got != c.want {
			t.Errorf("Fork(%s) = %s, want %s", c.p, got, c.want)
		}
	}
}

func TestOpened(t *testing.T) {
	row := func(e Epoch, n NodeID, sw History) HistoryRow { return HistoryRow{Epoch: e, Node: n, SW: sw} }
	short := func(t HistoryTable) (out [][2]uint64) {
		for _, r := range t {
			out = append(out, [2]uint64{uint64(r.Epoch), uint64(r.SW)})
		}
		return out
	}
	for _, c := range []struct {
		name string
		rows []HistoryRow
		want [][2]uint64 // nil: refused
	}{
		{"the usual", []HistoryRow{row(6, "a", 30)}, [][2]uint64{{1, 1}, {2, 10}, {3, 11}, {5, 20}, {6, 30}}},
		{"with an epoch that never opened", []HistoryRow{row(6, "a", 30), row(7, "c", 35)}, [][2]uint64{{1, 1}, {2, 10}, {3, 11}, {5, 20}, {6, 30}, {7, 35}}},
		{"a handover whose SW got lost", []HistoryRow{row(6, "a", 20)}, [][2]uint64{{1, 1}, {2, 10}, {3, 11}, {6, 20}}},
		{"a forced branch", []HistoryRow{row(6, "c", 11)}, [][2]uint64{{1, 1}, {2, 10}, {6, 11}}},
		{"old rows repeated", []HistoryRow{row(3, "a", 11), row(5, "c", 20), row(6, "c", 21)}, [][2]uint64{{1, 1}, {2, 10}, {3, 11}, {5, 20}, {6, 21}}},
		{"an old row in between left out", []HistoryRow{row(3, "a", 11), row(6, "c", 21)}, [][2]uint64{{1, 1}, {2, 10}, {3, 11}, {6, 21}}},
		{"nothing", nil, nil},
		{"an old epoch elsewhere", []HistoryRow{row(5, "c", 21)}, nil},
		{"an old epoch of another node", []HistoryRow{row(5, "b", 20)}, nil},
		{"epochs descending", []HistoryRow{row(7, "a", 30), row(6, "a", 31)}, nil},
		{"two at one place", []HistoryRow{row(6, "a", 30), row(7, "a", 30)}, nil},
		{"an old epoch after a newer one", []HistoryRow{row(4, "a", 30)}, nil},
		{"no SW", []HistoryRow{{Epoch: 6, Node: "a"}}, nil},
		{"no node", []HistoryRow{{Epoch: 6, SW: 30}}, nil},
	} {
		before := slices.Clone(table)
		got, err := table.Opened(c.rows)
		if (err != nil) != (c.want == nil) || !slices.Equal(short(got), c.want) {
			t.Errorf("%s: %v, %v; want %v", c.name, short(got), err, c.want)
		}
		if !slices.Equal(before, table) {
			t.Fatalf("%s: the receiver was changed", c.name)
		}
	}
	got, _ := table.Opened([]HistoryRow{row(5, "c", 20), row(6, "c", 21)})
	if got[3].First != 1 {
		t.Error("a repeated row lost its first sequence")
	}
	if got = got.WithFirst(6, 7); got[4].First != 7 || got[3].First != 1 {
		t.Errorf("WithFirst: %+v", got)
	}
}

// TestHistoryFollowsBranches grows random branches as nodes would, opens some, and compares the table with the branch
// itself.
func TestHistoryFollowsBranches(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		branch := []Position{} // the history, fact by fact
		var tab HistoryTable
		type end struct{ p, fork Position } // of a branch that was left, and where it left the history
		var dead []end
		epoch := Epoch(0)
		for range rapid.IntRange(1, 12).Draw(t, "epochs") {
			epoch++
			// The next branch begins anywhere above the last SW: that one is committed.
			low := 0
			if len(tab) > 0 {
				low = int(tab.Last().SW)
			}
			cut := rapid.IntRange(low, len(branch)).Draw(t, "cut")
			if cut < len(branch) {
				dead = append(dead, end{branch[len(branch)-1], below(branch, cut)})
			}
			branch = branch[:cut:cut]
			sw := History(cut + 1)
			n := rapid.IntRange(1, 8).Draw(t, "facts")
			facts := make([]Position, n)
			for i := range facts {
				facts[i] = Position{Epoch: epoch, History: sw + History(i)}
			}
			if rapid.Bool().Draw(t, "opened") {
				var err error
				if tab, err = tab.Opened([]HistoryRow{{Epoch: epoch, Node: "a", SW: sw}}); err != nil {
					t.Fatal(err)
				}
				branch = append(branch, facts...)
			} else {
				dead = append(dead, end{facts[n-1], below(branch, cut)})
			}
		}
		in := map[Position]bool{}
		for i, p := range branch {
			in[p] = true
			if got := tab.EpochAt(History(i + 1)); got != p.Epoch {
				t.Fatalf("EpochAt(%d) = %s, want %s", i+1, got, p.Epoch)
			}
			if tab.Fork(p) != p {
				t.Fatalf("Fork(%s) = %s", p, tab.Fork(p))
			}
		}
		for e := Epoch(0); e <= epoch+1; e++ {
			for h := History(1); h <= History(len(branch)); h++ {
				if got := tab.Contains(Position{e, h}); got != in[Position{e, h}] {
					t.Fatalf("Contains(%s) = %v with %v", Position{e, h}, got, tab)
				}
			}
		}
		for _, d := range dead {
			if tab.Contains(d.p) {
				continue // the newest row is open-ended
			}
			got := tab.Fork(d.p)
			if got.History < min(d.fork.History, tab.Fork(d.fork).History) {
				t.Fatalf("Fork(%s) = %s lies below the fork %s", d.p, got, d.fork)
			}
			if _, ok := tab.Row(d.p.Epoch); ok && got != tab.Fork(d.fork) {
				t.Fatalf("Fork(%s) = %s, want %s", d.p, got, tab.Fork(d.fork))
			}
		}
	})
}

func below(branch []Position, cut int) Position {
	if cut == 0 {
		return Position{}
	}
	return branch[cut-1]
}

// Rows that are left out from the front are those of epochs that nobody looks at; of what was in them the table says nothing.
func TestHistorySince(t *testing.T) {
	table := HistoryTable{{Epoch: 1, Node: "a", SW: 1}, {Epoch: 3, Node: "a", SW: 10}, {Epoch: 4, Node: "a", SW: 20}, {Epoch: 7, Node: "a", SW: 30}}
	for e, want := range map[Epoch]int{0: 4, 1: 4, 2: 4, 3: 3, 4: 2, 5: 2, 7: 2, 9: 2} {
		if got := table.Since(e); len(got) != want || got.Last() != table.Last() {
			t.Errorf("since epoch %s: %v", e, got)
		}
	}
	if got := table[3:].Since(9); len(got) != 1 {
		t.Errorf("of one row: %v", got)
	}
	if got := (HistoryTable)(nil).Since(9); len(got) != 0 {
		t.Errorf("of none: %v", got)
	}
	left := table.Since(4)
	for p, forgot := range map[Position]bool{{1, 5}: true, {3, 19}: true, {3, 20}: false, {4, 20}: false, {4, 5}: false, {7, 30}: false, {9, 99}: false, {}: false} {
		if left.Forgot(p) != forgot {
			t.Errorf("%s: forgotten %t, want %t", p, !forgot, forgot)
		}
		if table.Forgot(p) {
			t.Errorf("%s is forgotten by the whole table", p)
		}
		if !forgot && left.Contains(p) != table.Contains(p) {
			t.Errorf("%s: contained %t, in the whole table %t", p, left.Contains(p), table.Contains(p))
		}
	}
}
