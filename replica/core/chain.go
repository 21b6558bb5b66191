package core

import (
	"math"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/internal/mutant"
	"github.com/understudy-ha/understudy/journal/entry"
)

// This file answers from the runs of all journals held which branch of the history they form. "Held",
// "received" and "durable" mean without a hole down to what the store has, or to the base, over all journals.

// floor is what the store holds of the history: everything up to fork. A store that has left the history holds it up to
// the point where it left.
type floor struct {
	table ident.HistoryTable
	fork  ident.Position
}

// forkOf returns the last position that the store's branch shares with the history: the store's own when it lies in it,
// else the first contained one on the way down the branch. Where the journals do not show the way and the table does not
// know the epoch either, nothing is taken for shared.
func forkOf(table ident.HistoryTable, store ident.Position, boughs []Bough) ident.Position {
	p := store
	for !table.Contains(p) {
		row, ok := table.Row(p.Epoch)
		if ok && p.History >= row.SW { // the table knows where this epoch was left
			return table.Fork(p)
		}
		b, found := find(boughs, p)
		if !found || b.Before.History >= p.History {
			return ident.Position{}
		}
		p = b.Before
	}
	return p
}

// holds tells whether p is part of the floor. The base always is.
func (f floor) holds(p ident.Position) bool {
	return p.IsZero() || (f.table.Contains(p) && p.History <= f.fork.History)
}

// top returns the highest h of epoch e that the floor holds; 0 when it holds none.
func (f floor) top(e ident.Epoch) ident.History {
	row, ok := f.table.Row(e)
	if !ok {
		return 0
	}
	h := min(epochEnd(f.table, e), f.fork.History)
	if h < row.SW {
		return 0
	}
	return h
}

// epochEnd returns the last h that epoch e can have in the history: the one before the next row begins.
func epochEnd(t ident.HistoryTable, e ident.Epoch) ident.History {
	end := ident.History(math.MaxUint64)
	for _, row := range t {
		if row.Epoch > e {
			end = min(end, row.SW-1)
		}
	}
	return end
}

// Live tells whether the fact at p may be part of the history: it is, by the table, or its epoch is newer than all the
// table knows, so that a future Open decides.
func Live(t ident.HistoryTable, p ident.Position) bool {
	return p.Epoch > t.Last().Epoch || t.Contains(p)
}

// LeftHistory tells whether a store at p has to be taken back: the group is opened, and its history does not contain p. A
// position of an epoch newer than all that the table knows has not left anything: this node's state is older than its
// store. After a restart a state passes through what it was before, and an undo in between would take back what lives.
func LeftHistory(g *fsm.Group, p ident.Position) bool {
	return g.Phase == fsm.PhaseOpened && !Live(g.History, p)
}

// Clip returns the part of run that is live; false when none is.
func Clip(t ident.HistoryTable, run entry.Run) (entry.Run, bool) {
	if run.Epoch > t.Last().Epoch {
		return run, run.From <= run.To
	}
	row, ok := t.Row(run.Epoch)
	if !ok {
		return run, false
	}
	run.To = min(run.To, epochEnd(t, run.Epoch))
	return run, run.From <= run.To && row.SW <= run.To
}

// RunsUpTo cuts the runs of a journal at a bundle end: last is its sequence, after the history position there.
func RunsUpTo(runs []entry.Run, last ident.Sequence, after ident.Position) []entry.Run {
	out := make([]entry.Run, 0, len(runs))
	for _, run := range runs {
		switch {
		case run.Last <= last:
			out = append(out, run)
		case run.First <= last && after.Epoch == run.Epoch && after.History >= run.From:
			run.To = min(run.To, after.History)
			run.Last = last
			out = append(out, run)
		}
	}
	return out
}

// Bough is a run together with the node whose journal it stands in.
type Bough struct {
	entry.Run
	Author ident.NodeID
}

// Grove is everything one node holds: the live parts of its journals' runs, on top of its store's floor.
type Grove struct {
	store  ident.Position
	floor  floor
	boughs []Bough
	whole  []Bough // as given: what is not live is still there to be undone
	undoes func(fork ident.Position) bool
}

func NewGrove(table ident.HistoryTable, store ident.Position, boughs ...Bough) *Grove {
	g := &Grove{store: store, floor: floor{table: table, fork: forkOf(table, store, boughs)}, whole: boughs}
	for _, b := range boughs {
		if run, ok := Clip(table, b.Run); ok {
			g.boughs = append(g.boughs, Bough{Run: run, Author: b.Author})
		}
	}
	return g
}

// Undoes has the grove ask whether the bundles held allow the store to be taken back to fork: runs do not say which of them were journaled
// without the images of what they changed. It is asked only where everything down to fork is held. Without it they are taken to allow it.
func (g *Grove) Undoes(ask func(fork ident.Position) bool) *Grove {
	g.undoes = ask
	return g
}

