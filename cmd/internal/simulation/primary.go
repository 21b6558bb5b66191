package simulation

import (
	"time"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/replica/core"
)

// primary is one session as primary: one epoch, in one life of a node.
type primary struct {
	c      *copied
	epoch  ident.Epoch
	roster *core.Roster
	ways   []*source // by target and author, in the order of their beginning
	sw     *bundle
	floor  ident.Position

	flights   []*flight
	waiting   []*call // not sequenced yet
	owed      []*call // committed, the lease was not valid
	switches  core.Switchover
	set       []ident.NodeID
	grace     time.Duration
	proposing bool
	flying    bool // the store has reached SW: commits may go on
	serving   bool
	sequences bool           // writes may be sequenced, before it serves
	reached   ident.Position // what was in flight when the store had reached SW
	stopped   bool           // a Handover is proposed: reads wait
	held      bool           // writes wait for a switch-over
	paused    bool           // on_no_sync
	over      bool
}

// flight is a bundle that is not committed yet, with who waits for it.
type flight struct {
	b     *bundle
	calls []*call
}

// conduct begins a session.
func (c *copied) conduct(a fsm.Assignment) {
	if !c.takePromise(a.Group.Epoch) {
		return
	}
	c.n.w.oracle.promises(c, a.Group.Epoch)
	c.primary = &primary{c: c, epoch: a.Group.Epoch, roster: core.NewRoster(c.n.id)}
	c.note("begins as primary", uint64(a.Group.Epoch), 0, 0)
	c.primary.look(a)
}

// end ends the session: who waits hears that the outcome is not known.
func (p *primary) end() {
	w := p.c.n.w
	p.c.note("ends as primary", uint64(p.epoch), uint64(len(p.flights)), 0)
	p.over = true
	p.c.primary = nil
	for _, f := range p.flights {
		for _, call := range f.calls {
			w.oracle.unknown(call)
		}
	}
	for _, call := range p.owed {
		w.oracle.unknown(call)
	}
	for _, call := range p.waiting {
		w.oracle.notDone(call)
	}
}

// look does what is due.
func (p *primary) look(a fsm.Assignment) {
	g := a.Group
	if p.sw == nil && !p.establish(g) {
		return
	}
	p.cover(a)
	if g.Phase == fsm.PhasePromoted {
		p.open(a)
	}
	if !core.MayServe(g, p.epoch) {
		return
	}
	if !p.flying && !p.reachSwitch(g) {
		return
	}
	p.commit()
	if p.over {
		return
	}
	if !p.serving && p.c.at.History >= p.reached.History {
		p.serving, p.sequences = true, true
		p.c.noteAt("serves", p.sw.Fact, uint64(p.epoch))
	}
	p.conductor(a)
	if p.serving {
		p.c.trim(g)
		p.c.retain(a)
	}
	p.seal()
	p.answerOwed()
}

// deposit seals a bundle of the local journal.
func (p *primary) deposit(b *bundle) *bundle {
	j := p.c.own()
	b.Session, b.First = p.epoch, j.last()+1
	b.Durable, b.Committed = j.durable, j.committed
	b.chain = b.link(j.chain())
	j.add(b, p.epoch)
	return b
}

// establish makes sure that this epoch's SW stands in the local journal.
func (p *primary) establish(g *fsm.Group) bool {
	c := p.c
	for _, j := range c.journals {
		if j != nil && j.durable < j.last() {
			j.flush()
			return false
		}
	}
	if !c.enters(p.epoch) {
		return false
	}
	for _, b := range c.own().list {
		if b.sw && b.Fact.Epoch == p.epoch {
			p.sw = b
		}
	}
	p.grace = c.n.w.now + openGrace
	switch core.BeginningOf(g, p.sw != nil) {
	case core.Resumes:
		return true
	case core.HandedRole:
		return p.beginHandedOver(g)
	}
	return p.takeOver(g)
}

func (p *primary) depositSwitch(before ident.Position) {
	b := &bundle{sw: true, by: p.c.n.id}
	b.Header = headerOf(0, 1, before, p.epoch, p.epoch)
	p.sw = p.deposit(b)
	p.c.noteAt("deposits SW", p.sw.Fact, uint64(p.sw.First))
}

func (p *primary) beginHandedOver(g *fsm.Group) bool {
	row, ok := g.History.Row(p.epoch)
	before := core.BeforeRow(g.History)
	if !ok || !p.c.grove(g.History, true).Connects(before) || before.History+1 != row.SW {
		p.c.n.w.fail("S8", "%s: the role was handed over at epoch %s after %s, which is not held (best is %s)", p.c, p.epoch, before,
			p.c.grove(g.History, true).Best())
	}
	p.depositSwitch(before)
	return true
}

