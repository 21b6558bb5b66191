package replica

import (
	"slices"
	"testing"
	"time"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal/entry"
	"github.com/understudy-ha/understudy/journal/remote"
	"github.com/understudy-ha/understudy/journal/remote/wire"
)

func header(first ident.Sequence, n uint32, before ident.Position, e ident.Epoch) entry.Header {
	return entry.Header{First: first, Count: n, Facts: n, Before: before, Fact: pos(e, before.History+1), Session: e}
}

func TestCommitRule(t *testing.T) {
	h := header(10, 3, pos(2, 20), 2) // sequences 10..12, positions 21..23
	all := map[ident.NodeID]acked{}
	acks := func(n ident.NodeID) acked { return all[n] }
	rule := commitRule{waitFor: []ident.NodeID{"b", "c"}, acks: acks}
	check := func(what string, r commitRule, h entry.Header, durable ident.Sequence, want bool) {
		t.Helper()
		if got := r.allows(h, durable); got != want {
			t.Errorf("%s: %t", what, got)
		}
	}
	check("nobody acknowledged", rule, h, 12, false)
	all["b"] = acked{12, pos(2, 23)}
	check("one of two", rule, h, 12, false)
	all["c"] = acked{12, pos(2, 23)}
	check("both", rule, h, 12, true)
	check("not durable here", rule, h, 11, false)
	all["c"] = acked{12, pos(0, 0)}
	check("received over a hole", rule, h, 12, false)
	all["c"] = acked{11, pos(2, 23)}
	check("not durable there", rule, h, 12, false)
	all["c"] = acked{40, pos(1, 99)}
	check("held on an older branch", rule, h, 40, false)
	all["c"] = acked{}
	check("alone in async delivery", commitRule{acks: acks}, h, 12, true)
	check("alone under protection", commitRule{acks: acks, alone: true}, h, 12, false)
	check("committed by Open", commitRule{acks: acks, waitFor: rule.waitFor, alone: true, floor: pos(2, 23)}, h, 12, true)
	check("one above the floor", commitRule{acks: acks, waitFor: rule.waitFor, floor: pos(2, 22)}, h, 12, false)
	events := entry.Header{First: 13, Count: 2, Before: pos(2, 23)}
	check("events wait for nobody", rule, events, 14, true)
	check("events wait for the disk", rule, events, 13, false)
}

func TestWaitsFor(t *testing.T) {
	g := &fsm.Group{InSync: []ident.NodeID{"a", "b"}, Spec: fsm.GroupSpec{Delivery: fsm.DeliverySync}}
	if got := waitsFor(g, "a", []ident.NodeID{"b", "c"}); !slices.Equal(got, []ident.NodeID{"b", "c"}) {
		t.Errorf("sync delivery waits for %v", got)
	}
	g.Spec.Delivery = fsm.DeliveryAsync
	if got := waitsFor(g, "a", []ident.NodeID{"c"}); got != nil {
		t.Errorf("async delivery waits for %v", got)
	}
}

