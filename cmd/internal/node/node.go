// Package node is the composition root: it opens the parts of one node in order, holds a role session for every group,
// and closes everything in reverse. The server command, the development cluster and the tests all run nodes through it.
package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/understudy-ha/understudy/api"
	"github.com/understudy-ha/understudy/cluster"
	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/host"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/internal/watchdog"
	"github.com/understudy-ha/understudy/journal/remote"
	"github.com/understudy-ha/understudy/replica/store"
)

// Options are what a node needs beside its configuration. Tests put their own file system and host in.
type Options struct {
	Config  Config
	FS      vfs.FS // of journals and store; nil: the machine's
	RaftDir string // on the machine's file system; "": <data>/raft
	Host    host.Host
	Timing  cluster.Timing // zero fields: the defaults, lease and renewal from the configuration
	Logger  hclog.Logger

	Protocol      ident.Protocol       // what it speaks with other nodes; 0: ident.CurrentProtocol
	Raft          cluster.Disk         // nil: files in RaftDir
	Gossip        cluster.GossipBinder // nil: TCP and UDP
	MemTableBytes int64                // 0: the store's default
}

// Node is one running node.
type Node struct {
	config    Config
	protocol  ident.Protocol
	host      host.Host
	log       hclog.Logger
	started   time.Time
	directory *directory
	listeners listeners
	cluster   *cluster.Cluster
	store     *store.Store // nil on a witness
	replicas  *replicas
	events    *events
	archiver  *archiver // nil: nothing is archived
	resyncs   *resyncs
	peers     *peers
	leases    *leaseAges
	hearsay   *hearsay
	registry  *prometheus.Registry
	timings   *timings
	scrub     *scrubber
	chains    *chains
	damages   damages
	counts    recordCounts
	mendNow   chan struct{} // an operator asks for a repair of what is closed

	selections selections

	cancel context.CancelCauseFunc
	work   sync.WaitGroup
	failed chan error // the first fatal error
	hang   hang
	local  *local // files that no group selects
	close  func() error
}

// listeners are bound before anything else starts, so that a port in use is the first thing an operator hears of.
type listeners struct{ http, raft, ship, redis net.Listener } // redis: nil when there is none

// PreconditionError is a reason for which a node did not start; nothing was changed.
type PreconditionError struct{ Err error }

func (e *PreconditionError) Error() string { return e.Err.Error() }

// Unwrap returns the reason.
func (e *PreconditionError) Unwrap() error { return e.Err }

// openTimeout bounds how long a node looks for its cluster before it gives up with an error.
const openTimeout = 60 * time.Second

// Run runs one node until ctx ends. It hands its primary roles over first and leaves the in-sync sets, for at most Config.Timing.HandOver, unless the
// cause of ctx is ErrStay; then it stops. It returns nil after a clean stop. <data>/pid says which process it is; a clean
// stop removes it.
func Run(ctx context.Context, c Config, log hclog.Logger) error {
	h, err := machine()
	if err != nil {
		return err
	}
	h.Network = host.RealNetwork(lostAfter(c.Timing.Lease))
	n, err := Open(ctx, Options{Config: c, Host: h, Logger: log})
	if err != nil {
		return err
	}
	pid := filepath.Join(c.Data, "pid")
	if err := os.WriteFile(pid, []byte(strconv.Itoa(os.Getpid())+"\n"), 0o644); err != nil {
		log.Warn("no pid file", "error", err)
	}
	select {
	case <-ctx.Done():
		log.Info("stopping", "cause", context.Cause(ctx))
		if c.Timing.HandOver > 0 && !errors.Is(context.Cause(ctx), ErrStay) {
			within, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.Timing.HandOver)
			n.Leave(within)
			cancel()
		}
		err := n.Close()
		if errors.Is(err, errLeftBehind) {
			return &GaveUpError{err} // the pid file may lie on what hangs
		}
		if rerr := os.Remove(pid); rerr != nil {
			log.Debug("pid file stays", "error", rerr)
		}
		return err
	case err := <-n.failed:
		log.Error("node gives up", "error", err)
		return &GaveUpError{errors.Join(err, n.Close())}
	}
}

