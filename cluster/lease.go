package cluster

import (
	"sync"
	"time"

	"github.com/understudy-ha/understudy/cluster/core"
	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/host"
	"github.com/understudy-ha/understudy/internal/ident"
)

// leases gives core.Leases a clock, a lock, and somebody to tell. It starts nothing.
type leases struct {
	self  ident.NodeID
	clock host.Clock
	trace func(string, ...any)

	mu    sync.Mutex
	count *core.Leases
	cut   map[ident.GroupName]chan struct{} // closed when a cover ends before its time
	given map[ident.GroupName]ident.Epoch   // see yield
	shut  map[ident.GroupName]ident.Epoch   // see withhold
}

func newLeases(self ident.NodeID, life ident.Incarnation, h host.Host, t Timing) *leases {
	return &leases{
		self: self, clock: h.Clock, trace: h.Trace,
		count: core.NewLeases(self, life, h.Clock.Boot(), t.Lease, t.Margin),
		cut:   map[ident.GroupName]chan struct{}{}, given: map[ident.GroupName]ident.Epoch{}, shut: map[ident.GroupName]ident.Epoch{},
	}
}

// begin reads the clock for a renewal that is about to be sent under the given command id.
func (l *leases) begin(id uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.count.Begin(l.clock.Boot(), id)
}

// observe is told every applied command, in log order, with the state after it.
func (l *leases) observe(cmd fsm.Command, res fsm.Result, st *fsm.State) {
	l.mu.Lock()
	defer l.mu.Unlock()
	change := l.count.Step(l.clock.Boot(), cmd, res, st)
	for _, g := range change.Ended {
		if ch := l.cut[g]; ch != nil {
			close(ch)
			delete(l.cut, g)
		}
		l.trace("cover.ended", "node", l.self, "group", g)
	}
	for _, g := range change.Granted {
		l.trace("lease.grant", "node", l.self, "group", g.Group, "epoch", g.Epoch, "until", g.Until)
	}
}

// restored is told that the state was replaced by a snapshot.
func (l *leases) restored(st *fsm.State) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.count.Restored(l.clock.Boot(), st)
}

// drop gives up everything this life holds and will ever hold.
func (l *leases) drop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.count.Drop()
}

// yield makes check fail for g at e, or not any more. To take it back is for who gave that epoch away, not for an older one.
func (l *leases) yield(g ident.GroupName, e ident.Epoch, yes bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case yes:
		l.given[g] = e
	case l.given[g] == e:
		delete(l.given, g)
	}
}

// withhold makes check fail for g at e, or not any more, whatever is yielded.
func (l *leases) withhold(g ident.GroupName, e ident.Epoch, yes bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case yes:
		l.shut[g] = e
	case l.shut[g] == e:
		delete(l.shut, g)
	}
}

// check compares clocks now: nil only if this life holds g at e, and has not given it away.
func (l *leases) check(g ident.GroupName, e ident.Epoch) error {
	l.mu.Lock()
	ok := l.count.Holds(l.clock.Boot(), g, e) && l.given[g] != e && l.shut[g] != e
	l.mu.Unlock()
	l.trace("lease.check", "node", l.self, "group", g, "epoch", e, "ok", ok)
	if !ok {
		return ErrNoLease
	}
	return nil
}

// holds is check without a trace.
func (l *leases) holds(g ident.GroupName, e ident.Epoch) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.count.Holds(l.clock.Boot(), g, e)
}

// mayHold tells whether, by this node's count, the lease of n may still last.
func (l *leases) mayHold(n ident.NodeID) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.count.MayHold(l.clock.Boot(), n)
}

// renewedSince tells whether a lease of n that may still last was renewed after the given time.
func (l *leases) renewedSince(n ident.NodeID, at time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.clock.Boot()
	renewed, ok := l.count.Renewed(now, n)
	return ok && now-renewed < time.Since(at)
}

// remaining is how long the newest renewal of this life lasts.
func (l *leases) remaining() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.count.Remaining(l.clock.Boot())
}

// coverEnded tells whether no lease can cover g any more by this node's count, else for how long one may. The channel is
// closed when a cover ends before its time.
func (l *leases) coverEnded(g ident.GroupName) (bool, time.Duration, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	ch := l.cut[g]
	if ch == nil {
		ch = make(chan struct{})
		l.cut[g] = ch
	}
	rest := l.count.Cover(l.clock.Boot(), g)
	return rest == 0, rest, ch
}

// seen returns when the last renewal that covered g was applied here; 0: never.
func (l *leases) seen(g ident.GroupName) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.count.Seen(g)
}
