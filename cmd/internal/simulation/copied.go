package simulation

import (
	"fmt"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/replica/core"
)

// copied is one node's copy of one group. A store is a position: what it contains follows from that, since the oracle makes
// sure that a position means one thing only.
type copied struct {
	n     *node
	group ident.GroupName
	who   string // for the trace

	// on disk
	journals []*journal // by author's index; nil: not held
	flushed  ident.Position
	promise  ident.Epoch

	// of this life
	at        ident.Position // of the store
	promised  ident.Epoch
	known     core.Known
	undo      core.UndoLog
	visits    []*visit // by author's index
	primary   *primary
	conducted ident.Epoch
	lacks     string // it needs priming, and why
	proposing bool
	asked     uint64 // switch-over it prepares for
	level     ident.Position
	ahead     ahead
}

func newCopied(n *node, g ident.GroupName) *copied {
	return &copied{n: n, group: g, who: fmt.Sprintf("%s %s", n.id, g), journals: make([]*journal, len(n.w.nodes))}
}

func (c *copied) String() string { return fmt.Sprintf("%s of %s", c.group, c.n.id) }

// hold returns the journal of an author, and makes it when it is not held.
func (c *copied) hold(author ident.NodeID) *journal {
	i := int(author[0] - 'a')
	if c.journals[i] == nil {
		c.journals[i] = &journal{c: c, author: author}
	}
	return c.journals[i]
}

func (c *copied) own() *journal { return c.hold(c.n.id) }

// open begins a life of the copy.
func (c *copied) open(first bool) {
	c.at, c.promised = c.flushed, c.promise
	c.known, c.undo = core.Known{}, core.UndoLog{}
	c.visits = make([]*visit, len(c.n.w.nodes))
	c.primary, c.conducted, c.lacks, c.proposing, c.asked, c.ahead = nil, 0, "", false, 0, ahead{}
	for _, j := range c.journals {
		if j != nil {
			j.found, j.cuts = j.last(), nil
		}
	}
	if !first { // J IN: an event, which moves sequences only
		c.event()
	}
}

// crash ends a life of the copy.
func (c *copied) crash(power bool) {
	for _, j := range c.journals {
		if j != nil {
			j.crash(power)
		}
	}
	c.primary = nil
}

// state is what the node sees of the group.
func (c *copied) state() fsm.Assignment {
	a, _ := c.n.state.Assign(c.group, c.n.id, c.n.life)
	return a
}

// enters tells whether work of an epoch may change a journal.
func (c *copied) enters(e ident.Epoch) bool { return !core.BelowPromise(c.promised, e) }

// takePromise promises an epoch; false when a higher one was.
func (c *copied) takePromise(e ident.Epoch) bool {
	due := core.Promise(c.promised, e)
	if due.Fenced {
		return false
	}
	if due.Write {
		c.promise = e
	}
	if due.Raise {
		c.promised = e
		c.note("promises", uint64(e), 0, 0)
	}
	return true
}

// grove is what the node holds; only what is on its disk when durable is set.
func (c *copied) grove(t ident.HistoryTable, durable bool) *core.Grove {
	return core.NewGrove(t, c.at, c.boughs(durable)...)
}

// moved tells everybody who waits for something of this copy.
func (c *copied) moved() {
	if p := c.primary; p != nil {
		p.commit()
	}
	for _, v := range c.visits {
		if v != nil {
			v.acknowledge()
		}
	}
	if p := c.primary; p != nil {
		p.ship()
	}
	if s := c.ahead.way; s != nil {
		s.ship()
	}
	c.n.wake()
}

// look does what is due now.
func (c *copied) look() {
	a := c.state()
	if a.Group == nil {
		return
	}
	if c.primary != nil && !core.Mine(a.Group, c.primary.epoch, a.Self, a.Life) {
		c.primary.end()
	}
	c.lookAhead(a.Group)
	if a.PromiseDue() && !c.proposing && c.n.leases.Cover(c.n.boot(), c.group) == 0 {
		c.report(a)
	}
	holds := core.Mine(a.Group, a.Group.Epoch, a.Self, a.Life)
	switch {
	case c.primary != nil:
		c.primary.look(a)
	case holds && c.conducted < a.Group.Epoch:
		c.conduct(a)
	default:
		c.follow(a)
	}
	if c.n.w.chance(0.05) && c.n.hung <= c.n.w.now {
		c.flush()
	}
}

