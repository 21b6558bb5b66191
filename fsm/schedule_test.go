package fsm

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/understudy-ha/understudy/internal/ident"
)

// checkSchedule holds what is true of every scheduled switch-over: it ends once, and either as the operation of its id or among the
// past ones with the reason.
func checkSchedule(t *rapid.T, s *State, before, g *Group, c Command) {
	if op := g.Scheduled; op != nil && (op.State != OperationScheduled || op.Schedule == nil || op.Schedule.Outcome != "" || op.ID >= s.NextOperation || op.To == g.Primary && g.Phase == PhaseOpened) {
		t.Fatalf("scheduled: %+v: %+v", op, c)
	}
	was := before.Scheduled
	if was == nil || g.Scheduled != nil && g.Scheduled.ID == was.ID {
		return
	}
	if op := g.Operation; op != nil && op.ID == was.ID {
		if op.Schedule.Outcome != ScheduleStarted || before.Operation != nil || c.StartSwitch == nil || c.StartSwitch.Schedule != was.ID {
			t.Fatalf("began: %+v: %+v", op, c)
		}
		return
	}
	op, ok := s.Operation(was.ID)
	if !ok || op.State != OperationRolledBack || op.Error == "" || op.Committed || op.Ended.Before(op.Started) ||
		op.Schedule.Outcome != ScheduleVoid && op.Schedule.Outcome != ScheduleCanceled && op.Schedule.Outcome != ScheduleMissed {
		t.Fatalf("ended: %+v: %+v", op, c)
	}
}

// Proves that a scheduled switch-over keeps its id, what was asked and who asked, waits in the state, and is used up by its beginning.
// Proves CL-5.
func TestScheduledSwitchover(t *testing.T) {
	f := planned(t)
	op := f.group().Scheduled
	if op == nil || op.ID != 1 || op.From != "a" || op.To != "b" || op.MaxPause != time.Second || op.State != OperationScheduled || op.Step != StepScheduled || op.Schedule.By != "ann" ||
		!op.Schedule.At.Equal(noon.Add(time.Hour)) || op.Schedule.Asked.IsZero() {
		t.Fatalf("scheduled: %+v", op)
	}
	const golden = `"scheduled":{"id":1,"kind":"switchover","group":"g","from":"a","to":"b","state":"scheduled","step":"scheduled","steps":[{"name":"scheduled","at":"2026-03-01T12:00:11Z"}],` +
		`"reason":"operator","started":"2026-03-01T12:00:11Z","max_pause":1000000000,"deadline":"0001-01-01T00:00:00Z","allow_loss":false,"committed":false,"epoch":0,` +
		`"schedule":{"at":"2026-03-01T13:00:00Z","by":"ann","asked":"2026-03-01T12:00:11Z"}}`
	if !strings.Contains(f.bytes(), golden) { // stands in snapshots
		t.Fatalf("%s\nlacks\n%s", f.bytes(), golden)
	}
	if f.group().Operation != nil || f.NextOperation != 2 {
		t.Fatal("it has begun at once")
	}
	f.must(Command{DelaySchedule: &DelaySchedule{Group: "g", Operation: 1, Waits: "b is not alive"}})
	if op.Schedule.Waits != "" || f.group().Scheduled.Schedule.Waits != "b is not alive" {
		t.Fatal("a snapshot changed, or nothing did")
	}
	back, err := Decode(bytes.NewReader([]byte(f.bytes())))
	if err != nil {
		t.Fatal(err)
	}
	if again := (&fixture{TB: t, State: back}).bytes(); again != f.bytes() {
		t.Fatalf("read back:\n%s\n%s", again, f.bytes())
	}
	f.must(Command{StartSwitch: &StartSwitch{Group: "g", Epoch: 1, To: "b", MaxPause: time.Second, Deadline: noon.Add(time.Hour), Reason: "operator", Schedule: 1}})
	g := f.group()
	if g.Scheduled != nil || g.Operation == nil || g.Operation.ID != 1 || g.Operation.State != OperationRunning || g.Operation.Schedule.Outcome != ScheduleStarted || g.Operation.Steps[0].Name != StepPrepare || f.NextOperation != 2 {
		t.Fatalf("begun: %+v", g.Operation)
	}
	f.must(Command{AbortSwitch: &AbortSwitch{Group: "g", Operation: 1, Reason: "r"}})
	if past, _ := f.Operation(1); past.State != OperationRolledBack || f.group().Scheduled != nil {
		t.Fatalf("rolled back: %+v", past)
	}
}

