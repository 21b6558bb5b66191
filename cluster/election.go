package cluster

import (
	"context"
	"time"

	"github.com/hashicorp/raft"

	"github.com/understudy-ha/understudy/internal/ident"
)

// answerTimeout is how long a process that is said to be dead has time to show that it is not. Where it is dead its machine
// refuses the connection at once.
const answerTimeout = 300 * time.Millisecond

const (
	electionTry  = 150 * time.Millisecond // one candidate has so long to win
	electionLook = 5 * time.Millisecond
)

// Answers tells whether a process of the node answers at its Raft port. It guards against releasing a living process by
// mistake; silence proves nothing.
func (c *Cluster) Answers(ctx context.Context, id ident.NodeID) bool {
	st, _ := c.board.read()
	n := st.Nodes[id]
	if n == nil {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	r, err := c.port.call(ctx, c.book.of(n), request{Info: &infoRequest{Node: c.o.Node}})
	return err == nil && r.Info != nil && r.Info.Directory == n.Directory
}

// LeaderDied tells that a node's process is known to be dead. If that node led Raft, by this node's knowledge, a voter that
// lives is made a candidate at once, instead of after the heartbeats have been missed for long enough; one after the other,
// since the one with the shorter log cannot win and two at once split the votes. Raft's own rules decide who wins, so being
// wrong costs an election and no more. It returns at once.
func (c *Cluster) LeaderDied(dead ident.NodeID) {
	if dead == c.o.Node || c.Leader() != dead {
		return
	}
	c.spawn(func() { c.elect(c.ctx, dead) })
}

func (c *Cluster) elect(ctx context.Context, dead ident.NodeID) {
	c.log.Info("the Raft leader is dead: an election begins without waiting for its heartbeats", "peer", dead)
	st, _ := c.board.read()
	self := st.Nodes[c.o.Node]
	if self == nil {
		return
	}
	others := []ident.DirectoryID{self.Directory}
	for id, n := range st.Nodes {
		if id != dead && id != c.o.Node && !n.Released && !c.dead(id) {
			others = append(others, n.Directory)
		}
	}
	for _, d := range others {
		n := c.book.node(d)
		if n == nil || !c.leaderless(dead) {
			return
		}
		addr := raft.ServerAddress(c.book.of(n))
		err := c.trans.TimeoutNow(raft.ServerID(d), addr, &raft.TimeoutNowRequest{
			RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(c.o.Directory), Addr: []byte(c.o.Addresses.Raft)},
		}, &raft.TimeoutNowResponse{})
		if err != nil {
			c.log.Debug("no candidate", "peer", n.ID, "error", err)
			continue
		}
		end := time.Now().Add(electionTry)
		for c.leaderless(dead) && time.Now().Before(end) {
			select {
			case <-time.After(electionLook):
			case <-ctx.Done():
				return
			}
		}
	}
}

// AwaitOther waits until this node knows a Raft leader that is not the dead one, for about as long as an election may last. A
// proposal made before might be sent to the dead leader, where something else may take its connections: its outcome would be
// unknown, and nobody would answer.
func (c *Cluster) AwaitOther(ctx context.Context, dead ident.NodeID) {
	ctx, cancel := context.WithTimeout(ctx, 2*c.timing.RaftElection)
	defer cancel()
	for c.leaderless(dead) {
		select {
		case <-time.After(electionLook):
		case <-ctx.Done():
			return
		case <-c.ctx.Done():
			return
		}
	}
}

// leaderless tells whether this node knows no leader but the dead one.
func (c *Cluster) leaderless(dead ident.NodeID) bool {
	if c.raft.State() == raft.Leader {
		return false
	}
	leader := c.Leader()
	return leader == "" || leader == dead
}
