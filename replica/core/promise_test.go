package core

import (
	"testing"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
)

// A node promises unasked only an epoch that is opened: while a group is fenced, or its new primary recovers, the lease of the old one may
// still cover it by this node's count.
func TestOwesPromise(t *testing.T) {
	for _, c := range []struct {
		phase    fsm.Phase
		promised ident.Epoch
		owes     bool
	}{
		{fsm.PhaseOpened, 3, true},
		{fsm.PhaseOpened, 4, false},
		{fsm.PhaseOpened, 5, false},
		{fsm.PhaseFenced, 3, false},
		{fsm.PhasePromoted, 3, false},
	} {
		if owes := OwesPromise(&fsm.Group{Phase: c.phase, Epoch: 4}, c.promised); owes != c.owes {
			t.Errorf("%s at epoch 4, promised %d: %v", c.phase, c.promised, owes)
		}
	}
}
