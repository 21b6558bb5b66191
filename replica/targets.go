package replica

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal/remote"
	"github.com/understudy-ha/understudy/journal/remote/wire"
)

// targets ships every journal held to every other data node, and knows what they acknowledged. It belongs to one primary
// session.
//
// An acknowledgement counts towards a set only when nothing that it rests on can still be removed at the target. A Hello
// that says Free allows removals there. So before a node is grown Free is false for it, every copy's session has been
// settled since (which supersedes older sessions at the target), and the session of the primary's own journal, the only one
// that acknowledges for the set, has begun after that.
type targets struct {
	p *primary

	mu      sync.Mutex
	nodes   map[ident.NodeID]*target
	clock   uint64 // orders events of sessions
	changed pulse
	wg      sync.WaitGroup
}

// target is one other data node. Its fields are guarded by targets.mu.
type target struct {
	node ident.NodeID
	ship map[ident.NodeID]*shipment // by author of the journal

	ack     wire.Ack // of the present session for the primary's own journal
	acked   acked    // the part that counts for the commit rule
	applied ident.Position

	growing   bool
	since     time.Time      // growing began
	mark      ident.Position // what the node has to hold before it is proposed
	proposed  uint64         // set version at which its growth was proposed without a known outcome, +1; 0: it was not
	rest      time.Time      // no growth before
	failures  int            // growths given up since it was in the set last
	failed    ident.Sequence // what it had acknowledged when it was given up or taken out last
	stalledAt time.Time      // since when there is no progress; zero: all is well
	progress  acked          // at the last look
	renewing  bool           // this side began the own journal's session anew: not a disconnection
	reason    string
}

// shipment is one journal's way to one target.
type shipment struct {
	author  ident.NodeID
	state   remote.SessionState
	started uint64 // when the present session began
	settled uint64 // when no removal allowed by Free could be under way any more; 0: one may be
	cancel  context.CancelFunc
}

func newTargets(p *primary) *targets {
	return &targets{p: p, nodes: make(map[ident.NodeID]*target)}
}

// run keeps a source running for every target and journal until ctx ends, then joins them.
func (t *targets) run(ctx context.Context) error {
	defer t.wg.Wait()
	for {
		a, changed := t.p.control.Assignment()
		if a.Group != nil {
			t.cover(ctx, a)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-changed:
		}
	}
}

// cover starts what is missing: a source for each journal held to each other data node, but not the node's own journal.
func (t *targets) cover(ctx context.Context, a fsm.Assignment) {
	for _, id := range slices.Sorted(maps.Keys(a.Nodes)) {
		if id == a.Self || a.Nodes[id].Kind != fsm.KindData {
			continue
		}
		for _, j := range t.p.r.shelf.all() {
			author := j.ID().Node
			if author == id {
				continue
			}
			t.mu.Lock()
			tg := t.nodes[id]
			if tg == nil {
				tg = &target{node: id, ship: make(map[ident.NodeID]*shipment)}
				t.nodes[id] = tg
			}
			s, running := tg.ship[author]
			if !running {
				s = &shipment{author: author, state: remote.SessionState{Phase: remote.PhaseConnecting, Since: time.Now()}}
				tg.ship[author] = s
			}
			t.mu.Unlock()
			if !running {
				t.wg.Go(func() { t.source(ctx, tg, s) })
			}
		}
	}
}

// source runs one shipment. It begins anew when it is restarted.
func (t *targets) source(ctx context.Context, tg *target, s *shipment) {
	r := t.p.r
	j, _ := r.shelf.get(s.author)
	for ctx.Err() == nil {
		session, cancel := context.WithCancel(ctx)
		t.mu.Lock()
		s.cancel = cancel
		t.mu.Unlock()
		err := remote.RunSource(session, remote.SourceOptions{
			Cluster: r.o.Cluster, Self: r.o.Node, Target: tg.node, Life: r.o.Life, Epoch: t.p.epoch,
			Journal: j, Author: s.author == r.o.Node, Network: r.o.Network, Logger: r.log, Sessions: &r.ships,
			Heartbeat: r.o.Timing.Heartbeat, Timeout: r.o.Timing.Timeout,
			Addr:      func() string { return t.address(tg.node) },
			Free:      func() bool { return t.free(tg, s) },
			OnSession: func() { t.began(tg, s) },
			OnAck:     func(a wire.Ack) { t.heard(tg, s, a) },
			OnState:   func(st remote.SessionState) { t.stands(tg, s, st) },
		})
		cancel()
		if err != nil && ctx.Err() == nil {
			t.p.fail(journalFailed(j, err))
			return
		}
	}
}

