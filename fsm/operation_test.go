package fsm

import (
	"bytes"
	"testing"

	"github.com/understudy-ha/understudy/internal/ident"
)

// stages are the states of an operation between two steps, with the command that leads on.
func stages() []stage {
	prepare := func(t testing.TB) *fixture {
		f := opened(t)
		f.must(Command{StartSwitch: &StartSwitch{Group: "g", Epoch: 1, To: "b", MaxPause: 1, Deadline: noon}})
		return f
	}
	hold := func(t testing.TB) *fixture {
		f := prepare(t)
		f.must(Command{AdvanceSwitch: &AdvanceSwitch{Group: "g", Operation: 1, From: StepPrepare, Node: "b"}})
		return f
	}
	reported := func(t testing.TB) *fixture {
		f := fenced(t)
		f.report("b", lifeB, position(1, 9))
		return f
	}
	open := &Open{Group: "g", Epoch: 2, Node: "b", Incarnation: lifeB, Rows: []ident.HistoryRow{row(2, "b", 10)}, InSync: []ident.NodeID{"b"}}
	return []stage{
		{"switch-over at prepare", prepare, StepPrepare, false, Command{AdvanceSwitch: &AdvanceSwitch{Group: "g", Operation: 1, From: StepPrepare, Node: "b"}}},
		{"switch-over at hold", hold, StepHold, false, Command{AdvanceSwitch: &AdvanceSwitch{Group: "g", Operation: 1, From: StepHold, Node: "a"}}},
		{"switch-over at drain", draining, StepDrain, false, Command{Handover: handoverToB()}},
		{"switch-over handed over", handed, StepOpen, true, Command{FinishSwitch: &FinishSwitch{Group: "g", Operation: 1, Node: "b", First: 5}}},
		{"failover at fence", fenced, StepFence, false, Command{Promise: &Promise{Group: "g", Report: Report{Node: "b", Epoch: 2, Incarnation: lifeB, Received: position(1, 9)}}}},
		{"failover at reports", reported, StepReports, false, Command{Promote: &Promote{Group: "g", Epoch: 2, To: "b", Incarnation: lifeB, Loss: LossNone}}},
		{"failover promoted", promoted, StepRecover, true, Command{Open: open}},
	}
}

type stage struct {
	name      string
	at        func(testing.TB) *fixture
	step      string
	committed bool // the commit point is passed
	next      Command
}

func (s stage) failover() bool {
	return s.step == StepFence || s.step == StepReports || s.step == StepRecover
}

// TestOperationSteps runs every step of every operation through every fault. Proves I10, CL-1: before the commit point a
// failure rolls back, after it only forward, whoever leads Raft.
func TestOperationSteps(t *testing.T) {
	for _, s := range stages() {
		t.Run(s.name, func(t *testing.T) {
			f := s.at(t)
			if op := f.group().Operation; op == nil || op.Step != s.step || op.Committed != s.committed || op.ID != 1 {
				t.Fatalf("the stage is not what it says: %+v", op)
			}
			t.Run("a new leader finds it and goes on", func(t *testing.T) {
				a := s.at(t)
				restored, err := Decode(bytes.NewReader([]byte(a.bytes())))
				if err != nil {
					t.Fatal(err)
				}
				b := &fixture{TB: t, State: restored, clock: a.clock}
				if op, ok := b.Operation(1); !ok || op.State != OperationRunning || op.Step != s.step {
					t.Fatalf("found %+v", op)
				}
				if a.must(s.next); b.must(s.next).Refused != "" || a.bytes() != b.bytes() {
					t.Fatal("it goes on elsewhere")
				}
			})
			t.Run("unknown outcome: asked again it is done once", func(t *testing.T) {
				f := s.at(t)
				f.must(s.next)
				want := f.bytes()
				r := f.do(s.next)
				if f.Applied--; f.bytes() != want {
					t.Fatalf("done twice: %+v", r)
				}
			})
			t.Run("the target dies", func(t *testing.T) {
				f := s.at(t)
				f.must(Command{Release: &Release{Node: "b", Incarnation: lifeB}})
				f.targetDied(s)
			})
			t.Run("the target is restarted", func(t *testing.T) {
				f := s.at(t)
				f.renew("b", 0xb2)
				f.targetDied(s)
			})
			t.Run("the source dies", func(t *testing.T) {
				f := s.at(t)
				f.must(Command{Release: &Release{Node: "a", Incarnation: lifeA}})
				f.sourceDied(s)
			})
		})
	}
}

