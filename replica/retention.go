package replica

import (
	"context"
	"fmt"
	"time"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/replica/core"
)

// retain deletes detached receivers beyond those to be kept, oldest first, as far as nobody needs them: every data node has
// flushed all their facts, this one too, and no copy ends inside or before them.
func (r *Replica) retain(ctx context.Context, a fsm.Assignment) error {
	g := a.Group
	if g == nil || g.Phase != fsm.PhaseOpened {
		return nil
	}
	keep, local := g.Spec.KeepReceivers, r.keepLocal(g) // of all, and of those that are archived; -1: every one
	if keep < 0 && local < 0 {
		return nil
	}
	if err := r.flushDetached(ctx, max(0, min(keep, local))); err != nil {
		return err
	}
	flushed, ok := core.LowestFlushed(a, r.data.Flushed())
	if (!ok || keep < 0) && local < 0 || r.undos.settle(g.History, r.data.Flushed()) {
		return nil
	}
	for _, j := range r.shelf.all() {
		view, _ := j.View()
		receivers := j.Receivers()
		detached := len(receivers)
		if detached > 0 && receivers[detached-1].Attached {
			detached--
		}
		n := 0
		end := core.LowestCopy(a, j.ID().Node)
		for ok && keep >= 0 && n < detached-keep && receivers[n].Last <= end && core.Unneeded(g.History, flushed, view.Runs, receivers[n].First, receivers[n].Last) {
			n++
		}
		if local >= 0 {
			n = r.spare(a, j, receivers, n, detached-local)
		}
		if n == 0 {
			continue
		}
		if err := j.DeleteReceivers(receivers[n-1].Number); err != nil {
			return journalFailed(j, fmt.Errorf("delete receivers up to %s: %w", receivers[n-1].Number, err))
		}
		r.log.Info("deleted receivers that nobody needs", "journal", j.ID(), "receiver", receivers[n-1].Number, "count", n, "flushed", flushed)
		r.event(Event{Kind: EventReceiversGone, Epoch: g.Epoch, Journal: j.ID(), First: receivers[0].First, Last: receivers[n-1].Last, Position: flushed})
	}
	return nil
}

// flushTimeout bounds a flush that only lets receivers go.
const flushTimeout = 5 * time.Second

// flushDetached flushes the store when it has applied, but not flushed, what stands in receivers that could go: a group with
// few writes would keep them for ever, since nothing else makes the store flush.
func (r *Replica) flushDetached(ctx context.Context, keep int) error {
	applied, flushed := r.data.Position().History, r.data.Flushed().History
	for _, j := range r.shelf.all() {
		receivers := j.Receivers()
		if len(receivers) < keep+2 {
			continue
		}
		kept := receivers[len(receivers)-1-keep].Start.History // where the receivers begin that are kept in any case
		if flushed >= kept || applied < kept {
			continue
		}
		ctx, cancel := context.WithTimeout(ctx, flushTimeout)
		defer cancel()
		if err := r.data.Flush(ctx); err != nil {
			r.log.Warn("store not flushed, receivers are kept for the time being", "error", err)
		}
		return storeFailed(r.o.Store.Err())
	}
	return nil
}
