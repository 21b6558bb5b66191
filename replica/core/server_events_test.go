package core_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/replica/core"
)

// scene is one moment of a group of three data nodes and a witness, as node b sees it.
type scene struct {
	primary    ident.NodeID
	epoch      ident.Epoch
	set        string // one letter a node
	phase      fsm.Phase
	otherLife  bool // the role was given to another life of the primary
	old        bool // the state is from before this life
	idle       bool // b is not serving, although it may be primary
	recovering bool
	redo       bool         // a recovery began after this moment
	self       ident.NodeID // default b
}

func (s scene) observe() core.Server {
	seen := s.look()
	seen.Recovering = seen.Recovering || s.redo
	return seen
}

func (s scene) look() core.Server {
	if s.primary == "" {
		return core.Server{} // before the life began
	}
	g := &fsm.Group{Primary: s.primary, Epoch: s.epoch, Phase: s.phase, Incarnation: 7, OpenEpoch: s.epoch, OpenNode: s.primary}
	if g.Phase == "" {
		g.Phase = fsm.PhaseOpened
	}
	if s.otherLife {
		g.Incarnation = 6
	}
	for _, n := range s.set {
		g.InSync = append(g.InSync, ident.NodeID(n))
	}
	nodes := map[ident.NodeID]*fsm.Node{"w": {ID: "w", Kind: fsm.KindWitness}}
	for _, n := range []ident.NodeID{"a", "b", "c"} {
		nodes[n] = &fsm.Node{ID: n, Kind: fsm.KindData, Incarnation: 7}
		if s.old {
			nodes[n].Incarnation = 6
		}
	}
	self := s.self
	if self == "" {
		self = "b"
	}
	return core.Observe(fsm.Assignment{Self: self, Life: 7, Group: g, Nodes: nodes}, core.OwnFacts{Serving: !s.idle, Recovering: s.recovering})
}

func told(events []core.ServerEvent) string {
	var out []string
	for _, e := range events {
		s := string(e.Kind)
		if e.Peer != "" {
			s += "(" + string(e.Peer) + ")"
		}
		out = append(out, s)
	}
	return strings.Join(out, " ")
}

