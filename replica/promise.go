package replica

import (
	"context"
	"errors"
	"fmt"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/replica/core"
)

// promise makes e durable as promised and calls then while nobody is inside the gate. It does nothing but call then when e
// was promised already, and returns a *FencedError when a higher epoch was.
func (r *Replica) promise(ctx context.Context, e ident.Epoch, then func() error) error {
	return r.gate.exclusive(ctx, func() error {
		if r.retired.Load() { // its file may be gone already
			return ErrClosed
		}
		have := r.gate.epoch()
		due := core.Promise(have, e)
		if due.Fenced {
			return &FencedError{Have: have, Want: e}
		}
		if due.Write {
			err := r.promised.write(e)
			var room *PromiseRoomError
			if errors.As(err, &room) {
				if !r.unpromised {
					r.event(Event{Kind: EventNotPromised, Epoch: e, Detail: room.Error()})
				}
				r.unpromised = true
				return err
			}
			r.unpromised = false
			if err != nil {
				return &FatalError{Part: "the promise file", Err: err}
			}
		}
		if due.Raise {
			r.gate.promised.Store(uint64(e))
			if err := r.o.Host.Failpoint("replica.promise:" + string(r.o.Group)); err != nil { // on disk, told to nobody
				return err
			}
			r.o.Host.Trace("promise", "node", r.o.Node, "group", r.o.Group, "epoch", e)
			r.event(Event{Kind: EventPromised, Epoch: e})
		}
		if then == nil {
			return nil
		}
		return then()
	})
}

// Promise makes e durable on this node's disk. From its return on every older epoch is refused in every session and frame.
// The report says what this node holds at that moment; Node, Incarnation and Epoch are left to the caller. It is called
// when, by the node's own count, no lease of an older epoch can be valid any more.
func (r *Replica) Promise(ctx context.Context, e ident.Epoch) (fsm.Report, error) {
	var report fsm.Report
	err := r.promise(ctx, e, func() error {
		report = r.report(ctx)
		return context.Cause(ctx) // it may have ended while the report was made
	})
	if err != nil {
		return fsm.Report{}, fmt.Errorf("promise epoch %s of group %s: %w", e, r.o.Group, err)
	}
	report.Epoch = e
	return report, nil
}

// report says what this node holds. Nobody may be inside the gate.
func (r *Replica) report(ctx context.Context) fsm.Report {
	table := r.table()
	applied := r.data.Position()
	grove := core.NewGrove(table, applied, r.shelf.runs(false)...).Undoes(r.undoes(ctx, applied))
	received := grove.Best()
	report := fsm.Report{Received: received, Committed: r.known.committed(table), Applied: applied, Torn: r.shelf.torn()}
	if why := r.picture.needsPriming.Load(); why != nil {
		report.Unable = *why
	} else if !grove.Returns() { // found before the undo is tried
		report.Unable = fmt.Sprintf("its store is at %s, outside the history, and what has to be undone is not held any more, or was journaled without its before-images: it needs priming", applied)
	}
	return report
}