func (t *targets) address(n ident.NodeID) string {
	a, _ := t.p.control.Assignment()
	if node := a.Nodes[n]; node != nil {
		return node.Addresses.Ship
	}
	return ""
}

// free tells a new session whether nobody waits for the target.
func (t *targets) free(tg *target, s *shipment) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	// Read under mu: growing ends when the state shows the node in the set, and one of the two has to be seen here.
	a, _ := t.p.control.Assignment()
	opened := t.p.mine(a) && a.Group.Phase == fsm.PhaseOpened && a.Group.OpenEpoch == t.p.epoch
	free := opened && !a.Group.InSet(tg.node) && !tg.growing
	if free {
		s.settled = 0
	}
	return free
}

// began forgets what the target acknowledged: a new session starts from nothing.
func (t *targets) began(tg *target, s *shipment) {
	t.mu.Lock()
	t.clock++
	s.started = t.clock
	if s.author == t.p.r.o.Node {
		tg.ack, tg.acked, tg.applied = wire.Ack{}, acked{}, ident.Position{}
	}
	t.mu.Unlock()
	t.changed.fire()
}

func (t *targets) heard(tg *target, s *shipment, a wire.Ack) {
	if s.author != t.p.r.o.Node {
		return
	}
	t.mu.Lock()
	changed := tg.ack != a
	tg.ack, tg.acked, tg.applied = a, acked{durable: a.Durable, held: a.Held}, a.Applied
	t.mu.Unlock()
	if changed {
		t.changed.fire()
	}
}

// stands hears of a session's phase.
func (t *targets) stands(tg *target, s *shipment, st remote.SessionState) {
	t.mu.Lock()
	s.state = st
	if s.author == t.p.r.o.Node && (connected(s) || st.Reason != "") {
		tg.renewing = false
	}
	if s.settled == 0 && over(st) {
		t.clock++
		s.settled = t.clock
	}
	t.mu.Unlock()
	t.changed.fire()
}

// over tells whether the target has answered the present session's Hello in a way that shows it admitted: then older
// sessions are over at the target, and this one removes nothing any more.
func over(st remote.SessionState) bool {
	switch st.Phase {
	case remote.PhaseCatchup, remote.PhaseLive:
		return true
	case remote.PhaseRefused:
		switch st.Code {
		case wire.CodeDiverged.String(), wire.CodePriming.String(), wire.CodeCorrupt.String(), wire.CodeFailed.String():
			return true
		}
	}
	return false
}

func connected(s *shipment) bool {
	return s != nil && (s.state.Phase == remote.PhaseCatchup || s.state.Phase == remote.PhaseLive)
}

// acked returns what a node acknowledged.
func (t *targets) acked(n ident.NodeID) acked {
	t.mu.Lock()
	defer t.mu.Unlock()
	if tg := t.nodes[n]; tg != nil {
		return tg.acked
	}
	return acked{}
}

// growing returns the nodes that every commit waits for although the set may not have them yet.
func (t *targets) growing() []ident.NodeID {
	t.mu.Lock()
	defer t.mu.Unlock()
	var out []ident.NodeID
	for n, tg := range t.nodes {
		if tg.growing {
			out = append(out, n)
		}
	}
	slices.Sort(out)
	return out
}

// wait begins to wait for a node on every entry. Its copies' sessions that may have a removal under way begin anew.
func (t *targets) wait(n ident.NodeID) {
	t.mu.Lock()
	tg := t.nodes[n]
	if tg == nil || tg.growing {
		t.mu.Unlock()
		return
	}
	tg.growing, tg.since, tg.proposed = true, time.Now(), 0
	for _, s := range tg.ship {
		if s.author != t.p.r.o.Node && s.settled == 0 && s.cancel != nil {
			s.cancel()
		}
	}
	t.mu.Unlock()
	// Read after growing was set: what is deposited later waits for the node anyway.
	view, _ := t.p.own.View()
	t.mu.Lock()
	tg.mark = view.After
	t.mu.Unlock()
	t.changed.fire()
}

// fresh tells whether the node's acknowledgements rest on nothing that can still be removed there; it starts the session
// anew that makes them so. The caller holds mu.
func (t *targets) freshLocked(tg *target) bool {
	own := tg.ship[t.p.r.o.Node]
	if own == nil || own.started == 0 {
		return false
	}
	fresh := true
	for _, s := range tg.ship {
		if s == own {
			continue
		}
		if s.settled == 0 {
			return false
		}
		fresh = fresh && s.settled < own.started
	}
	if !fresh && connected(own) && own.cancel != nil {
		own.state.Phase = remote.PhaseConnecting // not again before the new session says something
		tg.renewing = true
		own.cancel()
	}
	return fresh
}

