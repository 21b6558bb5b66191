package cluster

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
)

// serve answers one control request. A foreign one comes from a node that belongs to no cluster yet.
func (c *Cluster) serve(ctx context.Context, foreign bool, r request) response {
	switch {
	case r.Info != nil:
		return response{Code: codeOK, Info: c.info(), Leader: c.leaderHint()}
	case c.ready.Load() == nil:
		return response{Code: codeBusy, Detail: "this node belongs to no cluster yet"}
	case foreign:
		return response{Code: codeInvalid, Detail: "only a node that knows the cluster's id may ask this"}
	case r.Propose != nil:
		return c.serveProposal(ctx, *r.Propose)
	case r.Join != nil:
		return c.admit(ctx, *r.Join)
	}
	return response{Code: codeInvalid, Detail: "empty request"}
}

// info says who this node is. The port is served before the node belongs to a cluster, so that others can ask.
func (c *Cluster) info() *info {
	i := &info{
		Node: c.o.Node, Directory: c.o.Directory, Name: c.o.Name, Bootstrap: c.o.Bootstrap,
		Cluster: c.clusterID(), Protocol: c.o.Protocol, Nodes: map[ident.NodeID]ident.DirectoryID{},
	}
	st, _ := c.board.read()
	for id, n := range st.Nodes {
		i.Nodes[id] = n.Directory
	}
	return i
}

func (c *Cluster) leaderHint() string {
	if c.ready.Load() == nil {
		return ""
	}
	return c.leaderAddress()
}

func (c *Cluster) notLeader() response {
	return response{Code: codeNotLeader, Leader: c.leaderAddress()}
}

func (c *Cluster) serveProposal(ctx context.Context, cmd fsm.Command) response {
	if c.raft.State() != raft.Leader {
		return c.notLeader()
	}
	if cmd.ID == 0 || cmd.Version == 0 {
		return response{Code: codeInvalid, Detail: "command without id or version"}
	}
	a := c.apply(ctx, cmd)
	switch a.verdict {
	case verdictApplied:
		return response{Code: codeOK, Result: &a.outcome.result, Applied: a.outcome.applied}
	case verdictUnknown:
		return response{Code: codeUnknown, Detail: a.err.Error()}
	}
	return response{Code: codeBusy, Detail: a.err.Error(), Leader: c.leaderAddress()}
}

// admit registers a node and lets it vote. Registration comes first: it binds the id to the data directory, and only a
// registered directory gets a vote.
func (c *Cluster) admit(ctx context.Context, j joinRequest) response {
	if j.Name != c.o.Name {
		return response{Code: codeName, Detail: fmt.Sprintf("this is cluster %q, not %q: correct `cluster` or `join` in the configuration", c.o.Name, j.Name)}
	}
	if err := j.Node.ID.Reserved(); err != nil {
		return response{Code: codeRefused, Detail: "node: " + err.Error()}
	}
	if c.raft.State() != raft.Leader {
		if j.Node.Directory != c.o.Directory && c.reachable(ctx, j.Node) == nil {
			c.book.note(j.Node)
		}
		return c.notLeader()
	}
	select { // one change of the Raft configuration at a time
	case c.admission <- struct{}{}:
		defer func() { <-c.admission }()
	case <-ctx.Done():
		return response{Code: codeBusy, Detail: "other nodes are being admitted", Leader: c.leaderAddress()}
	}
	if err := c.raft.Barrier(settle).Error(); err != nil {
		return response{Code: codeBusy, Detail: err.Error(), Leader: c.leaderAddress()}
	}
	st, _ := c.board.read()
	if st.Cluster == "" {
		return response{Code: codeBusy, Detail: "the cluster is being founded"}
	}
	reg := j.Node
	have := st.Nodes[reg.ID]
	if have != nil && have.Directory != reg.Directory {
		return response{Code: codeDirectory, Detail: string(have.Directory)}
	}
	if other := c.book.node(reg.Directory); other != nil && other.ID != reg.ID {
		return response{Code: codeRefused, Detail: fmt.Sprintf("data directory %s is registered as node %q: correct `node` or `data` in the configuration", reg.Directory, other.ID)}
	}
	if reg.ID != c.o.Node {
		if err := c.reachable(ctx, reg); err != nil {
			return response{Code: codeBusy, Detail: err.Error()}
		}
	}
	if have == nil || !registered(have, reg) {
		a := c.apply(ctx, fsm.Command{Version: fsm.CommandVersion, ID: c.o.Host.Random(), At: c.o.Host.Clock.Now().UTC(), RegisterNode: &reg})
		switch {
		case a.verdict == verdictUnknown:
			return response{Code: codeUnknown, Detail: a.err.Error()}
		case a.verdict == verdictNotTaken:
			return response{Code: codeBusy, Detail: a.err.Error(), Leader: c.leaderAddress()}
		case a.outcome.result.Refused == fsm.RefusedDirectory:
			return response{Code: codeDirectory, Detail: a.outcome.result.Detail}
		case a.outcome.result.Refused != "":
			return response{Code: codeRefused, Detail: a.outcome.result.Refused + " " + a.outcome.result.Detail}
		}
	}
	if err := c.addVoter(reg); err != nil {
		return response{Code: codeBusy, Detail: "add as voter: " + err.Error(), Leader: c.leaderAddress()}
	}
	return response{Code: codeOK}
}

// reachable asks the node at its advertised address who it is. A voter that cannot be reached would count towards the
// quorum without ever helping to make one.
func (c *Cluster) reachable(ctx context.Context, reg fsm.RegisterNode) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	r, err := c.port.call(ctx, reg.Addresses.Raft, c.question())
	if err != nil {
		return fmt.Errorf("node %q cannot be reached at its advertised raft address: %w", reg.ID, err)
	}
	if r.Info == nil || r.Info.Node != reg.ID || r.Info.Directory != reg.Directory {
		return fmt.Errorf("another node answers at the advertised raft address %s of node %q", reg.Addresses.Raft, reg.ID)
	}
	return nil
}

// addVoter makes the node a voter at its present address. The change is compare-and-set on the configuration's index.
func (c *Cluster) addVoter(reg fsm.RegisterNode) error {
	f := c.raft.GetConfiguration()
	if err := f.Error(); err != nil {
		return err
	}
	id, addr := raft.ServerID(reg.Directory), raft.ServerAddress(reg.Addresses.Raft)
	for _, s := range f.Configuration().Servers {
		if s.ID == id && s.Address == addr && s.Suffrage == raft.Voter {
			return nil
		}
		if s.ID != id && s.Address == addr {
			return fmt.Errorf("raft address %s belongs to node with directory %s already", addr, s.ID)
		}
	}
	return c.raft.AddVoter(id, addr, f.Index(), c.timing.Propose).Error()
}

// registered tells whether the state shows the registration as asked for.
func registered(n *fsm.Node, reg fsm.RegisterNode) bool {
	return n.Directory == reg.Directory && n.Kind == reg.Kind && n.Addresses == reg.Addresses && n.Priority == reg.Priority
}

var errNotRegistered = errors.New("not registered yet")
