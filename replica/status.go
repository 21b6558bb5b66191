package replica

import (
	"context"
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal"
	"github.com/understudy-ha/understudy/journal/remote"
	"github.com/understudy-ha/understudy/replica/core"
)

// Role is what the replica does at the moment.
type Role string

// Roles.
const (
	RoleNone    Role = "none"    // no session
	RolePrimary Role = "primary" // recovers, or serves when Status.Serving
	RoleBackup  Role = "backup"  // secondary or standby, as the in-sync set says
)

// TargetState says how far a target of the primary is.
type TargetState string

// States of a target.
const (
	TargetNone       TargetState = "none"       // not connected
	TargetConnecting TargetState = "connecting" // dialling or comparing journals
	TargetCatchup    TargetState = "catchup"    // reads from files, or holds a gap
	TargetSync       TargetState = "sync"       // every write waits for it
	TargetAsync      TargetState = "async"      // follows, nobody waits
	TargetFed        TargetState = "fed"        // another backup feeds it: the numbers are what it reported with its lease
)

// Status is a picture of the replica. It is never modified after it was returned.
type Status struct {
	Node         ident.NodeID
	Group        ident.GroupName
	Role         Role
	Epoch        ident.Epoch // of the role session; for a backup the group's, as known here
	Phase        fsm.Phase
	Serving      bool        // primary: opened, reconciled, reads and writes are answered while the lease is valid
	Held         bool        // primary: writes wait for a switch-over
	HeldWrites   int         // writes that wait at this moment
	Writes       core.Writes // primary: what becomes of writes for want of an in-sync secondary
	Promised     ident.Epoch
	Torn         bool // a torn tail was cut and this node not compared with another one since
	NeedsPriming bool
	Priming      string // why it needs that, and what helps
	Reconciled   bool
	Applied      ident.Position // of the store
	Flushed      ident.Position // of the store, on disk
	Committed    ident.Position // known in this life

	// Sequences in the journal of the present primary, as this node holds it.
	Journal           ident.JournalID
	Sequence          ident.Sequence // last
	ConfirmedSequence ident.Sequence
	CommittedSequence ident.Sequence
	AppliedSequence   ident.Sequence

	Journals []JournalStatus
	Targets  []TargetStatus // primary only
	Feeds    []TargetStatus // backup only: the nodes that it feeds
	FedBy    ident.NodeID   // backup only: who ships the present primary's journal to it now, "" when nobody does
	Resync   *Resync        // backup only; nil when there is nothing to do

	LagSeconds float64 // not at a serving primary: since when it is not known to have everything committed, see Behind; -1: never was
	Error      string  // why the last session ended, "" when well
}

// JournalStatus is the state of one journal held.
type JournalStatus struct {
	ID        ident.JournalID
	Local     bool
	State     journal.State
	View      journal.View
	Receivers int
	Space     Space
	Kept      []string // when it is full: who keeps its oldest receiver, and what helps
}

// TargetStatus is what the primary knows of one target. Sequences are those of the primary's journal.
type TargetStatus struct {
	Node       ident.NodeID
	State      TargetState
	FedBy      ident.NodeID // the backup that feeds it, "" when the primary does
	Delivery   fsm.Delivery
	Received   ident.Sequence
	Durable    ident.Sequence
	Confirmed  ident.Sequence
	Applied    ident.Sequence
	Held       ident.Position // end of what it holds without a hole
	AppliedAt  ident.Position
	LagEntries uint64
	LagBytes   int64 // estimated by the entries of the newest bundle
	LagSeconds float64
	Reason     string // why it is not connected or not in sync
	Since      time.Time
}

// ResyncPhase is a step of becoming level.
type ResyncPhase string

// Phases of a resynchronization, in order.
const (
	ResyncBackout ResyncPhase = "backout" // undoing what is not part of the history
	ResyncCatchup ResyncPhase = "catchup" // receiving
	ResyncReplay  ResyncPhase = "replay"  // applying
	ResyncInSync  ResyncPhase = "in_sync"
)

