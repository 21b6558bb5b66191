package replica

import (
	"sync"

	"github.com/understudy-ha/understudy/internal/ident"
)

// undoLog remembers the undo of this life, until a crash cannot bring the undone entries back any more. The store flushes
// by itself, also in the middle of an undo, and a crash takes it to whatever was flushed: then it has to be undone again,
// from the same receivers. Only a flushed position in the history beyond the fork rules that out.
type undoLog struct {
	mu      sync.Mutex
	pending bool
	from    ident.Position // where the store stood
	fork    ident.Position // down to where it was undone
	count   uint64         // undos of this life
}

// record says that the store, at from, is about to be undone down to fork.
func (u *undoLog) record(from, fork ident.Position) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if !u.pending || u.from.History < from.History {
		u.from = from
	}
	if !u.pending || fork.History < u.fork.History {
		u.fork = fork
	}
	u.pending = true
	u.count++
}

// generation counts the undos, so that a reader sees whether one ran while it read.
func (u *undoLog) generation() uint64 {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.count
}

// settle forgets the undo once the flushed position proves that it cannot come back. It tells whether one is pending.
func (u *undoLog) settle(t ident.HistoryTable, flushed ident.Position) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.pending && t.Contains(flushed) && flushed.History > u.fork.History {
		u.pending = false
	}
	return u.pending
}

// undoGuard says which facts outside the history the store may have to undo.
type undoGuard struct{ upTo ident.History }

// needs tells whether the fact at p, which lies outside the history, may be needed.
func (u undoGuard) needs(p ident.Position) bool { return p.History <= u.upTo }

// guard returns what is needed now, with the store at position and flushed at flushed.
func (u *undoLog) guard(t ident.HistoryTable, position, flushed ident.Position) undoGuard {
	var g undoGuard
	for _, p := range []ident.Position{position, flushed} {
		if !t.Contains(p) {
			g.upTo = max(g.upTo, p.History)
		}
	}
	if u.settle(t, flushed) {
		u.mu.Lock()
		g.upTo = max(g.upTo, u.from.History)
		u.mu.Unlock()
	}
	return g
}

// down returns down to where the pending undo went.
func (u *undoLog) down() ident.Position {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.fork
}
