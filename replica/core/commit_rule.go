package core

import (
	"slices"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/internal/mutant"
	"github.com/understudy-ha/understudy/journal/entry"
)

// Acked is what one node acknowledged in its present session for the primary's journal. A new session starts from zero.
type Acked struct {
	Durable ident.Sequence // of the primary's journal, on the target's disk
	Held    ident.Position // durable without a hole over all journals the target holds
}

// Covers tells whether the node holds the bundle and everything before it.
func (a Acked) Covers(h entry.Header) bool {
	return a.Durable >= h.Last() && !a.Held.IsZero() && a.Held.Compare(h.After()) >= 0
}

// CommitRule decides what may be acknowledged. It is made anew for every look, from the set in force at that moment.
type CommitRule struct {
	Floor   ident.Position // committed by Open or Handover, whatever was acknowledged
	WaitFor []ident.NodeID // everybody who must hold a bundle, besides this node
	Alone   bool           // protection is asked for and no in-sync secondary is there: nothing above Floor commits
	Acks    func(ident.NodeID) Acked
}

// Allows tells whether the bundle is committed, given what is durable in the primary's own journal. A bundle without facts
// waits for nobody: it moves sequences, not the history.
func (c CommitRule) Allows(h entry.Header, durable ident.Sequence) bool {
	if h.Last() > durable && !mutant.On(mutant.AckBeforeDurable) {
		return false
	}
	if h.Facts == 0 || (h.After().History <= c.Floor.History && h.After().Epoch <= c.Floor.Epoch) {
		return true
	}
	if c.Alone {
		return false
	}
	for _, n := range c.WaitFor {
		if !c.Acks(n).Covers(h) {
			return false
		}
	}
	return true
}

// WaitsFor returns whom a commit waits for: nobody in async delivery; else the set in force and every node that is being
// grown, from before its growth was proposed until Raft has decided.
func WaitsFor(g *fsm.Group, self ident.NodeID, growing []ident.NodeID) []ident.NodeID {
	if g.Spec.Delivery == fsm.DeliveryAsync {
		return nil
	}
	var out []ident.NodeID
	set := g.InSync
	if mutant.On(mutant.StaleSet) {
		set = g.Switches[len(g.Switches)-1].InSync
	}
	for _, n := range set {
		if n != self {
			out = append(out, n)
		}
	}
	for _, n := range growing {
		if n != self && !slices.Contains(out, n) {
			out = append(out, n)
		}
	}
	return out
}

// Protects tells whether the group must not acknowledge without an in-sync secondary.
func Protects(g *fsm.Group) bool {
	return g.Spec.Delivery != fsm.DeliveryAsync && (g.Spec.OnNoSync == fsm.NoSyncHold || g.Spec.OnNoSync == fsm.NoSyncRefuse)
}

// RuleFor makes the commit rule of a primary from the state in force at this moment.
func RuleFor(g *fsm.Group, self ident.NodeID, growing []ident.NodeID, floor ident.Position, acks func(ident.NodeID) Acked) CommitRule {
	rule := CommitRule{
		Floor: floor, WaitFor: WaitsFor(g, self, growing), Acks: acks,
		Alone: Protects(g) && len(WaitsFor(g, self, nil)) == 0,
	}
	if mutant.On(mutant.LocalShrink) {
		rule.WaitFor = slices.DeleteFunc(rule.WaitFor, func(n ident.NodeID) bool { return acks(n) == Acked{} })
	}
	return rule
}
