package core

import (
	"time"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/internal/mutant"
)

// AheadEpoch is the epoch under which the target of a switch-over brings the primary the end of its own journal: the primary's. The next one is
// nobody's before the Handover: who promised it, and saw the switch-over given up, could never write again.
func AheadEpoch(g *fsm.Group) ident.Epoch {
	if mutant.On(mutant.AheadNextEpoch) {
		return g.Epoch + 1
	}
	return g.Epoch
}

// ShipsAhead tells whether a node that began to bring its journal ahead, for a switch-over, goes on: until it has brought what it has, or had its
// time, and no longer than the switch-over is prepared. What it deposits when the role is its own goes out under its own epoch, and is
// acknowledged by those who promised that.
func ShipsAhead(g *fsm.Group, self ident.NodeID, op uint64, brought bool) bool {
	if mutant.On(mutant.AheadGoesOn) {
		return true
	}
	return !brought && g.Phase == fsm.PhaseOpened && PreparesSwitch(g, self) && g.Operation.ID == op
}

// BroughtAhead tells whether the target need not wait any more: the primary has everything up to last on its disk, or had the time that it is given.
func BroughtAhead(durable, last ident.Sequence, tried, patience time.Duration) bool {
	return durable >= last || tried >= patience
}
