package fsm

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/understudy-ha/understudy/internal/ident"
)

// checkSpace checks what must hold of dropped nodes, holds and changes of the spec, whatever the commands are.
func checkSpace(t *rapid.T, before, s *State, c Command) {
	for name, g := range s.Groups {
		for _, d := range g.Dropped {
			if g.InSet(d.Node) || g.Phase != PhaseFenced && g.Primary == d.Node && g.Phase == PhaseOpened {
				t.Fatalf("%s is dropped, and in the set %v: %+v", d.Node, g.InSync, c)
			}
		}
		for i, h := range g.Consumers {
			if h.Version == 0 || h.Version > g.HoldVersion || i > 0 && g.Consumers[i-1].Name >= h.Name {
				t.Fatalf("holds %+v at version %d: %+v", g.Consumers, g.HoldVersion, c)
			}
		}
		o := before.Groups[name]
		if o == nil {
			continue
		}
		if (o.SpecVersion != g.SpecVersion) != !sameSpec(o.Spec, g.Spec) || g.SpecVersion != o.SpecVersion && c.ChangeSpec == nil {
			t.Fatalf("spec at version %d after %d: %+v", g.SpecVersion, o.SpecVersion, c)
		}
		if o.Spec.Delivery != g.Spec.Delivery && (g.Phase != PhaseOpened || len(g.InSync) != 1 || !g.InSet(g.Primary) || g.SetVersion != o.SetVersion+1 ||
			g.Deliveries != o.Deliveries+1 || g.Epoch != o.Epoch || o.Operation != nil) {
			t.Fatalf("the delivery changed to %s: %+v", g.Spec.Delivery, g)
		}
		if g.Spec.Delivery == DeliveryAsync && g.Phase == PhaseOpened && len(g.InSync) > 1 {
			t.Fatalf("an asynchronous group has the set %v: %+v", g.InSync, c)
		}
		if c.Drop != nil && c.Drop.Group == name && len(g.Dropped) > len(o.Dropped) &&
			(before.Pause != nil || o.InSet(c.Drop.Node) || o.Primary == c.Drop.Node || o.Spec.JournalFull != JournalFullDrop || !o.HoldsBack(c.Drop.Node, before.Nodes)) {
			t.Fatalf("dropped: %+v", c)
		}
	}
}

// reports lets the nodes tell how far they are: flushed, and the end of a's journal.
func (f *fixture) reports(at map[ident.NodeID]int) {
	for n, life := range map[ident.NodeID]ident.Incarnation{"a": lifeA, "b": lifeB, "c": lifeC} {
		f.must(Command{Renew: &Renew{Node: n, Directory: ident.DirectoryID("dir-" + n), Incarnation: life,
			Flushed: map[ident.GroupName]ident.Position{"g": position(1, ident.History(at[n]))}, Copies: map[ident.GroupName]Ends{"g": {"a": ident.Sequence(at[n])}}}})
	}
}

// dropping has the group g with journal_full drop, the set {a, b}, and c far behind.
func dropping(t testing.TB) *fixture {
	f := opened(t)
	to := f.group().Spec
	to.JournalFull = JournalFullDrop
	f.must(Command{ChangeSpec: &ChangeSpec{Group: "g", Spec: to}})
	f.reports(map[ident.NodeID]int{"a": 9, "b": 9, "c": 3})
	return f
}

func dropC() Command {
	return Command{Drop: &Drop{Group: "g", Epoch: 1, Node: "c", Reason: "full"}}
}

