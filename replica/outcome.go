package replica

import (
	"context"
	"time"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/replica/core"
)

// Settlement tells what has become of a write.
type Settlement struct {
	Outcome   core.Outcome
	Committed ident.Position // end of what this node's store has, all of it committed at a primary
	Epoch     ident.Epoch    // of the group, as known here
}

// Settle tells what has become of a write whose outcome is unknown, by its position. That something was not done is final
// and said by every node whose history shows it. Everything else is said by the serving primary only, from what a read would
// use, with the lease checked after: as long as it is undecided it waits, at most for wait. Errors are those of Read, and ErrForgotten.
func (r *Replica) Settle(ctx context.Context, at ident.Position, wait time.Duration) (Settlement, error) {
	patience := time.NewTimer(wait)
	defer patience.Stop()
	for late := wait <= 0; ; {
		moved := r.moved.wait()
		a, changed := r.assignment()
		if a.Group != nil && a.Group.History.Forgot(at) {
			return Settlement{}, ErrForgotten
		}
		if a.Group != nil && core.OutcomeOf(a.Group.History, ident.Position{}, at) == core.NotDone {
			return Settlement{core.NotDone, r.data.Position(), a.Group.Epoch}, nil
		}
		p := r.primary.Load()
		if p == nil {
			return Settlement{}, ErrNotPrimary
		}
		s, ok := p.settle(a, at)
		switch {
		case !ok:
			if err := p.awaitTurn(ctx); err != nil {
				return Settlement{}, err
			}
			continue
		case s.Outcome != core.Undecided || late:
			return s, nil
		}
		select {
		case <-moved:
		case <-changed:
		case <-patience.C:
			late = true
		case <-ctx.Done():
			late = true
		}
	}
}

// settle answers as the serving primary; ok is false while this node may not.
func (p *primary) settle(a fsm.Assignment, at ident.Position) (_ Settlement, ok bool) {
	if !p.serving.Load() || !p.mine(a) {
		return Settlement{}, false
	}
	end := p.r.data.Position()
	s := Settlement{core.OutcomeOf(a.Group.History, end, at), end, a.Group.Epoch}
	// After the work: nobody else can have served the epoch before this instant.
	return s, !p.stopped.Load() && p.control.CheckLease(p.epoch) == nil
}
