package core

import "github.com/understudy-ha/understudy/internal/ident"

// UndoLog remembers the undo of this life, until a crash cannot bring the undone entries back any more. The store flushes
// by itself, also in the middle of an undo, and a crash takes it to whatever was flushed: then it has to be undone again,
// from the same receivers. Two things rule that out: a flushed position in the history beyond the fork; or a flush that was asked for
// after the undo, whatever it shows at or beyond the fork. Of one that began by itself, the fork may be that from the way up.
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

// Due tells whether a flush that begins now, with the store at position, settles the undo: all of it was taken back. The caller passes
// generation on to Flushed. No entries beyond the fork are needed for that; a full journal may have no room for them before.
func (u *UndoLog) Due(t ident.HistoryTable, position ident.Position) (generation uint64, due bool) {
	return u.count, u.pending && t.Contains(position) && position.History >= u.fork.History
}

// Flushed says that a flush has ended that began when Due told generation, and what it shows. Once another undo began it settles nothing.
func (u *UndoLog) Flushed(t ident.HistoryTable, generation uint64, flushed ident.Position) {
	if generation == u.count && t.Contains(flushed) && flushed.History >= u.fork.History {
		u.pending = false
	}
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
