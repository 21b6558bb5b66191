package replica

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal"
	"github.com/understudy-ha/understudy/journal/entry"
	"github.com/understudy-ha/understudy/replica/core"
)

// establish makes sure that this epoch's SW stands in the local journal, with everything before it durable here. It is the
// takeover of a failover, the beginning after a Handover, or, when an earlier session of this life did it already, nothing.
// A restarted node never gets here: it has another life.
func (p *primary) establish(ctx context.Context) error {
	if err := p.syncAll(ctx); err != nil {
		return err
	}
	a, _ := p.control.Assignment()
	if !p.mine(a) {
		return errRoleOver
	}
	if err := p.findSwitch(a.Group); err != nil || p.sw.Raw != nil {
		return err
	}
	// What a takeover deposits may use the room that the journal leaves below its cap otherwise: a full one must not cost the role.
	p.own.SetLimits(limitsOf(a.Group.Spec, false))
	defer p.own.SetLimits(limitsOf(a.Group.Spec, true))
	if core.BeginningOf(a.Group, false) == core.HandedRole {
		return p.beginHandedOver(ctx, a.Group)
	}
	return p.takeOver(ctx, a.Group)
}

// syncAll waits until every journal held is on this node's disk up to its end: Open promises that all of the history up to
// SW is durable here.
func (p *primary) syncAll(ctx context.Context) error {
	for _, j := range p.r.shelf.all() {
		v, _ := j.View()
		if err := j.WaitDurable(ctx, v.Last); err != nil {
			return journalFailed(j, err)
		}
	}
	return nil
}

// findSwitch looks for this epoch's SW in the local journal, where an earlier session of this life may have deposited it. If
// that one is not held any more, the epoch cannot be gone on with: the next session gives it back.
func (p *primary) findSwitch(g *fsm.Group) error {
	view, _ := p.own.View()
	for _, run := range view.Runs {
		if run.Epoch != p.epoch {
			continue
		}
		b, err := p.own.BundleAt(run.First)
		if err != nil {
			return journalFailed(p.own, err)
		}
		row, ok := g.History.Row(p.epoch)
		if !b.Holds(entry.User, entry.Switch) || b.Fact.Epoch != p.epoch || (ok && b.Fact.History != row.SW) {
			p.r.turn.conducted = p.epoch
			return fmt.Errorf("journal %s: %s is not the SW of epoch %s, whose row is at %s", p.own.ID(), b.Fact, p.epoch, row.SW)
		}
		p.sw = located{Bundle: b, author: p.r.o.Node}
		return nil
	}
	return nil
}

// takeOver is step 5 of a failover: the best branch held here becomes the history. What this node does not know to be
// confirmed is deposited again in the local journal, always, since it may have been acknowledged. Nothing is applied: what is
// committed beyond the store follows after Open.
func (p *primary) takeOver(ctx context.Context, g *fsm.Group) error {
	r := p.r
	if g.OpenNode != "" { // the first epoch of a group has nothing to redo
		r.server.recovers()
	}
	at := r.data.Position()
	grove := core.NewGrove(g.History, at, r.shelf.runs(true)...).Undoes(r.undoes(ctx, at)) // as in the report that it was chosen by
	best := core.TakeoverEnd(grove)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err := p.reaches(g, best); err != nil {
		return err
	}
	confirmed, err := p.confirmedEnd(grove, best)
	if err != nil {
		return err
	}
	data := p.switchData(g)
	leave, err := r.gate.enter(p.epoch)
	if err != nil {
		return err
	}
	defer leave()
	if r.turn.attached != p.epoch { // else an earlier attempt did, and this one goes on in it
		if _, err := p.own.ChangeReceiver(p.epoch); err != nil {
			return journalFailed(p.own, err)
		}
		r.turn.attached = p.epoch
	}
	if err := setState(p.own, journal.Active); err != nil {
		return err
	}
	first, last, err := p.rejournal(ctx, grove, confirmed, best)
	if err != nil {
		return err
	}
	if err := r.o.Host.Failpoint("replica.takeover:" + string(r.o.Group)); err != nil {
		return err
	}
	if err := p.depositSwitch(best, data); err != nil {
		return err
	}
	r.log.Info("took over", "epoch", p.epoch, "best", best, "confirmed", confirmed, "previous", data.Journal, "last", data.Last, "received", data.Received,
		"rejournaled_first", first, "rejournaled_last", last, "sw", p.sw.First)
	if first != 0 {
		r.event(Event{
			Kind: EventRejournaled, Epoch: p.epoch, Position: best, Journal: p.own.ID(), First: first, Last: last,
			Detail: fmt.Sprintf("%s was known up to %s, confirmed up to %s", data.Journal, data.Received, data.Last),
		})
	}
	return nil
}

