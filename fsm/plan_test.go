package fsm

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/understudy-ha/understudy/internal/ident"
)

func plan(specs ...GroupSpec) Command { return Command{PlanGroups: &PlanGroups{Specs: specs}} }

func orders() GroupSpec { return GroupSpec{Name: "orders", Files: []string{"orders*"}, Preferred: "b"} }

func createPlanned(s GroupSpec, life ident.Incarnation) Command {
	return Command{CreateGroup: &CreateGroup{Spec: s, Incarnation: life, Planned: true}}
}

// TestPlan: a group that may take records of another one is created once that one's primary has said that it holds none. Proves TR-7, HB-2, I8.
func TestPlan(t *testing.T) {
	f := opened(t)
	if r := f.do(createPlanned(orders(), lifeB)); r.Refused != RefusedSelection {
		t.Fatalf("created without a plan: %+v", r)
	}
	f.must(plan(orders()))
	p, ok := f.Plan("orders")
	if !ok || text(p.Ask) != "[g]" {
		t.Fatalf("planned: %+v", p)
	}
	again := orders()
	again.Preferred = "c"
	f.must(plan(again))
	if q, _ := f.Plan("orders"); q.ID != p.ID || q.Spec.Preferred != "c" || len(f.Planned) != 1 {
		t.Fatalf("planned again: %+v", f.Planned)
	}
	for name, c := range map[string]struct {
		c    Command
		want string
	}{
		"created too early":     {createPlanned(again, lifeC), RefusedBusy},
		"another selection":     {plan(GroupSpec{Name: "orders", Files: []string{"order*"}, Preferred: "b"}), RefusedExists},
		"meets what is planned": {plan(GroupSpec{Name: "h", Files: []string{"*"}, Preferred: "b", Keys: KeyRange{From: "x"}}), RefusedSelection},
		"the same records":      {plan(GroupSpec{Name: "h", Files: []string{"*s-1"}, Preferred: "b"}), RefusedSelection},
		"nothing":               {plan(), RefusedInvalid},
		"too many patterns":     {plan(GroupSpec{Name: "h", Files: slices.Repeat([]string{"x"}, maxPatterns+1), Preferred: "b"}), RefusedInvalid},
		"too long patterns":     {plan(GroupSpec{Name: "h", Files: slices.Repeat([]string{strings.Repeat("x", maxPattern)}, maxPatternBytes/maxPattern+1), Preferred: "b"}), RefusedInvalid},
		"invalid":               {plan(GroupSpec{Name: "h", Files: []string{"["}, Preferred: "b"}), RefusedInvalid},
		"exists":                {plan(GroupSpec{Name: "g", Secondaries: 2, Preferred: "a"}), RefusedExists},
		"another plan":          {Command{AnswerPlan: &AnswerPlan{Plan: p.ID + 1, Group: "g", Epoch: 1, Node: "a"}}, RefusedOperation},
		"nobody asked it":       {Command{AnswerPlan: &AnswerPlan{Plan: p.ID, Group: "h", Epoch: 1, Node: "a"}}, RefusedOperation},
		"an old epoch":          {Command{AnswerPlan: &AnswerPlan{Plan: p.ID, Group: "g", Epoch: 2, Node: "a"}}, RefusedEpoch},
		"another node":          {Command{AnswerPlan: &AnswerPlan{Plan: p.ID, Group: "g", Epoch: 1, Node: "b"}}, RefusedEpoch},
		"no such plan":          {Command{DropPlan: &DropPlan{Plan: p.ID + 1}}, RefusedOperation},
	} {
		before := f.Applied
		had := f.bytes()
		r := f.do(c.c)
		f.Applied = before
		if r.Refused != c.want || f.bytes() != had {
			t.Errorf("%s: %+v", name, r)
		}
	}
	f.must(Command{AnswerPlan: &AnswerPlan{Plan: p.ID, Group: "g", Epoch: 1, Node: "a"}})
	if r := f.do(Command{DropPlan: &DropPlan{Plan: p.ID}}); r.Refused != RefusedBusy {
		t.Errorf("given up when it may be created already: %+v", r)
	}
	if r := f.do(createPlanned(GroupSpec{Name: "orders", Files: []string{"*"}, Preferred: "b"}, lifeB)); r.Refused != RefusedExists {
		t.Errorf("created with another selection: %+v", r)
	}
	f.must(createPlanned(again, lifeC))
	if f.Planned != nil || f.Groups["orders"].Primary != "c" {
		t.Errorf("planned %v, group %+v", f.Planned, f.Groups["orders"])
	}
	f.must(createPlanned(again, lifeC)) // whose outcome was not known
	f.must(plan(again))
	if f.Planned != nil {
		t.Errorf("planned although it is there: %v", f.Planned)
	}
}

