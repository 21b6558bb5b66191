package core

import (
	"testing"
	"time"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
)

// TestDecideSetLeaving has a row for every way in which a node that is being stopped bears on the in-sync set. Proves BX-1: it is taken
// out while it still acknowledges, after somebody else has come in where there is somebody.
func TestDecideSetLeaving(t *testing.T) {
	rule := SetRule{Sync: true, Wanted: 1, ShrinkAfter: time.Second}
	with := func(change func(*SetRule)) SetRule {
		r := rule
		change(&r)
		return r
	}
	protect := with(func(r *SetRule) { r.Protect = true })
	node := func(n ident.NodeID, changes ...func(*Member)) Member {
		m := Member{Node: n, Alive: true, Connected: true, Level: true, Progress: true}
		for _, f := range changes {
			f(&m)
		}
		return m
	}
	in := func(m *Member) { m.InSet = true }
	leaving := func(m *Member) { m.Leaving = true }
	long := func(m *Member) { m.LeavingFor = LeavePatience }
	behind := func(m *Member) { m.Level = false }
	away := func(m *Member) { m.Connected, m.Level = false, false }
	dead := func(m *Member) { m.Alive, m.Connected, m.Level = false, false, false }
	resting := func(m *Member) { m.Resting = true }
	barred := func(m *Member) { m.Barred = true }
	maintained := func(m *Member) { m.Maintenance = true }
	growing := func(m *Member) { m.Growing = true }
	grown := func(m *Member) { m.Growing, m.CaughtUp = true, true }
	proposed := func(m *Member) { m.Growing, m.Proposed = true, true }
	lost := func(m *Member) { m.InSet, m.Stalled = true, time.Hour }
	for _, c := range []struct {
		name    string
		rule    SetRule
		members []Member
		want    SetAction
		node    ident.NodeID
	}{
		{"a standby that is level comes in first", rule, []Member{node("b", in, leaving), node("c")}, SetWait, "c"},
		{"it is waited for, and the member stays", rule, []Member{node("b", in, leaving, long), node("c", growing)}, SetNothing, ""},
		{"it has caught up", rule, []Member{node("b", in, leaving), node("c", grown)}, SetAdd, "c"},
		{"it is in: the other one goes", rule, []Member{node("b", in, leaving), node("c", in)}, SetRemove, "b"},
		{"not both while one is wanted: the one that stays is not surplus", rule, []Member{node("b", in), node("c", in, leaving)}, SetRemove, "c"},
		{"nobody else is there: it goes at once", rule, []Member{node("b", in, leaving)}, SetRemove, "b"},
		{"nobody else lives", rule, []Member{node("b", in, leaving), node("c", dead)}, SetRemove, "b"},
		{"the other may not join", rule, []Member{node("b", in, leaving), node("c", barred)}, SetRemove, "b"},
		{"the other could not keep up", rule, []Member{node("b", in, leaving), node("c", resting)}, SetRemove, "b"},
		{"the other is in maintenance", rule, []Member{node("b", in, leaving), node("c", maintained)}, SetRemove, "b"},
		{"the other is being stopped, too", rule, []Member{node("b", in, leaving), node("c", leaving)}, SetRemove, "b"},
		{"the other is on its way: for a while", rule, []Member{node("b", in, leaving), node("c", behind)}, SetNothing, ""},
		{"the other is just connecting: for a while", rule, []Member{node("b", in, leaving), node("c", away)}, SetNothing, ""},
		{"not for longer", rule, []Member{node("b", in, leaving, long), node("c", behind)}, SetRemove, "b"},
		{"two are wanted and one stays: the third comes first", with(func(r *SetRule) { r.Wanted = 2 }), []Member{node("b", in, leaving), node("c", in), node("d")}, SetWait, "d"},
		{"two are wanted and nobody else is there", with(func(r *SetRule) { r.Wanted = 2 }), []Member{node("b", in, leaving), node("c", in)}, SetRemove, "b"},

		{"hold or refuse: the last one stays", protect, []Member{node("b", in, leaving, long)}, SetNothing, ""},
		{"hold or refuse: somebody comes first", protect, []Member{node("b", in, leaving), node("c")}, SetWait, "c"},
		{"hold or refuse: not for one that hangs", protect, []Member{node("b", in, leaving), node("c", lost)}, SetRemove, "c"},
		{"hold or refuse: another is well", protect, []Member{node("b", in, leaving), node("c", in)}, SetRemove, "b"},

		{"a standby that is being stopped does not come in", rule, []Member{node("c", leaving)}, SetNothing, ""},
		{"one that is waited for is not any more", rule, []Member{node("b", in), node("c", grown, leaving)}, SetForget, "c"},
		{"but for what was proposed Raft decides", rule, []Member{node("b", in), node("c", proposed, leaving)}, SetAdd, "c"},
		{"it hangs: no patience", rule, []Member{node("b", lost, leaving), node("c", behind)}, SetRemove, "b"},

		{"the primary is being stopped, too: whoever has everything may succeed it", with(func(r *SetRule) { r.Leaving = true }), []Member{node("b", in, leaving)}, SetNothing, ""},
		{"a switch-over holds: its end decides", with(func(r *SetRule) { r.Switching, r.Target = true, "c" }), []Member{node("b", in, leaving), node("c", in)}, SetNothing, ""},
		{"it is the target of a switch-over that began before", with(func(r *SetRule) { r.Target = "b" }), []Member{node("b", in, leaving), node("c", in)}, SetNothing, ""},
		{"async", SetRule{Wanted: 1, ShrinkAfter: time.Second}, []Member{node("b", in, leaving)}, SetNothing, ""},
	} {
		if d := DecideSet(c.rule, c.members); d.Action != c.want || d.Node != c.node {
			t.Errorf("%s: %+v", c.name, d)
		}
	}
}

