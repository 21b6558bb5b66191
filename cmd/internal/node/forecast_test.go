package node

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/understudy-ha/understudy/client"
	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
)

func at(e ident.Epoch, h ident.History) ident.Position {
	return ident.Position{Epoch: e, History: h}
}

// TestForecast has a row for every state of knowledge about what a failover may lose. Proves BX-4.
func TestForecast(t *testing.T) {
	answered := func(n ident.NodeID, inSync bool, last ident.Sequence, end ident.Position) *holder {
		return &holder{node: &fsm.Node{ID: n, Kind: fsm.KindData}, inSync: inSync, answered: true, journals: map[ident.NodeID]held{"a": {last: last, end: end}}}
	}
	silent := func(n ident.NodeID, inSync bool, last ident.Sequence) *holder {
		return &holder{node: &fsm.Node{ID: n, Kind: fsm.KindData, Flushed: map[ident.GroupName]ident.Position{"g": at(1, 5)}}, inSync: inSync,
			failed: errors.New("no answer"), journals: map[ident.NodeID]held{"a": {last: last}}}
	}
	for _, c := range []struct {
		name    string
		phase   fsm.Phase
		serving bool
		holders []*holder
		beyond  string
		highest string
		entries uint64
		exact   bool
		loss    string
	}{
		{"level", fsm.PhaseFenced, false, []*holder{answered("a", true, 20, at(1, 9)), answered("b", true, 20, at(1, 9)), answered("c", false, 20, at(1, 9))}, "g@1.9", "g@1.9", 0, true, "none"},
		{"behind", fsm.PhaseFenced, false, []*holder{answered("a", true, 23, at(1, 12)), answered("b", true, 22, at(1, 11)), answered("c", false, 20, at(1, 9))},
			"g@1.9", "g@1.12", 3, true, "what lies beyond g@1.9, the end of c: a holds 3 more, b holds 2 more"},
		{"behind, and the primary goes on", fsm.PhaseOpened, true, []*holder{answered("a", true, 23, at(1, 12)), answered("c", false, 20, at(1, 9))},
			"g@1.9", "g@1.12", 3, false, "a holds 3 more"},
		{"level, and the primary goes on", fsm.PhaseOpened, true, []*holder{answered("a", true, 20, at(1, 9)), answered("c", false, 20, at(1, 9))},
			"g@1.9", "g@1.9", 0, false, "no entry there is known"},
		{"the primary is gone: its last lease", fsm.PhaseOpened, false, []*holder{silent("a", true, 27), answered("c", false, 20, at(1, 9))},
			"g@1.9", "g@1.9", 7, false, "a told that it holds 7 more"},
		{"the primary is gone, and told less", fsm.PhaseOpened, false, []*holder{silent("a", true, 15), answered("c", false, 20, at(1, 9))},
			"g@1.9", "g@1.9", 0, false, "no entry there is known"},
		{"a standby is gone", fsm.PhaseFenced, false, []*holder{answered("a", true, 20, at(1, 9)), silent("b", false, 20), answered("c", false, 20, at(1, 9))}, "g@1.9", "g@1.9", 0, true, "none"},
		{"ahead by an epoch", fsm.PhaseFenced, false, []*holder{answered("a", true, 23, at(1, 12)), answered("c", false, 20, at(2, 9))}, "g@2.9", "g@2.9", 0, true, "none"},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := &fsm.Group{Spec: fsm.GroupSpec{Name: "g"}, Epoch: 2, Phase: c.phase, Primary: "a"}
			f := forecast(g, "c", c.holders, c.serving)
			if f.Beyond != c.beyond || f.Highest != c.highest || f.Entries != c.entries || f.Exact != c.exact || !strings.Contains(f.Loss, c.loss) || (f.Loss == "none") != (c.loss == "none") {
				t.Fatalf("%+v", f)
			}
			if len(f.Nodes) != len(c.holders) || f.Confirm != "g" || f.Fate == "" || (f.Warning != "") != c.serving {
				t.Fatalf("%+v", f)
			}
			for i, h := range c.holders {
				if p := f.Nodes[i]; p.Answered != h.answered || p.Answered == (p.Told != "") || p.Answered == (p.Error != "") {
					t.Errorf("node %+v", p)
				}
			}
		})
	}
	g := &fsm.Group{Spec: fsm.GroupSpec{Name: "g"}, Epoch: 2, Phase: fsm.PhaseFenced, Primary: "a"}
	if f := forecast(g, "c", []*holder{silent("a", true, 27), answered("c", false, 20, at(1, 9))}, false); f.Nodes[0].Told != "g/a up to 27, flushed g@1.5" || f.Primary != "" {
		t.Errorf("told: %+v", f)
	}
	reported := answered("b", true, 20, at(1, 9))
	reported.reported = at(1, 30)
	if f := forecast(g, "c", []*holder{reported, answered("c", false, 20, at(1, 9))}, false); f.Highest != "g@1.30" || f.Entries != 21 || f.Nodes[0].Reported != "g@1.30" {
		t.Errorf("reported: %+v", f)
	}
}

