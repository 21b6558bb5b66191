package node

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
)

// timings are the histograms of how long changes of roles took. Only the node that got the role counts one, so sums over
// nodes are right.
type timings struct {
	failover   *prometheus.HistogramVec // by step, and "total"
	switchover prometheus.Histogram     // the pause of writes
}

// stepTotal labels a failover as a whole.
const stepTotal = "total"

func newTimings(node ident.NodeID) *timings {
	own := prometheus.Labels{"node": string(node)}
	return &timings{
		failover: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "understudy_failover_seconds", ConstLabels: own,
			Help:    "Time of the steps of failovers to this node: detect, lease, fence, commit, redo, open, and total.",
			Buckets: []float64{.005, .01, .025, .05, .1, .25, .5, 1, 1.5, 2, 2.5, 3, 4, 6, 10, 30},
		}, []string{"step"}),
		switchover: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "understudy_switchover_pause_seconds", ConstLabels: own,
			Help:    "For how long writes were held by switch-overs to this node.",
			Buckets: []float64{.0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		}),
	}
}

func (t *timings) register(r prometheus.Registerer) { r.MustRegister(t.failover, t.switchover) }

// completed counts a finished operation that led to self.
func (t *timings) completed(op *fsm.Operation, self ident.NodeID) {
	if op.State != fsm.OperationDone || op.To != self {
		return
	}
	if op.Kind == fsm.OperationSwitchover {
		if pause, ok := switchPause(op); ok {
			t.switchover.Observe(pause.Seconds())
		}
		return
	}
	for _, p := range failoverParts(op) {
		t.failover.WithLabelValues(p.name).Observe(p.took.Seconds())
	}
	t.failover.WithLabelValues(stepTotal).Observe(op.Ended.Sub(op.Started).Seconds())
}

// part is one part of an operation, as people speak of it.
type part struct {
	name string
	took time.Duration
}

// failoverParts adds the steps of a failover up to the parts that are published. Choosing and learning of the choice is
// waiting for Raft, so both are "commit". A step that was entered twice counts with both.
func failoverParts(op *fsm.Operation) []part {
	parts := []part{{name: "detect"}, {name: "lease"}, {name: "fence"}, {name: "commit"}, {name: "redo"}, {name: "open"}}
	of := map[string]string{fsm.StepReports: "commit", fsm.StepPromote: "commit", fsm.StepRecover: "redo"}
	for i, s := range op.Steps {
		name, ok := of[s.Name]
		if !ok {
			name = s.Name
		}
		if at := slices.IndexFunc(parts, func(p part) bool { return p.name == name }); at >= 0 {
			parts[at].took += op.Took(i)
		}
	}
	return parts
}

// switchPause is the time from the hold of writes, which the step drain begins with, to the new primary's service.
func switchPause(op *fsm.Operation) (time.Duration, bool) {
	i := slices.IndexFunc(op.Steps, func(s fsm.Step) bool { return s.Name == fsm.StepDrain })
	if i < 0 || op.Ended.IsZero() {
		return 0, false
	}
	return op.Ended.Sub(op.Steps[i].At), true
}

// account tells a finished operation to somebody who was asleep: what was seen, when the lease ended, who was chosen and
// why, what is lost, how long each part took.
func account(op *fsm.Operation) string {
	took := op.Ended.Sub(op.Started).Round(time.Millisecond)
	what := fmt.Sprintf("%s %d of group %s from %s to %s", op.Kind, op.ID, op.Group, op.From, op.To)
	if op.State != fsm.OperationDone {
		return fmt.Sprintf("%s ended as %s after %s: %s. It began because %s", what, op.State, took, op.Error, op.Reason)
	}
	if op.Kind == fsm.OperationSwitchover {
		text := fmt.Sprintf("%s is done in %s, asked for by: %s", what, took, op.Reason)
		if pause, ok := switchPause(op); ok {
			text += fmt.Sprintf("; writes waited %s", pause.Round(100*time.Microsecond))
		}
		return text
	}
	text := fmt.Sprintf("%s is done in %s. Reason: %s", what, took, op.Reason)
	var seen, chosen string
	var ended time.Time
	for _, s := range op.Steps {
		switch s.Name {
		case fsm.StepLease:
			seen = fmt.Sprintf("; noticed at %s: %s", clock(s.At), s.Detail)
		case fsm.StepFence:
			ended = s.At
		case fsm.StepPromote:
			chosen = "; chosen: " + s.Detail
		}
	}
	if seen != "" {
		text += fmt.Sprintf("; last sign of life at %s%s; its lease was over at %s", clock(op.Started), seen, clock(ended))
	}
	text += chosen
	var parts []string
	for _, p := range failoverParts(op) {
		parts = append(parts, p.name+" "+p.took.Round(time.Millisecond).String())
	}
	return text + " (" + strings.Join(parts, ", ") + ")"
}

func clock(t time.Time) string { return t.UTC().Format("15:04:05.000 UTC") }
