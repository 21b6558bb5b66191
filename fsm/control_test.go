package fsm

import (
	"bytes"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/understudy-ha/understudy/internal/ident"
)

func paused(t testing.TB) *fixture {
	f := opened(t)
	f.must(Command{SetPause: &SetPause{On: true, Reason: "new switches", By: "ann", Until: noon.Add(time.Hour)}})
	return f
}

func (f *fixture) maintain(n ident.NodeID, on bool) Result {
	return f.do(Command{SetMaintenance: &SetMaintenance{Node: n, Version: f.Nodes[n].MaintenanceVersion, On: on, Reason: "disk", By: "ann"}})
}

// TestPauseHoldsBack has a row for every command that begins an automatic action, and for what a pause must not stop.
// Proves CL-1: the state itself refuses, so an action decided before the pause cannot begin after it.
func TestPauseHoldsBack(t *testing.T) {
	fence := func(f func(*Fence)) Command {
		return Command{Fence: change(&Fence{Group: "g", Epoch: 1, Force: true, Automatic: true, Reason: "r"}, f)}
	}
	nothing := func(*fixture) {}
	for _, c := range []struct {
		name  string
		from  func(testing.TB) *fixture
		setup func(*fixture)
		do    Command
		want  string
	}{
		{"an automatic failover", paused, nothing, fence(func(*Fence) {}), RefusedPaused},
		{"an operator's", paused, nothing, fence(func(c *Fence) { c.Automatic = false }), ""},
		{"the primary takes its role up again after its session failed", paused, nothing, fence(func(c *Fence) { c.To = "a" }), ""},
		{"another does not", paused, nothing, fence(func(c *Fence) { c.To = "b" }), RefusedPaused},
		{"the restarted primary takes its role up again", paused, func(f *fixture) { f.renew("a", 9) }, fence(func(c *Fence) { c.To = "a" }), ""},
		{"the restarted primary's role does not move", paused, func(f *fixture) { f.renew("a", 9) }, fence(func(*Fence) {}), RefusedPaused},
		{"a failover that has begun goes on when the chosen node dies", promoted, func(f *fixture) {
			f.must(Command{SetPause: &SetPause{On: true, Reason: "r"}})
		}, fence(func(c *Fence) { c.Epoch = 2 }), ""},
		{"a chosen one is promoted", fenced, func(f *fixture) {
			f.report("b", lifeB, position(1, 9))
			f.must(Command{SetPause: &SetPause{On: true, Reason: "r"}})
		}, Command{Promote: &Promote{Group: "g", Epoch: 2, To: "b", Incarnation: lifeB}}, ""},
		{"an automatic switch-back", paused, nothing, Command{StartSwitch: &StartSwitch{Group: "g", Epoch: 1, To: "b", MaxPause: 1, Deadline: noon, Automatic: true}}, RefusedPaused},
		{"an operator's switch-over", paused, nothing, Command{StartSwitch: &StartSwitch{Group: "g", Epoch: 1, To: "b", MaxPause: 1, Deadline: noon}}, ""},
		{"a standby whose growth was on its way", paused, nothing, Command{ChangeSet: &ChangeSet{Group: "g", Epoch: 1, Version: 2, Add: "c"}}, ""},
		{"a lost secondary leaves", paused, nothing, Command{ChangeSet: &ChangeSet{Group: "g", Epoch: 1, Version: 2, Remove: "b"}}, ""},
		{"a lost secondary returns", paused, func(f *fixture) {
			f.must(Command{ChangeSet: &ChangeSet{Group: "g", Epoch: 1, Version: 2, Remove: "b"}})
		}, Command{ChangeSet: &ChangeSet{Group: "g", Epoch: 1, Version: 3, Add: "b"}}, ""},
		{"no switch-back goes to a node in maintenance by itself", opened, func(f *fixture) { f.maintain("b", true) },
			Command{StartSwitch: &StartSwitch{Group: "g", Epoch: 1, To: "b", MaxPause: 1, Deadline: noon, Automatic: true}}, RefusedCandidate},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := c.from(t)
			c.setup(f)
			before := f.bytes()
			r := f.do(c.do)
			if r.Refused != c.want {
				t.Fatalf("got %+v, want %q", r, c.want)
			}
			if c.want != "" {
				if f.Applied--; f.bytes() != before {
					t.Fatal("a refused command changed the state")
				}
			}
		})
	}
}