// TestRosterCountsLeaving: how long a node has been leaving is counted from when the primary saw it, and anew for its next life.
func TestRosterCountsLeaving(t *testing.T) {
	r := NewRoster("a")
	r.Add("b", "a")
	node := &fsm.Node{ID: "b", Kind: fsm.KindData}
	look := func(now time.Duration, leaving bool) Member {
		node.Leaving = leaving
		members, _ := r.Members(now, Outlook{
			Assignment: fsm.Assignment{Self: "a", Group: &fsm.Group{InSync: []ident.NodeID{"a", "b"}}, Nodes: map[ident.NodeID]*fsm.Node{"b": node}},
			Alive:      func(ident.NodeID) bool { return true }, Outstanding: func(Acked) bool { return false },
		})
		return members[0]
	}
	for _, c := range []struct {
		now     time.Duration
		leaving bool
		want    time.Duration
	}{{1, false, 0}, {5, true, 0}, {8, true, 3}, {9, false, 0}, {20, true, 0}, {21, true, 1}} {
		if m := look(c.now, c.leaving); m.Leaving != c.leaving || m.LeavingFor != c.want {
			t.Errorf("at %d, leaving %t: %t for %d, want %d", c.now, c.leaving, m.Leaving, m.LeavingFor, c.want)
		}
	}
}

// TestOpenSetLeaving: a new primary begins with a shadow that is being stopped only where it has no other.
func TestOpenSetLeaving(t *testing.T) {
	nodes := map[ident.NodeID]*fsm.Node{"a": {Kind: fsm.KindData}, "b": {Kind: fsm.KindData, Leaving: true}, "c": {Kind: fsm.KindData, Priority: 9}}
	g := &fsm.Group{InSync: []ident.NodeID{"a", "b"}, Spec: fsm.GroupSpec{Secondaries: 1}}
	if got := OpenSet(g, nodes, "a", func(ident.NodeID) bool { return true }); len(got) != 2 || got[1] != "c" {
		t.Errorf("the set is %v, want a and c", got)
	}
}
