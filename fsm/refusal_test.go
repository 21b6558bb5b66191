package fsm

import (
	"strings"
	"testing"
	"time"

	"github.com/understudy-ha/understudy/internal/ident"
)

// released lets b's life end.
func released(f *fixture) *fixture {
	f.must(Command{Release: &Release{Node: "b", Incarnation: lifeB}})
	return f
}

// async makes the group of a fixture one that is delivered asynchronously, whatever set it has.
func async(in func(testing.TB) *fixture) func(testing.TB) *fixture {
	return func(t testing.TB) *fixture {
		f := in(t)
		f.edit(func(g *Group) { g.Spec.Delivery = DeliveryAsync })
		return f
	}
}

func (f *fixture) edit(change func(*Group)) {
	g := *f.group()
	change(&g)
	f.putGroup(&g)
}

// change copies a command's body and changes the copy.
func change[T any](v *T, f func(*T)) *T {
	c := *v
	f(&c)
	return &c
}

// TestRefusals has a row for every way in which a command is refused. A refused command must change nothing but Applied,
// not even when it is repeated. Proves CL-1, CL-7.
func TestRefusals(t *testing.T) {
	none := func(t testing.TB) *fixture { return &fixture{TB: t, State: new(State), clock: noon} }
	torn := func(t testing.TB) *fixture {
		f := fenced(t)
		f.must(Command{Promise: &Promise{Group: "g", Report: Report{Node: "b", Epoch: 2, Incarnation: lifeB, Received: position(1, 9), Torn: true}}})
		return f
	}
	reg := func(f func(*RegisterNode)) Command {
		return Command{RegisterNode: change(register("a", KindData).RegisterNode, f)}
	}
	group := func(life ident.Incarnation, f func(*GroupSpec)) Command {
		s := spec("h", "a")
		f(&s)
		return Command{CreateGroup: &CreateGroup{Spec: s, Incarnation: life}}
	}
	fence := func(f func(*Fence)) Command {
		return Command{Fence: change(&Fence{Group: "g", Epoch: 1, Renewal: 1}, f)}
	}
	promise := func(f func(*Report)) Command {
		return Command{Promise: &Promise{Group: "g", Report: *change(&Report{Node: "b", Epoch: 2, Incarnation: lifeB}, f)}}
	}
	promote := func(f func(*Promote)) Command {
		return Command{Promote: change(&Promote{Group: "g", Epoch: 2, To: "b", Incarnation: lifeB}, f)}
	}
	open := func(f func(*Open)) Command {
		return Command{Open: change(&Open{Group: "g", Epoch: 2, Node: "b", Incarnation: lifeB, Rows: []ident.HistoryRow{row(2, "b", 10)}, InSync: []ident.NodeID{"b"}}, f)}
	}
	set := func(f func(*ChangeSet)) Command {
		return Command{ChangeSet: change(&ChangeSet{Group: "g", Epoch: 1, Version: 2, Add: "c"}, f)}
	}
	start := func(f func(*StartSwitch)) Command {
		return Command{StartSwitch: change(&StartSwitch{Group: "g", Epoch: 1, To: "b", MaxPause: time.Second, Deadline: noon}, f)}
	}
	advance := func(f func(*AdvanceSwitch)) Command {
		return Command{AdvanceSwitch: change(&AdvanceSwitch{Group: "g", Operation: 1, From: StepDrain}, f)}
	}
	hand := func(f func(*Handover)) Command { return Command{Handover: change(handoverToB(), f)} }
	finish := func(f func(*FinishSwitch)) Command {
		return Command{FinishSwitch: change(&FinishSwitch{Group: "g", Operation: 1, Node: "b", First: 5}, f)}
	}
	abort := func(id uint64) Command { return Command{AbortSwitch: &AbortSwitch{Group: "g", Operation: id}} }
	plan := func(f func(*ScheduleSwitch)) Command { return Command{ScheduleSwitch: change(planToB(), f)} }
	delay := func(f func(*DelaySchedule)) Command {
		return Command{DelaySchedule: change(&DelaySchedule{Group: "g", Operation: 1, Waits: "w"}, f)}
	}
	cancel := func(f func(*CancelSchedule)) Command {
		return Command{CancelSchedule: change(&CancelSchedule{Group: "g", Operation: 1, Outcome: ScheduleCanceled, Reason: "r"}, f)}
	}
	renew := func(n, dir string, life ident.Incarnation) Command {
		return Command{Renew: &Renew{Node: ident.NodeID(n), Directory: ident.DirectoryID(dir), Incarnation: life}}
	}

	for _, c := range []struct {
		name string
		in   func(testing.TB) *fixture
		c    Command
		want string
	}{
		{"no kind", opened, Command{}, RefusedVersion},
		{"two kinds", opened, Command{Release: &Release{}, Renew: &Renew{}}, RefusedInvalid},
		{"before the cluster", none, register("a", KindData), RefusedUnknown},
		{"cluster without id", none, Command{CreateCluster: &CreateCluster{}}, RefusedInvalid},
		{"second cluster", opened, Command{CreateCluster: &CreateCluster{Cluster: "other", Name: "demo"}}, RefusedExists},
		{"cluster of another name", opened, Command{CreateCluster: &CreateCluster{Cluster: "id", Name: "other"}}, RefusedExists},

		{"node without name", opened, reg(func(r *RegisterNode) { r.ID = "" }), RefusedInvalid},
		{"node with a path", opened, reg(func(r *RegisterNode) { r.ID = "../x" }), RefusedInvalid},
		{"node without directory", opened, reg(func(r *RegisterNode) { r.Directory = "" }), RefusedInvalid},
		{"node of no kind", opened, reg(func(r *RegisterNode) { r.Kind = "" }), RefusedInvalid},
		{"node with another directory", opened, reg(func(r *RegisterNode) { r.Directory = "dir-x" }), RefusedDirectory},
		{"directory of another node", opened, reg(func(r *RegisterNode) { r.ID = "d" }), RefusedDirectory},
		{"node of another kind", opened, reg(func(r *RegisterNode) { r.Kind = KindWitness }), RefusedExists},

		{"renew unknown", opened, renew("x", "dir-x", 1), RefusedUnknown},
		{"renew from elsewhere", opened, renew("a", "dir-b", lifeA), RefusedDirectory},
		{"renew without life", opened, renew("a", "dir-a", 0), RefusedInvalid},
		{"renew a released life", func(t testing.TB) *fixture { return released(opened(t)) }, renew("b", "dir-b", lifeB), RefusedIncarnation},
		{"renew a past life", func(t testing.TB) *fixture {
			f := opened(t)
			f.renew("a", 0xa2)
			return f
		}, renew("a", "dir-a", lifeA), RefusedIncarnation},
		{"release unknown", opened, Command{Release: &Release{Node: "x", Incarnation: 1}}, RefusedUnknown},
		{"release another life", opened, Command{Release: &Release{Node: "a", Incarnation: 1}}, RefusedIncarnation},
		{"leave unknown", opened, Command{Leave: &Leave{Node: "x", Incarnation: 1}}, RefusedUnknown},
		{"leave another life", opened, Command{Leave: &Leave{Node: "a", Incarnation: 1}}, RefusedIncarnation},
		{"leave without life", opened, Command{Leave: &Leave{Node: "w"}}, RefusedIncarnation},
		{"leave when released", func(t testing.TB) *fixture { return released(opened(t)) }, Command{Leave: &Leave{Node: "b", Incarnation: lifeB}}, RefusedIncarnation},
		{"release nothing", opened, Command{Release: &Release{Node: "w"}}, RefusedIncarnation},

		{"group without name", opened, group(lifeA, func(s *GroupSpec) { s.Name = "" }), RefusedInvalid},
		{"group with another spec", opened, group(lifeA, func(s *GroupSpec) { s.Name, s.Secondaries = "g", 2 }), RefusedExists},
		{"group of nobody", opened, group(lifeA, func(s *GroupSpec) { s.Preferred = "" }), RefusedUnknown},
		{"group of a witness", opened, group(lifeA, func(s *GroupSpec) { s.Preferred = "w" }), RefusedUnknown},
		{"group of another life", opened, group(lifeB, func(s *GroupSpec) {}), RefusedIncarnation},
		{"group of a node that never renewed", func(t testing.TB) *fixture {
			f := opened(t)
			f.must(register("d", KindData))
			return f
		}, group(0, func(s *GroupSpec) { s.Preferred = "d" }), RefusedIncarnation},

		{"fence unknown", opened, fence(func(f *Fence) { f.Group = "x" }), RefusedUnknown},
		{"fence another epoch", opened, fence(func(f *Fence) { f.Epoch = 2 }), RefusedEpoch},
		{"fence after a renewal", opened, fence(func(f *Fence) { f.Renewal = 0 }), RefusedRenewed},
		{"fence a promoted node after a renewal", promoted, fence(func(f *Fence) { f.Epoch, f.Renewal = 2, 7 }), RefusedRenewed},
		{"fence to unknown", opened, fence(func(f *Fence) { f.To = "x" }), RefusedUnknown},
		{"fence to a witness", opened, fence(func(f *Fence) { f.To = "w" }), RefusedUnknown},
		{"fence to a standby", opened, fence(func(f *Fence) { f.To = "c" }), RefusedCandidate},

		{"promise of unknown group", fenced, Command{Promise: &Promise{Group: "x"}}, RefusedUnknown},
		{"promise of unknown node", fenced, promise(func(r *Report) { r.Node = "x" }), RefusedUnknown},
		{"promise of a witness", fenced, promise(func(r *Report) { r.Node = "w" }), RefusedUnknown},
		{"promise of another life", fenced, promise(func(r *Report) { r.Incarnation = lifeA }), RefusedIncarnation},
		{"promise of a released life", func(t testing.TB) *fixture { return released(fenced(t)) }, promise(func(*Report) {}), RefusedIncarnation},
		{"promise of another epoch", fenced, promise(func(r *Report) { r.Epoch = 1 }), RefusedEpoch},
		{"promise to an open group", opened, promise(func(r *Report) { r.Epoch = 1 }), RefusedEpoch},
		{"promise after the choice", promoted, promise(func(*Report) {}), RefusedEpoch},

		{"promote in unknown group", fenced, promote(func(p *Promote) { p.Group = "x" }), RefusedUnknown},
		{"promote in an open group", opened, promote(func(p *Promote) { p.Epoch = 1 }), RefusedEpoch},
		{"promote at another epoch", fenced, promote(func(p *Promote) { p.Epoch = 3 }), RefusedEpoch},
		{"promote twice", promoted, promote(func(*Promote) {}), RefusedEpoch},
		{"promote unknown", fenced, promote(func(p *Promote) { p.To = "x" }), RefusedUnknown},
		{"promote a witness", fenced, promote(func(p *Promote) { p.To = "w" }), RefusedUnknown},
		{"promote another life", fenced, promote(func(p *Promote) { p.Incarnation = lifeA }), RefusedIncarnation},
		{"promote without promise", fenced, promote(func(*Promote) {}), RefusedCandidate},
		{"promote with a promise of an earlier life", func(t testing.TB) *fixture {
			f := fenced(t)
			f.report("b", lifeB, position(1, 9))
			f.renew("b", 0xb2)
			return f
		}, promote(func(p *Promote) { p.Incarnation = 0xb2 }), RefusedCandidate},
		{"promote with a promise of an earlier epoch", func(t testing.TB) *fixture {
			f := fenced(t)
			f.report("b", lifeB, position(1, 9))
			f.must(Command{Fence: &Fence{Group: "g", Epoch: 2}})
			return f
		}, promote(func(p *Promote) { p.Epoch = 3 }), RefusedCandidate},
		{"promote a standby", func(t testing.TB) *fixture {
			f := fenced(t)
			f.report("c", lifeC, position(1, 9))
			return f
		}, promote(func(p *Promote) { p.To, p.Incarnation = "c", lifeC }), RefusedCandidate},
		{"promote somebody else than asked for", func(t testing.TB) *fixture {
			f := opened(t)
			f.must(Command{Fence: &Fence{Group: "g", Epoch: 1, Force: true, To: "c", AllowLoss: true}})
			f.report("b", lifeB, position(1, 9))
			return f
		}, promote(func(*Promote) {}), RefusedCandidate},
		{"promote a torn one uncompared", torn, promote(func(*Promote) {}), RefusedCandidate},
		{"promote a torn one that is behind", func(t testing.TB) *fixture {
			f := torn(t)
			f.report("a", lifeA, position(1, 10))
			return f
		}, promote(func(*Promote) {}), RefusedCandidate},
		{"promote a torn one compared with a standby", func(t testing.TB) *fixture {
			f := torn(t)
			f.report("c", lifeC, position(1, 9))
			return f
		}, promote(func(*Promote) {}), RefusedCandidate},
		{"promote below a committed end", func(t testing.TB) *fixture {
			f := fenced(t)
			f.report("b", lifeB, position(1, 9))
			f.must(Command{Promise: &Promise{Group: "g", Report: Report{Node: "c", Epoch: 2, Incarnation: lifeC, Committed: position(1, 10)}}})
			return f
		}, promote(func(*Promote) {}), RefusedCandidate},

		{"open unknown", promoted, open(func(o *Open) { o.Group = "x" }), RefusedUnknown},
		{"open a fenced group", fenced, open(func(*Open) {}), RefusedEpoch},
		{"open an open group", opened, open(func(o *Open) { o.Epoch = 1 }), RefusedEpoch},
		{"open another epoch", promoted, open(func(o *Open) { o.Epoch = 1 }), RefusedEpoch},
		{"open by another node", promoted, open(func(o *Open) { o.Node, o.Incarnation = "a", lifeA }), RefusedCandidate},
		{"open by another life", promoted, open(func(o *Open) { o.Incarnation = 0xb2 }), RefusedIncarnation},
		{"open by a life that is over", func(t testing.TB) *fixture {
			f := promoted(t)
			f.renew("b", 0xb2)
			return f
		}, open(func(*Open) {}), RefusedIncarnation},
		{"open by the next life", func(t testing.TB) *fixture {
			f := promoted(t)
			f.renew("b", 0xb2)
			return f
		}, open(func(o *Open) { o.Incarnation = 0xb2 }), RefusedIncarnation},
		{"open by a released life", func(t testing.TB) *fixture { return released(promoted(t)) }, open(func(*Open) {}), RefusedIncarnation},
		{"open without rows", promoted, open(func(o *Open) { o.Rows = nil }), RefusedInvalid},
		{"open with the row of another epoch", promoted, open(func(o *Open) { o.Rows = []ident.HistoryRow{row(3, "b", 10)} }), RefusedInvalid},
		{"open with the row of another node", promoted, open(func(o *Open) { o.Rows = []ident.HistoryRow{row(2, "a", 10)} }), RefusedInvalid},
		{"open moving an old row", promoted, open(func(o *Open) { o.Rows = []ident.HistoryRow{row(1, "a", 2), row(2, "b", 10)} }), RefusedInvalid},
		{"open without itself", promoted, open(func(o *Open) { o.InSync = []ident.NodeID{"a"} }), RefusedInvalid},
		{"open with a witness", promoted, open(func(o *Open) { o.InSync = []ident.NodeID{"b", "w"} }), RefusedUnknown},
		{"open with a stranger", promoted, open(func(o *Open) { o.InSync = []ident.NodeID{"b", "x"} }), RefusedUnknown},

		{"set of unknown group", opened, set(func(s *ChangeSet) { s.Group = "x" }), RefusedUnknown},
		{"set at another epoch", opened, set(func(s *ChangeSet) { s.Epoch = 2 }), RefusedEpoch},
		{"set of an older epoch after a fence", fenced, set(func(*ChangeSet) {}), RefusedEpoch},
		{"set while fenced", fenced, set(func(s *ChangeSet) { s.Epoch = 2 }), RefusedEpoch},
		{"set while promoted", promoted, set(func(s *ChangeSet) { s.Epoch = 2 }), RefusedEpoch},
		{"set at another version", opened, set(func(s *ChangeSet) { s.Version = 1 }), RefusedSet},
		{"set change of nobody", opened, set(func(s *ChangeSet) { s.Add = "" }), RefusedInvalid},
		{"set change of two", opened, set(func(s *ChangeSet) { s.Remove = "b" }), RefusedInvalid},
		{"set without primary", opened, set(func(s *ChangeSet) { s.Add, s.Remove = "", "a" }), RefusedInvalid},
		{"set loses a stranger", opened, set(func(s *ChangeSet) { s.Add, s.Remove = "", "c" }), RefusedInvalid},
		{"set gains a member", opened, set(func(s *ChangeSet) { s.Add = "b" }), RefusedInvalid},
		{"set of an async group gains a member", async(opened), set(func(*ChangeSet) {}), RefusedInvalid},
		{"open an async group with another", async(promoted), open(func(o *Open) { o.InSync = []ident.NodeID{"b", "a"} }), RefusedInvalid},
		{"hand an async group over with another", async(draining), hand(func(*Handover) {}), RefusedInvalid},
		{"fence an async group to another, loss not allowed", async(opened), fence(func(f *Fence) { f.To = "b" }), RefusedCandidate},
		{"promote an unable one", func(t testing.TB) *fixture {
			f := fenced(t)
			f.must(promise(func(r *Report) { r.Unable = "its disk" }))
			return f
		}, promote(func(*Promote) {}), RefusedCandidate},
		{"set gains a witness", opened, set(func(s *ChangeSet) { s.Add = "w" }), RefusedUnknown},

		{"switch unknown group", opened, start(func(s *StartSwitch) { s.Group = "x" }), RefusedUnknown},
		{"switch to unknown", opened, start(func(s *StartSwitch) { s.To = "x" }), RefusedUnknown},
		{"switch at another epoch", opened, start(func(s *StartSwitch) { s.Epoch = 2 }), RefusedEpoch},
		{"switch a fenced group", fenced, start(func(s *StartSwitch) { s.Epoch = 2 }), RefusedEpoch},
		{"switch twice", draining, start(func(*StartSwitch) {}), RefusedBusy},
		{"switch to the primary", opened, start(func(s *StartSwitch) { s.To = "a" }), RefusedInvalid},
		{"switch to the dead", func(t testing.TB) *fixture { return released(opened(t)) }, start(func(*StartSwitch) {}), RefusedCandidate},
		{"switch without pause", opened, start(func(s *StartSwitch) { s.MaxPause = 0 }), RefusedInvalid},
		{"switch without deadline", opened, start(func(s *StartSwitch) { s.Deadline = time.Time{} }), RefusedInvalid},
		{"advance unknown group", draining, advance(func(a *AdvanceSwitch) { a.Group = "x" }), RefusedUnknown},
		{"advance nothing", opened, advance(func(*AdvanceSwitch) {}), RefusedOperation},
		{"advance another", draining, advance(func(a *AdvanceSwitch) { a.Operation = 2 }), RefusedOperation},
		{"advance a failover", fenced, advance(func(*AdvanceSwitch) {}), RefusedOperation},
		{"advance from a step that is over", draining, advance(func(a *AdvanceSwitch) { a.From = StepHold }), RefusedOperation},
		{"advance over the commit point", draining, advance(func(*AdvanceSwitch) {}), RefusedOperation},
		{"advance after the commit point", handed, advance(func(a *AdvanceSwitch) { a.From = StepOpen }), RefusedOperation},

		{"hand over unknown group", draining, hand(func(h *Handover) { h.Group = "x" }), RefusedUnknown},
		{"hand over without operation", opened, hand(func(*Handover) {}), RefusedOperation},
		{"hand over another operation", draining, hand(func(h *Handover) { h.Operation = 2 }), RefusedOperation},
		{"hand over too early", func(t testing.TB) *fixture {
			f := opened(t)
			f.must(start(func(*StartSwitch) {}))
			return f
		}, hand(func(*Handover) {}), RefusedOperation},
		{"hand over twice", handed, hand(func(h *Handover) { h.Epoch = 2 }), RefusedOperation},
		{"hand over after an abort", func(t testing.TB) *fixture {
			f := draining(t)
			f.must(abort(1))
			return f
		}, hand(func(*Handover) {}), RefusedOperation},
		{"hand over after a fence", func(t testing.TB) *fixture {
			f := draining(t)
			f.must(fence(func(f *Fence) {}))
			return f
		}, hand(func(*Handover) {}), RefusedOperation},
		{"hand over another epoch", draining, hand(func(h *Handover) { h.Epoch = 2 }), RefusedEpoch},
		{"hand over by another node", draining, hand(func(h *Handover) { h.From = "c" }), RefusedEpoch},
		{"hand over by another life", draining, hand(func(h *Handover) { h.FromLife = 0xa2 }), RefusedIncarnation},
		{"hand over to another node", draining, hand(func(h *Handover) { h.To, h.Incarnation = "c", lifeC }), RefusedOperation},
		{"hand over to unknown", draining, hand(func(h *Handover) { h.To = "x" }), RefusedUnknown},
		{"hand over to another life", draining, hand(func(h *Handover) { h.Incarnation = 0xb2 }), RefusedIncarnation},
		{"hand over to a released life", func(t testing.TB) *fixture { return released(draining(t)) }, hand(func(*Handover) {}), RefusedIncarnation},
		{"hand over without an end", draining, hand(func(h *Handover) { h.Last = ident.Position{} }), RefusedInvalid},
		{"hand over at an end of another epoch", draining, hand(func(h *Handover) { h.Last = position(2, 9) }), RefusedInvalid},
		{"hand over without the new primary", draining, hand(func(h *Handover) { h.InSync = []ident.NodeID{"a"} }), RefusedInvalid},
		{"hand over with a stranger", draining, hand(func(h *Handover) { h.InSync = []ident.NodeID{"b", "x"} }), RefusedUnknown},

		{"abort unknown group", draining, Command{AbortSwitch: &AbortSwitch{Group: "x"}}, RefusedUnknown},
		{"abort nothing", opened, abort(1), RefusedOperation},
		{"abort another", draining, abort(2), RefusedOperation},
		{"abort a failover", fenced, abort(1), RefusedOperation},
		{"abort after the commit point", handed, abort(1), RefusedOperation},
		{"finish unknown group", handed, finish(func(f *FinishSwitch) { f.Group = "x" }), RefusedUnknown},
		{"finish nothing", opened, finish(func(*FinishSwitch) {}), RefusedOperation},
		{"finish before the commit point", draining, finish(func(*FinishSwitch) {}), RefusedOperation},
		{"schedule in unknown group", opened, plan(func(c *ScheduleSwitch) { c.Group = "x" }), RefusedUnknown},
		{"schedule to unknown", opened, plan(func(c *ScheduleSwitch) { c.To = "x" }), RefusedUnknown},
		{"schedule to a witness", opened, plan(func(c *ScheduleSwitch) { c.To = "w" }), RefusedUnknown},
		{"schedule to the primary", opened, plan(func(c *ScheduleSwitch) { c.To = "a" }), RefusedInvalid},
		{"schedule without a time", opened, plan(func(c *ScheduleSwitch) { c.At = time.Time{} }), RefusedInvalid},
		{"schedule without a pause", opened, plan(func(c *ScheduleSwitch) { c.MaxPause = 0 }), RefusedInvalid},
		{"schedule without a reason", opened, plan(func(c *ScheduleSwitch) { c.Reason = "" }), RefusedInvalid},
		{"schedule by a long name", opened, plan(func(c *ScheduleSwitch) { c.By = strings.Repeat("x", maxBy+1) }), RefusedInvalid},
		{"schedule twice", planned, plan(func(c *ScheduleSwitch) { c.To = "c" }), RefusedBusy},
		{"delay in unknown group", planned, delay(func(c *DelaySchedule) { c.Group = "x" }), RefusedUnknown},
		{"delay nothing", opened, delay(func(*DelaySchedule) {}), RefusedOperation},
		{"delay another", planned, delay(func(c *DelaySchedule) { c.Operation = 2 }), RefusedOperation},
		{"delay for nothing", planned, delay(func(c *DelaySchedule) { c.Waits = "" }), RefusedInvalid},
		{"delay at length", planned, delay(func(c *DelaySchedule) { c.Waits = strings.Repeat("x", maxReason+1) }), RefusedInvalid},
		{"cancel in unknown group", planned, cancel(func(c *CancelSchedule) { c.Group = "x" }), RefusedUnknown},
		{"cancel nothing", opened, cancel(func(*CancelSchedule) {}), RefusedOperation},
		{"cancel another", planned, cancel(func(c *CancelSchedule) { c.Operation = 2 }), RefusedOperation},
		{"cancel as started", planned, cancel(func(c *CancelSchedule) { c.Outcome = ScheduleStarted }), RefusedInvalid},
		{"cancel without a reason", planned, cancel(func(c *CancelSchedule) { c.Reason = "" }), RefusedInvalid},
		{"cancel what has begun", begun, cancel(func(*CancelSchedule) {}), RefusedOperation},
		{"abort what has not begun", planned, abort(1), RefusedOperation},
		{"begin what is not scheduled", opened, start(func(s *StartSwitch) { s.Schedule = 1 }), RefusedOperation},
		{"begin another schedule", planned, start(func(s *StartSwitch) { s.Schedule = 2 }), RefusedOperation},
		{"begin a schedule twice", begun, start(func(s *StartSwitch) { s.Schedule = 1 }), RefusedBusy},
		{"begin a schedule again", func(t testing.TB) *fixture {
			f := begun(t)
			f.must(abort(1))
			return f
		}, start(func(s *StartSwitch) { s.Schedule = 1 }), RefusedOperation},
		{"begin a schedule to another node", planned, start(func(s *StartSwitch) { s.Schedule, s.To = 1, "c" }), RefusedInvalid},
		{"begin a schedule with another pause", planned, start(func(s *StartSwitch) { s.Schedule, s.MaxPause = 1, time.Minute }), RefusedInvalid},
		{"begin a schedule as nobody's", planned, start(func(s *StartSwitch) { s.Schedule, s.Automatic = 1, true }), RefusedInvalid},
		{"begin a schedule in a pause", func(t testing.TB) *fixture {
			f := planned(t)
			f.must(Command{SetPause: &SetPause{On: true, Reason: "r"}})
			return f
		}, start(func(s *StartSwitch) { s.Schedule = 1 }), RefusedPaused},
		{"begin a schedule to a node in maintenance", func(t testing.TB) *fixture {
			f := planned(t)
			f.must(Command{SetMaintenance: &SetMaintenance{Node: "b", On: true, Reason: "r"}})
			return f
		}, start(func(s *StartSwitch) { s.Schedule = 1 }), RefusedCandidate},
		{"finish by the old primary", handed, finish(func(f *FinishSwitch) { f.Node = "a" }), RefusedOperation},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := c.in(t)
			before, applied := f.bytes(), f.Applied
			for range 2 {
				r := f.do(c.c)
				if r.Refused != c.want || strings.TrimSpace(r.Detail) == "" {
					t.Fatalf("got %q (%s), want %q", r.Refused, r.Detail, c.want)
				}
			}
			f.Applied -= 2
			if f.Applied != applied || f.bytes() != before {
				t.Fatalf("a refused command changed the state:\n%s\n%s", before, f.bytes())
			}
		})
	}
}

func TestVersions(t *testing.T) {
	f := opened(t)
	for _, v := range []int{0, -1, CommandVersion + 1} {
		if r := f.Apply(Command{Version: v, Release: &Release{Node: "a", Incarnation: lifeA}}); r.Refused != RefusedVersion {
			t.Errorf("version %d: %+v", v, r)
		}
	}
	if f.Nodes["a"].Released {
		t.Error("a command of an unknown version was guessed")
	}
}
