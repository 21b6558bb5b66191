package core

import (
	"testing"
	"time"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
)

// opened is a state in which a serves at epoch 1 with b and c in the set.
func opened(t *testing.T) *fsm.State {
	t.Helper()
	st := covered(t)
	must(t, st, fsm.Command{Open: &fsm.Open{Group: group, Epoch: 1, Node: "a", Incarnation: 1, InSync: []ident.NodeID{"a", "b", "c"},
		Rows: []ident.HistoryRow{{Epoch: 1, Node: "a", SW: 1, First: 1}}}})
	return st
}

func must(t *testing.T, st *fsm.State, cmd fsm.Command) fsm.Result {
	t.Helper()
	cmd.Version = fsm.CommandVersion
	res := st.Apply(cmd)
	if res.Refused != "" {
		t.Fatalf("%+v: %+v", cmd, res)
	}
	return res
}

func setSpec(st *fsm.State, f func(*fsm.GroupSpec)) {
	g := *st.Groups[group]
	f(&g.Spec)
	st.Groups = map[ident.GroupName]*fsm.Group{group: &g}
}

func off(s *fsm.GroupSpec) { s.AutoFailover = fsm.FailoverOff }

func promised(n ident.NodeID, life ident.Incarnation, h ident.History) fsm.Command {
	return fsm.Command{Promise: &fsm.Promise{Group: group, Report: fsm.Report{Node: n, Epoch: 2, Incarnation: life, Received: ident.Position{Epoch: 1, History: h}}}}
}

func unable(n ident.NodeID, life ident.Incarnation, h ident.History) fsm.Command {
	cmd := promised(n, life, h)
	cmd.Promise.Report.Unable = "its disk"
	return cmd
}

