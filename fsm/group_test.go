package fsm

import (
	"strings"
	"testing"
	"time"

	"github.com/understudy-ha/understudy/internal/ident"
)

func TestSpec(t *testing.T) {
	good := GroupSpec{Name: "orders"}.Normalize()
	if err := good.Validate(); err != nil {
		t.Fatal(err)
	}
	if !sameSpec(good, good.Normalize()) {
		t.Fatal("Normalize is not idempotent")
	}
	all := GroupSpec{Name: "orders", KeepReceivers: -1}.Normalize()
	if all.KeepReceivers != -1 {
		t.Fatal("-1 keeps all receivers")
	}
	for field, edit := range map[string]func(*GroupSpec){
		"name":           func(s *GroupSpec) { s.Name = "a/b" },
		"files":          func(s *GroupSpec) { s.Files = []string{"ok", "[bad"} },
		"files: \"\"":    func(s *GroupSpec) { s.Files = []string{""} },
		"files: want":    func(s *GroupSpec) { s.Files = nil },
		"preferred":      func(s *GroupSpec) { s.Preferred = "@" },
		"delivery":       func(s *GroupSpec) { s.Delivery = "often" },
		"on_no_sync":     func(s *GroupSpec) { s.OnNoSync = "panic" },
		"auto_failover":  func(s *GroupSpec) { s.AutoFailover = "always" },
		"images":         func(s *GroupSpec) { s.Images = "none" },
		"secondaries":    func(s *GroupSpec) { s.Secondaries = -1 },
		"receiver_bytes": func(s *GroupSpec) { s.ReceiverBytes = 1 },
		"keep_receivers": func(s *GroupSpec) { s.KeepReceivers = -2 },

		"switchback_after: 1ms": func(s *GroupSpec) { s.Switchback, s.SwitchbackAfter = SwitchbackAuto, time.Millisecond },
		"switchback_after: -1s": func(s *GroupSpec) { s.SwitchbackAfter = -time.Second },
	} {
		bad := good
		edit(&bad)
		if err := bad.Validate(); err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("%s: %v", field, err)
		}
		if sameSpec(good, bad) {
			t.Errorf("%s: the specs are told to be the same", field)
		}
	}
	for name, ok := range map[string]bool{"a": true, "A-1_b.c": true, "": false, ".": false, "..": false, "-a": false, "a b": false, "ä": false, strings.Repeat("x", 64): false} {
		if err := checkName(name); (err == nil) != ok {
			t.Errorf("checkName(%q) = %v", name, err)
		}
	}
}

func TestRole(t *testing.T) {
	f := opened(t)
	want := map[string]string{"a": RolePrimary, "b": RoleSecondary, "c": RoleStandby, "w": RoleWitness}
	for id, n := range f.Nodes {
		if got := Role(f.group(), n); got != want[string(id)] {
			t.Errorf("Role(%s) = %s", id, got)
		}
		if a, ok := f.Assign("g", id, n.Incarnation); !ok || a.Role() != want[string(id)] || a.IsPrimary() != (id == "a") {
			t.Errorf("assignment of %s: %s", id, a.Role())
		}
	}
	if _, ok := f.Assign("x", "a", lifeA); ok {
		t.Error("an assignment of no group")
	}
}

// Proves that a set with more than the primary does not outlive the next command on it in an async group: nobody else may
// be promoted without allowing loss.
func TestAsyncSetIsNormalised(t *testing.T) {
	f := async(opened)(t)
	f.edit(func(g *Group) { g.InSync = []ident.NodeID{"a", "b", "c"} })
	f.must(Command{ChangeSet: &ChangeSet{Group: "g", Epoch: 1, Version: 2, Remove: "c"}})
	if g := f.group(); len(g.InSync) != 1 || g.InSync[0] != "a" {
		t.Fatalf("set %v after a change", g.InSync)
	}
	f = async(opened)(t)
	f.must(Command{Fence: &Fence{Group: "g", Epoch: 1, Force: true}})
	if g := f.group(); len(g.InSync) != 1 || g.InSync[0] != "a" {
		t.Fatalf("set %v after a fence", g.InSync)
	}
	f.report("b", lifeB, position(1, 9))
	if r := f.do(Command{Promote: &Promote{Group: "g", Epoch: 2, To: "b", Incarnation: lifeB}}); r.Refused != RefusedCandidate {
		t.Fatalf("got %+v", r)
	}
	f = async(draining)(t)
	f.must(Command{Handover: change(handoverToB(), func(h *Handover) { h.InSync = []ident.NodeID{"b"} })})
}
