package replica

import (
	"sync"

	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/replica/core"
)

// undoLog gives core.UndoLog a lock.
type undoLog struct {
	mu  sync.Mutex
	log core.UndoLog
}

func (u *undoLog) record(from, fork ident.Position) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.log.Record(from, fork)
}

func (u *undoLog) generation() uint64 {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.log.Generation()
}

func (u *undoLog) settle(t ident.HistoryTable, flushed ident.Position) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.log.Settle(t, flushed)
}

func (u *undoLog) guard(t ident.HistoryTable, position, flushed ident.Position) core.UndoGuard {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.log.Guard(t, position, flushed)
}

func (u *undoLog) down() ident.Position {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.log.Down()
}
