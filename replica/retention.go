package replica

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal"
)

// retain deletes detached receivers beyond those to be kept, oldest first, as far as nobody needs them: every data node has
// flushed all their facts, this one too, and no copy ends inside or before them.
func (r *Replica) retain(ctx context.Context, a fsm.Assignment) error {
	g := a.Group
	if g == nil || g.Spec.KeepReceivers < 0 || g.Phase != fsm.PhaseOpened {
		return nil
	}
	if err := r.flushDetached(ctx, g.Spec.KeepReceivers); err != nil {
		return err
	}
	flushed, ok := lowestFlushed(a, r.o.Group, r.data.Flushed())
	if !ok || r.undos.settle(g.History, r.data.Flushed()) {
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
		end := lowestCopy(a, r.o.Group, j.ID().Node)
		for n < detached-g.Spec.KeepReceivers && receivers[n].Last <= end && unneeded(g.History, flushed, view.Runs, receivers[n]) {
			n++
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

// lowestFlushed returns the lowest position that a crash can take any registered data node back to. ok is false when one of
// them is unknown or outside the history: then everything is kept.
func lowestFlushed(a fsm.Assignment, group ident.GroupName, own ident.Position) (ident.Position, bool) {
	lowest := own
	for id, n := range a.Nodes {
		if n.Kind != fsm.KindData {
			continue
		}
		at, known := n.Flushed[group]
		if id == a.Self {
			at, known = own, true
		}
		if !known || at.IsZero() || !a.Group.History.Contains(at) {
			return ident.Position{}, false
		}
		if at.History < lowest.History {
			lowest = at
		}
	}
	return lowest, !lowest.IsZero()
}

// lowestCopy returns up to where every other data node has its copy of what author wrote. A copy goes on from its end, even
// where the store needs nothing of what follows; one that is empty may begin at any receiver.
func lowestCopy(a fsm.Assignment, group ident.GroupName, author ident.NodeID) ident.Sequence {
	lowest := ident.Sequence(math.MaxUint64)
	for id, n := range a.Nodes {
		if end := n.Copies[group][author]; id != a.Self && n.Kind == fsm.KindData && end > 0 {
			lowest = min(lowest, end)
		}
	}
	return lowest
}

// unneeded tells whether all facts in the receiver are at or below flushed. Facts outside the history are needed until the
// flushed position lies beyond the point where they left it.
func unneeded(t ident.HistoryTable, flushed ident.Position, runs []journal.Run, rec journal.ReceiverInfo) bool {
	for _, run := range runs {
		if run.First > rec.Last || run.Last < rec.First {
			continue
		}
		if run.Epoch > t.Last().Epoch {
			return false
		}
		inside, ok := clip(t, run)
		if ok && run.To > inside.To && flushed.History <= inside.To || !ok && flushed.History < run.From {
			return false // a part of it is outside, and not left behind for good
		}
		if !ok {
			continue
		}
		to := inside.To
		if run.Last > rec.Last { // it goes on in the next receiver: its facts here end somewhere below
			to = min(to, factsBefore(run, rec))
		}
		if to > flushed.History {
			return false
		}
	}
	return true
}

// factsBefore is an upper bound of the h of the run's last fact in the receiver: every fact takes a sequence.
func factsBefore(run journal.Run, rec journal.ReceiverInfo) ident.History {
	return run.From + ident.History(rec.Last-max(run.First, 1))
}
