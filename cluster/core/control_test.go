package core

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
)

// auto lets the role return to b by itself after a minute.
func auto(s *fsm.GroupSpec) {
	s.Preferred, s.Switchback, s.SwitchbackAfter = "b", fsm.SwitchbackAuto, time.Minute
}

func described(cmds []fsm.Command) string {
	var out []string
	for _, cmd := range cmds {
		switch {
		case cmd.SetPause != nil:
			out = append(out, fmt.Sprintf("pause %v", cmd.SetPause.On))
		case cmd.SetMaintenance != nil:
			out = append(out, fmt.Sprintf("maintenance of %s %v", cmd.SetMaintenance.Node, cmd.SetMaintenance.On))
		case cmd.StartSwitch != nil:
			out = append(out, fmt.Sprintf("switch to %s", cmd.StartSwitch.To))
		default:
			out = append(out, describe(cmd))
		}
	}
	return strings.Join(out, "; ")
}

// Proves that pause and maintenance are honoured wherever the manager begins something, that they end by themselves, and
// what a switch-back waits for. Proves CL-1, CL-3.
func TestDecideControl(t *testing.T) {
	now := time.Unix(1000, 0)
	pause := fsm.Command{SetPause: &fsm.SetPause{On: true, Reason: "r"}}
	hour := fsm.Command{SetPause: &fsm.SetPause{On: true, Reason: "r", Until: now.Add(time.Hour)}}
	maintain := func(n ident.NodeID) fsm.Command {
		return fsm.Command{SetMaintenance: &fsm.SetMaintenance{Node: n, On: true, Reason: "r", Until: now.Add(time.Hour)}}
	}
	released := fsm.Command{Release: &fsm.Release{Node: "a", Incarnation: 1}}
	fenced := fsm.Command{Fence: &fsm.Fence{Group: group, Epoch: 1, Force: true}}
	named := fsm.Command{Fence: &fsm.Fence{Group: group, Epoch: 1, Force: true, To: "b", AllowLoss: true}}
	bounded := fsm.Command{Fence: &fsm.Fence{Group: group, Epoch: 1, Force: true, To: "b", AllowLoss: true,
		Accept: &fsm.Acceptance{Beyond: ident.Position{Epoch: 1, History: 7}}}}
	promote := fsm.Command{Promote: &fsm.Promote{Group: group, Epoch: 2, To: "b", Incarnation: 2}}
	without := func(n ident.NodeID) fsm.Command {
		return fsm.Command{ChangeSet: &fsm.ChangeSet{Group: group, Epoch: 1, Version: 2, Remove: n}}
	}
	copies := func(n ident.NodeID, life ident.Incarnation, end ident.Sequence) fsm.Command {
		cmd := renewal(0, n, life)
		cmd.Renew.Copies = map[ident.GroupName]fsm.Ends{group: {"a": end}}
		return cmd
	}
	switching := fsm.Command{StartSwitch: &fsm.StartSwitch{Group: group, Epoch: 1, To: "c", MaxPause: time.Second, Deadline: now.Add(time.Minute)}}
	well := GroupView{Covered: true, Steady: time.Minute}

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
		{name: "paused, the lease ran out", before: []fsm.Command{pause}, dead: "a"},
		{name: "paused, the primary has ended", before: []fsm.Command{pause, released}},
		{name: "paused, the primary was restarted: only itself", before: []fsm.Command{pause, renewal(0, "a", 9)}, own: GroupView{Covered: true}, want: "fence 1 a was restarted to a"},
		{name: "paused, the failover has begun: it chooses", before: []fsm.Command{fenced, pause, promised("b", 2, 5)}, own: GroupView{Waited: true}, want: "promote 2 b none"},
		{name: "paused, the failover has begun, the chosen one dies", before: []fsm.Command{fenced, promised("b", 2, 5), promote, pause}, dead: "b", want: "fence 2 the lease of b ran out"},
		{name: "paused, the named node does not come", before: []fsm.Command{named, pause, promised("c", 3, 5)}, own: GroupView{Waited: true}, dead: "b"},
		{name: "paused until later", before: []fsm.Command{hour}, dead: "a", after: time.Hour - 1},
		{name: "the pause is over: the state has to say so first", before: []fsm.Command{hour}, dead: "a", after: time.Hour, want: "pause false"},
		{name: "the maintenance is over", before: []fsm.Command{maintain("b"), maintain("a")}, own: GroupView{Covered: true}, after: time.Hour, want: "maintenance of a false; maintenance of b false"},
		{name: "the maintenance is not over", before: []fsm.Command{maintain("b")}, own: GroupView{Covered: true}},
		{name: "a primary in maintenance is left alone", before: []fsm.Command{maintain("a")}, own: GroupView{Covered: true}},
		{name: "a primary in maintenance dies", before: []fsm.Command{maintain("a")}, want: "fence 1 the lease of a ran out"},
		{name: "in maintenance: the other, although it received less", before: []fsm.Command{maintain("b"), fenced, promised("b", 2, 9), promised("c", 3, 5)}, own: GroupView{Waited: true}, want: "promote 2 c none"},
		{name: "in maintenance: the other is waited for", before: []fsm.Command{maintain("b"), fenced, promised("b", 2, 9)}},
		{name: "in maintenance, nobody else", before: []fsm.Command{maintain("b"), fenced, promised("b", 2, 9)}, own: GroupView{Waited: true}, want: "promote 2 b none"},
		{name: "more would be lost than accepted", before: []fsm.Command{without("b"), bounded, promised("b", 2, 5), promised("c", 3, 9)}, own: GroupView{Waited: true},
			want: "fence 2 b ends at default@1.5, below default@1.7: more would be lost than was accepted. Look at the forecast again: whoever may is chosen"},
		{name: "not more would be lost than accepted", before: []fsm.Command{without("b"), bounded, promised("b", 2, 7), promised("c", 3, 9)}, own: GroupView{Waited: true},
			want: "promote 2 b what lies beyond default@1.7, the end of b; c has received up to default@1.9; not heard: a"},

		{name: "switch-back by command only", spec: func(s *fsm.GroupSpec) { s.Preferred = "b" }, own: well},
		{name: "switch-back", spec: auto, own: well, want: "switch to b"},
		{name: "not steady for long enough", spec: auto, own: GroupView{Covered: true, Steady: time.Minute - 1}},
		{name: "it is primary already", spec: func(s *fsm.GroupSpec) { auto(s); s.Preferred = "a" }, own: well},
		{name: "no switch-back from a primary without a lease", spec: auto, own: GroupView{Fresh: true, Steady: time.Hour}},
		{name: "no switch-back while paused", before: []fsm.Command{pause}, spec: auto, own: well},
		{name: "no switch-back to a node in maintenance", before: []fsm.Command{maintain("b")}, spec: auto, own: well},
		{name: "no switch-back to a dead node", spec: auto, own: well, dead: "b"},
		{name: "no switch-back to a silent node", spec: auto, own: well, silent: "b"},
		{name: "no switch-back to a node outside the set", before: []fsm.Command{without("b")}, spec: auto, own: well},
		{name: "switch-back to a standby that is level", before: []fsm.Command{without("b"), copies("a", 1, 5000), copies("b", 2, 4000)}, spec: auto, own: well, want: "switch to b"},
		{name: "no switch-back to a standby that lags", before: []fsm.Command{without("b"), copies("a", 1, 5000), copies("b", 2, 3999)}, spec: auto, own: well},
		{name: "no switch-back to a life that is over", before: []fsm.Command{{Release: &fsm.Release{Node: "b", Incarnation: 2}}}, spec: auto, own: well},
		{name: "no switch-back during another operation", before: []fsm.Command{switching}, spec: auto, own: well},
		{name: "no switch-back in a failover", before: []fsm.Command{fenced}, spec: auto, own: well},
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
			cmds := Decide(v)
			if got := described(cmds); got != c.want {
				t.Fatalf("decided %q, want %q", got, c.want)
			}
			for _, cmd := range cmds {
				must(t, st, cmd)
			}
		})
	}
}