func TestDecideSet(t *testing.T) {
	rule := setRule{sync: true, wanted: 1, shrinkAfter: time.Second}
	well := member{node: "b", inSet: true, alive: true, connected: true, level: true, progress: true, priority: 2}
	spare := member{node: "c", alive: true, connected: true, level: true, progress: true, priority: 3}
	change := func(m member, f func(*member)) member { f(&m); return m }
	cases := []struct {
		name    string
		rule    setRule
		members []member
		want    setAction
		node    ident.NodeID
	}{
		{"all well", rule, []member{well, spare}, setNothing, ""},
		{"stalled", rule, []member{change(well, func(m *member) { m.stalled = time.Second }), spare}, setRemove, "b"},
		{"stalled for a moment", rule, []member{change(well, func(m *member) { m.stalled = 999 * time.Millisecond })}, setNothing, ""},
		{"nobody in the set", rule, []member{change(well, func(m *member) { m.inSet = false }), spare}, setWait, "b"},
		{"by priority", rule, []member{spare, change(spare, func(m *member) { m.node, m.priority = "d", 1 })}, setWait, "d"},
		{"no progress since it failed", rule, []member{change(spare, func(m *member) { m.progress = false })}, setNothing, ""},
		{
			"the target of a switch-over hangs before the hold", setRule{sync: true, wanted: 1, shrinkAfter: time.Second, target: "c"},
			[]member{well, change(spare, func(m *member) { m.growing, m.growingFor = true, time.Second })}, setForget, "c",
		},
		{
			"it is waited for in the hold", setRule{sync: true, wanted: 1, shrinkAfter: time.Second, target: "c", switching: true},
			[]member{well, change(spare, func(m *member) { m.growing, m.growingFor = true, time.Second })}, setNothing, "",
		},
		{"lagging", rule, []member{change(spare, func(m *member) { m.lag = growLag + 1 })}, setNothing, ""},
		{"not level yet", rule, []member{change(spare, func(m *member) { m.level = false })}, setNothing, ""},
		{"in maintenance", rule, []member{change(spare, func(m *member) { m.maintenance = true })}, setNothing, ""},
		{"resting", rule, []member{change(spare, func(m *member) { m.resting = true })}, setNothing, ""},
		{"waited for, not there yet", rule, []member{change(spare, func(m *member) { m.growing = true })}, setNothing, ""},
		{"caught up", rule, []member{change(spare, func(m *member) { m.growing, m.caughtUp = true, true })}, setAdd, "c"},
		{"gone while waited for", rule, []member{change(spare, func(m *member) { m.growing, m.connected = true, false })}, setForget, "c"},
		{"too slow", rule, []member{change(spare, func(m *member) { m.growing, m.growingFor = true, time.Second })}, setForget, "c"},
		{
			"proposed and gone: waited for until Raft has decided", rule,
			[]member{change(spare, func(m *member) { m.growing, m.proposed, m.connected, m.growingFor = true, true, false, time.Hour })}, setAdd, "c",
		},
		{"one at a time", rule, []member{change(spare, func(m *member) { m.growing = true }), change(well, func(m *member) { m.inSet = false })}, setNothing, ""},
		{
			"no growth while a switch-over drains", setRule{sync: true, wanted: 1, shrinkAfter: time.Second, switching: true},
			[]member{spare}, setNothing, "",
		},
		{
			"the last one is kept under protection", setRule{sync: true, wanted: 1, shrinkAfter: time.Second, protect: true},
			[]member{change(well, func(m *member) { m.stalled = time.Hour })}, setNothing, "",
		},
		{
			"but replaced", setRule{sync: true, wanted: 1, shrinkAfter: time.Second, protect: true},
			[]member{change(well, func(m *member) { m.stalled = time.Hour }), spare}, setWait, "c",
		},
		{
			"and then given up", setRule{sync: true, wanted: 1, shrinkAfter: time.Second, protect: true},
			[]member{change(well, func(m *member) { m.stalled = time.Hour }), change(spare, func(m *member) { m.inSet = true })}, setRemove, "b",
		},
		{"async delivery has no set", setRule{wanted: 1, shrinkAfter: time.Second}, []member{spare}, setNothing, ""},
	}
	for _, c := range cases {
		if d := decideSet(c.rule, c.members); d.action != c.want || d.node != c.node {
			t.Errorf("%s: %+v", c.name, d)
		}
	}
}

func TestOpenSet(t *testing.T) {
	nodes := map[ident.NodeID]*fsm.Node{
		"a": {Kind: fsm.KindData, Priority: 1}, "b": {Kind: fsm.KindData, Priority: 3}, "c": {Kind: fsm.KindData, Priority: 2}, "w": {Kind: fsm.KindWitness},
	}
	g := &fsm.Group{InSync: []ident.NodeID{"a", "b"}, Spec: fsm.GroupSpec{Secondaries: 1}}
	holds := func(ident.NodeID) bool { return true }
	if got := openSet(g, nodes, "a", holds); !slices.Equal(got, []ident.NodeID{"a", "b"}) {
		t.Errorf("members of the old set come first: %v", got)
	}
	g.InSync = []ident.NodeID{"a"}
	if got := openSet(g, nodes, "a", holds); !slices.Equal(got, []ident.NodeID{"a", "c"}) {
		t.Errorf("then by priority: %v", got)
	}
	if got := openSet(g, nodes, "a", func(ident.NodeID) bool { return false }); !slices.Equal(got, []ident.NodeID{"a"}) {
		t.Errorf("nobody holds SW: %v", got)
	}
	g.Spec.Delivery = fsm.DeliveryAsync
	if got := openSet(g, nodes, "a", holds); !slices.Equal(got, []ident.NodeID{"a"}) {
		t.Errorf("async delivery: %v", got)
	}
}

