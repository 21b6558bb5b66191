package core

import (
	"slices"
	"testing"
	"time"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal/entry"
)

func header(first ident.Sequence, n uint32, before ident.Position, e ident.Epoch) entry.Header {
	return entry.Header{First: first, Count: n, Facts: n, Before: before, Fact: pos(e, before.History+1), Session: e}
}

func TestCommitRule(t *testing.T) {
	h := header(10, 3, pos(2, 20), 2) // sequences 10..12, positions 21..23
	all := map[ident.NodeID]Acked{}
	acks := func(n ident.NodeID) Acked { return all[n] }
	rule := CommitRule{WaitFor: []ident.NodeID{"b", "c"}, Acks: acks}
	check := func(what string, r CommitRule, h entry.Header, durable ident.Sequence, want bool) {
		t.Helper()
		if got := r.Allows(h, durable); got != want {
			t.Errorf("%s: %t", what, got)
		}
	}
	check("nobody acknowledged", rule, h, 12, false)
	all["b"] = Acked{12, pos(2, 23)}
	check("one of two", rule, h, 12, false)
	all["c"] = Acked{12, pos(2, 23)}
	check("both", rule, h, 12, true)
	check("not durable here", rule, h, 11, false)
	all["c"] = Acked{12, pos(0, 0)}
	check("received over a hole", rule, h, 12, false)
	all["c"] = Acked{11, pos(2, 23)}
	check("not durable there", rule, h, 12, false)
	all["c"] = Acked{40, pos(1, 99)}
	check("held on an older branch", rule, h, 40, false)
	all["c"] = Acked{}
	check("alone in async delivery", CommitRule{Acks: acks}, h, 12, true)
	check("alone under protection", CommitRule{Acks: acks, Alone: true}, h, 12, false)
	check("committed by Open", CommitRule{Acks: acks, WaitFor: rule.WaitFor, Alone: true, Floor: pos(2, 23)}, h, 12, true)
	check("one above the floor", CommitRule{Acks: acks, WaitFor: rule.WaitFor, Floor: pos(2, 22)}, h, 12, false)
	events := entry.Header{First: 13, Count: 2, Before: pos(2, 23)}
	check("events wait for nobody", rule, events, 14, true)
	check("events wait for the disk", rule, events, 13, false)
}

func TestWaitsFor(t *testing.T) {
	g := &fsm.Group{InSync: []ident.NodeID{"a", "b"}, Spec: fsm.GroupSpec{Delivery: fsm.DeliverySync}}
	if got := WaitsFor(g, "a", []ident.NodeID{"b", "c"}); !slices.Equal(got, []ident.NodeID{"b", "c"}) {
		t.Errorf("sync delivery waits for %v", got)
	}
	g.Spec.Delivery = fsm.DeliveryAsync
	if got := WaitsFor(g, "a", []ident.NodeID{"c"}); got != nil {
		t.Errorf("async delivery waits for %v", got)
	}
}

