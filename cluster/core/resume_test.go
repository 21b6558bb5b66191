package core

import (
	"fmt"
	"testing"
	"time"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
)

// story plays the nodes of a group in the middle of an operation: each living one does what is its turn, a manager decides.
// Nobody remembers anything but the state, so any of them may be new at any time.
type story struct {
	*testing.T
	st    *fsm.State
	alive map[ident.NodeID]ident.Incarnation
	twice bool // every command is sent again, as by somebody who did not hear what became of it
	now   time.Time
}

// send proposes a command. A refusal is nothing special: others may have been faster.
func (s *story) send(cmd fsm.Command) {
	cmd.Version, cmd.At = fsm.CommandVersion, s.now
	res := s.st.Apply(cmd)
	if !s.twice || res.Refused != "" {
		return
	}
	epoch := s.st.Groups[group].Epoch
	s.st.Apply(cmd)
	if now := s.st.Groups[group].Epoch; now != epoch && cmd.Fence == nil {
		s.Fatalf("sent twice, %+v takes two epochs", cmd)
	}
}

// manage lets a new Raft leader decide once: it has no memory, and has waited for what it waits for.
func (s *story) manage() {
	g := s.st.Groups[group]
	_, primaryLives := s.alive[g.Primary]
	silent := func(n ident.NodeID) bool { _, ok := s.alive[n]; return !ok }
	v := View{State: s.st.Snapshot(), Now: s.now, Dead: silent, Silent: silent,
		Groups: map[ident.GroupName]GroupView{group: {Covered: primaryLives && s.st.Nodes[g.Primary].Lives(g.Incarnation), Waited: true}}}
	for _, cmd := range Decide(v) {
		s.send(cmd)
	}
}

// act lets a node do the next thing that is its to do.
func (s *story) act(n ident.NodeID) {
	life, ok := s.alive[n]
	if !ok {
		return
	}
	g := s.st.Groups[group]
	op := g.Operation
	var living []ident.NodeID
	for id := range s.alive {
		living = append(living, id)
	}
	last := ident.Position{Epoch: g.OpenEpoch, History: g.History.Last().SW + 4}
	switch {
	case g.AcceptsPromise(s.st.Nodes[n], life, g.Epoch):
		if r, done := g.ReportOf(n); !done || r.Incarnation != life {
			s.send(fsm.Command{Promise: &fsm.Promise{Group: group, Report: fsm.Report{Node: n, Epoch: g.Epoch, Incarnation: life, Received: last}}})
		}
	case g.Phase == fsm.PhasePromoted && g.Holds(n, life):
		s.send(fsm.Command{Open: &fsm.Open{Group: group, Epoch: g.Epoch, Node: n, Incarnation: life, InSync: living,
			Rows: []ident.HistoryRow{{Epoch: g.Epoch, Node: n, SW: last.History + 1}}}})
	case op == nil || op.Kind != fsm.OperationSwitchover:
	case op.Committed && g.Holds(n, life):
		s.send(fsm.Command{FinishSwitch: &fsm.FinishSwitch{Group: group, Operation: op.ID, Node: n, First: 9}})
	case op.Step == fsm.StepPrepare && op.To == n:
		s.send(fsm.Command{AdvanceSwitch: &fsm.AdvanceSwitch{Group: group, Operation: op.ID, From: fsm.StepPrepare, Node: n}})
	case op.Step == fsm.StepHold && g.Holds(n, life):
		s.send(fsm.Command{AdvanceSwitch: &fsm.AdvanceSwitch{Group: group, Operation: op.ID, From: fsm.StepHold, Node: n}})
	case op.Step == fsm.StepDrain && g.Holds(n, life):
		s.send(fsm.Command{Handover: &fsm.Handover{Group: group, Operation: op.ID, Epoch: g.Epoch, From: n, FromLife: life, To: op.To,
			Incarnation: s.st.Nodes[op.To].Incarnation, Last: last, InSync: living}})
	}
}

