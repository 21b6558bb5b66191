package core

import (
	"testing"
	"time"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
)

// Proves CL-3, S22: what the old primary does at each step of a planned switch-over.
func TestSwitchoverSteps(t *testing.T) {
	op := fsm.Operation{ID: 7, Kind: fsm.OperationSwitchover, From: "a", To: "b", State: fsm.OperationRunning, Step: fsm.StepPrepare, MaxPause: time.Second}
	g := &fsm.Group{Operation: &op, InSync: []ident.NodeID{"a", "b"}}
	lacks := "something"
	lacking := func(*fsm.Operation) string { return lacks }
	var s Switchover
	step := func(now time.Duration, want SwitchAction) {
		t.Helper()
		if got := s.Step(now, g, "a", lacking); got.Action != want {
			t.Fatalf("at %s in step %s: %+v, want %d", now, op.Step, got, want)
		}
	}
	step(0, SwitchRests)
	op.Step = fsm.StepHold
	g.InSync = []ident.NodeID{"a"}
	step(0, SwitchGrows)
	step(0, SwitchRests)         // not in the set yet: writes go on
	step(time.Hour, SwitchRests) // it does not come: nothing is held, and the deadline ends that
	g.Spec.Delivery = fsm.DeliveryAsync
	step(0, SwitchAdvances)
	g.Spec.Delivery, g.InSync = "", []ident.NodeID{"a", "b"}
	step(0, SwitchAdvances)
	op.Step = fsm.StepDrain
	step(time.Hour, SwitchHolds) // the longest pause counts from here, and only from here
	step(time.Hour+time.Second-1, SwitchRests)
	lacks = ""
	step(time.Hour+1, SwitchHandsOver)
	step(time.Hour+2, SwitchHandsOver) // outcome unknown: proposed again until the state shows the end
	lacks = "the target"
	if got := s.Step(time.Hour+time.Second, g, "a", lacking); got.Action != SwitchAborts || got.Lacking != "the target" {
		t.Fatalf("too late: %+v", got)
	}
	g.Operation = nil
	step(2*time.Second, SwitchReopens)
	step(2*time.Second, SwitchRests)

	next := op
	next.ID, g.Operation = 8, &next
	step(2*time.Second, SwitchHolds)
	step(2*time.Second, SwitchRests)
	again := next
	again.ID, g.Operation = 9, &again
	step(3*time.Second, SwitchReopens) // another one: the first is over
	step(3*time.Second, SwitchHolds)
	if other := (&Switchover{}).Step(0, g, "c", lacking); other.Action != SwitchRests {
		t.Fatalf("not away from this node: %+v", other)
	}
}

func TestLacking(t *testing.T) {
	g := &fsm.Group{InSync: []ident.NodeID{"a", "b"}}
	fresh := false
	well := Drain{Serving: true, Committed: true, Known: true, Holds: func(f bool) bool { fresh = f; return true }}
	if why := well.Lacking(g, "b"); why != "" || fresh {
		t.Fatalf("a member that holds everything: %q, fresh %t", why, fresh)
	}
	for name, change := range map[string]func(*Drain){
		"does not serve": func(d *Drain) { d.Serving = false },
		"not committed":  func(d *Drain) { d.Committed = false },
		"owes a reply":   func(d *Drain) { d.Owed = true },
		"another grows":  func(d *Drain) { d.Growing = []ident.NodeID{"c"} },
		"holds less":     func(d *Drain) { d.Holds = func(bool) bool { return false } },
		"not registered": func(d *Drain) { d.Known = false },
	} {
		d := well
		change(&d)
		if d.Lacking(g, "b") == "" {
			t.Errorf("%s: nothing is missing", name)
		}
	}
	if well.Lacking(g, "c") == "" {
		t.Error("not a member")
	}
	g.Spec.Delivery = fsm.DeliveryAsync
	if why := well.Lacking(g, "c"); why != "" || !fresh {
		t.Errorf("async delivery: %q, fresh %t", why, fresh)
	}
}

func TestHandoverSet(t *testing.T) {
	g := &fsm.Group{InSync: []ident.NodeID{"a", "b", "c", "d"}, Spec: fsm.GroupSpec{Secondaries: 2}}
	set := func(holds bool) string {
		out := ""
		for _, n := range HandoverSet(g, "a", "c", func(ident.NodeID) bool { return holds }) {
			out += string(n)
		}
		return out
	}
	if got := set(true); got != "abc" {
		t.Errorf("no more than wanted: %s", got)
	}
	if got := set(false); got != "ac" {
		t.Errorf("only who holds everything: %s", got)
	}
	g.Spec.Delivery = fsm.DeliveryAsync
	if got := set(true); got != "c" {
		t.Errorf("async delivery: %s", got)
	}
}

// Writes may be sequenced before SW is committed, but not where they need an in-sync secondary that nobody has looked for.
func TestSequencesAhead(t *testing.T) {
	for _, c := range []struct {
		delivery fsm.Delivery
		policy   string
		ahead    bool
	}{
		{fsm.DeliverySync, fsm.NoSyncDegrade, true},
		{fsm.DeliverySync, fsm.NoSyncHold, false},
		{fsm.DeliverySync, fsm.NoSyncRefuse, false},
		{fsm.DeliveryAsync, fsm.NoSyncHold, true},
	} {
		if got := SequencesAhead(&fsm.Group{Spec: fsm.GroupSpec{Delivery: c.delivery, OnNoSync: c.policy}}); got != c.ahead {
			t.Errorf("%s, %s: %t", c.delivery, c.policy, got)
		}
	}
}