// Proves that what is due after a pause is done, by a leader that knows nothing but the state, in the round after its end.
func TestDecideAfterPause(t *testing.T) {
	st := opened(t)
	end := time.Unix(1000, 0)
	must(t, st, fsm.Command{SetPause: &fsm.SetPause{On: true, Reason: "r", Until: end}})
	var got []string
	for range 2 {
		v := View{State: st.Snapshot(), Now: end, Dead: func(ident.NodeID) bool { return false }, Silent: func(ident.NodeID) bool { return false }}
		cmds := Decide(v)
		got = append(got, described(cmds))
		for _, cmd := range cmds {
			must(t, st, cmd)
		}
	}
	if want := "pause false|fence 1 the lease of a ran out"; strings.Join(got, "|") != want {
		t.Fatalf("decided %q, want %q", got, want)
	}
}

// Proves that the preferred node has to be fit without a break, in one life and one epoch, and that a new leader counts anew.
func TestSteady(t *testing.T) {
	g := &fsm.Group{Spec: fsm.GroupSpec{Name: group}, Epoch: 3}
	n := &fsm.Node{ID: "b", Incarnation: 2}
	s := NewSightings()
	at := func(now int, fit bool, want time.Duration) {
		t.Helper()
		if got := s.Steady(g, n, fit, time.Duration(now)); got != want {
			t.Fatalf("at %d: %d, want %d", now, got, want)
		}
	}
	at(10, true, 0)
	at(15, true, 5)
	at(16, false, 0)
	at(20, true, 0)
	at(27, true, 7)
	n = &fsm.Node{ID: "b", Incarnation: 3}
	at(28, true, 0)
	g = &fsm.Group{Spec: g.Spec, Epoch: 4}
	at(30, true, 0)
	at(31, true, 1)
	s = NewSightings()
	at(32, true, 0)
	if s.Steady(g, nil, true, 40) != 0 {
		t.Fatal("no such node")
	}
}

