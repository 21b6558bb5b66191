package replica

import (
	"testing"

	"github.com/understudy-ha/understudy/fsm"
)

// Proves RJ-9, S12: after a restart the replicated state passes through what it was before. A store that is ahead of it holds
// what lives on, so nothing of it is taken back, reported as backed out, or said to need priming.
func TestStateOlderThanTheStore(t *testing.T) {
	c := newCluster(t, fsm.GroupSpec{}, "a", "b", "c")
	c.inSync("a", "b")
	c.nodes["a"].mustPut("k", "v")
	c.level("b", "c")
	c.plane.mu.Lock()
	old := c.plane.state.Snapshot()
	c.plane.mu.Unlock()
	c.switchover("b")
	c.nodes["b"].mustPut("k", "w")
	c.level("c")
	at := c.nodes["c"].rep.data.Position()
	if err := c.nodes["c"].store.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.nodes["c"].crash(0)
	c.plane.mu.Lock()
	c.plane.away["c"] = old
	c.plane.mu.Unlock()
	n := c.start("c")
	looks := func() int {
		c.plane.mu.Lock()
		defer c.plane.mu.Unlock()
		return c.plane.looks["c"]
	}
	before := looks()
	c.eventually("it has looked at the old state again and again", func() bool { return looks() > before+20 })
	if got := n.rep.data.Position(); got != at {
		t.Errorf("the store went from %s to %s under a state that is older", at, got)
	}
	c.plane.isolate("c", false)
	c.level("c")
	for _, k := range []EventKind{EventBackedOut, EventNeedsPriming} {
		if e, ok := n.event(k); ok {
			t.Errorf("%s: %s", e.Kind, e.Detail)
		}
	}
}
