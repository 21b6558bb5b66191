package core

import (
	"testing"
	"time"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
)

// The target of a switch-over ships ahead under the primary's epoch, while the switch-over is prepared and it is not done. Proves I1, I3.
func TestShipsAhead(t *testing.T) {
	prepared := func() *fsm.Group {
		return &fsm.Group{
			Phase: fsm.PhaseOpened, Epoch: 3, OpenEpoch: 3, Primary: "a", OpenNode: "a",
			Operation: &fsm.Operation{ID: 7, Kind: fsm.OperationSwitchover, State: fsm.OperationRunning, Step: fsm.StepPrepare, From: "a", To: "b"},
		}
	}
	if e := AheadEpoch(prepared()); e != 3 {
		t.Errorf("it ships under epoch %s", e)
	}
	if !ShipsAhead(prepared(), "b", 7, false) {
		t.Error("it does not ship")
	}
	if ShipsAhead(prepared(), "b", 7, true) {
		t.Error("it goes on when it is done")
	}
	if ShipsAhead(prepared(), "b", 6, false) {
		t.Error("it goes on for a switch-over before this one")
	}
	if ShipsAhead(prepared(), "c", 7, false) {
		t.Error("another node ships")
	}
	for name, change := range map[string]func(*fsm.Group){
		"writes are held":         func(g *fsm.Group) { g.Operation.Step = fsm.StepHold },
		"the role is handed over": func(g *fsm.Group) { g.Epoch, g.Primary, g.Operation.Committed = 4, "b", true },
		"it was rolled back":      func(g *fsm.Group) { g.Operation = nil },
		"the group is fenced":     func(g *fsm.Group) { g.Phase, g.Epoch = fsm.PhaseFenced, 4 },
	} {
		g := prepared()
		change(g)
		if ShipsAhead(g, "b", 7, false) {
			t.Errorf("%s, and it goes on", name)
		}
		if Admissible(g, 3, "a", Caller{From: "b", Author: "b", Epoch: 3}).Verdict == Admitted {
			t.Errorf("%s, and it is admitted", name)
		}
	}
	if Admissible(prepared(), 3, "a", Caller{From: "b", Author: "b", Epoch: 4}).Verdict != TooEarly {
		t.Error("the primary promises the next epoch before the Handover")
	}
}

// The target waits for what it brings, but not for long.
func TestBroughtAhead(t *testing.T) {
	for _, c := range []struct {
		durable, last, tried uint64
		done                 bool
	}{{4, 5, 0, false}, {5, 5, 0, true}, {6, 5, 0, true}, {4, 5, 9, false}, {4, 5, 10, true}} {
		if got := BroughtAhead(ident.Sequence(c.durable), ident.Sequence(c.last), time.Duration(c.tried), 10); got != c.done {
			t.Errorf("%+v: %t", c, got)
		}
	}
}
