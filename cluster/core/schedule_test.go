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

// told says what was decided about schedules, and what else.
func told(cmds []fsm.Command) string {
	var out []string
	for _, cmd := range cmds {
		switch {
		case cmd.StartSwitch != nil && cmd.StartSwitch.Schedule != 0:
			out = append(out, fmt.Sprintf("begin %d to %s, %s", cmd.StartSwitch.Schedule, cmd.StartSwitch.To, cmd.StartSwitch.MaxPause))
		case cmd.DelaySchedule != nil:
			out = append(out, fmt.Sprintf("delay %d: %s", cmd.DelaySchedule.Operation, cmd.DelaySchedule.Waits))
		case cmd.CancelSchedule != nil:
			out = append(out, fmt.Sprintf("%s %d: %s", cmd.CancelSchedule.Outcome, cmd.CancelSchedule.Operation, cmd.CancelSchedule.Reason))
		default:
			out = append(out, described([]fsm.Command{cmd}))
		}
	}
	return strings.Join(out, "; ")
}

// Proves when a scheduled switch-over begins, what makes it wait, and when it is given up. Proves CL-5.
func TestDecideSchedule(t *testing.T) {
	due := time.Unix(1000, 0)
	plan := fsm.Command{ScheduleSwitch: &fsm.ScheduleSwitch{Group: group, To: "b", At: due, MaxPause: 3 * time.Second, Reason: "operator"}}
	pause := fsm.Command{SetPause: &fsm.SetPause{On: true, Reason: "r"}}
	maintain := fsm.Command{SetMaintenance: &fsm.SetMaintenance{Node: "b", On: true, Reason: "r"}}
	without := fsm.Command{ChangeSet: &fsm.ChangeSet{Group: group, Epoch: 1, Version: 2, Remove: "b"}}
	fenced := fsm.Command{Fence: &fsm.Fence{Group: group, Epoch: 1, Force: true, Automatic: true}}
	returning := fsm.Command{StartSwitch: &fsm.StartSwitch{Group: group, Epoch: 1, To: "c", MaxPause: time.Second, Deadline: due.Add(time.Hour), Automatic: true}}
	waits := func(why string) fsm.Command {
		return fsm.Command{DelaySchedule: &fsm.DelaySchedule{Group: group, Operation: 1, Waits: why}}
	}
	copies := func(n ident.NodeID, life ident.Incarnation, end ident.Sequence) fsm.Command {
		cmd := renewal(0, n, life)
		cmd.Renew.Copies = map[ident.GroupName]fsm.Ends{group: {"a": end}}
		return cmd
	}
	const late = "missed 1: it could not begin within 1m0s of its time: "
	for _, c := range []struct {
		name      string
		before    []fsm.Command
		spec      func(*fsm.GroupSpec)
		uncovered bool
		dead      ident.NodeID
		silent    ident.NodeID
		after     time.Duration
		want      string
	}{
		{name: "its time has not come", after: -1},
		{name: "its time has come", want: "begin 1 to b, 3s"},
		{name: "the last moment of the grace", after: ScheduleGrace, want: "begin 1 to b, 3s"},
		{name: "nobody led in time", after: ScheduleGrace + 1, want: late + "no Raft leader looked at it"},
		{name: "it waited for too long", before: []fsm.Command{waits("w")}, after: ScheduleGrace + 1, want: late + "w"},
		{name: "it has waited", before: []fsm.Command{waits("target_alive: b is not alive")}, after: time.Second, want: "begin 1 to b, 3s"},
		{name: "before a switch-back, which waits", spec: func(s *fsm.GroupSpec) { auto(s); s.Preferred = "c" }, want: "begin 1 to b, 3s"},
		{name: "paused", before: []fsm.Command{pause}, want: "delay 1: not_paused: automatic actions are paused"},
		{name: "the target is dead", dead: "b", want: "delay 1: target_alive: b is not alive"},
		{name: "the target is silent", silent: "b", want: "delay 1: target_alive: b is not alive"},
		{name: "the target has ended", before: []fsm.Command{{Release: &fsm.Release{Node: "b", Incarnation: 2}}}, want: "delay 1: target_alive: b is not alive"},
		{name: "it was said already", before: []fsm.Command{waits("target_alive: b is not alive")}, dead: "b"},
		{name: "something else stands in the way now", before: []fsm.Command{waits("w"), maintain}, want: "delay 1: target_maintenance: b is in maintenance"},
		{name: "two things", before: []fsm.Command{maintain}, dead: "b", want: "delay 1: target_alive: b is not alive; target_maintenance: b is in maintenance"},
		{name: "a standby that is near", before: []fsm.Command{without, copies("a", 1, 20000), copies("b", 2, 10000)}, want: "begin 1 to b, 3s"},
		{name: "a standby that lags", before: []fsm.Command{without, copies("a", 1, 20000), copies("b", 2, 9999)}, want: "delay 1: target_lag: b lacks more than 10000 entries, or holds no copy"},
		{name: "a standby without a copy", before: []fsm.Command{without, copies("a", 1, 1)}, want: "delay 1: target_lag: b lacks more than 10000 entries, or holds no copy"},
		{name: "the set says that it is level", before: []fsm.Command{copies("a", 1, 20000), copies("b", 2, 1)}, want: "begin 1 to b, 3s"},
		{name: "another switch-over runs", before: []fsm.Command{returning}, want: "delay 1: no_operation: switchover 2 runs"},
		{name: "a failover waits for reports", before: []fsm.Command{fenced}, want: "delay 1: group_open: a failover is under way; no_operation: failover 2 runs"},
		{name: "a failover that lasts", before: []fsm.Command{fenced}, after: ScheduleGrace + 1, want: late + "no Raft leader looked at it"},
		{name: "a failover is first", uncovered: true, want: "fence 1 the lease of a ran out"},
		{name: "no lease, and no failover", uncovered: true, spec: off, want: "delay 1: primary_lease: the lease of a has run out"},
		{name: "the role is there already", before: []fsm.Command{fenced, promised("b", 2, 5), {Promote: &fsm.Promote{Group: group, Epoch: 2, To: "b", Incarnation: 2}},
			{Open: &fsm.Open{Group: group, Epoch: 2, Node: "b", Incarnation: 2, InSync: []ident.NodeID{"b"}, Rows: []ident.HistoryRow{{Epoch: 2, Node: "b", SW: 6, First: 1}}}}}},
		{name: "canceled", before: []fsm.Command{{CancelSchedule: &fsm.CancelSchedule{Group: group, Operation: 1, Outcome: fsm.ScheduleCanceled, Reason: "r"}}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			st := opened(t)
			if c.spec != nil {
				setSpec(st, c.spec)
			}
			for _, cmd := range slices.Concat([]fsm.Command{plan}, c.before) {
				must(t, st, cmd)
			}
			decide := func() []fsm.Command {
				return Decide(View{
					State: st.Snapshot(), Now: due.Add(c.after), Groups: map[ident.GroupName]GroupView{group: {Covered: !c.uncovered}},
					Dead:   func(n ident.NodeID) bool { return n == c.dead },
					Silent: func(n ident.NodeID) bool { return n == c.silent },
				})
			}
			cmds := decide()
			if got := told(cmds); got != c.want {
				t.Fatalf("decided %q, want %q", got, c.want)
			}
			for _, cmd := range cmds { // whatever is decided is accepted: it is not decided again and again
				must(t, st, cmd)
			}
			if cmds = decide(); len(cmds) > 0 && !c.uncovered {
				t.Fatalf("then decided %q", told(cmds))
			}
		})
	}
}

