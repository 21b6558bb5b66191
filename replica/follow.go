package replica

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal"
	"github.com/understudy-ha/understudy/journal/entry"
	"github.com/understudy-ha/understudy/replica/core"
)

// Facts is what a History gives: a bundle of the history, committed and applied here.
type Facts struct {
	Bundle  entry.Bundle
	After   ident.Position  // facts of the bundle up to here were given before
	Journal ident.JournalID // in which it stands here
}

// LeftHistoryError says that the fact after which somebody wants to go on is not, or no longer, part of the history: an operator accepted
// its loss, or delivery was asynchronous.
type LeftHistoryError struct {
	At   ident.Position
	Fork ident.Position // the last one that is shared
}

func (e *LeftHistoryError) Error() string {
	return fmt.Sprintf("position %s is not part of the history, which left that branch after %s", e.At, e.Fork)
}

// GoneError says that the fact wanted next was deleted here with its receivers.
type GoneError struct {
	At     ident.Position
	Oldest ident.Position // the facts after it are held
}

func (e *GoneError) Error() string {
	return fmt.Sprintf("the facts after position %s were deleted here; those after %s are held", e.At, e.Oldest)
}

// leaseLook is how often a follower looks whether a lease is valid again: nobody tells.
const leaseLook = 200 * time.Millisecond

// History gives the facts of the history in order, each once, from whichever journal here holds them: only committed ones, and
// none before it can be read from this node's copy. It goes on over changes of the primary. What it holds is one bundle and
// one file. It belongs to one goroutine and must be closed.
type History struct {
	r    *Replica
	walk applier        // only its reading half is used
	at   ident.Position // given up to here
	edge bool           // a bundle ends at at
	torn bool           // it could not be found out at last whether one does: a journal changed meanwhile
}

// FollowHistory returns a follower that begins with the fact after the given position; the zero position means the first fact
// of all. The position may lie beyond what is known here: it is waited for.
func (r *Replica) FollowHistory(after ident.Position) *History {
	return &History{r: r, walk: applier{r: r}, at: after, edge: after.IsZero()}
}

// At is the position up to which facts were given.
func (h *History) At() ident.Position { return h.at }

// HistoryHeld returns between which positions facts can be had here now: those after oldest, up to newest. False when it is not
// known what is committed.
func (r *Replica) HistoryHeld() (oldest, newest ident.Position, ok bool) {
	newest, table, ok := r.followLimit()
	if !ok {
		return ident.Position{}, ident.Position{}, false
	}
	return core.Oldest(table, newest, r.shelf.runs(true)), newest, true
}

// followLimit returns up to where facts may be given at this moment, and the table by which that holds.
func (r *Replica) followLimit() (ident.Position, ident.HistoryTable, bool) {
	a, _ := r.assignment()
	if a.Group == nil {
		return ident.Position{}, nil, false
	}
	table := a.Group.History
	v := core.FollowView{Table: table, Store: r.data.Position(), Committed: r.known.committed(table), Author: table.Last().Node == r.o.Node}
	if p := r.primary.Load(); p != nil { // after the rest was read
		v.Leads = p.serving.Load() && p.mine(a) && p.control.CheckLease(p.epoch) == nil
	}
	limit, ok := core.FollowLimit(v)
	return limit, table, ok
}

// Next returns the next facts and waits for them. *LeftHistoryError, *GoneError, ErrNeedsPriming and the cause of ctx end the waiting;
// after the latter it goes on where it was.
func (h *History) Next(ctx context.Context) (Facts, error) {
	look := time.NewTicker(leaseLook)
	defer look.Stop()
	for {
		moved, learned := h.r.moved.wait(), h.r.known.changed.wait()
		_, changed := h.r.assignment()
		f, ok, err := h.TryNext()
		if ok || err != nil {
			return f, err
		}
		var tick <-chan time.Time
		if h.torn || h.r.primary.Load() != nil {
			tick = look.C
		}
		select {
		case <-moved:
		case <-learned:
		case <-changed:
		case <-tick:
		case <-ctx.Done():
			return Facts{}, context.Cause(ctx)
		}
	}
}

