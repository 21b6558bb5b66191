package replica

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal"
	"github.com/understudy-ha/understudy/journal/remote"
	"github.com/understudy-ha/understudy/journal/remote/wire"
	"github.com/understudy-ha/understudy/replica/core"
)

// A feeder that could not help a target leaves it alone for feedRest, twice as long each time, feedRestMost at last: each of its
// sessions interrupts the primary's.
const (
	feedRest     = time.Second
	feedRestMost = time.Minute
)

// feeder ships the journals held here to the nodes that the group has this backup feed. It belongs to one backup session, which
// looks after it; what it ships goes through sources of its own, so that neither applying nor acknowledging waits for a target.
type feeder struct {
	r       *Replica
	control Control
	epoch   ident.Epoch // of the shipments that run
	since   time.Time   // when this node had a source itself last
	wg      sync.WaitGroup
}

// feeding is what runs, for the status too.
type feeding struct {
	mu    sync.Mutex
	ships map[feedKey]*feedShip
}

// feedKey names a shipment: a target, and the author of the journal.
type feedKey struct{ target, author ident.NodeID }

// feedShip is one journal's way to one target. What changes of it is guarded by feeding.mu.
type feedShip struct {
	key   feedKey
	stop  context.CancelFunc // ends it
	state remote.SessionState
	ack   wire.Ack
	again context.CancelFunc // ends the present session
	rest  time.Duration      // before the next one; 0: none is due
}

func newFeeder(r *Replica, c Control) *feeder { return &feeder{r: r, control: c} }

// look starts and ends shipments as the state asks. level: this node has had everything from the present primary.
func (f *feeder) look(ctx context.Context, a fsm.Assignment, level bool) {
	r, g := f.r, a.Group
	if f.epoch != g.Epoch {
		f.close()
		f.epoch = g.Epoch
	}
	me := core.Feeder{Promised: r.gate.epoch(), Level: level && r.picture.needsPriming.Load() == nil, Feeds: r.feeding.count() > 0}
	if r.source(g, g.OpenNode) != "" {
		me.Epoch, f.since = g.OpenEpoch, time.Now()
	}
	me.Lately = time.Since(f.since) < r.o.Timing.FeedGrace
	want := make(map[feedKey]*journal.Journal)
	for id, n := range a.Nodes {
		if id == a.Self || n.Kind != fsm.KindData || !core.MayFeed(g, a.Self, id) || !me.Able(g) {
			continue
		}
		for _, j := range r.shelf.all() {
			if author := j.ID().Node; author != id {
				want[feedKey{id, author}] = j
			}
		}
	}
	fs := &r.feeding
	fs.mu.Lock()
	defer fs.mu.Unlock()
	for key, s := range fs.ships {
		if want[key] == nil {
			s.stop()
			delete(fs.ships, key)
		}
	}
	for key, j := range want {
		if fs.ships[key] != nil {
			continue
		}
		if fs.ships == nil {
			fs.ships = make(map[feedKey]*feedShip)
		}
		ship, stop := context.WithCancel(ctx)
		s := &feedShip{key: key, stop: stop, state: remote.SessionState{Phase: remote.PhaseConnecting, Since: time.Now()}}
		fs.ships[key] = s
		e := f.epoch
		f.wg.Go(func() {
			defer stop()
			f.source(ship, s, j, e)
		})
	}
}

// close ends all shipments and joins them.
func (f *feeder) close() {
	fs := &f.r.feeding
	fs.mu.Lock()
	for _, s := range fs.ships {
		s.stop()
	}
	fs.ships = nil
	fs.mu.Unlock()
	f.wg.Wait()
}