// Proves what ends a scheduled switch-over before its time, and what leaves it as it is. Proves CL-5.
func TestScheduleIsVoid(t *testing.T) {
	start := func(to ident.NodeID, auto bool) Command {
		return Command{StartSwitch: &StartSwitch{Group: "g", Epoch: 1, To: to, MaxPause: time.Second, Deadline: noon, Automatic: auto}}
	}
	fence := func(auto bool) Command {
		return Command{Fence: &Fence{Group: "g", Epoch: 1, Force: true, Automatic: auto}}
	}
	failover := func(to ident.NodeID, life ident.Incarnation) []Command {
		return []Command{
			fence(true),
			{Promise: &Promise{Group: "g", Report: Report{Node: to, Epoch: 2, Incarnation: life, Received: position(1, 9)}}},
			{Promote: &Promote{Group: "g", Epoch: 2, To: to, Incarnation: life}},
			{Open: &Open{Group: "g", Epoch: 2, Node: to, Incarnation: life, Rows: []ident.HistoryRow{row(2, to, 10)}, InSync: []ident.NodeID{to}}},
		}
	}
	for _, c := range []struct {
		name string
		cmds []Command
		want string // outcome, and a part of the reason
	}{
		{"a switch-over to another node", []Command{start("c", false)}, "void: switch-over 2 to c was asked for"},
		{"a switch-over to the same node", []Command{start("b", false)}, "void: switch-over 2 to b was asked for"},
		{"a switch-back by itself", []Command{start("c", true)}, ""},
		{"a failover by hand", []Command{fence(false)}, "void: failover 2 was asked for"},
		{"an operator takes a failover over", []Command{fence(true), {Fence: &Fence{Group: "g", Epoch: 2, Force: true}}}, "void: failover 2 was asked for"},
		{"a failover by itself", []Command{fence(true)}, ""},
		{"a failover to the target", failover("b", lifeB), "void: b is primary already"},
		{"the primary again, at a new epoch", failover("a", lifeA), ""},
		{"a hand-over to the target", []Command{start("b", true),
			{AdvanceSwitch: &AdvanceSwitch{Group: "g", Operation: 2, From: StepPrepare}}, {AdvanceSwitch: &AdvanceSwitch{Group: "g", Operation: 2, From: StepHold}},
			{Handover: change(handoverToB(), func(h *Handover) { h.Operation = 2 })}}, "void: b is primary already"},
		{"canceled", []Command{{CancelSchedule: &CancelSchedule{Group: "g", Operation: 1, Outcome: ScheduleCanceled, Reason: "by ann"}}}, "canceled: by ann"},
		{"missed", []Command{{CancelSchedule: &CancelSchedule{Group: "g", Operation: 1, Outcome: ScheduleMissed, Reason: "too late"}}}, "missed: too late"},
		{"the target in maintenance", []Command{{SetMaintenance: &SetMaintenance{Node: "b", On: true, Reason: "r"}}}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := planned(t)
			for _, cmd := range c.cmds {
				f.must(cmd)
			}
			op, ok := f.Operation(1)
			if !ok {
				t.Fatal("it is forgotten")
			}
			if c.want == "" {
				if f.group().Scheduled == nil || op.State != OperationScheduled {
					t.Fatalf("it is over: %+v", op)
				}
				return
			}
			if got := fmt.Sprintf("%s: %s", op.Schedule.Outcome, op.Error); f.group().Scheduled != nil || op.State != OperationRolledBack || !strings.HasPrefix(got, c.want) || op.Ended.IsZero() {
				t.Fatalf("%q, want %q: %+v", got, c.want, op)
			}
			if r := f.do(Command{StartSwitch: &StartSwitch{Group: "g", Epoch: f.group().Epoch, To: "c", MaxPause: time.Second, Deadline: noon, Schedule: 1}}); r.Refused == "" {
				t.Fatal("it began afterwards")
			}
			f.do(Command{AbortSwitch: &AbortSwitch{Group: "g", Operation: 2}})
			if g := f.group(); g.Phase == PhaseOpened && g.Operation == nil {
				f.must(Command{ScheduleSwitch: change(planToB(), func(c *ScheduleSwitch) { c.To = "c" })}) // there is room for another
			}
		})
	}
}
