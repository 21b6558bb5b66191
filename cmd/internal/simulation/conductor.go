package simulation

import (
	"time"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/replica/core"
)

// conductor makes the decisions of a serving primary that go through Raft.
func (p *primary) conductor(a fsm.Assignment) {
	if p.proposing {
		return
	}
	g := a.Group
	p.roster.Settle(g)
	for _, n := range p.set {
		if !g.InSet(n) {
			p.roster.Lost(n)
		}
	}
	p.set = g.InSync
	p.members(a)
	if !p.proposing {
		p.switchOver(a)
	}
	p.squeeze(a)
	if !p.proposing && p.serving && core.FinishesSwitch(g, a.Self, p.epoch) {
		p.propose(fsm.Command{FinishSwitch: &fsm.FinishSwitch{Group: p.c.group, Operation: g.Operation.ID, Node: a.Self, First: p.sw.First}},
			func(fsm.Result, error) {})
	}
}

// members does the next step towards the wanted in-sync set.
func (p *primary) members(a fsm.Assignment) {
	g, c := a.Group, p.c
	now := c.n.boot()
	reached := p.sw.After()
	if c.at.History < reached.History {
		reached = p.sw.Before
	}
	members, anew := p.roster.Members(now, core.Outlook{
		Assignment: a, Alive: c.n.alive, Last: c.own().after(), Reached: reached,
		Outstanding: func(k core.Acked) bool {
			n := len(p.flights)
			return n > 0 && !k.Covers(p.flights[n-1].b.Header)
		},
	})
	p.renewals(anew)
	rule := core.SetRule{
		Sync: g.Spec.Delivery != fsm.DeliveryAsync, Wanted: g.Spec.Secondaries, Protect: core.Protects(g),
		Switching: core.Switching(g, a.Self) != nil, Held: core.Draining(g, a.Self), Target: core.SwitchTarget(g), Leaving: a.Nodes[a.Self].IsLeaving(), ShrinkAfter: shrinkAfter,
	}
	writes := core.WritesUnder(g, rule, members)
	p.paused = writes == core.WritesHeld
	if writes == core.WritesRefused {
		for _, call := range p.waiting {
			c.n.w.oracle.notDone(call)
		}
		p.waiting = nil
	}
	d := core.DecideSet(rule, members)
	change := fsm.ChangeSet{Group: c.group, Epoch: p.epoch, Version: g.SetVersion, Reason: d.Reason}
	switch d.Action {
	case core.SetRemove:
		change.Remove = d.Node
	case core.SetAdd:
		p.roster.Propose(d.Node, g.SetVersion)
		change.Add = d.Node
	case core.SetWait:
		p.wait(d.Node)
		return
	case core.SetForget:
		if rule.Held || rule.Switching && d.Node != rule.Target {
			p.roster.Forget(d.Node, now, core.GrowRest)
		} else {
			p.roster.GiveUp(d.Node, now)
		}
		p.commit()
		return
	default:
		return
	}
	c.note("changes the set", uint64(d.Action), uint64(d.Node[0]), g.SetVersion)
	p.propose(fsm.Command{ChangeSet: &change}, func(fsm.Result, error) {})
}

// wait begins to wait for a node on every entry.
func (p *primary) wait(n ident.NodeID) {
	anew, began := p.roster.Wait(n, p.c.n.boot())
	if !began {
		return
	}
	p.c.note("waits for", uint64(n[0]), 0, 0)
	p.renewals(anew)
	p.roster.Mark(n, p.c.own().after())
}

