package replica

import (
	"slices"
	"testing"
	"time"

	"github.com/understudy-ha/understudy/fsm"
)

// A target that has to come into the set first, and does not for longer than max_pause, costs no pause: writes wait for it no longer than for
// any node that grows, and go on. The switch-over is not rolled back for it; it goes on when the target has come. Proves CL-3, RJ-11.
func TestMaxPauseCountsFromTheHold(t *testing.T) {
	const pause = 100 * time.Millisecond
	c := newCluster(t, fsm.GroupSpec{}, "a", "b", "c")
	c.inSync("a", "b")
	c.plane.mu.Lock()
	c.plane.veto = func(cmd fsm.Command) bool { return cmd.ChangeSet != nil && cmd.ChangeSet.Remove != "" } // a slow machine
	c.plane.mu.Unlock()
	a := c.nodes["a"]
	a.mustPut("k", "1")
	c.level("b", "c")
	release := c.nodes["c"].hangDisk("a")
	defer func() {
		if release != nil {
			release()
		}
	}()
	a.mustPut("k", "2")
	op := c.must(fsm.Command{StartSwitch: &fsm.StartSwitch{
		Group: orders, Epoch: 1, To: "c", MaxPause: pause, Deadline: time.Now().Add(time.Hour), Reason: "test",
	}}).Operation
	c.must(fsm.Command{AdvanceSwitch: &fsm.AdvanceSwitch{Group: orders, Operation: op, From: fsm.StepPrepare, Node: "c"}}) // whatever its disk does
	c.eventually("c is waited for", func() bool { return slices.Contains(a.rep.primary.Load().targets.growing(), "c") })
	began := time.Now()
	a.mustPut("k", "3")
	c.eventually("far more than the longest pause is over, and c given up", func() bool {
		return time.Since(began) > 5*pause && len(a.rep.primary.Load().targets.growing()) == 0
	})
	a.mustPut("k", "4")
	if g := c.plane.group(); g.Operation == nil || g.Operation.Step != fsm.StepHold || g.Primary != "a" || a.rep.Status().Held {
		t.Fatalf("%+v, held %t", g.Operation, a.rep.Status().Held)
	}
	release()
	release = nil
	c.eventually("writes are held once c is in the set", func() bool {
		g := c.plane.group()
		if g.Operation != nil && g.Operation.Step == fsm.StepDrain && !g.Operation.Committed && !g.InSet("c") {
			t.Fatalf("writes are held for c, which is not in the set %v", g.InSync)
		}
		is, ok := c.plane.operation(op)
		return ok && slices.ContainsFunc(is.Steps, func(s fsm.Step) bool { return s.Name == fsm.StepDrain })
	})
}