// forget stops waiting for a node that was not proposed, and leaves it alone for a while.
func (t *targets) forget(n ident.NodeID, rest time.Duration) {
	t.mu.Lock()
	if tg := t.nodes[n]; tg != nil {
		tg.growing, tg.proposed, tg.rest = false, 0, time.Now().Add(rest)
	}
	t.mu.Unlock()
	t.changed.fire()
}

// giveUp stops waiting for a node that could not keep up. Each time in a row it is left alone for longer, and in any case
// until it has shown progress: a node that hangs is connected and looks well while nobody waits for it.
func (t *targets) giveUp(n ident.NodeID) {
	t.mu.Lock()
	rest := growRest
	if tg := t.nodes[n]; tg != nil {
		rest = min(growRest<<min(tg.failures, 16), growRestMost)
		tg.failures++
		tg.failed = tg.acked.durable
	}
	t.mu.Unlock()
	t.forget(n, rest)
}

// lost notes that a node was taken out of the set: it has to show progress before it is waited for again.
func (t *targets) lost(n ident.NodeID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if tg := t.nodes[n]; tg != nil {
		tg.failed = tg.acked.durable
	}
}

// propose marks the growth of a node as proposed at a set version: it is waited for until Raft has decided.
func (t *targets) propose(n ident.NodeID, version uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if tg := t.nodes[n]; tg != nil {
		tg.proposed = version + 1
	}
}

// settle ends the waiting for nodes that are in the set now, and the doubt about proposals that can no longer be applied.
func (t *targets) settle(g *fsm.Group) (gained []ident.NodeID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for n, tg := range t.nodes {
		if !tg.growing {
			continue
		}
		switch {
		case g.InSet(n):
			tg.growing, tg.proposed, tg.failures = false, 0, 0
			gained = append(gained, n)
		case tg.proposed > 0 && g.SetVersion >= tg.proposed: // a later version without it: it was refused
			tg.proposed = 0
		}
	}
	return gained
}

// members returns what decideSet needs: last is the end of the history here, reached what a store has to have before its node
// grows. outstanding tells whether a node still owes the acknowledgement of something.
func (t *targets) members(a fsm.Assignment, last, reached ident.Position, outstanding func(acked) bool) []member {
	now := time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	var out []member
	for _, n := range slices.Sorted(maps.Keys(t.nodes)) {
		tg, node := t.nodes[n], a.Nodes[n]
		if node == nil {
			continue
		}
		own := tg.ship[t.p.r.o.Node]
		m := member{
			node: n, inSet: a.Group.InSet(n), alive: t.p.control.Alive(n), maintenance: node.Maintenance, connected: connected(own) || tg.renewing,
			level: own != nil && own.state.Phase == remote.PhaseLive, priority: node.Priority, resting: now.Before(tg.rest),
			growing: tg.growing, proposed: tg.proposed > 0, lag: last.History,
		}
		if !tg.acked.held.IsZero() && tg.acked.held.Epoch == last.Epoch {
			m.lag = last.History - min(last.History, tg.acked.held.History)
		}
		m.progress = tg.acked.durable > tg.failed || m.lag == 0
		if m.connected && (!outstanding(tg.acked) || tg.acked != tg.progress) {
			tg.stalledAt = time.Time{}
		} else if tg.stalledAt.IsZero() {
			tg.stalledAt = now
		}
		tg.progress = tg.acked
		if !tg.stalledAt.IsZero() {
			m.stalled = now.Sub(tg.stalledAt)
		}
		if tg.growing {
			m.growingFor = now.Sub(tg.since)
			m.caughtUp = t.freshLocked(tg) && !tg.mark.IsZero() && tg.acked.held.Compare(tg.mark) >= 0 &&
				a.Group.History.Contains(tg.applied) && tg.applied.Compare(reached) >= 0
		}
		out = append(out, m)
	}
	return out
}

// holds tells whether a node holds everything up to the bundle, by an acknowledgement of its present session. With fresh
// set the acknowledgement must also be one that counts for a set that the node is not in yet.
func (t *targets) holds(n ident.NodeID, b acked, fresh bool) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	tg := t.nodes[n]
	if tg == nil || tg.acked.durable < b.durable || tg.acked.held.IsZero() || tg.acked.held.Compare(b.held) < 0 {
		return false
	}
	return !fresh || (tg.growing && t.freshLocked(tg))
}

// say records for the status why a node is not in sync.
func (t *targets) say(n ident.NodeID, reason string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if tg := t.nodes[n]; tg != nil {
		tg.reason = reason
	}
}
