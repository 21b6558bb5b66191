package fsm

import (
	"bytes"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/understudy-ha/understudy/internal/ident"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	lifeA ident.Incarnation = 0xa1
	lifeB ident.Incarnation = 0xb1
	lifeC ident.Incarnation = 0xc1
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// fixture is a state with commands in short.
type fixture struct {
	testing.TB
	*State
	clock time.Time
}

func (f *fixture) do(c Command) Result {
	f.Helper()
	f.clock = f.clock.Add(time.Second)
	c.At, c.Version = f.clock, CommandVersion
	return f.Apply(c)
}

// must applies a command that has to be accepted.
func (f *fixture) must(c Command) Result {
	f.Helper()
	r := f.do(c)
	if r.Refused != "" {
		f.Fatalf("refused: %s: %s", r.Refused, r.Detail)
	}
	return r
}

func (f *fixture) group() *Group { return f.Groups["g"] }

func (f *fixture) renew(n ident.NodeID, life ident.Incarnation) Result {
	return f.do(Command{Renew: &Renew{Node: n, Directory: ident.DirectoryID("dir-" + n), Incarnation: life}})
}

func (f *fixture) bytes() string {
	f.Helper()
	var b bytes.Buffer
	if err := f.Encode(&b); err != nil {
		f.Fatal(err)
	}
	return b.String()
}

func position(e ident.Epoch, h ident.History) ident.Position {
	return ident.Position{Epoch: e, History: h}
}

func row(e ident.Epoch, n ident.NodeID, sw ident.History) ident.HistoryRow {
	return ident.HistoryRow{Epoch: e, Node: n, SW: sw}
}

func register(n ident.NodeID, kind NodeKind) Command {
	return Command{RegisterNode: &RegisterNode{ID: n, Directory: ident.DirectoryID("dir-" + n), Kind: kind, Addresses: Addresses{Raft: string(n) + ":1"}, Priority: 100}}
}

// empty is a cluster with data nodes a, b, c and a witness w; all but w have renewed.
func empty(t testing.TB) *fixture {
	f := &fixture{TB: t, State: new(State), clock: noon}
	f.must(Command{CreateCluster: &CreateCluster{Cluster: "id", Name: "demo"}})
	for _, n := range []ident.NodeID{"a", "b", "c"} {
		f.must(register(n, KindData))
	}
	f.must(register("w", KindWitness))
	f.renew("a", lifeA)
	f.renew("b", lifeB)
	f.renew("c", lifeC)
	return f
}

func spec(name ident.GroupName, preferred ident.NodeID) GroupSpec {
	return GroupSpec{Name: name, Preferred: preferred}
}

// created has the group g, promoted to a at epoch 1.
func created(t testing.TB) *fixture {
	f := empty(t)
	f.must(Command{CreateGroup: &CreateGroup{Spec: spec("g", "a"), Incarnation: lifeA}})
	return f
}

// opened has the group g, served by a at epoch 1 with the set {a, b}.
func opened(t testing.TB) *fixture {
	f := created(t)
	f.must(Command{Open: &Open{Group: "g", Epoch: 1, Node: "a", Incarnation: lifeA, Rows: []ident.HistoryRow{row(1, "a", 1)}, InSync: []ident.NodeID{"b", "a", "b"}}})
	return f
}

// fenced has the group g fenced at epoch 2.
func fenced(t testing.TB) *fixture {
	f := opened(t)
	f.must(Command{Fence: &Fence{Group: "g", Epoch: 1, Renewal: f.Nodes["a"].Renewal, Reason: "a is gone"}})
	return f
}

func (f *fixture) report(n ident.NodeID, life ident.Incarnation, received ident.Position) Result {
	return f.do(Command{Promise: &Promise{Group: "g", Report: Report{Node: n, Epoch: f.group().Epoch, Incarnation: life, Received: received}}})
}

// promoted has the group g promoted to b at epoch 2.
func promoted(t testing.TB) *fixture {
	f := fenced(t)
	f.report("b", lifeB, position(1, 9))
	f.must(Command{Promote: &Promote{Group: "g", Epoch: 2, To: "b", Incarnation: lifeB, Loss: LossNone}})
	return f
}

// draining has the group g in a switch-over to b, at the last step before the commit point.
func draining(t testing.TB) *fixture {
	f := opened(t)
	id := f.must(Command{StartSwitch: &StartSwitch{Group: "g", Epoch: 1, To: "b", MaxPause: time.Second, Deadline: noon.Add(time.Hour), Reason: "maintenance"}}).Operation
	f.must(Command{AdvanceSwitch: &AdvanceSwitch{Group: "g", Operation: id, From: StepPrepare, Node: "b"}})
	f.must(Command{AdvanceSwitch: &AdvanceSwitch{Group: "g", Operation: id, From: StepHold, Node: "a"}})
	return f
}

func handoverToB() *Handover {
	return &Handover{Group: "g", Operation: 1, Epoch: 1, From: "a", FromLife: lifeA, To: "b", Incarnation: lifeB, Last: position(1, 9), InSync: []ident.NodeID{"b", "a"}}
}

// handed has the group g handed over to b at epoch 2.
func handed(t testing.TB) *fixture {
	f := draining(t)
	f.must(Command{Handover: handoverToB()})
	return f
}

func planToB() *ScheduleSwitch {
	return &ScheduleSwitch{Group: "g", To: "b", At: noon.Add(time.Hour), MaxPause: time.Second, Reason: "operator", By: "ann"}
}

// planned has a switch-over of the group g to b scheduled.
func planned(t testing.TB) *fixture {
	f := opened(t)
	f.must(Command{ScheduleSwitch: planToB()})
	return f
}

// begun has it begun.
func begun(t testing.TB) *fixture {
	f := planned(t)
	f.must(Command{StartSwitch: &StartSwitch{Group: "g", Epoch: 1, To: "b", MaxPause: time.Second, Deadline: noon.Add(time.Hour), Schedule: 1}})
	return f
}
