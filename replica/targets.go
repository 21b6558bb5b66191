package replica

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal"
	"github.com/understudy-ha/understudy/journal/remote"
	"github.com/understudy-ha/understudy/journal/remote/wire"
	"github.com/understudy-ha/understudy/replica/core"
)

// targets ships every journal held to every other data node. What the nodes acknowledged, and what that counts for, is
// core.Roster's to say. It belongs to one primary session.
type targets struct {
	p     *primary
	began time.Time // the roster counts from here

	mu      sync.Mutex
	roster  *core.Roster
	nodes   map[ident.NodeID]*target
	changed pulse
	wg      sync.WaitGroup
}

// target is one other data node. Its fields are guarded by targets.mu.
type target struct {
	node   ident.NodeID
	ship   map[ident.NodeID]*shipment // by author of the journal
	ack    wire.Ack                   // of the present session for the primary's own journal
	reason string                     // why it is not in sync
}

// shipment is one journal's way to one target.
type shipment struct {
	author ident.NodeID
	state  remote.SessionState
	cancel context.CancelFunc

	hurried time.Time // when it was begun anew for a node that is needed, see hurry

	recall ident.Sequence // from where the archive has to feed the target; 0: it needs not
	rest   time.Time      // the archive is not asked again before

	start *startOrder // somebody named the receiver with which the target's copy is to begin; nil: nobody does
}

func newTargets(p *primary) *targets {
	return &targets{p: p, began: time.Now(), roster: core.NewRoster(p.r.o.Node), nodes: make(map[ident.NodeID]*target)}
}

// now is the roster's clock.
func (t *targets) now() time.Duration { return time.Since(t.began) }

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
			if author := j.ID().Node; author != id {
				t.start(ctx, id, author)
			}
		}
	}
}

// start starts one shipment if it does not run yet.
func (t *targets) start(ctx context.Context, id, author ident.NodeID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	tg := t.nodes[id]
	if tg == nil {
		tg = &target{node: id, ship: make(map[ident.NodeID]*shipment)}
		t.nodes[id] = tg
	}
	if !t.roster.Add(id, author) {
		return
	}
	s := &shipment{author: author, state: remote.SessionState{Phase: remote.PhaseConnecting, Since: time.Now()}}
	tg.ship[author] = s
	t.wg.Go(func() { t.source(ctx, tg, s) })
}

// source runs one shipment. It begins anew when it is restarted.
func (t *targets) source(ctx context.Context, tg *target, s *shipment) {
	r := t.p.r
	j, _ := r.shelf.get(s.author)
	for ctx.Err() == nil {
		if from := t.takeRecall(s); from != 0 {
			if err := t.feed(ctx, tg, s, from); err != nil && ctx.Err() == nil {
				t.unfed(tg, s, err)
			}
			continue
		}
		session, cancel := context.WithCancel(ctx)
		t.mu.Lock()
		s.cancel = cancel
		t.mu.Unlock()
		err := remote.RunSource(session, t.sourceOptions(tg, s, j, func(o *remote.SourceOptions) {
			o.Begin = func() (ident.Sequence, bool) { return t.beginning(s) }
			o.Began = func(from ident.Sequence) { t.goesOn(s, from) }
		}))
		cancel()
		if err != nil && ctx.Err() == nil {
			t.p.fail(journalFailed(j, err))
			return
		}
	}
}

// sourceOptions are those of a session that ships j to a target.
func (t *targets) sourceOptions(tg *target, s *shipment, j *journal.Journal, change func(*remote.SourceOptions)) remote.SourceOptions {
	r := t.p.r
	o := remote.SourceOptions{
		Cluster: r.o.Cluster, Self: r.o.Node, Protocol: r.o.Protocol, Target: tg.node, Life: r.o.Life, Epoch: t.p.epoch,
		Journal: j, Author: s.author == r.o.Node, Network: r.o.Network, Logger: r.log, Sessions: &r.ships,
		Heartbeat: r.o.Timing.Heartbeat, Timeout: r.o.Timing.Timeout,
		Addr:      func() string { return t.address(tg.node) },
		Free:      func() bool { return t.free(tg, s) },
		Leads:     func() bool { return t.p.control.CheckLease(t.p.epoch) == nil && !t.p.stopped.Load() },
		OnSession: func() { t.opened(tg, s) },
		OnAck:     func(a wire.Ack) { t.heard(tg, s, a) },
		OnState:   func(st remote.SessionState) { t.stands(tg, s, st) },
		Recall:    t.recaller(tg, s, j),
	}
	if change != nil {
		change(&o)
	}
	return o
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
	g := a.Group
	if !t.p.mine(a) {
		g = nil
	}
	free := t.roster.Free(tg.node, s.author, g, t.p.epoch)
	s.unfreeLocked(tg, free)
	return free
}

