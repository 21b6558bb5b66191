package simulation

import (
	"slices"
	"time"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal/entry"
	"github.com/understudy-ha/understudy/replica/core"
)

// source is one journal's way from a primary to another node, or from the target of a switch-over to the primary. It begins a session again and
// again.
type source struct {
	c      *copied
	epoch  ident.Epoch
	p      *primary // nil: the target of a switch-over brings its journal ahead
	target *node
	j      *journal
	number uint64        // of the present session; a message of another one is nobody's
	open   bool          // Start was heard
	idle   bool          // the target holds more, and keeps it
	full   bool          // the target had no room for what came last
	sent   uint64        // last sequence sent
	cuts   int           // of the journal, when the session began
	heard  time.Duration // from the target
	pause  time.Duration
	lines  [2]wire // there and back
	said   ident.Sequence
	durab  ident.Sequence
}

// wire keeps the order of a connection's messages in one direction.
type wire struct {
	last   time.Duration
	broken bool
}

// visit is a session at the target.
type visit struct {
	c      *copied
	src    *source
	caller core.Caller
	j      *journal
	ready  bool // Start was said
	last   ident.Position
	heard  bool // a progress
	said   acknowledgement
	silent time.Duration
}

// acknowledgement is what a target tells of its copy.
type acknowledgement struct {
	durable       ident.Sequence
	held, applied ident.Position
}

// carry sends a message of a session: in order, or, when one got lost, no more at all.
func (s *source) carry(there bool, number uint64, run func()) {
	from, to, l := s.target, s.c.n, &s.lines[1]
	if there {
		from, to, l = to, from, &s.lines[0]
	}
	w := from.w
	if number != s.number || l.broken || there && s.over() {
		return
	}
	if !w.reaches(from, to) || w.loss > 0 && w.chance(w.loss/5) {
		l.broken = true
		w.stats.LostMessages++
		return
	}
	d := w.between(ms/10, ms/2)
	if w.chance(0.05) {
		d = w.between(ms, 4*w.lag)
	}
	l.last = max(l.last+1, w.now+d)
	to.at(l.last-w.now, run)
}

// over tells whether nothing is shipped this way any more.
func (s *source) over() bool {
	if s.p == nil {
		return s.c.ahead.way != s
	}
	return s.p.over
}

// stands tells where the session stands.
func (s *source) stands(st core.Standing) {
	if s.p != nil {
		s.p.roster.Stands(s.target.id, s.j.author, st)
	}
}

// introduces tells the primary's roster of a new session, and whether nobody waits for the target.
func (s *source) introduces() (free bool) {
	if s.p == nil {
		return false
	}
	a := s.c.state()
	g := a.Group
	if !core.Mine(g, s.epoch, a.Self, a.Life) {
		g = nil
	}
	s.p.roster.Began(s.target.id, s.j.author)
	s.stands(core.Standing{Phase: core.ShipConnecting})
	return s.p.roster.Free(s.target.id, s.j.author, g, s.epoch)
}

// begin says Hello, in a new session.
func (s *source) begin() {
	n := s.c.n
	if s.over() {
		return
	}
	n.sessions++
	s.number, s.open, s.idle, s.lines, s.heard = n.sessions, false, false, [2]wire{}, n.w.now
	s.cuts = len(s.j.cuts)
	free := s.introduces()
	caller := core.Caller{From: n.id, Author: s.j.author, Epoch: s.epoch, Life: n.life, Session: s.number}
	number, list := s.number, s.j.list[:len(s.j.list):len(s.j.list)]
	base, baseAt, baseChain := s.j.base, s.j.baseAt, s.j.baseChain
	s.carry(true, number, func() {
		if c := s.target.copyOf(s.c.group); c != nil {
			c.greet(s, caller, free, list, base, baseAt, baseChain)
		}
	})
	var watch func()
	watch = func() {
		if s.number != number || s.over() {
			return
		}
		if n.w.now-s.heard > shipTimeout {
			s.again()
			return
		}
		n.at(heartbeat, watch)
		if s.open {
			s.progress()
		}
	}
	n.at(heartbeat, watch)
}

