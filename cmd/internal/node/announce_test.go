package node

import (
	"strings"
	"testing"

	"github.com/understudy-ha/understudy/client"
	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
)

// A new group whose first primary is another node is no alarm: only who takes over from a primary is.
func TestNewGroupIsNoAlarm(t *testing.T) {
	for epoch, severity := range map[ident.Epoch]string{1: client.SeverityInfo, 2: client.SeverityWarning} {
		n := &Node{events: testEvents()}
		n.announce(&fsm.Group{Spec: fsm.GroupSpec{Name: "orders"}, Epoch: epoch, Phase: fsm.PhasePromoted, Primary: "b"})
		all, _ := n.events.since(0)
		if len(all) != 1 || all[0].Kind != "PROMOTED" || all[0].Severity != severity {
			t.Errorf("epoch %s: %+v, want one PROMOTED of severity %s", epoch, all, severity)
		}
	}
}

// Who names a node that may not have a role is told which may.
func TestDataNodesAreNamed(t *testing.T) {
	st := &fsm.State{Nodes: map[ident.NodeID]*fsm.Node{"b": {ID: "b", Kind: fsm.KindData}, "w": {ID: "w", Kind: fsm.KindWitness}, "a": {ID: "a", Kind: fsm.KindData}}}
	if got := dataNodes(st); got != "the data nodes are a, b" || strings.Contains(got, "w") {
		t.Error(got)
	}
}
