package core

import (
	"fmt"
	"testing"
	"time"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
)

// TestDecideInOrder: when a node takes several groups with it, the group system is fenced first, then the others by order and name.
// Proves IC-1.
func TestDecideInOrder(t *testing.T) {
	nobody := func(ident.NodeID) bool { return false }
	st := &fsm.State{Nodes: map[ident.NodeID]*fsm.Node{}, Groups: map[ident.GroupName]*fsm.Group{}}
	for _, id := range []ident.NodeID{"a", "b"} {
		st.Nodes[id] = &fsm.Node{ID: id, Kind: fsm.KindData, Incarnation: 7, Renewal: 1}
	}
	st.Nodes["a"].Released = true
	for name, order := range map[ident.GroupName]int{"z": 0, "b": 1, "a": 1, "system": 0, "early": -3} {
		st.Groups[name] = &fsm.Group{Spec: fsm.GroupSpec{Name: name, Order: order, Delivery: fsm.DeliverySync, AutoFailover: fsm.FailoverLossless}, Epoch: 2, OpenEpoch: 2, OpenNode: "a",
			Phase: fsm.PhaseOpened, Primary: "a", Incarnation: 7, InSync: []ident.NodeID{"a", "b"}}
	}
	var got []ident.GroupName
	for _, c := range Decide(View{State: st, Dead: nobody, Silent: nobody, Groups: map[ident.GroupName]GroupView{}}) {
		if c.Fence != nil {
			got = append(got, c.Fence.Group)
		}
	}
	if fmt.Sprint(got) != "[system early z a b]" {
		t.Errorf("fenced %v", got)
	}
}

// TestPlannedGroupsAreCreatedInOrder: those that waited for the same node, too. Proves IC-1.
func TestPlannedGroupsAreCreatedInOrder(t *testing.T) {
	nobody := func(ident.NodeID) bool { return false }
	st := &fsm.State{Nodes: map[ident.NodeID]*fsm.Node{"b": {ID: "b", Incarnation: 7}}, Groups: map[ident.GroupName]*fsm.Group{}}
	for i, spec := range []fsm.GroupSpec{{Name: "early", Order: -3}, {Name: "late", Order: 5}, {Name: "middle"}, {Name: "system"}, {Name: "z", Order: -3}} { // by name, as they are kept
		spec.Preferred = "b"
		st.Planned = append(st.Planned, fsm.Plan{ID: uint64(i + 1), Spec: spec})
	}
	var got []ident.GroupName
	for _, c := range Decide(View{State: st, Dead: nobody, Silent: nobody}) {
		got = append(got, c.CreateGroup.Spec.Name)
	}
	if fmt.Sprint(got) != "[system early z middle late]" {
		t.Errorf("creates %v", got)
	}
	if st.Planned[0].Spec.Name != "early" {
		t.Error("the state was changed")
	}
}

// TestDecideCreatesWhatIsPlanned: once nobody is asked any more and the first primary lives. Proves IC-1.
func TestDecideCreatesWhatIsPlanned(t *testing.T) {
	nobody := func(ident.NodeID) bool { return false }
	st := &fsm.State{Nodes: map[ident.NodeID]*fsm.Node{"a": {ID: "a", Incarnation: 7}, "b": {ID: "b"}, "c": {ID: "c", Incarnation: 7, Released: true}}, Groups: map[ident.GroupName]*fsm.Group{}}
	for name, preferred := range map[ident.GroupName]ident.NodeID{"k": "a", "l": "b", "m": "c", "n": "x"} {
		st.Planned = append(st.Planned, fsm.Plan{Spec: fsm.GroupSpec{Name: name, Preferred: preferred}})
	}
	st.Planned = append(st.Planned, fsm.Plan{Spec: fsm.GroupSpec{Name: "o", Preferred: "a"}, Ask: []ident.GroupName{"default"}})
	got := Decide(View{State: st, Dead: nobody, Silent: nobody})
	if len(got) != 1 || got[0].CreateGroup == nil || got[0].CreateGroup.Spec.Name != "k" || got[0].CreateGroup.Incarnation != 7 || !got[0].CreateGroup.Planned {
		t.Errorf("%+v", got)
	}
}

// TestDecideGivesUpDeletions: a group whose primary does not answer goes on, although whoever asked is gone. Proves IC-1.
func TestDecideGivesUpDeletions(t *testing.T) {
	st := &fsm.State{Groups: map[ident.GroupName]*fsm.Group{}, Nodes: map[ident.NodeID]*fsm.Node{"a": {ID: "a", Incarnation: 7}}}
	now := time.Now()
	for name, at := range map[ident.GroupName]time.Time{"late": now.Add(-3 * fsm.AnswerTime), "new": now.Add(-fsm.AnswerTime)} {
		st.Groups[name] = &fsm.Group{Spec: fsm.GroupSpec{Name: name}, Epoch: 1, Phase: fsm.PhaseOpened, Primary: "a", Incarnation: 7, Closing: &fsm.Closing{ID: 64, At: at}}
	}
	never := func(ident.NodeID) bool { return false }
	view := View{State: st, Now: now, Dead: never, Silent: never, Groups: map[ident.GroupName]GroupView{"late": {Covered: true}, "new": {Covered: true}}}
	got := Decide(view)
	if len(got) != 1 || got[0].DropClosing == nil || got[0].DropClosing.Group != "late" || got[0].DropClosing.Closing != 64 || got[0].DropClosing.Reason == "" {
		t.Errorf("%+v", got)
	}
}