// Resync tells how far a backup is on its way to being level with the primary.
type Resync struct {
	Phase   ResyncPhase
	From    ident.Position
	To      ident.Position
	At      ident.Position
	Percent float64
	Rate    float64 // entries per second
	ETA     time.Duration
	Started time.Time
}

// EventKind names a change that operators, tests and programs want to hear of.
type EventKind string

// Kinds of events.
const (
	EventPrimary       EventKind = "SRPRIMARY" // the six of roles: as in package core
	EventStandby       EventKind = "SRSTANDBY"
	EventSecondary     EventKind = "SRSECONDARY"
	EventShadowLost    EventKind = "SRSHADOWLOST"
	EventShadowGain    EventKind = "SRSHADOWGAIN"
	EventRecovered     EventKind = "SRRECOVERCMPL"
	EventSecondaryLost EventKind = "SECONDARYLOST"        // this primary lost one of several shadows
	EventNoSync        EventKind = "NOSYNC"               // this primary holds or refuses writes: it has no in-sync secondary
	EventSyncBack      EventKind = "SYNCBACK"             // and goes on
	EventPromised      EventKind = "PROMISED"             // an epoch was promised on disk
	EventNotPromised   EventKind = "PROMISE_WAITS"        // an epoch was not promised: the disk has no space for the promise file
	EventRejournaled   EventKind = "REJOURNALED"          // the unconfirmed tail was deposited in the local journal
	EventTrimmed       EventKind = "TRIMMED"              // the tail of a copy was removed
	EventBackedOut     EventKind = "BACKEDOUT"            // entries were undone, see the report
	EventNeedsPriming  EventKind = "NEEDSPRIMING"         // this replica cannot be brought level from the journals
	EventReceiver      EventKind = "RECEIVER"             // a new receiver was attached
	EventReceiversGone EventKind = "RECEIVERSDELETED"     // receivers were deleted by policy
	EventNotRecorded   EventKind = "REPLAYS_NOT_RECORDED" // journal_replays: something was replayed and not recorded for want of room
	EventJournalFull   EventKind = "JOURNAL_FULL"         // a journal takes nothing for want of room
	EventJournalFree   EventKind = "JOURNAL_FREE"         // and has room again
	EventVetoed        EventKind = "DELETION_VETOED"      // a receiver that nobody needs is kept: a program wants it
	EventFeeder        EventKind = "FEEDER_CHANGED"       // this copy is fed by another node than before, see Peer
	EventRecalled      EventKind = "RECALLED"             // receivers are read back from the archive for a node that was away
)

// Event is one change.
type Event struct {
	Kind     EventKind
	Time     time.Time
	Node     ident.NodeID
	Group    ident.GroupName
	Peer     ident.NodeID // the other node concerned, or ""
	Epoch    ident.Epoch
	Position ident.Position
	Journal  ident.JournalID
	First    ident.Sequence
	Last     ident.Sequence
	Shadows  string // events of roles, of a primary: its shadows, "none" when it is alone
	Detail   string
}

// picture is what a role session leaves for Status. Its writer is the session, apart from begin and end; readers take no
// lock.
type picture struct {
	session      atomic.Pointer[sessionPicture]
	applied      atomic.Pointer[appliedAt]
	resync       atomic.Pointer[Resync]
	reconciled   atomic.Bool
	needsPriming atomic.Pointer[string] // why; it outlives sessions, until the store is level; nil: it is not needed
	stranded     atomic.Bool            // needsPriming is because the copy of the primary's journal begins after the store
	held         atomic.Bool
	levelAt      atomic.Int64 // unix nanoseconds: everything that was committed then is in the store, see freshness; 0: never
}

type sessionPicture struct {
	role  Role
	epoch ident.Epoch
	err   string // why the session before ended
}

