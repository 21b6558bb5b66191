package cluster

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
)

// Cluster is this node's part of the control plane. All methods may be called from any goroutine.
type Cluster struct {
	o      Options
	timing Timing
	log    hclog.Logger

	// Opened in this order, closed in reverse.
	gossip *gossip
	port   *port
	store  *store
	raft   *raft.Raft
	trans  *heartbeats // of raft, which closes it

	board   *board
	book    *addressBook
	doorman *doorman
	leases  *leases
	ready   atomic.Pointer[raft.Raft] // set when Raft runs, for the requests of others
	hurry   chan struct{}             // buffered by one: renew now

	admission chan struct{} // one token: who took it admits a node. No mutex: it is held over the network, and waiting for it can end
	fatalOnce sync.Once

	ctx     context.Context // ends with Close
	cancel  context.CancelFunc
	renewal context.CancelFunc // ends the renewals, before the rest
	work    sync.WaitGroup
	spawned sync.Mutex // orders spawn and the end of ctx
	closing sync.Once
	closed  error
}

// Open starts Raft and gossip, joins or founds the cluster, and returns once this node is registered and its own state
// shows it. When ctx ends before, the error tells which peers were asked and what they said. Open closes the listener if
// it fails.
func Open(ctx context.Context, o Options) (*Cluster, error) {
	c := &Cluster{
		o: o, timing: o.Timing.withDefaults(), log: o.Logger,
		board: newBoard(new(fsm.State)), hurry: make(chan struct{}, 1), admission: make(chan struct{}, 1),
	}
	if c.o.Disk == nil {
		c.o.Disk = Directory(c.o.Dir)
	}
	if c.o.Gossip == nil {
		c.o.Gossip = BindGossip
	}
	c.book = &addressBook{board: c.board, self: o.Directory, own: o.Addresses.Raft, moved: map[ident.DirectoryID]move{}}
	c.doorman = newDoorman(o)
	c.leases = newLeases(o.Node, o.Incarnation, o.Host, c.timing)
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.renewal = func() {}
	if err := c.open(ctx); err != nil {
		if cerr := c.Abandon(); cerr != nil {
			c.log.Warn("close after failed start", "error", cerr)
		}
		return nil, err
	}
	return c, nil
}

func (c *Cluster) open(ctx context.Context) (err error) {
	c.port = &port{
		listener: c.o.RaftListener, network: c.o.Host.Network, address: advertised(c.o.Addresses.Raft),
		log: c.log.Named("port"), cluster: c.clusterID, control: c.serve, protocol: c.o.Protocol, doorman: c.doorman,
	}
	c.port.start()
	if c.gossip, err = bindGossip(c.o); err != nil {
		return err
	}
	c.gossip.doorman = c.doorman
	if host, p, err := net.SplitHostPort(c.o.Addresses.Gossip); err == nil && p == "0" {
		c.o.Addresses.Gossip = net.JoinHostPort(host, strconv.Itoa(c.gossip.port()))
	}
	from, err := c.belong(ctx)
	if err != nil {
		return err
	}
	if err := c.startRaft(from); err != nil {
		return err
	}
	founds := from.create
	if !founds {
		if founds, err = c.alone(); err != nil {
			return err
		}
	}
	if founds {
		err = c.found(ctx)
	}
	if err == nil {
		err = c.register(ctx)
	}
	if err != nil {
		return err
	}
	if err := c.gossip.start(c.ctx, c.clusterID(), c.o.Addresses.Gossip, c.timing, c.gossipAddresses); err != nil {
		return err
	}
	renewing, stop := context.WithCancel(c.ctx)
	c.renewal = stop
	c.spawn(func() { c.renew(renewing) })
	c.spawn(c.inquire)
	if founds {
		return c.createGroups(ctx)
	}
	return nil
}

// startRaft runs Raft on the open store.
func (c *Cluster) startRaft(from origin) error {
	t := c.timing
	notices := make(chan bool, 16) // lead drains it; Raft would block otherwise
	conf := raft.DefaultConfig()
	conf.LocalID = raft.ServerID(c.o.Directory)
	conf.HeartbeatTimeout, conf.ElectionTimeout, conf.LeaderLeaseTimeout = t.RaftHeartbeat, t.RaftElection, t.RaftLeaderLease
	conf.CommitTimeout = t.RaftCommit
	conf.SnapshotThreshold, conf.SnapshotInterval, conf.TrailingLogs = 2048, 30*time.Second, 10240
	conf.ShutdownOnRemove = false
	conf.NoLegacyTelemetry = true
	conf.Logger = newQuiet(c.log.Named("raft"), c.stopping)
	conf.NotifyCh = notices
	trans := &heartbeats{NetworkTransport: raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream: streams{c.port}, MaxPool: 3, Timeout: 2 * time.Second,
		MaxRPCsInFlight:       1, // no pipeline: a follower's slow disk wedges it
		ServerAddressProvider: c.book, Logger: newQuiet(c.log.Named("transport"), c.stopping), MsgpackUseNewTimeFormat: true,
	})}
	c.trans = trans
	fail := func(err error) error { return errors.Join(err, trans.Close()) }
	if from.create {
		if err := c.bootstrap(conf, trans, from.cluster); err != nil {
			return fail(err)
		}
	}
	machine := &fsm.Machine{Observe: c.observe, Restored: c.restored, Logger: c.log.Named("fsm")}
	r, err := raft.NewRaft(conf, machine, c.store.log, c.store.stable(), c.store.snaps, trans)
	if err != nil {
		return fail(fmt.Errorf("start raft: %w", err))
	}
	c.raft = r
	c.ready.Store(r)
	c.spawn(func() { c.lead(notices) })
	return nil
}