// flush brings the store to disk as it is.
func (c *copied) flush() {
	if c.flushed != c.at {
		c.flushed = c.at
		c.noteAt("flushes", c.at, 0)
	}
}

// flushUndo makes an undo final once it has ended.
func (c *copied) flushUndo(g *fsm.Group) {
	if generation, due := c.undo.Due(g.History, c.at); due && c.n.hung <= c.n.w.now {
		c.flush()
		c.undo.Flushed(g.History, generation, c.flushed)
	}
}

// report promises the fenced epoch and says what the node holds.
func (c *copied) report(a fsm.Assignment) {
	g, w := a.Group, c.n.w
	if !c.takePromise(g.Epoch) {
		return
	}
	w.oracle.promises(c, g.Epoch)
	r := fsm.Report{Node: c.n.id, Epoch: g.Epoch, Incarnation: a.Life, Applied: c.at, Unable: c.lacks}
	grove := c.grove(g.History, false)
	r.Received = grove.Best()
	if r.Unable == "" && !grove.Returns() {
		r.Unable = "what it has to undo is not held"
	}
	r.Committed = c.known.Committed(g.History)
	r.Torn = c.torn()
	c.proposing = true
	c.noteAt("reports", r.Received, uint64(g.Epoch))
	c.n.propose(fsm.Command{Promise: &fsm.Promise{Group: c.group, Report: r}}, func(fsm.Result, error) { c.proposing = false })
}

func (c *copied) torn() bool {
	for _, j := range c.journals {
		if j != nil && j.torn {
			return true
		}
	}
	return false
}

// bundleOf finds the bundle that contains a fact.
func (c *copied) bundleOf(p ident.Position, durable bool) (*bundle, *journal) {
	for _, j := range c.journals {
		if j == nil {
			continue
		}
		if b := j.find(p); b != nil && (!durable || b.Last() <= j.durable) {
			return b, j
		}
	}
	return nil, nil
}

// follow is a backup's pass.
func (c *copied) follow(a fsm.Assignment) {
	g := a.Group
	for _, v := range c.visits {
		if v != nil {
			v.learn(g)
		}
	}
	if !c.reconcile(g) || !g.History.Contains(c.at) {
		return
	}
	limit := core.ApplyLimit(c.known.Committed(g.History), func() ident.Position { return c.grove(g.History, true).Best() })
	c.applyUpTo(g.History, limit)
	c.trim(g)
	c.strand(g)
	if g.Phase != fsm.PhaseOpened || g.Primary == c.n.id {
		return
	}
	if c.known.Epoch() == g.OpenEpoch && c.torn() && c.grove(g.History, true).Connects(c.known.Committed(g.History)) {
		for _, j := range c.journals {
			if j != nil {
				j.torn = false
			}
		}
	}
	c.flushUndo(g)
	if c.lacks != "" && c.known.Epoch() == g.OpenEpoch && c.at.History >= c.known.Committed(g.History).History {
		c.lacks = ""
	}
	c.retain(a)
	c.prepare(a)
}

// strand finds out that the copy of the primary's journal begins after the store, since what lies between was deleted before the node was readmitted.
func (c *copied) strand(g *fsm.Group) {
	if g.OpenNode == "" || g.OpenNode == c.n.id || !c.n.w.oracle.wasDropped(c) {
		return
	}
	if j := c.journals[int(g.OpenNode[0]-'a')]; j != nil && core.Stranded(g, c.at, j.baseAt, c.grove(g.History, true).Connects) {
		c.lacks = "its copy begins after its store"
	}
}