// reaches refuses to open on a branch that lacks what every member of the set has: everything before the last row's SW, and
// that SW itself when its epoch began with Open, which commits it. Only an operator who accepted loss may go on from less.
func (p *primary) reaches(g *fsm.Group, best ident.Position) error {
	need, err := core.Needed(g)
	if err != nil {
		return err
	}
	if best.Compare(need) >= 0 {
		return nil
	}
	if core.LossAllowed(g) {
		p.r.log.Warn("taking over with loss, as an operator allowed", "best", best, "epoch", p.epoch)
		return nil
	}
	return fmt.Errorf("%w: this node holds the history up to %s only, everybody in the set has %s: fail over to another node",
		ErrNeedsPriming, best, need)
}

// switchData is what SW tells about the previous primary's journal, as it stands here.
func (p *primary) switchData(g *fsm.Group) switchData {
	d := switchData{Epoch: p.epoch, Node: p.r.o.Node}
	if g.OpenNode == "" {
		return d
	}
	id := ident.JournalID{Group: p.r.o.Group, Node: g.OpenNode}
	if g.OpenNode == p.r.o.Node { // after a Handover OpenNode is this node already: the one before is in the table
		for i := len(g.History) - 1; i >= 0; i-- {
			if g.History[i].Epoch < p.epoch {
				id.Node = g.History[i].Node
				break
			}
		}
	}
	d.Journal = id.String()
	if j, ok := p.r.shelf.get(id.Node); ok {
		v, _ := j.View()
		d.Last, d.Received = min(v.Confirmed, v.Last), v.Last
	}
	return d
}

// confirmedEnd returns up to where the branch need not be deposited again: before the last row's SW, in the store, confirmed
// by whoever wrote it, or in the local journal anyway.
func (p *primary) confirmedEnd(grove *core.Grove, best ident.Position) (ident.Position, error) {
	r := p.r
	// Each of these is the end of a part of some branch; on this branch they hold as far as they lie on it.
	var sure []core.Bough
	for _, j := range r.shelf.all() {
		v, _ := j.View()
		end := v.Last
		if j != p.own {
			end = min(v.Confirmed, v.Last)
		}
		if end < v.First || end == 0 {
			continue
		}
		cut, after := v.Durable, v.DurableAfter
		if end < v.Last {
			b, err := j.BundleAt(end)
			if err != nil {
				return ident.Position{}, journalFailed(j, err)
			}
			cut, after = end, b.After()
			if b.Last() > end {
				cut, after = b.First-1, b.Before
			}
		}
		for _, run := range core.RunsUpTo(v.Runs, cut, after) {
			sure = append(sure, core.Bough{Run: run, Author: j.ID().Node})
		}
	}
	at, ok := core.ConfirmedEnd(grove, sure, best)
	if !ok {
		return at, fmt.Errorf("the way to %s is not held any more", best)
	}
	return at, nil
}

// rejournal deposits the branch from after confirmed up to best again, each bundle as one bundle with its history position,
// time and origin. What stands in the local journal already is left out.
func (p *primary) rejournal(ctx context.Context, grove *core.Grove, confirmed, best ident.Position) (first, last ident.Sequence, err error) {
	path, ok := grove.Path(best)
	if !ok {
		return 0, 0, fmt.Errorf("the way to %s is not held any more", best)
	}
	at := confirmed
	for _, b := range path {
		j, _ := p.r.shelf.get(b.Author)
		for at.History < b.To {
			if ctx.Err() != nil {
				return first, last, context.Cause(ctx)
			}
			next := ident.Position{Epoch: b.Epoch, History: at.History + 1}
			seq, found, err := j.FindHistory(next)
			if err != nil || !found {
				return first, last, journalFailed(j, fmt.Errorf("find %s again (%t): %w", next, found, err))
			}
			bundle, err := j.BundleAt(seq)
			if err != nil {
				return first, last, journalFailed(j, err)
			}
			if bundle.Fact != next {
				return first, last, fmt.Errorf("bundle %s of journal %s does not begin at %s", bundle.First, j.ID(), next)
			}
			at = bundle.After()
			if _, mine, err := p.own.FindHistory(next); err != nil {
				return first, last, journalFailed(p.own, err)
			} else if mine {
				continue
			}
			h, err := p.depositAgain(bundle)
			if err != nil {
				return first, last, err
			}
			if first == 0 {
				first = h.First
			}
			last = h.Last()
		}
	}
	return first, last, nil
}

func (p *primary) depositAgain(b entry.Bundle) (entry.Header, error) {
	all, err := b.All()
	if err != nil {
		return entry.Header{}, fmt.Errorf("bundle %s: %w", b.First, err)
	}
	facts := all[:0]
	for _, e := range all {
		if e.Fact() {
			facts = append(facts, e)
		}
	}
	a, _ := p.control.Assignment()
	h, err := p.own.Deposit(journal.Draft{
		Flags: compression(a.Group), Entries: facts, Session: p.epoch, Before: b.Before, FactEpoch: b.Fact.Epoch, Origin: b.First, Time: b.Time,
	})
	return h, journalFailed(p.own, err)
}