// again ends the session and begins a new one after a pause.
func (s *source) again() {
	n := s.c.n
	s.number, s.open = 0, false
	n.sessions++
	mark := n.sessions
	s.number = mark
	s.pause = min(max(2*s.pause, 10*ms), 160*ms)
	n.at(s.pause, func() {
		if s.number == mark && !s.over() {
			s.begin()
		}
	})
}

// copyOf returns the node's copy of a group, when it has one and runs.
func (n *node) copyOf(g ident.GroupName) *copied {
	for _, c := range n.copies {
		if c.group == g && n.up {
			return c
		}
	}
	return nil
}

// greet is Hello at the target: admission, comparison, removal, and the answer.
func (c *copied) greet(s *source, who core.Caller, free bool, list []*bundle, base ident.Sequence, baseAt ident.Position, baseChain uint64) {
	w := c.n.w
	refuse := func(over bool) {
		s.carry(false, who.Session, func() {
			if s.number == who.Session {
				s.stands(core.Standing{Phase: core.ShipRefused, Over: over, Failed: true})
				s.again()
			}
		})
	}
	g := c.state().Group
	if g == nil || core.Admissible(g, c.promised, c.n.id, who).Verdict != core.Admitted {
		refuse(false)
		return
	}
	i := int(who.Author[0] - 'a')
	if old := c.visits[i]; old != nil && core.Outdated(old.caller, who) || !c.takePromise(who.Epoch) {
		refuse(false)
		return
	}
	w.oracle.promises(c, who.Epoch)
	if g.IsDropped(c.n.id) { // whatever session was there before is over
		c.visits[i] = nil
		refuse(true)
		return
	}
	j := c.hold(who.Author)
	v := &visit{c: c, src: s, caller: who, j: j, silent: w.now}
	c.visits[i] = v
	relay := s.p == nil                                        // it cannot know what the primary still has
	if len(j.list) == 0 && j.base == 0 && base > 0 && !relay { // an empty copy may begin at any receiver
		j.base, j.baseAt, j.baseChain, j.durable, j.confirmed = base, baseAt, baseChain, base, base
	}
	end := base
	if n := len(list); n > 0 {
		end = list[n-1].Last()
	}
	common, ok := j.common(list, base, baseChain)
	if !ok {
		if !relay && w.oracle.wasDropped(c) { // it was readmitted too late: found out here, and it needs priming
			c.lacks = "what its copy goes on from was deleted while it was dropped"
		}
		refuse(true) // what the copy goes on from was deleted
		return
	}
	shorter := common == end && (relay || who.From != who.Author)
	if j.last() > common && !shorter {
		rule := c.cutRule(g, who.Author)
		rule.Free = core.FreeHere(g, c.n.id, who, free)
		if _, why, err := rule.Removable(common, j.last(), j.headers); why != "" || err != nil {
			c.note("keeps its tail", uint64(common), uint64(j.last()), uint64(who.Author[0]))
			refuse(true)
			return
		}
		w.oracle.cuts(c, j, common, s.j)
		w.stats.Removals++
		c.note("removes", uint64(common), uint64(j.last()), uint64(who.Author[0]))
		j.rewind(common, who.Epoch)
	}
	idle := j.last() > common
	v.begin(common, idle)
}

// common returns the highest sequence up to which the copy and the source's journal are the same.
func (j *journal) common(list []*bundle, base ident.Sequence, baseChain uint64) (ident.Sequence, bool) {
	if j.last() < base {
		return 0, false
	}
	byEnd := func(seq ident.Sequence) (uint64, bool) {
		if seq == base {
			return baseChain, true
		}
		lo, hi := 0, len(list)
		for lo < hi {
			if m := (lo + hi) / 2; list[m].Last() < seq {
				lo = m + 1
			} else {
				hi = m
			}
		}
		if lo < len(list) && list[lo].Last() == seq {
			return list[lo].chain, true
		}
		return 0, false
	}
	for i := len(j.list) - 1; i >= 0; i-- {
		if chain, ok := byEnd(j.list[i].Last()); ok && chain == j.list[i].chain {
			return j.list[i].Last(), true
		}
	}
	if j.base >= base {
		return j.base, true
	}
	return 0, false
}