// reconcile takes one step back into the history, if the store is outside. It tells whether nothing is left to do.
func (c *copied) reconcile(g *fsm.Group) bool {
	w := c.n.w
	if !core.LeftHistory(g, c.at) {
		return true
	}
	// All bundles have to be found before anything is undone.
	p := c.at
	for !g.History.Contains(p) {
		b, _ := c.bundleOf(p, false)
		if b == nil || b.After() != p {
			c.lacks = fmt.Sprintf("no bundle ends at %d.%d", p.Epoch, p.History)
			if w.oracle.unfounded(c, p) {
				return false
			}
			w.fail("S12", "%s: the store is at %s, outside the history, and cannot be undone: %s", c, c.at, c.lacks)
		}
		p = b.Before
	}
	if want := w.oracle.fork(c.group, g.History, c.at); want != p {
		w.fail("S12", "%s: the undo from %s would end at %s, the histories part at %s", c, c.at, p, want)
	}
	c.undo.Record(c.at, p)
	b, _ := c.bundleOf(c.at, false)
	c.noteAt("undoes", c.at, uint64(b.Before.History))
	w.stats.Undos++
	c.at = b.Before
	if w.chance(0.2) {
		c.flush() // the store flushes by itself, also in the middle
	}
	c.moved()
	return g.History.Contains(c.at)
}

// applyUpTo brings the store forward with what is durable here.
func (c *copied) applyUpTo(t ident.HistoryTable, limit ident.Position) {
	start := c.at
	for c.at.History < limit.History {
		b := c.next(t)
		if b == nil || b.After().History > limit.History {
			break
		}
		c.at = b.After()
	}
	if c.at != start {
		c.noteAt("applies", c.at, 0)
		c.n.w.oracle.applies(c)
		c.moved()
	}
}

// next returns the durable bundle in the history that continues the store.
func (c *copied) next(t ident.HistoryTable) *bundle {
	for _, j := range c.journals {
		if j == nil {
			continue
		}
		for i := len(j.list) - 1; i >= 0; i-- {
			b := j.list[i]
			if b.Facts > 0 && b.Before == c.at && t.Contains(b.Fact) && b.Last() <= j.durable {
				return b
			}
		}
	}
	return nil
}

// cutRule says what may be removed of an author's copy.
func (c *copied) cutRule(g *fsm.Group, author ident.NodeID) core.CutRule {
	r := core.CutRule{Group: g, Undo: c.undo.Guard(g.History, c.at, c.flushed)}
	if a := c.state(); a.Group != nil && g.History.Contains(c.at) {
		a.Group = g
		r.Spent = core.Spent(a, c.flushed)
	}
	for _, b := range c.boughs(true) {
		if b.Author != author {
			r.Other = append(r.Other, b)
		}
	}
	return r
}

// trim removes the unconfirmed tails of copies after an Open.
func (c *copied) trim(g *fsm.Group) {
	if !core.TrimDue(g, c.promised) {
		return
	}
	for _, j := range c.journals {
		if j == nil || j.author == c.n.id || j.author == g.Primary || j.last() <= core.TrimFloor(j.confirmed, j.found) || len(j.list) == 0 {
			continue
		}
		end, ok, err := c.cutRule(g, j.author).TrimEnd(core.TrimFloor(j.confirmed, j.found), j.first(), j.last(), j.headers)
		if err != nil || !ok {
			continue
		}
		c.n.w.stats.Trims++
		c.note("trims", uint64(end), uint64(j.last()), uint64(j.author[0]))
		j.rewind(end, g.Epoch)
		c.moved()
	}
}

// prepare is what the target of a switch-over does first.
func (c *copied) prepare(a fsm.Assignment) {
	g := a.Group
	if !core.PreparesSwitch(g, c.n.id) || c.proposing {
		return
	}
	if c.asked != g.Operation.ID {
		c.asked, c.level = g.Operation.ID, c.known.Committed(g.History)
		c.event() // a receiver is attached
	}
	if c.known.Epoch() != g.OpenEpoch || c.at.History < c.level.History || !c.bringAhead(g) {
		return
	}
	c.proposing = true
	c.n.propose(fsm.Command{AdvanceSwitch: &fsm.AdvanceSwitch{Group: c.group, Operation: g.Operation.ID, From: fsm.StepPrepare, Node: c.n.id}},
		func(fsm.Result, error) { c.proposing = false })
}

// presentable tells whether a backup may show what its store has.
func (c *copied) presentable() bool {
	g := c.state().Group
	return g != nil && c.lacks == "" && g.History.Contains(c.at) && c.at.History <= c.known.Committed(g.History).History
}