func TestDecideSet(t *testing.T) {
	rule := SetRule{Sync: true, Wanted: 1, ShrinkAfter: time.Second}
	well := Member{Node: "b", InSet: true, Alive: true, Connected: true, Level: true, Progress: true, Priority: 2}
	spare := Member{Node: "c", Alive: true, Connected: true, Level: true, Progress: true, Priority: 3}
	change := func(m Member, f func(*Member)) Member { f(&m); return m }
	cases := []struct {
		name    string
		rule    SetRule
		members []Member
		want    SetAction
		node    ident.NodeID
	}{
		{"all well", rule, []Member{well, spare}, SetNothing, ""},
		{"stalled", rule, []Member{change(well, func(m *Member) { m.Stalled = time.Second }), spare}, SetRemove, "b"},
		{"stalled for a moment", rule, []Member{change(well, func(m *Member) { m.Stalled = 999 * time.Millisecond })}, SetNothing, ""},
		{"its process has ended", rule, []Member{change(well, func(m *Member) { m.Ended, m.Connected = true, false }), spare}, SetRemove, "b"},
		{"ended, and its next life is here already", rule, []Member{change(well, func(m *Member) { m.Ended = true }), spare}, SetNothing, ""},
		{"the last one has ended, and is protected", SetRule{Sync: true, Wanted: 1, ShrinkAfter: time.Second, Protect: true},
			[]Member{change(well, func(m *Member) { m.Ended, m.Connected = true, false })}, SetNothing, ""},
		{"nobody in the set", rule, []Member{change(well, func(m *Member) { m.InSet = false }), spare}, SetWait, "b"},
		{"by priority", rule, []Member{spare, change(spare, func(m *Member) { m.Node, m.Priority = "d", 1 })}, SetWait, "d"},
		{"no progress since it failed", rule, []Member{change(spare, func(m *Member) { m.Progress = false })}, SetNothing, ""},
		{
			"the target of a switch-over hangs before the hold", SetRule{Sync: true, Wanted: 1, ShrinkAfter: time.Second, Target: "c"},
			[]Member{well, change(spare, func(m *Member) { m.Growing, m.GrowingFor = true, time.Second })}, SetForget, "c",
		},
		{
			"and while the old primary waits for it, before writes are held", SetRule{Sync: true, Wanted: 1, ShrinkAfter: time.Second, Target: "c", Switching: true},
			[]Member{well, change(spare, func(m *Member) { m.Growing, m.GrowingFor = true, time.Second })}, SetForget, "c",
		},
		{
			"not before it had as long as anybody", SetRule{Sync: true, Wanted: 1, ShrinkAfter: time.Second, Target: "c", Switching: true},
			[]Member{well, change(spare, func(m *Member) { m.Growing, m.GrowingFor = true, time.Second-1 })}, SetNothing, "",
		},
		{
			"and it may come again", SetRule{Sync: true, Wanted: 1, ShrinkAfter: time.Second, Target: "c", Switching: true}, []Member{well, spare}, SetWait, "c",
		},
		{
			"nobody else is waited for then", SetRule{Sync: true, Wanted: 1, ShrinkAfter: time.Second, Target: "b", Switching: true},
			[]Member{well, change(spare, func(m *Member) { m.Growing = true })}, SetForget, "c",
		},
		{
			"once writes are held it is waited for", SetRule{Sync: true, Wanted: 1, ShrinkAfter: time.Second, Target: "c", Switching: true, Held: true},
			[]Member{well, change(spare, func(m *Member) { m.Growing, m.GrowingFor = true, time.Second })}, SetNothing, "",
		},
		{"lagging", rule, []Member{change(spare, func(m *Member) { m.Lag = GrowLag + 1 })}, SetNothing, ""},
		{"not level yet", rule, []Member{change(spare, func(m *Member) { m.Level = false })}, SetNothing, ""},
		{"resting", rule, []Member{change(spare, func(m *Member) { m.Resting = true })}, SetNothing, ""},
		{"waited for, not there yet", rule, []Member{change(spare, func(m *Member) { m.Growing = true })}, SetNothing, ""},
		{"caught up", rule, []Member{change(spare, func(m *Member) { m.Growing, m.CaughtUp = true, true })}, SetAdd, "c"},
		{"gone while waited for", rule, []Member{change(spare, func(m *Member) { m.Growing, m.Connected = true, false })}, SetForget, "c"},
		{"too slow", rule, []Member{change(spare, func(m *Member) { m.Growing, m.GrowingFor = true, time.Second })}, SetForget, "c"},
		{
			"proposed and gone: waited for until Raft has decided", rule,
			[]Member{change(spare, func(m *Member) { m.Growing, m.Proposed, m.Connected, m.GrowingFor = true, true, false, time.Hour })}, SetAdd, "c",
		},
		{"one at a time", rule, []Member{change(spare, func(m *Member) { m.Growing = true }), change(well, func(m *Member) { m.InSet = false })}, SetNothing, ""},
		{
			"no growth while a switch-over drains", SetRule{Sync: true, Wanted: 1, ShrinkAfter: time.Second, Switching: true},
			[]Member{spare}, SetNothing, "",
		},
		{
			"the last one is kept under protection", SetRule{Sync: true, Wanted: 1, ShrinkAfter: time.Second, Protect: true},
			[]Member{change(well, func(m *Member) { m.Stalled = time.Hour })}, SetNothing, "",
		},
		{
			"but replaced", SetRule{Sync: true, Wanted: 1, ShrinkAfter: time.Second, Protect: true},
			[]Member{change(well, func(m *Member) { m.Stalled = time.Hour }), spare}, SetWait, "c",
		},
		{
			"and then given up", SetRule{Sync: true, Wanted: 1, ShrinkAfter: time.Second, Protect: true},
			[]Member{change(well, func(m *Member) { m.Stalled = time.Hour }), change(spare, func(m *Member) { m.InSet = true })}, SetRemove, "b",
		},
		{"async delivery has no set", SetRule{Wanted: 1, ShrinkAfter: time.Second}, []Member{spare}, SetNothing, ""},
	}
	for _, c := range cases {
		if d := DecideSet(c.rule, c.members); d.Action != c.want || d.Node != c.node {
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
	if got := OpenSet(g, nodes, "a", holds); !slices.Equal(got, []ident.NodeID{"a", "b"}) {
		t.Errorf("members of the old set come first: %v", got)
	}
	g.InSync = []ident.NodeID{"a"}
	if got := OpenSet(g, nodes, "a", holds); !slices.Equal(got, []ident.NodeID{"a", "c"}) {
		t.Errorf("then by priority: %v", got)
	}
	if got := OpenSet(g, nodes, "a", func(ident.NodeID) bool { return false }); !slices.Equal(got, []ident.NodeID{"a"}) {
		t.Errorf("nobody holds SW: %v", got)
	}
	g.Spec.Delivery = fsm.DeliveryAsync
	if got := OpenSet(g, nodes, "a", holds); !slices.Equal(got, []ident.NodeID{"a"}) {
		t.Errorf("async delivery: %v", got)
	}
}

func TestAdmissible(t *testing.T) {
	g := func(phase fsm.Phase, e ident.Epoch, primary ident.NodeID, open ident.Epoch, by ident.NodeID) *fsm.Group {
		return &fsm.Group{Phase: phase, Epoch: e, Primary: primary, Incarnation: 7, OpenEpoch: open, OpenNode: by}
	}
	hello := func(from ident.NodeID, e ident.Epoch) Caller {
		return Caller{From: from, Epoch: e, Life: 7, Author: "a"}
	}
	opened := g(fsm.PhaseOpened, 3, "a", 3, "a")
	fenced := g(fsm.PhaseFenced, 4, "a", 3, "a")
	promoted := g(fsm.PhasePromoted, 4, "c", 3, "a")
	prepares := func(phase fsm.Phase, to ident.NodeID, step string) *fsm.Group {
		g := g(phase, 3, "b", 3, "b")
		g.Operation = &fsm.Operation{Kind: fsm.OperationSwitchover, From: "b", To: to, State: fsm.OperationRunning, Step: step}
		return g
	}
	own := Caller{From: "c", Epoch: 3, Life: 9, Author: "c"}
	elsewhere := prepares(fsm.PhaseOpened, "c", fsm.StepPrepare)
	elsewhere.Primary, elsewhere.OpenNode = "a", "a"
	cases := []struct {
		name     string
		group    *fsm.Group
		promised ident.Epoch
		caller   Caller
		want     Verdict
	}{
		{"the primary", opened, 3, hello("a", 3), Admitted},
		{"the primary, before this node promised", opened, 1, hello("a", 3), Admitted},
		{"somebody else", opened, 3, hello("c", 3), NotSource},
		{"an older epoch", opened, 3, hello("a", 2), Fenced},
		{"an older epoch, not promised yet", opened, 1, hello("a", 2), Fenced},
		{"an epoch not known yet", opened, 3, hello("a", 4), TooEarly},
		{"the fenced primary, until the promise", fenced, 3, hello("a", 3), Admitted},
		{"the fenced primary after the promise", fenced, 4, hello("a", 3), Fenced},
		{"the fenced one with the new epoch", fenced, 4, hello("a", 4), NotSource},
		{"the promoted one", promoted, 4, hello("c", 4), Admitted},
		{"the old one beside the promoted one", promoted, 3, hello("a", 3), Admitted},
		{"itself", opened, 3, hello("b", 3), NotSource},
		{"its own journal", opened, 3, Caller{From: "a", Epoch: 3, Life: 7, Author: "b"}, NotSource},
		{"another life", opened, 3, Caller{From: "a", Epoch: 3, Life: 8, Author: "a"}, NotSource},
		{"the target of a switch-over with its own journal", prepares(fsm.PhaseOpened, "c", fsm.StepPrepare), 3, own, Admitted},
		{"the target with another's journal", prepares(fsm.PhaseOpened, "c", fsm.StepPrepare), 3, hello("c", 3), NotSource},
		{"the target when it is prepared", prepares(fsm.PhaseOpened, "c", fsm.StepHold), 3, own, NotSource},
		{"the target of a fenced group", prepares(fsm.PhaseFenced, "c", fsm.StepPrepare), 3, own, NotSource},
		{"the target, to a node that is not primary", elsewhere, 3, own, NotSource},
		{"who is not the target", prepares(fsm.PhaseOpened, "d", fsm.StepPrepare), 3, own, NotSource},
	}
	for _, c := range cases {
		if got := Admissible(c.group, c.promised, "b", c.caller); got.Verdict != c.want {
			t.Errorf("%s: %+v, want %d", c.name, got, c.want)
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
		rule CutRule
		h    entry.Header
		goes bool
	}{
		{"events", CutRule{Group: fenced}, entry.Header{First: 9, Count: 1, Before: pos(1, 5)}, true},
		{"in the history, nowhere else", CutRule{Group: opened}, inside, false},
		{"in the history, durable elsewhere", CutRule{Group: opened, Other: []Bough{run("b", 1, 4, 5, pos(1, 3))}}, inside, true},
		{"only half of it elsewhere", CutRule{Group: opened, Other: []Bough{run("b", 1, 4, 4, pos(1, 3))}}, inside, false},
		{"in the history, nobody waits", CutRule{Group: opened, Free: true}, inside, true},
		{"outside, an Open shows it", CutRule{Group: opened}, outside, true},
		{"outside, but the next fence is under way", CutRule{Group: fenced}, outside, false},
		{"outside, applied here", CutRule{Group: opened, Free: true, Undo: UndoGuard{7}}, outside, false},
		{"outside, applied here, durable elsewhere", CutRule{Group: opened, Undo: UndoGuard{7}, Other: []Bough{run("c", 1, 6, 9, pos(1, 5))}}, outside, true},
		{"of an epoch that the state does not know", CutRule{Group: opened}, unknown, false},
		{"deposited in the opened epoch itself", CutRule{Group: opened}, entry.Header{First: 7, Count: 1, Facts: 1, Before: pos(1, 5), Fact: pos(1, 6), Session: 3}, false},
	}
	for _, c := range cases {
		if why := c.rule.Keeps(c.h); (why == "") != c.goes {
			t.Errorf("%s: %q", c.name, why)
		}
	}
}

func TestUndoLog(t *testing.T) {
	table := ident.HistoryTable{row(1, "a", 1), row(2, "b", 6)}
	var u UndoLog
	if g := u.Guard(table, pos(1, 9), pos(1, 3)); !g.Needs(pos(1, 9)) || g.Needs(pos(1, 10)) {
		t.Errorf("before the undo: %+v", g)
	}
	u.Record(pos(1, 9), pos(1, 5))
	if g := u.Guard(table, pos(1, 5), pos(1, 3)); !g.Needs(pos(1, 9)) {
		t.Error("undone, but a crash can bring it back")
	}
	if g := u.Guard(table, pos(2, 7), pos(1, 5)); !g.Needs(pos(1, 9)) {
		t.Error("the flushed position is the fork: it may be the one from the way up")
	}
	if g := u.Guard(table, pos(2, 7), pos(2, 6)); g.Needs(pos(1, 6)) {
		t.Error("flushed beyond the fork: nothing can bring it back")
	}
}

// Proves RJ-10: an undo is settled by a flush that was asked for after it, at the fork; by none that began before it had ended, or before
// another one.
func TestUndoIsSettledByAFlush(t *testing.T) {
	table := ident.HistoryTable{row(1, "a", 1), row(2, "b", 6)}
	undone := func() (u UndoLog) { u.Record(pos(1, 9), pos(1, 5)); return u }
	u := undone()
	if _, due := u.Due(table, pos(1, 7)); due {
		t.Error("due in the middle of the undo")
	}
	if _, due := u.Due(table, pos(1, 4)); due {
		t.Error("due below the fork")
	}
	generation, due := u.Due(table, pos(1, 5))
	if !due || !u.Settle(table, pos(1, 5)) {
		t.Error("at the fork it is due, and no flush was asked for yet")
	}
	if u.Flushed(table, generation, pos(1, 8)); !u.Settle(table, pos(1, 5)) {
		t.Error("settled by a flush of what is undone")
	}
	if u.Flushed(table, generation, pos(1, 5)); u.Settle(table, pos(1, 5)) {
		t.Error("not settled by a flush at the fork")
	}
	if g := u.Guard(table, pos(1, 5), pos(1, 5)); g.Needs(pos(1, 6)) {
		t.Errorf("settled, and needed: %+v", g)
	}
	if _, due := u.Due(table, pos(1, 5)); due {
		t.Error("settled, and due")
	}
	u = undone()
	generation, _ = u.Due(table, pos(2, 7))
	u.Record(pos(2, 7), pos(1, 5)) // while that flush runs
	if u.Flushed(table, generation, pos(1, 5)); !u.Settle(table, pos(1, 5)) {
		t.Error("settled by a flush that began before the undo")
	}
}

func TestKnownCommitted(t *testing.T) {
	table := ident.HistoryTable{row(1, "a", 1), row(2, "b", 6)}
	var k Known
	if got := k.Committed(table); got != pos(1, 5) {
		t.Fatalf("everything before SW is committed, got %s", got)
	}
	k.Learn(1, pos(1, 9)) // of an epoch that is over: it says nothing about the present history
	if got := k.Committed(table); got != pos(1, 5) {
		t.Fatalf("got %s", got)
	}
	k.Learn(2, pos(2, 8))
	k.Learn(2, pos(2, 7))
	k.Learn(1, pos(1, 9))
	if got := k.Committed(table); got != pos(2, 8) {
		t.Fatalf("got %s", got)
	}
	if got := k.Committed(table[:1]); !got.IsZero() {
		t.Fatalf("without the row it does not count, got %s", got)
	}
}

func TestUnneeded(t *testing.T) {
	table := ident.HistoryTable{row(1, "a", 1), row(2, "b", 21)}
	runs := []entry.Run{
		{Epoch: 1, From: 1, To: 25, First: 2, Last: 26}, // 21..25 are outside
		{Epoch: 2, From: 30, To: 40, First: 30, Last: 40},
	}
	type receiver struct{ first, last ident.Sequence }
	rec := func(first, last ident.Sequence) receiver { return receiver{first, last} }
	cases := []struct {
		name    string
		flushed ident.Position
		rec     receiver
		want    bool
	}{
		{"events only", pos(1, 1), rec(1, 1), true},
		{"part of a run, flushed", pos(2, 22), rec(1, 11), true},
		{"part of a run, not flushed", pos(1, 8), rec(1, 11), false},
		{"a run with a dead end, flushed below the fork", pos(1, 19), rec(12, 27), false},
		{"a run with a dead end, flushed to the fork", pos(1, 20), rec(12, 27), true},
		{"a run with a dead end, flushed beyond the fork", pos(2, 21), rec(12, 27), true},
		{"the newest", pos(2, 39), rec(28, 41), false},
		{"the newest, flushed", pos(2, 40), rec(28, 41), true},
	}
	for _, c := range cases {
		if got := Unneeded(table, c.flushed, runs, c.rec.first, c.rec.last); got != c.want {
			t.Errorf("%s: %t", c.name, got)
		}
	}
	never := []entry.Run{{Epoch: 2, From: 18, To: 22, First: 2, Last: 6}} // an epoch that never opened, beside it one that goes on from 17
	apart := ident.HistoryTable{row(1, "a", 1), row(3, "c", 21)}
	if Unneeded(apart, pos(1, 16), never, 1, 6) || !Unneeded(apart, pos(1, 17), never, 1, 6) {
		t.Error("a run outside goes once flushed has reached where it left, and not before")
	}
	if Unneeded(table[:1], pos(1, 99), runs, 28, 41) {
		t.Error("an epoch that the table does not know")
	}
}

func TestLowestFlushed(t *testing.T) {
	node := func(kind fsm.NodeKind, at ident.Position) *fsm.Node {
		n := &fsm.Node{Kind: kind, Flushed: map[ident.GroupName]ident.Position{}}
		if !at.IsZero() {
			n.Flushed["orders"] = at
		}
		return n
	}
	a := fsm.Assignment{
		Self: "a", Group: &fsm.Group{Spec: fsm.GroupSpec{Name: "orders"}, History: ident.HistoryTable{row(1, "a", 1), row(2, "b", 6)}},
		Nodes: map[ident.NodeID]*fsm.Node{"a": node(fsm.KindData, pos(1, 1)), "b": node(fsm.KindData, pos(2, 8)), "w": node(fsm.KindWitness, pos(0, 0))},
	}
	if at, ok := LowestFlushed(a, pos(2, 7)); !ok || at != pos(2, 7) {
		t.Errorf("%s %t", at, ok)
	}
	a.Nodes["c"] = node(fsm.KindData, pos(0, 0))
	if at, ok := LowestFlushed(a, pos(2, 7)); ok {
		t.Errorf("a node that never flushed: %s", at)
	}
	a.Nodes["c"] = node(fsm.KindData, pos(1, 9))
	if at, ok := LowestFlushed(a, pos(2, 7)); ok {
		t.Errorf("a node outside the history: %s", at)
	}
}

// Proves RJ-5, S24: a copy that began after its node's last report must find what it goes on from.
func TestLowestCopy(t *testing.T) {
	node := func(kind fsm.NodeKind, end ident.Sequence) *fsm.Node {
		n := &fsm.Node{Kind: kind}
		if end > 0 {
			n.Copies = map[ident.GroupName]fsm.Ends{"orders": {"a": end}}
		}
		return n
	}
	a := fsm.Assignment{
		Self: "b", Group: &fsm.Group{Spec: fsm.GroupSpec{Name: "orders"}},
		Nodes: map[ident.NodeID]*fsm.Node{"a": node(fsm.KindData, 0), "b": node(fsm.KindData, 3), "c": node(fsm.KindData, 9), "w": node(fsm.KindWitness, 0)},
	}
	if got := LowestCopy(a, "a"); got != 3 {
		t.Errorf("this node's own copy counts: %s", got)
	}
	a.Nodes["b"] = node(fsm.KindData, 12)
	if got := LowestCopy(a, "a"); got != 9 {
		t.Errorf("the author and witnesses do not count: %s", got)
	}
	a.Nodes["d"] = node(fsm.KindData, 0)
	if got := LowestCopy(a, "a"); got != 0 {
		t.Errorf("a node that has not reported its copy: %s", got)
	}
}

// Proves S24: an author lost what it had not synced, but shipped. A copy that has it is cut, after its node's report, so that
// report must not let the receivers go that the copy then goes on from.
func TestCopyEnd(t *testing.T) {
	for _, c := range []struct {
		name                     string
		durable, confirmed, want ident.Sequence
	}{
		{"the author has synced less than this node", 10, 9, 9},
		{"this node has synced less than the author", 7, 9, 7},
		{"nothing confirmed yet", 10, 0, 0},
		{"both have it", 10, 10, 10},
	} {
		if got := CopyEnd(c.durable, c.confirmed); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

// Proves TR-5: a copy that begins behind a hole is no copy: its node would be taken for connected, and what is between is gone.
func TestRooted(t *testing.T) {
	at := func(e ident.Epoch, h ident.History) ident.Position { return ident.Position{Epoch: e, History: h} }
	table := ident.HistoryTable{{Epoch: 1, Node: "a", SW: 1, First: 1}, {Epoch: 2, Node: "b", SW: 50, First: 1}}
	run := func(e ident.Epoch, from, to ident.History, before ident.Position) entry.Run {
		return entry.Run{Epoch: e, From: from, To: to, Before: before, First: 1, Last: 100}
	}
	bridge := Bough{Run: run(1, 20, 49, at(1, 19)), Author: "a"}
	copied := Bough{Run: run(2, 61, 70, at(2, 60)), Author: "b"}
	for name, c := range map[string]struct {
		store, start ident.Position
		boughs       []Bough
		want         bool
	}{
		"from the beginning":               {at(1, 5), ident.Position{}, nil, true},
		"the store is beyond":              {at(2, 65), at(2, 60), []Bough{copied}, true},
		"the store is there":               {at(2, 60), at(2, 60), []Bough{copied}, true},
		"a hole":                           {at(1, 5), at(2, 60), []Bough{copied}, false},
		"a hole, and the copy is empty":    {at(1, 5), at(2, 60), nil, false},
		"another journal fills the hole":   {at(1, 30), at(1, 49), []Bough{bridge}, true},
		"another journal begins after it":  {at(1, 5), at(1, 49), []Bough{bridge}, false},
		"outside the history":              {at(1, 5), at(1, 55), nil, true},
		"of an epoch that is not open yet": {at(1, 5), at(3, 80), nil, true},
	} {
		if got := Rooted(table, c.start, NewGrove(table, c.store, c.boughs...)); got != c.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}
