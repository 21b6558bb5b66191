package replica

import (
	"fmt"
	"strings"
	"testing"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/replica/core"
)

// renew reports what the nodes have flushed and how far their copies reach, as their lease renewals do.
func (c *cluster) renew(ids ...ident.NodeID) {
	c.t.Helper()
	for _, id := range ids {
		n := c.nodes[id]
		if err := n.store.Flush(c.t.Context()); err != nil {
			c.t.Fatal(err)
		}
		ends := fsm.Ends{}
		for _, j := range n.rep.Journals() {
			view, _ := j.View()
			ends[j.ID().Node] = core.CopyEnd(view.Durable, view.Confirmed)
		}
		c.must(fsm.Command{Renew: &fsm.Renew{
			Node: id, Directory: ident.DirectoryID("d-" + string(id)), Incarnation: n.life,
			Flushed: map[ident.GroupName]ident.Position{orders: n.rep.Status().Flushed}, Copies: map[ident.GroupName]fsm.Ends{orders: ends},
		}})
	}
}

// Proves RJ-5, TR-4: a's turn ended with entries that b's copy never got, since a backup ships nothing. b goes away at the
// moment the role returns to a, with everything flushed that it ever saw. Its copy must be able to go on from its end.
func TestRetentionKeepsWhatACopyGoesOnFrom(t *testing.T) {
	c := newCluster(t, fsm.GroupSpec{KeepReceivers: 1}, "a", "b")
	a, b := c.nodes["a"], c.nodes["b"]
	c.inSync("a", "b")
	for i := range 5 {
		a.mustPut(fmt.Sprint("k", i), strings.Repeat("x", 20<<10))
	}
	c.switchover("b")
	c.inSync("a", "b")
	b.mustPut("k", "b's")
	c.level("a")
	c.renew("a", "b")
	c.plane.mu.Lock()
	c.plane.veto = func(cmd fsm.Command) bool {
		if cmd.Handover != nil {
			c.wires.sever("a", "b", true)
		}
		return false
	}
	c.plane.mu.Unlock()
	c.switchover("a")
	c.inSync("a")
	for i := range 20 {
		a.mustPut(fmt.Sprint("k", i), strings.Repeat("y", 40<<10))
	}
	own, _ := a.rep.Journal("a")
	held := len(own.Receivers())
	c.renew("a")
	c.wires.sever("a", "b", false)
	c.inSync("a", "b")
	c.renew("a", "b")
	c.eventually("receivers that nobody needs any more are deleted", func() bool { return len(own.Receivers()) < held })
}
