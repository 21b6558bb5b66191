package node

import (
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// steps dates steps by milliseconds after noon.
func steps(named ...any) (out []fsm.Step) {
	for i := 0; i < len(named); i += 3 {
		out = append(out, fsm.Step{Name: named[i].(string), At: noon.Add(time.Duration(named[i+1].(int)) * time.Millisecond), Detail: named[i+2].(string)})
	}
	return out
}

func aFailover() *fsm.Operation {
	return &fsm.Operation{
		ID: 7, Kind: fsm.OperationFailover, Group: "orders", From: "a", To: "b", State: fsm.OperationDone, Reason: "the lease of a ran out",
		Started: noon, Ended: noon.Add(2200 * time.Millisecond),
		Steps: steps(fsm.StepDetect, 0, "", fsm.StepLease, 1500, "gossip does not reach a any more", fsm.StepFence, 2000, "", fsm.StepReports, 2010, "",
			fsm.StepPromote, 2030, "b has received up to orders@3.42; 1 of 2 in the set were heard; loss: none", fsm.StepRecover, 2060, "", fsm.StepOpen, 2100, ""),
	}
}

// Proves CL-3: one line of the log tells what was seen, when the lease was over, who was chosen and why, what is lost, and
// how long each part took.
func TestAccountOfAFailover(t *testing.T) {
	got := account(aFailover())
	for _, want := range []string{
		"failover 7 of group orders from a to b is done in 2.2s", "Reason: the lease of a ran out", "last sign of life at 12:00:00.000",
		"noticed at 12:00:01.500 UTC: gossip does not reach a any more", "its lease was over at 12:00:02.000",
		"chosen: b has received up to orders@3.42; 1 of 2 in the set were heard; loss: none",
		"(detect 1.5s, lease 500ms, fence 10ms, commit 50ms, redo 40ms, open 100ms)",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("it lacks %q: %s", want, got)
		}
	}
	byHand := aFailover()
	byHand.Steps, byHand.Started, byHand.Reason = byHand.Steps[2:], byHand.Steps[2].At, "operator"
	if got := account(byHand); strings.Contains(got, "sign of life") || !strings.Contains(got, "done in 200ms. Reason: operator") {
		t.Errorf("by hand: %s", got)
	}
	failed := aFailover()
	failed.State, failed.Error = fsm.OperationFailed, "superseded by a failover: b has ended"
	if got := account(failed); !strings.Contains(got, "ended as failed after 2.2s: superseded by a failover: b has ended. It began because the lease of a ran out") {
		t.Errorf("failed: %s", got)
	}
	over := &fsm.Operation{ID: 8, Kind: fsm.OperationSwitchover, Group: "orders", From: "a", To: "b", State: fsm.OperationDone, Reason: "a is being stopped",
		Started: noon, Ended: noon.Add(90 * time.Millisecond), Steps: steps(fsm.StepPrepare, 0, "", fsm.StepHold, 40, "", fsm.StepDrain, 50, "", fsm.StepOpen, 80, "")}
	if got := account(over); !strings.Contains(got, "done in 90ms, asked for by: a is being stopped; writes waited 40ms") {
		t.Errorf("switch-over: %s", got)
	}
}

// The parts that are published add up to the whole, and only the node that got the role counts.
func TestTimingsCountOnce(t *testing.T) {
	count := func(self ident.NodeID, ops ...*fsm.Operation) map[string]float64 {
		registry := prometheus.NewRegistry()
		x := newTimings(self)
		x.register(registry)
		for _, op := range ops {
			x.completed(op, self)
		}
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		sums := map[string]float64{}
		for _, f := range families {
			for _, m := range f.GetMetric() {
				name := f.GetName()
				for _, l := range m.GetLabel() {
					if l.GetName() == "step" {
						name = l.GetValue()
					}
				}
				if m.GetHistogram().GetSampleCount() > 0 {
					sums[name] = m.GetHistogram().GetSampleSum()
				}
			}
		}
		return sums
	}
	running := aFailover()
	running.State, running.Ended = fsm.OperationRunning, time.Time{}
	if got := count("a", aFailover(), running); len(got) != 0 {
		t.Errorf("the node that lost the role counts %v", got)
	}
	got := count("b", aFailover(), running)
	sum := 0.0
	for name, v := range got {
		if name != stepTotal {
			sum += v
		}
	}
	if len(got) != 7 || got[stepTotal] != 2.2 || sum < 2.1999 || sum > 2.2001 {
		t.Errorf("parts %v add up to %v", got, sum)
	}
}