// TestOperationsEnd lets every operation, at every step, meet every fault, under leaders that know nothing but the state and
// with every command sent once or twice. It ends: done, or rolled back before its commit point. Proves I10, CL-7.
func TestOperationsEnd(t *testing.T) {
	begin := map[fsm.OperationKind]fsm.Command{
		fsm.OperationSwitchover: {StartSwitch: &fsm.StartSwitch{Group: group, Epoch: 1, To: "b", MaxPause: time.Second, Deadline: time.Unix(1060, 0)}},
		fsm.OperationFailover:   {Fence: &fsm.Fence{Group: group, Epoch: 1, Force: true, To: "b", Reason: "operator"}},
	}
	faults := map[string]func(*story){
		"none":             func(*story) {},
		"target dies":      func(s *story) { s.kill("b") },
		"source dies":      func(s *story) { s.kill("a") },
		"target restarts":  func(s *story) { s.restart("b") },
		"source restarts":  func(s *story) { s.restart("a") },
		"both restart":     func(s *story) { s.restart("a"); s.restart("b") },
		"paused meanwhile": func(s *story) { s.send(fsm.Command{SetPause: &fsm.SetPause{On: true, Reason: "r"}}) },
		"too late":         func(s *story) { s.now = s.now.Add(time.Hour) },
	}
	for kind, first := range begin {
		for name, fault := range faults {
			for steps := range 9 {
				for _, twice := range []bool{false, true} {
					t.Run(fmt.Sprintf("%s/%s after %d/twice=%v", kind, name, steps, twice), func(t *testing.T) {
						s := &story{T: t, st: opened(t), alive: map[ident.NodeID]ident.Incarnation{"a": 1, "b": 2, "c": 3}, twice: twice, now: time.Unix(1000, 0)}
						s.send(first)
						nodes := []ident.NodeID{"c", "b", "a"}
						for i := range steps {
							if i%4 == 3 {
								s.manage()
							} else {
								s.act(nodes[i%4])
							}
						}
						fault(s)
						for round := 0; ; round++ {
							g := s.st.Groups[group]
							if g.Phase == fsm.PhaseOpened && g.Operation == nil && s.st.Nodes[g.Primary].Lives(g.Incarnation) {
								break
							}
							if round == 50 {
								t.Fatalf("it never ends: %s at epoch %s, primary %s, operation %+v", g.Phase, g.Epoch, g.Primary, g.Operation)
							}
							s.manage()
							for _, n := range nodes {
								s.act(n)
							}
						}
						s.judge(name)
					})
				}
			}
		}
	}
}

func (s *story) kill(n ident.NodeID) {
	s.send(fsm.Command{Release: &fsm.Release{Node: n, Incarnation: s.alive[n]}})
	delete(s.alive, n)
}

func (s *story) restart(n ident.NodeID) {
	s.alive[n] += 100
	s.send(renewal(0, n, s.alive[n]))
}

// judge checks the end against the first operation: it is over, and what is primary fits how it ended.
func (s *story) judge(fault string) {
	op, ok := s.st.Operation(1)
	if !ok || op.State == fsm.OperationRunning || op.Ended.IsZero() {
		s.Fatalf("operation 1: %+v", op)
	}
	g := s.st.Groups[group]
	if op.State == fsm.OperationRolledBack && op.Committed || op.State == fsm.OperationFailed && !op.Committed || op.State == fsm.OperationDone && !op.Committed {
		s.Errorf("%s, committed %v: %+v", op.State, op.Committed, op)
	}
	if fault == "none" && (op.State != fsm.OperationDone || g.Primary != "b") {
		s.Errorf("without a fault it ended as %s at %s: %s", op.State, g.Primary, op.Error)
	}
	if op.State == fsm.OperationRolledBack && fault == "target dies" && (g.Primary != "a" || g.Epoch != 1) {
		s.Errorf("rolled back to %s at epoch %s", g.Primary, g.Epoch)
	}
	if _, lives := s.alive[g.Primary]; !lives {
		s.Errorf("%s is primary and dead", g.Primary)
	}
	certs := map[ident.Epoch]int{}
	for _, c := range g.Switches {
		certs[c.Epoch]++
	}
	if certs[g.Epoch] != 1 {
		s.Errorf("%d certificates of epoch %s", certs[g.Epoch], g.Epoch)
	}
}