// Open starts a node and returns once it is a registered member of its cluster and answers HTTP.
//
// The order is that of need: the ports first, so that a start that fails for them leaves nothing behind; then the locked
// directory, so that nobody else writes there; the store; the control plane, which knows the groups; their replicas, which recover their journals (IPL); last the ways in. Close goes
// back in reverse.
func Open(ctx context.Context, o Options) (_ *Node, err error) {
	c := o.Config
	if o.FS == nil {
		o.FS = vfs.Default
	}
	if o.RaftDir == "" {
		o.RaftDir = o.FS.PathJoin(c.Data, "raft")
	}
	protocol := cmp.Or(o.Protocol, ident.CurrentProtocol)
	log := o.Logger.With("node", string(c.Node))
	run, cancel := context.WithCancelCause(context.Background())
	n := &Node{config: c, protocol: protocol, host: o.Host, log: log, started: o.Host.Clock.Now(), cancel: cancel, failed: make(chan error, 1),
		registry: prometheus.NewRegistry(), events: newEvents(log.Named("event"), string(c.Node), o.Host.Clock.Now)}
	n.resyncs = newResyncs(o.Host.Clock.Now)
	n.peers = newPeers(o.Host.Network, protocol)
	n.leases = newLeaseAges(o.Host.Clock.Boot)
	n.hearsay = newHearsay(n.ask)
	n.timings = newTimings(c.Node)
	n.mendNow = make(chan struct{}, 1)
	n.chains = newChains(n)
	n.scrub = newScrubber(n)
	n.local = newLocal(n)
	n.hang.seen = make(chan struct{})
	var undo closers
	n.close = sync.OnceValue(func() error {
		cancel(errors.New("node closes"))
		return n.hang.join("closing the node", closeLimit, hungClose, undo.close)
	})
	defer func() {
		if err != nil {
			err = errors.Join(err, n.close())
		}
	}()

	if err := n.bind(&undo); err != nil {
		return nil, err
	}
	dog := watchdog.New("data disk", c.Timing.Watchdog, n.fail)
	undo.add(dog.Close)
	o.FS = dog.FS(o.FS)
	if n.directory, err = openDirectoryFor(protocol, o.FS, c.Data, c.Node, c.Cluster, c.Moved, o.Host); err != nil {
		return nil, err
	}
	undo.add(n.directory.Close)
	if n.directory.from != "" {
		log.Warn("the data directory counts as moved here, as the operator said", "data", c.Data, "because", n.directory.from)
	}
	advertise := n.advertised()
	if err := n.survey(ctx, advertise, log); err != nil {
		return nil, err
	}
	kept, err := n.events.keep(o.FS, n.directory.file("events"))
	if err != nil {
		return nil, err
	}
	undo.add(kept.close)
	n.warnOfFileSystem(c.Data)
	undo.add(runHooks(n.events, c.Hooks, log.Named("hook")).close)

	if c.Kind == fsm.KindData {
		n.store, err = store.Open(store.Options{FS: o.FS, Dir: n.directory.file("store"), Logger: log.Named("store"), OnFatal: n.fail, MemTableBytes: o.MemTableBytes})
		if err != nil {
			return nil, fmt.Errorf("open the store: %w", err)
		}
		undo.add(n.closeStore)
	}
	if err := n.openArchive(ctx, &undo); err != nil {
		return nil, err
	}
	n.replicas = newReplicas(n, o.FS)
	undo.add(n.replicas.close)

	timing := o.Timing
	if timing.Lease == 0 {
		timing.Lease, timing.Renew = c.Timing.Lease, c.Timing.Renew
	}
	if timing.DiskHang == 0 {
		timing.DiskHang = c.Timing.Watchdog
	}
	joining, stop := context.WithTimeout(ctx, openTimeout)
	defer stop()
	n.cluster, err = cluster.Open(joining, cluster.Options{
		Node: c.Node, Directory: n.directory.id.Directory, Kind: c.Kind, Priority: c.Priority, Name: c.Cluster, Identity: n.directory,
		Addresses: advertise, RaftListener: n.listeners.raft, GossipBind: c.Listen.Gossip, Bootstrap: c.Bootstrap, Join: c.Join,
		Groups: c.Groups, Dir: o.RaftDir, Disk: o.Raft, Gossip: o.Gossip, Incarnation: n.directory.life, Host: o.Host, Logger: log.Named("cluster"), Timing: timing,
		Flushed: n.replicas.flushed, Copies: n.replicas.copies, OnFatal: n.fail, Protocol: protocol, OnOther: n.keptOut,
	})
	if err != nil {
		var other *ident.OtherProtocolError
		if n.directory.ClusterID() == "" || errors.As(err, &other) { // nothing was written that binds anybody
			err = &PreconditionError{err}
		}
		return nil, err
	}
	undo.add(n.cluster.Close)
	undo.add(n.local.close)
	undo.add(n.peers.close)
	undo.add(func() error {
		return n.hang.join("a role session", unlimited, hungSessions, func() error { n.work.Wait(); return nil })
	})
	undo.add(func() error { cancel(errors.New("node closes")); return nil })

	n.local.open(o.FS)
	n.spawn(func() error { return n.local.run(run) })
	n.spawn(func() error { return n.replicas.run(run) })
	n.spawn(func() error { return n.watch(run) })
	n.spawn(func() error { return n.answerPlans(run) })
	n.spawn(func() error { return n.answerClosings(run) })
	if c.Kind == fsm.KindData {
		n.spawn(func() error { return n.scrub.run(run) })
		n.spawn(func() error { return n.scrub.attend(run) })
		n.spawn(func() error { return n.chains.run(run) })
		n.registry.MustRegister(n.scrub)
	}
	if n.archiver != nil {
		n.spawn(func() error { return n.archiver.run(run) })
	}
	n.spawn(func() error {
		return remote.Serve(run, n.listeners.ship, n.replicas, remote.ServeOptions{
			Cluster: n.directory.ClusterID(), Self: c.Node, Protocol: protocol, Logger: log.Named("ship")})
	})
	n.local.await(localPatience)
	if n.local.on() {
		n.registry.MustRegister(newLocalMetrics(n))
	}
	n.timings.register(n.registry)
	n.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), newMetrics(n))
	if n.archiver != nil {
		n.registry.MustRegister(newArchiveMetrics(n))
	}
	interfaces := api.New(api.Options{
		Node: string(c.Node), Protocol: protocol, Data: data{n}, Roles: roles{n}, Journals: journals{n}, Network: o.Host.Network,
		Changed:  func() <-chan struct{} { _, changed := n.cluster.State(); return changed },
		Gatherer: n.registry, Registerer: n.registry, Logger: log.Named("api"), Now: o.Host.Clock.Now,
	})
	n.spawn(func() error { return interfaces.Serve(run, n.listeners.http) })
	if n.listeners.redis != nil {
		n.spawn(func() error { return n.redisServer().Serve(run, n.listeners.redis) })
	}
	log.Info("node is up", "http", advertise.HTTP, "redis", advertise.Redis, "cluster", n.cluster.ID(), "life", n.directory.life)
	return n, nil
}

