package testcluster

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
)

// never is a time after which no test lasts any more: whoever waited it out would be seen.
const never = time.Hour

// secondary returns a member of the in-sync set beside the primary.
func (c *Cluster) secondary() *Node {
	c.t.Helper()
	p := c.primary()
	g, err := p.client.Group(c.t.Context(), string(c.options.Group.Name))
	if err != nil || len(g.InSync) == 0 {
		c.t.Fatalf("the set is %v, %v", g.InSync, err)
	}
	return c.Node(ident.NodeID(g.InSync[0]))
}

// relieved waits until the primary, another one than the node, shows that the node is not in its set and somebody else is. A follower of Raft
// shows later what the leaving node has seen already. It returns the primary and the one that is in.
func (c *Cluster) relieved(gone *Node) (primary, shadow *Node) {
	c.t.Helper()
	c.Wait(fmt.Sprintf("%s has successors", gone.ID), time.Minute, func() error {
		primary = c.primary()
		in := c.shadows(primary)
		if primary == gone || len(in) != 1 || in[0] == string(gone.ID) {
			return fmt.Errorf("%s serves with %v in its set", primary.ID, in)
		}
		shadow = c.Node(ident.NodeID(in[0]))
		return nil
	})
	return primary, shadow
}

// shadows are the members of the in-sync set beside the primary, as the primary shows them.
func (c *Cluster) shadows(p *Node) []string {
	c.t.Helper()
	g, err := p.client.Group(c.t.Context(), string(c.options.Group.Name))
	if err != nil {
		c.t.Fatal(err)
	}
	return g.InSync
}

// leave has the node do what it does before it stops in good order, and fails the test when that did not come to its end.
func (n *Node) leave(within time.Duration) int {
	n.cluster.t.Helper()
	ctx, cancel := context.WithTimeout(n.cluster.t.Context(), within)
	defer cancel()
	moved := n.running.Leave(ctx)
	if ctx.Err() != nil {
		n.cluster.t.Fatalf("%s has not left the sets after %s\n%s", n.ID, within, n.cluster.tail())
	}
	return moved
}

// vanish cuts the node off from everybody and stops it: nobody is told that it has ended.
func (n *Node) vanish() {
	for id := range n.cluster.nodes {
		if id != n.ID {
			n.cluster.Cut(n.ID, id, true)
		}
	}
	n.Stop()
}

// more waits until so many writes were acknowledged since.
func (c *Cluster) more(w *writer, since, n int) {
	c.t.Helper()
	c.Wait("writes go on", time.Minute, func() error {
		if now := w.count(); now < since+n {
			return fmt.Errorf("%d acknowledged since", now-since)
		}
		return nil
	})
}

// TestSecondaryLeavesBeforeItStops: a secondary that is stopped in good order is replaced by the standby and taken out of the set before it is
// gone, although a silent one would hold up writes for an hour; and then nobody waits for it, although nobody is told of its end. What was
// acknowledged from then on is at the one that took its place: it has it when the primary dies in the same moment. Proves BX-1.
func TestSecondaryLeavesBeforeItStops(t *testing.T) {
	c := Start(t, Options{Shrink: never})
	s := c.secondary()
	w := c.write(4)
	c.more(w, 0, 100)
	s.leave(time.Minute)
	p, third := c.relieved(s)
	s.vanish()
	c.more(w, w.count(), 100)
	p.Crash()
	w.finish()
	s.Start() // a majority decides
	if now := c.primary(); now != third {
		t.Errorf("%s serves, want %s: it alone has everything", now.ID, third.ID)
	}
	p.Start()
	c.Wait("the cluster is settled again", time.Minute, c.settled)
	c.verify(w)
}

// TestPrimaryLeavesBeforeItStops: a primary that is stopped in good order hands its role over, and is then no secondary of its successor
// any more. Proves BX-1.
func TestPrimaryLeavesBeforeItStops(t *testing.T) {
	c := Start(t, Options{Shrink: never})
	p := c.primary()
	w := c.write(4)
	c.more(w, 0, 100)
	p.leave(time.Minute)
	c.relieved(p)
	p.vanish()
	c.more(w, w.count(), 100)
	p.Start()
	c.Wait("the cluster is settled again", time.Minute, func() error {
		c.relax(w)
		return c.settled()
	})
	w.finish()
	c.verify(w)
}

// TestLastSecondaryLeaves: with nobody to take its place the last secondary leaves the set all the same, or under on_no_sync hold stays in it; in
// both cases it stops soon, after a warning, and writes do what on_no_sync says. Proves BX-1.
func TestLastSecondaryLeaves(t *testing.T) {
	for _, rule := range []string{fsm.NoSyncDegrade, fsm.NoSyncHold} {
		t.Run(rule, func(t *testing.T) {
			c := Start(t, Options{Nodes: []ident.NodeID{"a", "b", "w"}, Witnesses: []ident.NodeID{"w"}, Shrink: never, Group: fsm.GroupSpec{OnNoSync: rule}})
			p, s := c.primary(), c.secondary()
			c.options.Nodes = []ident.NodeID{"a", "b"} // those with data
			w := c.write(2)
			c.more(w, 0, 50)
			s.leave(time.Minute)
			c.more(w, w.count(), 50)
			events, err := s.client.Events(t.Context(), 0, 0)
			if err != nil {
				t.Fatal(err)
			}
			warned := ""
			for _, e := range events {
				if e.Kind == "LAST_SECONDARY_STOPS" {
					warned = e.Message
				}
			}
			var in []string
			c.Wait("the primary shows it", time.Minute, func() error {
				if in = c.shadows(p); (len(in) == 0) != (rule == fsm.NoSyncDegrade) {
					return fmt.Errorf("%s has %v in its set", p.ID, in)
				}
				return nil
			})
			if rule == fsm.NoSyncDegrade {
				if len(in) != 0 || !strings.Contains(warned, "goes on alone") {
					t.Fatalf("the set beside %s is %v; warned: %q", p.ID, in, warned)
				}
				s.vanish()
				c.more(w, w.count(), 50)
				s.Start()
			} else {
				if len(in) != 1 || !strings.Contains(warned, "held or refused") {
					t.Fatalf("the set beside %s is %v; warned: %q", p.ID, in, warned)
				}
				s.Stop()
				c.Wait("writes are held", time.Minute, func() error {
					if p.Waiting() == 0 {
						return fmt.Errorf("nobody waits")
					}
					return nil
				})
				s.Start()
				c.more(w, w.count(), 50)
			}
			w.finish()
			c.Wait("both have all", time.Minute, c.settled)
			c.verify(w)
		})
	}
}
