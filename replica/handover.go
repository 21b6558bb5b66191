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

// conductor makes the decisions of a serving primary that go through Raft: the in-sync set, and the steps of a planned
// switch-over away from this node.
type conductor struct {
	p        *primary
	set      []ident.NodeID // in-sync set seen last
	switches core.Switchover
	aside    uint64    // switch-over for which a file was made for what its target will ship
	held     time.Time // when writes were held for it, as the node's clock shows
	finished bool      // the switch-over that led here was reported
}

func (c *conductor) run(ctx context.Context) error {
	p := c.p
	tick := time.NewTicker(p.r.o.Timing.Tick)
	defer tick.Stop()
	for {
		a, changed := p.control.Assignment()
		acked, landed, turned := p.targets.changed.wait(), p.landed.wait(), p.turned.wait()
		if p.mine(a) && a.Group.Phase == fsm.PhaseOpened {
			c.look(ctx, a)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-changed:
		case <-acked:
		case <-landed:
		case <-turned:
		case <-tick.C:
		}
	}
}

func (c *conductor) look(ctx context.Context, a fsm.Assignment) {
	c.tell(a)
	if err := c.p.r.setAside(a.Group, &c.aside); err != nil {
		c.p.fail(err)
		return
	}
	c.members(ctx, a)
	c.switchOver(ctx, a)
	c.finish(ctx, a)
}

// tell notes changes of the set and raises their events.
func (c *conductor) tell(a fsm.Assignment) {
	p, g := c.p, a.Group
	p.targets.settle(g)
	for _, n := range c.set {
		if !g.InSet(n) {
			p.targets.lost(n)
		}
	}
	c.set = g.InSync
	p.r.tellPrimary(p)
}

// members does the next step towards the wanted in-sync set, and guards on_no_sync.
func (c *conductor) members(ctx context.Context, a fsm.Assignment) {
	p, g := c.p, a.Group
	view, _ := p.own.View()
	inFlight := p.flights.snapshot()
	outstanding := func(k core.Acked) bool {
		n := len(inFlight)
		return n > 0 && !k.Covers(inFlight[n-1].header)
	}
	// After a Handover SW is committed by acknowledgements, perhaps of a node that is not in the set yet.
	reached := p.sw.After()
	if p.r.data.Position().History < reached.History {
		reached = p.sw.Before
	}
	if to := core.SwitchTarget(g); to != "" && g.FeederOf(to) != "" {
		p.targets.hurry(to) // it has to be fed from here before the role can go there
	}
	members := p.targets.members(a, view.After, reached, outstanding)
	p.doubt.Store(slices.ContainsFunc(members, func(m core.Member) bool {
		return m.InSet && (!m.Connected || m.Stalled >= p.r.o.Timing.Tick)
	}))
	rule := core.SetRule{
		Sync: g.Spec.Delivery != fsm.DeliveryAsync, Wanted: g.Spec.Secondaries, Protect: core.Protects(g),
		Switching: core.Switching(g, a.Self) != nil, Held: core.Draining(g, a.Self), Target: core.SwitchTarget(g), Leaving: a.Nodes[a.Self].IsLeaving(), ShrinkAfter: p.r.o.Timing.ShrinkAfter,
	}
	c.guard(g, rule, members)
	d := core.DecideSet(rule, members)
	switch d.Action {
	case core.SetRemove:
		p.targets.say(d.Node, d.Reason)
		c.changeSet(ctx, fsm.ChangeSet{Version: g.SetVersion, Remove: d.Node, Reason: d.Reason})
	case core.SetAdd:
		p.targets.propose(d.Node, g.SetVersion)
		if c.changeSet(ctx, fsm.ChangeSet{Version: g.SetVersion, Add: d.Node, Reason: d.Reason}) {
			p.targets.say(d.Node, "")
		}
	case core.SetWait:
		p.targets.wait(d.Node)
	case core.SetForget:
		p.r.log.Info("node does not become in-sync yet", "peer", d.Node, "reason", d.Reason)
		p.targets.say(d.Node, d.Reason)
		if rule.Held || rule.Switching && d.Node != rule.Target {
			p.targets.forget(d.Node, core.GrowRest) // not its fault
		} else {
			p.targets.giveUp(d.Node)
		}
	}
}

