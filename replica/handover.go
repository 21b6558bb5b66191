package replica

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal"
)

// A node is left alone for growRest after its growth was given up, twice as long each time, growRestMost at last.
const (
	growRest     = time.Second
	growRestMost = time.Minute
)

// conductor makes the decisions of a serving primary that go through Raft: the in-sync set, and the steps of a planned
// switch-over away from this node.
type conductor struct {
	p        *primary
	set      []ident.NodeID // in-sync set seen last
	op       uint64         // switch-over for which writes are held; 0: none
	since    time.Time      // writes are held
	finished bool           // the switch-over that led here was reported
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
	c.members(ctx, a)
	c.switchOver(ctx, a)
	c.finish(ctx, a)
}

// tell raises the events of a changed set.
func (c *conductor) tell(a fsm.Assignment) {
	p, g := c.p, a.Group
	p.targets.settle(g)
	for _, n := range g.InSync {
		if n != a.Self && c.set != nil && !slices.Contains(c.set, n) {
			p.r.event(Event{Kind: EventShadowGain, Peer: n, Epoch: p.epoch, Position: p.r.data.Position()})
		}
	}
	for _, n := range c.set {
		if !g.InSet(n) {
			p.targets.lost(n)
			p.r.event(Event{Kind: EventShadowLost, Peer: n, Epoch: p.epoch, Position: p.r.data.Position()})
		}
	}
	c.set = g.InSync
}

// members does the next step towards the wanted in-sync set, and guards on_no_sync.
func (c *conductor) members(ctx context.Context, a fsm.Assignment) {
	p, g := c.p, a.Group
	view, _ := p.own.View()
	inFlight := p.flights.snapshot()
	outstanding := func(k acked) bool {
		n := len(inFlight)
		return n > 0 && !k.covers(inFlight[n-1].header)
	}
	// After a Handover SW is committed by acknowledgements, perhaps of a node that is not in the set yet.
	reached := p.sw.After()
	if p.r.data.Position().History < reached.History {
		reached = p.sw.Before
	}
	members := p.targets.members(a, view.After, reached, outstanding)
	c.guard(g, members)
	p.doubt.Store(slices.ContainsFunc(members, func(m member) bool {
		return m.inSet && (!m.connected || m.stalled >= p.r.o.Timing.Tick)
	}))
	d := decideSet(setRule{
		sync: g.Spec.Delivery != fsm.DeliveryAsync, wanted: g.Spec.Secondaries, protect: protects(g),
		switching: c.switching(a) != nil, target: switchTarget(a), shrinkAfter: p.r.o.Timing.ShrinkAfter,
	}, members)
	switch d.action {
	case setRemove:
		p.targets.say(d.node, d.reason)
		c.changeSet(ctx, fsm.ChangeSet{Version: g.SetVersion, Remove: d.node, Reason: d.reason})
	case setAdd:
		p.targets.propose(d.node, g.SetVersion)
		if c.changeSet(ctx, fsm.ChangeSet{Version: g.SetVersion, Add: d.node, Reason: d.reason}) {
			p.targets.say(d.node, "")
		}
	case setWait:
		p.targets.wait(d.node)
	case setForget:
		p.r.log.Info("node does not become in-sync yet", "peer", d.node, "reason", d.reason)
		p.targets.say(d.node, d.reason)
		if c.switching(a) != nil {
			p.targets.forget(d.node, growRest) // not its fault
		} else {
			p.targets.giveUp(d.node)
		}
	}
}

// guard holds or refuses writes while no in-sync secondary is well, if the group asks for that.
func (c *conductor) guard(g *fsm.Group, members []member) {
	p := c.p
	well := slices.ContainsFunc(members, func(m member) bool { return m.inSet && m.stalled < p.r.o.Timing.ShrinkAfter })
	unsafe := protects(g) && !well
	held := p.paused.Swap(unsafe && g.Spec.OnNoSync == fsm.NoSyncHold)
	refused := p.refuse.Swap(unsafe && g.Spec.OnNoSync == fsm.NoSyncRefuse)
	if held != p.paused.Load() || refused != p.refuse.Load() {
		p.turned.fire()
	}
	if p.refuse.Load() {
		p.queue.refuse(ErrNoSync)
	}
}

