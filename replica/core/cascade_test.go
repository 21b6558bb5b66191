package core

import (
	"slices"
	"testing"
	"time"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
)

// cascaded is a group in which a is primary and opened epoch 3, b is in the set, and b is to feed c.
func cascaded(change func(*fsm.Group)) *fsm.Group {
	g := &fsm.Group{
		Spec: fsm.GroupSpec{Name: "orders", Secondaries: 1, Feeds: map[ident.NodeID]ident.NodeID{"c": "b", "d": "c"}}, Phase: fsm.PhaseOpened, Epoch: 3, Primary: "a",
		Incarnation: 7, OpenEpoch: 3, OpenNode: "a", InSync: []ident.NodeID{"a", "b"}, History: ident.HistoryTable{row(1, "b", 1), row(3, "a", 6)},
	}
	if change != nil {
		change(g)
	}
	return g
}

func switchTo(to ident.NodeID) func(*fsm.Group) {
	return func(g *fsm.Group) {
		g.Operation = &fsm.Operation{Kind: fsm.OperationSwitchover, State: fsm.OperationRunning, Step: fsm.StepPrepare, From: g.Primary, To: to}
	}
}

// Proves RJ-3: a feeder is let in for the epoch and the part that one's own state shows, and for nothing else.
func TestFeedersAreAdmitted(t *testing.T) {
	feeder := Caller{From: "b", Epoch: 3, Life: 9, Author: "a"}
	change := func(f func(*Caller)) Caller { x := feeder; f(&x); return x }
	cases := []struct {
		name     string
		group    *fsm.Group
		promised ident.Epoch
		self     ident.NodeID
		caller   Caller
		want     Verdict
	}{
		{"the feeder", cascaded(nil), 3, "c", feeder, Admitted},
		{"with its own journal", cascaded(nil), 3, "c", change(func(x *Caller) { x.Author = "b" }), Admitted},
		{"the primary too", cascaded(nil), 3, "c", Caller{From: "a", Epoch: 3, Life: 7, Author: "a"}, Admitted},
		{"the feeder of somebody else", cascaded(nil), 3, "d", feeder, NotSource},
		{"the target at its feeder", cascaded(nil), 3, "b", change(func(x *Caller) { x.From = "c" }), NotSource},
		{"with the target's own journal", cascaded(nil), 3, "c", change(func(x *Caller) { x.Author = "c" }), NotSource},
		{"of an older epoch", cascaded(nil), 1, "c", change(func(x *Caller) { x.Epoch = 2 }), Fenced},
		{"of an epoch not known", cascaded(nil), 3, "c", change(func(x *Caller) { x.Epoch = 4 }), TooEarly},
		{"below a promise", cascaded(nil), 4, "c", feeder, Fenced},
		{"nobody is named", cascaded(func(g *fsm.Group) { g.Spec.Feeds = nil }), 3, "c", feeder, NotSource},
		{"fenced", cascaded(func(g *fsm.Group) { g.Phase, g.Epoch = fsm.PhaseFenced, 4 }), 3, "c", feeder, Fenced},
		{"not opened", cascaded(func(g *fsm.Group) { g.Phase, g.OpenEpoch, g.OpenNode = fsm.PhasePromoted, 2, "b" }), 3, "c", feeder, NotSource},
		{"the target is in the set", cascaded(func(g *fsm.Group) { g.InSync = []ident.NodeID{"a", "c"} }), 3, "c", feeder, NotSource},
		{"the role is to go to the target", cascaded(switchTo("c")), 3, "c", feeder, NotSource},
		{"the role is to go elsewhere", cascaded(switchTo("b")), 3, "c", feeder, Admitted},
		{"the feeder was dropped", cascaded(func(g *fsm.Group) { g.Dropped = []fsm.Dropped{{Node: "b"}} }), 3, "c", feeder, NotSource},
	}
	for _, c := range cases {
		if got := Admissible(c.group, c.promised, c.self, c.caller); got.Verdict != c.want {
			t.Errorf("%s: %+v, want %d", c.name, got, c.want)
		}
	}
}

// Proves RJ-3: the primary waits for the feeder, and for nobody else; a feeder waits for nobody.
func TestPrimaryYieldsToTheFeeder(t *testing.T) {
	feeder, primary := Caller{From: "b", Epoch: 3, Author: "a"}, Caller{From: "a", Epoch: 3, Author: "a"}
	for _, c := range []struct {
		name    string
		group   *fsm.Group
		have, c Caller
		want    bool
	}{
		{"beside the feeder", cascaded(nil), feeder, primary, true},
		{"beside its own older session", cascaded(nil), primary, primary, false},
		{"the feeder beside the primary", cascaded(nil), primary, feeder, false},
		{"somebody else beside the feeder", cascaded(nil), feeder, Caller{From: "e", Epoch: 3, Author: "a"}, false},
		{"the feeder of another epoch", cascaded(nil), Caller{From: "b", Epoch: 2, Author: "a"}, primary, false},
		{"one that is not the feeder any more", cascaded(func(g *fsm.Group) { g.Spec.Feeds = nil }), feeder, primary, false},
		{"this node is needed in the set", cascaded(func(g *fsm.Group) { g.InSync = []ident.NodeID{"a", "c"} }), feeder, primary, false},
		{"this node is to be primary", cascaded(switchTo("c")), feeder, primary, false},
	} {
		if got := Yields(c.group, "c", c.have, c.c); got != c.want {
			t.Errorf("%s: %t", c.name, got)
		}
	}
}