func TestAdmissible(t *testing.T) {
	g := func(phase fsm.Phase, e ident.Epoch, primary ident.NodeID, open ident.Epoch, by ident.NodeID) *fsm.Group {
		return &fsm.Group{Phase: phase, Epoch: e, Primary: primary, Incarnation: 7, OpenEpoch: open, OpenNode: by}
	}
	hello := func(from ident.NodeID, e ident.Epoch) wire.Hello {
		return wire.Hello{From: from, Epoch: e, Life: 7, Journal: ident.JournalID{Group: orders, Node: "a"}}
	}
	opened := g(fsm.PhaseOpened, 3, "a", 3, "a")
	fenced := g(fsm.PhaseFenced, 4, "a", 3, "a")
	promoted := g(fsm.PhasePromoted, 4, "c", 3, "a")
	cases := []struct {
		name     string
		group    *fsm.Group
		promised ident.Epoch
		hello    wire.Hello
		code     string // "" admitted, "fenced", or a wire.Code
	}{
		{"the primary", opened, 3, hello("a", 3), ""},
		{"the primary, before this node promised", opened, 1, hello("a", 3), ""},
		{"somebody else", opened, 3, hello("c", 3), wire.CodeNotSource.String()},
		{"an older epoch", opened, 3, hello("a", 2), "fenced"},
		{"an older epoch, not promised yet", opened, 1, hello("a", 2), "fenced"},
		{"an epoch not known yet", opened, 3, hello("a", 4), wire.CodeEpoch.String()},
		{"the fenced primary, until the promise", fenced, 3, hello("a", 3), ""},
		{"the fenced primary after the promise", fenced, 4, hello("a", 3), "fenced"},
		{"the fenced one with the new epoch", fenced, 4, hello("a", 4), wire.CodeNotSource.String()},
		{"the promoted one", promoted, 4, hello("c", 4), ""},
		{"the old one beside the promoted one", promoted, 3, hello("a", 3), ""},
		{"itself", opened, 3, hello("b", 3), wire.CodeNotSource.String()},
		{"its own journal", opened, 3, wire.Hello{From: "a", Epoch: 3, Life: 7, Journal: ident.JournalID{Group: orders, Node: "b"}}, wire.CodeNotSource.String()},
		{"another life", opened, 3, wire.Hello{From: "a", Epoch: 3, Life: 8, Journal: ident.JournalID{Group: orders, Node: "a"}}, wire.CodeNotSource.String()},
	}
	for _, c := range cases {
		got := ""
		switch err := admissible(c.group, c.promised, "b", c.hello).(type) {
		case nil:
		case *remote.FencedError:
			got = "fenced"
		case *remote.Refusal:
			got = err.Code.String()
		}
		if got != c.code {
			t.Errorf("%s: %q, want %q", c.name, got, c.code)
		}
	}
}

func TestCutRule(t *testing.T) {
	table := ident.HistoryTable{row(1, "a", 1), row(3, "b", 6)}
	opened := &fsm.Group{Phase: fsm.PhaseOpened, Epoch: 3, OpenEpoch: 3, History: table}
	fenced := &fsm.Group{Phase: fsm.PhaseFenced, Epoch: 4, OpenEpoch: 3, History: table}
	inside, outside := header(5, 2, pos(1, 3), 1), header(7, 2, pos(1, 5), 1)
	unknown := header(7, 1, pos(1, 5), 4)
	cases := []struct {
		name string
		rule cutRule
		h    entry.Header
		goes bool
	}{
		{"events", cutRule{group: fenced}, entry.Header{First: 9, Count: 1, Before: pos(1, 5)}, true},
		{"in the history, nowhere else", cutRule{group: opened}, inside, false},
		{"in the history, durable elsewhere", cutRule{group: opened, other: []bough{run("b", 1, 4, 5, pos(1, 3))}}, inside, true},
		{"only half of it elsewhere", cutRule{group: opened, other: []bough{run("b", 1, 4, 4, pos(1, 3))}}, inside, false},
		{"in the history, nobody waits", cutRule{group: opened, free: true}, inside, true},
		{"outside, an Open shows it", cutRule{group: opened}, outside, true},
		{"outside, but the next fence is under way", cutRule{group: fenced}, outside, false},
		{"outside, applied here", cutRule{group: opened, free: true, undo: undoGuard{7}}, outside, false},
		{"outside, applied here, durable elsewhere", cutRule{group: opened, undo: undoGuard{7}, other: []bough{run("c", 1, 6, 9, pos(1, 5))}}, outside, true},
		{"of an epoch that the state does not know", cutRule{group: opened}, unknown, false},
		{"deposited in the opened epoch itself", cutRule{group: opened}, entry.Header{First: 7, Count: 1, Facts: 1, Before: pos(1, 5), Fact: pos(1, 6), Session: 3}, false},
	}
	for _, c := range cases {
		if why := c.rule.keeps(c.h); (why == "") != c.goes {
			t.Errorf("%s: %q", c.name, why)
		}
	}
}

func TestUndoLog(t *testing.T) {
	table := ident.HistoryTable{row(1, "a", 1), row(2, "b", 6)}
	var u undoLog
	if g := u.guard(table, pos(1, 9), pos(1, 3)); !g.needs(pos(1, 9)) || g.needs(pos(1, 10)) {
		t.Errorf("before the undo: %+v", g)
	}
	u.record(pos(1, 9), pos(1, 5))
	if g := u.guard(table, pos(1, 5), pos(1, 3)); !g.needs(pos(1, 9)) {
		t.Error("undone, but a crash can bring it back")
	}
	if g := u.guard(table, pos(2, 7), pos(1, 5)); !g.needs(pos(1, 9)) {
		t.Error("the flushed position is the fork: it may be the one from the way up")
	}
	if g := u.guard(table, pos(2, 7), pos(2, 6)); g.needs(pos(1, 6)) {
		t.Error("flushed beyond the fork: nothing can bring it back")
	}
}
