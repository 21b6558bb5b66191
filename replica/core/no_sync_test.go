package core

import (
	"fmt"
	"testing"
	"time"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal/entry"
)

// Proves the rule of on_no_sync in full: what becomes of writes, and whether a bundle that everybody else would let pass may
// be acknowledged. Under hold and refuse a lone primary never acknowledges, whatever the set says.
func TestWritesUnderNoSync(t *testing.T) {
	rule := SetRule{Sync: true, Wanted: 1, ShrinkAfter: time.Second}
	well := Member{Node: "b", InSet: true, Alive: true, Connected: true, Level: true, Progress: true}
	stalled, ended, spare := well, well, well
	stalled.Stalled = time.Second
	ended.Ended, ended.Connected = true, false
	spare.InSet = false
	acks := func(acked bool) func(ident.NodeID) Acked {
		return func(ident.NodeID) Acked {
			if acked {
				return Acked{Durable: 10, Held: ident.Position{Epoch: 1, History: 10}}
			}
			return Acked{}
		}
	}
	bundle := entry.Header{First: 5, Count: 1, Facts: 1, Before: ident.Position{Epoch: 1, History: 4}, Fact: ident.Position{Epoch: 1, History: 5}}
	for _, tc := range []struct {
		name     string
		delivery fsm.Delivery
		noSync   string
		set      []ident.NodeID
		members  []Member
		acked    bool // the member has acknowledged the bundle
		want     Writes
		commits  bool
	}{
		{"degrade, in sync", fsm.DeliverySync, fsm.NoSyncDegrade, []ident.NodeID{"a", "b"}, []Member{well}, true, WritesOpen, true},
		{"degrade, not acknowledged", fsm.DeliverySync, fsm.NoSyncDegrade, []ident.NodeID{"a", "b"}, []Member{well}, false, WritesOpen, false},
		{"degrade, lost and still in the set", fsm.DeliverySync, fsm.NoSyncDegrade, []ident.NodeID{"a", "b"}, []Member{stalled}, false, WritesOpen, false},
		{"degrade, taken out", fsm.DeliverySync, fsm.NoSyncDegrade, []ident.NodeID{"a"}, []Member{spare}, false, WritesAlone, true},
		{"hold, in sync", fsm.DeliverySync, fsm.NoSyncHold, []ident.NodeID{"a", "b"}, []Member{well}, true, WritesOpen, true},
		{"hold, silent for less than the limit", fsm.DeliverySync, fsm.NoSyncHold, []ident.NodeID{"a", "b"}, []Member{{Node: "b", InSet: true, Stalled: time.Second - 1}}, false, WritesOpen, false},
		{"hold, lost", fsm.DeliverySync, fsm.NoSyncHold, []ident.NodeID{"a", "b"}, []Member{stalled}, false, WritesHeld, false},
		{"hold, its process has ended", fsm.DeliverySync, fsm.NoSyncHold, []ident.NodeID{"a", "b"}, []Member{ended}, false, WritesHeld, false},
		{"hold, alone in the set", fsm.DeliverySync, fsm.NoSyncHold, []ident.NodeID{"a"}, []Member{spare}, true, WritesHeld, false},
		{"hold, nobody known", fsm.DeliverySync, fsm.NoSyncHold, []ident.NodeID{"a"}, nil, false, WritesHeld, false},
		{"refuse, in sync", fsm.DeliverySync, fsm.NoSyncRefuse, []ident.NodeID{"a", "b"}, []Member{well}, true, WritesOpen, true},
		{"refuse, lost", fsm.DeliverySync, fsm.NoSyncRefuse, []ident.NodeID{"a", "b"}, []Member{stalled}, false, WritesRefused, false},
		{"refuse, alone in the set", fsm.DeliverySync, fsm.NoSyncRefuse, []ident.NodeID{"a"}, []Member{spare}, true, WritesRefused, false},
		{"async asks for nobody", fsm.DeliveryAsync, fsm.NoSyncHold, []ident.NodeID{"a"}, nil, false, WritesOpen, true},
	} {
		g := &fsm.Group{Spec: fsm.GroupSpec{Delivery: tc.delivery, OnNoSync: tc.noSync}, Primary: "a", InSync: tc.set}
		if got := WritesUnder(g, rule, tc.members); got != tc.want {
			t.Errorf("%s: writes are %s, want %s", tc.name, got, tc.want)
		}
		c := RuleFor(g, "a", nil, ident.Position{}, acks(tc.acked))
		if got := c.Allows(bundle, 10); got != tc.commits {
			t.Errorf("%s: commits %t, want %t", tc.name, got, tc.commits)
		}
	}
}

