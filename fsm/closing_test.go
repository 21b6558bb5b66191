package fsm

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/understudy-ha/understudy/internal/ident"
)

// two has the group g of the fixture beside the narrow group orders, served by b at epoch 1.
func two(t testing.TB) *fixture {
	f := opened(t)
	f.must(Command{CreateGroup: &CreateGroup{Spec: orders(), Incarnation: lifeB}})
	f.must(Command{Open: &Open{Group: "orders", Epoch: 1, Node: "b", Incarnation: lifeB, Rows: []ident.HistoryRow{row(1, "b", 1)}, InSync: []ident.NodeID{"b"}}})
	return f
}

// closing has orders closing.
func closing(t testing.TB) *fixture {
	f := two(t)
	f.must(closeGroup("orders", 1))
	return f
}

func closeGroup(g ident.GroupName, e ident.Epoch) Command {
	return Command{CloseGroup: &CloseGroup{Group: g, Epoch: e, By: "ann"}}
}

func (f *fixture) empty(holds string) Command {
	return Command{AnswerClosing: &AnswerClosing{Closing: f.Groups["orders"].Closing.ID, Group: "orders", Epoch: 1, Node: "b", Holds: holds}}
}

// deleted has orders deleted.
func deleted(t testing.TB) *fixture {
	f := closing(t)
	f.must(f.empty(""))
	return f
}

// TestDeletion: a group whose primary holds nothing is deleted, its records are others' from the same command on, and its name is never
// used again, by whatever command. Proves TR-7, IC-1, I8.
func TestDeletion(t *testing.T) {
	f := closing(t)
	c := f.Groups["orders"].Closing
	if c == nil || c.ID == 0 || c.By != "ann" || f.Selecting()[0].Name != "orders" {
		t.Fatalf("closing %+v, selecting %v", c, f.Selecting())
	}
	before := f.Snapshot()
	r := f.must(f.empty(""))
	if text(r.Ended) != "[orders]" || f.Groups["orders"] != nil || len(f.Selecting()) != 1 || before.Groups["orders"] == nil {
		t.Fatalf("%+v, groups %v", r, f.Groups)
	}
	gone, ok := f.Retirement("orders")
	if !ok || gone.Epoch != 1 || gone.At.IsZero() {
		t.Fatalf("retired %+v", f.Retired)
	}
	var b bytes.Buffer
	if err := f.Encode(&b); err != nil {
		t.Fatal(err)
	}
	back, err := Decode(&b)
	if _, ok := back.Retirement("orders"); err != nil || !ok {
		t.Fatalf("read back: %+v, %v", back.Retired, err)
	}
	for name, c := range map[string]Command{
		"planned again":   plan(orders()),
		"created again":   {CreateGroup: &CreateGroup{Spec: orders(), Incarnation: lifeB}},
		"created as plan": createPlanned(orders(), lifeB),
		"planned with others": plan(GroupSpec{Name: "fine", Files: []string{"f"}, Preferred: "b"},
			GroupSpec{Name: "orders", Files: []string{"else"}, Preferred: "b"}),
	} {
		if r := f.do(c); r.Refused != RefusedRetired || len(f.Planned) != 0 {
			t.Errorf("%s: %+v", name, r)
		}
	}
	other := orders()
	other.Name = "orders2"
	f.must(plan(other))
	if p, _ := f.Plan("orders2"); text(p.Ask) != "[g]" {
		t.Errorf("asks %v", p.Ask)
	}
}

// TestDeletionOfHeldRecords: a record keeps the group; what was said of an earlier closing, of another epoch or by another node counts for
// nothing; an epoch that is taken ends the closing. Proves I8.
func TestDeletionOfHeldRecords(t *testing.T) {
	f := closing(t)
	first := f.empty("")
	id := f.Groups["orders"].Closing.ID
	f.must(f.empty("key k of file orders"))
	if g := f.Groups["orders"]; g.Closing != nil || f.WhyDeclined(id) != "key k of file orders" {
		t.Fatalf("%+v, declined %v", g.Closing, f.Declined)
	}
	if r := f.do(first); r.Refused != RefusedOperation {
		t.Fatalf("answered when it was over: %+v", r)
	}
	f.must(closeGroup("orders", 1))
	if r := f.do(first); r.Refused != RefusedOperation || f.Groups["orders"] == nil {
		t.Fatalf("an answer to the first closing: %+v", r)
	}
	second := f.empty("")
	f.must(Command{Fence: &Fence{Group: "orders", Epoch: 1, Force: true, Reason: "operator"}})
	if f.Groups["orders"].Closing != nil {
		t.Fatal("closing in another epoch")
	}
	if r := f.do(second); r.Refused != RefusedOperation || f.Groups["orders"] == nil {
		t.Fatalf("an answer of an earlier epoch: %+v", r)
	}
}

