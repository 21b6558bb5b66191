package cluster

import (
	"sync"
	"time"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/host"
	"github.com/understudy-ha/understudy/internal/ident"
)

// drift bounds by how much the clock rates of two nodes may differ: one in a thousand.
const drift = 1000

// leases does the counting of the lease rule, for both sides. It is fed with applied commands in log order and with the
// clock; it starts nothing and no timer decides anything here.
//
// The holder counts D*(1-r) from a clock reading taken before the renewal was sent. Everybody counts D*(1+r)+margin from
// its own apply of the same command, which is later. So at any instant a group is held by nobody, or nobody else's cover
// of it has ended.
type leases struct {
	self   ident.NodeID
	life   ident.Incarnation
	clock  host.Clock
	trace  func(string, ...any)
	short  time.Duration // what the holder counts
	long   time.Duration // what everybody counts
	lapsed time.Duration // a renewal older than this cannot give a lease any more

	mu      sync.Mutex
	over    bool                              // this life was released or is closing: it holds nothing any more
	pending map[uint64]time.Duration          // own renewals on their way: command id to the clock before it was sent
	until   time.Duration                     // end of the newest committed renewal of this life, whatever it covers
	held    map[ident.GroupName]grant         // what this life holds
	floor   time.Duration                     // groups without an entry in covers are covered until here
	covers  map[ident.GroupName]time.Duration // by this node's count, some lease may cover the group until here
	cut     map[ident.GroupName]chan struct{} // closed when a cover ends before its time
	renewed map[ident.NodeID]time.Duration    // by this node's count, the lease of each node may last until here; for people
}

// grant is a lease of this life on one group.
type grant struct {
	epoch ident.Epoch
	until time.Duration
}

func newLeases(self ident.NodeID, life ident.Incarnation, h host.Host, t Timing) *leases {
	l := &leases{
		self: self, life: life, clock: h.Clock, trace: h.Trace,
		short: t.Lease - t.Lease/drift, long: t.Lease + t.Lease/drift + t.Margin, lapsed: t.Lease,
		pending: map[uint64]time.Duration{},
		held:    map[ident.GroupName]grant{},
		covers:  map[ident.GroupName]time.Duration{},
		cut:     map[ident.GroupName]chan struct{}{},
		renewed: map[ident.NodeID]time.Duration{},
	}
	l.floor = l.clock.Boot() + l.long
	return l
}

// begin reads the clock for a renewal that is about to be sent under the given command id.
func (l *leases) begin(id uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.clock.Boot()
	for old, sent := range l.pending { // bounded: what can no longer give a lease is forgotten
		if now-sent > l.lapsed {
			delete(l.pending, old)
		}
	}
	if !l.over {
		l.pending[id] = now
	}
}

// observe is told every applied command, in log order, with the state after it.
func (l *leases) observe(cmd fsm.Command, res fsm.Result, st *fsm.State) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if res.Refused == "" {
		for _, g := range res.Ended {
			l.endLocked(g)
		}
		if r := cmd.Release; r != nil && r.Node == l.self && r.Incarnation == l.life {
			l.dropLocked()
		}
		if cmd.Renew != nil {
			l.renewedLocked(cmd, res, st)
		}
	}
	l.reconcileLocked(st)
}

// renewedLocked counts an applied renewal, for everybody and, if this life sent it, for the holder.
func (l *leases) renewedLocked(cmd fsm.Command, res fsm.Result, st *fsm.State) {
	now := l.clock.Boot()
	for _, g := range res.Covers {
		l.covers[g] = max(l.covers[g], now+l.long)
	}
	r := cmd.Renew
	l.renewed[r.Node] = now + l.long
	if r.Node != l.self || r.Incarnation != l.life || l.over {
		return
	}
	sent, ok := l.pending[cmd.ID]
	if !ok {
		return // too old, or proposed by nobody in this life
	}
	delete(l.pending, cmd.ID)
	until := sent + l.short
	l.until = max(l.until, until)
	for _, g := range res.Covers {
		group := st.Groups[g]
		if group == nil {
			continue
		}
		have := l.held[g]
		if have.epoch == group.Epoch {
			until = max(until, have.until)
		}
		l.held[g] = grant{epoch: group.Epoch, until: until}
		l.trace("lease.grant", "node", l.self, "group", g, "epoch", group.Epoch, "until", until)
		until = sent + l.short
	}
}

// restored is told that the state was replaced by a snapshot: renewals may have been applied that this node never saw.
func (l *leases) restored(st *fsm.State) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.floor = l.clock.Boot() + l.long
	clear(l.covers)
	l.reconcileLocked(st)
}

// reconcileLocked gives up leases on groups that the state no longer shows as this life's. Earlier than the rule asks:
// there is no way back to an epoch that was fenced.
func (l *leases) reconcileLocked(st *fsm.State) {
	if n := st.Nodes[l.self]; n != nil && n.Incarnation == l.life && n.Released {
		l.dropLocked()
	}
	for name, have := range l.held {
		g := st.Groups[name]
		if g == nil || g.Epoch != have.epoch || g.Primary != l.self || g.Incarnation != l.life || g.Phase == fsm.PhaseFenced {
			delete(l.held, name)
		}
	}
}

// endLocked ends the cover of g now.
func (l *leases) endLocked(g ident.GroupName) {
	l.covers[g] = 0
	delete(l.held, g)
	if ch := l.cut[g]; ch != nil {
		close(ch)
		delete(l.cut, g)
	}
	l.trace("cover.ended", "node", l.self, "group", g)
}

// drop gives up everything this life holds and will ever hold.
func (l *leases) drop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dropLocked()
}

func (l *leases) dropLocked() {
	l.over = true
	l.until = 0
	clear(l.pending)
	clear(l.held)
}

// check compares clocks now: nil only if this life holds g at e.
func (l *leases) check(g ident.GroupName, e ident.Epoch) error {
	l.mu.Lock()
	have := l.held[g]
	ok := have.epoch == e && e != 0 && l.clock.Boot() < have.until
	l.mu.Unlock()
	l.trace("lease.check", "node", l.self, "group", g, "epoch", e, "ok", ok)
	if !ok {
		return ErrNoLease
	}
	return nil
}

// holds tells whether g is held at e until at least the given time from now.
func (l *leases) holds(g ident.GroupName, e ident.Epoch) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	have := l.held[g]
	return have.epoch == e && l.clock.Boot() < have.until
}

// mayHold tells whether, by this node's count, the lease of n may still last.
func (l *leases) mayHold(n ident.NodeID) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.clock.Boot() < l.renewed[n]
}

// remaining is how long the newest renewal of this life lasts.
func (l *leases) remaining() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return max(0, l.until-l.clock.Boot())
}

// coverEnded tells whether no lease can cover g any more by this node's count, else for how long one may.
func (l *leases) coverEnded(g ident.GroupName) (bool, time.Duration, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	until, ok := l.covers[g]
	if !ok {
		until = l.floor
	}
	ch := l.cut[g]
	if ch == nil {
		ch = make(chan struct{})
		l.cut[g] = ch
	}
	rest := until - l.clock.Boot()
	return rest <= 0, max(0, rest), ch
}