// guard does with writes what on_no_sync says, and tells of it.
func (c *conductor) guard(g *fsm.Group, rule core.SetRule, members []core.Member) {
	p := c.p
	now := core.WritesUnder(g, rule, members)
	before := p.writes.Swap(&now)
	p.paused.Store(now == core.WritesHeld)
	p.refuse.Store(now == core.WritesRefused)
	if p.refuse.Load() {
		p.queue.refuse(ErrNoSync)
	}
	if before != nil && *before == now || before == nil && now == core.WritesOpen {
		return
	}
	p.turned.fire()
	switch {
	case now == core.WritesHeld || now == core.WritesRefused:
		p.r.event(Event{Kind: EventNoSync, Epoch: p.epoch, Position: p.r.data.Position(), Detail: fmt.Sprintf("no in-sync secondary: writes are %s until one is back, as on_no_sync asks", now)})
	case before != nil && (*before == core.WritesHeld || *before == core.WritesRefused):
		p.r.event(Event{Kind: EventSyncBack, Epoch: p.epoch, Position: p.r.data.Position(), Detail: fmt.Sprintf("writes are not %s any more", *before)})
	}
}

// changeSet proposes a change of the set; true when it was applied.
func (c *conductor) changeSet(ctx context.Context, change fsm.ChangeSet) bool {
	p := c.p
	change.Group, change.Epoch = p.r.o.Group, p.epoch
	res, err := c.propose(ctx, fsm.Command{ChangeSet: &change})
	if err != nil && ctx.Err() != nil {
		return false // the role is over, or the node stops
	}
	if err != nil || res.Refused != "" {
		p.r.log.Warn("change of the in-sync set not applied", "epoch", p.epoch, "add", change.Add, "remove", change.Remove,
			"refused", res.Refused, "detail", res.Detail, "error", err)
		return false
	}
	p.r.log.Info("in-sync set changed", "epoch", p.epoch, "add", change.Add, "remove", change.Remove, "reason", change.Reason)
	return true
}

func (c *conductor) propose(ctx context.Context, cmd fsm.Command) (fsm.Result, error) {
	ctx, cancel := context.WithTimeout(ctx, c.p.r.o.Timing.Propose)
	defer cancel()
	return c.p.control.Propose(ctx, cmd)
}

// switchOver does the old primary's part of a planned switch-over, step by step.
func (c *conductor) switchOver(ctx context.Context, a fsm.Assignment) {
	p := c.p
	for {
		e := c.switches.Step(p.targets.now(), a.Group, a.Self, func(op *fsm.Operation) string { return c.lacking(a, op) })
		op := e.Operation
		switch e.Action {
		case core.SwitchReopens:
			c.reopen(a)
			continue
		case core.SwitchGrows, core.SwitchHolds:
			if e.Action == core.SwitchHolds {
				c.held = p.r.o.Host.Clock.Now()
				p.hold(true)
			}
			if !a.Group.InSet(op.To) {
				p.targets.wait(op.To) // its acknowledgements have to count, as those of a member
			}
			continue
		case core.SwitchAborts:
			_, err := c.propose(ctx, fsm.Command{AbortSwitch: &fsm.AbortSwitch{
				Group: p.r.o.Group, Operation: op.ID, Reason: fmt.Sprintf("not drained within %s: %s", op.MaxPause, e.Lacking),
			}})
			if err != nil {
				p.r.log.Warn("proposed to abort the switch-over, outcome unknown", "operation", op.ID, "error", err)
			}
		case core.SwitchAdvances:
			c.note(c.propose(ctx, fsm.Command{AdvanceSwitch: &fsm.AdvanceSwitch{
				Group: p.r.o.Group, Operation: op.ID, From: fsm.StepHold, Node: a.Self, Detail: p.left(),
			}}))
		case core.SwitchHandsOver:
			p.stopped.Store(true) // reads too, before Handover can be applied
			p.control.Yield(p.epoch, true)
			p.turned.fire()
			c.note(c.propose(ctx, c.handover(a, op)))
		}
		return
	}
}

func (c *conductor) note(res fsm.Result, err error) {
	if err != nil || res.Refused != "" {
		c.p.r.log.Warn("step of the switch-over not applied", "operation", c.switches.Operation(), "refused", res.Refused, "detail", res.Detail, "error", err)
	}
}

// lacking says what is missing for a Handover; "" when nothing is.
func (c *conductor) lacking(a fsm.Assignment, op *fsm.Operation) string {
	p := c.p
	view, _ := p.own.View()
	return core.Drain{
		Serving:   p.serving.Load(),
		Committed: p.flights.empty() && view.Durable == view.Last && p.r.data.Position() == view.After,
		Owed:      p.owed.Load() > 0, // after Committed: what has landed is owed
		Growing:   p.targets.growing(),
		Known:     a.Nodes[op.To] != nil,
		Holds: func(fresh bool) bool {
			return p.targets.holds(op.To, core.Acked{Durable: view.Last, Held: view.After}, fresh)
		},
	}.Lacking(a.Group, op.To)
}

