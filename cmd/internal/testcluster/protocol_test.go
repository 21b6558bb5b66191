package testcluster

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/understudy-ha/understudy/client"
	"github.com/understudy-ha/understudy/cmd/internal/node"
	"github.com/understudy-ha/understudy/internal/ident"
)

// Proves CL-7: a node whose build speaks another inter-node protocol does not start while the others run. It says why, the others show
// it, tell of it once, go on serving and switch over among themselves; with the right build it returns.
func TestNodeOfAnotherBuildIsKeptOut(t *testing.T) {
	c := Start(t, Options{})
	w := c.write(2)
	p := c.primary()
	var apart, other *Node
	for _, id := range c.options.Nodes {
		switch n := c.Node(id); {
		case n == p:
		case apart == nil:
			apart = n
		default:
			other = n
		}
	}
	apart.retire()
	before, err := p.client.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // twice: one incident
		apart.protocol = ident.CurrentProtocol + 1
		err := apart.try()
		var refused *node.PreconditionError
		if !errors.As(err, &refused) {
			t.Fatalf("got %v", err)
		}
		for _, part := range []string{fmt.Sprintf("speaks inter-node protocol %d", ident.CurrentProtocol), fmt.Sprintf("this node speaks %d", ident.CurrentProtocol+1), "stop all nodes"} {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%q lacks %q", err, part)
			}
		}
	}
	for _, n := range []*Node{p, other} {
		st, err := n.client.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if len(st.Knocking) != 1 || st.Knocking[0].Node != string(apart.ID) || st.Knocking[0].Protocol != uint8(ident.CurrentProtocol+1) || st.Protocol != uint8(ident.CurrentProtocol) {
			t.Errorf("%s shows %+v, and speaks %d", n.ID, st.Knocking, st.Protocol)
		}
		if st.RaftLeader != before.RaftLeader && before.RaftLeader != string(apart.ID) {
			t.Errorf("Raft's leader was %s and is %s", before.RaftLeader, st.RaftLeader)
		}
		for _, x := range st.Nodes {
			if x.ID == string(apart.ID) && x.State == "alive" {
				t.Errorf("%s takes %s for alive", n.ID, x.ID)
			}
		}
		list, err := n.client.Events(t.Context(), 0, 0)
		if err != nil {
			t.Fatal(err)
		}
		told := 0
		for _, e := range list {
			if e.Kind == "OTHER_BUILD" {
				told++
			}
		}
		if told != 1 {
			t.Errorf("%s told of it %d times", n.ID, told)
		}
	}
	c.Wait("the two are level", 30*time.Second, func() error { return c.settled() })
	if op, err := p.client.Switchover(t.Context(), "default", client.SwitchoverRequest{To: string(other.ID)}, 30*time.Second); err != nil || op.State != client.OperationDone {
		t.Fatalf("the two do not switch over: %+v %v", op, err)
	}
	after := w.count()
	c.Wait("writes go on", 20*time.Second, func() error {
		if n := w.count(); n < after+50 {
			return fmt.Errorf("%d acknowledged since", n-after)
		}
		return nil
	})

	apart.protocol = 0 // this build's
	apart.Start()
	c.Wait("it is back", 30*time.Second, func() error {
		c.relax(w)
		return c.settled()
	})
	for _, n := range []*Node{p, other} {
		c.Wait("nobody knocks", 20*time.Second, func() error {
			st, err := n.client.Status(t.Context())
			if err == nil && len(st.Knocking) != 0 {
				err = fmt.Errorf("%s still shows %+v", n.ID, st.Knocking)
			}
			return err
		})
	}
	w.finish()
	if len(w.unknown) > 0 || w.refused > 0 {
		t.Errorf("%d writes have an unknown outcome, %d were refused: %v", len(w.unknown), w.refused, w.last)
	}
}

// TestAllNodesOfANewBuild: after all nodes were stopped, all start with another number; then none starts with the old one any more.
func TestAllNodesOfANewBuild(t *testing.T) {
	c := Start(t, Options{})
	for _, id := range c.options.Nodes {
		c.Node(id).Stop()
	}
	started := make(chan error, len(c.options.Nodes))
	for _, id := range c.options.Nodes {
		n := c.Node(id)
		n.protocol = ident.CurrentProtocol + 1
		go func() { started <- n.try() }()
	}
	for range c.options.Nodes {
		if err := <-started; err != nil {
			t.Error(err)
		}
	}
	if t.Failed() {
		t.FailNow()
	}
	c.Wait("the cluster is settled", 30*time.Second, func() error { return c.settled() })
	n := c.Node(c.options.Nodes[0])
	n.Stop()
	n.protocol = 0
	var refused *node.PreconditionError
	if err := n.try(); !errors.As(err, &refused) || !strings.Contains(err.Error(), "newer build") {
		t.Fatalf("got %v", err)
	}
}
