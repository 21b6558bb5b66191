package core

import (
	"maps"
	"slices"
	"time"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/internal/mutant"
)

// A node is left alone for GrowRest after its growth was given up, twice as long each time, GrowRestMost at last.
const (
	GrowRest     = time.Second
	GrowRestMost = time.Minute
)

// Roster is what one primary session knows of the other data nodes: their sessions, one for each journal, what they
// acknowledged in them, and which of them every commit waits for. Times are readings of any one clock that goes forward.
//
// An acknowledgement counts towards a set only when nothing that it rests on can still be removed at the target. A Hello
// that says Free allows removals there. So before a node is grown Free is false for it, every copy's session has been
// settled since (which supersedes older sessions at the target), and the session of the primary's own journal, the only one
// that acknowledges for the set, has begun after that.
type Roster struct {
	self  ident.NodeID
	nodes map[ident.NodeID]*target
	clock uint64 // orders events of sessions

	deliveries uint64 // changes of the delivery seen: growing counts under the present one only
}

// target is one other data node.
type target struct {
	ship map[ident.NodeID]*shipment // by author of the journal

	acked   Acked // in the present session for the primary's own journal
	applied ident.Position

	growing  bool
	since    time.Duration     // growing began
	mark     ident.Position    // what the node has to hold before it is proposed
	proposed uint64            // set version at which its growth was proposed without a known outcome, +1; 0: it was not
	rest     time.Duration     // no growth before
	failures int               // growths given up since it was in the set last
	failed   ident.Sequence    // what it had acknowledged when it was given up or taken out last
	stalled  bool              // there is no progress
	stall    time.Duration     // since when
	progress Acked             // at the last look
	leaving  bool              // it is being stopped
	left     time.Duration     // since when, as far as this side knows
	looked   bool              // there was a look at it
	life     ident.Incarnation // at the last look
	returned bool              // another life began since the progress ended
	back     time.Duration     // when that was seen
	renewing bool              // this side began the own journal's session anew: not a disconnection
}

// shipment is one journal's way to one target.
type shipment struct {
	phase   ShipPhase
	started uint64 // when the present session began
	settled uint64 // when no removal allowed by Free could be under way any more; 0: one may be
}

// ShipPhase is where a session stands.
type ShipPhase int

// Phases of a session.
const (
	ShipConnecting ShipPhase = iota
	ShipCatchup              // admitted and matched, reads files
	ShipLive                 // admitted and matched, bundles go as they are appended
	ShipRefused
)

// Standing is a session's phase, as its source tells it.
type Standing struct {
	Phase ShipPhase
	// Over: the target has answered this session's Hello in a way that shows it admitted. Then older sessions are over at the
	// target, and this one removes nothing any more.
	Over   bool
	Failed bool // there is a reason why it does not go on
}

// Renewal asks for a session to be begun anew.
type Renewal struct{ Node, Author ident.NodeID }

// NewRoster returns the roster of a session of self as primary.
func NewRoster(self ident.NodeID) *Roster {
	return &Roster{self: self, nodes: make(map[ident.NodeID]*target)}
}

// Add adds the way of author's journal to a node. It tells whether it is new.
func (r *Roster) Add(node, author ident.NodeID) bool {
	t := r.nodes[node]
	if t == nil {
		t = &target{ship: make(map[ident.NodeID]*shipment)}
		r.nodes[node] = t
	}
	if t.ship[author] != nil {
		return false
	}
	t.ship[author] = &shipment{}
	return true
}

// Free tells a new session whether nobody waits for the target. mine is the state read now by the session that serves
// epoch e: nil when the group is not its any more.
func (r *Roster) Free(node, author ident.NodeID, mine *fsm.Group, e ident.Epoch) bool {
	t := r.nodes[node]
	opened := mine != nil && mine.Phase == fsm.PhaseOpened && mine.OpenEpoch == e
	free := opened && !mine.InSet(node) && (!t.growing || mutant.On(mutant.FreeWhileGrowing))
	if free && !mutant.On(mutant.FreeWhileGrowing) {
		t.ship[author].settled = 0
	}
	return free
}

// Began forgets what the target acknowledged: a new session starts from nothing.
func (r *Roster) Began(node, author ident.NodeID) {
	t := r.nodes[node]
	r.clock++
	t.ship[author].started = r.clock
	if author == r.self {
		t.acked, t.applied = Acked{}, ident.Position{}
	}
}

// Heard takes an acknowledgement. It tells whether anything changed.
func (r *Roster) Heard(node, author ident.NodeID, a Acked, applied ident.Position) bool {
	if author != r.self {
		return false
	}
	t := r.nodes[node]
	changed := t.acked != a || t.applied != applied
	t.acked, t.applied = a, applied
	return changed
}

