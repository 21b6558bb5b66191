package replica

import (
	"context"
	"fmt"
	"sync"

	"github.com/understudy-ha/understudy/fsm"
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

func (u *undoLog) due(t ident.HistoryTable, position ident.Position) (generation uint64, due bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.log.Due(t, position)
}

func (u *undoLog) flushed(t ident.HistoryTable, generation uint64, flushed ident.Position) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.log.Flushed(t, generation, flushed)
}

// flushUndo makes an undo final as soon as it has ended, so that the undone receivers can go, whether or not there is room for
// anything that follows.
func (r *Replica) flushUndo(ctx context.Context, g *fsm.Group) error {
	generation, due := r.undos.due(g.History, r.data.Position())
	if !due {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, flushTimeout)
	defer cancel()
	if err := r.data.Flush(ctx); err != nil {
		if ctx.Err() != nil {
			return storeFailed(r.o.Store.Err()) // it is tried again
		}
		return storeFailed(fmt.Errorf("flush after an undo: %w", err))
	}
	r.undos.flushed(g.History, generation, r.data.Flushed())
	return nil
}