// TestSwitchbackRests: one that failed holds writes for nothing, so each next one waits longer, for a new Raft leader too, until
// the role was on the preferred node again.
func TestSwitchbackRests(t *testing.T) {
	failed := fsm.Operation{Kind: fsm.OperationSwitchover, Group: group, To: "b", State: fsm.OperationRolledBack, Automatic: true}
	change := func(f func(*fsm.Operation)) fsm.Operation {
		op := failed
		f(&op)
		return op
	}
	again := func(n int, more ...fsm.Operation) []fsm.Operation {
		return append(slices.Repeat([]fsm.Operation{failed}, n), more...)
	}
	for _, c := range []struct {
		name  string
		after time.Duration
		past  []fsm.Operation
		want  time.Duration
	}{
		{"none has failed", 5 * time.Minute, nil, 5 * time.Minute},
		{"too short a wait, from before there was a minimum", time.Millisecond, nil, time.Second},
		{"one has failed", time.Second, again(1), time.Minute},
		{"two", time.Second, again(2), 2 * time.Minute},
		{"three", time.Second, again(3), 4 * time.Minute},
		{"many", time.Second, again(100), time.Hour},
		{"its own wait is longer", 5 * time.Minute, again(2), 5 * time.Minute},
		{"superseded by a failover", time.Second, again(1, change(func(o *fsm.Operation) { o.State = fsm.OperationFailed })), 2 * time.Minute},
		{"the role was there since", time.Second, again(3, change(func(o *fsm.Operation) { o.State = fsm.OperationDone })), time.Second},
		{"by a failover", time.Second, again(3, fsm.Operation{Kind: fsm.OperationFailover, Group: group, To: "b", State: fsm.OperationDone}, failed), time.Minute},
		{"an operator's does not count", time.Second, again(1, change(func(o *fsm.Operation) { o.Automatic = false })), time.Minute},
		{"to another node does not count", time.Second, again(1, change(func(o *fsm.Operation) { o.To, o.State = "c", fsm.OperationDone })), time.Minute},
		{"of another group does not count", time.Second, again(1, change(func(o *fsm.Operation) { o.Group = "other" })), time.Minute},
	} {
		t.Run(c.name, func(t *testing.T) {
			st := opened(t)
			setSpec(st, func(s *fsm.GroupSpec) { auto(s); s.SwitchbackAfter = c.after })
			st.Past = c.past
			for steady, want := range map[time.Duration]string{c.want - 1: "", c.want: "switch to b"} {
				v := View{State: st.Snapshot(), Now: time.Unix(1000, 0), Groups: map[ident.GroupName]GroupView{group: {Covered: true, Steady: steady}},
					Dead: func(ident.NodeID) bool { return false }, Silent: func(ident.NodeID) bool { return false }}
				if got := described(Decide(v)); got != want {
					t.Errorf("fit for %s: decided %q, want %q", steady, got, want)
				}
			}
		})
	}
}