// source runs one shipment until ctx ends, or the journal cannot be read any more: the session that owns it finds that out itself.
func (f *feeder) source(ctx context.Context, s *feedShip, j *journal.Journal, e ident.Epoch) {
	r, fs := f.r, &f.r.feeding
	o := remote.SourceOptions{
		Cluster: r.o.Cluster, Self: r.o.Node, Protocol: r.o.Protocol, Target: s.key.target, Life: r.o.Life, Epoch: e,
		Journal: j, Network: r.o.Network, Logger: r.log, Sessions: &r.ships, Heartbeat: r.o.Timing.Heartbeat, Timeout: r.o.Timing.Timeout,
		Addr: func() string { return f.address(s.key.target) },
		OnAck: func(a wire.Ack) {
			fs.mu.Lock()
			s.ack = a
			fs.mu.Unlock()
		},
		OnState: func(st remote.SessionState) { fs.stands(s, st) },
		Relay: &remote.Relay{
			Vouches: func(p ident.Position) bool { return r.vouches(e, p) },
			Level:   func() (ident.Position, time.Time, bool) { return r.saidLevel(e) },
		},
	}
	if a, _ := f.control.Assignment(); a.Group == nil || j.ID().Node != a.Group.OpenNode {
		o.Relay = &remote.Relay{} // no target believes its committed end
	}
	for ctx.Err() == nil {
		session, again := context.WithCancel(ctx)
		fs.mu.Lock()
		s.again = again
		fs.mu.Unlock()
		err := remote.RunSource(session, o)
		again()
		if err != nil {
			r.log.Debug("a shipment to another backup has ended", "peer", s.key.target, "journal", j.ID(), "error", err)
			return
		}
		fs.mu.Lock()
		rest := s.rest
		fs.mu.Unlock()
		_ = pause(ctx, rest) // the loop looks at ctx
	}
}

func (f *feeder) address(n ident.NodeID) string {
	a, _ := f.control.Assignment()
	if node := a.Nodes[n]; node != nil {
		return node.Addresses.Ship
	}
	return ""
}

func (fs *feeding) count() int {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	return len(fs.ships)
}

// stands hears of a session's phase. One that was admitted and came to nothing is not repeated at once.
func (fs *feeding) stands(s *feedShip, st remote.SessionState) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	s.state = st
	switch {
	case st.Phase == remote.PhaseLive:
		s.rest = 0
	case helpless(st):
		s.rest = min(max(2*s.rest, feedRest), feedRestMost)
		s.again()
	}
}

// helpless tells whether a session was let in, which ended the primary's, and could not do what it was let in for.
func helpless(st remote.SessionState) bool {
	switch st.Code {
	case wire.CodeDiverged.String(), wire.CodePriming.String(), wire.CodeCorrupt.String(), wire.CodeFailed.String(), wire.CodeFull.String(),
		wire.CodeMalformed.String(), wire.CodeVersion.String(), wire.CodeSilent.String():
		return st.Phase == remote.PhaseRefused || st.Phase == remote.PhaseConnecting
	}
	return false
}

// status lists what is fed from here. The view is of the copy of author's journal.
func (fs *feeding) status(author ident.NodeID, v journal.View) []TargetStatus {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	var out []TargetStatus
	for _, key := range slices.SortedFunc(maps.Keys(fs.ships), func(a, b feedKey) int { return strings.Compare(string(a.target), string(b.target)) }) {
		s := fs.ships[key]
		if key.author != author {
			continue
		}
		t := TargetStatus{
			Node: key.target, State: TargetConnecting, Delivery: fsm.DeliveryAsync, Since: s.state.Since, Reason: s.state.Reason,
			Received: s.ack.Received, Durable: s.ack.Durable, Confirmed: min(s.ack.Received, v.Confirmed), Held: s.ack.Held, AppliedAt: s.ack.Applied,
		}
		switch s.state.Phase {
		case remote.PhaseCatchup:
			t.State = TargetCatchup
		case remote.PhaseLive:
			t.State = TargetAsync
		case remote.PhaseRefused:
			t.State = TargetNone
		}
		t.Applied = min(sequenceOf(v, t.AppliedAt), t.Durable)
		if v.Last > t.Durable {
			t.LagEntries = uint64(v.Last - t.Durable)
		}
		out = append(out, t)
	}
	return out
}

