package core

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/internal/mutant"
)

// This file decides when the in-sync set shrinks and grows.
//
// Shrink: the primary may stop waiting for a secondary only after Raft has removed it. Grow: the primary waits for the node
// on every entry, lets it become durable up to everything deposited before it began to wait, proposes, and goes on waiting
// until Raft has decided.

// Member is what the primary knows of one target when it decides.
type Member struct {
	Node        ident.NodeID
	InSet       bool
	Alive       bool
	Ended       bool          // its life is over: its lease was released
	Maintenance bool          // taken in only if nobody else is there, and not counted on
	Fed         bool          // another backup is to feed it: as in maintenance, and it leaves as soon as somebody else is in
	Leaving     bool          // it is being stopped: not counted on, and it leaves when somebody else has its place, see leaver
	LeavingFor  time.Duration // since the primary knows that
	Barred      bool          // not taken in: it was dropped; or automatic actions are paused, and it was no member when that began
	Connected   bool          // its session for the primary's journal is matched
	Level       bool          // it got everything once: bundles go as they are appended
	Lag         ident.History // facts it does not hold yet
	Stalled     time.Duration // for so long disconnected, or without progress on what is outstanding
	Priority    int
	Resting     bool // growth was given up a moment ago
	Progress    bool // it acknowledged something new since it was given up or taken out, or holds everything

	Growing    bool // every commit waits for it
	GrowingFor time.Duration
	CaughtUp   bool // it holds what was deposited before growing began, and its acknowledgements are fresh
	Proposed   bool // its growth may have been applied: the outcome is not known here
}

// GrowLag is the most facts a candidate may lag when the primary begins to wait for it.
const GrowLag = 4096

// SetRule is what the decision depends on besides the members.
type SetRule struct {
	Sync        bool         // delivery
	Wanted      int          // in-sync secondaries
	Protect     bool         // on_no_sync hold or refuse: the last secondary is not given up
	Switching   bool         // a switch-over holds or drains: no growth begins, but that of its target
	Held        bool         // a switch-over holds writes: its target is waited for until the longest pause is over
	Target      ident.NodeID // of a switch-over: only a member takes the role over, so it grows although enough others are in
	Leaving     bool         // the primary is being stopped itself: its members stay, for one of them has to succeed it
	ShrinkAfter time.Duration
}

// SetAction is what a SetDecision asks for.
type SetAction int

// Actions.
const (
	SetNothing SetAction = iota
	SetRemove            // propose to take node out
	SetAdd               // propose to take node in
	SetWait              // begin to wait for node
	SetForget            // stop waiting for node: it was not proposed
)

// SetDecision is the next thing to do about the set: one node, one action.
type SetDecision struct {
	Action SetAction
	Node   ident.NodeID
	Reason string
}

// DecideSet says what to do next about the in-sync set.
func DecideSet(rule SetRule, members []Member) SetDecision {
	if !rule.Sync {
		return SetDecision{}
	}
	healthy, lasting := 0, 0 // members that are well; those among them that will not be stopped soon
	for _, m := range members {
		if m.well(rule) {
			healthy++
			if !m.Maintenance && !m.Fed && !m.Leaving {
				lasting++
			}
		}
	}
	inSet := 0
	for _, m := range members {
		if m.InSet {
			inSet++
		}
	}
	for _, m := range members {
		switch {
		case m.InSet && m.Stalled >= rule.ShrinkAfter && (!rule.Protect || healthy > 0 || inSet > 1):
			return SetDecision{SetRemove, m.Node, "no progress for " + m.Stalled.Round(time.Millisecond).String()}
		case m.InSet && m.Ended && !m.Connected && (!rule.Protect || healthy > 0 || inSet > 1):
			return SetDecision{SetRemove, m.Node, "its process has ended"}
		case m.Proposed && !m.InSet: // never forgotten before Raft has decided
			return SetDecision{SetAdd, m.Node, "proposed before, outcome unknown"}
		}
	}
	for _, m := range members {
		switch {
		case !m.Growing || m.InSet:
		case m.Leaving && m.Node != rule.Target:
			return SetDecision{SetForget, m.Node, "it is being stopped"}
		case m.CaughtUp && m.Connected:
			return SetDecision{SetAdd, m.Node, "caught up"}
		case m.Connected && m.Node == rule.Target && rule.Held: // bounded by the longest pause
			return SetDecision{}
		case !m.Connected || m.GrowingFor >= rule.ShrinkAfter || rule.Switching && m.Node != rule.Target:
			return SetDecision{SetForget, m.Node, "did not catch up in time"}
		default:
			return SetDecision{} // one at a time
		}
	}
	// More than wanted are there when one came back while another was on its way in: each costs every write its disk.
	if lasting > rule.Wanted && !rule.Switching && rule.Target == "" {
		return SetDecision{SetRemove, surplus(rule, members), "more secondaries than wanted"}
	}
	// Whom another backup is to feed is a member only while nobody else is: as one it is fed by the primary.
	if lasting > 0 && !rule.Switching && rule.Target == "" {
		for _, m := range members {
			if m.InSet && m.Fed {
				return SetDecision{SetRemove, m.Node, "another backup feeds it"}
			}
		}
	}
	// A member in maintenance stays until it is stopped, and another one takes its place before. A node in maintenance comes in
	// only where the primary is alone and nobody else is on the way: a shadow for a while is better than none. A node that hangs,
	// rests or waits to be primed is not on the way: under hold and refuse writes would wait for it without limit.
	enough := lasting >= rule.Wanted || rule.Switching
	alone := healthy == 0 && !slices.ContainsFunc(members, func(m Member) bool {
		return !m.InSet && m.Alive && m.Connected && m.Progress && !m.Resting && m.Stalled < rule.ShrinkAfter && !m.Maintenance && !m.Fed && !m.Barred && !m.Leaving
	})
	var candidates []Member
	for _, m := range members {
		if enough && m.Node != rule.Target || m.Barred || m.Leaving || m.Maintenance && !alone || m.Fed && !alone && m.Node != rule.Target {
			continue
		}
		if !m.InSet && m.Alive && m.Connected && m.Level && !m.Resting && m.Progress && m.Lag <= GrowLag {
			candidates = append(candidates, m)
		}
	}
	if len(candidates) == 0 {
		if n := leaver(rule, members, lasting >= rule.Wanted); n != "" {
			return SetDecision{SetRemove, n, "it is being stopped"}
		}
		return SetDecision{}
	}
	slices.SortFunc(candidates, func(a, b Member) int {
		return cmp.Or(cmp.Compare(a.Priority, b.Priority), cmp.Compare(a.Lag, b.Lag), strings.Compare(string(a.Node), string(b.Node)))
	})
	return SetDecision{SetWait, candidates[0].Node, "level with the primary"}
}