// stopping tells whether Close has begun to end things.
func (c *Cluster) stopping() bool { return c.ctx.Err() != nil }

// spawn runs f under the cluster's care. After Close has begun it is not run, and spawn returns false.
func (c *Cluster) spawn(f func()) bool {
	c.spawned.Lock()
	defer c.spawned.Unlock()
	if c.ctx.Err() != nil {
		return false
	}
	c.work.Go(f)
	return true
}

// fatal reports, once, that this node cannot go on.
func (c *Cluster) fatal(err error) {
	c.fatalOnce.Do(func() {
		c.log.Error("control plane cannot go on", "error", err)
		if c.o.OnFatal != nil {
			c.o.OnFatal(err)
		}
	})
}

// clusterID returns the id of the cluster this node belongs to; "" while there is none. A founder tells nobody the new id
// before its directory is bound to it: a crash in between must not leave joiners of a cluster that nobody founds.
func (c *Cluster) clusterID() ident.ClusterID { return c.o.Identity.ClusterID() }

func (c *Cluster) gossipAddresses() map[ident.NodeID]string {
	st, _ := c.board.read()
	out := make(map[ident.NodeID]string, len(st.Nodes))
	for id, n := range st.Nodes {
		out[id] = n.Addresses.Gossip
	}
	return out
}

// ID returns the id of the cluster.
func (c *Cluster) ID() ident.ClusterID { return c.clusterID() }

// Addresses returns the node's advertised addresses, with the gossip port that was bound.
func (c *Cluster) Addresses() fsm.Addresses { return c.o.Addresses }

// State returns an immutable snapshot of what is applied here, and a channel that is closed at the next change. On a
// node that is cut off it is old; commands are compare-and-set for that reason.
func (c *Cluster) State() (*fsm.State, <-chan struct{}) { return c.board.read() }

// Assignment returns what this node sees of a group; false when there is no such group.
func (c *Cluster) Assignment(g ident.GroupName) (fsm.Assignment, bool) {
	st, _ := c.board.read()
	return st.Assign(g, c.o.Node, c.o.Incarnation)
}

// CheckLease returns nil only if this life's lease covers g at e at the instant of the call, by CLOCK_BOOTTIME; else
// ErrNoLease. Call it after the work and before the reply.
func (c *Cluster) CheckLease(g ident.GroupName, e ident.Epoch) error { return c.leases.check(g, e) }

// Yield makes CheckLease fail for g at e, before a Handover is proposed that may be applied elsewhere first, or lets it answer by
// the clock again after an abort. The lease goes on all the same.
func (c *Cluster) Yield(g ident.GroupName, e ident.Epoch, yes bool) { c.leases.yield(g, e, yes) }

// Withhold makes CheckLease fail for g at e, before this node says that the group is empty: once it is deleted others may own its
// records. It is taken back when the group stays. The lease goes on all the same.
func (c *Cluster) Withhold(g ident.GroupName, e ident.Epoch, yes bool) { c.leases.withhold(g, e, yes) }

// CoverEnded tells whether, by this node's own count, no lease can cover the primary of g any more; else for about how
// long one may. The channel is closed when a cover ends before its time. A later call may find a cover again, since a new
// primary renews.
func (c *Cluster) CoverEnded(g ident.GroupName) (bool, time.Duration, <-chan struct{}) {
	return c.leases.coverEnded(g)
}

// LeaseRemaining returns how long the newest committed renewal of this life lasts; 0 when it has run out.
func (c *Cluster) LeaseRemaining() time.Duration { return c.leases.remaining() }

// Leader returns the node that Raft believes to lead, "" when it knows none. It says nothing about any group's primary.
func (c *Cluster) Leader() ident.NodeID {
	_, id := c.raft.LeaderWithID()
	if n := c.book.node(ident.DirectoryID(id)); n != nil {
		return n.ID
	}
	return ""
}

// Members returns the registered nodes by id, as gossip sees them.
func (c *Cluster) Members() []Member {
	st, _ := c.board.read()
	out := make([]Member, 0, len(st.Nodes))
	for _, id := range slices.Sorted(maps.Keys(st.Nodes)) {
		m := Member{Node: id, State: MemberAlive}
		if id != c.o.Node {
			seen := c.gossip.state(id)
			m.State, m.LastContact = seen.state, seen.last
			switch {
			case seen.state == MemberDead && st.Nodes[id].Released:
				m.State = MemberLeft
			case seen.state == MemberAlive && seen.directory != st.Nodes[id].Directory:
				m.State = MemberUnknown // another process uses the name
			}
		}
		out = append(out, m)
	}
	return out
}

// Alive tells whether gossip reaches the node and it is the registered one, or its lease was renewed since gossip lost it: a
// node that returns renews before gossip has found it again. A hint, never a reason to act.
func (c *Cluster) Alive(n ident.NodeID) bool {
	if n == c.o.Node {
		return true
	}
	st, _ := c.board.read()
	node := st.Nodes[n]
	seen := c.gossip.state(n)
	if node == nil || node.Released {
		return false
	}
	if seen.state == MemberAlive {
		return seen.directory == node.Directory
	}
	return !c.doorman.keepsOut(n) && c.leases.renewedSince(n, seen.lost)
}

// RaftStats returns Raft's own figures, for people.
func (c *Cluster) RaftStats() map[string]string { return c.raft.Stats() }

// LeaseHeld tells whether the lease of n may still last by this node's count. It is for showing; CheckLease and CoverEnded
// decide.
func (c *Cluster) LeaseHeld(n ident.NodeID) bool { return c.leases.mayHold(n) }
