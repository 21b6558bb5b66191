package testcluster

import (
	"context"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/understudy-ha/understudy/client"
	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
)

// complaints are the lines of the nodes' log that say ERROR.
func (c *Cluster) complaints() (lines []string) {
	raw, err := os.ReadFile(c.logs.Name())
	if err != nil {
		c.t.Fatal(err)
	}
	for line := range strings.Lines(string(raw)) {
		if strings.Contains(line, "[ERROR]") {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return lines
}

// A clean start and a clean stop, of one node and of all of them, are no errors: nothing in the log says so, neither of the node that
// stops nor of those that miss it.
func TestACleanStopLogsNoError(t *testing.T) {
	c := Start(t, Options{})
	put := func(on *Node) {
		t.Helper()
		if _, err := on.Client().Put(t.Context(), "f", []byte("k"), []byte("v"), client.WriteOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	put(c.primary())
	leader := c.Node(ident.NodeID(c.leader()))
	for _, n := range []*Node{c.primary(), leader, c.Node("c")} {
		if n.running == nil {
			continue
		}
		n.retire()
		put(c.primary())
		n.Start()
		c.Wait("the cluster is settled again", 30*time.Second, func() error { return c.settled() })
	}
	for _, id := range []ident.NodeID{"b", "a", "c"} { // the last one is left alone, without a majority
		c.Node(id).Stop()
	}
	for _, line := range c.complaints() {
		t.Error(line)
	}
}

// A stop of all nodes in good order at once finds nobody to hand a role to: that is what was asked for, and nobody is warned of it.
func TestAStopOfAllWarnsOfNothing(t *testing.T) {
	c := Start(t, Options{Group: fsm.GroupSpec{Name: "default", OnNoSync: fsm.NoSyncHold}})
	if _, err := c.primary().Client().Put(t.Context(), "f", []byte("k"), []byte("v"), client.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for _, id := range c.options.Nodes {
		n := c.Node(id)
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			n.running.Leave(ctx)
			all, err := n.client.Events(ctx, 0, 0)
			if err != nil {
				t.Errorf("events of %s: %v", n.ID, err)
			}
			for _, e := range all {
				if e.Severity != "info" && slices.Contains([]string{"NOT_HANDED_OVER", "LAST_SECONDARY_STOPS", "STILL_IN_SYNC"}, e.Kind) {
					t.Errorf("%s is warned: %s: %s", n.ID, e.Kind, e.Message)
				}
			}
			n.Stop()
		})
	}
	wg.Wait()
	for _, line := range c.complaints() {
		t.Error(line)
	}
}

// leader is the leader of Raft, as the primary sees it.
func (c *Cluster) leader() string {
	st, err := c.primary().Client().Status(c.t.Context())
	if err != nil {
		c.t.Fatal(err)
	}
	return st.RaftLeader
}