// begin says Start once everything here is on disk.
func (v *visit) begin(common ident.Sequence, idle bool) {
	if v.c.visits[int(v.caller.Author[0]-'a')] != v {
		return
	}
	if v.j.durable < v.j.last() {
		v.j.flush()
		v.c.n.sync(func() { v.begin(common, idle) })
		return
	}
	v.ready = true
	s, number := v.src, v.caller.Session
	s.carry(false, number, func() {
		if s.number == number {
			s.started(v, common, idle)
		}
	})
	v.acknowledge()
}

// started is Start at the source.
func (s *source) started(v *visit, common ident.Sequence, idle bool) {
	if s.over() { // a session ends with the role
		return
	}
	s.full = false
	s.open, s.idle, s.sent, s.heard, s.pause = true, idle, uint64(common), s.c.n.w.now, 0
	if s.rewound() {
		s.again()
		return
	}
	s.said, s.durab = 0, 0
	s.stands(core.Standing{Phase: core.ShipLive, Over: true})
	s.progressTo(v) // of what both have, before a bundle that may find no room
	s.stream(v)
	s.c.n.wake()
}

// rewound tells whether something that was sent, or matched, was removed from the journal since the session began, also where something else
// came in its place: the marks are of that then.
func (s *source) rewound() bool {
	return slices.ContainsFunc(s.j.cuts[min(s.cuts, len(s.j.cuts)):], func(end ident.Sequence) bool { return end < ident.Sequence(s.sent) })
}

// stream sends what the target lacks.
func (s *source) stream(v *visit) {
	if s.rewound() {
		s.again()
		return
	}
	if s.idle {
		s.progressTo(v)
		return
	}
	if ident.Sequence(s.sent) < s.j.base || ident.Sequence(s.sent) > s.j.last() {
		s.again()
		return
	}
	for i := s.j.index(ident.Sequence(s.sent) + 1); i < len(s.j.list); i++ {
		b := s.j.list[i]
		if s.p == nil && b.Last() > s.j.durable {
			break // who is not the primary ships what is on its disk
		}
		s.sent = uint64(b.Last())
		s.carry(true, s.number, func() { v.take(b) })
	}
	s.progressTo(v)
}

// ship sends what is new, in a session that has begun.
func (s *source) ship() {
	if !s.open {
		return
	}
	if c := s.target.copyOf(s.c.group); c != nil {
		if v := c.visits[int(s.j.author[0]-'a')]; v != nil && v.src == s && v.caller.Session == s.number {
			s.stream(v)
		}
	}
}

// progress tells the target how far the source is, also when nothing moves.
func (s *source) progress() {
	if c := s.target.copyOf(s.c.group); c != nil {
		if v := c.visits[int(s.j.author[0]-'a')]; v != nil && v.src == s && v.caller.Session == s.number {
			s.stream(v)
			s.carry(true, s.number, func() { v.silent = v.c.n.w.now; v.said = acknowledgement{}; v.acknowledge() })
			return
		}
	}
	s.carry(true, s.number, func() {}) // nobody there: the silence will tell
}

func (s *source) progressTo(v *visit) {
	w := s.c.n.w
	durable, committed := min(s.j.durable, ident.Sequence(s.sent)), min(s.j.committed, ident.Sequence(s.sent))
	if s.j.author != s.c.n.id {
		durable = min(s.j.confirmed, ident.Sequence(s.sent))
	}
	if durable == s.durab && committed == s.said {
		return
	}
	if committed < s.said {
		w.fail("S15", "%s: the committed end told of journal %s goes from %s to %s within epoch %s", s.c, s.j.author, s.said, committed, s.epoch)
	}
	s.durab, s.said = durable, committed
	var at ident.Position
	if i := s.j.index(committed+1) - 1; i >= 0 {
		at = s.j.list[i].After()
	} else {
		at = s.j.baseAt
	}
	if s.j.author == s.c.n.id && committed > s.j.durable {
		w.fail("S15", "%s tells %s committed, only %s is on its disk", s.c, committed, s.j.durable)
	}
	s.carry(true, s.number, func() { v.progress(durable, committed, at) })
}

