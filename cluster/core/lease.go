package core

import (
	"time"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/internal/mutant"
)

// Drift bounds by how much the clock rates of two nodes may differ: one in a thousand.
const Drift = 1000

// Leases does the counting of the lease rule, for both sides. It is fed with applied commands in log order and with readings
// of one clock, CLOCK_BOOTTIME; no timer decides anything here. It is for one goroutine at a time.
//
// The holder counts D*(1-r) from a clock reading taken before the renewal was sent. Everybody counts D*(1+r)+margin from
// its own apply of the same command, or of a Handover after it, which is later. So at any instant a group is held by nobody, or nobody else's cover
// of it has ended.
//
// A renewal that was passed on its way by a later one of its life (fsm.Result.Passed) counts for neither side. All nodes see that
// of the same command, so none counts what another does not. The holder loses nothing: the later one was sent later, and gives it
// longer. Everybody else's cover is the later one's; that a command was applied late is no sign that its sender lives, and does
// not put a failover off.
type Leases struct {
	self   ident.NodeID
	life   ident.Incarnation
	short  time.Duration // what the holder counts
	long   time.Duration // what everybody counts
	lapsed time.Duration // a renewal older than this cannot give a lease any more

	over    bool                              // this life was released or is closing: it holds nothing any more
	pending map[uint64]time.Duration          // own renewals on their way: command id to the clock before it was sent
	until   time.Duration                     // end of the newest committed renewal of this life, whatever it covers
	held    map[ident.GroupName]grant         // what this life holds
	floor   time.Duration                     // groups without an entry in covers are covered until here
	covers  map[ident.GroupName]time.Duration // by this node's count, some lease may cover the group until here
	renewed map[ident.NodeID]time.Duration    // by this node's count, the lease of each node may last until here; for people
	seen    map[ident.GroupName]time.Duration // the last renewal that covered the group was applied then; for people
}

// grant is a lease of this life on one group.
type grant struct {
	epoch ident.Epoch
	until time.Duration
}

// Granted says that this life holds a group at an epoch until a time of its clock.
type Granted struct {
	Group ident.GroupName
	Epoch ident.Epoch
	Until time.Duration
}

// LeaseChange is what an applied command did to the leases, for whoever waits or traces.
type LeaseChange struct {
	Granted []Granted
	Ended   []ident.GroupName // covers that ended before their time
}

// NewLeases returns the count of one life of a node, which begins now: until this node has seen renewals for itself, any
// group may be covered. lease is D, margin what everybody adds.
func NewLeases(self ident.NodeID, life ident.Incarnation, now, lease, margin time.Duration) *Leases {
	l := &Leases{
		self: self, life: life,
		short: lease - lease/Drift, long: lease + lease/Drift + margin, lapsed: lease,
		pending: map[uint64]time.Duration{},
		held:    map[ident.GroupName]grant{},
		covers:  map[ident.GroupName]time.Duration{},
		renewed: map[ident.NodeID]time.Duration{},
		seen:    map[ident.GroupName]time.Duration{},
	}
	l.floor = now + l.long
	if mutant.On(mutant.SkipCoverGrace) {
		l.floor = now
	}
	return l
}

// Begin notes a renewal that is about to be sent under the given command id; now was read before that.
func (l *Leases) Begin(now time.Duration, id uint64) {
	for old, sent := range l.pending { // bounded: what can no longer give a lease is forgotten
		if now-sent > l.lapsed {
			delete(l.pending, old)
		}
	}
	if !l.over {
		l.pending[id] = now
	}
}

// Step is told every applied command, in log order, with its result and the state after it.
func (l *Leases) Step(now time.Duration, cmd fsm.Command, res fsm.Result, st *fsm.State) LeaseChange {
	var c LeaseChange
	if res.Refused == "" {
		for _, g := range res.Ended {
			l.covers[g] = 0
			delete(l.held, g)
		}
		c.Ended = res.Ended
		if r := cmd.Release; r != nil && r.Node == l.self && r.Incarnation == l.life {
			l.Drop()
		}
		switch {
		case cmd.Renew != nil && !res.Passed:
			c.Granted = l.renewal(now, cmd, res, st)
		case cmd.Handover != nil:
			c.Granted = l.handover(now, cmd.Handover, res.Epoch)
		}
	}
	l.reconcile(st)
	return c
}