// TestWhileClosing: what does not go together with a deletion is refused meanwhile, and goes on after it was given up.
func TestWhileClosing(t *testing.T) {
	f := closing(t)
	spec := f.Groups["orders"].Spec
	spec.Blocks = 3
	commands := map[string]Command{
		"switch-over": {StartSwitch: &StartSwitch{Group: "orders", Epoch: 1, To: "a", MaxPause: 1, Deadline: noon}},
		"schedule":    {ScheduleSwitch: &ScheduleSwitch{Group: "orders", To: "a", At: noon, MaxPause: 1, Reason: "r"}},
		"spec":        {ChangeSpec: &ChangeSpec{Group: "orders", Spec: spec}},
		"hold":        {SetHold: &SetHold{Group: "orders", Name: "r", Until: noon}},
		"close":       closeGroup("orders", 1),
		"plan":        plan(GroupSpec{Name: "h", Files: []string{"*1"}, Preferred: "b", Keys: KeyRange{To: "m"}}, GroupSpec{Name: "o", Files: []string{"order*"}, Preferred: "b"}),
	}
	for name, c := range commands {
		had, before := f.bytes(), f.Applied
		r := f.do(c)
		f.Applied = before
		if name == "plan" && r.Refused == RefusedSelection {
			r.Refused = RefusedBusy // it meets the group either way
		}
		if r.Refused != RefusedBusy || f.bytes() != had {
			t.Errorf("%s: %+v", name, r)
		}
	}
	f.must(Command{DropClosing: &DropClosing{Closing: f.Groups["orders"].Closing.ID, Group: "orders", Reason: strings.Repeat("x", 2*maxReason)}})
	f.must(commands["spec"])
	f.must(commands["hold"])
}

// TestBlockers has a row for everything that keeps a group from being deleted, and says all of it at once.
func TestBlockers(t *testing.T) {
	for _, c := range []struct {
		name  string
		in    func(*fixture)
		close Command
		want  string
		text  string
	}{
		{"last", func(f *fixture) { f.must(closeGroup("g", 1)) }, closeGroup("orders", 1), RefusedInUse, "last group"},
		{"unknown", func(*fixture) {}, closeGroup("x", 1), RefusedUnknown, "no group"},
		{"epoch", func(*fixture) {}, closeGroup("orders", 2), RefusedEpoch, "epoch"},
		{"fenced", func(f *fixture) {
			f.must(Command{Fence: &Fence{Group: "orders", Epoch: 1, Force: true}})
		}, closeGroup("orders", 2), RefusedEpoch, "failover"},
		{"life", func(f *fixture) { f.renew("b", lifeB+1) }, closeGroup("orders", 1), RefusedIncarnation, "b has ended"},
		{"operation", func(f *fixture) {
			f.must(Command{StartSwitch: &StartSwitch{Group: "orders", Epoch: 1, To: "a", MaxPause: 1, Deadline: noon}})
		}, closeGroup("orders", 1), RefusedBusy, "switchover"},
		{"schedule", func(f *fixture) {
			f.must(Command{ScheduleSwitch: &ScheduleSwitch{Group: "orders", To: "a", At: noon, MaxPause: 1, Reason: "r"}})
		}, closeGroup("orders", 1), RefusedBusy, "scheduled"},
		{"consumers", func(f *fixture) {
			for _, name := range []string{"r", "s"} {
				f.must(Command{SetHold: &SetHold{Group: "orders", Name: name, Until: noon}})
			}
		}, closeGroup("orders", 1), RefusedInUse, "consumer s"},
		{"plan", func(f *fixture) { f.must(plan(GroupSpec{Name: "x", Files: []string{"x"}, Preferred: "a"})) }, closeGroup("g", 1), RefusedBusy, "group x"},
		{"twice", func(f *fixture) { f.must(closeGroup("orders", 1)) }, closeGroup("orders", 1), RefusedBusy, "already"},
		{"names", func(f *fixture) {
			for i := range MaxRetired {
				f.Retired = append(f.Retired, Retired{Name: ident.GroupName(fmt.Sprintf("r%05d", i))})
			}
		}, closeGroup("orders", 1), RefusedInUse, "remembered"},
		{"system", func(f *fixture) {
			g := *f.Groups["orders"]
			g.Spec.Name = systemGroup
			f.putGroup(&g)
		}, closeGroup(systemGroup, 1), RefusedInUse, "system"},
		{"who", func(*fixture) {}, Command{CloseGroup: &CloseGroup{Group: "orders", Epoch: 1, By: strings.Repeat("x", maxBy+1)}}, RefusedInvalid, "bytes"},
		{"answer of another node", func(f *fixture) { f.must(closeGroup("orders", 1)) }, Command{AnswerClosing: &AnswerClosing{Closing: 0, Group: "orders", Epoch: 1, Node: "a"}}, RefusedEpoch, "not the primary"},
		{"answer of another epoch", func(f *fixture) { f.must(closeGroup("orders", 1)) }, Command{AnswerClosing: &AnswerClosing{Closing: 0, Group: "orders", Epoch: 2, Node: "b"}}, RefusedEpoch, "epoch"},
		{"answer to nothing", func(*fixture) {}, Command{AnswerClosing: &AnswerClosing{Closing: 1, Group: "orders", Epoch: 1, Node: "b"}}, RefusedOperation, "over"},
		{"answer for no group", func(*fixture) {}, Command{AnswerClosing: &AnswerClosing{Closing: 1, Group: "x", Epoch: 1, Node: "b"}}, RefusedUnknown, "no group"},
		{"end of nothing", func(*fixture) {}, Command{DropClosing: &DropClosing{Closing: 1, Group: "orders"}}, RefusedOperation, "over"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := two(t)
			c.in(f)
			if a := c.close.AnswerClosing; a != nil && a.Closing == 0 {
				c.close.AnswerClosing = change(a, func(a *AnswerClosing) { a.Closing = f.Groups["orders"].Closing.ID })
			}
			had, before := f.bytes(), f.Applied
			r := f.do(c.close)
			f.Applied = before
			if r.Refused != c.want || !strings.Contains(r.Detail, c.text) || f.bytes() != had {
				t.Errorf("%+v", r)
			}
		})
	}
}