// appliedAt says where the last bundle taken into the store stands.
type appliedAt struct {
	author   ident.NodeID
	sequence ident.Sequence
	position ident.Position
}

func (p *picture) begin(role Role, e ident.Epoch) {
	err := ""
	if before := p.session.Load(); before != nil {
		err = before.err
	}
	p.session.Store(&sessionPicture{role: role, epoch: e, err: err})
	p.reconciled.Store(false)
	p.held.Store(false)
	p.resync.Store(nil)
}

func (p *picture) end(err error) {
	s := &sessionPicture{role: RoleNone}
	if err != nil {
		s.err = err.Error()
	}
	p.session.Store(s)
	p.held.Store(false)
	p.resync.Store(nil)
}

func (p *picture) apply(author ident.NodeID, last ident.Sequence, at ident.Position) {
	p.applied.Store(&appliedAt{author: author, sequence: last, position: at})
}

func (p *picture) backingOut(from, fork, at ident.Position) {
	s := &Resync{Phase: ResyncBackout, From: from, To: fork, At: at, Started: time.Now()}
	if before := p.resync.Load(); before != nil && before.Phase == ResyncBackout {
		s.Started = before.Started
	}
	if all := from.History - fork.History; all > 0 {
		s.Percent = 100 * float64(from.History-at.History) / float64(all)
	}
	p.resync.Store(s)
}

// Status returns what the replica is and does at this moment. It takes no lock of the write path.
func (r *Replica) Status() Status {
	a, _ := r.assignment()
	s := Status{
		Node: r.o.Node, Group: r.o.Group, Role: RoleNone, Promised: r.gate.epoch(), Torn: r.shelf.torn(),
		NeedsPriming: r.picture.needsPriming.Load() != nil, Reconciled: r.picture.reconciled.Load(), Held: r.picture.held.Load(),
		Applied: r.data.Position(), Flushed: r.data.Flushed(), Resync: r.picture.resync.Load(),
	}
	if why := r.picture.needsPriming.Load(); why != nil {
		s.Priming = *why
	}
	if session := r.picture.session.Load(); session != nil {
		s.Role, s.Epoch, s.Error = session.role, session.epoch, session.err
	}
	for _, j := range r.shelf.all() {
		v, _ := j.View()
		s.Journals = append(s.Journals, JournalStatus{
			ID: j.ID(), Local: j.ID().Node == r.o.Node, State: j.State(), View: v, Receivers: len(j.Receivers()), Space: r.rooms.last(j.ID().Node),
		})
		if last := &s.Journals[len(s.Journals)-1]; last.Space.Full != nil {
			last.Kept = r.Kept(j.ID().Node)
		}
	}
	if a.Group == nil {
		return s
	}
	if s.Role != RolePrimary {
		s.Epoch = a.Group.Epoch
	}
	if p := r.primary.Load(); p == nil || !p.serving.Load() {
		s.LagSeconds = -1
		if behind, ok := r.Behind(); ok {
			s.LagSeconds = behind.Seconds()
		}
	}
	s.Phase = a.Group.Phase
	s.Committed = r.known.committed(a.Group.History)
	author := a.Group.OpenNode
	p := r.primary.Load()
	if p != nil {
		author = r.o.Node
		s.Serving, s.HeldWrites = p.serving.Load(), p.queue.length()
		if s.Writes = core.WritesOpen; p.writes.Load() != nil {
			s.Writes = *p.writes.Load()
		}
	}
	if j, ok := r.shelf.get(author); ok {
		v, _ := j.View()
		s.Journal, s.Sequence = j.ID(), v.Last
		s.ConfirmedSequence, s.CommittedSequence = min(v.Confirmed, v.Last), min(v.Committed, v.Last)
		if at := r.picture.applied.Load(); at != nil && at.author == author && at.position == s.Applied {
			s.AppliedSequence = at.sequence
		} else {
			s.AppliedSequence = sequenceOf(v, s.Applied)
		}
		if s.AppliedSequence >= s.CommittedSequence || (s.Applied == v.After && !v.After.IsZero()) {
			s.AppliedSequence = max(s.AppliedSequence, s.CommittedSequence) // events without facts follow
		}
		if p != nil {
			s.Targets = p.targets.status(a, v)
		} else {
			s.Feeds, s.FedBy = r.feeding.status(author, v), r.source(a.Group, author)
		}
	}
	return s
}

