package core

import (
	"slices"
	"testing"
	"time"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
)

// TestDecideSetControl has a row for every way in which a pause or the maintenance of a node bears on the in-sync set.
// Proves TR-1.
func TestDecideSetControl(t *testing.T) {
	rule := SetRule{Sync: true, Wanted: 1, ShrinkAfter: time.Second}
	protect := rule
	protect.Protect = true
	well := Member{Alive: true, Connected: true, Level: true, Progress: true}
	node := func(n ident.NodeID, changes ...func(*Member)) Member {
		m := well
		m.Node = n
		for _, f := range changes {
			f(&m)
		}
		return m
	}
	in := func(m *Member) { m.InSet = true }
	lost := func(m *Member) { m.InSet, m.Stalled = true, time.Hour }
	maintained := func(m *Member) { m.Maintenance = true }
	barred := func(m *Member) { m.Barred = true }
	behind := func(m *Member) { m.Level = false }
	away := func(m *Member) { m.Connected = false }
	dead := func(m *Member) { m.Alive = false }
	resting := func(m *Member) { m.Resting = true }
	unprimed := func(m *Member) { m.Level, m.Progress = false, false }
	hangs := func(m *Member) { m.Level, m.Stalled = false, time.Second }
	growing := func(m *Member) { m.Growing, m.CaughtUp = true, true }
	for _, c := range []struct {
		name    string
		rule    SetRule
		members []Member
		want    SetAction
		node    ident.NodeID
	}{
		{"a member in maintenance stays, and another takes its place before it is stopped", rule, []Member{node("b", in, maintained), node("c")}, SetWait, "c"},
		{"nobody can take its place", rule, []Member{node("b", in, maintained)}, SetNothing, ""},
		{"both in maintenance: nothing is gained", rule, []Member{node("b", in, maintained), node("c", maintained)}, SetNothing, ""},
		{"it is stopped", rule, []Member{node("b", lost, maintained), node("c", in)}, SetRemove, "b"},
		{"a node in maintenance is not grown beside a good one", rule, []Member{node("b", in), node("c", maintained)}, SetNothing, ""},
		{"nor where another is there", rule, []Member{node("b", maintained), node("c")}, SetWait, "c"},
		{"nor where another is on its way", rule, []Member{node("b", maintained), node("c", behind)}, SetNothing, ""},
		{"the primary is alone, nobody else is there", rule, []Member{node("b", maintained)}, SetWait, "b"},
		{"nobody else is connected", rule, []Member{node("b", maintained), node("c", away)}, SetWait, "b"},
		{"nobody else lives", rule, []Member{node("b", maintained), node("c", dead)}, SetWait, "b"},
		{"nobody else may join", rule, []Member{node("b", maintained), node("c", barred)}, SetWait, "b"},
		{"the other could not keep up and rests", protect, []Member{node("b", maintained), node("c", resting)}, SetWait, "b"},
		{"the other waits to be primed", protect, []Member{node("b", maintained), node("c", unprimed)}, SetWait, "b"},
		{"the other is connected and hangs", protect, []Member{node("b", maintained), node("c", hangs)}, SetWait, "b"},
		{"the last member is lost and protected: anybody is better", protect, []Member{node("b", lost), node("c", maintained)}, SetWait, "c"},
		{"a second one is wanted: not from maintenance", SetRule{Sync: true, Wanted: 2, ShrinkAfter: time.Second}, []Member{node("b", in), node("c", maintained)}, SetNothing, ""},

		{"paused: a standby does not take a lost secondary's place", rule, []Member{node("c", barred)}, SetNothing, ""},
		{"paused: the lost secondary returns", rule, []Member{node("b"), node("c", barred)}, SetWait, "b"},
		{"paused: a lost secondary leaves", rule, []Member{node("b", lost), node("c", barred)}, SetRemove, "b"},
		{"paused: a growth that has begun goes on", rule, []Member{node("c", barred, growing)}, SetAdd, "c"},
		{"paused: a member in maintenance is not replaced", rule, []Member{node("b", in, maintained), node("c", barred)}, SetNothing, ""},
	} {
		if d := DecideSet(c.rule, c.members); d.Action != c.want || d.Node != c.node {
			t.Errorf("%s: %+v", c.name, d)
		}
	}
}

// TestOpenSetMaintenance: a new primary begins with a shadow in maintenance only where it has no other.
func TestOpenSetMaintenance(t *testing.T) {
	nodes := map[ident.NodeID]*fsm.Node{
		"a": {Kind: fsm.KindData}, "b": {Kind: fsm.KindData, Maintenance: &fsm.Order{Reason: "disk"}}, "c": {Kind: fsm.KindData, Priority: 9},
	}
	g := &fsm.Group{InSync: []ident.NodeID{"a", "b"}, Spec: fsm.GroupSpec{Secondaries: 1}}
	for _, c := range []struct {
		hold []ident.NodeID
		want []ident.NodeID
	}{
		{[]ident.NodeID{"b", "c"}, []ident.NodeID{"a", "c"}},
		{[]ident.NodeID{"b"}, []ident.NodeID{"a", "b"}},
	} {
		if got := OpenSet(g, nodes, "a", func(n ident.NodeID) bool { return slices.Contains(c.hold, n) }); !slices.Equal(got, c.want) {
			t.Errorf("%v hold the SW: %v, want %v", c.hold, got, c.want)
		}
	}
}