// find returns the Bough that contains p and reaches down furthest.
func find(boughs []Bough, p ident.Position) (Bough, bool) {
	var best Bough
	found := false
	for _, b := range boughs {
		if b.Epoch == p.Epoch && b.From <= p.History && p.History <= b.To && (!found || b.From < best.From) {
			best, found = b, true
		}
	}
	return best, found
}

// Path returns the boughs that lead to p from what the floor holds, upwards, each cut to the part used. ok is false when
// there is a hole between. It is empty when the floor holds p.
func (g *Grove) Path(p ident.Position) (path []Bough, ok bool) {
	for !g.floor.holds(p) {
		b, found := find(g.boughs, p)
		if !found {
			return nil, false
		}
		b.To = p.History
		if top := g.floor.top(p.Epoch); top >= b.From {
			b.From, b.Before = top+1, ident.Position{Epoch: p.Epoch, History: top}
		}
		if b.Before.History >= p.History { // damaged input must not make this endless
			return nil, false
		}
		path = append(path, b)
		p = b.Before
	}
	for i, k := 0, len(path)-1; i < k; i, k = i+1, k-1 {
		path[i], path[k] = path[k], path[i]
	}
	return path, true
}

// Connects tells whether p is held without a hole.
func (g *Grove) Connects(p ident.Position) bool {
	_, ok := g.Path(p)
	return ok
}

// Best returns the highest position held without a hole that the store can follow. Where a store in the history has to be taken back for a
// position, and the bundles for that are not all held, or lack what the records were, it never can: who promised that end would be chosen and could not serve, and what
// the store has, which was committed, would be left for an epoch that never opened.
func (g *Grove) Best() ident.Position {
	best := g.floor.fork
	for _, b := range g.boughs {
		end := ident.Position{Epoch: b.Epoch, History: b.To}
		if end.Compare(best) <= 0 {
			continue
		}
		if path, ok := g.Path(end); ok && g.follows(path) {
			best = end
		}
	}
	return best
}

// follows tells whether the store can be brought onto a path: it stands on it or below, or what has to be undone for it is held.
func (g *Grove) follows(path []Bough) bool {
	if len(path) == 0 || !g.floor.table.Contains(g.store) { // one that has left the history has to be taken back in any case
		return true
	}
	return g.leads(path[0].Before)
}

// leads tells whether the store can be taken back to fork with what is held.
func (g *Grove) leads(fork ident.Position) bool {
	return g.store.History <= fork.History || g.spans(fork) && (g.undoes == nil || g.undoes(fork))
}

// spans tells whether all is held that has to be undone to take the store back to fork.
func (g *Grove) spans(fork ident.Position) bool {
	for p := g.store; p.History > fork.History; {
		b, found := find(g.whole, p)
		if !found || b.Before.History >= p.History {
			return false
		}
		if b.Epoch == fork.Epoch && b.From <= fork.History {
			return true
		}
		p = b.Before
	}
	return true
}

// Returns tells whether a store that has left the history can be taken back into it with what is held; true where it has not left. Whose
// store cannot serves nobody, whatever else it has received: it needs priming.
func (g *Grove) Returns() bool {
	return Live(g.floor.table, g.store) || g.leads(g.floor.fork)
}

// End returns p when it is held without a hole and the store need not be taken back for it, else the zero position: what an
// acknowledgement may say. What a store has that p does not follow has to be undone, and whether that is possible only shows when it is
// done: after a forced failover to a dropped node the receivers for it may be gone. Who acknowledged before would count as one who can serve.
func (g *Grove) End(p ident.Position) ident.Position {
	if mutant.On(mutant.GrowOverHole) {
		return p
	}
	path, ok := g.Path(p)
	if !ok || len(path) > 0 && path[0].Before.History < g.store.History && !mutant.On(mutant.CountBeforeUndo) {
		return ident.Position{}
	}
	return p
}

// RowsFor returns the rows that Open has to record for a branch: one for each epoch on it that is newer than the table.
// Node and First are left to the caller. path comes from a Grove with the same table and ends at the new epoch's SW.
func RowsFor(table ident.HistoryTable, path []Bough) []ident.HistoryRow {
	var rows []ident.HistoryRow
	for _, b := range path {
		if b.Epoch <= table.Last().Epoch {
			continue
		}
		if n := len(rows); n > 0 && rows[n-1].Epoch == b.Epoch {
			continue // the epoch goes on in another journal
		}
		rows = append(rows, ident.HistoryRow{Epoch: b.Epoch, Node: b.Author, SW: b.From})
	}
	return rows
}

// BeforeRow returns the last position before the newest row, which is committed: Open and Handover commit everything
// before SW.
func BeforeRow(t ident.HistoryTable) ident.Position {
	h := t.Last().SW
	if h <= 1 {
		return ident.Position{}
	}
	return ident.Position{Epoch: t.EpochAt(h - 1), History: h - 1}
}
