package fsm

import (
	"strings"
	"testing"

	"github.com/understudy-ha/understudy/internal/ident"
)

// reportText is "a 1.9 torn committed=1.8 life=a2 epoch=1": what differs from a node's fresh, honest report.
func parseReport(t *testing.T, text string) Report {
	t.Helper()
	lives := map[string]ident.Incarnation{"a": lifeA, "b": lifeB, "c": lifeC, "w": 1}
	words := strings.Fields(text)
	pos := func(s string) ident.Position {
		_, p, err := ident.ParsePosition(s)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	r := Report{Node: ident.NodeID(words[0]), Epoch: 5, Incarnation: lives[words[0]], Received: pos(words[1])}
	for _, w := range words[2:] {
		switch {
		case w == "torn":
			r.Torn = true
		case w == "unable":
			r.Unable = "its disk"
		case w == "dead":
			r.Incarnation++
		case w == "old":
			r.Epoch--
		case strings.HasPrefix(w, "committed="):
			r.Committed = pos(strings.TrimPrefix(w, "committed="))
		default:
			t.Fatalf("unknown word %q", w)
		}
	}
	return r
}

// maintained puts nodes into maintenance.
func maintained(ids string) func(*Group, map[ident.NodeID]*Node) {
	return func(_ *Group, n map[ident.NodeID]*Node) {
		for _, id := range strings.Fields(ids) {
			n[ident.NodeID(id)].Maintenance = &Order{Reason: "disk"}
		}
	}
}

// TestChooseCandidate has a row for every rule of the choice. Proves CL-7, BX-2.
func TestChooseCandidate(t *testing.T) {
	for _, c := range []struct {
		name    string
		set     string
		reports []string
		alive   string
		waited  bool
		to      ident.NodeID // forced
		allow   bool
		edit    func(*Group, map[ident.NodeID]*Node)

		want   ident.NodeID // "" none
		loss   string       // part of it; "" means none
		better string
		why    string // part of it
	}{
		{name: "nobody has reported", set: "a b", alive: "b", why: "waiting for the report of b"},
		{name: "nobody is there", set: "a b", why: "no member of the in-sync set has reported; not heard: a, b"},
		{name: "the one that is left", set: "a b", reports: []string{"b 1.9"}, alive: "b", want: "b"},
		{name: "a living member is waited for", set: "a b c", reports: []string{"b 1.9"}, alive: "b c", why: "waiting for the report of c"},
		{name: "but not for ever", set: "a b c", reports: []string{"b 1.9"}, alive: "b c", waited: true, want: "b"},
		{name: "a living standby is not waited for", set: "a b", reports: []string{"b 1.9"}, alive: "b c", want: "b"},
		{name: "who received most", set: "a b c", reports: []string{"b 1.9", "c 1.10"}, alive: "b c", want: "c"},
		{name: "a later epoch beats a greater h", set: "a b c", reports: []string{"b 1.90", "c 2.10"}, alive: "b c", want: "c"},
		{name: "equal ends: priority", set: "a b c", reports: []string{"b 1.9", "c 1.9"}, edit: func(_ *Group, n map[ident.NodeID]*Node) { n["c"].Priority = 1 }, want: "c"},
		{name: "equal ends and priority: id", set: "a b c", reports: []string{"b 1.9", "c 1.9"}, want: "b"},
		{name: "equal ends: the restarted primary", set: "a b", reports: []string{"a 1.9", "b 1.9"}, edit: func(g *Group, n map[ident.NodeID]*Node) { g.Incarnation, n["a"].Priority = 0xa0, 900 }, want: "a"},
		{name: "equal ends: not the primary that was fenced alive", set: "a b", reports: []string{"a 1.9", "b 1.9"}, want: "b"},
		{name: "equal ends: not a node in maintenance", set: "a b c", reports: []string{"b 1.9", "c 1.9"}, edit: func(_ *Group, n map[ident.NodeID]*Node) { n["b"].Maintenance = &Order{Reason: "disk"} }, want: "c"},
		{name: "in maintenance, although it received more", set: "a b c", reports: []string{"b 1.12", "c 1.9"}, edit: maintained("b"), want: "c", better: "b"},
		{name: "in maintenance, and nobody else may be", set: "a b", reports: []string{"b 1.9", "c 1.9"}, waited: true, edit: maintained("b"), want: "b"},
		{name: "in maintenance, the other cut a torn tail", set: "a b c", reports: []string{"b 1.9", "c 1.8 torn"}, edit: maintained("b"), want: "b"},
		{name: "all in maintenance: who received most", set: "a b c", reports: []string{"b 1.9", "c 1.10"}, edit: maintained("b c"), want: "c"},
		{name: "in maintenance, but named", set: "a b c", to: "b", reports: []string{"b 1.9", "c 1.10"}, edit: maintained("b"), want: "b", better: "c"},
		{name: "in maintenance, loss allowed: it holds more", set: "a", allow: true, reports: []string{"b 1.10", "c 1.9"}, waited: true, edit: maintained("b"), want: "b", loss: "beyond g@1.10"},
		{name: "a restarted primary in maintenance", set: "a b", reports: []string{"a 1.9", "b 1.9"}, edit: func(g *Group, n map[ident.NodeID]*Node) { g.Incarnation = 0xa0; maintained("a")(g, n) }, want: "b"},
		{name: "a restarted primary that lost data", set: "a b", reports: []string{"a 1.3", "b 1.9"}, edit: func(g *Group, _ map[ident.NodeID]*Node) { g.Incarnation = 0xa0 }, want: "b"},
		{name: "the whole set", set: "a", reports: []string{"a 1.3", "b 1.9", "c 1.9"}, want: "a", better: "b c"},
		{name: "a standby never", set: "a b", reports: []string{"c 1.9"}, waited: true, why: "c is not in the in-sync set [a b]; not heard: a, b"},
		{name: "a report of an earlier life", set: "a b", reports: []string{"b 1.9 dead"}, waited: true, why: "no member of the in-sync set has reported"},
		{name: "a report of an earlier epoch", set: "a b", reports: []string{"b 1.9 old"}, waited: true, why: "no member of the in-sync set has reported"},
		{name: "a released life", set: "a b", reports: []string{"b 1.9"}, edit: func(_ *Group, n map[ident.NodeID]*Node) { n["b"].Released = true }, waited: true, why: "no member"},

		{name: "torn, alone in the set", set: "a", reports: []string{"a 1.3 torn"}, want: "a"},
		{name: "torn, uncompared", set: "a b", reports: []string{"b 1.9 torn"}, alive: "b", waited: true, why: "b cut a torn tail"},
		{name: "torn, compared with a standby", set: "a b", reports: []string{"b 1.9 torn", "c 1.9"}, alive: "b", why: "b cut a torn tail"},
		{name: "torn and behind", set: "a b c", reports: []string{"b 1.8 torn", "c 1.9"}, want: "c"},
		{name: "torn and equal", set: "a b c", reports: []string{"b 1.9 torn", "c 1.9"}, want: "b"},
		{name: "torn and ahead", set: "a b c", reports: []string{"b 1.10 torn", "c 1.9"}, want: "b"},
		{name: "both torn", set: "a b", reports: []string{"a 1.9 torn", "b 1.10 torn"}, want: "b"},
		{name: "below a committed end", set: "a b", reports: []string{"b 1.9", "c 1.5 committed=1.10"}, waited: true, why: "below 1.10, which c knows to be committed"},
		{name: "below one's own committed end", set: "a b", reports: []string{"b 1.9 committed=1.10"}, waited: true, why: "below 1.10"},
		{name: "at a committed end", set: "a b", reports: []string{"b 1.9", "c 1.5 committed=1.9"}, want: "b"},

		{name: "unable", set: "a b c", reports: []string{"b 1.9", "c 1.10 unable"}, want: "b", better: "c"},
		{name: "unable, and nobody else", set: "a b", reports: []string{"b 1.9 unable"}, waited: true, why: "b is unable to serve: its disk; not heard: a"},
		{name: "unable, but named", set: "a b c", to: "b", reports: []string{"b 1.9 unable", "c 1.9"}, want: "b"},
		{name: "unable and named, below a committed end", set: "a b", to: "b", reports: []string{"b 1.9 unable", "c 1.5 committed=1.10"}, waited: true, why: "below 1.10"},
		{name: "unable, loss allowed: who is able first", set: "a b", allow: true, reports: []string{"b 1.9 unable", "c 1.5"}, waited: true, want: "c", better: "b", loss: "b has received up to g@1.9"},
		{name: "unable, loss allowed, nobody else", set: "a b", allow: true, reports: []string{"b 1.9 unable"}, waited: true, want: "b", loss: "b said that it is unable to serve: its disk"},

		{name: "forced, in the set", set: "a b c", to: "b", reports: []string{"b 1.9", "c 1.10"}, want: "b", better: "c"},
		{name: "forced, has not reported", set: "a b c", to: "b", reports: []string{"c 1.10"}, waited: true, why: "waiting for the report of b"},
		{name: "forced, the others are heard first", set: "a b c", to: "b", reports: []string{"b 1.9"}, alive: "b c", why: "waiting for the report of c"},
		{name: "forced to a standby", set: "a b", to: "c", reports: []string{"c 1.9"}, waited: true, why: "c is not in the in-sync set"},
		{name: "forced to a standby, loss allowed", set: "a b", to: "c", allow: true, reports: []string{"c 1.9", "b 1.12 committed=1.11"}, waited: true,
			want: "c", better: "b", loss: "what lies beyond g@1.9, the end of c; b has received up to g@1.12; b knows g@1.11 to be committed; not heard: a"},
		{name: "forced to a standby, loss allowed: another standby is heard, it may hold more", set: "a", to: "c", allow: true, reports: []string{"c 1.9"}, alive: "b c", why: "waiting for the report of b"},
		{name: "forced to a member, loss allowed but not needed", set: "a b", to: "b", allow: true, reports: []string{"b 1.9"}, waited: true, want: "b"},
		{name: "forced to a torn member, loss allowed", set: "a b", to: "b", allow: true, reports: []string{"b 1.9 torn"}, waited: true, want: "b", loss: "beyond g@1.9"},
		{name: "loss allowed, no node named: a member first", set: "a b", allow: true, reports: []string{"b 1.3", "c 1.9"}, waited: true, want: "b", better: "c"},
		{name: "loss allowed, no node named, no member: not before all had their time", set: "a b", allow: true, reports: []string{"c 1.9"}, why: "c is not in the in-sync set"},
		{name: "loss allowed, no node named, no member", set: "a b", allow: true, reports: []string{"c 1.9"}, waited: true, want: "c", loss: "beyond g@1.9, the end of c; not heard: a, b"},
		{name: "not fenced", set: "a b", reports: []string{"b 1.9"}, edit: func(g *Group, _ map[ident.NodeID]*Node) { g.Phase = PhaseOpened }, why: "is opened, not fenced"},
	} {
		t.Run(c.name, func(t *testing.T) {
			nodes := map[ident.NodeID]*Node{}
			for id, life := range map[ident.NodeID]ident.Incarnation{"a": lifeA, "b": lifeB, "c": lifeC} {
				nodes[id] = &Node{ID: id, Kind: KindData, Incarnation: life, Priority: 100}
			}
			g := &Group{Spec: spec("g", "a"), Epoch: 5, Phase: PhaseFenced, Primary: "a", Incarnation: lifeA, Operation: &Operation{To: c.to, AllowLoss: c.allow}}
			for _, n := range strings.Fields(c.set) {
				g.InSync = append(g.InSync, ident.NodeID(n))
			}
			for _, r := range c.reports {
				g.Reports = append(g.Reports, parseReport(t, r))
			}
			if len(g.Reports) == 2 && g.Reports[0].Node > g.Reports[1].Node {
				g.Reports[0], g.Reports[1] = g.Reports[1], g.Reports[0]
			}
			if c.edit != nil {
				c.edit(g, nodes)
			}
			alive := func(n ident.NodeID) bool { return strings.Contains(c.alive, string(n)) }
			to, loss, better, ok, why := ChooseCandidate(g, nodes, alive, c.waited)
			if to != c.want || ok != (c.want != "") || names(better) != c.better || !strings.Contains(why, c.why) || (why == "") != ok {
				t.Fatalf("got %q, loss %q, better %v, %v, why %q", to, loss, better, ok, why)
			}
			if want := fallback(c.loss, LossNone); ok && !strings.Contains(loss, want) || (loss == LossNone) != (ok && c.loss == "") {
				t.Fatalf("loss %q, want %q", loss, want)
			}
			// What is chosen is what Apply accepts.
			if ok {
				s := &State{Cluster: "id", Nodes: nodes, Groups: map[ident.GroupName]*Group{"g": g}}
				if r := s.Apply(Command{Version: 1, Promote: &Promote{Group: "g", Epoch: 5, To: to, Incarnation: nodes[to].Incarnation, Loss: loss}}); r.Refused != "" {
					t.Fatalf("Apply refuses the choice: %+v", r)
				}
			}
		})
	}
}

// Proves that a role is taken from a living primary only where somebody else could be chosen.
func TestAnother(t *testing.T) {
	everybody := func(ident.NodeID) bool { return true }
	for _, c := range []struct {
		name  string
		in    func(testing.TB) *fixture
		than  ident.NodeID
		alive func(ident.NodeID) bool
		want  bool
	}{
		{"a living member", opened, "a", everybody, true},
		{"a dead member", opened, "a", func(n ident.NodeID) bool { return n != "b" }, false},
		{"a released member", func(t testing.TB) *fixture { return released(opened(t)) }, "a", everybody, false},
		{"alone in the set", created, "a", everybody, false},
		{"a member that reported", fenced, "b", everybody, true},
		{"a member that is unable", func(t testing.TB) *fixture {
			f := fenced(t)
			f.must(Command{Promise: &Promise{Group: "g", Report: Report{Node: "a", Epoch: 2, Incarnation: lifeA, Unable: "its disk"}}})
			return f
		}, "b", everybody, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := c.in(t)
			if got := f.group().Another(c.than, f.Nodes, c.alive); got != c.want {
				t.Fatalf("got %v", got)
			}
		})
	}
}