// Close stops the node and joins everything it started, but for what hangs; it returns within closeLimit in any case, with an
// error when something was left behind. It is idempotent.
func (n *Node) Close() error { return n.close() }

// Failed yields the error for which the node cannot go on; the owner must Close it then.
func (n *Node) Failed() <-chan error { return n.failed }

// Redis returns the address the node answers Redis clients on; "" when it does not.
func (n *Node) Redis() string {
	if n.listeners.redis == nil {
		return ""
	}
	return n.listeners.redis.Addr().String()
}

// HTTP returns the address the node answers HTTP on.
func (n *Node) HTTP() string { return n.listeners.http.Addr().String() }

func (n *Node) fail(err error) {
	var later *cluster.LifeOverError
	if errors.As(err, &later) {
		err = errors.Join(err, n.directory.follow(later.Latest))
	}
	n.hang.note(err)
	select {
	case n.failed <- err:
	default: // only the first counts
	}
}

// spawn runs f as part of the node; an error of f is fatal.
func (n *Node) spawn(f func() error) {
	n.work.Go(func() {
		if err := f(); err != nil {
			n.fail(err)
		}
	})
}

// flushTimeout bounds the flush of a clean stop. Without it the journals bring the store forward at the next start.
const flushTimeout = 10 * time.Second

func (n *Node) closeStore() error {
	ctx, cancel := context.WithTimeout(context.Background(), flushTimeout)
	defer cancel()
	if err := n.store.Flush(ctx); err != nil {
		n.log.Warn("store not flushed at the stop; the journals will bring it forward", "error", err)
	}
	return n.store.Close()
}

func (n *Node) bind(undo *closers) error {
	for _, l := range []struct {
		name, addr string
		to         *net.Listener
	}{{"http", n.config.Listen.HTTP, &n.listeners.http}, {"raft", n.config.Listen.Raft, &n.listeners.raft}, {"ship", n.config.Listen.Ship, &n.listeners.ship}, {"redis", n.config.Listen.Redis, &n.listeners.redis}} {
		if l.addr == "" {
			continue
		}
		ln, err := n.host.Network.Listen(l.addr)
		if err != nil {
			return &PreconditionError{fmt.Errorf("listen on %s for %s: stop what uses that port, or change listen.%s: %w", l.addr, l.name, l.name, err)}
		}
		*l.to = ln
		undo.add(func() error {
			if err := ln.Close(); err != nil && !errors.Is(err, net.ErrClosed) { // its server closes it first
				return err
			}
			return nil
		})
	}
	return nil
}

// advertised completes what others are told with the ports that were really bound.
func (n *Node) advertised() fsm.Addresses {
	a := n.config.Advertise.FSM()
	for _, x := range []struct {
		addr   *string
		listen string
		ln     net.Listener
	}{{&a.HTTP, n.config.Listen.HTTP, n.listeners.http}, {&a.Raft, n.config.Listen.Raft, n.listeners.raft}, {&a.Ship, n.config.Listen.Ship, n.listeners.ship}, {&a.Redis, n.config.Listen.Redis, n.listeners.redis}} {
		if x.ln == nil {
			continue
		}
		if *x.addr == "" || *x.addr == x.listen {
			*x.addr = x.ln.Addr().String()
		}
	}
	if a.Gossip == "" {
		a.Gossip = n.config.Listen.Gossip
	}
	return a
}

// closers are run newest first; the first real error counts.
type closers struct{ list []func() error }

func (c *closers) add(f func() error) { c.list = append(c.list, f) }

func (c *closers) close() error {
	var errs []error
	for i := len(c.list) - 1; i >= 0; i-- {
		errs = append(errs, c.list[i]())
	}
	c.list = nil
	return errors.Join(errs...)
}

// State returns the replicated state as this node knows it, and a channel closed at its next change.
func (n *Node) State() (*fsm.State, <-chan struct{}) { return n.cluster.State() }
