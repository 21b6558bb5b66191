package node

import (
	"fmt"

	"github.com/understudy-ha/understudy/client"
	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/replica"
)

// States of a node in a status, beside those that gossip knows.
const (
	stateAlive   = "alive"
	stateSuspect = "suspect" // gossip has not given it up, but its shipping connection broke
	stateLeft    = "left"
)

// doubt corrects what gossip says of nodes that died a moment ago: gossip takes a second or so, a broken shipping connection is noticed at
// once. It is for people; nothing is decided by it.
func (n *Node) doubt(st *fsm.State, nodes []client.NodeStatus, groups []client.GroupStatus) {
	why := suspicions(groups)
	for name, g := range st.Groups {
		if rep := n.replicas.get(name); rep != nil && g.Primary != n.config.Node && unfed(g, n.config.Node, rep.Status()) {
			why[string(g.Primary)] = fmt.Sprintf("it ships nothing of group %s to %s any more", name, n.config.Node)
		}
	}
	doubted(nodes, string(n.config.Node), why)
}

// doubted applies what is known against nodes other than self.
func doubted(nodes []client.NodeStatus, self string, why map[string]string) {
	for i := range nodes {
		x := &nodes[i]
		switch {
		case x.ID == self || x.State != stateAlive:
		case x.Lease == leaseReleased: // its life is over, by its own word or its keeper's
			x.State = stateLeft
		case why[x.ID] != "":
			x.State, x.Suspicion = stateSuspect, why[x.ID]
		}
	}
}

// suspicions are the nodes to which a serving primary has lost the connection, and why. One that answers, if only with a refusal, lives.
func suspicions(groups []client.GroupStatus) map[string]string {
	why := map[string]string{}
	for _, g := range groups {
		for _, t := range g.Targets {
			if t.State == string(replica.TargetConnecting) && t.Error != "" {
				why[t.Node] = fmt.Sprintf("%s cannot ship group %s to it: %s", g.Primary, g.Name, t.Error)
			}
		}
	}
	return why
}

// unfed tells whether this node, a member of the in-sync set, has no shipping session from the primary any more.
func unfed(g *fsm.Group, self ident.NodeID, s replica.Status) bool {
	return g.Phase == fsm.PhaseOpened && g.Operation == nil && g.InSet(self) && s.Role == replica.RoleBackup && s.Epoch == g.Epoch && s.FedBy == "" && s.Reconciled
}