// changeSet proposes a change of the set; true when it was applied.
func (c *conductor) changeSet(ctx context.Context, change fsm.ChangeSet) bool {
	p := c.p
	change.Group, change.Epoch = p.r.o.Group, p.epoch
	res, err := c.propose(ctx, fsm.Command{ChangeSet: &change})
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

// switchTarget returns where a switch-over that runs and can still fail leads; "" when none does.
func switchTarget(a fsm.Assignment) ident.NodeID {
	op := a.Group.Operation
	if op == nil || op.Kind != fsm.OperationSwitchover || op.State != fsm.OperationRunning || op.Committed {
		return ""
	}
	return op.To
}

// switching returns the switch-over away from this node that asks for a hold, or nil.
func (c *conductor) switching(a fsm.Assignment) *fsm.Operation {
	op := a.Group.Operation
	if op == nil || op.Kind != fsm.OperationSwitchover || op.State != fsm.OperationRunning || op.Committed || op.From != a.Self {
		return nil
	}
	if op.Step != fsm.StepHold && op.Step != fsm.StepDrain {
		return nil
	}
	return op
}

// switchOver does the old primary's part: hold, drain, Handover. What it cannot do within MaxPause it aborts. Writes stay
// held and reads stopped until the own state shows the end of the operation, whichever it is.
func (c *conductor) switchOver(ctx context.Context, a fsm.Assignment) {
	p, op := c.p, c.switching(a)
	if c.op != 0 && (op == nil || op.ID != c.op) {
		c.reopen(a)
	}
	if op == nil {
		return
	}
	if c.op == 0 {
		c.op, c.since = op.ID, time.Now()
		p.hold(true)
		if !a.Group.InSet(op.To) {
			p.targets.wait(op.To) // its acknowledgements have to count, as those of a member
		}
	}
	late := time.Since(c.since) >= op.MaxPause
	switch {
	case late:
		_, err := c.propose(ctx, fsm.Command{AbortSwitch: &fsm.AbortSwitch{
			Group: p.r.o.Group, Operation: op.ID, Reason: fmt.Sprintf("not drained within %s: %s", op.MaxPause, c.lacking(a, op)),
		}})
		if err != nil {
			p.r.log.Warn("proposed to abort the switch-over, outcome unknown", "operation", op.ID, "error", err)
		}
	case op.Step == fsm.StepHold:
		c.note(c.propose(ctx, fsm.Command{AdvanceSwitch: &fsm.AdvanceSwitch{
			Group: p.r.o.Group, Operation: op.ID, From: fsm.StepHold, Node: a.Self, Detail: fmt.Sprintf("%d writes wait", p.queue.length()),
		}}))
	case c.lacking(a, op) == "":
		p.stopped.Store(true) // reads too, before Handover can be applied
		p.turned.fire()
		c.note(c.propose(ctx, c.handover(a, op)))
	}
}

func (c *conductor) note(res fsm.Result, err error) {
	if err != nil || res.Refused != "" {
		c.p.r.log.Warn("step of the switch-over not applied", "operation", c.op, "refused", res.Refused, "detail", res.Detail, "error", err)
	}
}

// lacking says what is missing for a Handover; "" when nothing is: everything that was sequenced is committed, in the store,
// answered, and held by the target.
func (c *conductor) lacking(a fsm.Assignment, op *fsm.Operation) string {
	p := c.p
	view, _ := p.own.View()
	member := a.Group.InSet(op.To)
	switch {
	case !p.serving.Load():
		return "the primary does not serve yet"
	case !p.flights.empty() || view.Durable != view.Last || p.r.data.Position() != view.After:
		return "entries are not committed yet"
	case p.owed.Load() > 0:
		return "replies wait for the lease"
	case !member && a.Group.Spec.Delivery != fsm.DeliveryAsync:
		return fmt.Sprintf("node %s is not in the in-sync set", op.To)
	case slices.ContainsFunc(p.targets.growing(), func(n ident.NodeID) bool { return n != op.To }):
		return "a node is joining the in-sync set"
	case !p.targets.holds(op.To, acked{durable: view.Last, held: view.After}, !member):
		return fmt.Sprintf("node %s does not hold everything yet", op.To)
	case a.Nodes[op.To] == nil:
		return fmt.Sprintf("node %s is not known", op.To)
	}
	return ""
}

// handover is commit point and release in one. The set is everybody who holds everything.
func (c *conductor) handover(a fsm.Assignment, op *fsm.Operation) fsm.Command {
	p := c.p
	view, _ := p.own.View()
	set := []ident.NodeID{op.To}
	if a.Group.Spec.Delivery != fsm.DeliveryAsync {
		set = append(set, a.Self)
		for _, n := range a.Group.InSync {
			if len(set) > a.Group.Spec.Secondaries {
				break // no more are waited for than the operator wants
			}
			if n != a.Self && n != op.To && p.targets.holds(n, acked{durable: view.Last, held: view.After}, false) {
				set = append(set, n)
			}
		}
	}
	slices.Sort(set)
	return fsm.Command{Handover: &fsm.Handover{
		Group: p.r.o.Group, Operation: op.ID, Epoch: p.epoch, From: a.Self, FromLife: a.Life, To: op.To,
		Incarnation: a.Nodes[op.To].Incarnation, Last: view.After, InSync: set,
	}}
}

// reopen goes on as primary after an abort.
func (c *conductor) reopen(a fsm.Assignment) {
	p := c.p
	p.r.log.Info("the switch-over is over without a handover: serving again", "operation", c.op, "epoch", p.epoch)
	for _, n := range p.targets.growing() {
		if a.Group.Spec.Delivery == fsm.DeliveryAsync {
			p.targets.forget(n, 0)
		}
	}
	c.op = 0
	p.stopped.Store(false)
	p.hold(false)
}

// finish reports that the switch-over to this node has led to a serving primary.
func (c *conductor) finish(ctx context.Context, a fsm.Assignment) {
	p, op := c.p, a.Group.Operation
	if c.finished || !p.serving.Load() {
		return
	}
	if op == nil || op.Kind != fsm.OperationSwitchover || !op.Committed || op.To != a.Self || op.Epoch != p.epoch {
		c.finished = op == nil
		return
	}
	res, err := c.propose(ctx, fsm.Command{FinishSwitch: &fsm.FinishSwitch{
		Group: p.r.o.Group, Operation: op.ID, Node: a.Self, First: p.sw.First, Detail: fmt.Sprintf("SW at %s", p.sw.Fact),
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
	grove := newGrove(g.History, r.data.Position(), r.shelf.runs(true)...)
	before := beforeRow(g.History)
	if !grove.connects(before) || before.History+1 != row.SW {
		return fmt.Errorf("%w: epoch %s begins after %s, which is not held here without a hole (best is %s)", ErrNeedsPriming, p.epoch, before, grove.best())
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
