package replica

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal"
	"github.com/understudy-ha/understudy/replica/core"
)

// retain deletes detached receivers beyond those to be kept, oldest first, as far as nobody needs them: every data node that was
// not dropped has flushed all their facts, this one too, no copy ends inside or before them, every consumer that holds the
// journal has read them, and nobody vetoes it. Of facts outside the history only this node's own store can need any: to undo
// them, once more after a crash. So nothing goes while it stands outside, or an undo is not settled.
func (r *Replica) retain(ctx context.Context, a fsm.Assignment) error {
	g := a.Group
	if g == nil || g.Phase != fsm.PhaseOpened || g.IsDropped(a.Self) || !g.History.Contains(r.data.Position()) {
		return nil
	}
	wanted := g.Spec.KeepReceivers >= 0 || g.Spec.MaximumBlocks > 0 // that receivers go whose facts everybody has
	if !wanted && r.keepLocal(g) < 0 {
		return nil
	}
	if err := r.flushUndo(ctx, g); err != nil {
		return err
	}
	if err := r.flushDetached(ctx, g); err != nil {
		return err
	}
	flushed, ok := core.LowestFlushed(a, r.data.Flushed())
	if !ok && r.o.Archive == nil || r.undos.settle(g.History, r.data.Flushed()) {
		return nil
	}
	for _, j := range r.shelf.all() {
		view, _ := j.View()
		receivers := j.Receivers()
		detached := len(receivers)
		if detached > 0 && receivers[detached-1].Attached {
			detached--
		}
		n, surplus := 0, core.Surplus(g.Spec, sizes(receivers[:detached]), view.Bytes)
		end := core.LowestCopy(a, j.ID().Node)
		for ok && n < surplus && receivers[n].Last <= end && core.Unneeded(g.History, flushed, view.Runs, receivers[n].First, receivers[n].Last) {
			n++
		}
		n = r.spare(a, j, receivers, n, r.most(g, receivers[:detached], view.Bytes))
		if n = r.grant(ctx, j.ID(), receivers[:n]); n == 0 {
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

// sizes lists the sizes of receivers.
func sizes(receivers []journal.ReceiverInfo) []int64 {
	out := make([]int64, len(receivers))
	for i := range receivers {
		out[i] = receivers[i].Bytes
	}
	return out
}

// flushTimeout bounds a flush that only lets receivers go; it is tried again.
const flushTimeout = 5 * time.Second

// flushDetached flushes the store when it has applied, but not flushed, what stands in receivers that could go: a group with
// few writes would keep them for ever, since nothing else makes the store flush.
func (r *Replica) flushDetached(ctx context.Context, g *fsm.Group) error {
	applied, flushed := r.data.Position().History, r.data.Flushed().History
	for _, j := range r.shelf.all() {
		receivers := j.Receivers()
		if len(receivers) < 2 {
			continue
		}
		view, _ := j.View()
		surplus := r.most(g, receivers[:len(receivers)-1], view.Bytes)
		if surplus < 1 {
			continue
		}
		kept := receivers[surplus].Start.History // where the receivers begin that are kept in any case
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

// CopyEnds tells how far the journals held reach on this node's disk and on their authors'. A copy that does not go on from what
// the store has counts as none. Its end and its start are of one moment, and what they are judged by is read afterwards: a copy may be
// removed at any time and begin elsewhere, and its new end must not be taken for one that goes on from what the removed one held.
func (r *Replica) CopyEnds() fsm.Ends {
	ends := fsm.Ends{}
	starts := make(map[ident.NodeID]ident.Position)
	for _, j := range r.shelf.all() {
		author := j.ID().Node
		if ends[author], starts[author] = extent(j); author == r.o.Node {
			delete(starts, author)
		}
	}
	at, held := r.data.Position(), r.shelf.runs(true)
	table := r.table() // last: a start beyond what it knows passes
	for author, start := range starts {
		others := slices.DeleteFunc(slices.Clone(held), func(b core.Bough) bool { return b.Author == author })
		if !core.Rooted(table, start, core.NewGrove(table, at, others...)) { // by what else is held: its own may be of another moment
			ends[author] = 0
		}
	}
	return ends
}

// extent returns how far a journal reaches on this disk and on its author's, and the position before what it holds. A journal whose
// beginning moves again and again while it is looked at reaches nowhere.
func extent(j *journal.Journal) (end ident.Sequence, start ident.Position) {
	for range 3 {
		view, _ := j.View()
		if held := j.Receivers(); len(held) > 0 && held[0].First == view.First {
			return core.CopyEnd(view.Durable, view.Confirmed), held[0].Start
		} else if len(held) == 0 && view.First == 0 {
			break
		}
	}
	return 0, ident.Position{}
}