// targetDied: nothing of b's life counts any more. Before the commit point a stays primary, or another is chosen; after it
// a failover follows, never a way back.
func (f *fixture) targetDied(s stage) {
	f.Helper()
	abort := Command{AbortSwitch: &AbortSwitch{Group: "g", Operation: 1, Reason: "b died"}}
	fence := Command{Fence: &Fence{Group: "g", Epoch: f.group().Epoch, Force: true, Reason: "b died"}}
	switch {
	case s.failover():
		if s.step != StepFence {
			if r := f.do(s.next); r.Refused != RefusedIncarnation {
				f.Fatalf("a dead life goes on: %+v", r)
			}
		}
		if s.committed {
			f.must(fence) // the epoch belongs to that life: another one is needed
			if op := f.group().Operation; op.ID != 1 || op.Committed || f.group().Epoch != 3 {
				f.Fatalf("the failover does not go on: %+v", op)
			}
		}
		f.report("a", lifeA, position(1, 9))
		e := f.group().Epoch
		f.must(Command{Promote: &Promote{Group: "g", Epoch: e, To: "a", Incarnation: lifeA, Loss: LossNone}})
		f.must(Command{Open: &Open{Group: "g", Epoch: e, Node: "a", Incarnation: lifeA, Rows: []ident.HistoryRow{row(e, "a", 10)}, InSync: []ident.NodeID{"a"}}})
		f.ended(1, OperationDone, "a", e)
	case s.committed:
		if r := f.do(abort); r.Refused != RefusedOperation {
			f.Fatalf("rolled back after its commit point: %+v", r)
		}
		f.must(fence)
		f.ended(1, OperationFailed, "", 3)
		if op := f.group().Operation; op == nil || op.Kind != OperationFailover || op.ID != 2 || op.From != "b" {
			f.Fatalf("no failover follows: %+v", op)
		}
	default:
		if s.step == StepDrain {
			if r := f.do(s.next); r.Refused != RefusedIncarnation {
				f.Fatalf("handed over to a dead life: %+v", r)
			}
		}
		f.must(abort)
		f.ended(1, OperationRolledBack, "a", 1)
	}
}

// sourceDied: before the commit point a failover takes the place of a switch-over, and nothing of a's life counts any
// more; after it, and in a failover, a is not needed.
func (f *fixture) sourceDied(s stage) {
	f.Helper()
	if s.failover() || s.committed {
		f.must(s.next)
		if s.committed {
			f.ended(1, OperationDone, "b", 2)
		}
		return
	}
	f.must(Command{Fence: &Fence{Group: "g", Epoch: 1, Renewal: f.Nodes["a"].Renewal, Reason: "a died"}})
	f.ended(1, OperationRolledBack, "", 2)
	if r := f.do(s.next); r.Refused != RefusedOperation {
		f.Fatalf("the switch-over goes on: %+v", r)
	}
	if op := f.group().Operation; op == nil || op.Kind != OperationFailover || op.ID != 2 || f.group().Phase != PhaseFenced {
		f.Fatalf("no failover follows: %+v", op)
	}
}

// ended checks how an operation ended, and whose role the group is at which epoch ("": nobody's).
func (f *fixture) ended(id uint64, state OperationState, primary ident.NodeID, e ident.Epoch) {
	f.Helper()
	g := f.group()
	if op, ok := f.Operation(id); !ok || op.State != state || op.Ended.IsZero() {
		f.Fatalf("operation %d ended as %+v, want %s", id, op, state)
	}
	if g.Epoch != e || (g.Phase == PhaseOpened) != (primary != "") || primary != "" && (g.Primary != primary || g.Operation != nil) {
		f.Fatalf("%s is primary at epoch %s, %s, operation %+v; want %q at %s", g.Primary, g.Epoch, g.Phase, g.Operation, primary, e)
	}
}