// Two leaders that both think they lead begin it once, and so does one that has lost its memory. Proves CL-5.
func TestScheduleBeginsOnce(t *testing.T) {
	due := time.Unix(1000, 0)
	st := opened(t)
	must(t, st, fsm.Command{ScheduleSwitch: &fsm.ScheduleSwitch{Group: group, To: "b", At: due, MaxPause: time.Second, Reason: "operator"}})
	v := View{State: st.Snapshot(), Now: due, Groups: map[ident.GroupName]GroupView{group: {Covered: true}},
		Dead: func(ident.NodeID) bool { return false }, Silent: func(ident.NodeID) bool { return false }}
	mine, theirs := Decide(v), Decide(v)
	must(t, st, mine[0])
	must(t, st, fsm.Command{AbortSwitch: &fsm.AbortSwitch{Group: group, Operation: 1, Reason: "r"}})
	theirs[0].Version = fsm.CommandVersion
	if r := st.Apply(theirs[0]); r.Refused != fsm.RefusedOperation {
		t.Fatalf("begun twice: %+v", r)
	}
	v.State = st.Snapshot()
	if got := Decide(v); len(got) > 0 {
		t.Fatalf("afterwards %q", told(got))
	}
}

// A text that is too long is cut as it is compared: else it would be proposed again and again.
func TestScheduleSaysNotTooMuch(t *testing.T) {
	long := bounded(strings.Repeat("ä", 1000))
	if len(long) > 310 || bounded(long[:300]) != long[:300] {
		t.Fatalf("%d bytes", len(long))
	}
}
