package replica

import (
	"context"
	"errors"
	"fmt"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal"
	"github.com/understudy-ha/understudy/journal/entry"
	"github.com/understudy-ha/understudy/replica/core"
)

// reconcile brings the store back into the history: what was applied outside it is reported, then undone, newest bundle
// first, each batch setting the lower position, so that a crash in between changes nothing about what is left to do. It
// runs only while the group is opened: before, it is not decided what is outside. Nor does a state decide that is older than
// the store.
func (r *Replica) reconcile(ctx context.Context, g *fsm.Group) error {
	start := r.data.Position()
	if !core.LeftHistory(g, start) {
		return nil
	}
	undo, err := r.outsideStore(ctx, g.History, start)
	if err != nil {
		return err
	}
	fork := undo[len(undo)-1].Before
	r.log.Warn("the store left the history: backing out", "from", start, "fork", fork, "epoch", g.OpenEpoch, "bundles", len(undo))
	r.undos.record(start, fork)
	r.server.recovers()
	if err := r.backouts().add(g, r.o.Node, nil, undo, r.o.Host.Clock.Now()); err != nil {
		return err
	}
	for _, b := range undo {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		changes, err := appendUndo(nil, b.Bundle)
		if err != nil {
			return err
		}
		if err := r.o.Host.Failpoint("replica.undo:" + string(r.o.Group)); err != nil {
			return err
		}
		if err := r.data.Apply(b.After(), b.Before, changes); err != nil {
			return storeFailed(fmt.Errorf("undo %s: %w", b.After(), err))
		}
		r.moved.fire()
		r.picture.backingOut(start, fork, b.Before)
	}
	r.event(Event{
		Kind: EventBackedOut, Epoch: g.OpenEpoch, Position: fork,
		Detail: fmt.Sprintf("%d bundles from %s down to %s: see the back-out report", len(undo), start, fork),
	})
	return nil
}

// outsideStore returns the bundles that lead from the history to where the store is, newest first. Nothing is undone before
// all of them are found with their images.
func (r *Replica) outsideStore(ctx context.Context, table ident.HistoryTable, start ident.Position) ([]located, error) {
	var out []located
	for at := start; !table.Contains(at); {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		b, err := r.undoable(at)
		if err != nil {
			return nil, err
		}
		out = append(out, b)
		at = b.Before
	}
	return out, nil
}

// undoable returns the bundle that has to be undone first when the store stands at a position; an error when it cannot be.
func (r *Replica) undoable(at ident.Position) (located, error) {
	b, j, err := r.bundleOf(at)
	if err != nil {
		return located{}, err
	}
	if b.After() != at {
		return located{}, fmt.Errorf("%w: the store stands at %s, in the middle of bundle %s of journal %s", ErrNeedsPriming, at, b.First, j.ID())
	}
	if _, err := appendUndo(nil, b); err != nil {
		return located{}, err
	}
	return located{Bundle: b, author: j.ID().Node}, nil
}

// located is a bundle and the journal it was found in.
type located struct {
	entry.Bundle
	author ident.NodeID
}

// bundleOf finds the bundle that contains the fact p in any journal held.
func (r *Replica) bundleOf(p ident.Position) (entry.Bundle, *journal.Journal, error) {
	for _, j := range r.shelf.all() {
		seq, ok, err := j.FindHistory(p)
		if err != nil && !errors.Is(err, journal.ErrNotHeld) {
			return entry.Bundle{}, nil, journalFailed(j, err)
		}
		if !ok || err != nil {
			continue
		}
		b, err := j.BundleAt(seq)
		if errors.Is(err, journal.ErrNotHeld) || errors.Is(err, journal.ErrRewound) {
			continue
		}
		if err != nil {
			return entry.Bundle{}, nil, journalFailed(j, err)
		}
		return b, j, nil
	}
	return entry.Bundle{}, nil, fmt.Errorf("%w: no journal here holds %s", ErrNeedsPriming, p)
}

// outside returns the bundles of the journal with facts that can never be part of the history: an opened epoch left them
// aside. They are ordered by sequence. The SW of an epoch that never opened changed nothing and is left out.
func (r *Replica) outside(ctx context.Context, j *journal.Journal, table ident.HistoryTable) ([]located, error) {
	var out []located
	v, _ := j.View()
	for _, run := range v.Runs {
		if core.Live(table, ident.Position{Epoch: run.Epoch, History: run.To}) {
			continue // then all of it is
		}
		from := run.From
		if kept, ok := core.Clip(table, run); ok {
			from = kept.To + 1
		}
		for h := from; h <= run.To; {
			if ctx.Err() != nil {
				return nil, context.Cause(ctx)
			}
			seq, ok, err := j.FindHistory(ident.Position{Epoch: run.Epoch, History: h})
			if err != nil || !ok {
				return nil, journalFailed(j, errors.Join(err, fmt.Errorf("fact %s.%s is not where it was", run.Epoch, h)))
			}
			b, err := j.BundleAt(seq)
			if err != nil {
				return nil, journalFailed(j, err)
			}
			if !b.Holds(entry.User, entry.Switch) {
				out = append(out, located{Bundle: b, author: j.ID().Node})
			}
			h = b.After().History + 1
		}
	}
	return out, nil
}

// settleLocal ends this node's own turn as primary: what it wrote beyond the history is reported, then the local journal
// goes STANDBY. It tells whether this was the end of a turn.
func (r *Replica) settleLocal(ctx context.Context, g *fsm.Group) (ended bool, err error) {
	own, err := r.own()
	if err != nil {
		return false, err
	}
	if own.State() == journal.Active {
		lost, err := r.outside(ctx, own, g.History)
		if err != nil {
			return false, err
		}
		if len(lost) > 0 {
			if err := r.backouts().add(g, r.o.Node, lost, nil, r.o.Host.Clock.Now()); err != nil {
				return false, err
			}
			r.log.Warn("entries of the local journal are not part of the history: see the back-out report", "bundles", len(lost), "epoch", g.OpenEpoch)
		}
		ended = true
	}
	if err := setState(own, journal.Standby); err != nil || !ended {
		return ended, err
	}
	// The next turn of this node begins in a receiver of its own; what another node fetches of this turn ends with one.
	_, err = own.ChangeReceiver(r.gate.epoch())
	return ended, journalFailed(own, err)
}

// setState changes a journal's state when it is another one.
func setState(j *journal.Journal, s journal.State) error {
	if j.State() == s {
		return nil
	}
	return journalFailed(j, j.SetState(s))
}
