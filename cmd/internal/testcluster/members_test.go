package testcluster

import (
	"errors"
	"testing"
	"time"

	"github.com/understudy-ha/understudy/client"
	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
)

// member waits until everybody who runs counts the node as alive and it has a copy that follows.
func (c *Cluster) member(id ident.NodeID) {
	c.t.Helper()
	c.Wait("node "+string(id)+" is a member", 30*time.Second, func() error {
		st, err := c.Node(id).client.Status(c.t.Context())
		if err != nil {
			return err
		}
		for _, x := range st.Nodes {
			if x.ID == string(id) && x.State == "alive" {
				return nil
			}
		}
		return errors.New("not registered")
	})
}

// held waits until the node stands at its failpoint.
func (c *Cluster) held(n *Node, failpoint string) {
	c.t.Helper()
	c.Wait(string(n.ID)+" stands at "+failpoint, 20*time.Second, func() error {
		if !n.disk.waits(failpoint) {
			return errors.New("not there yet")
		}
		return nil
	})
}

// TestNodesJoinInEveryPhase: a voter is added while a switch-over drains, while a failover promises, and while the old primary
// rejoins. What goes on ends well, no acknowledged write is lost, and all copies are equal in the end. Proves CL-1, CL-3, I3, I10.
func TestNodesJoinInEveryPhase(t *testing.T) {
	c := Start(t, Options{Nodes: []ident.NodeID{"a", "b", "c", "d", "e", "f"}, Later: []ident.NodeID{"d", "e", "f"}, Group: fsm.GroupSpec{Preferred: "a"}})
	ctx := t.Context()
	w := c.write(2)
	more := func() {
		t.Helper()
		before := w.count()
		c.Wait("writes go on", 60*time.Second, func() error {
			if w.count() < before+30 {
				return errors.New("not yet")
			}
			return nil
		})
	}
	more()

	// The switch-over waits for a's last bundles to be on disk.
	a := c.Node("a")
	a.Disk().Pause("journal.sync:default/a")
	c.held(a, "journal.sync:default/a")
	switched := make(chan error, 1)
	go func() {
		op, err := c.Node("b").client.Switchover(ctx, "default", client.SwitchoverRequest{To: "b", MaxPause: client.Duration(20 * time.Second)}, 40*time.Second)
		if err == nil && op.State != client.OperationDone {
			err = errors.New("the switch-over ended as " + op.State + ": " + op.Error)
		}
		switched <- err
	}()
	c.until("c", "the switch-over has begun", func(g client.GroupStatus) bool { return g.Operation != nil })
	c.Node("d").Start()
	c.member("d")
	a.Disk().Resume("journal.sync:default/a")
	if err := <-switched; err != nil {
		t.Fatal(err)
	}
	more()

	// Whoever is about to promise, or to take over, stands still.
	rest := []ident.NodeID{"a", "c", "d"}
	for _, id := range rest {
		c.Node(id).Disk().Pause("replica.promise:default")
	}
	c.Node("b").Crash()
	c.Cut("b", "f", false) // it has not begun yet
	c.held(a, "replica.promise:default")
	c.Node("e").Start()
	c.member("e")
	for _, id := range rest {
		c.Node(id).Disk().Resume("replica.promise:default")
	}
	c.primary()
	more()

	joined := make(chan struct{})
	go func() { defer close(joined); c.Node("f").open() }()
	c.Node("b").Start()
	<-joined
	c.member("f")
	more()
	w.finish()
	c.Wait("all are level", 60*time.Second, c.settled)
	c.verify(w)
}
