package node

import (
	"testing"

	"github.com/understudy-ha/understudy/client"
	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/replica"
)

// A node whose shipping connection broke is suspect before gossip gives it up; one that refuses, or was never connected, is not.
func TestBrokenConnectionsMakeSuspects(t *testing.T) {
	why := suspicions([]client.GroupStatus{{Name: "default", Primary: "a", Targets: []client.Target{
		{Node: "b", State: "connecting", Error: "connection refused"},
		{Node: "c", State: "none", Error: "this copy needs priming"},
		{Node: "d", State: "connecting"},
		{Node: "e", State: "sync"},
		{Node: "f", State: "connecting", Error: "connection refused"},
		{Node: "g", State: "connecting", Error: "connection refused"},
	}}})
	nodes := []client.NodeStatus{{ID: "a", State: "alive", Lease: "released"}, {ID: "b", State: "alive", Lease: "held"}, {ID: "c", State: "alive"}, {ID: "d", State: "alive"},
		{ID: "e", State: "alive", Lease: "held"}, {ID: "f", State: "dead"}, {ID: "g", State: "alive", Lease: "released"}}
	doubted(nodes, "a", why)
	for i, want := range []string{"alive", "suspect", "alive", "alive", "alive", "dead", "left"} {
		if x := nodes[i]; x.State != want || (x.Suspicion != "") != (want == "suspect") {
			t.Errorf("node %s is %s (%s), want %s", x.ID, x.State, x.Suspicion, want)
		}
	}
}

// A member of the set that hears nothing from its primary any more says so, but not while roles change.
func TestABackupMissesItsPrimary(t *testing.T) {
	status := func(change func(*replica.Status)) replica.Status {
		s := replica.Status{Role: replica.RoleBackup, Epoch: 4, Reconciled: true}
		change(&s)
		return s
	}
	group := func(change func(*fsm.Group)) *fsm.Group {
		g := &fsm.Group{Phase: fsm.PhaseOpened, Primary: "a", Epoch: 4, InSync: []ident.NodeID{"a", "b"}}
		change(g)
		return g
	}
	same, as := func(*replica.Status) {}, func(*fsm.Group) {}
	for name, tc := range map[string]struct {
		g    *fsm.Group
		s    replica.Status
		want bool
	}{
		"it hears nothing":  {group(as), status(same), true},
		"it is fed":         {group(as), status(func(s *replica.Status) { s.FedBy = "a" }), false},
		"a switch-over":     {group(func(g *fsm.Group) { g.Operation = &fsm.Operation{} }), status(same), false},
		"a failover":        {group(func(g *fsm.Group) { g.Phase = fsm.PhaseFenced }), status(same), false},
		"it is no member":   {group(func(g *fsm.Group) { g.InSync = g.InSync[:1] }), status(same), false},
		"another epoch":     {group(as), status(func(s *replica.Status) { s.Epoch = 3 }), false},
		"it is the primary": {group(as), status(func(s *replica.Status) { s.Role = replica.RolePrimary }), false},
		"it has just begun": {group(as), status(func(s *replica.Status) { s.Reconciled = false }), false},
	} {
		if got := unfed(tc.g, "b", tc.s); got != tc.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
