package node

import (
	"strings"
	"testing"
	"time"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
)

// The pause that is foretold is the middle one of the last ten that were measured for the group; where none was, that is said. Proves CL-5.
func TestExpectedPause(t *testing.T) {
	st := &fsm.State{}
	if pause, why := expectedPause(st, "orders"); pause != pauseUnseen || !strings.Contains(why, "a guess") {
		t.Errorf("nothing measured: %s, %s", pause, why)
	}
	add := func(group ident.GroupName, state fsm.OperationState, held time.Duration) {
		st.Past = append(st.Past, fsm.Operation{Kind: fsm.OperationSwitchover, Group: group, State: state, Started: noon, Ended: noon.Add(50*time.Millisecond + held),
			Steps: steps(fsm.StepPrepare, 0, "", fsm.StepHold, 20, "", fsm.StepDrain, 50, "", fsm.StepOpen, 55, "")})
	}
	add("orders", fsm.OperationDone, time.Second) // long ago
	add("others", fsm.OperationDone, time.Minute)
	add("orders", fsm.OperationRolledBack, time.Minute)
	if pause, why := expectedPause(st, "orders"); pause != time.Second || why != "the last switch-over held writes for 1s" {
		t.Errorf("one measured: %s, %s", pause, why)
	}
	for i := range 10 {
		add("orders", fsm.OperationDone, time.Duration(30-i)*time.Millisecond)
	}
	if pause, why := expectedPause(st, "orders"); pause != 26*time.Millisecond || why != "the last 10 switch-overs held writes for 21ms to 30ms" {
		t.Errorf("ten measured: %s, %s", pause, why)
	}
}
