package replica

import (
	"slices"
	"testing"
	"time"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
)

// hangDisk makes every sync of a node's copy of a journal hang until release.
func (n *node) hangDisk(author ident.NodeID) (release func()) {
	gate := make(chan struct{})
	n.fail.Store("journal.sync:orders/"+string(author), func() error { <-gate; return nil })
	return func() { close(gate) }
}

// attempts writes for a while and counts how often the primary begins to wait for a node on every entry. Each makes one write
// wait for ShrinkAfter.
func (n *node) attempts(at ident.NodeID, d time.Duration) (began int) {
	n.t.Helper()
	stop, counted := make(chan struct{}), make(chan int)
	go func() {
		count := 0
		for waits := false; ; time.Sleep(time.Millisecond) {
			now := slices.Contains(n.rep.primary.Load().targets.growing(), at)
			if now && !waits {
				count++
			}
			waits = now
			select {
			case <-stop:
				counted <- count
				return
			default:
			}
		}
	}()
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		n.mustPut("k", "v")
	}
	close(stop)
	return <-counted
}

// A node whose disk hangs is connected and level, and yet waited for only once.
func TestHungCopyStallsWritesOnce(t *testing.T) {
	c := newCluster(t, fsm.GroupSpec{}, "a", "b")
	c.inSync("a", "b")
	defer c.nodes["b"].hangDisk("a")()
	if n := c.nodes["a"].attempts("b", 4*time.Second); n > 1 || c.plane.group().InSet("b") {
		t.Errorf("waited for %d times; in the set: %t", n, c.plane.group().InSet("b"))
	}
}

// The target of a switch-over hangs before anything is held: writes go on.
func TestHungTargetDoesNotBlockWrites(t *testing.T) {
	c := newCluster(t, fsm.GroupSpec{}, "a", "b", "c")
	a := c.nodes["a"]
	c.keepInSync("a", "b")
	a.mustPut("k", "v")
	c.level("b", "c")
	defer c.nodes["c"].hangDisk("a")()
	a.mustPut("k", "w")
	g := c.plane.group()
	c.must(fsm.Command{StartSwitch: &fsm.StartSwitch{Group: orders, Epoch: g.Epoch, To: "c", MaxPause: 300 * time.Millisecond, Deadline: time.Now().Add(time.Minute), Reason: "test"}})
	if n := a.attempts("c", 3*time.Second); n > 1 {
		t.Errorf("waited for %d times", n)
	}
	if op := c.plane.group().Operation; op != nil && op.Step != fsm.StepPrepare {
		t.Errorf("the switch-over is at step %s", op.Step)
	}
}

// Under protection a standby takes the place of an old primary that died right after the Handover, before SW was committed.
func TestStandbyReplacesOldPrimaryAfterHandover(t *testing.T) {
	c := newCluster(t, fsm.GroupSpec{OnNoSync: fsm.NoSyncHold}, "a", "b", "c")
	c.inSync("a", "b")
	c.nodes["a"].mustPut("k", "v")
	c.level("b", "c")
	c.plane.mu.Lock()
	c.plane.veto = func(cmd fsm.Command) bool {
		if cmd.Handover != nil {
			c.wires.sever("a", "b", true)
			c.wires.sever("a", "c", true)
		}
		return false
	}
	c.plane.mu.Unlock()
	g := c.plane.group()
	c.must(fsm.Command{StartSwitch: &fsm.StartSwitch{Group: orders, Epoch: g.Epoch, To: "b", MaxPause: 5 * time.Second, Deadline: time.Now().Add(time.Minute), Reason: "test"}})
	c.eventually("handed over", func() bool { return c.plane.group().Epoch == 2 })
	c.nodes["a"].crash(0)
	c.serves("b")
	c.inSync("b", "c")
	c.nodes["b"].mustPut("k", "w")
	c.level("c")
}
