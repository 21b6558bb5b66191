package replica

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
)

// A copy keeps, over a restart, the tail that its author has lost. By the time that the author gets the role again, the journal in which the same
// facts were durable is deleted, since nobody needs them: they must not keep a member from following its primary. Proves RJ-5, RJ-6, CL-2.
func TestKeptTailMeetsItsAuthorAgain(t *testing.T) {
	c := newSteadyCluster(t, fsm.GroupSpec{KeepReceivers: 1, Secondaries: 2}, "a", "b", "c")
	a := c.nodes["a"]
	c.inSync("a", "b", "c")
	a.mustPut("k", "common")
	c.level("b", "c")
	a.fail.Store("journal.sync:orders/a", func() error {
		for {
			c.plane.mu.Lock()
			alive := c.plane.alive["a"]
			c.plane.mu.Unlock()
			if !alive {
				return nil
			}
			time.Sleep(time.Millisecond)
		}
	})
	go func() { _, _ = a.put("k", "tail") }()
	own, _ := a.rep.Journal("a")
	for _, id := range []string{"b", "c"} {
		c.eventually("the tail arrives", func() bool {
			j, ok := c.nodes[ident.NodeID(id)].rep.Journal("a")
			v, _ := own.View()
			if !ok {
				return false
			}
			w, _ := j.View()
			return v.Last > v.Durable && w.Last == v.Last && w.Durable == v.Last
		})
	}
	v, _ := own.View()
	a.crash(0)
	c.nodes["c"].stop()
	c.start("c")
	c.failover("b", false)
	c.serves("b")
	b := c.nodes["b"]
	a = c.start("a")
	c.level("a", "c")
	b.mustPut("k", "more")
	tail := v.Last
	for i := range 10 {
		b.mustPut(fmt.Sprint("k", i), strings.Repeat("x", 40<<10))
	}
	c.level("a", "c")
	bc, _ := c.nodes["c"].rep.Journal("b")
	c.eventually("b's receivers go", func() bool {
		c.renew("a", "b", "c")
		w, _ := bc.View()
		return w.First > tail
	})
	ac, _ := c.nodes["c"].rep.Journal("a")
	ao, _ := a.rep.Journal("a")
	w, _ := ac.View()
	theirs, ok, err := ao.ChainAt(tail)
	if w.Last != tail || w.Found != tail || !ok || err != nil || theirs == w.Chain {
		t.Fatalf("c's copy ends at %s, found %s, want %s, other than a's journal (%v)", w.Last, w.Found, tail, err)
	}
	c.inSync("a", "b", "c")
	c.plane.mu.Lock()
	c.plane.veto = func(cmd fsm.Command) bool { return cmd.ChangeSet != nil && cmd.ChangeSet.Remove != "" }
	c.plane.mu.Unlock()
	c.switchover("a")
	a.mustPut("k", "again")
	c.level("b", "c")
}