// Stands hears of a session's phase.
func (r *Roster) Stands(node, author ident.NodeID, st Standing) {
	t := r.nodes[node]
	s := t.ship[author]
	s.phase = st.Phase
	if author == r.self && (connected(s) || st.Failed) {
		t.renewing = false
	}
	if s.settled == 0 && st.Over {
		r.clock++
		s.settled = r.clock
	}
}

func connected(s *shipment) bool { return s != nil && (s.phase == ShipCatchup || s.phase == ShipLive) }

// Acked returns what a node acknowledged.
func (r *Roster) Acked(n ident.NodeID) Acked {
	if t := r.nodes[n]; t != nil {
		return t.acked
	}
	return Acked{}
}

// Applied returns how far a node's store is, as it said.
func (r *Roster) Applied(n ident.NodeID) ident.Position {
	if t := r.nodes[n]; t != nil {
		return t.applied
	}
	return ident.Position{}
}

// IsGrowing tells whether every commit waits for the node although the set may not have it yet.
func (r *Roster) IsGrowing(n ident.NodeID) bool { return r.nodes[n] != nil && r.nodes[n].growing }

// Growing returns the nodes that every commit waits for although the set may not have them yet.
func (r *Roster) Growing() []ident.NodeID {
	var out []ident.NodeID
	if mutant.On(mutant.GrowWithoutWaiting) {
		return nil
	}
	for n, t := range r.nodes {
		if t.growing {
			out = append(out, n)
		}
	}
	slices.Sort(out)
	return out
}

// Wait begins to wait for a node on every entry; began is false when it is waited for already, or not known. The caller then
// begins the returned sessions anew, since they may have a removal under way, reads the end of its journal, and says so by
// Mark: what is deposited later waits for the node anyway.
func (r *Roster) Wait(n ident.NodeID, now time.Duration) (anew []Renewal, began bool) {
	t := r.nodes[n]
	if t == nil || t.growing {
		return nil, false
	}
	t.growing, t.since, t.proposed, t.mark = true, now, 0, ident.Position{}
	for _, author := range slices.Sorted(maps.Keys(t.ship)) {
		if author != r.self && t.ship[author].settled == 0 {
			anew = append(anew, Renewal{n, author})
		}
	}
	return anew, true
}

// Mark sets what a growing node has to hold before it is proposed.
func (r *Roster) Mark(n ident.NodeID, end ident.Position) {
	if t := r.nodes[n]; t != nil {
		t.mark = end
	}
}

// fresh tells whether the node's acknowledgements rest on nothing that can still be removed there; else it may return the
// session to begin anew that makes them so.
func (r *Roster) fresh(n ident.NodeID, t *target) (ok bool, anew []Renewal) {
	own := t.ship[r.self]
	if own == nil || own.started == 0 {
		return false, nil
	}
	ok = true
	for _, s := range t.ship {
		if s == own {
			continue
		}
		if s.settled == 0 {
			return false, nil
		}
		ok = ok && s.settled < own.started
	}
	if !ok && connected(own) {
		own.phase = ShipConnecting // not again before the new session says something
		t.renewing = true
		return false, []Renewal{{n, r.self}}
	}
	return ok, nil
}

// Forget stops waiting for a node that was not proposed, and leaves it alone for a while.
func (r *Roster) Forget(n ident.NodeID, now, rest time.Duration) {
	if t := r.nodes[n]; t != nil {
		t.growing, t.proposed, t.rest = false, 0, now+rest
	}
}

// GiveUp stops waiting for a node that could not keep up. Each time in a row it is left alone for longer, and in any case
// until it has shown progress: a node that hangs is connected and looks well while nobody waits for it.
func (r *Roster) GiveUp(n ident.NodeID, now time.Duration) {
	rest := GrowRest
	if t := r.nodes[n]; t != nil {
		rest = min(GrowRest<<min(t.failures, 16), GrowRestMost)
		t.failures++
		t.failed = t.acked.Durable
	}
	r.Forget(n, now, rest)
}

// Lost notes that a node was taken out of the set: it has to show progress before it is waited for again.
func (r *Roster) Lost(n ident.NodeID) {
	if t := r.nodes[n]; t != nil {
		t.failed = t.acked.Durable
	}
}

// Propose marks the growth of a node as proposed at a set version: it is waited for until Raft has decided.
func (r *Roster) Propose(n ident.NodeID, version uint64) {
	if t := r.nodes[n]; t != nil {
		t.proposed = version + 1
		if mutant.On(mutant.ForgetProposedGrowth) {
			t.growing = false
		}
	}
}