// Proves CL-7: what is decided in every state of a group.
func TestDecide(t *testing.T) {
	now := time.Unix(1000, 0)
	switching := fsm.Command{StartSwitch: &fsm.StartSwitch{Group: group, Epoch: 1, To: "b", MaxPause: time.Second, Deadline: now.Add(time.Minute)}}
	fenced := fsm.Command{Fence: &fsm.Fence{Group: group, Epoch: 1, Force: true}}
	restarted := renewal(0, "a", 9)
	released := fsm.Command{Release: &fsm.Release{Node: "a", Incarnation: 1}}
	promote := fsm.Command{Promote: &fsm.Promote{Group: group, Epoch: 2, To: "b", Incarnation: 2}}
	promotion := []fsm.Command{fenced, promised("b", 2, 5), promote}
	named := fsm.Command{Fence: &fsm.Fence{Group: group, Epoch: 1, Force: true, To: "b", AllowLoss: true}}
	handover := []fsm.Command{switching,
		{AdvanceSwitch: &fsm.AdvanceSwitch{Group: group, Operation: 1, From: fsm.StepPrepare, Node: "b"}},
		{AdvanceSwitch: &fsm.AdvanceSwitch{Group: group, Operation: 1, From: fsm.StepHold, Node: "a"}},
		{Handover: &fsm.Handover{Group: group, Operation: 1, Epoch: 1, From: "a", FromLife: 1, To: "b", Incarnation: 2,
			Last: ident.Position{Epoch: 1, History: 5}, InSync: []ident.NodeID{"a", "b"}}}}
	stuck := GroupView{Covered: true, Stuck: true}

	for _, c := range []struct {
		name   string
		before []fsm.Command
		spec   func(*fsm.GroupSpec)
		own    GroupView
		dead   ident.NodeID
		silent ident.NodeID
		after  time.Duration
		want   string
	}{
		{name: "a covered primary is left alone, even if gossip says it is dead", own: GroupView{Covered: true}, dead: "a"},
		{name: "cover ended", want: "fence 1 the lease of a ran out"},
		{name: "cover ended, but the leader is new", own: GroupView{Fresh: true}},
		{name: "cover ended, the leader is new, gossip knows", own: GroupView{Fresh: true}, dead: "a", silent: "a", want: "fence 1 the lease of a ran out"},
		{name: "just chosen and not renewed for the group yet: gossip alone does not count", own: GroupView{Fresh: true}, dead: "a"},
		{name: "the leader is new and heard no renewal yet: its own ignorance does not count", own: GroupView{Fresh: true}, silent: "a"},
		{name: "cover ended, no automatic failover", spec: off},
		{name: "released", before: []fsm.Command{released}, own: GroupView{Covered: true, Fresh: true}, want: "fence 1 a has ended"},
		{name: "released, no automatic failover", before: []fsm.Command{released}, spec: off},
		{name: "restarted", before: []fsm.Command{restarted}, own: GroupView{Covered: true, Fresh: true}, want: "fence 1 a was restarted"},
		{name: "restarted, no automatic failover: only itself", before: []fsm.Command{restarted}, spec: off, want: "fence 1 a was restarted to a"},
		{name: "restarted, no automatic failover, and it was given the role with loss allowed and never opened: its operator decides anew", spec: off,
			before: []fsm.Command{{ChangeSet: &fsm.ChangeSet{Group: group, Epoch: 1, Version: 2, Remove: "b"}}, named, promised("b", 2, 5), promote, renewal(0, "b", 9)}},
		{name: "fenced, nobody has promised", before: []fsm.Command{fenced}},
		{name: "one has promised, others are alive", before: []fsm.Command{fenced, promised("b", 2, 5)}},
		{name: "one has promised, others were waited for", before: []fsm.Command{fenced, promised("b", 2, 5)}, own: GroupView{Waited: true}, want: "promote 2 b none"},
		{name: "all others promised, a is dead", before: []fsm.Command{fenced, promised("b", 2, 5), promised("c", 3, 6)}, dead: "a", want: "promote 2 c none"},
		{name: "a released node is not waited for", before: []fsm.Command{fenced, released, promised("b", 2, 5), promised("c", 3, 5)}, want: "promote 2 b none"},
		{name: "fenced by hand with automatic failover off", before: []fsm.Command{fenced, promised("b", 2, 5)}, spec: off, own: GroupView{Waited: true}, want: "promote 2 b none"},
		{name: "switch-over goes on", before: []fsm.Command{switching}, own: GroupView{Covered: true}},
		{name: "switch-over too late", before: []fsm.Command{switching}, own: GroupView{Covered: true}, after: time.Hour, want: "abort 1"},
		{name: "its target is dead", before: []fsm.Command{switching}, own: GroupView{Covered: true}, dead: "b", want: "abort 1"},
		{name: "its target was released", before: []fsm.Command{switching, {Release: &fsm.Release{Node: "b", Incarnation: 2}}}, own: GroupView{Covered: true}, want: "abort 1"},
		{name: "promoted, it recovers", before: promotion, own: GroupView{Covered: true}},
		{name: "promoted, lives and never opens", before: promotion, own: stuck, want: "fence 2 b was chosen for epoch 2 and does not serve it"},
		{name: "promoted, never opens, no automatic failover", before: promotion, spec: off, own: stuck},
		{name: "promoted, never opens, and nobody else lives", before: append(promotion, fsm.Command{Release: &fsm.Release{Node: "a", Incarnation: 1}}), dead: "c", own: stuck},
		{name: "promoted, never opens, and nobody else renews", before: append(promotion, fsm.Command{Release: &fsm.Release{Node: "a", Incarnation: 1}}), silent: "c", own: stuck},
		{name: "promoted, never opens, the others are unable", before: []fsm.Command{fenced, released, promised("b", 2, 5), unable("c", 3, 5), promote}, own: stuck},
		{name: "opened long ago", own: stuck},
		{name: "handed over, takes over", before: handover, own: GroupView{Covered: true}},
		{name: "handed over, lives and never serves", before: handover, own: stuck, want: "fence 2 b was chosen for epoch 2 and does not serve it"},
		{name: "handed over and finished", before: append(handover, fsm.Command{FinishSwitch: &fsm.FinishSwitch{Group: group, Operation: 1, Node: "b", First: 1}}), own: stuck},
		{name: "an unable node is passed over", before: []fsm.Command{fenced, released, unable("b", 2, 9), promised("c", 3, 5)}, want: "promote 2 c none"},

		{name: "the named node has not reported", before: []fsm.Command{named, promised("c", 3, 5)}, own: GroupView{Waited: true, Fresh: true}},
		{name: "the named node is dead", before: []fsm.Command{named, promised("c", 3, 5)}, own: GroupView{Waited: true, Fresh: true}, dead: "b", want: "fence 2 b cannot take the role: whoever may is chosen"},
		{name: "the named node is dead, the others still have time", before: []fsm.Command{named, promised("c", 3, 5)}, own: GroupView{Fresh: true}, dead: "b"},
		{name: "the named node is silent, the leader is new", before: []fsm.Command{named, promised("c", 3, 5)}, own: GroupView{Waited: true, Fresh: true}, silent: "b"},
		{name: "the named node is silent", before: []fsm.Command{named, promised("c", 3, 5)}, own: GroupView{Waited: true}, silent: "b", want: "fence 2 b cannot take the role: whoever may is chosen"},
		{name: "the named node lives and never reports", before: []fsm.Command{named, promised("c", 3, 5)}, own: GroupView{Waited: true, Stuck: true}, want: "fence 2 b cannot take the role: whoever may is chosen"},
		{name: "the named node is dead, no automatic failover", before: []fsm.Command{named, promised("c", 3, 5)}, spec: off, own: GroupView{Waited: true}, dead: "b"},
		{name: "the named node has reported", before: []fsm.Command{named, promised("b", 2, 5)}, own: GroupView{Waited: true, Stuck: true}, want: "promote 2 b none"},
		{name: "its source is dead: the fence ends it", before: []fsm.Command{switching}, dead: "b", want: "fence 1 the lease of a ran out"},
	} {
		t.Run(c.name, func(t *testing.T) {
			st := opened(t)
			if c.spec != nil {
				setSpec(st, c.spec)
			}
			for _, cmd := range c.before {
				must(t, st, cmd)
			}
			v := View{
				State: st.Snapshot(), Now: now.Add(c.after), Groups: map[ident.GroupName]GroupView{group: c.own},
				Dead:   func(n ident.NodeID) bool { return n == c.dead },
				Silent: func(n ident.NodeID) bool { return n == c.silent },
			}
			got := ""
			for _, cmd := range Decide(v) {
				got += describe(cmd)
				cmd.Version = fsm.CommandVersion
				if res := st.Apply(cmd); res.Refused != "" {
					t.Errorf("the decision %+v is refused: %+v", cmd, res)
				}
			}
			if got != c.want {
				t.Errorf("decided %q, want %q", got, c.want)
			}
		})
	}
}

