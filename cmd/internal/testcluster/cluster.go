// Package testcluster runs several whole nodes in one test process, with their network and disks in the test's hand. The
// scenario and fault tests stand beside it.
package testcluster

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/go-hclog"

	"github.com/understudy-ha/understudy/client"
	"github.com/understudy-ha/understudy/cluster"
	"github.com/understudy-ha/understudy/cmd/internal/node"
	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/host"
	"github.com/understudy-ha/understudy/internal/ident"
)

// Options choose what a test's cluster looks like.
type Options struct {
	Nodes []ident.NodeID // default a, b, c; the first one bootstraps
	Group fsm.GroupSpec  // of group "default"; zero fields take the product's defaults

	Others []fsm.GroupSpec // further groups

	Later     []ident.NodeID // those of Nodes that are not started with the others: Node.Start makes them members
	Witnesses []ident.NodeID // those of Nodes that hold no data; not the first one
	Shrink    time.Duration  // a silent secondary holds writes up this long; 0: a second
	Watchdog  time.Duration  // of the data disks; 0: a minute, since these disks hang when a test wants it, and a busy machine looks like it
	Hooks     node.Hooks     // of all nodes
	Scrub     node.Scrub     // the check in the background; zero: the product's default
	Archive   node.Archive   // of all nodes
	Replays   node.Replays   // of all nodes; zero: the product's default
	KeepKeys  time.Duration  // how long idempotency keys are known; 0: the product's default

	Timing cluster.Timing // of leases, Raft and gossip; zero: unhurried

	LocalFiles bool // of all nodes
}

// Cluster is a running cluster of whole nodes.
type Cluster struct {
	t       testing.TB
	options Options
	network *network
	logs    *os.File

	mu    sync.Mutex
	nodes map[ident.NodeID]*Node
	join  []string // raft addresses of all nodes, fixed for the cluster's life
}

// Node is one node of a Cluster, running or not.
type Node struct {
	ID      ident.NodeID
	cluster *Cluster
	config  node.Config
	dir     string // of Raft, on the machine's disk
	fs      *vfs.MemFS
	disk    *disk

	protocol ident.Protocol // 0: this build's

	running *node.Node
	client  *client.Client
}

// unhurried is the timing of a cluster all of whose nodes share one busy machine with others: nobody loses a lease or a Raft leader, or is taken
// for dead, because a process waits for its turn. As with the product's timing, a new Raft leader is there before a lease has run out.
func unhurried() cluster.Timing {
	t := cluster.DefaultTiming()
	t.Lease, t.Renew = 2*t.Lease, 300*time.Millisecond
	t.RaftHeartbeat, t.RaftElection, t.RaftLeaderLease = 2*t.RaftHeartbeat, 2*t.RaftElection, 2*t.RaftLeaderLease
	t.Probe, t.Propose = 3*t.Probe, 2*t.Propose
	t.DiskHang = time.Minute // Raft's files are on the machine's own disk, which others keep busy too
	return t
}

// steady is the timing of a cluster in which nobody dies: no pause of the machine outlasts a lease, and only long ones cost Raft its leader, so
// that a single request of a test is answered.
func steady() cluster.Timing {
	t := unhurried()
	t.Lease = time.Minute
	t.RaftHeartbeat, t.RaftElection = 2*t.RaftHeartbeat, 2*t.RaftElection
	t.RaftLeaderLease = t.RaftHeartbeat
	return t
}