// TestPlanOfHeldRecords: what is held keeps the group from being created, a failover makes the new primary look, and a plan that is given
// up is another one when it is made again. Proves TR-7, I8.
func TestPlanOfHeldRecords(t *testing.T) {
	f := promoted(t) // by b, at epoch 2
	f.must(plan(orders()))
	p, _ := f.Plan("orders")
	answer := &AnswerPlan{Plan: p.ID, Group: "g", Epoch: 2, Node: "b"}
	if r := f.do(Command{AnswerPlan: answer}); r.Refused != RefusedEpoch {
		t.Fatalf("answered by a primary that has not opened: %+v", r)
	}
	f.must(Command{Open: &Open{Group: "g", Epoch: 2, Node: "b", Incarnation: lifeB, Rows: []ident.HistoryRow{row(2, "b", 10)}, InSync: []ident.NodeID{"b"}}})
	f.must(Command{AnswerPlan: &AnswerPlan{Plan: p.ID, Group: "g", Epoch: 2, Node: "b", Holds: "12 of them"}})
	if f.Planned != nil || f.WhyDeclined(p.ID) != "12 of them" {
		t.Fatalf("planned %v, declined %v", f.Planned, f.Declined)
	}
	f.must(plan(orders()))
	q, _ := f.Plan("orders")
	if q.ID == p.ID {
		t.Fatal("an answer to the first plan would answer the second")
	}
	if r := f.do(Command{AnswerPlan: answer}); r.Refused != RefusedOperation {
		t.Fatalf("a late answer: %+v", r)
	}
	f.must(Command{DropPlan: &DropPlan{Plan: q.ID, Reason: "no answer"}})
	for range maxDeclined + 3 {
		f.must(plan(orders()))
		q, _ := f.Plan("orders")
		f.must(Command{DropPlan: &DropPlan{Plan: q.ID, Reason: "no answer"}})
	}
	if len(f.Declined) != maxDeclined {
		t.Errorf("%d are remembered", len(f.Declined))
	}
}

// TestFoundingPlan: groups of one configuration are planned before there is any, so nobody is asked, and a later one asks those that
// there are by then. Proves IC-1, TR-7.
func TestFoundingPlan(t *testing.T) {
	f := empty(t)
	all := GroupSpec{Name: "default", Preferred: "a"}
	low := GroupSpec{Name: "low", Files: []string{"big"}, Preferred: "b", Keys: KeyRange{To: "m"}}
	high := GroupSpec{Name: "high", Files: []string{"big"}, Preferred: "c", Keys: KeyRange{From: "m"}}
	f.must(plan(all, low, high))
	for _, p := range f.Planned {
		if p.Ask != nil {
			t.Errorf("%s asks %v", p.Spec.Name, p.Ask)
		}
	}
	if r := f.do(plan(GroupSpec{Name: "both", Files: []string{"big"}, Preferred: "c"})); r.Refused != RefusedSelection {
		t.Errorf("planned over two: %+v", r)
	}
	f.must(createPlanned(all, lifeA))
	f.must(createPlanned(low, lifeB))
	var b bytes.Buffer
	if err := f.Encode(&b); err != nil {
		t.Fatal(err)
	}
	back, err := Decode(&b)
	if err != nil || len(back.Planned) != 1 || back.Planned[0].Spec.Keys != high.Keys || back.Groups["low"].Spec.Keys != low.Keys {
		t.Fatalf("read back: %+v, %v", back.Planned, err)
	}
	f.must(plan(GroupSpec{Name: "later", Files: []string{"x*"}, Preferred: "c"}))
	if p, _ := f.Plan("later"); text(p.Ask) != "[default]" {
		t.Errorf("later asks %v", p.Ask)
	}
	s := f.Groups["low"].Spec
	s.Keys.To = "n"
	if r := f.do(Command{ChangeSpec: &ChangeSpec{Group: "low", Spec: s}}); r.Refused != RefusedInvalid {
		t.Errorf("the keys of a group were changed: %+v", r)
	}
}
