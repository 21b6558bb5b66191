package fsm

import (
	"testing"
	"time"

	"github.com/understudy-ha/understudy/internal/ident"
)

// failedOver has the group g failed over from a to b, with the dates that the nodes told.
func failedOver(t *testing.T, f Fence, o Open) Operation {
	t.Helper()
	s := opened(t)
	f.Group, f.Epoch, f.Renewal, f.Reason = "g", 1, s.Nodes["a"].Renewal, "the lease of a ran out"
	s.must(Command{Fence: &f})
	s.report("b", lifeB, position(1, 9))
	s.must(Command{Promote: &Promote{Group: "g", Epoch: 2, To: "b", Incarnation: lifeB, Loss: LossNone, Why: "b has most"}})
	o.Group, o.Epoch, o.Node, o.Incarnation = "g", 2, "b", lifeB
	o.Rows, o.InSync = []ident.HistoryRow{row(2, "b", 10)}, []ident.NodeID{"b"}
	s.must(Command{Open: &o})
	return s.Past[len(s.Past)-1]
}

// Proves CL-3: the steps of a failover, from the last sign of life on, add up to its length, whatever the clocks of the nodes
// that date them say.
func TestStepsAddUp(t *testing.T) {
	fence := noon.Add(11 * time.Second) // the fixture's clock when the fence is applied; promise, promote and open follow by the second
	for _, c := range []struct {
		name  string
		fence Fence
		open  Open
		want  map[string]time.Duration
	}{
		{name: "nobody dated anything", want: map[string]time.Duration{StepFence: time.Second, StepReports: time.Second, StepRecover: time.Second}},
		{
			name:  "all dates are known",
			fence: Fence{LastSeen: fence.Add(-2 * time.Second), Noticed: fence.Add(-500 * time.Millisecond), Evidence: "gossip"},
			open:  Open{Began: fence.Add(2100 * time.Millisecond), Recovered: fence.Add(2900 * time.Millisecond)},
			want: map[string]time.Duration{
				StepDetect: 1500 * time.Millisecond, StepLease: 500 * time.Millisecond, StepFence: time.Second, StepReports: time.Second,
				StepPromote: 100 * time.Millisecond, StepRecover: 800 * time.Millisecond, StepOpen: 100 * time.Millisecond,
			},
		},
		{
			name:  "clocks that are ahead",
			fence: Fence{LastSeen: fence.Add(-time.Second), Noticed: fence.Add(time.Hour)},
			open:  Open{Began: fence.Add(time.Hour), Recovered: fence.Add(time.Hour)},
			want:  map[string]time.Duration{StepDetect: time.Second, StepFence: time.Second, StepReports: time.Second, StepPromote: time.Second},
		},
		{
			name:  "clocks that are behind",
			fence: Fence{LastSeen: fence.Add(time.Hour), Noticed: fence},
			open:  Open{Began: noon, Recovered: noon},
			want:  map[string]time.Duration{StepFence: time.Second, StepReports: time.Second, StepRecover: 0, StepOpen: time.Second},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			op := failedOver(t, c.fence, c.open)
			var sum time.Duration
			got := map[string]time.Duration{}
			for i, s := range op.Steps {
				if op.Took(i) < 0 {
					t.Errorf("step %s took %s", s.Name, op.Took(i))
				}
				sum += op.Took(i)
				got[s.Name] += op.Took(i)
			}
			if whole := op.Ended.Sub(op.Started); sum != whole || whole <= 0 || !op.Steps[0].At.Equal(op.Started) {
				t.Errorf("the steps add up to %s, the operation took %s: %+v", sum, whole, op.Steps)
			}
			for name, took := range c.want {
				if got[name] != took {
					t.Errorf("step %s took %s, want %s: %+v", name, got[name], took, op.Steps)
				}
			}
		})
	}
}

// A running operation has no length yet.
func TestRunningStepTookNothing(t *testing.T) {
	op := fenced(t).group().Operation
	if op.Took(0) != 0 || op.Steps[0].Name != StepFence {
		t.Errorf("%+v took %s", op.Steps, op.Took(0))
	}
}