// Start runs a cluster and stops it with the test. It returns once the group is open with all the shadows it wants.
func Start(t testing.TB, o Options) *Cluster {
	t.Helper()
	if len(o.Nodes) == 0 {
		o.Nodes = []ident.NodeID{"a", "b", "c"}
	}
	if o.Group.Name == "" {
		o.Group.Name = "default"
	}
	if o.Timing == (cluster.Timing{}) {
		o.Timing = unhurried()
	}
	c := &Cluster{t: t, options: o, network: newNetwork(), nodes: map[ident.NodeID]*Node{}}
	root := t.TempDir()
	given := claimPorts(t)
	logs, err := os.Create(filepath.Join(root, "log"))
	if err != nil {
		t.Fatal(err)
	}
	c.logs = logs
	t.Cleanup(c.stop)
	for i, id := range o.Nodes {
		n := &Node{ID: id, cluster: c, dir: filepath.Join(root, string(id)), fs: vfs.NewCrashableMem(), disk: newDisk()}
		n.config = node.DefaultConfig()
		n.config.Node, n.config.Cluster, n.config.Data = id, "test", "/"+string(id)
		n.config.Bootstrap = i == 0
		if slices.Contains(o.Witnesses, id) {
			n.config.Kind = fsm.KindWitness
		}
		n.config.Listen = node.Addresses{HTTP: given.next(t), Gossip: given.next(t), Raft: given.next(t), Ship: given.next(t), Redis: given.next(t)}
		n.config.Timing.ShrinkAfter = cmp.Or(o.Shrink, time.Second)
		n.config.Timing.Watchdog = cmp.Or(o.Watchdog, time.Minute)
		n.config.Hooks, n.config.Archive = o.Hooks, o.Archive
		n.config.LocalFiles = o.LocalFiles
		if o.Scrub != (node.Scrub{}) {
			n.config.Scrub = o.Scrub
		}
		if o.Replays != (node.Replays{}) {
			n.config.Replays = o.Replays
		}
		if o.KeepKeys != 0 {
			n.config.IdempotencyKeep = o.KeepKeys
		}
		n.config.Groups = append([]fsm.GroupSpec{o.Group}, o.Others...)
		c.join = append(c.join, n.config.Listen.Raft)
		c.nodes[id] = n
	}
	for _, n := range c.nodes {
		n.config.Join = c.join
	}
	var starting sync.WaitGroup
	for _, id := range o.Nodes {
		if slices.Contains(o.Later, id) {
			continue
		}
		starting.Go(func() { c.nodes[id].open() })
	}
	starting.Wait()
	if t.Failed() {
		t.FailNow()
	}
	c.Wait("the group is open and in sync", 30*time.Second, func() error { return c.settled() })
	return c
}

// settled tells whether the group is open, has its shadows and every running node follows.
func (c *Cluster) settled() error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	for _, id := range c.options.Nodes {
		n := c.Node(id)
		if n.running == nil {
			continue
		}
		st, err := n.client.Status(ctx)
		if err != nil {
			return err
		}
		for _, x := range st.Nodes {
			if c.Node(ident.NodeID(x.ID)).running != nil && x.State != "alive" {
				return fmt.Errorf("node %s takes %s for %s", id, x.ID, x.State)
			}
		}
		g, ok := st.Group(string(c.options.Group.Name))
		want := max(1, c.options.Group.Secondaries)
		switch {
		case !ok:
			return errors.New("no group yet")
		case g.Phase != "opened" || g.Stale:
			return fmt.Errorf("node %s: group is %s, stale %v", id, g.Phase, g.Stale)
		case c.options.Group.Delivery != fsm.DeliveryAsync && len(g.InSync) < want:
			return fmt.Errorf("in sync: %v", g.InSync)
		}
		for _, t := range g.Targets {
			if c.Node(ident.NodeID(t.Node)).running != nil && (t.LagEntries != 0 || t.State == "connecting" || t.State == "none") {
				return fmt.Errorf("target %s: %+v", t.Node, t)
			}
		}
	}
	return nil
}

// Node returns a node by id.
func (c *Cluster) Node(id ident.NodeID) *Node { return c.nodes[id] }

// Cut separates two nodes in both directions, or joins them again.
func (c *Cluster) Cut(a, b ident.NodeID, cut bool) { c.network.setCut(a, b, cut) }

// Shipped returns how many bytes one node has written to another one's port for journals.
func (c *Cluster) Shipped(from, to ident.NodeID) int64 {
	return c.network.counter(route{from, c.nodes[to].config.Listen.Ship}).Load()
}

// busy is how many times as long as its limit a Wait goes on: other tests and other processes run at the same time.
const busy = 3

