package core

import "github.com/understudy-ha/understudy/internal/ident"

// UndoLog remembers the undo of this life, until a crash cannot bring the undone entries back any more. The store flushes
// by itself, also in the middle of an undo, and a crash takes it to whatever was flushed: then it has to be undone again,
// from the same receivers. Only a flushed position in the history beyond the fork rules that out.
type UndoLog struct {
	pending bool
	from    ident.Position // where the store stood
	fork    ident.Position // down to where it was undone
	count   uint64         // undos of this life
}

// Record says that the store, at from, is about to be undone down to fork.
func (u *UndoLog) Record(from, fork ident.Position) {
	if !u.pending || u.from.History < from.History {
		u.from = from
	}
	if !u.pending || fork.History < u.fork.History {
		u.fork = fork
	}
	u.pending = true
	u.count++
}

// Generation counts the undos, so that a reader sees whether one ran while it read.
func (u *UndoLog) Generation() uint64 { return u.count }

// Settle forgets the undo once the flushed position proves that it cannot come back. It tells whether one is pending.
func (u *UndoLog) Settle(t ident.HistoryTable, flushed ident.Position) bool {
	if u.pending && t.Contains(flushed) && flushed.History > u.fork.History {
		u.pending = false
	}
	return u.pending
}

// UndoGuard says which facts outside the history the store may have to undo.
type UndoGuard struct{ UpTo ident.History }

// Needs tells whether the fact at p, which lies outside the history, may be needed.
func (u UndoGuard) Needs(p ident.Position) bool { return p.History <= u.UpTo }

// Guard returns what is needed now, with the store at position and flushed at flushed.
func (u *UndoLog) Guard(t ident.HistoryTable, position, flushed ident.Position) UndoGuard {
	var g UndoGuard
	for _, p := range []ident.Position{position, flushed} {
		if !t.Contains(p) {
			g.UpTo = max(g.UpTo, p.History)
		}
	}
	if u.Settle(t, flushed) {
		g.UpTo = max(g.UpTo, u.from.History)
	}
	return g
}

// Down returns down to where the pending undo went.
func (u *UndoLog) Down() ident.Position { return u.fork }