// sequenceOf estimates where in a journal a history position stands: exact unless events without facts lie between the
// beginning of its run and the position.
func sequenceOf(v journal.View, p ident.Position) ident.Sequence {
	for i := len(v.Runs) - 1; i >= 0; i-- {
		run := v.Runs[i]
		if run.Epoch == p.Epoch && run.From <= p.History && p.History <= run.To {
			if p.History == run.To {
				return run.Last
			}
			return min(run.First+ident.Sequence(p.History-run.From), run.Last)
		}
	}
	return 0
}

// status describes the targets. The view is of the primary's journal.
func (t *targets) status(a fsm.Assignment, v journal.View) []TargetStatus {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := make([]TargetStatus, 0, len(t.nodes))
	for _, n := range slices.Sorted(maps.Keys(t.nodes)) {
		s := t.statusLocked(a.Group, t.nodes[n], v)
		if s.State == TargetFed {
			s.reported(a, t.p.r.o.Node, v, t.p.entryBytes.Load())
		}
		out = append(out, s)
	}
	return out
}

// statusLocked describes one target. The caller holds mu.
func (t *targets) statusLocked(g *fsm.Group, tg *target, v journal.View) TargetStatus {
	held, applied := t.roster.Acked(tg.node).Held, t.roster.Applied(tg.node)
	s := TargetStatus{
		Node: tg.node, State: TargetNone, Delivery: fsm.DeliveryAsync, Received: tg.ack.Received, Durable: tg.ack.Durable,
		Confirmed: min(tg.ack.Received, v.Durable), Held: held, AppliedAt: applied, Reason: tg.reason,
	}
	if g.InSet(tg.node) && g.Spec.Delivery != fsm.DeliveryAsync {
		s.Delivery = fsm.DeliverySync
	}
	if s.Applied = min(sequenceOf(v, applied), s.Durable); applied == held && !applied.IsZero() {
		s.Applied = s.Durable
	}
	own := tg.ship[t.p.r.o.Node]
	if own == nil {
		return s
	}
	s.Since = own.state.Since
	if own.state.Reason != "" && !connected(own) {
		s.Reason = own.state.Reason
	}
	switch own.state.Phase {
	case remote.PhaseRefused:
		if fed(own) && g.FeederOf(tg.node) != "" {
			s.State, s.FedBy, s.Reason = TargetFed, g.FeederOf(tg.node), ""
			return s
		}
	case remote.PhaseConnecting, remote.PhaseMatching:
		s.State = TargetConnecting
	case remote.PhaseCatchup:
		s.State = TargetCatchup
	case remote.PhaseLive:
		s.State = TargetAsync
		if held.IsZero() {
			s.State = TargetCatchup // something below is still missing
		} else if s.Delivery == fsm.DeliverySync {
			s.State = TargetSync
		}
	}
	if v.Last > s.Durable {
		s.LagEntries = uint64(v.Last - s.Durable)
		s.LagBytes = min(int64(s.LagEntries)*t.p.entryBytes.Load(), v.Bytes)
		s.LagSeconds = t.roster.Stalled(tg.node, t.now()).Seconds()
	}
	return s
}

// Wait waits until ready accepts the status, which it looks at again and again; it is for operations and tests.
func (r *Replica) Wait(ctx context.Context, ready func(Status) bool) error {
	for !ready(r.Status()) {
		if err := pause(ctx, 5*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}