// TestGoldenClosing holds the bytes of the commands, which never change.
func TestGoldenClosing(t *testing.T) {
	for want, c := range map[string]Command{
		`{"v":1,"id":0,"at":"2026-03-01T12:00:00Z","close_group":{"group":"g","epoch":3,"by":"ann"}}`:                                 {At: noon, CloseGroup: &CloseGroup{Group: "g", Epoch: 3, By: "ann"}},
		`{"v":1,"id":0,"at":"2026-03-01T12:00:00Z","answer_closing":{"closing":64,"group":"g","epoch":3,"node":"a","holds":"key k"}}`: {At: noon, AnswerClosing: &AnswerClosing{Closing: 64, Group: "g", Epoch: 3, Node: "a", Holds: "key k"}},
		`{"v":1,"id":0,"at":"2026-03-01T12:00:00Z","drop_closing":{"closing":64,"group":"g","reason":"r"}}`:                           {At: noon, DropClosing: &DropClosing{Closing: 64, Group: "g", Reason: "r"}},
	} {
		if got, err := EncodeCommand(c); err != nil || string(got) != want {
			t.Errorf("%s, %v, want %s", got, err, want)
		}
	}
	f := deleted(t)
	if !strings.Contains(f.bytes(), `"retired":[{"name":"orders","epoch":1,"at":"`) {
		t.Errorf("snapshot %s", f.bytes())
	}
	if f = closing(t); !strings.Contains(f.bytes(), fmt.Sprintf(`"closing":{"id":%d,"by":"ann","at":"`, f.Groups["orders"].Closing.ID)) {
		t.Errorf("snapshot %s", f.bytes())
	}
}

// checkClosing checks that a group goes by its primary's own answer in an unbroken epoch only, and never comes back.
func checkClosing(t *rapid.T, before, s *State, c Command, r Result) {
	for name, o := range before.Groups {
		g := s.Groups[name]
		if g == nil {
			a := c.AnswerClosing
			if a == nil || r.Refused != "" || a.Holds != "" || o.Closing == nil || a.Closing != o.Closing.ID || a.Epoch != o.Epoch || a.Node != o.Primary || o.Phase != PhaseOpened || o.Operation != nil {
				t.Fatalf("group %+v was deleted: %+v", o, c)
			}
			if _, ok := s.Retirement(name); !ok || len(s.Groups) == 0 || !slices.Contains(r.Ended, name) {
				t.Fatalf("deleted without a trace, or as the last one: %+v", c)
			}
			continue
		}
		if g.Closing != nil && (g.Epoch != o.Epoch || g.Primary != o.Primary || g.Phase != PhaseOpened || g.Operation != nil || g.Scheduled != nil || len(g.Consumers) > 0) {
			t.Fatalf("closing %+v: %+v", g, c)
		}
	}
	if len(s.Retired) < len(before.Retired) || !slices.IsSortedFunc(s.Retired, func(a, b Retired) int { return strings.Compare(string(a.Name), string(b.Name)) }) {
		t.Fatalf("retired %v: %+v", s.Retired, c)
	}
	for _, gone := range s.Retired {
		if _, planned := s.Plan(gone.Name); planned || s.Groups[gone.Name] != nil {
			t.Fatalf("%s came back: %+v", gone.Name, c)
		}
	}
}