// Settle ends the waiting for nodes that are in the set now, and the doubt about proposals that can no longer be applied.
func (r *Roster) Settle(g *fsm.Group) {
	changed := r.deliveries != g.Deliveries && !mutant.On(mutant.GrowAcrossDelivery)
	r.deliveries = g.Deliveries
	for n, t := range r.nodes {
		if !t.growing {
			continue
		}
		switch {
		case !g.InSet(n) && (changed || g.IsDropped(n)):
			// Under async delivery commits did not wait for it, so that what it has to hold is not known any more. What was
			// proposed is refused: the version of the set moved.
			t.growing, t.proposed = false, 0
		case g.InSet(n):
			t.growing, t.proposed, t.failures = false, 0, 0
		case t.proposed > 0 && g.SetVersion >= t.proposed: // a later version without it: it was refused
			t.proposed = 0
		}
	}
}

// Outlook is what the primary knows, besides its roster, when it looks at the members.
type Outlook struct {
	Assignment  fsm.Assignment
	Alive       func(ident.NodeID) bool
	Last        ident.Position   // the end of the history here
	Reached     ident.Position   // what a store has to have before its node grows
	Outstanding func(Acked) bool // whether a node still owes the acknowledgement of something
}

// Members returns what DecideSet needs, and sessions to begin anew.
func (r *Roster) Members(now time.Duration, o Outlook) (out []Member, anew []Renewal) {
	g := o.Assignment.Group
	for _, n := range slices.Sorted(maps.Keys(r.nodes)) {
		t, node := r.nodes[n], o.Assignment.Nodes[n]
		if node == nil {
			continue
		}
		own := t.ship[r.self]
		m := Member{
			Node: n, InSet: g.InSet(n), Alive: o.Alive(n), Ended: node.Released, Maintenance: node.InMaintenance(), Fed: g.FeederOf(n) != "", Leaving: node.IsLeaving(),
			Barred: !o.Assignment.Pause.MayJoin(g, n) || g.IsDropped(n) && !mutant.On(mutant.DroppedJoins), Connected: connected(own) || t.renewing,
			Level: own != nil && own.phase == ShipLive, Priority: node.Priority, Resting: now < t.rest,
			Growing: t.growing, Proposed: t.proposed > 0, Lag: o.Last.History,
		}
		if m.Leaving && !t.leaving {
			t.left = now
		}
		if t.leaving = m.Leaving; t.leaving {
			m.LeavingFor = now - t.left
		}
		if !t.acked.Held.IsZero() && t.acked.Held.Epoch == o.Last.Epoch {
			m.Lag = o.Last.History - min(o.Last.History, t.acked.Held.History)
		}
		m.Progress = t.acked.Durable > t.failed || m.Lag == 0
		if g.IsDropped(n) || m.Connected && (!o.Outstanding(t.acked) || t.acked != t.progress) {
			t.stalled = false // nobody waits for one that was dropped: readmitted, it has as long to connect as anybody
		} else if !t.stalled {
			t.stalled, t.stall = true, now
		}
		t.progress = t.acked
		if t.looked && t.life != node.Incarnation && t.stalled && !t.returned {
			t.returned, t.back = true, now
		}
		t.looked, t.life, t.returned = true, node.Incarnation, t.returned && t.stalled
		if t.stalled {
			m.Stalled = now - t.stall
		}
		if t.growing {
			m.GrowingFor = now - t.since
			fresh, again := r.fresh(n, t)
			anew = append(anew, again...)
			m.CaughtUp = fresh && !t.mark.IsZero() && t.acked.Held.Compare(t.mark) >= 0 &&
				g.History.Contains(t.applied) && t.applied.Compare(o.Reached) >= 0
		}
		out = append(out, m)
	}
	return out, anew
}

// Stalled returns for how long a node has owed something.
func (r *Roster) Stalled(n ident.NodeID, now time.Duration) time.Duration {
	if t := r.nodes[n]; t != nil && t.stalled {
		return now - t.stall
	}
	return 0
}

// Absent returns for how long a node is away, for one whose next life has begun since, only from when that was seen: it has said nothing yet of what
// it has, so that everything is kept for it, and it could not connect. That is granted once: one that dies again and again is away.
func (r *Roster) Absent(n ident.NodeID, now time.Duration) time.Duration {
	d := r.Stalled(n, now)
	if t := r.nodes[n]; d > 0 && t.returned {
		d = min(d, now-t.back)
	}
	return d
}

// Holds tells whether a node holds everything up to a bundle, by an acknowledgement of its present session.
func (r *Roster) Holds(n ident.NodeID, b Acked) bool {
	t := r.nodes[n]
	return t != nil && t.acked.Durable >= b.Durable && !t.acked.Held.IsZero() && t.acked.Held.Compare(b.Held) >= 0
}

// HoldsFresh is Holds for a node that the set does not have yet: the acknowledgement must also be one that counts for it.
func (r *Roster) HoldsFresh(n ident.NodeID, b Acked) (ok bool, anew []Renewal) {
	if !r.Holds(n, b) || !r.nodes[n].growing {
		return false, nil
	}
	return r.fresh(n, r.nodes[n])
}