// TestDrop: who was dropped takes no part until it is readmitted. Proves TR-5.
func TestDrop(t *testing.T) {
	f := dropping(t)
	version := f.group().SetVersion
	f.must(dropC())
	g := f.group()
	if len(g.Dropped) != 1 || g.Dropped[0].Node != "c" || g.Dropped[0].LastCopy || g.Dropped[0].Flushed != position(1, 3) || g.SetVersion != version+1 || Role(g, f.Nodes["c"]) != RoleDropped {
		t.Fatalf("%+v", g)
	}
	if p := f.Past[len(f.Past)-1]; p.Kind != OperationDrop || p.From != "c" || p.State != OperationDone || p.ID != f.NextOperation-1 {
		t.Fatalf("%+v", p)
	}
	for name, c := range map[string]Command{
		"grow":        {ChangeSet: &ChangeSet{Group: "g", Epoch: 1, Version: g.SetVersion, Add: "c"}},
		"switch over": {StartSwitch: &StartSwitch{Group: "g", Epoch: 1, To: "c", MaxPause: 1, Deadline: noon}},
	} {
		if r := f.do(c); r.Refused != RefusedDropped {
			t.Errorf("%s: %+v", name, r)
		}
	}
	f.must(dropC()) // twice
	if len(f.group().Dropped) != 1 {
		t.Fatalf("%+v", f.group().Dropped)
	}
	f.must(Command{Readmit: &Readmit{Group: "g", Epoch: 1, Node: "c", By: "ann"}})
	if g := f.group(); g.Dropped != nil || Role(g, f.Nodes["c"]) != RoleStandby {
		t.Fatalf("%+v", g)
	}
	// The last other copy is dropped, too, and said to be.
	f.must(dropC())
	f.must(Command{ChangeSet: &ChangeSet{Group: "g", Epoch: 1, Version: f.group().SetVersion, Remove: "b"}})
	f.reports(map[ident.NodeID]int{"a": 9, "b": 8, "c": 3})
	f.must(Command{Drop: &Drop{Group: "g", Epoch: 1, Node: "b", Reason: "full"}})
	if d := f.group().Dropped; len(d) != 2 || d[0].Node != "b" || !d[0].LastCopy {
		t.Fatalf("%+v", d)
	}
	// An operator may still give it the role, with loss allowed: its copy is the history then.
	f.must(Command{Fence: &Fence{Group: "g", Epoch: 1, Force: true, To: "b", AllowLoss: true}})
	f.report("b", lifeB, position(1, 8))
	f.report("c", lifeC, position(1, 9))
	to, _, _, ok, why := ChooseCandidate(f.group(), f.Nodes, func(ident.NodeID) bool { return true }, true)
	if !ok || to != "b" {
		t.Fatalf("%s %v %s", to, ok, why)
	}
	f.must(Command{Promote: &Promote{Group: "g", Epoch: 2, To: "b", Incarnation: lifeB}})
	f.must(Command{Open: &Open{Group: "g", Epoch: 2, Node: "b", Incarnation: lifeB, Rows: []ident.HistoryRow{row(2, "b", 9)}, InSync: []ident.NodeID{"b"}}})
	if g := f.group(); g.IsDropped("b") || !g.IsDropped("c") {
		t.Fatalf("%+v", g.Dropped)
	}
	open := Command{Open: &Open{Group: "g", Epoch: 3, Node: "b", Incarnation: lifeB, Rows: []ident.HistoryRow{row(3, "b", 20)}, InSync: []ident.NodeID{"b", "c"}}}
	f.must(Command{Fence: &Fence{Group: "g", Epoch: 2, Force: true}})
	f.report("b", lifeB, position(2, 19))
	f.must(Command{Promote: &Promote{Group: "g", Epoch: 3, To: "b", Incarnation: lifeB}})
	if r := f.do(open); r.Refused != RefusedDropped {
		t.Fatalf("opened with a dropped node: %+v", r)
	}
}