// well tells whether the member is in the set and keeps up.
func (m Member) well(rule SetRule) bool {
	return m.InSet && m.Stalled < rule.ShrinkAfter && (!m.Ended || m.Connected)
}

// surplus returns the member that goes when there are too many: the one that would be taken in last.
func surplus(rule SetRule, members []Member) ident.NodeID {
	var worst *Member
	for i := range members {
		m := &members[i]
		if m.well(rule) && !m.Maintenance && !m.Fed && !m.Leaving && (worst == nil || cmp.Or(cmp.Compare(m.Priority, worst.Priority), strings.Compare(string(m.Node), string(worst.Node))) > 0) {
			worst = m
		}
	}
	return worst.Node
}

// Writes says what a primary does with writes for want of an in-sync secondary.
type Writes string

// What a primary does with writes.
const (
	WritesOpen    Writes = "open"    // they are acknowledged under the commit rule
	WritesAlone   Writes = "alone"   // on_no_sync degrade: acknowledged without an in-sync secondary
	WritesHeld    Writes = "held"    // on_no_sync hold: they wait
	WritesRefused Writes = "refused" // on_no_sync refuse
)

// WritesUnder decides what becomes of writes. Under hold and refuse the commit rule alone keeps a lone primary from
// acknowledging; this keeps writes from being sequenced that could not be acknowledged.
func WritesUnder(g *fsm.Group, rule SetRule, members []Member) Writes {
	well := slices.ContainsFunc(members, func(m Member) bool { return m.well(rule) })
	switch {
	case g.Spec.Delivery == fsm.DeliveryAsync || well:
		return WritesOpen
	case g.Spec.OnNoSync == fsm.NoSyncHold:
		return WritesHeld
	case g.Spec.OnNoSync == fsm.NoSyncRefuse:
		return WritesRefused
	case len(g.InSync) > 1: // Raft has not taken the lost one out: writes wait for that
		return WritesOpen
	}
	return WritesAlone
}

// OpenSet chooses whom Open names beside the primary: the nodes that hold its SW, those in maintenance and those being stopped last, members of the
// old set first, not more than wanted. Whom another backup is to feed is named only where nobody else is.
func OpenSet(g *fsm.Group, nodes map[ident.NodeID]*fsm.Node, self ident.NodeID, holds func(ident.NodeID) bool) []ident.NodeID {
	out := []ident.NodeID{self}
	if g.Spec.Delivery == fsm.DeliveryAsync {
		return out
	}
	var able []ident.NodeID
	for id, n := range nodes {
		if id != self && n.Kind == fsm.KindData && (!g.IsDropped(id) || mutant.On(mutant.DroppedJoins)) && (holds(id) || mutant.On(mutant.OpenUnheld)) {
			able = append(able, id)
		}
	}
	rank := func(n ident.NodeID) (r int) {
		if nodes[n].InMaintenance() || nodes[n].IsLeaving() {
			r += 2
		}
		if !g.InSet(n) {
			r++
		}
		return r
	}
	if slices.ContainsFunc(able, func(n ident.NodeID) bool { return g.FeederOf(n) == "" }) {
		able = slices.DeleteFunc(able, func(n ident.NodeID) bool { return g.FeederOf(n) != "" })
	}
	slices.SortFunc(able, func(a, b ident.NodeID) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(nodes[a].Priority, nodes[b].Priority), strings.Compare(string(a), string(b)))
	})
	if len(able) > g.Spec.Secondaries {
		able = able[:g.Spec.Secondaries]
	}
	out = append(out, able...)
	slices.Sort(out)
	return out
}