// depositSwitch deposits U SW, a bundle by itself, after the given position.
func (p *primary) depositSwitch(before ident.Position, d switchData) error {
	payload, err := json.Marshal(d)
	if err != nil {
		return fmt.Errorf("encode SW: %w", err)
	}
	now := p.r.o.Host.Clock.Now().UnixNano()
	if !before.IsZero() { // times never go back along a branch
		b, _, err := p.r.bundleOf(before)
		if err != nil && !errors.Is(err, ErrNeedsPriming) { // gone by policy: it is in the store, and old
			return err
		}
		now = max(now, b.Time)
	}
	h, err := p.own.Deposit(journal.Draft{
		Entries: []entry.Entry{{Code: entry.User, Type: entry.Switch, Data: payload}},
		Session: p.epoch, Before: before, FactEpoch: p.epoch, Time: now,
	})
	if err != nil {
		return journalFailed(p.own, err)
	}
	b, err := p.own.BundleAt(h.First)
	if err != nil {
		return journalFailed(p.own, err)
	}
	p.sw = located{Bundle: b, author: p.r.o.Node}
	return nil
}

// openedState makes the group opened: it proposes Open when SW is durable here and every living member of the set has
// acknowledged it, or had time to. It returns the state that shows it.
func (p *primary) openedState(ctx context.Context) (fsm.Assignment, error) {
	if err := p.own.WaitDurable(ctx, p.sw.Last()); err != nil {
		return fsm.Assignment{}, journalFailed(p.own, err)
	}
	grace := time.Now().Add(p.r.o.Timing.OpenGrace)
	for {
		a, changed := p.control.Assignment()
		if !p.mine(a) {
			return a, errRoleOver
		}
		if core.MayServe(a.Group, p.epoch) {
			return a, nil
		}
		if a.Group.Phase == fsm.PhaseOpened {
			return a, errRoleOver
		}
		acks := p.targets.changed.wait()
		if core.AllHold(a.Group, a.Self, p.control.Alive, p.holdsSwitch) || !time.Now().Before(grace) {
			if err := p.proposeOpen(ctx, a); err != nil {
				return a, err
			}
			if err := pause(ctx, 5*time.Millisecond); err != nil { // Propose made it visible; only a refusal gets here often
				return a, err
			}
			continue
		}
		if err := waitAny(ctx, time.Until(grace), changed, acks); err != nil {
			return a, err
		}
	}
}

// waitAny waits for one of the channels, or for d.
func waitAny(ctx context.Context, d time.Duration, one, other <-chan struct{}) error {
	t := time.NewTimer(max(d, 0))
	defer t.Stop()
	select {
	case <-one:
	case <-other:
	case <-t.C:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return nil
}

func (p *primary) holdsSwitch(n ident.NodeID) bool {
	return p.targets.holds(n, core.Acked{Durable: p.sw.Last(), Held: p.sw.After()}, false)
}

// proposeOpen proposes Open once. An unknown outcome is not assumed: the caller looks at the state.
func (p *primary) proposeOpen(ctx context.Context, a fsm.Assignment) error {
	rows, err := p.rows(a.Group)
	if err != nil {
		return err
	}
	set := core.OpenSet(a.Group, a.Nodes, a.Self, p.holdsSwitch)
	if err := p.r.o.Host.Failpoint("replica.open:" + string(p.r.o.Group)); err != nil { // SW is durable, nobody knows
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, p.r.o.Timing.Propose)
	defer cancel()
	res, err := p.control.Propose(ctx, fsm.Command{Open: &fsm.Open{
		Group: p.r.o.Group, Epoch: p.epoch, Node: a.Self, Incarnation: a.Life, Rows: rows, InSync: set,
		Began: p.began, Recovered: p.recovered,
	}})
	switch {
	case err != nil:
		p.r.log.Warn("proposed Open, outcome unknown", "epoch", p.epoch, "error", err)
	case res.Refused == fsm.RefusedInvalid:
		return fmt.Errorf("Open of epoch %s was refused: %s", p.epoch, res.Detail)
	case res.Refused != "":
		p.r.log.Warn("Open was refused", "epoch", p.epoch, "refused", res.Refused, "detail", res.Detail)
	}
	return nil
}

// rows are the history rows that Open records: of this epoch, and of epochs on the branch that were promoted but never
// opened.
func (p *primary) rows(g *fsm.Group) ([]ident.HistoryRow, error) {
	r := p.r
	grove := core.NewGrove(g.History, r.data.Position(), r.shelf.runs(true)...)
	path, ok := grove.Path(p.sw.After())
	if !ok {
		return nil, fmt.Errorf("%w: the history below SW %s is not durable here without a hole", ErrNeedsPriming, p.sw.After())
	}
	rows := core.RowsFor(g.History, path)
	for i := range rows {
		row := &rows[i]
		if row.Epoch == p.epoch {
			row.Node, row.First = r.o.Node, p.sw.First
			continue
		}
		data, first, in, err := r.readSwitch(ident.Position{Epoch: row.Epoch, History: row.SW})
		if err != nil {
			return nil, fmt.Errorf("row of epoch %s: %w", row.Epoch, err)
		}
		row.Node = data.Node
		if in.ID().Node == data.Node {
			row.First = first
		}
	}
	return rows, nil
}