// Proves I5: a committed end counts that stands in the journal of the primary of the opened epoch, whoever ships it.
func TestCommittedEndOfAFeeder(t *testing.T) {
	end := pos(3, 8)
	for _, c := range []struct {
		name  string
		group *fsm.Group
		c     Caller
		end   ident.Position
		want  bool
	}{
		{"the primary's own journal, by itself", cascaded(nil), Caller{From: "a", Author: "a", Epoch: 3}, end, true},
		{"by the feeder", cascaded(nil), Caller{From: "b", Author: "a", Epoch: 3}, end, true},
		{"the feeder's own journal", cascaded(nil), Caller{From: "b", Author: "b", Epoch: 3}, pos(1, 4), false},
		{"before this state shows the epoch", cascaded(func(g *fsm.Group) { g.Phase = fsm.PhasePromoted }), Caller{From: "b", Author: "a", Epoch: 3}, end, false},
		{"an epoch that is over", cascaded(nil), Caller{From: "b", Author: "b", Epoch: 1}, pos(1, 4), false},
		{"outside the history", cascaded(nil), Caller{From: "b", Author: "a", Epoch: 3}, pos(1, 9), false},
	} {
		if got := Trusts(c.group, c.c, c.end); got != c.want {
			t.Errorf("%s: %t", c.name, got)
		}
	}
}

// Proves RJ-3: that nobody waits for a node is for the primary to say.
func TestFeedersNeverFree(t *testing.T) {
	g := cascaded(nil)
	if !FreeHere(g, "c", Caller{From: "a", Author: "a", Epoch: 3}, true) {
		t.Error("the primary is not believed")
	}
	if FreeHere(g, "c", Caller{From: "b", Author: "a", Epoch: 3}, true) {
		t.Error("a feeder is believed")
	}
}

// A backup feeds while it has something to give.
func TestAble(t *testing.T) {
	for _, c := range []struct {
		name string
		f    Feeder
		want bool
	}{
		{"level and connected", Feeder{Epoch: 3, Promised: 3, Level: true}, true},
		{"connected, not level yet", Feeder{Epoch: 3, Promised: 3}, false},
		{"behind while it feeds", Feeder{Epoch: 3, Promised: 3, Feeds: true}, true},
		{"cut off a moment ago", Feeder{Promised: 3, Level: true, Feeds: true, Lately: true}, true},
		{"cut off", Feeder{Promised: 3, Level: true, Feeds: true}, false},
		{"cut off, does not begin", Feeder{Promised: 3, Level: true, Lately: true}, false},
		{"connected in another epoch", Feeder{Epoch: 2, Promised: 3, Level: true}, false},
		{"has promised another epoch", Feeder{Epoch: 3, Promised: 4, Level: true}, false},
	} {
		if got := c.f.Able(cascaded(nil)); got != c.want {
			t.Errorf("%s: %t", c.name, got)
		}
	}
	if (Feeder{Epoch: 3, Level: true}).Able(cascaded(func(g *fsm.Group) { g.Phase = fsm.PhaseFenced })) {
		t.Error("feeds while nobody is primary")
	}
}