// TestSpaceRefusals has a row for everything that is refused. Proves TR-5, RJ-5.
func TestSpaceRefusals(t *testing.T) {
	held := func(t testing.TB) *fixture {
		f := opened(t)
		f.must(Command{SetHold: &SetHold{Group: "g", Name: "r", Position: position(1, 3), Until: noon}})
		return f
	}
	many := func(t testing.TB) *fixture {
		f := opened(t)
		for i := range maxHolds {
			f.must(Command{SetHold: &SetHold{Group: "g", Name: fmt.Sprint("r", i), Until: noon}})
		}
		return f
	}
	hold := func(f func(*SetHold)) Command {
		return Command{SetHold: change(&SetHold{Group: "g", Name: "x", Position: position(1, 3), Until: noon}, f)}
	}
	set := func(f func(*ChangeSpec)) Command {
		s := spec("g", "a").Normalize()
		s.Delivery = DeliveryAsync
		return Command{ChangeSpec: change(&ChangeSpec{Group: "g", Spec: s}, f)}
	}
	drop := func(f func(*Drop)) Command { return Command{Drop: change(dropC().Drop, f)} }
	paused := func(t testing.TB) *fixture {
		f := dropping(t)
		f.must(Command{SetPause: &SetPause{On: true, Reason: "r"}})
		return f
	}
	for _, c := range []struct {
		name string
		in   func(testing.TB) *fixture
		c    Command
		want string
	}{
		{"hold in no group", opened, hold(func(h *SetHold) { h.Group = "x" }), RefusedUnknown},
		{"hold without a name", opened, hold(func(h *SetHold) { h.Name = "" }), RefusedInvalid},
		{"hold without an end", opened, hold(func(h *SetHold) { h.Until = time.Time{} }), RefusedInvalid},
		{"hold outside the history", opened, hold(func(h *SetHold) { h.Position = position(2, 3) }), RefusedInvalid},
		{"hold by a long name", opened, hold(func(h *SetHold) { h.By = strings.Repeat("x", 201) }), RefusedInvalid},
		{"new hold at a version", opened, hold(func(h *SetHold) { h.Version = 1 }), RefusedControl},
		{"hold set by another meanwhile", held, hold(func(h *SetHold) { h.Name = "r" }), RefusedControl},
		{"one hold too many", many, hold(func(*SetHold) {}), RefusedInvalid},
		{"remove no hold", opened, Command{RemoveHold: &RemoveHold{Group: "g", Name: "r"}}, RefusedInvalid},
		{"remove a hold that moved", held, Command{RemoveHold: &RemoveHold{Group: "g", Name: "r", Version: 7}}, RefusedControl},
		{"remove in no group", held, Command{RemoveHold: &RemoveHold{Group: "x", Name: "r", Version: 1}}, RefusedUnknown},

		{"spec of no group", opened, set(func(s *ChangeSpec) { s.Group = "x" }), RefusedUnknown},
		{"spec of another version", opened, set(func(s *ChangeSpec) { s.Version = 1 }), RefusedControl},
		{"spec of nonsense", opened, set(func(s *ChangeSpec) { s.Spec.OnNoSync = "x" }), RefusedInvalid},
		{"other files", opened, set(func(s *ChangeSpec) { s.Spec.Files = []string{"x"} }), RefusedInvalid},
		{"another order", opened, set(func(s *ChangeSpec) { s.Spec.Order = 3 }), RefusedInvalid},
		{"another name", opened, set(func(s *ChangeSpec) { s.Spec.Name = "h" }), RefusedInvalid},
		{"a preferred witness", opened, set(func(s *ChangeSpec) { s.Spec.Preferred = "w" }), RefusedUnknown},
		{"fed by itself", opened, set(func(s *ChangeSpec) { s.Spec.Feeds = feedsOf{"c": "c"} }), RefusedInvalid},
		{"fed in a ring", opened, set(func(s *ChangeSpec) { s.Spec.Feeds = feedsOf{"c": "b", "b": "c"} }), RefusedInvalid},
		{"fed by a witness", opened, set(func(s *ChangeSpec) { s.Spec.Feeds = feedsOf{"c": "w"} }), RefusedUnknown},
		{"a witness is fed", opened, set(func(s *ChangeSpec) { s.Spec.Feeds = feedsOf{"w": "b"} }), RefusedUnknown},
		{"fed by nobody known", opened, set(func(s *ChangeSpec) { s.Spec.Feeds = feedsOf{"c": "x"} }), RefusedUnknown},
		{"delivery during a failover", fenced, set(func(*ChangeSpec) {}), RefusedEpoch},
		{"delivery during a takeover", promoted, set(func(*ChangeSpec) {}), RefusedEpoch},
		{"delivery during a switch-over", draining, set(func(*ChangeSpec) {}), RefusedBusy},
		{"delivery before it is finished", handed, set(func(*ChangeSpec) {}), RefusedBusy},

		{"drop from no group", dropping, drop(func(d *Drop) { d.Group = "x" }), RefusedUnknown},
		{"drop a witness", dropping, drop(func(d *Drop) { d.Node = "w" }), RefusedUnknown},
		{"drop at another epoch", dropping, drop(func(d *Drop) { d.Epoch = 2 }), RefusedEpoch},
		{"drop during a pause", paused, drop(func(*Drop) {}), RefusedPaused},
		{"drop the primary", dropping, drop(func(d *Drop) { d.Node = "a" }), RefusedDrop},
		{"drop a member", dropping, drop(func(d *Drop) { d.Node = "b" }), RefusedDrop},
		{"drop where writes stall", opened, drop(func(*Drop) {}), RefusedDrop},
		{"drop who is level", func(t testing.TB) *fixture {
			f := dropping(t)
			f.reports(map[ident.NodeID]int{"a": 9, "b": 9, "c": 9})
			return f
		}, drop(func(*Drop) {}), RefusedDrop},
		{"drop who is not furthest behind", func(t testing.TB) *fixture {
			f := dropping(t)
			f.reports(map[ident.NodeID]int{"a": 9, "b": 2, "c": 3})
			return f
		}, drop(func(*Drop) {}), RefusedDrop},
		{"drop during a switch-over", func(t testing.TB) *fixture {
			f := dropping(t)
			f.must(Command{StartSwitch: &StartSwitch{Group: "g", Epoch: 1, To: "b", MaxPause: 1, Deadline: noon}})
			return f
		}, drop(func(*Drop) {}), RefusedBusy},
		{"readmit who was not dropped", dropping, Command{Readmit: &Readmit{Group: "g", Epoch: 1, Node: "c"}}, RefusedInvalid},
		{"readmit at another epoch", dropping, Command{Readmit: &Readmit{Group: "g", Epoch: 2, Node: "c"}}, RefusedEpoch},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := c.in(t)
			before := f.bytes()
			for range 2 {
				if r := f.do(c.c); r.Refused != c.want || strings.TrimSpace(r.Detail) == "" {
					t.Fatalf("got %q (%s), want %q", r.Refused, r.Detail, c.want)
				}
			}
			if f.Applied -= 2; f.bytes() != before {
				t.Fatal("a refused command changed the state")
			}
		})
	}
}