// TestPauseMayJoin: during a pause nobody takes a lost secondary's place, but it may return itself. Proves TR-1.
func TestPauseMayJoin(t *testing.T) {
	f := opened(t)
	may := func(want bool, n ident.NodeID, g ident.GroupName) {
		t.Helper()
		if got := f.Pause.MayJoin(f.Groups[g], n); got != want {
			t.Errorf("%s of %s: %v, want %v", n, g, got, want)
		}
	}
	may(true, "c", "g")
	f.must(Command{SetPause: &SetPause{On: true, Reason: "r"}})
	f.must(Command{ChangeSet: &ChangeSet{Group: "g", Epoch: 1, Version: 2, Remove: "b"}})
	may(true, "b", "g")
	may(false, "c", "g")
	f.must(Command{CreateGroup: &CreateGroup{Spec: spec("h", "a"), Incarnation: lifeA}}) // during the pause
	may(true, "c", "h")
	f.must(Command{StartSwitch: &StartSwitch{Group: "g", Epoch: 1, To: "c", MaxPause: 1, Deadline: noon}})
	may(true, "c", "g") // an operator sends the role there
	if a, _ := f.Assign("g", "a", lifeA); a.Pause != f.Pause {
		t.Error("the primary does not see the pause")
	}
}

// TestPauseAndMaintenanceAreCompareAndSet: an order that was decided upon another state of things is refused, and one sent
// twice has the effect of one. Proves CL-1.
func TestPauseAndMaintenanceAreCompareAndSet(t *testing.T) {
	f := opened(t)
	on := Command{SetPause: &SetPause{On: true, Reason: "r", By: "ann"}}
	f.must(on)
	since := f.Pause.Since
	if r := f.do(on); r.Refused != RefusedControl {
		t.Fatalf("sent twice: %+v", r)
	}
	f.must(Command{SetPause: &SetPause{Version: 1, On: true, Reason: "longer", Until: noon.Add(time.Hour)}})
	if f.Pause.Since != since || f.Pause.Reason != "longer" || f.Pause.By != "" || !slices.Equal(f.Pause.Members["g"], f.group().InSync) {
		t.Fatalf("a changed pause: %+v", f.Pause)
	}
	// The manager decided on the end of the first pause, which is another one by now.
	if r := f.do(Command{SetPause: &SetPause{Version: 1}}); r.Refused != RefusedControl || f.Pause == nil {
		t.Fatalf("the end of an older pause: %+v", r)
	}
	f.must(Command{SetPause: &SetPause{Version: 2}})
	if r := f.do(Command{SetPause: &SetPause{Version: 3}}); r.Refused != RefusedInvalid || f.Pause != nil {
		t.Fatalf("nothing to end: %+v", r)
	}

	if r := f.maintain("a", false); r.Refused != RefusedInvalid {
		t.Fatalf("nothing to end: %+v", r)
	}
	before := *f.group()
	f.must(Command{SetMaintenance: &SetMaintenance{Node: "a", On: true, Reason: "disk", By: "ann"}})
	if g := f.group(); g.Epoch != before.Epoch || g.Phase != PhaseOpened || g.Primary != "a" || !f.Nodes["a"].InMaintenance() {
		t.Fatalf("a primary put into maintenance: %+v", g)
	}
	if r := f.renew("a", lifeA); !slices.Contains(r.Covers, "g") || !f.Nodes["a"].InMaintenance() {
		t.Fatalf("its lease: %+v", r)
	}
	if f.must(register("a", KindData)); !f.Nodes["a"].InMaintenance() {
		t.Fatal("registered again, it is out of maintenance")
	}
	if r := f.do(Command{SetMaintenance: &SetMaintenance{Node: "a", Version: 0}}); r.Refused != RefusedControl {
		t.Fatalf("another version: %+v", r)
	}
	f.must(Command{SetMaintenance: &SetMaintenance{Node: "w", On: true, Reason: "kernel"}})
	for _, c := range []Command{
		{SetMaintenance: &SetMaintenance{Node: "x", On: true, Reason: "r"}},
		{SetMaintenance: &SetMaintenance{Node: "b", On: true}},
		{SetPause: &SetPause{Version: 3, On: true}},
		{SetPause: &SetPause{Version: 3, On: true, Reason: string(bytes.Repeat([]byte("x"), 501))}},
		{SetPause: &SetPause{Version: 3, On: true, Reason: "r", By: string(bytes.Repeat([]byte("x"), 201))}},
		{SetPause: &SetPause{Version: 3, On: true, Reason: "\xff"}},
	} {
		if r := f.do(c); r.Refused == "" {
			t.Errorf("accepted: %+v", c)
		}
	}
}