// TestForecastFromHistory: what Raft itself shows to be committed counts, although nobody who holds it answers. b was primary
// and told what it holds; c never had b's journal. Proves BX-4.
func TestForecastFromHistory(t *testing.T) {
	for _, c := range []struct {
		name    string
		kind    string         // of the certificate of epoch 2; "": forgotten
		told    ident.Sequence // by b, of its own journal
		end     ident.Position // of c
		knows   ident.Position // committed, by a report of c
		highest string
		entries uint64
		loss    string
	}{
		{"opened by a failover: up to its SW", fsm.CertificateFailover, 0, at(1, 5), at(0, 0), "g@2.10", 5, "everything up to g@2.10 is committed, 5 more"},
		{"handed over: before its SW", fsm.CertificateSwitchover, 0, at(1, 5), at(0, 0), "g@1.9", 4, "everything up to g@1.9 is committed, 4 more"},
		{"how it began is forgotten", "", 0, at(1, 5), at(0, 0), "g@2.10", 5, "everything up to g@2.10 is committed, 5 more"},
		{"the journal that c lacks counts from its beginning", fsm.CertificateFailover, 5000, at(1, 5), at(0, 0), "g@2.10", 5000, "b told that it holds 5000 more"},
		{"a report knows of more", fsm.CertificateFailover, 0, at(1, 5), at(2, 14), "g@2.14", 9, "everything up to g@2.14 is committed, 9 more"},
		{"c ends beside the history", fsm.CertificateFailover, 0, at(1, 30), at(0, 0), "g@2.10", 1, "everything up to g@2.10 is committed, 1 more"},
		{"c holds nothing", fsm.CertificateFailover, 0, at(0, 0), at(0, 0), "g@2.10", 10, "10 more"},
		{"c has it all", fsm.CertificateFailover, 0, at(2, 10), at(2, 10), "g@2.10", 0, "no entry there is known"},
		{"c has more", fsm.CertificateSwitchover, 0, at(2, 12), at(0, 0), "g@2.12", 0, "no entry there is known"},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := &fsm.Group{Spec: fsm.GroupSpec{Name: "g"}, Phase: fsm.PhaseFenced, Epoch: 3, Primary: "b", OpenEpoch: 2, OpenNode: "b", InSync: []ident.NodeID{"b"},
				History: ident.HistoryTable{{Epoch: 1, Node: "a", SW: 1}, {Epoch: 2, Node: "b", SW: 10}}}
			if c.kind != "" {
				g.Switches = []fsm.Certificate{{Epoch: 2, Kind: c.kind}}
			}
			target := &holder{node: &fsm.Node{ID: "c", Kind: fsm.KindData}, answered: true, knows: c.knows, journals: map[ident.NodeID]held{"a": {last: 6, end: c.end}}}
			b := &holder{node: &fsm.Node{ID: "b", Kind: fsm.KindData}, inSync: true, failed: errors.New("no answer"), journals: map[ident.NodeID]held{}}
			if c.told > 0 {
				b.journals["b"] = held{last: c.told}
			}
			f := forecast(g, "c", []*holder{b, target}, false)
			if f.Highest != c.highest || f.Entries != c.entries || f.Exact || !strings.Contains(f.Loss, c.loss) {
				t.Fatalf("%+v", f)
			}
			if f.Entries > 0 && strings.Contains(f.Loss, "no entry there is known") {
				t.Errorf("entries are known: %s", f.Loss)
			}
		})
	}
}