// A failover that would lose more than its operator accepted is off. Where roles do not move by themselves, the node that had the
// role takes it up again, if it may: the group is not left without a primary.
func TestExceededFailoverGivesTheRoleBack(t *testing.T) {
	const more = "fence 2 a has received up to default@1.9, beyond default@1.7: more would be lost than was accepted. Look at the forecast again: "
	bounded := fsm.Command{Fence: &fsm.Fence{Group: group, Epoch: 1, Force: true, To: "b", AllowLoss: true,
		Accept: &fsm.Acceptance{Beyond: ident.Position{Epoch: 1, History: 5}, To: ident.Position{Epoch: 1, History: 7}}}}
	before := []fsm.Command{
		{ChangeSet: &fsm.ChangeSet{Group: group, Epoch: 1, Version: 2, Remove: "b"}},
		{ChangeSet: &fsm.ChangeSet{Group: group, Epoch: 1, Version: 3, Remove: "c"}},
	}
	reports := []fsm.Command{bounded, promised("b", 2, 5), promised("a", 1, 9)}
	for _, c := range []struct {
		how    string
		spec   func(*fsm.GroupSpec)
		before []fsm.Command
		want   string
	}{
		{how: "free", want: more + "whoever may is chosen"},
		{how: "paused", before: []fsm.Command{{SetPause: &fsm.SetPause{On: true, Reason: "r"}}},
			want: more + "a keeps the role to a"},
		{how: "off", spec: off,
			want: more + "a keeps the role to a"},
	} {
		t.Run(c.how, func(t *testing.T) {
			st := opened(t)
			if c.spec != nil {
				setSpec(st, c.spec)
			}
			for _, cmd := range slices.Concat(before, c.before, reports) {
				must(t, st, cmd)
			}
			v := View{State: st.Snapshot(), Now: time.Unix(1000, 0), Groups: map[ident.GroupName]GroupView{group: {Waited: true}},
				Dead: func(ident.NodeID) bool { return false }, Silent: func(ident.NodeID) bool { return false }}
			got := Decide(v)
			if described(got) != c.want {
				t.Fatalf("decided %q, want %q", described(got), c.want)
			}
			if c.how == "free" {
				return
			}
			must(t, st, got[0])
			must(t, st, fsm.Command{Promise: &fsm.Promise{Group: group, Report: fsm.Report{Node: "a", Epoch: 3, Incarnation: 1, Received: ident.Position{Epoch: 1, History: 9}}}})
			v.State = st.Snapshot()
			if got := described(Decide(v)); got != "promote 3 a none" {
				t.Fatalf("then %q", got)
			}
		})
	}
}
