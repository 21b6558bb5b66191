package cluster

import (
	"testing"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
)

// Followers hear at once of what they wait for, and of nothing else: each time is an entry in everybody's log.
func TestDeciding(t *testing.T) {
	c := &Cluster{o: Options{Node: "a"}}
	for _, x := range []struct {
		name string
		cmd  fsm.Command
		res  fsm.Result
		want bool
	}{
		{"a handover", fsm.Command{Handover: &fsm.Handover{}}, fsm.Result{}, true},
		{"a refused one", fsm.Command{Handover: &fsm.Handover{}}, fsm.Result{Refused: fsm.RefusedEpoch}, false},
		{"a renewal", fsm.Command{Renew: &fsm.Renew{}}, fsm.Result{}, false},
		{"a renewal that ends a life", fsm.Command{Renew: &fsm.Renew{}}, fsm.Result{Ended: []ident.GroupName{"g"}}, true},
		{"the end of a switch-over", fsm.Command{FinishSwitch: &fsm.FinishSwitch{}}, fsm.Result{}, false},
		{"a target has prepared", fsm.Command{AdvanceSwitch: &fsm.AdvanceSwitch{From: fsm.StepPrepare, Node: "a"}}, fsm.Result{}, true},
		{"this node begins to hold", fsm.Command{AdvanceSwitch: &fsm.AdvanceSwitch{From: fsm.StepHold, Node: "a"}}, fsm.Result{}, false},
		{"another one does, and waits to see it", fsm.Command{AdvanceSwitch: &fsm.AdvanceSwitch{From: fsm.StepHold, Node: "b"}}, fsm.Result{}, true},
	} {
		if got := c.deciding(x.cmd, x.res); got != x.want {
			t.Errorf("%s: %t", x.name, got)
		}
	}
}