// Whom another backup is to feed is in the set only while nobody else can be.
func TestFedNodesAndTheSet(t *testing.T) {
	rule := SetRule{Sync: true, Wanted: 1, ShrinkAfter: time.Second}
	two := rule
	two.Wanted = 2
	b := Member{Node: "b", Alive: true, Connected: true, Level: true, Progress: true, Priority: 5}
	c := Member{Node: "c", Alive: true, Connected: true, Level: true, Progress: true, Priority: 1, Fed: true}
	in := func(m Member) Member { m.InSet = true; return m }
	gone := Member{Node: "b", Stalled: time.Minute}
	with := func(r SetRule, f func(*SetRule)) SetRule { f(&r); return r }
	for _, x := range []struct {
		name    string
		rule    SetRule
		members []Member
		want    SetAction
		node    ident.NodeID
	}{
		{"the other one comes first, whatever the priority", rule, []Member{b, c}, SetWait, "b"},
		{"it does not make the set larger", two, []Member{in(b), c}, SetNothing, ""},
		{"nobody else is left", rule, []Member{gone, c}, SetWait, "c"},
		{"the other one is back: it counts for nothing", rule, []Member{b, in(c)}, SetWait, "b"},
		{"and leaves then", rule, []Member{in(b), in(c)}, SetRemove, "c"},
		{"even if two are wanted", two, []Member{in(b), in(c)}, SetRemove, "c"},
		{"but not for one that hangs", rule, []Member{in(gone), in(c)}, SetRemove, "b"},
		{"nor while a switch-over runs", with(rule, func(r *SetRule) { r.Target = "c" }), []Member{in(b), in(c)}, SetNothing, ""},
		{"the target of a switch-over joins", with(rule, func(r *SetRule) { r.Target = "c" }), []Member{in(b), c}, SetWait, "c"},
		{"the surplus is somebody else", rule, []Member{in(b), in(Member{Node: "e", Connected: true, Priority: 9}), c}, SetRemove, "e"},
	} {
		if d := DecideSet(x.rule, x.members); d.Action != x.want || d.Node != x.node {
			t.Errorf("%s: %+v", x.name, d)
		}
	}
	nodes := map[ident.NodeID]*fsm.Node{"a": {Kind: fsm.KindData}, "b": {Kind: fsm.KindData, Priority: 5}, "c": {Kind: fsm.KindData, Priority: 1}}
	g := cascaded(func(g *fsm.Group) { g.Spec.Secondaries, g.InSync = 2, []ident.NodeID{"a", "c"} })
	if got := OpenSet(g, nodes, "a", func(ident.NodeID) bool { return true }); !slices.Equal(got, []ident.NodeID{"a", "b"}) {
		t.Errorf("Open names %v", got)
	}
	if got := OpenSet(g, nodes, "a", func(n ident.NodeID) bool { return n == "c" }); !slices.Equal(got, []ident.NodeID{"a", "c"}) {
		t.Errorf("Open names %v where nobody else holds its SW", got)
	}
}

// Proves RJ-3: a feeder that brings nothing while the primary has more is left, and tried again after a rest that doubles up to a bound;
// one that brings something, or that has all that there is, is not.
func TestStalledFeederIsLeft(t *testing.T) {
	const patience = 3 * time.Second
	type call struct {
		feeder    ident.NodeID
		have, end ident.Sequence
		at        time.Duration
		leaves    bool
	}
	sec := time.Second
	for name, calls := range map[string][]call{
		"it brings nothing":            {{"b", 5, 9, 0, false}, {"b", 5, 10, 2 * sec, false}, {"b", 5, 11, 3*sec - 1, false}, {"b", 5, 11, 3 * sec, true}},
		"nor is the primary further":   {{"b", 5, 5, 0, false}, {"b", 5, 5, 9 * sec, false}, {"b", 5, 5, 20 * sec, false}},
		"then it is":                   {{"b", 5, 5, 0, false}, {"b", 5, 6, 9 * sec, false}, {"b", 5, 6, 12 * sec, true}},
		"just now, after it was level": {{"b", 5, 5, 0, false}, {"b", 5, 5, 9 * sec, false}, {"b", 5, 6, 10 * sec, false}, {"b", 5, 6, 12 * sec, false}, {"b", 5, 6, 13 * sec, true}},
		"the copy is longer":           {{"b", 7, 5, 0, false}, {"b", 7, 5, 9 * sec, false}},
		"it is slow":                   {{"b", 5, 90, 0, false}, {"b", 6, 95, 2 * sec, false}, {"b", 7, 99, 4 * sec, false}, {"b", 8, 110, 6 * sec, false}},
		"it stops":                     {{"b", 5, 90, 0, false}, {"b", 6, 95, 2 * sec, false}, {"b", 6, 99, 4 * sec, false}, {"b", 6, 99, 5 * sec, true}},
		"another feeder":               {{"b", 5, 9, 0, false}, {"d", 5, 9, 2 * sec, false}, {"d", 5, 9, 4 * sec, false}, {"d", 5, 9, 5 * sec, true}},
		"what was cut counts as news":  {{"b", 5, 9, 0, false}, {"b", 4, 9, 2 * sec, false}, {"b", 4, 9, 4 * sec, false}},
	} {
		var s Stall
		for i, c := range calls {
			if got := s.Leaves(c.feeder, c.have, c.end, c.at, patience); got != c.leaves {
				t.Errorf("%s, call %d: %t", name, i, got)
			}
		}
	}
	var none *Stall
	if none.Rests("b", 0) {
		t.Error("who was never left rests")
	}
	var s Stall
	now, rests := time.Duration(0), []time.Duration{}
	leave := func() {
		for !s.Leaves("b", 5, 9, now, patience) {
			now += sec
		}
		begin := now
		for s.Rests("b", now) {
			if s.Rests("d", now) {
				t.Fatal("somebody else rests")
			}
			now += sec
		}
		rests = append(rests, (now-begin)/patience)
	}
	for range 6 {
		leave()
	}
	s.Leaves("b", 6, 9, now, patience) // it works for a moment
	leave()
	for until := now + 41*patience; now < until; now += sec {
		s.Leaves("b", 5+ident.Sequence(now/sec), 1000, now, patience)
	}
	s.Leaves("b", 5, 9, now, patience)
	leave()
	if want := []time.Duration{4, 8, 16, 32, 40, 40, 40, 4}; !slices.Equal(rests, want) {
		t.Errorf("it rests for %v times the patience, want %v", rests, want)
	}
}
