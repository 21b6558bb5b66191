package node

import (
	"testing"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
)

// What a role session sees of a group that was deleted: an epoch that nobody serves, for which this node owes nothing, and still a deletion,
// so that a sequencer that was about to take something refuses it as surely not done. Proves TR-7, I8.
func TestLastSeen(t *testing.T) {
	g := &fsm.Group{Spec: fsm.GroupSpec{Name: "orders"}, Epoch: 3, Phase: fsm.PhaseOpened, Primary: "a", Incarnation: 1}
	l := newLastSeen(g)
	a := fsm.Assignment{Self: "a", Life: 1, Nodes: map[ident.NodeID]*fsm.Node{"a": {ID: "a", Kind: fsm.KindData, Incarnation: 1}}}
	there := a
	there.Group = g
	if got := l.of(there); got != g {
		t.Fatalf("while it is there: %+v", got)
	}
	a.Group = l.of(a)
	if a.IsPrimary() || a.PromiseDue() || a.Group.Epoch != 4 || a.Group.Closing == nil {
		t.Errorf("once it is deleted: %+v", a.Group)
	}
	if g.Epoch != 3 || g.Closing != nil {
		t.Errorf("the group itself was changed: %+v", g)
	}
}
