package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
)

const joinRetry = 200 * time.Millisecond

// refusal is a reason for which a node must not start; trying again does not help.
type refusal struct{ err error }

func (r *refusal) Error() string { return r.err.Error() }
func (r *refusal) Unwrap() error { return r.err }

// origin says how the node came to its cluster.
type origin struct {
	cluster ident.ClusterID
	create  bool // this node founds it
}

// belong finds out what cluster this node belongs to and opens the Raft store. The order of the writes makes every crash
// harmless: the store exists before the directory is bound to the cluster, and Raft runs only after.
//
//	bound, store missing           the store was lost: refuse, its votes are forgotten
//	bound, store empty             a node that joined and crashed before it got its first entry: goes on
//	bound, store in use            the normal restart
//	not bound, store unused        a crash while joining or founding: start over
//	not bound, store in use        not this directory's store: refuse
func (c *Cluster) belong(ctx context.Context) (origin, error) {
	exists, err := c.o.Disk.Exists()
	if err != nil {
		return origin{}, fmt.Errorf("look for raft log: %w", err)
	}
	if id := c.o.Identity.ClusterID(); id != "" {
		if !exists {
			return origin{}, fmt.Errorf("raft log %s is missing although this data directory belongs to cluster %s: its votes are lost, so it must not vote again; "+
				"restore the raft directory, or start the node with an empty data directory under a new `node` id", c.o.Disk, id)
		}
		return origin{cluster: id}, c.openStore()
	}
	if exists {
		if err := c.clearUnused(); err != nil {
			return origin{}, err
		}
	}
	found, err := c.discover(ctx)
	if err != nil {
		return origin{}, err
	}
	if err := c.openStore(); err != nil {
		return origin{}, err
	}
	if found != "" {
		return origin{cluster: found}, c.o.Identity.SetClusterID(found)
	}
	found = ident.ClusterID(fmt.Sprintf("%016x%016x", c.o.Host.Random(), c.o.Host.Random()))
	return origin{cluster: found, create: true}, nil
}

func (c *Cluster) openStore() (err error) {
	c.store, err = openStore(c.o.Disk, c.timing.DiskHang, c.fatal, c.log.Named("snapshot"))
	return err
}

// clearUnused removes what an earlier start left before its directory was bound to a cluster.
func (c *Cluster) clearUnused() error {
	if err := c.openStore(); err != nil {
		return err
	}
	s := c.store
	c.store = nil
	unused, err := s.unused()
	if err := errors.Join(err, s.close()); err != nil {
		return fmt.Errorf("look into raft log: %w", err)
	}
	if !unused {
		return fmt.Errorf("%s holds a log, but this data directory belongs to no cluster: move the raft directory away, or restore identity.json beside it", c.o.Disk)
	}
	return c.o.Disk.Remove()
}

// discover asks the peers what cluster they belong to. A node that founds asks for a short time and returns "" when no
// peer knows a cluster; any other asks until ctx ends.
func (c *Cluster) discover(ctx context.Context) (ident.ClusterID, error) {
	peers := c.peers("")
	if c.o.Bootstrap {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.timing.Discover)
		defer cancel()
	}
	for {
		answers, failures := c.ask(ctx, peers)
		found, err := c.judge(answers)
		if err != nil || found != "" {
			return found, err
		}
		if c.o.Bootstrap && len(answers) == len(peers) {
			return "", nil
		}
		select {
		case <-time.After(joinRetry):
		case <-ctx.Done():
			if c.o.Bootstrap {
				for peer, err := range failures {
					c.log.Warn("founding a cluster although a peer did not answer", "peer", peer, "error", err)
				}
				return "", nil
			}
			return "", fmt.Errorf("no cluster found: %s: start a member, correct `join`, or set `bootstrap: true` on exactly one node of a new cluster: %w", tried(peers, failures), ctx.Err())
		}
	}
}

// ask asks all peers at once who they are.
func (c *Cluster) ask(ctx context.Context, peers []string) (map[string]info, map[string]error) {
	var mu sync.Mutex
	var wg sync.WaitGroup
	answers, failures := map[string]info{}, map[string]error{}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	for _, peer := range peers {
		wg.Go(func() {
			r, err := c.port.call(ctx, peer, c.question())
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err != nil:
				failures[peer] = err
			case r.Info == nil:
				failures[peer] = fmt.Errorf("%s: %s %s", peer, r.Code, r.Detail)
			default:
				answers[peer] = *r.Info
			}
		})
	}
	wg.Wait()
	return answers, failures
}

// judge decides from what the peers say: the id of the cluster to join, "" when they know none, or why this node must not
// start.
func (c *Cluster) judge(answers map[string]info) (ident.ClusterID, error) {
	var found ident.ClusterID
	var by string
	var others []info // of another protocol
	for peer, a := range answers {
		switch {
		case a.Directory == c.o.Directory:
			continue // this node's own address stands in `join`
		case a.Name != c.o.Name:
			return "", &refusal{fmt.Errorf("node %q at %s belongs to cluster %q, this one is configured for %q: correct `cluster` or `join`", a.Node, peer, a.Name, c.o.Name)}
		case a.Node == c.o.Node:
			return "", &refusal{fmt.Errorf("the node at %s is called %q, too: give each node its own `node` id", peer, a.Node)}
		case a.Cluster == "" && a.Bootstrap && c.o.Bootstrap:
			return "", &refusal{fmt.Errorf("`bootstrap: true` is set on this node and on %q at %s: set it on exactly one node of a new cluster", a.Node, peer)}
		case a.Cluster == "":
			continue
		case a.Protocol != c.o.Protocol:
			others = append(others, a)
			continue
		case found != "" && found != a.Cluster:
			return "", &refusal{fmt.Errorf("%s belongs to cluster %s, %s to %s, both named %q: `join` must name members of one cluster", by, found, peer, a.Cluster, a.Name)}
		}
		if have, ok := a.Nodes[c.o.Node]; ok && have != c.o.Directory {
			return "", &refusal{&DirectoryError{Node: c.o.Node, Registered: have, Have: c.o.Directory, Peer: peer}}
		}
		found, by = a.Cluster, peer
	}
	for _, a := range others {
		if a.Cluster != found { // else it was left running apart, and the others go on without it
			return "", &refusal{&ident.OtherProtocolError{Node: a.Node, Theirs: a.Protocol, Ours: c.o.Protocol}}
		}
	}
	if found != "" && c.o.Bootstrap {
		c.log.Warn("cluster exists already, joining it although bootstrap is set", "peer", by, "cluster", found)
	}
	return found, nil
}

