package replica

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
)

// This file is pure: it decides when the in-sync set shrinks and grows.
//
// Shrink: the primary may stop waiting for a secondary only after Raft has removed it. Grow: the primary waits for the node
// on every entry, lets it become durable up to everything deposited before it began to wait, proposes, and goes on waiting
// until Raft has decided.

// member is what the primary knows of one target when it decides.
type member struct {
	node        ident.NodeID
	inSet       bool
	alive       bool
	maintenance bool
	connected   bool          // its session for the primary's journal is matched
	level       bool          // it got everything once: bundles go as they are appended
	lag         ident.History // facts it does not hold yet
	stalled     time.Duration // for so long disconnected, or without progress on what is outstanding
	priority    int
	resting     bool // growth was given up a moment ago
	progress    bool // it acknowledged something new since it was given up or taken out, or holds everything

	growing    bool // every commit waits for it
	growingFor time.Duration
	caughtUp   bool // it holds what was deposited before growing began, and its acknowledgements are fresh
	proposed   bool // its growth may have been applied: the outcome is not known here
}

// growLag is the most facts a candidate may lag when the primary begins to wait for it.
const growLag = 4096

// setRule is what the decision depends on besides the members.
type setRule struct {
	sync        bool         // delivery
	wanted      int          // in-sync secondaries
	protect     bool         // on_no_sync hold or refuse: the last secondary is not given up
	switching   bool         // a switch-over holds or drains: no growth begins, but that of its target
	target      ident.NodeID // of a switch-over: only a member takes the role over, so it grows although enough others are in
	shrinkAfter time.Duration
}

// Actions of a setDecision.
type setAction int

const (
	setNothing setAction = iota
	setRemove            // propose to take node out
	setAdd               // propose to take node in
	setWait              // begin to wait for node
	setForget            // stop waiting for node: it was not proposed
)

type setDecision struct {
	action setAction
	node   ident.NodeID
	reason string
}

// decideSet says what to do next about the in-sync set.
func decideSet(rule setRule, members []member) setDecision {
	if !rule.sync {
		return setDecision{}
	}
	healthy := 0
	for _, m := range members {
		if m.inSet && m.stalled < rule.shrinkAfter {
			healthy++
		}
	}
	inSet := 0
	for _, m := range members {
		if m.inSet {
			inSet++
		}
	}
	for _, m := range members {
		switch {
		case m.inSet && m.stalled >= rule.shrinkAfter && (!rule.protect || healthy > 0 || inSet > 1):
			return setDecision{setRemove, m.node, "no progress for " + m.stalled.Round(time.Millisecond).String()}
		case m.proposed && !m.inSet: // never forgotten before Raft has decided
			return setDecision{setAdd, m.node, "proposed before, outcome unknown"}
		}
	}
	for _, m := range members {
		switch {
		case !m.growing || m.inSet:
		case m.caughtUp && m.connected:
			return setDecision{setAdd, m.node, "caught up"}
		case m.connected && m.node == rule.target && rule.switching: // bounded by the longest pause
			return setDecision{}
		case !m.connected || m.growingFor >= rule.shrinkAfter || rule.switching:
			return setDecision{setForget, m.node, "did not catch up in time"}
		default:
			return setDecision{} // one at a time
		}
	}
	enough := healthy >= rule.wanted || rule.switching
	var candidates []member
	for _, m := range members {
		if enough && m.node != rule.target {
			continue
		}
		if !m.inSet && m.alive && !m.maintenance && m.connected && m.level && !m.resting && m.progress && m.lag <= growLag {
			candidates = append(candidates, m)
		}
	}
	if len(candidates) == 0 {
		return setDecision{}
	}
	slices.SortFunc(candidates, func(a, b member) int {
		return cmp.Or(cmp.Compare(a.priority, b.priority), cmp.Compare(a.lag, b.lag), strings.Compare(string(a.node), string(b.node)))
	})
	return setDecision{setWait, candidates[0].node, "level with the primary"}
}

// openSet chooses whom Open names beside the primary: the nodes that hold its SW, members of the old set first, not more
// than wanted.
func openSet(g *fsm.Group, nodes map[ident.NodeID]*fsm.Node, self ident.NodeID, holds func(ident.NodeID) bool) []ident.NodeID {
	out := []ident.NodeID{self}
	if g.Spec.Delivery == fsm.DeliveryAsync {
		return out
	}
	var able []ident.NodeID
	for id, n := range nodes {
		if id != self && n.Kind == fsm.KindData && holds(id) {
			able = append(able, id)
		}
	}
	rank := func(n ident.NodeID) int {
		if g.InSet(n) {
			return 0
		}
		return 1
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