// renewal counts an applied renewal, for everybody and, if this life sent it, for the holder.
func (l *Leases) renewal(now time.Duration, cmd fsm.Command, res fsm.Result, st *fsm.State) (granted []Granted) {
	for _, g := range res.Covers {
		l.covers[g] = max(l.covers[g], now+l.long)
		l.seen[g] = now
	}
	r := cmd.Renew
	l.renewed[r.Node] = now + l.long
	if r.Node != l.self || r.Incarnation != l.life || l.over {
		return nil
	}
	sent, ok := l.pending[cmd.ID]
	if !ok {
		return nil // too old, or proposed by nobody in this life
	}
	delete(l.pending, cmd.ID)
	if mutant.On(mutant.LeaseFromReply) {
		sent = now
	}
	l.until = max(l.until, sent+l.short)
	for _, g := range res.Covers {
		group := st.Groups[g]
		if group == nil {
			continue
		}
		until := sent + l.short
		if have := l.held[g]; have.epoch == group.Epoch {
			until = max(until, have.until)
		}
		l.held[g] = grant{epoch: group.Epoch, until: until}
		granted = append(granted, Granted{Group: g, Epoch: group.Epoch, Until: until})
	}
	return granted
}

// handover counts an applied Handover as a renewal that covers the group for its new holder, which so needs no other before it serves. The
// holder counts from its newest renewal before it in the log, which was sent earlier than any node applied this.
func (l *Leases) handover(now time.Duration, h *fsm.Handover, e ident.Epoch) (granted []Granted) {
	if !mutant.On(mutant.HandoverUncovered) {
		l.covers[h.Group] = max(l.covers[h.Group], now+l.long)
	}
	l.seen[h.Group] = now
	if h.To != l.self || h.Incarnation != l.life || l.over || l.until <= now {
		return nil
	}
	l.held[h.Group] = grant{epoch: e, until: l.until}
	return []Granted{{Group: h.Group, Epoch: e, Until: l.until}}
}

// Restored is told that the state was replaced by a snapshot: renewals may have been applied that this node never saw.
func (l *Leases) Restored(now time.Duration, st *fsm.State) {
	l.floor = now + l.long
	if mutant.On(mutant.SkipCoverGrace) {
		l.floor = now
	}
	clear(l.covers)
	l.reconcile(st)
}

// reconcile gives up leases on groups that the state no longer shows as this life's. Earlier than the rule asks: there is
// no way back to an epoch that was fenced.
func (l *Leases) reconcile(st *fsm.State) {
	if n := st.Nodes[l.self]; n != nil && n.Incarnation == l.life && n.Released {
		l.Drop()
	}
	for name, have := range l.held {
		g := st.Groups[name]
		if g == nil || g.Epoch != have.epoch || g.Primary != l.self || g.Incarnation != l.life || g.Phase == fsm.PhaseFenced {
			delete(l.held, name)
		}
	}
}

// Drop gives up everything this life holds and will ever hold.
func (l *Leases) Drop() {
	l.over = true
	l.until = 0
	clear(l.pending)
	clear(l.held)
}

// Holds tells whether this life holds g at e now.
func (l *Leases) Holds(now time.Duration, g ident.GroupName, e ident.Epoch) bool {
	have := l.held[g]
	if mutant.On(mutant.LeaseBeforePromote) {
		return e != 0 && now < l.until
	}
	return have.epoch == e && e != 0 && now < have.until
}

// MayHold tells whether, by this node's count, the lease of n may still last.
func (l *Leases) MayHold(now time.Duration, n ident.NodeID) bool { return now < l.renewed[n] }

// Renewed returns when the last renewal of n was applied here; false if none was that may still give a lease.
func (l *Leases) Renewed(now time.Duration, n ident.NodeID) (at time.Duration, ok bool) {
	until, ok := l.renewed[n]
	return until - l.long, ok && now < until
}

// Seen returns when the last renewal that covered g was applied here, 0 if none was. It is for people.
func (l *Leases) Seen(g ident.GroupName) time.Duration { return l.seen[g] }

// Remaining is how long the newest renewal of this life lasts.
func (l *Leases) Remaining(now time.Duration) time.Duration { return max(0, l.until-now) }

// Cover returns for how long some lease may still cover g, by this node's count; 0 when none can any more.
func (l *Leases) Cover(now time.Duration, g ident.GroupName) time.Duration {
	until, ok := l.covers[g]
	if !ok {
		until = l.floor
	}
	if mutant.On(mutant.EarlyPromise) {
		return 0
	}
	return max(0, until-now)
}
