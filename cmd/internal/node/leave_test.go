package node

import (
	"fmt"
	"slices"
	"testing"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
)

// TestPartings has a row for everything that bears on whether a node that is being stopped waits for a primary to take it out
// of a set. Proves BX-1.
func TestPartings(t *testing.T) {
	for _, c := range []struct {
		name string
		edit func(st *fsm.State, g *fsm.Group)
		dead []ident.NodeID
		want string
	}{
		{"a member", func(_ *fsm.State, g *fsm.Group) {}, nil, "wait"},
		{"a standby", func(_ *fsm.State, g *fsm.Group) { g.InSync = []ident.NodeID{"a", "c"} }, nil, ""},
		{"nobody is left in", func(_ *fsm.State, g *fsm.Group) { g.InSync = []ident.NodeID{"a"} }, nil, "alone"},
		{"its own", func(_ *fsm.State, g *fsm.Group) { g.Primary = "b" }, nil, ""},
		{"a failover runs: it may be needed", func(_ *fsm.State, g *fsm.Group) { g.Phase = fsm.PhaseFenced }, []ident.NodeID{"a"}, "wait"},
		{"one from itself runs", func(_ *fsm.State, g *fsm.Group) { g.Phase, g.Primary = fsm.PhaseFenced, "b" }, nil, "wait"},
		{"the primary is gone", func(_ *fsm.State, g *fsm.Group) {}, []ident.NodeID{"a"}, ""},
		{"another life of the primary", func(_ *fsm.State, g *fsm.Group) { g.Incarnation = 9 }, nil, ""},
		{"async", func(_ *fsm.State, g *fsm.Group) {
			g.Spec.Delivery, g.InSync = fsm.DeliveryAsync, []ident.NodeID{"a"}
		}, nil, ""},
		{"degrade, and nobody else lives: it goes", func(_ *fsm.State, g *fsm.Group) {}, []ident.NodeID{"c"}, "wait"},
		{"hold, and another may come", func(_ *fsm.State, g *fsm.Group) { g.Spec.OnNoSync = fsm.NoSyncHold }, nil, "wait"},
		{"hold, and nobody else lives", func(_ *fsm.State, g *fsm.Group) { g.Spec.OnNoSync = fsm.NoSyncHold }, []ident.NodeID{"c"}, "last"},
		{"refuse, and nobody else lives", func(_ *fsm.State, g *fsm.Group) { g.Spec.OnNoSync = fsm.NoSyncRefuse }, []ident.NodeID{"c"}, "last"},
		{"hold, and the other is being stopped, too", func(st *fsm.State, g *fsm.Group) {
			g.Spec.OnNoSync, st.Nodes["c"].Leaving = fsm.NoSyncHold, true
		}, nil, "last"},
		{"hold, and the other is in maintenance", func(st *fsm.State, g *fsm.Group) {
			g.Spec.OnNoSync, st.Nodes["c"].Maintenance = fsm.NoSyncHold, &fsm.Order{Reason: "disk"}
		}, nil, "last"},
		{"hold, and the other is dropped", func(_ *fsm.State, g *fsm.Group) {
			g.Spec.OnNoSync, g.Dropped = fsm.NoSyncHold, []fsm.Dropped{{Node: "c"}}
		}, nil, "last"},
		{"hold, paused, and the other was no member", func(st *fsm.State, g *fsm.Group) {
			g.Spec.OnNoSync, st.Pause = fsm.NoSyncHold, &fsm.Pause{Members: map[ident.GroupName][]ident.NodeID{"g": {"a", "b"}}}
		}, nil, "last"},
		{"hold, and another is in, though it is being stopped", func(st *fsm.State, g *fsm.Group) {
			g.Spec.OnNoSync, g.InSync, st.Nodes["c"].Leaving = fsm.NoSyncHold, []ident.NodeID{"a", "b", "c"}, true
		}, nil, "wait"},
	} {
		st := &fsm.State{Nodes: map[ident.NodeID]*fsm.Node{"w": {ID: "w", Kind: fsm.KindWitness, Incarnation: 4}}, Groups: map[ident.GroupName]*fsm.Group{}}
		for i, id := range []ident.NodeID{"a", "b", "c"} {
			st.Nodes[id] = &fsm.Node{ID: id, Kind: fsm.KindData, Incarnation: ident.Incarnation(i + 1)}
		}
		g := &fsm.Group{Spec: fsm.GroupSpec{Name: "g", Delivery: fsm.DeliverySync, OnNoSync: fsm.NoSyncDegrade, Secondaries: 1}, Phase: fsm.PhaseOpened,
			Primary: "a", Incarnation: 1, InSync: []ident.NodeID{"a", "b"}}
		st.Groups["g"] = g
		c.edit(st, g)
		p := partings(st, "b", func(n ident.NodeID) bool { return !slices.Contains(c.dead, n) })
		got := ""
		for word, list := range map[string][]ident.GroupName{"wait": p.wait, "last": p.last, "alone": p.alone} {
			if len(list) > 0 {
				got += word
			}
		}
		if got != c.want {
			t.Errorf("%s: %s, want %q", c.name, fmt.Sprintf("%+v", p), c.want)
		}
	}
}
