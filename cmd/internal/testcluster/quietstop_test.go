package testcluster

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/understudy-ha/understudy/client"
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

// leader is the leader of Raft, as the primary sees it.
func (c *Cluster) leader() string {
	st, err := c.primary().Client().Status(c.t.Context())
	if err != nil {
		c.t.Fatal(err)
	}
	return st.RaftLeader
}