// handover is commit point and release in one. The set is everybody who holds everything.
func (c *conductor) handover(a fsm.Assignment, op *fsm.Operation) fsm.Command {
	p := c.p
	view, _ := p.own.View()
	set := core.HandoverSet(a.Group, a.Self, op.To, func(n ident.NodeID) bool {
		return p.targets.holds(n, core.Acked{Durable: view.Last, Held: view.After}, false)
	})
	return fsm.Command{Handover: &fsm.Handover{
		Group: p.r.o.Group, Operation: op.ID, Epoch: p.epoch, From: a.Self, FromLife: a.Life, To: op.To,
		Incarnation: a.Nodes[op.To].Incarnation, Last: view.After, InSync: set, Held: c.held,
	}}
}

// left says what the drain of a switch-over begins with.
func (p *primary) left() string {
	inFlight := 0
	for _, f := range p.flights.snapshot() {
		inFlight += len(f.waiters)
	}
	return fmt.Sprintf("writes on their way: %d", inFlight)
}

// reopen goes on as primary after an abort.
func (c *conductor) reopen(a fsm.Assignment) {
	p := c.p
	p.r.log.Info("the switch-over is over without a handover: serving again", "epoch", p.epoch)
	for _, n := range p.targets.growing() {
		if a.Group.Spec.Delivery == fsm.DeliveryAsync {
			p.targets.forget(n, 0)
		}
	}
	p.control.Yield(p.epoch, false)
	p.stopped.Store(false)
	p.hold(false)
}

// successorCalls bounds how long writes that are held at the end of a session wait for the next primary to call.
const successorCalls = 50 * time.Millisecond

// handOn ends the queue of a session that is over. What waits in it is then sent to the next primary by whoever asked. Where the role was handed
// over that is done when the next primary calls this node: before, it does not know of its role, and would be asked again and again.
func (p *primary) handOn() {
	r := p.r
	a, _ := p.control.Assignment()
	if !core.HandedOn(a.Group, p.epoch, a.Self) {
		p.queue.close(ErrNotPrimary)
		return
	}
	r.handing.Go(func() {
		defer p.queue.close(ErrNotPrimary)
		late := time.NewTimer(successorCalls)
		defer late.Stop()
		for {
			called := r.visitors.called.wait()
			if v := r.visitors.from(a.Group.Primary); v != nil && v.hello.Epoch > p.epoch {
				return
			}
			select {
			case <-called:
			case <-late.C:
				return
			}
		}
	})
}

// finish reports that the switch-over to this node has led to a serving primary.
func (c *conductor) finish(ctx context.Context, a fsm.Assignment) {
	p, op := c.p, a.Group.Operation
	if c.finished || !p.serving.Load() {
		return
	}
	if !core.FinishesSwitch(a.Group, a.Self, p.epoch) {
		c.finished = op == nil
		return
	}
	res, err := c.propose(ctx, fsm.Command{FinishSwitch: &fsm.FinishSwitch{
		Group: p.r.o.Group, Operation: op.ID, Node: a.Self, First: p.sw.First, Detail: "SW at " + p.sw.Fact.Format(p.r.o.Group), Began: p.began,
	}})
	c.note(res, err)
	c.finished = err == nil && res.Refused == ""
}

// beginHandedOver is the new primary's beginning after a Handover: the history ends where the row says, in journals that are
// all held here; SW is deposited in the receiver that was attached when the switch-over was prepared.
func (p *primary) beginHandedOver(ctx context.Context, g *fsm.Group) error {
	r := p.r
	row, ok := g.History.Row(p.epoch)
	if !ok || g.OpenEpoch != p.epoch || g.OpenNode != r.o.Node {
		return fmt.Errorf("epoch %s of group %s is opened, but not for this node", p.epoch, r.o.Group)
	}
	grove := core.NewGrove(g.History, r.data.Position(), r.shelf.runs(true)...)
	before := core.BeforeRow(g.History)
	if !grove.Connects(before) || before.History+1 != row.SW {
		return fmt.Errorf("%w: epoch %s begins after %s, which is not held here without a hole (best is %s)", ErrNeedsPriming, p.epoch, before, grove.Best())
	}
	data := p.switchData(g)
	leave, err := r.gate.enter(p.epoch)
	if err != nil {
		return err
	}
	defer leave()
	if err := setState(p.own, journal.Active); err != nil {
		return err
	}
	if err := p.depositSwitch(before, data); err != nil {
		return err
	}
	r.log.Info("the role was handed over", "epoch", p.epoch, "last", before, "sw", p.sw.First)
	return ctx.Err()
}