// Proves TR-2: each event is raised under its published condition and under no other.
func TestTransitionTellsPublishedConditions(t *testing.T) {
	begin := scene{}
	for _, tc := range []struct {
		name          string
		before, after scene
		want          string
	}{
		// SRPRIMARY: this server becomes primary, also at its start.
		{"start as primary, nothing to recover", begin, scene{primary: "b", epoch: 1, set: "b"}, "SRPRIMARY"},
		{"start as primary that finds shadows", begin, scene{primary: "b", epoch: 4, set: "abc"}, "SRPRIMARY SRSHADOWGAIN(a) SRSHADOWGAIN(c)"},
		{"a secondary takes over and its other shadow stays", scene{primary: "a", epoch: 1, set: "abc"}, scene{primary: "b", epoch: 2, set: "bc"}, "SRPRIMARY"},
		{"a planned switch-over", scene{primary: "a", epoch: 1, set: "ab"}, scene{primary: "b", epoch: 2, set: "ab"}, "SRPRIMARY"},
		{"the same server again, at a new epoch", scene{primary: "b", epoch: 1, set: "bc"}, scene{primary: "b", epoch: 3, set: "bc"}, "SRPRIMARY"},
		{"a spare is promoted by force", scene{primary: "a", epoch: 1, set: "ac"}, scene{primary: "b", epoch: 2, set: "b"}, "SRPRIMARY"},
		{"after its redo", scene{primary: "a", epoch: 1, set: "abc", redo: true}, scene{primary: "b", epoch: 2, set: "bc"}, "SRRECOVERCMPL SRPRIMARY"},

		// SRSECONDARY: it becomes an in-sync shadow.
		{"start as secondary, level at once", begin, scene{primary: "a", epoch: 1, set: "ab"}, "SRSECONDARY(a)"},
		{"start in the set, not recovered yet", begin, scene{primary: "a", epoch: 1, set: "ab", recovering: true}, ""},
		{"a spare is taken in", scene{primary: "a", epoch: 1, set: "a"}, scene{primary: "a", epoch: 1, set: "ab"}, "SRSECONDARY(a)"},
		{"a primary hands over and stays in", scene{primary: "b", epoch: 1, set: "ab"}, scene{primary: "a", epoch: 2, set: "ab"}, "SRSECONDARY(a)"},
		{"the role went to another node in one step", scene{primary: "b", epoch: 1, set: "bc"}, scene{primary: "c", epoch: 5, set: "bc"}, "SRSECONDARY(c)"},

		// SRSTANDBY: it becomes a spare.
		{"start as spare", begin, scene{primary: "a", epoch: 1, set: "ac", recovering: true}, "SRSTANDBY(a)"},
		{"taken out of the set", scene{primary: "a", epoch: 1, set: "ab"}, scene{primary: "a", epoch: 1, set: "ac"}, "SRSTANDBY(a)"},
		{"a lost primary comes back in the same life", scene{primary: "b", epoch: 1, set: "ab"}, scene{primary: "a", epoch: 2, set: "ac"}, "SRSTANDBY(a)"},

		// SRSHADOWLOST: the primary's last shadow is lost and it goes on alone.
		{"the only shadow goes", scene{primary: "b", epoch: 1, set: "ab"}, scene{primary: "b", epoch: 1, set: "b"}, "SRSHADOWLOST(a)"},
		{"both shadows go", scene{primary: "b", epoch: 1, set: "abc"}, scene{primary: "b", epoch: 1, set: "b"}, "SRSHADOWLOST(c)"},
		{"the secondary takes over and is alone", scene{primary: "a", epoch: 1, set: "ab"}, scene{primary: "b", epoch: 2, set: "b"}, "SRPRIMARY SRSHADOWLOST(a)"},
		{"the same primary again, alone", scene{primary: "b", epoch: 1, set: "ab"}, scene{primary: "b", epoch: 2, set: "b"}, "SRPRIMARY SRSHADOWLOST(a)"},

		// SRSHADOWGAIN: the primary gains a shadow.
		{"the first shadow", scene{primary: "b", epoch: 1, set: "b"}, scene{primary: "b", epoch: 1, set: "bc"}, "SRSHADOWGAIN(c)"},
		{"a further shadow", scene{primary: "b", epoch: 1, set: "ab"}, scene{primary: "b", epoch: 1, set: "abc"}, "SRSHADOWGAIN(c)"},
		{"one replaces the other in one step", scene{primary: "b", epoch: 1, set: "ab"}, scene{primary: "b", epoch: 1, set: "bc"}, "SRSHADOWGAIN(c)"},
		{"a take-over that takes a spare in", scene{primary: "a", epoch: 1, set: "ab"}, scene{primary: "b", epoch: 2, set: "bc"}, "SRPRIMARY SRSHADOWGAIN(c)"},
		{"a spare promoted by force finds a shadow", scene{primary: "a", epoch: 1, set: "ac"}, scene{primary: "b", epoch: 2, set: "bc"}, "SRPRIMARY SRSHADOWGAIN(c)"},

		// SRRECOVERCMPL: this server's recovery is complete.
		{"a spare is level", scene{primary: "a", epoch: 1, set: "a", recovering: true}, scene{primary: "a", epoch: 1, set: "a"}, "SRRECOVERCMPL(a)"},
		{"a secondary is level", scene{primary: "a", epoch: 1, set: "ab", redo: true}, scene{primary: "a", epoch: 1, set: "ab"}, "SRRECOVERCMPL(a)"},
		{"a restart is level, and was never taken out", scene{redo: true}, scene{primary: "a", epoch: 1, set: "ab"}, "SRRECOVERCMPL(a) SRSECONDARY(a)"},
		{"a restarted primary is primary again", scene{redo: true}, scene{primary: "b", epoch: 2, set: "b"}, "SRRECOVERCMPL SRPRIMARY"},
		{"taken in before it is level", scene{primary: "a", epoch: 1, set: "a", recovering: true}, scene{primary: "a", epoch: 1, set: "ab", recovering: true}, ""},
		{"level and taken in at once: recovery comes first", scene{primary: "a", epoch: 1, set: "a", recovering: true}, scene{primary: "a", epoch: 1, set: "ab"}, "SRRECOVERCMPL(a) SRSECONDARY(a)"},
		{"the redo of the same primary", scene{primary: "b", epoch: 1, set: "b", redo: true}, scene{primary: "b", epoch: 2, set: "b"}, "SRRECOVERCMPL SRPRIMARY"},

		// Nothing changed for this server.
		{"a primary stays", scene{primary: "b", epoch: 1, set: "ab"}, scene{primary: "b", epoch: 1, set: "ab"}, ""},
		{"a primary alone stays alone", scene{primary: "b", epoch: 1, set: "b"}, scene{primary: "b", epoch: 1, set: "b"}, ""},
		{"a secondary stays", scene{primary: "a", epoch: 1, set: "ab"}, scene{primary: "a", epoch: 1, set: "ab"}, ""},
		{"a standby stays", scene{primary: "a", epoch: 1, set: "ac"}, scene{primary: "a", epoch: 1, set: "ac"}, ""},
		{"one of several shadows goes: not alone", scene{primary: "b", epoch: 1, set: "abc"}, scene{primary: "b", epoch: 1, set: "bc"}, ""},
		{"recovery begins", scene{primary: "a", epoch: 1, set: "a"}, scene{primary: "a", epoch: 1, set: "a", recovering: true}, ""},
		{"recovery goes on", scene{primary: "a", epoch: 1, set: "a", recovering: true}, scene{primary: "a", epoch: 1, set: "a", recovering: true}, ""},

		// Something changed, but at another node.
		{"another node is taken in", scene{primary: "a", epoch: 1, set: "ab"}, scene{primary: "a", epoch: 1, set: "abc"}, ""},
		{"another node is taken out", scene{primary: "a", epoch: 1, set: "abc"}, scene{primary: "a", epoch: 1, set: "ab"}, ""},
		{"a spare sees another one taken in", scene{primary: "a", epoch: 1, set: "a"}, scene{primary: "a", epoch: 1, set: "ac"}, ""},
		{"the primary changes above a secondary", scene{primary: "a", epoch: 1, set: "abc"}, scene{primary: "c", epoch: 2, set: "bc"}, ""},
		{"the primary changes above a spare", scene{primary: "a", epoch: 1, set: "ac"}, scene{primary: "c", epoch: 2, set: "ac"}, ""},

		// Nothing is decided.
		{"fenced", scene{primary: "b", epoch: 1, set: "ab"}, scene{primary: "b", epoch: 2, set: "ab", phase: fsm.PhaseFenced}, ""},
		{"promoted, not opened", scene{primary: "a", epoch: 1, set: "ab"}, scene{primary: "b", epoch: 2, set: "ab", phase: fsm.PhasePromoted}, ""},
		{"opened, not redone", scene{primary: "a", epoch: 1, set: "ab", recovering: true}, scene{primary: "b", epoch: 2, set: "b", idle: true}, ""},
		{"the role belongs to another life", begin, scene{primary: "b", epoch: 2, set: "b", otherLife: true}, ""},
		{"the state is from before this life", begin, scene{primary: "a", epoch: 2, set: "ab", old: true}, ""},
		{"a witness is no server", begin, scene{primary: "a", epoch: 1, set: "ab", self: "w"}, ""},
		{"who is not registered is no server", begin, scene{primary: "a", epoch: 1, set: "ab", self: "x"}, ""},
		{"no group", scene{primary: "b", epoch: 1, set: "b"}, begin, ""},
	} {
		if got := told(core.Transition(tc.before.observe(), tc.after.observe())); got != tc.want {
			t.Errorf("%s: told %q, want %q", tc.name, got, tc.want)
		}
	}
}

