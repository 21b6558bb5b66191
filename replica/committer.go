package replica

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal/entry"
	"github.com/understudy-ha/understudy/replica/core"
	"github.com/understudy-ha/understudy/replica/store"
)

// commitBytes bounds what goes into one store batch.
const commitBytes = 4 << 20

// committer takes bundles that may be acknowledged into the store, in order, and answers who waits for them.
type committer struct {
	p     *primary
	floor ident.Position // committed by Open or Handover
	late  []waiter       // committed while the lease was not valid: answered when it is again, or never
}

// run commits until ctx ends.
func (c *committer) run(ctx context.Context) error {
	p := c.p
	tick := time.NewTicker(p.r.o.Timing.Tick)
	defer tick.Stop()
	for {
		_, assigned := p.control.Assignment()
		flown, acked := p.flights.changed.wait(), p.targets.changed.wait()
		view, moved := p.own.View()
		if view.Err != nil {
			return &FatalError{Part: "journal " + p.own.ID().String(), Err: view.Err}
		}
		for {
			more, err := c.step()
			if err != nil {
				return err
			}
			if !more {
				break
			}
		}
		c.answerLate()
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-assigned:
		case <-flown:
		case <-acked:
		case <-moved:
		case <-tick.C:
		}
	}
}

// step commits what may be committed, up to one store batch. It tells whether there may be more.
func (c *committer) step() (more bool, err error) {
	p := c.p
	// The order matters: a node that begins to be grown after this look has to hold everything seen in flight here before it
	// is proposed; one that is taken out of the growing list is in the assignment read after.
	inFlight := p.flights.snapshot()
	growing := p.targets.growing()
	a, _ := p.control.Assignment()
	if !p.mine(a) || a.Group.Phase != fsm.PhaseOpened {
		return false, nil // what is not answered by now has an unknown outcome
	}
	view, _ := p.own.View()
	rule := core.RuleFor(a.Group, p.r.o.Node, growing, c.floor, p.targets.acked)
	n := 0
	var changes []store.Change
	for size := 0; n < len(inFlight) && size < commitBytes && rule.Allows(inFlight[n].header, view.Durable); n++ {
		changes = append(slices.Grow(changes, len(inFlight[n].changes)), inFlight[n].changes...)
		size += int(inFlight[n].header.Length)
	}
	if n > 0 {
		first, last := inFlight[0].header, inFlight[n-1].header
		if err := p.r.data.Apply(first.Before, last.After(), changes); err != nil {
			return false, storeFailed(fmt.Errorf("commit %s: %w", last.After(), err))
		}
		p.expirer.saw(changes)
		p.r.picture.apply(p.r.o.Node, last.Last(), last.After())
		p.r.known.learn(p.epoch, last.After(), time.Now())
		p.r.o.Host.Trace("commit", "node", p.r.o.Node, "group", p.r.o.Group, "epoch", p.epoch, "position", last.After())
	}
	waiters := p.flights.land(n, &p.owed)
	c.late = append(c.late, waiters...)
	if n > 0 {
		if err := p.r.o.Host.Failpoint("replica.commit:" + string(p.r.o.Group)); err != nil { // in the store, told to nobody
			return false, err
		}
	}
	for _, f := range inFlight[:n] {
		p.overlay.release(f.touched)
	}
	before := p.flights.committed()
	if mark := p.flights.raise(p.own); mark > before {
		p.own.Mark(view.Durable, mark)
	}
	if n > 0 {
		p.r.moved.fire()
	}
	if n > 0 || len(waiters) > 0 {
		c.answerLate()
		p.landed.fire()
	}
	return n > 0, nil
}

// answerLate answers what is committed, if the lease is valid at this instant: after the work, before the reply.
func (c *committer) answerLate() {
	if len(c.late) == 0 {
		return
	}
	p := c.p
	if err := p.control.CheckLease(p.epoch); err != nil {
		return
	}
	for _, w := range c.late {
		if w.err == nil {
			p.r.o.Host.Trace("ack", "node", p.r.o.Node, "group", p.r.o.Group, "epoch", p.epoch, "position", w.receipt.Position)
		}
		p.queue.answer(w.request, outcome{w.receipt, w.err})
	}
	c.late = nil
	p.owed.Store(0)
	p.landed.fire()
}

// giveUp answers everybody who still waits. The session's other goroutines have ended.
func (c *committer) giveUp() {
	for _, w := range append(c.late, c.p.flights.land(len(c.p.flights.snapshot()), &c.p.owed)...) {
		c.p.unanswered(w.request)
	}
	c.late = nil
}

// flightOf makes a flight of a bundle that stands in the journal already.
func flightOf(b entry.Bundle) (*flight, error) {
	changes, err := appendChanges(nil, b)
	if err != nil {
		return nil, err
	}
	return &flight{header: b.Header, changes: changes}, nil
}