// register makes this node known to the cluster and returns when its own state shows it.
func (c *Cluster) register(ctx context.Context) error {
	reg := c.registration()
	failures := map[string]error{}
	var tries []string
	hint := ""
	for {
		st, changed := c.board.read()
		if st.Name != "" && st.Name != c.o.Name {
			return fmt.Errorf("data directory belongs to cluster %q, the configuration says %q: correct `cluster` or `data`", st.Name, c.o.Name)
		}
		if n := st.Nodes[c.o.Node]; n != nil {
			if n.Directory != c.o.Directory {
				return &DirectoryError{Node: c.o.Node, Registered: n.Directory, Have: c.o.Directory, Peer: "its own copy of the state"}
			}
			if registered(n, reg) {
				return nil
			}
		}
		tries = c.peers(hint)
		next, err := c.join(ctx, tries, failures, reg)
		var r *refusal
		if errors.As(err, &r) {
			return r.err
		}
		hint = next
		select {
		case <-changed:
		case <-time.After(joinRetry):
		case <-c.ctx.Done():
			return ErrClosed
		case <-ctx.Done():
			return fmt.Errorf("node %q is not registered yet: %s: a majority of the nodes must be running: %w", c.o.Node, tried(tries, failures), ctx.Err())
		}
	}
}

// join asks this node, if it leads, or the peers in turn to register reg. It returns a better address to ask, if told one.
func (c *Cluster) join(ctx context.Context, peers []string, failures map[string]error, reg fsm.RegisterNode) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timing.Propose)
	defer cancel()
	ask := joinRequest{Name: c.o.Name, Node: reg}
	if c.raft.State() == raft.Leader {
		return "", c.answered("this node", c.admit(ctx, ask), failures)
	}
	for _, peer := range peers {
		r, err := c.port.call(ctx, peer, request{Join: &ask})
		if err != nil {
			failures[peer] = err
			continue
		}
		if r.Code == codeNotLeader {
			failures[peer] = errors.New(peer + ": knows no leader")
			if r.Leader != "" && r.Leader != peer && r.Leader != reg.Addresses.Raft {
				failures[peer] = errors.New(peer + ": leader is " + r.Leader)
				return r.Leader, nil
			}
			continue
		}
		if r.Code == codeProtocol {
			if err := c.otherProtocol(peer, r, failures); err != nil {
				return "", err
			}
			continue
		}
		if err := c.answered(peer, r, failures); err != nil || r.Code == codeOK {
			return peer, err
		}
	}
	return "", nil
}

// answered turns the answer to a join into a refusal, nil, or a noted failure.
func (c *Cluster) answered(peer string, r response, failures map[string]error) error {
	switch r.Code {
	case codeOK:
		delete(failures, peer)
		return nil
	case codeDirectory:
		return &refusal{&DirectoryError{Node: c.o.Node, Registered: ident.DirectoryID(r.Detail), Have: c.o.Directory, Peer: peer}}
	case codeCluster, codeName, codeRefused:
		return &refusal{fmt.Errorf("%s refuses this node: %s", peer, r.Detail)}
	}
	failures[peer] = fmt.Errorf("%s: %s %s", peer, r.Code, r.Detail)
	return nil
}

// registration is how this node wants to be known.
func (c *Cluster) registration() fsm.RegisterNode {
	return fsm.RegisterNode{ID: c.o.Node, Directory: c.o.Directory, Kind: c.o.Kind, Addresses: c.o.Addresses, Priority: c.o.Priority}
}

// peers lists addresses of other members, the hint first, then the leader Raft knows, the configured and the registered.
func (c *Cluster) peers(hint string) []string {
	var list []string
	add := func(addr string) {
		if addr != "" && addr != c.o.Addresses.Raft && !slices.Contains(list, addr) {
			list = append(list, addr)
		}
	}
	add(hint)
	add(c.leaderHint())
	for _, addr := range c.o.Join {
		add(addr)
	}
	st, _ := c.board.read()
	for _, n := range st.Nodes {
		if n.ID != c.o.Node {
			add(c.book.of(n))
		}
	}
	if c.ready.Load() != nil { // after a restart the configuration is known before the state is
		if f := c.raft.GetConfiguration(); f.Error() == nil {
			for _, s := range f.Configuration().Servers {
				if s.ID != raft.ServerID(c.o.Directory) {
					add(string(s.Address))
				}
			}
		}
	}
	return list
}

// tried names what was asked and what came of it.
func tried(peers []string, failures map[string]error) string {
	if len(peers) == 0 {
		return "there is no peer to ask"
	}
	var b strings.Builder
	b.WriteString("asked ")
	for i, p := range peers {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(p)
		if err := failures[p]; err != nil {
			fmt.Fprintf(&b, " (%v)", err)
		}
	}
	return b.String()
}