// TestChangeDelivery: the set is the primary alone after either change, and no growth proposed before is applied after.
func TestChangeDelivery(t *testing.T) {
	f := opened(t)
	set := func(d Delivery) {
		t.Helper()
		to := f.group().Spec
		to.Delivery = d
		f.must(Command{ChangeSpec: &ChangeSpec{Group: "g", Version: f.group().SpecVersion, Spec: to}})
		if g := f.group(); len(g.InSync) != 1 || g.InSync[0] != "a" || g.Spec.Delivery != d {
			t.Fatalf("%+v", g)
		}
	}
	late := Command{ChangeSet: &ChangeSet{Group: "g", Epoch: 1, Version: f.group().SetVersion, Add: "c"}}
	set(DeliveryAsync)
	if r := f.do(late); r.Refused == "" {
		t.Fatal("a member joined an asynchronous group")
	}
	set(DeliverySync)
	if r := f.do(late); r.Refused != RefusedSet {
		t.Fatalf("a growth from before was applied: %+v", r)
	}
	if g := f.group(); g.Deliveries != 2 || g.SpecVersion != 2 {
		t.Fatalf("%+v", g)
	}
}

// TestGoldenSpaceCommands holds the bytes of the commands about space. They stand in Raft logs and never change.
func TestGoldenSpaceCommands(t *testing.T) {
	s := GroupSpec{Name: "g", Files: []string{"*"}, Blocks: 1, MaximumBlocks: 4, JournalFull: JournalFullDrop, ReceiverAge: time.Hour}
	for _, c := range []struct {
		c    Command
		want string
	}{
		{Command{At: noon, ChangeSpec: &ChangeSpec{Group: "g", Version: 2, Spec: s, By: "ann"}},
			`{"v":1,"id":0,"at":"2026-03-01T12:00:00Z","change_spec":{"group":"g","version":2,"spec":{"name":"g","order":0,"files":["*"],"preferred":"","delivery":"","secondaries":0,"on_no_sync":"","auto_failover":"","images":"","receiver_bytes":0,"keep_receivers":0,"blocks":1,"maximum_blocks":4,"journal_full":"drop","receiver_age":3600000000000},"by":"ann"}}`},
		{Command{At: noon, SetHold: &SetHold{Group: "g", Name: "r", Version: 3, Position: position(1, 9), Until: noon, By: "ann"}},
			`{"v":1,"id":0,"at":"2026-03-01T12:00:00Z","set_hold":{"group":"g","name":"r","version":3,"position":{"epoch":1,"h":9},"until":"2026-03-01T12:00:00Z","by":"ann"}}`},
		{Command{At: noon, RemoveHold: &RemoveHold{Group: "g", Name: "r", Version: 3}},
			`{"v":1,"id":0,"at":"2026-03-01T12:00:00Z","remove_hold":{"group":"g","name":"r","version":3}}`},
		{Command{At: noon, Drop: &Drop{Group: "g", Epoch: 1, Node: "c", Reason: "r"}},
			`{"v":1,"id":0,"at":"2026-03-01T12:00:00Z","drop":{"group":"g","epoch":1,"node":"c","reason":"r"}}`},
		{Command{At: noon, Readmit: &Readmit{Group: "g", Epoch: 1, Node: "c", By: "ann"}},
			`{"v":1,"id":0,"at":"2026-03-01T12:00:00Z","readmit":{"group":"g","epoch":1,"node":"c","by":"ann"}}`},
	} {
		b, err := EncodeCommand(c.c)
		if err != nil || string(b) != c.want {
			t.Errorf("got  %s\nwant %s\n%v", b, c.want, err)
		}
	}
}

