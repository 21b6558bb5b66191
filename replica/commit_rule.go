package replica

import (
	"slices"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal/entry"
)

// acked is what one node acknowledged in its present session for the primary's journal. A new session starts from zero.
type acked struct {
	durable ident.Sequence // of the primary's journal, on the target's disk
	held    ident.Position // durable without a hole over all journals the target holds
}

// covers tells whether the node holds the bundle and everything before it.
func (a acked) covers(h entry.Header) bool {
	return a.durable >= h.Last() && !a.held.IsZero() && a.held.Compare(h.After()) >= 0
}

// commitRule decides what may be acknowledged. It is made anew for every look, from the set in force at that moment.
type commitRule struct {
	floor   ident.Position // committed by Open or Handover, whatever was acknowledged
	waitFor []ident.NodeID // everybody who must hold a bundle, besides this node
	alone   bool           // protection is asked for and no in-sync secondary is there: nothing above floor commits
	acks    func(ident.NodeID) acked
}

// allows tells whether the bundle is committed, given what is durable in the primary's own journal. A bundle without facts
// waits for nobody: it moves sequences, not the history.
func (c commitRule) allows(h entry.Header, durable ident.Sequence) bool {
	if h.Last() > durable {
		return false
	}
	if h.Facts == 0 || (h.After().History <= c.floor.History && h.After().Epoch <= c.floor.Epoch) {
		return true
	}
	if c.alone {
		return false
	}
	for _, n := range c.waitFor {
		if !c.acks(n).covers(h) {
			return false
		}
	}
	return true
}

// waitsFor returns whom a commit waits for: nobody in async delivery; else the set in force and every node that is being
// grown, from before its growth was proposed until Raft has decided.
func waitsFor(g *fsm.Group, self ident.NodeID, growing []ident.NodeID) []ident.NodeID {
	if g.Spec.Delivery == fsm.DeliveryAsync {
		return nil
	}
	var out []ident.NodeID
	for _, n := range g.InSync {
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

// protects tells whether the group must not acknowledge without an in-sync secondary.
func protects(g *fsm.Group) bool {
	return g.Spec.Delivery != fsm.DeliveryAsync && (g.Spec.OnNoSync == fsm.NoSyncHold || g.Spec.OnNoSync == fsm.NoSyncRefuse)
}