func describe(cmd fsm.Command) string {
	switch {
	case cmd.Fence != nil && cmd.Fence.To != "":
		return "fence " + cmd.Fence.Epoch.String() + " " + cmd.Fence.Reason + " to " + string(cmd.Fence.To)
	case cmd.Fence != nil:
		return "fence " + cmd.Fence.Epoch.String() + " " + cmd.Fence.Reason
	case cmd.Promote != nil:
		return "promote " + cmd.Promote.Epoch.String() + " " + string(cmd.Promote.To) + " " + cmd.Promote.Loss
	case cmd.AbortSwitch != nil:
		return "abort " + string('0'+rune(cmd.AbortSwitch.Operation))
	}
	return "?"
}

func TestDecideOrdersGroups(t *testing.T) {
	st := opened(t)
	must(t, st, fsm.Command{CreateGroup: &fsm.CreateGroup{Spec: fsm.GroupSpec{Name: "aaa", Order: 5, Preferred: "b"}.Normalize(), Incarnation: 2}})
	must(t, st, fsm.Command{CreateGroup: &fsm.CreateGroup{Spec: fsm.GroupSpec{Name: "system", Order: -1, Preferred: "b"}.Normalize(), Incarnation: 2}})
	v := View{State: st.Snapshot(), Dead: func(ident.NodeID) bool { return false }}
	var got []ident.GroupName
	for _, cmd := range Decide(v) {
		got = append(got, cmd.Fence.Group)
	}
	if len(got) != 3 || got[0] != "system" || got[1] != group || got[2] != "aaa" {
		t.Fatalf("order %v", got)
	}
}

// TestStages proves that a promotion gives its choice the time to renew, however long the fence took.
func TestStages(t *testing.T) {
	m := NewSightings()
	st := opened(t)
	see := func(now time.Duration, want time.Duration) {
		t.Helper()
		if got := m.stage(st.Groups[group], now); got != want {
			t.Fatalf("%s in its stage, want %s", got, want)
		}
	}
	see(0, 0)
	see(time.Minute, time.Minute)
	must(t, st, fsm.Command{Fence: &fsm.Fence{Group: group, Epoch: 1, Force: true}})
	see(61*time.Second, 0)
	must(t, st, promised("b", 2, 5))
	see(64*time.Second, 3*time.Second)
	must(t, st, fsm.Command{Promote: &fsm.Promote{Group: group, Epoch: 2, To: "b", Incarnation: 2}})
	see(64*time.Second, 0)
	see(65*time.Second, time.Second)
	must(t, st, fsm.Command{Open: &fsm.Open{Group: group, Epoch: 2, Node: "b", Incarnation: 2, InSync: []ident.NodeID{"b"},
		Rows: []ident.HistoryRow{{Epoch: 2, Node: "b", SW: 6, First: 1}}}})
	see(66*time.Second, 2*time.Second)
	must(t, st, fsm.Command{Fence: &fsm.Fence{Group: group, Epoch: 2, Force: true}})
	see(67*time.Second, 0)
}