// takeOver is step 5 of a failover.
func (p *primary) takeOver(g *fsm.Group) bool {
	c, w := p.c, p.c.n.w
	grove := c.grove(g.History, true)
	best := core.TakeoverEnd(grove)
	need, err := core.Needed(g)
	if err != nil || best.Compare(need) < 0 && !core.LossAllowed(g) {
		c.note("cannot take over", uint64(p.epoch), uint64(best.History), uint64(need.History))
		return false
	}
	var sure []core.Bough
	for _, j := range c.journals {
		if j == nil {
			continue
		}
		end := j.last()
		if j.author != c.n.id {
			end = min(j.confirmed, end)
		}
		if end < j.first() {
			continue
		}
		cut, after := j.durable, j.durableAfter()
		if end < j.last() {
			if b := j.at(end); b.Last() > end {
				cut, after = b.First-1, b.Before
			} else {
				cut, after = end, b.After()
			}
		}
		for _, r := range core.RunsUpTo(j.spans(), cut, after) {
			sure = append(sure, core.Bough{Run: r, Author: j.author})
		}
	}
	confirmed, ok := core.ConfirmedEnd(grove, sure, best)
	path, held := grove.Path(best)
	if !ok || !held {
		w.fail("S8", "%s: no way to %s", c, best)
	}
	at := confirmed
	for _, b := range path {
		j := c.hold(b.Author)
		for at.History < b.To {
			next := ident.Position{Epoch: b.Epoch, History: at.History + 1}
			old := j.find(next)
			if old == nil || old.Fact != next {
				w.fail("S11", "%s: no bundle begins at %s in journal %s", c, next, j.author)
			}
			at = old.After()
			if c.own().find(next) != nil {
				continue
			}
			again := &bundle{ops: old.ops, sw: old.sw, by: old.by}
			again.Header = headerOf(0, old.Facts, old.Before, old.Fact.Epoch, p.epoch)
			p.deposit(again)
			w.stats.Rejournaled++
		}
	}
	w.oracle.takesOver(p, g, best)
	p.depositSwitch(best)
	return true
}

// cover starts what is missing of the ways to other nodes.
func (p *primary) cover(a fsm.Assignment) {
	for _, n := range p.c.n.w.nodes {
		if n == p.c.n || n.kind != fsm.KindData || a.Nodes[n.id] == nil {
			continue
		}
		for _, j := range p.c.journals {
			if j != nil && j.author != n.id && p.roster.Add(n.id, j.author) {
				s := &source{c: p.c, epoch: p.epoch, p: p, target: n, j: j}
				p.ways = append(p.ways, s)
				s.begin()
			}
		}
	}
}

// ship sends what is new to everybody.
func (p *primary) ship() {
	for _, s := range p.ways {
		s.ship()
	}
}

// renewals begins sessions anew.
func (p *primary) renewals(anew []core.Renewal) {
	for _, x := range anew {
		for _, s := range p.ways {
			if s.target.id == x.Node && s.j.author == x.Author {
				s.pause = 0
				s.again()
			}
		}
	}
}

// propose proposes one command at a time.
func (p *primary) propose(cmd fsm.Command, then answer) {
	p.proposing = true
	p.c.n.propose(cmd, func(res fsm.Result, err error) {
		p.proposing = false
		if !p.over {
			then(res, err)
		}
	})
}

func (p *primary) holdsSwitch(n ident.NodeID) bool {
	return p.roster.Holds(n, core.Acked{Durable: p.sw.Last(), Held: p.sw.After()})
}

// open proposes Open once everybody who lives holds SW, or had time to.
func (p *primary) open(a fsm.Assignment) {
	g := a.Group
	if p.proposing || p.c.own().durable < p.sw.Last() {
		return
	}
	if !core.AllHold(g, a.Self, p.c.n.alive, p.holdsSwitch) && p.c.n.w.now < p.grace {
		return
	}
	path, ok := p.c.grove(g.History, true).Path(p.sw.After())
	if !ok {
		return
	}
	rows := core.RowsFor(g.History, path)
	for i := range rows {
		b, j := p.c.bundleOf(ident.Position{Epoch: rows[i].Epoch, History: rows[i].SW}, true)
		if b == nil {
			return
		}
		rows[i].Node = b.by
		if j.author == b.by {
			rows[i].First = b.First
		}
	}
	set := core.OpenSet(g, a.Nodes, a.Self, p.holdsSwitch)
	p.propose(fsm.Command{Open: &fsm.Open{Group: p.c.group, Epoch: p.epoch, Node: a.Self, Incarnation: a.Life, Rows: rows, InSync: set}},
		func(res fsm.Result, err error) {
			if res.Refused == fsm.RefusedInvalid {
				p.c.n.w.fail("I10", "%s: Open of epoch %s is refused: %s", p.c, p.epoch, res.Detail)
			}
		})
}