// TestSpaceKeys: what bounds the journals is checked. Proves TR-5.
func TestSpaceKeys(t *testing.T) {
	for _, c := range []struct {
		set func(*GroupSpec)
		bad string
	}{
		{func(*GroupSpec) {}, ""},
		{func(s *GroupSpec) { s.MaximumBlocks, s.Blocks = 256, 128 }, ""},
		{func(s *GroupSpec) { s.JournalFull = JournalFullStall }, ""},
		{func(s *GroupSpec) { s.MaximumBlocks = 255 }, "maximum_blocks"},
		{func(s *GroupSpec) { s.MaximumBlocks = -1 }, "maximum_blocks"},
		{func(s *GroupSpec) { s.Blocks = -1 }, "blocks"},
		{func(s *GroupSpec) { s.MaximumBlocks, s.Blocks = 256, 129 }, "blocks"},
		{func(s *GroupSpec) { s.JournalFull = "x" }, "journal_full"},
		{func(s *GroupSpec) { s.ReceiverAge = time.Millisecond }, "receiver_age"},
	} {
		s := spec("g", "a")
		c.set(&s)
		s = s.Normalize()
		if err := s.Validate(); (err != nil) != (c.bad != "") || err != nil && !strings.Contains(err.Error(), c.bad) {
			t.Errorf("%+v: %v", s, err)
		}
		if s.JournalFull == JournalFullStall {
			t.Error("two forms of one choice")
		}
	}
}