// A Handover tells when writes were held. Whatever that clock says, and however far the clock that dates the Handover is behind, the steps
// do not go back in time.
func TestHeldStepsDoNotGoBack(t *testing.T) {
	for name, c := range map[string]struct{ behind, held time.Duration }{
		"both clocks go well":                {0, 500 * time.Millisecond},
		"the old primary's is ahead":         {0, time.Hour},
		"the old primary's is behind":        {0, -time.Hour},
		"the leader's is behind":             {time.Minute, 500 * time.Millisecond},
		"the leader's is, the other's ahead": {time.Minute, time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			s := draining(t)
			drain := s.group().Operation.Steps
			at := drain[len(drain)-1].At
			s.clock = s.clock.Add(-c.behind)
			h := handoverToB()
			h.Held = at.Add(c.held)
			s.must(Command{Handover: h})
			op := s.group().Operation
			for i := 1; i < len(op.Steps); i++ {
				if op.Steps[i].At.Before(op.Steps[i-1].At) {
					t.Fatalf("step %s began before step %s: %+v", op.Steps[i].Name, op.Steps[i-1].Name, op.Steps)
				}
			}
		})
	}
}

// The step handover lasts until the new primary saw that the role is its, as far as the clocks agree; whatever they say, steps do not
// go back, and add up to the whole.
func TestHandoverHasALength(t *testing.T) {
	for name, c := range map[string]struct{ began, want time.Duration }{
		"told":                            {300 * time.Millisecond, 300 * time.Millisecond},
		"not told":                        {-1 << 62, 0},
		"the new primary's clock is back": {-time.Hour, 0},
		"it is ahead":                     {time.Hour, time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			s := handed(t)
			steps := s.group().Operation.Steps
			at := steps[len(steps)-1].At
			f := &FinishSwitch{Group: "g", Operation: 1, Node: "b", First: 5, Detail: "SW at 2.2"}
			if c.began > -1<<62 {
				f.Began = at.Add(c.began)
			}
			s.clock = at
			s.must(Command{FinishSwitch: f})
			op := s.Past[len(s.Past)-1]
			var sum time.Duration
			for i, x := range op.Steps {
				sum += op.Took(i)
				if x.Name == StepHandover && op.Took(i) != c.want {
					t.Errorf("handover took %s, want %s: %+v", op.Took(i), c.want, op.Steps)
				}
				if op.Took(i) < 0 {
					t.Errorf("step %s took %s", x.Name, op.Took(i))
				}
			}
			if sum != op.Ended.Sub(op.Started) || op.Steps[len(op.Steps)-1].Detail != "SW at 2.2" {
				t.Errorf("%+v: the steps add up to %s of %s", op.Steps, sum, op.Ended.Sub(op.Started))
			}
			if got := steps[len(steps)-1].At; !got.Equal(at) {
				t.Errorf("an earlier state was changed: %s, was %s", got, at)
			}
		})
	}
}

// Proves CL-3: each step of a switch-over has its own detail: what was prepared stands at prepare, what the drain began with at drain.
func TestStepsOfASwitchHaveTheirOwnDetail(t *testing.T) {
	s := opened(t)
	s.must(Command{StartSwitch: &StartSwitch{Group: "g", Epoch: 1, To: "b", MaxPause: time.Second, Deadline: noon.Add(time.Hour), Reason: "operator"}})
	s.must(Command{AdvanceSwitch: &AdvanceSwitch{Group: "g", Operation: 1, From: StepPrepare, Node: "b", Detail: "receiver 7 attached"}})
	s.must(Command{AdvanceSwitch: &AdvanceSwitch{Group: "g", Operation: 1, From: StepHold, Node: "a", Detail: "writes on their way: 3"}})
	want := []Step{{Name: StepPrepare, Node: "a", Detail: "receiver 7 attached"}, {Name: StepHold, Node: "b"}, {Name: StepDrain, Node: "a", Detail: "writes on their way: 3"}}
	got := s.group().Operation.Steps
	if len(got) != len(want) {
		t.Fatalf("%d steps: %+v", len(got), got)
	}
	for i, g := range got {
		if g.Name != want[i].Name || g.Node != want[i].Node || g.Detail != want[i].Detail {
			t.Errorf("step %d is %+v, want %+v", i, g, want[i])
		}
	}
}