// TestAcceptedLoss: a failover that may lose entries is refused when more would be lost than its operator accepted, and the
// certificate keeps what was accepted. Proves BX-4: the fact is not worse than the forecast.
func TestAcceptedLoss(t *testing.T) {
	for _, c := range []struct {
		name   string
		accept *Acceptance
		b      ident.Position // c is outside the set {a, b}; b reports this
		at     ident.Position // c reports this
		want   string
	}{
		{"as shown", &Acceptance{Beyond: position(1, 5), To: position(1, 9), Entries: 4, By: "ann"}, position(1, 9), position(1, 5), ""},
		{"less than shown", &Acceptance{Beyond: position(1, 5), To: position(1, 9)}, position(1, 8), position(1, 6), ""},
		{"the target fell back", &Acceptance{Beyond: position(1, 5), To: position(1, 9)}, position(1, 9), position(1, 4), RefusedLoss},
		{"somebody holds more", &Acceptance{Beyond: position(1, 5), To: position(1, 9)}, position(1, 10), position(1, 5), RefusedLoss},
		{"somebody holds more, without a limit", &Acceptance{Beyond: position(1, 5)}, position(1, 10), position(1, 5), ""},
		{"nothing was said about it", nil, position(1, 10), position(1, 1), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := opened(t)
			f.must(Command{Fence: &Fence{Group: "g", Epoch: 1, Force: true, To: "c", AllowLoss: true, Accept: c.accept, Reason: "operator"}})
			f.report("b", lifeB, c.b)
			f.report("c", lifeC, c.at)
			to, loss, better, ok, why := ChooseCandidate(f.group(), f.Nodes, func(ident.NodeID) bool { return true }, true)
			if ok != (c.want == "") || ok && to != "c" || !ok && why == "" {
				t.Fatalf("choice %s %v %q", to, ok, why)
			}
			if (f.group().Exceeded(f.Nodes) != "") != (c.want != "") {
				t.Fatalf("exceeded: %q", f.group().Exceeded(f.Nodes))
			}
			r := f.do(Command{Promote: &Promote{Group: "g", Epoch: 2, To: "c", Incarnation: lifeC, Loss: loss, Better: better, Passed: f.group().PassedOver("c", f.Nodes)}})
			if r.Refused != c.want {
				t.Fatalf("got %+v, want %q", r, c.want)
			}
			if c.want != "" {
				return
			}
			cert := f.group().Switches[len(f.group().Switches)-1]
			if c.accept != nil && (cert.Accepted == nil || *cert.Accepted != *c.accept) || cert.Started.IsZero() || cert.Loss == LossNone {
				t.Fatalf("certificate %+v", cert)
			}
			if len(cert.Passed) != 2 || cert.Passed[0].Node != "b" || cert.Passed[0].Why != "the failover was to c" || cert.Passed[1].Node != "a" {
				t.Fatalf("passed over: %+v", cert.Passed)
			}
		})
	}
}

// TestAcceptedLossCountsWhatIsKnownToBeCommitted: nobody who holds the rest has to report for it to be known.
func TestAcceptedLossCountsWhatIsKnownToBeCommitted(t *testing.T) {
	f := opened(t)
	f.must(Command{Fence: &Fence{Group: "g", Epoch: 1, Force: true, To: "c", AllowLoss: true, Reason: "operator",
		Accept: &Acceptance{Beyond: position(1, 5), To: position(1, 5), By: "ann"}}})
	f.must(Command{Promise: &Promise{Group: "g", Report: Report{Node: "c", Epoch: 2, Incarnation: lifeC, Received: position(1, 5), Committed: position(1, 9)}}})
	if to, _, _, ok, why := ChooseCandidate(f.group(), f.Nodes, func(ident.NodeID) bool { return false }, true); ok || why == "" {
		t.Errorf("chosen: %s, %q", to, why)
	}
	if r := f.do(Command{Promote: &Promote{Group: "g", Epoch: 2, To: "c", Incarnation: lifeC}}); r.Refused != RefusedLoss {
		t.Errorf("got %+v: 1.6 to 1.9 are known to be committed, 1.5 was the most that was accepted", r)
	}
}

// TestSnapshotsFromBeforeControl reads a snapshot that was written before there were pauses and maintenance.
func TestSnapshotsFromBeforeControl(t *testing.T) {
	raw, err := os.ReadFile("testdata/snapshot.v1.before_control.json")
	if err != nil {
		t.Fatal(err)
	}
	s, err := Decode(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	if s.Pause != nil || s.Nodes["a"].InMaintenance() || s.Groups["g"].Spec.Switchback != "" {
		t.Fatalf("%+v", s)
	}
	if r := s.Apply(Command{Version: CommandVersion, At: noon, SetPause: &SetPause{On: true, Reason: "r"}}); r.Refused != "" {
		t.Fatalf("%+v", r)
	}
}