// vouches tells whether this node knows, by a session of epoch e, that everything up to p is committed.
func (r *Replica) vouches(e ident.Epoch, p ident.Position) bool {
	heard, at := r.known.lastHeard()
	return heard == e && !at.IsZero() && r.known.committed(r.table()).Compare(p) >= 0
}

// saidLevel returns the newest moment of which this node was told, in epoch e, where everything stands that was committed then.
func (r *Replica) saidLevel(e ident.Epoch) (at ident.Position, asOf time.Time, ok bool) {
	a, _ := r.assignment()
	if a.Group == nil {
		return at, asOf, false
	}
	v := r.visitors.from(a.Group.OpenNode)
	if v == nil || v.hello.Epoch != e {
		return at, asOf, false
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.said.end, v.said.asOf, !v.said.asOf.IsZero()
}

// source returns who ships author's journal here now, in the opened epoch, and has said how far it is; "" when nobody does.
func (r *Replica) source(g *fsm.Group, author ident.NodeID) ident.NodeID {
	v := r.visitors.from(author)
	if v == nil || v.hello.Epoch != g.OpenEpoch || g.Phase != fsm.PhaseOpened {
		return ""
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.at.IsZero() {
		return ""
	}
	return v.hello.From
}

// sources remembers who fed this copy, to tell of a change.
type sources struct {
	mu      sync.Mutex
	from    ident.NodeID
	cascade bool // it was not the primary
}

// tell hears that a session has begun to bring something.
func (s *sources) tell(v *visit, g *fsm.Group) {
	if g == nil || v.hello.Journal.Node != g.OpenNode || v.hello.Epoch != g.OpenEpoch {
		return
	}
	s.mu.Lock()
	before, was := s.from, s.cascade
	s.from, s.cascade = v.hello.From, v.hello.From != g.OpenNode
	changed := (s.cascade || was) && before != s.from
	s.mu.Unlock()
	if !changed {
		return
	}
	detail := "fed by " + string(v.hello.From)
	if v.hello.From == g.OpenNode {
		detail += ", the primary,"
	}
	if before != "" {
		detail += " instead of " + string(before)
	}
	v.r.event(Event{Kind: EventFeeder, Epoch: g.OpenEpoch, Journal: v.hello.Journal, Peer: v.hello.From, Detail: strings.TrimSuffix(detail, ",")})
}

// fed tells whether a target turned the primary away since a backup feeds it.
func fed(s *shipment) bool {
	return s != nil && s.state.Phase == remote.PhaseRefused && s.state.Code == wire.CodeFed.String()
}

// hurry begins the sessions with a node anew that was told to wait: it is needed now, whoever fed it. The node has to hear of that
// from Raft, too, so that it may take a few calls.
func (t *targets) hurry(n ident.NodeID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	tg := t.nodes[n]
	if tg == nil {
		return
	}
	for _, s := range tg.ship {
		if fed(s) && s.cancel != nil && time.Since(s.hurried) >= t.p.r.o.Timing.Tick {
			s.hurried = time.Now()
			s.cancel()
		}
	}
}

// reported fills in what a node said with its lease: what its feeder hears of it the primary does not.
func (s *TargetStatus) reported(a fsm.Assignment, author ident.NodeID, v journal.View, entryBytes int64) {
	n, group := a.Nodes[s.Node], a.Group.Spec.Name
	if n == nil {
		return
	}
	s.Durable = min(n.Copies[group][author], v.Last)
	s.Received, s.Confirmed = s.Durable, s.Durable
	s.AppliedAt, s.Held = n.Flushed[group], n.Flushed[group]
	s.Applied = min(sequenceOf(v, s.AppliedAt), s.Durable)
	s.LagEntries = uint64(v.Last - s.Durable)
	s.LagBytes = min(int64(s.LagEntries)*entryBytes, v.Bytes)
	s.LagSeconds = 0
}
