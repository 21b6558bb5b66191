package replica

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
)

// intercept keeps the commands that match from being applied, as if they were under way, and returns the first of them once
// it was proposed.
func (p *plane) intercept(match func(fsm.Command) bool) (first func() (fsm.Command, bool)) {
	var kept *fsm.Command
	p.mu.Lock()
	defer p.mu.Unlock()
	p.veto = func(cmd fsm.Command) bool {
		if !match(cmd) {
			return false
		}
		if kept == nil {
			kept = &cmd
		}
		return true
	}
	return func() (fsm.Command, bool) {
		p.mu.Lock()
		defer p.mu.Unlock()
		if kept == nil {
			return fsm.Command{}, false
		}
		return *kept, true
	}
}

// endSession ends the present primary session of a node by an error that is not fatal, and waits until the epoch is over.
func (c *cluster) endSession(n *node) {
	c.t.Helper()
	e := c.plane.group().Epoch
	n.rep.primary.Load().fail(errors.New("injected: a part of the session failed"))
	c.eventually("the epoch was given back", func() bool { return c.plane.group().Epoch > e })
	if g := c.plane.group(); g.Phase != fsm.PhaseFenced {
		c.t.Fatalf("the group is %s", g.Phase)
	}
}

// A growth that is under way when its session ends is refused after: the epoch is not served by a second session.
// Proves I3.
func TestGrowthDoesNotOutliveSession(t *testing.T) {
	c := newCluster(t, fsm.GroupSpec{}, "a", "b")
	a, b := c.nodes["a"], c.nodes["b"]
	c.wires.sever("a", "b", true)
	c.inSync("a")
	add := c.plane.intercept(func(cmd fsm.Command) bool { return cmd.ChangeSet != nil && cmd.ChangeSet.Add != "" })
	c.wires.sever("a", "b", false)
	c.eventually("growth proposed", func() bool { _, ok := add(); return ok })
	c.endSession(a)
	c.wires.sever("a", "b", true)
	c.promote("a")
	c.serves("a")
	a.mustPut("k", "acknowledged")
	late, _ := add()
	if res := c.plane.apply(late); res.Refused != fsm.RefusedEpoch {
		t.Fatalf("a growth proposed by an earlier session was applied: %+v, set %v", res, c.plane.group().InSync)
	}
	c.plane.intercept(func(fsm.Command) bool { return false })
	c.wires.sever("a", "b", false)
	c.keepInSync("a", "b")
	a.crash(0)
	c.failover("b", false)
	c.serves("b")
	b.mustGet("k", "acknowledged", false)
}

// A Handover that is under way when its session ends is refused after, and nothing is answered before that is certain.
// Proves I1.
func TestHandoverDoesNotOutliveSession(t *testing.T) {
	c := newCluster(t, fsm.GroupSpec{}, "a", "b")
	a := c.nodes["a"]
	c.inSync("a", "b")
	a.mustPut("k", "v")
	underWay := c.plane.intercept(func(cmd fsm.Command) bool { return cmd.Handover != nil || cmd.Fence != nil })
	g := c.plane.group()
	c.must(fsm.Command{StartSwitch: &fsm.StartSwitch{Group: orders, Epoch: g.Epoch, To: "b", MaxPause: 20 * time.Second, Deadline: time.Now().Add(time.Minute), Reason: "test"}})
	c.eventually("handover proposed", func() bool { _, ok := underWay(); return ok })
	late, _ := underWay()
	old := a.rep.primary.Load()
	old.fail(errors.New("injected: a part of the session failed"))
	c.eventually("the session is over", func() bool { return a.rep.primary.Load() == nil })
	c.goesOn("a") // the fence is not applied: nobody may answer
	if _, _, err := a.rep.Read(t.Context(), "f", []byte("k"), false); !errors.Is(err, ErrNotPrimary) {
		t.Fatalf("a read while the Handover may be applied any time: %v", err)
	}
	if _, err := a.put("k", "w"); !errors.Is(err, ErrNotPrimary) {
		t.Fatalf("a write while the Handover may be applied any time: %v", err)
	}
	c.plane.intercept(func(fsm.Command) bool { return false })
	c.eventually("the epoch was given back", func() bool { return c.plane.group().Epoch == 2 })
	if res := c.plane.apply(late); res.Refused == "" {
		t.Fatalf("a Handover of an earlier session was applied: %+v", res)
	}
	c.promote("a")
	c.serves("a")
	a.mustGet("k", "v", false)
}

// A session that ends after retention took the receiver with its SW is followed by one that serves.
func TestSessionAfterRetention(t *testing.T) {
	c := newCluster(t, fsm.GroupSpec{KeepReceivers: 1}, "a")
	a := c.nodes["a"]
	for range 20 {
		a.mustPut("k", strings.Repeat("x", 40<<10))
	}
	if err := a.store.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.must(fsm.Command{Renew: &fsm.Renew{
		Node: "a", Directory: "d-a", Incarnation: a.life, Flushed: map[ident.GroupName]ident.Position{orders: a.rep.Status().Flushed},
	}})
	c.eventually("receivers are deleted", func() bool { _, ok := a.event(EventReceiversGone); return ok })
	c.endSession(a)
	c.promote("a")
	c.serves("a")
	a.mustPut("k", "v")
}

// A takeover that fails again and again does not attach a receiver each time.
func TestRepeatedTakeoverKeepsReceiver(t *testing.T) {
	c := newCluster(t, fsm.GroupSpec{}, "a")
	a := c.nodes["a"]
	a.mustPut("k", "v")
	opened := c.plane.intercept(func(cmd fsm.Command) bool { return cmd.Open != nil })
	c.endSession(a)
	own, _ := a.rep.Journal("a")
	c.promote("a")
	c.eventually("Open proposed", func() bool { _, ok := opened(); return ok })
	receivers := len(own.Receivers())
	for range 3 {
		p := a.rep.primary.Load()
		p.fail(errors.New("injected: Open failed"))
		c.eventually("another attempt", func() bool { q := a.rep.primary.Load(); return q != nil && q != p })
	}
	c.plane.intercept(func(fsm.Command) bool { return false })
	c.serves("a")
	if n := len(own.Receivers()); n != receivers {
		t.Fatalf("%d receivers, %d before the repeated attempts", n, receivers)
	}
	a.mustGet("k", "v", false)
}

// A pause keeps roles where they are; a primary whose session failed gives its epoch to itself, so that the group is served again.
func TestGiveBackWhilePaused(t *testing.T) {
	c := newCluster(t, fsm.GroupSpec{}, "a", "b")
	c.inSync("a", "b")
	a := c.nodes["a"]
	a.mustPut("k", "v")
	c.must(fsm.Command{SetPause: &fsm.SetPause{On: true, Reason: "test"}})
	c.endSession(a)
	c.eventually("the epoch is given back", func() bool { g := c.plane.group(); return g.Epoch == 2 && g.Phase == fsm.PhaseFenced })
	if op := c.plane.group().Operation; op == nil || op.To != "a" {
		t.Fatalf("the failover is %+v, not to a", op)
	}
	c.promote("a")
	c.serves("a")
	a.mustGet("k", "v", false)
}
