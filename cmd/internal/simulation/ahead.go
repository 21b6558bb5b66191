package simulation

import (
	"time"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal/entry"
	"github.com/understudy-ha/understudy/replica/core"
)

// aheadPatience is how long the target of a switch-over tries to bring the primary its own journal.
const aheadPatience = 100 * ms

// ahead is what the target of a switch-over brings the primary while that is prepared. It belongs to one life of a copy.
type ahead struct {
	op      uint64 // for which it ships, or has shipped; 0: none
	began   time.Duration
	durable ident.Sequence // up to here the primary has it on disk
	way     *source        // nil: nothing ships
}

// bringAhead tells whether the primary has all of the local journal on its disk, or had time to. It begins to ship when asked first.
func (c *copied) bringAhead(g *fsm.Group) bool {
	s, now := &c.ahead, c.n.boot()
	if s.op != g.Operation.ID {
		c.endAhead()
		s.op, s.began, s.durable = g.Operation.ID, now, 0
		s.way = &source{c: c, epoch: core.AheadEpoch(g), target: c.n.w.byID(g.Primary), j: c.own()}
		c.n.w.stats.Aheads++
		s.way.begin()
	}
	last := c.own().last()
	if !core.BroughtAhead(s.durable, last, now-s.began, aheadPatience) {
		return false
	}
	if s.way != nil {
		if s.durable >= last {
			c.n.w.stats.Brought++
		} else {
			c.n.w.stats.NotBrought++
		}
	}
	if !core.ShipsAhead(g, c.n.id, s.op, true) {
		c.endAhead()
	}
	return true
}

// lookAhead ends what is not asked for any more.
func (c *copied) lookAhead(g *fsm.Group) {
	if c.ahead.way == nil || core.ShipsAhead(g, c.n.id, c.ahead.op, false) {
		return
	}
	c.n.w.stats.AheadsCut++
	c.endAhead()
}

func (c *copied) endAhead() { c.ahead.way = nil }

// heardAhead takes an acknowledgement of what is brought. It counts for no commit: nothing is brought any more when there is something to commit,
// unless the rule for that is broken.
func (c *copied) heardAhead(s *source, a acknowledgement) {
	if c.ahead.durable != a.durable {
		c.ahead.durable = a.durable
		c.n.wake()
	}
	if p := c.primary; p != nil && p.roster.Heard(s.target.id, c.n.id, core.Acked{Durable: a.durable, Held: a.held}, a.applied) {
		p.commit()
	}
}

// event deposits what moves sequences only: a life that begins, a receiver that is attached.
func (c *copied) event() {
	j := c.own()
	b := &bundle{Header: entry.Header{First: j.last() + 1, Count: 1, Session: c.promised, Before: j.after()}}
	b.Durable, b.Committed = j.durable, j.committed // as every bundle says
	b.chain = b.link(j.chain())
	j.add(b, c.promised)
}

// waylay has something go wrong while a switch-over is prepared.
func (w *world) waylay(op *fsm.StartSwitch) {
	g := w.raft.truth.Groups[op.Group]
	target, primary := w.byID(op.To), w.byID(g.Primary)
	d := w.between(20*ms, lease)
	switch w.rng.IntN(9) {
	case 0, 1:
		w.crashAndReturn(target, d, w.chance(0.6))
	case 2, 3:
		w.crashAndReturn(primary, d, w.chance(0.6))
	case 4:
		w.cut(target.i, primary.i, d)
	case 5:
		w.cut(primary.i, target.i, d)
	case 6:
		w.fence()
	case 7:
		w.force()
	case 8:
		if o := g.Operation; o != nil && o.Kind == fsm.OperationSwitchover {
			w.order(fsm.Command{AbortSwitch: &fsm.AbortSwitch{Group: op.Group, Operation: o.ID, Reason: "asked"}})
		}
	}
}