// Proves TR-2: whatever happens, no event is told twice in a row without its opposite, and repeating a state tells nothing.
func TestTransitionsAlternate(t *testing.T) {
	var scenes []scene
	for _, primary := range []ident.NodeID{"a", "b", "c"} {
		for epoch := range ident.Epoch(3) {
			for _, set := range []string{"a", "b", "c", "ab", "bc", "ac", "abc"} {
				for _, recovering := range []bool{false, true} {
					if strings.Contains(set, string(primary)) {
						scenes = append(scenes, scene{primary: primary, epoch: epoch + 1, set: set, recovering: recovering})
					}
				}
			}
		}
	}
	events := 0
	for _, x := range scenes {
		before := x.observe()
		if again := core.Transition(before, before); again != nil {
			t.Fatalf("%+v told %q of itself", x, told(again))
		}
		for _, y := range scenes {
			after := y.observe()
			kinds := map[core.ServerEventKind]int{}
			roles := 0
			for _, e := range core.Transition(before, after) {
				kinds[e.Kind]++
				events++
				switch e.Kind {
				case core.SRPrimary, core.SRSecondary, core.SRStandby:
					roles++
				case core.SRShadowLost:
					if after.Role != core.ServerPrimary || len(after.Partners) > 0 {
						t.Fatalf("SRSHADOWLOST from %+v to %+v", x, y)
					}
				case core.SRShadowGain:
					if after.Role != core.ServerPrimary || !slices.Contains(after.Partners, e.Peer) {
						t.Fatalf("SRSHADOWGAIN from %+v to %+v", x, y)
					}
				}
			}
			if after.Role == core.ServerUndecided {
				if len(kinds) > 0 {
					t.Fatalf("from %+v to %+v, undecided: %v", x, y, kinds)
				}
				continue
			}
			same := before.Role == after.Role && (after.Role != core.ServerPrimary || before.Epoch == after.Epoch)
			if want := map[bool]int{true: 0, false: 1}[same]; roles != want {
				t.Fatalf("from %+v to %+v: %d role events, want %d", x, y, roles, want)
			}
			if kinds[core.SRShadowLost] > 0 && kinds[core.SRShadowGain] > 0 {
				t.Fatal(fmt.Sprint("lost and gained at once: ", x, y))
			}
			if (kinds[core.SRRecoverCmpl] == 1) != (before.Recovering && !after.Recovering) {
				t.Fatalf("SRRECOVERCMPL from %+v to %+v", x, y)
			}
		}
	}
	if events < 1000 {
		t.Fatalf("only %d events", events)
	}
}
