package node

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/understudy-ha/understudy/client"
	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
)

// Proves that a switch-over is scheduled for a time ahead, and not too far. Proves CL-5.
func TestSchedulable(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		in time.Duration
		ok bool
	}{{-time.Hour, false}, {0, false}, {time.Nanosecond, true}, {time.Hour, true}, {farthestSchedule, true}, {farthestSchedule + 1, false}} {
		err := schedulable(now.Add(c.in), now)
		var e *client.Error
		if c.ok != (err == nil) || err != nil && (!errors.As(err, &e) || e.Code != client.CodeInvalid || e.Remedy == "") {
			t.Errorf("in %s: %v", c.in, err)
		}
	}
}

// Proves that what begins by itself is judged by the checks of what is asked for: a condition that fails for one fails for the other,
// under the same name. Only the pause stops what begins by itself alone. Proves CL-5.
func TestScheduledIsCheckedAsAsked(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*facts)
	}{
		{"ready", func(*facts) {}},
		{"fenced", func(f *facts) { f.assignment.Group.Phase = fsm.PhaseFenced }},
		{"an operation", func(f *facts) {
			f.assignment.Group.Operation = &fsm.Operation{ID: 4, Kind: fsm.OperationSwitchover}
		}},
		{"no lease", func(f *facts) { f.lease = errors.New("expired") }},
		{"nobody", func(f *facts) { f.to = "nobody" }},
		{"a witness", func(f *facts) { f.to = "w" }},
		{"the primary", func(f *facts) { f.to = "a" }},
		{"dead", func(f *facts) { f.alive = func(ident.NodeID) bool { return false } }},
		{"in maintenance", func(f *facts) { f.assignment.Nodes["b"].Maintenance = &fsm.Order{Reason: "disk"} }},
		{"dropped", func(f *facts) { f.assignment.Group.Dropped = []fsm.Dropped{{Node: "b"}} }},
		{"a standby", func(f *facts) { f.assignment.Group.InSync = []ident.NodeID{"a"} }},
		{"a standby that lags", func(f *facts) { f.assignment.Group.InSync, f.lag["b"] = []ident.NodeID{"a"}, maxSwitchLag+1 }},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := facts{assignment: assignment(fsm.PhaseOpened), to: "b", leader: "c", lag: map[ident.NodeID]int64{"b": 0}, alive: func(ident.NodeID) bool { return true }}
			c.change(&f)
			var asked, itself []string
			for _, x := range readiness(f).Checks {
				if !x.OK {
					asked = append(asked, x.Name)
				}
			}
			st := &fsm.State{Nodes: f.assignment.Nodes}
			g := f.assignment.Group
			for id, n := range st.Nodes {
				n.Incarnation = 7
				end := ident.Sequence(100_000)
				n.Copies = map[ident.GroupName]fsm.Ends{"g": {"a": end - ident.Sequence(f.lag[id])}}
			}
			for _, o := range st.Obstacles(g, f.to, f.lease == nil, f.alive) {
				itself = append(itself, o.Check)
			}
			if !slices.Equal(asked, itself) {
				t.Errorf("asked for it fails for %q, by itself for %q", asked, itself)
			}
			st.Pause = &fsm.Pause{}
			if o := st.Obstacles(g, f.to, f.lease == nil, f.alive); len(o) != len(itself)+1 || o[0].Check != "not_paused" {
				t.Errorf("in a pause: %v", o)
			}
		})
	}
}

// Proves which events tell of a scheduled switch-over, whatever of it this node sees. Proves CL-5.
func TestScheduleEvents(t *testing.T) {
	at := time.Date(2026, 3, 1, 2, 0, 0, 0, time.UTC)
	op := func(id uint64, waits string, outcome fsm.ScheduleOutcome) *fsm.Operation {
		return &fsm.Operation{ID: id, Group: "g", To: "b", Error: "because", Schedule: &fsm.Schedule{At: at, By: "ann", Waits: waits, Outcome: outcome}}
	}
	n := &Node{events: newEvents(hclog.NewNullLogger(), "a", time.Now)}
	plans := scheduleChanges{}
	told := func() string {
		var out []string
		all, _ := n.events.since(0)
		for _, e := range all {
			out = append(out, fmt.Sprintf("%s %s %s", e.Severity, e.Kind, e.Fields["operation"]))
		}
		n.events = newEvents(hclog.NewNullLogger(), "a", time.Now)
		return strings.Join(out, "; ")
	}
	for i, c := range []struct {
		scheduled, running *fsm.Operation
		want               string
	}{
		{op(1, "", ""), nil, ""}, // it was there when this node started
		{op(1, "", ""), nil, ""},
		{op(1, "w", ""), nil, "warning SWITCHOVER_WAITS 1"},
		{op(1, "w", ""), nil, ""},
		{nil, op(1, "w", fsm.ScheduleStarted), "info SWITCHOVER 1"},
		{op(2, "", ""), op(1, "w", fsm.ScheduleStarted), "info SWITCHOVER_SCHEDULED 2"},
		{op(3, "w", ""), nil, "info SWITCHOVER_SCHEDULED 3; warning SWITCHOVER_WAITS 3"}, // 2 is told with what is past
		{nil, nil, ""},
	} {
		plans.see(n, &fsm.State{Groups: map[ident.GroupName]*fsm.Group{"g": {Scheduled: c.scheduled, Operation: c.running}}}, i == 0)
		if got := told(); got != c.want {
			t.Errorf("step %d: %q, want %q", i, got, c.want)
		}
	}
	for outcome, want := range map[fsm.ScheduleOutcome]string{
		fsm.ScheduleCanceled: "info SWITCHOVER_CANCELED 4", fsm.ScheduleVoid: "warning SWITCHOVER_VOID 4", fsm.ScheduleMissed: "error SWITCHOVER_MISSED 4", fsm.ScheduleStarted: "",
	} {
		if began := !n.neverBegan(op(4, "", outcome)); began != (want == "") || told() != want {
			t.Errorf("%s: began %t", outcome, began)
		}
	}
	if n.neverBegan(&fsm.Operation{}) {
		t.Error("one that was not scheduled")
	}
}