// opened hears that a session has begun: what the target acknowledged before counts no more.
func (t *targets) opened(tg *target, s *shipment) {
	t.mu.Lock()
	t.roster.Began(tg.node, s.author)
	if s.author == t.p.r.o.Node {
		tg.ack = wire.Ack{}
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
	tg.ack = a
	t.roster.Heard(tg.node, s.author, core.Acked{Durable: a.Durable, Held: a.Held}, a.Applied)
	t.mu.Unlock()
	if changed {
		t.changed.fire()
	}
}

// stands hears of a session's phase.
func (t *targets) stands(tg *target, s *shipment, st remote.SessionState) {
	t.mu.Lock()
	s.state = st
	s.startStandsLocked(tg, st)
	t.roster.Stands(tg.node, s.author, standing(st))
	t.mu.Unlock()
	t.changed.fire()
}

// standing says what a session's state means for the roster.
func standing(st remote.SessionState) core.Standing {
	out := core.Standing{Failed: st.Reason != ""}
	switch st.Phase {
	case remote.PhaseCatchup:
		out.Phase, out.Over = core.ShipCatchup, true
	case remote.PhaseLive:
		out.Phase, out.Over = core.ShipLive, true
	case remote.PhaseRefused:
		out.Phase = core.ShipRefused
		switch st.Code {
		case wire.CodeDiverged.String(), wire.CodePriming.String(), wire.CodeCorrupt.String(), wire.CodeFailed.String(), wire.CodeFull.String():
			out.Over = true // it was admitted before it was turned away
		}
	}
	return out
}

func connected(s *shipment) bool {
	return s != nil && (s.state.Phase == remote.PhaseCatchup || s.state.Phase == remote.PhaseLive)
}

// anewLocked begins sessions anew. The caller holds mu.
func (t *targets) anewLocked(sessions []core.Renewal) {
	for _, x := range sessions {
		if tg := t.nodes[x.Node]; tg != nil && tg.ship[x.Author] != nil && tg.ship[x.Author].cancel != nil {
			tg.ship[x.Author].cancel()
		}
	}
}

// acked returns what a node acknowledged.
func (t *targets) acked(n ident.NodeID) core.Acked {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.roster.Acked(n)
}

// growing returns the nodes that every commit waits for although the set may not have them yet.
func (t *targets) growing() []ident.NodeID {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.roster.Growing()
}

// wait begins to wait for a node on every entry. Its copies' sessions that may have a removal under way begin anew.
func (t *targets) wait(n ident.NodeID) {
	t.mu.Lock()
	anew, began := t.roster.Wait(n, t.now())
	t.anewLocked(anew)
	t.mu.Unlock()
	if !began {
		return
	}
	// Read after growing was set: what is deposited later waits for the node anyway.
	view, _ := t.p.own.View()
	t.mu.Lock()
	t.roster.Mark(n, view.After)
	t.mu.Unlock()
	t.changed.fire()
}

// forget stops waiting for a node that was not proposed, and leaves it alone for a while.
func (t *targets) forget(n ident.NodeID, rest time.Duration) {
	t.mu.Lock()
	t.roster.Forget(n, t.now(), rest)
	t.mu.Unlock()
	t.changed.fire()
}

// giveUp stops waiting for a node that could not keep up.
func (t *targets) giveUp(n ident.NodeID) {
	t.mu.Lock()
	t.roster.GiveUp(n, t.now())
	t.mu.Unlock()
	t.changed.fire()
}

// lost notes that a node was taken out of the set.
func (t *targets) lost(n ident.NodeID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.roster.Lost(n)
}

// propose marks the growth of a node as proposed at a set version.
func (t *targets) propose(n ident.NodeID, version uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.roster.Propose(n, version)
}

// settle takes in what Raft has decided about growths.
func (t *targets) settle(g *fsm.Group) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.roster.Settle(g)
}

// members returns what core.DecideSet needs: last is the end of the history here, reached what a store has to have before its
// node grows. outstanding tells whether a node still owes the acknowledgement of something.
func (t *targets) members(a fsm.Assignment, last, reached ident.Position, outstanding func(core.Acked) bool) []core.Member {
	t.mu.Lock()
	defer t.mu.Unlock()
	out, anew := t.roster.Members(t.now(), core.Outlook{
		Assignment: a, Alive: t.p.control.Alive, Last: last, Reached: reached, Outstanding: outstanding,
	})
	t.anewLocked(anew)
	return out
}

// holds tells whether a node holds everything up to the bundle, by an acknowledgement of its present session. With fresh
// set the acknowledgement must also be one that counts for a set that the node is not in yet.
func (t *targets) holds(n ident.NodeID, b core.Acked, fresh bool) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !fresh {
		return t.roster.Holds(n, b)
	}
	ok, anew := t.roster.HoldsFresh(n, b)
	t.anewLocked(anew)
	return ok
}

// say records for the status why a node is not in sync.
func (t *targets) say(n ident.NodeID, reason string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if tg := t.nodes[n]; tg != nil {
		tg.reason = reason
	}
}
