package node

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
)

// contest is a group whose primary a has failed, with a living secondary b.
func contest(phase fsm.Phase) fsm.Assignment {
	a := assignment(phase)
	for id, n := range a.Nodes {
		n.Incarnation = 7
		if id != "a" {
			n.Incarnation = 8
		}
	}
	return a
}

func everybody(ident.NodeID) bool { return true }
func nobody(ident.NodeID) bool    { return false }

func failed(n int) trial {
	t := trial{}
	t.begin(3, time.Unix(0, 0))
	for range n {
		t.fail(errors.New("no way"), time.Millisecond)
	}
	return t
}

// Proves that attempts in a row are counted, that they slow down, and that a long one begins a new row.
func TestTrialCounts(t *testing.T) {
	start := time.Unix(0, 0)
	var x trial
	if x.verdict(start.Add(time.Hour)) != "" {
		t.Error("a node that was never primary is condemned")
	}
	x.begin(3, start)
	for _, want := range []time.Duration{retryRole, 2 * retryRole, 4 * retryRole, 8 * retryRole} {
		if got := x.fail(errors.New("no way"), time.Millisecond); got != want || x.verdict(start) != "" {
			t.Fatalf("waits %s, want %s; %q", got, want, x.verdict(start))
		}
	}
	x.begin(3, start) // the next attempt at the same epoch
	x.fail(errors.New("no way"), time.Millisecond)
	if got := x.verdict(start); got != "failed 5 times as primary of epoch 3: no way" {
		t.Errorf("verdict %q", got)
	}
	if got := failed(100); got.fail(errors.New("x"), 0) != retrySlow {
		t.Error("the wait is not bounded")
	}
	if x.fail(errors.New("no way"), steady); x.failed != 1 || x.verdict(start) != "" {
		t.Errorf("%d in a row after an attempt that lasted", x.failed)
	}
	if got := x.verdict(start.Add(slow)); !strings.Contains(got, "without serving") {
		t.Errorf("verdict %q of a takeover that never ended", got)
	}
	handed := contest(fsm.PhaseOpened)
	handed.Group.Operation = &fsm.Operation{Kind: fsm.OperationSwitchover, Committed: true}
	if x.see(handed.Group); x.served {
		t.Error("handed over, and the takeover is not finished")
	}
	if x.see(contest(fsm.PhaseOpened).Group); x.verdict(start.Add(slow)) != "" {
		t.Error("it has served")
	}
	if x.begin(4, start); x.failed != 0 || x.served {
		t.Error("another epoch is another trial")
	}
}

// Proves that a primary that fails gives its role up only where another could take it: it never flaps alone.
func TestResignation(t *testing.T) {
	for _, c := range []struct {
		name  string
		trial trial
		alive func(ident.NodeID) bool
		edit  func(*fsm.Assignment)
		want  bool
	}{
		{name: "failed often enough", trial: failed(maxFailed), alive: everybody, want: true},
		{name: "not yet", trial: failed(maxFailed - 1), alive: everybody},
		{name: "nobody else lives", trial: failed(maxFailed), alive: nobody},
		{name: "nobody else in the set", trial: failed(maxFailed), alive: everybody, edit: func(a *fsm.Assignment) { a.Group.InSync = []ident.NodeID{"a"} }},
		{name: "the other is unable", trial: failed(maxFailed), alive: everybody, edit: func(a *fsm.Assignment) {
			a.Group.Reports = []fsm.Report{{Node: "b", Epoch: 3, Incarnation: 8, Unable: "its disk"}}
		}},
		{name: "roles do not move by themselves", trial: failed(maxFailed), alive: everybody, edit: func(a *fsm.Assignment) { a.Group.Spec.AutoFailover = fsm.FailoverOff }},
		{name: "another epoch", trial: failed(maxFailed), alive: everybody, edit: func(a *fsm.Assignment) { a.Group.Epoch = 4 }},
		{name: "primary no more", trial: failed(maxFailed), alive: everybody, edit: func(a *fsm.Assignment) { a.Group.Primary = "b" }},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := contest(fsm.PhasePromoted)
			if c.edit != nil {
				c.edit(&a)
			}
			f := resignation(a, c.trial, c.alive)
			if (f != nil) != c.want {
				t.Fatalf("got %+v", f)
			}
			if f != nil && (!f.Force || f.Epoch != 3 || f.Reason != "a failed 5 times as primary of epoch 3: no way") {
				t.Fatalf("got %+v", f)
			}
		})
	}
}

// Proves that the promise after a failed primary role says so, and only then.
func TestUnable(t *testing.T) {
	now := time.Unix(1, 0)
	fenced := func() fsm.Assignment {
		a := contest(fsm.PhaseFenced)
		a.Group.Epoch = 4
		return a
	}
	if got := unable(fenced(), failed(maxFailed), now, everybody); !strings.HasPrefix(got, "failed 5 times") {
		t.Errorf("got %q", got)
	}
	if got := unable(fenced(), failed(1), now, everybody); got != "" {
		t.Errorf("one failure: %q", got)
	}
	if got := unable(fenced(), trial{}, now, everybody); got != "" {
		t.Errorf("never primary: %q", got)
	}
	if got := unable(fenced(), failed(maxFailed), now, nobody); got != "" {
		t.Errorf("nobody else could be chosen: %q", got)
	}
	a := fenced()
	a.Group.Primary = "b" // somebody was primary since
	if got := unable(a, failed(maxFailed), now, everybody); got != "" {
		t.Errorf("an old story: %q", got)
	}
}

// Proves that a failover to the serving primary is recognised.
func TestServesAlready(t *testing.T) {
	a := contest(fsm.PhaseOpened)
	if !servesAlready(a.Group, a.Nodes["a"]) || servesAlready(a.Group, a.Nodes["b"]) {
		t.Error("a serves, b does not")
	}
	if a := contest(fsm.PhasePromoted); servesAlready(a.Group, a.Nodes["a"]) {
		t.Error("promoted is not serving")
	}
	a.Nodes["a"].Released = true
	if servesAlready(a.Group, a.Nodes["a"]) {
		t.Error("its life is over")
	}
	a = contest(fsm.PhaseOpened)
	a.Nodes["a"].Incarnation = 9
	if servesAlready(a.Group, a.Nodes["a"]) {
		t.Error("another life was promoted")
	}
}