// reachSwitch brings the store up to SW and puts into flight what follows.
func (p *primary) reachSwitch(g *fsm.Group) bool {
	c := p.c
	if !c.reconcile(g) {
		c.n.wake()
		return false
	}
	c.applyUpTo(g.History, p.sw.Before)
	if c.at.History < p.sw.Before.History {
		return false
	}
	floor, err := core.CommitFloor(g, p.epoch, p.sw.Before, p.sw.After())
	if err != nil {
		return false
	}
	p.floor, p.flying = floor, true
	j := c.own()
	for _, b := range j.list[j.index(p.sw.First):] {
		if b.Facts > 0 && b.After().History > c.at.History {
			p.flights = append(p.flights, &flight{b: b})
		}
	}
	p.reached = j.after()
	p.sequences = core.SequencesAhead(g) && j.last() == p.sw.Last()
	c.conducted = p.epoch
	return true
}

// commit takes bundles that may be acknowledged into the store, in order, and answers who waits for them.
func (p *primary) commit() {
	if !p.flying || p.over {
		return
	}
	c, w := p.c, p.c.n.w
	a := c.state()
	if !core.Mine(a.Group, p.epoch, a.Self, a.Life) || !core.MayServe(a.Group, p.epoch) {
		return
	}
	rule := core.RuleFor(a.Group, a.Self, p.roster.Growing(), p.floor, p.roster.Acked)
	landed := false
	j := c.own()
	for len(p.flights) > 0 && rule.Allows(p.flights[0].b.Header, j.durable) {
		f := p.flights[0]
		p.flights = p.flights[1:]
		if f.b.Before != c.at {
			w.fail("S13", "%s: %s is committed on a store at %s", c, f.b.Before, c.at)
		}
		c.at = f.b.After()
		c.known.Learn(p.epoch, c.at)
		c.noteAt("commits", c.at, 0)
		w.oracle.commits(p, f.b)
		p.owed = append(p.owed, f.calls...)
		landed = true
	}
	end := j.durable
	if len(p.flights) > 0 {
		end = min(end, p.flights[0].b.First-1)
	}
	if end > j.committed || landed {
		j.committed = max(j.committed, end)
		p.answerOwed()
		p.ship()
		c.n.wake()
	}
}

// answerOwed answers what is committed while the lease is valid.
func (p *primary) answerOwed() {
	if len(p.owed) == 0 || !p.c.n.leases.Holds(p.c.n.boot(), p.c.group, p.epoch) {
		return
	}
	for _, call := range p.owed {
		p.c.n.w.oracle.acked(p, call)
	}
	p.owed = nil
}

// seal makes one bundle of the calls that wait.
func (p *primary) seal() {
	c, w := p.c, p.c.n.w
	j := c.own()
	if len(p.waiting) == 0 || !p.sequences || p.stopped || p.held || p.paused || j.durable < j.last() && len(p.flights) > 3 {
		return
	}
	if !c.enters(p.epoch) {
		return
	}
	if j.full(c.state().Group.Spec) { // nothing was numbered: surely not done
		for _, call := range p.waiting {
			w.stats.FullWrites++
			w.oracle.notDone(call)
		}
		p.waiting = nil
		return
	}
	n := 1 + w.rng.IntN(min(maxFacts, len(p.waiting)))
	b := &bundle{}
	b.Header = headerOf(0, uint32(n), j.after(), p.epoch, p.epoch)
	for _, call := range p.waiting[:n] {
		b.ops = append(b.ops, call.op)
	}
	p.deposit(b)
	for i, call := range p.waiting[:n] {
		call.at = ident.Position{Epoch: p.epoch, History: b.Fact.History + ident.History(i)}
	}
	p.flights = append(p.flights, &flight{b: b, calls: p.waiting[:n:n]})
	p.waiting = p.waiting[n:]
	c.noteAt("seals", b.After(), uint64(b.First))
	p.ship()
}