// Proves TR-1: the number of secondaries wanted decides who stays, and deciding again and again ends, whoever comes and goes:
// no flapping.
func TestSetComesToRest(t *testing.T) {
	rule := SetRule{Sync: true, Wanted: 1, ShrinkAfter: time.Second}
	both := func(f func(b, c *Member)) []Member {
		b := Member{Node: "b", InSet: true, Alive: true, Connected: true, Level: true, Progress: true, Priority: 2}
		c := Member{Node: "c", InSet: true, Alive: true, Connected: true, Level: true, Progress: true, Priority: 3}
		f(&b, &c)
		return []Member{b, c}
	}
	for _, tc := range []struct {
		name string
		rule SetRule
		list []Member
		want string
	}{
		{"too many: the one with the higher priority number goes", rule, both(func(_, _ *Member) {}), "remove c"},
		{"two are wanted", SetRule{Sync: true, Wanted: 2, ShrinkAfter: time.Second}, both(func(_, _ *Member) {}), "nothing"},
		{"too many, one is lost: that one goes", rule, both(func(b, _ *Member) { b.Stalled = time.Minute }), "remove b"},
		{"too many under protection", SetRule{Sync: true, Wanted: 1, ShrinkAfter: time.Second, Protect: true}, both(func(_, _ *Member) {}), "remove c"},
		{"the old one is back, the new one stays", rule, both(func(b, _ *Member) { b.InSet = false }), "nothing"},
		{"during a switch-over nobody goes", SetRule{Sync: true, Wanted: 1, ShrinkAfter: time.Second, Target: "c"}, both(func(_, _ *Member) {}), "nothing"},
		{"while one is on its way in nobody goes", rule, both(func(_, c *Member) { c.InSet, c.Growing = false, true }), "nothing"},
		{"one in maintenance is not counted", rule, both(func(b, _ *Member) { b.Maintenance = true }), "nothing"},
	} {
		d := DecideSet(tc.rule, tc.list)
		got := fmt.Sprint(map[SetAction]string{SetNothing: "nothing", SetRemove: "remove ", SetAdd: "add ", SetWait: "wait ", SetForget: "forget "}[d.Action], d.Node)
		if got != tc.want {
			t.Errorf("%s: %s, want %s", tc.name, got, tc.want)
		}
	}
	// From every state of three spares: a few decisions, each carried out, and then none.
	for state := range 1 << 9 {
		for wanted := range 3 {
			var members []Member
			for i := range 3 {
				bits := state >> (3 * i)
				members = append(members, Member{Node: ident.NodeID("bcd"[i : i+1]), InSet: bits&1 != 0, Alive: true, Connected: true, Level: true, Progress: true,
					Priority: 3 - i%2, Maintenance: bits&2 != 0, Stalled: time.Duration(bits>>2&1) * time.Minute})
			}
			rule := SetRule{Sync: true, Wanted: wanted + 1, ShrinkAfter: time.Second, Protect: state%2 == 0}
			steps := 0
			for ; steps < 20; steps++ {
				d := DecideSet(rule, members)
				if d.Action == SetNothing {
					break
				}
				for i := range members {
					m := &members[i]
					switch {
					case m.Node != d.Node:
					case d.Action == SetRemove:
						m.InSet, m.Progress = false, m.Stalled == 0
					case d.Action == SetWait:
						m.Growing, m.CaughtUp = true, m.Stalled == 0
						m.GrowingFor = m.Stalled
					case d.Action == SetAdd:
						m.InSet, m.Growing, m.CaughtUp = true, false, false
					case d.Action == SetForget:
						m.Growing, m.Resting, m.Progress = false, true, false
					}
				}
			}
			if steps == 20 {
				t.Fatalf("state %b, %d wanted: the set does not come to rest: %+v", state, rule.Wanted, members)
			}
		}
	}
}