// switchOver does the old primary's part of a planned switch-over.
func (p *primary) switchOver(a fsm.Assignment) {
	c, g := p.c, a.Group
	for {
		e := p.switches.Step(c.n.boot(), g, a.Self, func(op *fsm.Operation) string { return p.lacking(a, op) })
		op := e.Operation
		switch e.Action {
		case core.SwitchReopens:
			for _, n := range p.roster.Growing() {
				if g.Spec.Delivery == fsm.DeliveryAsync {
					p.roster.Forget(n, c.n.boot(), 0)
				}
			}
			p.stopped, p.held = false, false
			c.note("reopens", uint64(p.epoch), 0, 0)
			continue
		case core.SwitchGrows, core.SwitchHolds:
			p.held = p.held || e.Action == core.SwitchHolds
			if !g.InSet(op.To) {
				p.wait(op.To)
			}
			continue
		case core.SwitchAborts:
			p.propose(fsm.Command{AbortSwitch: &fsm.AbortSwitch{Group: c.group, Operation: op.ID, Reason: e.Lacking}}, func(fsm.Result, error) {})
		case core.SwitchAdvances:
			p.propose(fsm.Command{AdvanceSwitch: &fsm.AdvanceSwitch{Group: c.group, Operation: op.ID, From: fsm.StepHold, Node: a.Self}}, func(fsm.Result, error) {})
		case core.SwitchHandsOver:
			p.stopped = true
			j := c.own()
			set := core.HandoverSet(g, a.Self, op.To, func(n ident.NodeID) bool {
				return p.roster.Holds(n, core.Acked{Durable: j.last(), Held: j.after()})
			})
			c.noteAt("hands over", j.after(), uint64(op.To[0]))
			p.propose(fsm.Command{Handover: &fsm.Handover{
				Group: c.group, Operation: op.ID, Epoch: p.epoch, From: a.Self, FromLife: a.Life, To: op.To,
				Incarnation: a.Nodes[op.To].Incarnation, Last: j.after(), InSync: set,
			}}, func(fsm.Result, error) {})
		}
		return
	}
}

// lacking says what is missing for a Handover.
func (p *primary) lacking(a fsm.Assignment, op *fsm.Operation) string {
	j := p.c.own()
	return core.Drain{
		Serving:   p.serving,
		Committed: len(p.flights) == 0 && j.durable == j.last() && p.c.at == j.after(),
		Owed:      len(p.owed) > 0,
		Growing:   p.roster.Growing(),
		Known:     a.Nodes[op.To] != nil,
		Holds: func(fresh bool) bool {
			want := core.Acked{Durable: j.last(), Held: j.after()}
			if !fresh {
				return p.roster.Holds(op.To, want)
			}
			ok, anew := p.roster.HoldsFresh(op.To, want)
			p.renewals(anew)
			return ok
		},
	}.Lacking(a.Group, op.To)
}

// call is one thing that a client wants.
type call struct {
	op    op
	group ident.GroupName
	began time.Duration
	floor ident.Position // what was answered before it began
	at    ident.Position
}

// clients keep asking.
func (w *world) clients() {
	for _, g := range w.groups {
		pace := []time.Duration{3 * ms, 8 * ms, 25 * ms}[w.rng.IntN(3)]
		var ask func()
		ask = func() {
			if w.now > w.faults && w.healed {
				return
			}
			w.after(w.between(pace/2, 2*pace), ask)
			w.ask(g)
		}
		w.after(w.between(0, pace), ask)
	}
}

// ask sends one request to some node that may be primary, or reads from a copy.
func (w *world) ask(g ident.GroupName) {
	if w.nested > 0 {
		return
	}
	n := w.dataNode()
	if w.chance(0.7) { // most clients know
		if truth := w.byID(w.raft.truth.Groups[g].Primary); truth != nil {
			n = truth
		}
	}
	c := n.copyOf(g)
	if c == nil || n.paused() {
		return
	}
	request := &call{group: g, began: w.now, floor: w.oracle.floor(g)}
	p := c.primary
	switch {
	case p == nil:
		if w.chance(0.5) {
			w.readLocal(c, request)
		}
	case w.chance(0.35):
		w.read(p, request)
	case p.stopped || !p.sequences:
		w.stats.Refused++
	default:
		request.op = op{id: w.id()}
		if w.chance(0.5) {
			request.op.key = uint8(1 + w.rng.IntN(3))
		}
		p.waiting = append(p.waiting, request)
		n.at(ms/20, func() {
			if !p.over {
				p.seal()
			}
		})
	}
}

// read asks the primary; the process may stand still in the middle.
func (w *world) read(p *primary, r *call) {
	c, n := p.c, p.c.n
	if !p.serving || p.stopped {
		return
	}
	life := n.life
	may := core.Answer(func() {
		if w.chance(0.5) {
			r.at = c.at
		}
		if w.chance(0.01) && w.nested == 0 && !w.healed {
			n.pause(w.between(lease/2, 3*lease))
			w.nested++
			w.runUntil(n.still)
			w.nested--
		}
		if r.at.IsZero() {
			r.at = c.at
		}
	}, func() bool { return !p.stopped && n.leases.Holds(n.boot(), c.group, p.epoch) })
	if !n.up || n.life != life || p.over || !may {
		return
	}
	w.oracle.read(p, r)
}

// readLocal asks a backup.
func (w *world) readLocal(c *copied, r *call) {
	if !c.presentable() {
		return
	}
	r.at = c.at
	w.oracle.readLocal(c, r)
}