// Wait polls until condition returns nil, and fails the test after limit on a machine that does nothing else.
func (c *Cluster) Wait(what string, limit time.Duration, condition func() error) {
	c.t.Helper()
	limit *= busy
	deadline := time.Now().Add(limit)
	for {
		err := condition()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			c.t.Fatalf("waited %s until %s: %v\n%s", limit, what, err, c.tail())
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// tail returns the last lines of the nodes' log.
func (c *Cluster) tail() string {
	raw, err := os.ReadFile(c.logs.Name())
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(string(raw), "\n")
	return strings.Join(lines[max(0, len(lines)-120):], "\n")
}

func (c *Cluster) stop() {
	var closing sync.WaitGroup
	for _, n := range c.nodes {
		closing.Go(func() { n.Stop() })
	}
	closing.Wait()
	if c.t.Failed() {
		c.t.Log(c.tail())
	}
	if err := c.logs.Close(); err != nil {
		c.t.Error(err)
	}
}

func (n *Node) open() {
	if err := n.try(); err != nil {
		n.cluster.t.Errorf("start node %s: %v", n.ID, err)
	}
}

// try starts the node, and returns why it does not start.
func (n *Node) try() error {
	h := host.Real()
	h.Network = view{network: n.cluster.network, self: n.ID}
	h.Failpoint = n.disk.failpoint
	log := hclog.New(&hclog.LoggerOptions{Name: string(n.ID), Output: n.cluster.logs, Level: hclog.Debug})
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	running, err := node.Open(ctx, node.Options{Config: n.config, FS: stallFS{n.fs, n.disk}, RaftDir: n.dir, Host: h, Timing: n.cluster.options.Timing, Logger: log, Protocol: n.protocol})
	if err != nil {
		return err
	}
	n.running = running
	n.client = client.NewWith(client.Options{Addresses: []string{running.HTTP()}, Retry: -1})
	return nil
}

// Start runs the node again after Crash or Stop.
func (n *Node) Start() {
	n.cluster.t.Helper()
	for id := range n.cluster.nodes {
		if id != n.ID && n.cluster.nodes[id].running != nil {
			n.cluster.Cut(n.ID, id, false)
		}
	}
	n.open()
	if n.cluster.t.Failed() {
		n.cluster.t.FailNow()
	}
}

// Stop ends the node in good order.
func (n *Node) Stop() {
	n.disk.release()
	if n.running == nil {
		return
	}
	n.client.Close()
	if err := n.running.Close(); err != nil {
		n.cluster.t.Errorf("stop node %s: %v", n.ID, err)
	}
	n.running = nil
}

// Crash is the sudden death of the machine: the node is cut off, and its data disk keeps what was synced and nothing else.
func (n *Node) Crash() {
	for id := range n.cluster.nodes {
		if id != n.ID {
			n.cluster.Cut(n.ID, id, true)
		}
	}
	survived := n.fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 0})
	n.disk.release()
	n.client.Close()
	if err := n.running.Close(); err != nil {
		n.cluster.t.Logf("the crashed node %s closed with: %v", n.ID, err) // nobody can tell it to be tidy
	}
	n.running, n.fs, n.disk = nil, survived, newDisk()
}

// Client speaks to this node only.
func (n *Node) Client() *client.Client { return n.client }

// Waiting tells how many writes wait in the queue of the group at this node.
func (n *Node) Waiting() int {
	g, err := n.client.Group(n.cluster.t.Context(), string(n.cluster.options.Group.Name))
	if err != nil {
		return -1
	}
	return g.Held
}

// Disk is the node's data disk.
func (n *Node) Disk() *disk { return n.disk }

// disk holds a node at its failpoints: a disk that hangs, or a moment the test needs to last.
type disk struct {
	mu      sync.Mutex
	held    map[string]*hold
	stalled chan struct{} // closed when the disk goes on; nil: it is not stalled
}

// hold is one failpoint at which the node waits.
type hold struct {
	done    chan struct{} // closed when the node goes on
	fails   bool          // the operation fails then
	reached bool          // the node stands here, or did
}

func newDisk() *disk { return &disk{held: map[string]*hold{}} }

// Hang holds the node at a failpoint until it is stopped or crashes; the operation then fails.
func (d *disk) Hang(name string) { d.hold(name, true) }

// Pause holds the node at a failpoint until Resume.
func (d *disk) Pause(name string) { d.hold(name, false) }

func (d *disk) hold(name string, fails bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.held[name] = &hold{done: make(chan struct{}), fails: fails}
}

// Resume ends a Pause.
func (d *disk) Resume(name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if h := d.held[name]; h != nil {
		close(h.done)
		delete(d.held, name)
	}
}

// waits tells whether the node has come to a failpoint that holds it.
func (d *disk) waits(name string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.held[name] != nil && d.held[name].reached
}

func (d *disk) failpoint(name string) error {
	d.mu.Lock()
	h := d.held[name]
	if h != nil {
		h.reached = true
	}
	d.mu.Unlock()
	if h == nil {
		return nil
	}
	<-h.done
	if h.fails {
		return errors.New("the test's disk never came back")
	}
	return nil
}

func (d *disk) release() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.stalled != nil {
		close(d.stalled)
		d.stalled = nil
	}
	for name, h := range d.held {
		close(h.done)
		delete(d.held, name)
	}
}