// TryNext returns the next facts if there are any.
func (h *History) TryNext() (Facts, bool, error) {
	if h.r.picture.needsPriming.Load() != nil {
		return Facts{}, false, ErrNeedsPriming
	}
	limit, table, ok := h.r.followLimit()
	if table.Forgot(h.at) {
		if !ok {
			return Facts{}, false, nil
		}
		return Facts{}, false, &GoneError{At: h.at, Oldest: core.Oldest(table, limit, h.r.shelf.runs(true))}
	}
	if len(table) > 0 && !core.Live(table, h.at) {
		return Facts{}, false, &LeftHistoryError{At: h.at, Fork: table.Fork(h.at)}
	}
	if !ok || !table.Contains(h.at) || limit.History <= h.at.History {
		return Facts{}, false, nil
	}
	if !h.edge {
		f, found, err := middle(h.r.shelf.all(), h.at, table)
		h.torn = errors.Is(err, errUnsettled)
		if err != nil && !h.torn || found && f.Bundle.After().History > limit.History {
			return Facts{}, false, err
		}
		if found {
			return h.given(f), true, nil
		}
		h.edge = !h.torn
	}
	item, found, err := h.walk.next(table, h.at)
	switch {
	case err != nil:
		return Facts{}, false, err
	case !found:
		if oldest := core.Oldest(table, limit, h.r.shelf.runs(true)); oldest.History > h.at.History {
			return Facts{}, false, &GoneError{At: h.at, Oldest: oldest}
		}
		h.walk.looked = "" // a search that met a change on the way is repeated
		return Facts{}, false, nil
	case item.Header.After().History > limit.History:
		return Facts{}, false, nil
	}
	h.walk.peeked = nil
	return h.given(Facts{Bundle: item.Bundle(), After: h.at, Journal: h.walk.from.ID()}), true, nil
}

func (h *History) given(f Facts) Facts {
	h.at, h.edge, h.torn = f.Bundle.After(), true, false
	return f
}

// factsIn is what middle asks of a journal.
type factsIn interface {
	ID() ident.JournalID
	FindHistory(ident.Position) (ident.Sequence, bool, error)
	BundleAt(ident.Sequence) (entry.Bundle, error)
	View() (journal.View, <-chan struct{})
}

// errUnsettled says that a journal changed while a fact was looked for in it, or that what holds the fact is not durable yet.
var errUnsettled = errors.New("a journal changed meanwhile")

// middle returns the bundle that holds the fact at and facts beyond it. Where none is found, at is the end of a bundle, or nothing
// continues it; with errUnsettled that is to be asked again, unless something does continue it.
func middle[J factsIn](journals []J, at ident.Position, table ident.HistoryTable) (Facts, bool, error) {
	var unsettled error
	for _, j := range journals {
		first, ok, err := j.FindHistory(at)
		switch {
		case errors.Is(err, journal.ErrNotHeld), errors.Is(err, journal.ErrRewound):
			unsettled = errUnsettled
			continue
		case err != nil:
			return Facts{}, false, journalFailed(j, err)
		case !ok:
			continue
		}
		b, err := j.BundleAt(first)
		if err != nil { // removed or deleted since
			unsettled = errUnsettled
			continue
		}
		if v, _ := j.View(); b.Last() > v.Durable {
			unsettled = errUnsettled
			continue
		}
		if b.Flags&entry.FlagEcho != 0 || !table.Contains(b.After()) {
			continue
		}
		if b.After() != at {
			return Facts{Bundle: b, After: at, Journal: j.ID()}, true, nil
		}
		return Facts{}, false, nil
	}
	return Facts{}, false, unsettled
}

// Close releases what the follower holds.
func (h *History) Close() { h.walk.close() }