// counts tells whether the session is the one that counts, and may go on.
func (v *visit) counts() bool {
	if v.c.visits[int(v.caller.Author[0]-'a')] != v {
		return false
	}
	if v.c.enters(v.caller.Epoch) {
		return true
	}
	v.c.visits[int(v.caller.Author[0]-'a')] = nil
	s, number := v.src, v.caller.Session
	s.carry(false, number, func() {
		if s.number == number {
			s.stands(core.Standing{Phase: core.ShipRefused, Failed: true})
			s.again()
		}
	})
	return false
}

// take appends a bundle.
func (v *visit) take(b *bundle) {
	if !v.counts() {
		return
	}
	v.silent = v.c.n.w.now
	if b.Facts > 0 && v.j.full(v.c.state().Group.Spec) {
		v.c.visits[int(v.caller.Author[0]-'a')] = nil
		v.c.n.w.stats.FullCopies++
		s, number := v.src, v.caller.Session
		s.carry(false, number, func() {
			if s.number == number {
				s.full = true
				s.stands(core.Standing{Phase: core.ShipRefused, Failed: true})
				s.again()
			}
		})
		return
	}
	if b.First != v.j.last()+1 || b.link(v.j.chain()) != b.chain {
		v.c.visits[int(v.caller.Author[0]-'a')] = nil // a gap: both match anew
		s, number := v.src, v.caller.Session
		s.carry(false, number, func() {
			if s.number == number {
				s.again()
			}
		})
		return
	}
	if v.src.p == nil {
		v.c.n.w.stats.AheadBundles++
	}
	v.j.add(b, v.caller.Epoch)
	v.c.n.wake()
}

// progress hears how far the source is.
func (v *visit) progress(durable, committed ident.Sequence, at ident.Position) {
	if !v.counts() {
		return
	}
	v.silent = v.c.n.w.now
	v.j.confirmed = max(v.j.confirmed, min(durable, v.j.last()))
	v.j.committed = max(v.j.committed, min(committed, v.j.last()))
	v.last, v.heard = at, true
	v.learn(v.c.state().Group)
}

// learn believes the committed end heard last, if it may.
func (v *visit) learn(g *fsm.Group) {
	if v.heard && core.Trusts(g, v.caller, v.last) && v.c.known.Learn(v.caller.Epoch, v.last) {
		v.c.n.wake()
	}
}

// acknowledge tells the source what is new.
func (v *visit) acknowledge() {
	if !v.ready || !v.counts() {
		return
	}
	a := acknowledgement{durable: v.j.durable, applied: v.c.at}
	if v.c.lacks == "" {
		a.held = v.c.grove(v.c.state().Group.History, true).End(v.j.durableAfter())
	}
	if a == v.said {
		return
	}
	v.said = a
	s, number := v.src, v.caller.Session
	s.carry(false, number, func() {
		if s.number != number {
			return
		}
		s.heard = s.c.n.w.now
		if s.p == nil {
			if !s.over() {
				s.c.heardAhead(s, a)
			}
			return
		}
		if s.p.roster.Heard(v.c.n.id, s.j.author, core.Acked{Durable: a.durable, Held: a.held}, a.applied) {
			s.p.commit()
			s.p.c.n.wake()
		}
	})
}

// headerOf seals a header.
func headerOf(first ident.Sequence, facts uint32, before ident.Position, fact, session ident.Epoch) entry.Header {
	return entry.Header{
		First: first, Count: facts, Facts: facts, Session: session, Before: before,
		Fact: ident.Position{Epoch: fact, History: before.History + 1},
	}
}