// Proves that `why` names a pause, nodes in maintenance and a role that will return by itself, and that a switch-over without
// a target avoids nodes in maintenance.
func TestReadinessNotesOrders(t *testing.T) {
	a := assignment(fsm.PhaseOpened)
	if notes := orderNotes(nil, a.Group, a.Nodes); len(notes) != 0 {
		t.Fatalf("%q", notes)
	}
	order := fsm.Order{Reason: "new disk", By: "ann", Until: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}
	a.Nodes["a"].Maintenance, a.Nodes["b"].Maintenance = &order, &order
	a.Group.InSync = []ident.NodeID{"a", "b", "c"}
	a.Group.Spec.Preferred, a.Group.Spec.Switchback, a.Group.Spec.SwitchbackAfter = "b", fsm.SwitchbackAuto, time.Minute
	notes := strings.Join(orderNotes(&fsm.Pause{Order: order}, a.Group, a.Nodes), "\n")
	for _, want := range []string{
		"paused (new disk, by ann, until 2026-03-01T12:00:00Z): no automatic failover",
		"a, the primary, is in maintenance (new disk, by ann, until 2026-03-01T12:00:00Z): hand the role over",
		"b is in maintenance (new disk, by ann, until 2026-03-01T12:00:00Z): chosen by itself only if nobody else may be",
		"the role returns to b by itself once it was level and well for 1m0s",
	} {
		if !strings.Contains(notes, want) {
			t.Errorf("lacks %q:\n%s", want, notes)
		}
	}
	if to, _ := switchTarget(a); to != "c" {
		t.Errorf("a switch-over goes to %q: b is the preferred node, but in maintenance", to)
	}
	a.Group.InSync = []ident.NodeID{"a", "b"}
	if to, ok := switchTarget(a); ok {
		t.Errorf("a switch-over goes to %q, which is in maintenance", to)
	}
}

// Proves BX-4: a node that says that it cannot serve gets the role of a failover that accepts loss only when that is accepted, too.
func TestFailoverToANodeThatCannotServe(t *testing.T) {
	for _, c := range []struct {
		copy client.Copy
		why  string
	}{{client.Copy{}, ""}, {client.Copy{NeedsPriming: true, Priming: "its store is outside"}, "its store is outside"}, {client.Copy{NeedsPriming: true}, "needs priming"}} {
		if why := cannotServe(c.copy); !strings.Contains(why, c.why) || (why == "") != (c.why == "") {
			t.Errorf("%+v: %q", c.copy, why)
		}
	}
	g := &fsm.Group{Spec: fsm.GroupSpec{Name: "g"}, Epoch: 2}
	now := client.LossForecast{Group: "g", To: "c", Epoch: 2, Beyond: "g@1.9", Highest: "g@1.9", Unable: "it needs priming"}
	q := client.FailoverRequest{To: "c", AllowDataLoss: true, Confirm: "g", AcceptLossBeyond: "g@1.9"}
	_, _, err := acceptable(g, now, q)
	var told *client.Error
	if !errors.As(err, &told) || told.Code != client.CodePrecondition || !strings.Contains(told.Detail, "it needs priming") || told.Forecast == nil || !strings.Contains(told.Remedy, "accept_unable") {
		t.Fatalf("%v", err)
	}
	q.AcceptUnable = true
	if _, e, err := acceptable(g, now, q); err != nil || e != 2 {
		t.Errorf("epoch %s, %v", e, err)
	}
	now.Unable, q.AcceptUnable = "", false
	if _, _, err := acceptable(g, now, q); err != nil {
		t.Errorf("a node that can serve: %v", err)
	}
}
