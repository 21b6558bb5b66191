package cluster

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/memberlist"

	"github.com/understudy-ha/understudy/internal/ident"
)

// MemberState is what gossip says of a node. It is a hint to look, never a reason to act.
type MemberState string

// States of members. memberlist does not show which of the nodes it holds alive it also suspects.
const (
	MemberAlive   MemberState = "alive"
	MemberUnknown MemberState = "unknown" // never heard of in this life
	MemberDead    MemberState = "dead"
	MemberLeft    MemberState = "left" // dead, and its life was released: by itself, or by who saw it die
)

// Member is one registered node as this node sees it.
type Member struct {
	Node        ident.NodeID
	State       MemberState
	LastContact time.Time // last probe it answered; zero: none in this life, or it is this node
}

// gossip is this node's memberlist: it answers who is reachable.
type gossip struct {
	self      ident.NodeID
	directory ident.DirectoryID
	protocol  ident.Protocol
	doorman   *doorman // set before start
	log       hclog.Logger
	transport memberlist.Transport
	bound     int                    // port
	list      *memberlist.Memberlist // nil until start
	kick      chan struct{}          // buffered by one: something changed
	events    chan gossipEvent       // from the callbacks, which must not block and call nothing of memberlist
	stop      chan struct{}          // closed when list has ended
	leaving   atomic.Bool            // set when close begins
	work      sync.WaitGroup

	mu    sync.Mutex
	nodes map[ident.NodeID]contact
}

// gossipEvent is one callback.
type gossipEvent struct {
	node ident.NodeID
	kind eventKind
	from ident.DirectoryID
	at   time.Time
}

type eventKind int

const (
	eventAlive eventKind = iota
	eventDead
	eventPing
)

// contact is what the callbacks said of a node.
type contact struct {
	state     MemberState
	directory ident.DirectoryID
	last      time.Time // of an answer
	lost      time.Time // when it was seen to die
}

// GossipBinder binds a gossip address and returns the port it got.
type GossipBinder func(bind string, log hclog.Logger) (memberlist.Transport, int, error)

// BindGossip is the GossipBinder of production: TCP and UDP on one port.
func BindGossip(bind string, log hclog.Logger) (memberlist.Transport, int, error) {
	addr, err := net.ResolveTCPAddr("tcp", bind)
	if err != nil {
		return nil, 0, fmt.Errorf("gossip address %q: %w", bind, err)
	}
	ip := "0.0.0.0"
	if addr.IP != nil {
		ip = addr.IP.String()
	}
	speaks := log.StandardLogger(nil)
	speaks.SetOutput(chatter{log, func() bool { return false }})
	for range 10 { // with port 0 the kernel may choose a TCP port whose UDP twin is taken
		var t *memberlist.NetTransport
		t, err = memberlist.NewNetTransport(&memberlist.NetTransportConfig{
			BindAddrs: []string{ip}, BindPort: addr.Port, Logger: speaks,
		})
		if err == nil {
			return t, t.GetAutoBindPort(), nil
		}
		if addr.Port != 0 {
			break
		}
	}
	return nil, 0, fmt.Errorf("bind gossip address: %w", err)
}

// bindGossip binds the gossip port, so that its number is known before the node is registered.
func bindGossip(o Options) (*gossip, error) {
	g := &gossip{
		self: o.Node, directory: o.Directory, protocol: o.Protocol, log: o.Logger.Named("gossip"),
		kick: make(chan struct{}, 1), events: make(chan gossipEvent, 256), stop: make(chan struct{}),
		nodes: map[ident.NodeID]contact{},
	}
	var err error
	g.transport, g.bound, err = o.Gossip(o.GossipBind, g.log)
	if err != nil {
		return nil, err
	}
	return g, nil
}

// port is the one that was bound.
func (g *gossip) port() int { return g.bound }

// start joins the conversation. addresses returns where the other registered nodes listen; those that are not alive here
// are contacted again every t.Rejoin, since memberlist forgets dead nodes for ever.
func (g *gossip) start(ctx context.Context, label ident.ClusterID, advertise string, t Timing, others func() map[ident.NodeID]string) error {
	addr, err := net.ResolveTCPAddr("tcp", advertise)
	if err != nil {
		return fmt.Errorf("advertised gossip address %q: %w", advertise, err)
	}
	c := memberlist.DefaultLANConfig()
	c.Name = string(g.self)
	c.Label = GossipLabel(label, g.protocol)
	c.Transport = g.transport
	c.BindPort = g.port() // the default port of addresses without one
	if addr.IP != nil {
		c.AdvertiseAddr = addr.IP.String()
	}
	c.AdvertisePort = addr.Port
	c.ProbeInterval, c.ProbeTimeout = t.Probe, t.Probe*2/5
	c.SuspicionMaxTimeoutMult = 2
	c.GossipInterval = max(t.Probe/5, 10*time.Millisecond)
	c.PushPullInterval = 10 * time.Second
	c.TCPTimeout = time.Second
	c.DeadNodeReclaimTime = 4 * t.Probe // a node may come back with another address; its directory id says whether it is the one
	c.Delegate, c.Events, c.Conflict, c.Ping = g, g, g, g
	c.Logger = g.log.StandardLogger(nil)
	c.Logger.SetOutput(chatter{g.log, g.leaving.Load})
	g.work.Go(g.note)
	list, err := memberlist.Create(c)
	if err != nil {
		return fmt.Errorf("start gossip: %w", err)
	}
	g.list = list
	g.work.Go(func() { g.rejoin(ctx, t.Rejoin, others) })
	return nil
}

// close leaves the conversation, politely or not. ctx of start must have ended.
func (g *gossip) close(leave bool) error {
	g.leaving.Store(true)
	var err error
	if g.list != nil {
		if leave {
			if lerr := g.list.Leave(500 * time.Millisecond); lerr != nil {
				g.log.Debug("leave not heard by others", "error", lerr)
			}
		}
		err = g.list.Shutdown()
	} else {
		err = g.discard()
	}
	close(g.stop)
	g.work.Wait()
	return err
}

// discard shuts a transport down that nobody reads: its readers may stand before a full channel.
func (g *gossip) discard() error {
	done := make(chan error, 1)
	go func() { done <- g.transport.Shutdown() }()
	for {
		select {
		case <-g.transport.PacketCh():
		case conn := <-g.transport.StreamCh():
			_ = conn.Close()
		case err := <-done:
			return err
		}
	}
}

func (g *gossip) rejoin(ctx context.Context, every time.Duration, others func() map[ident.NodeID]string) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		for node, addr := range others() {
			if ctx.Err() != nil {
				return
			}
			if node == g.self || addr == "" || g.state(node).state == MemberAlive {
				continue
			}
			if _, err := g.list.Join([]string{addr}); err != nil {
				g.log.Debug("node not reached", "peer", node, "error", err)
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// note keeps what the callbacks say.
func (g *gossip) note() {
	for {
		select {
		case e := <-g.events:
			g.apply(e)
		case <-g.stop:
			return
		}
	}
}

func (g *gossip) apply(e gossipEvent) {
	g.mu.Lock()
	c := g.nodes[e.node]
	before := c.state
	switch e.kind {
	case eventAlive:
		c.state, c.directory, c.last = MemberAlive, e.from, e.at
	case eventDead:
		c.state, c.lost = MemberDead, e.at
	case eventPing:
		c.last = e.at
	}
	g.nodes[e.node] = c
	g.mu.Unlock()
	if e.kind == eventAlive { // others are not heard
		g.doorman.saw(e.node, g.protocol, "")
	}
	if c.state != before && e.node != g.self {
		g.log.Info("node is "+string(c.state), "peer", e.node)
		select {
		case g.kick <- struct{}{}:
		default:
		}
	}
}

// state returns what is known of a node.
func (g *gossip) state(n ident.NodeID) contact {
	g.mu.Lock()
	defer g.mu.Unlock()
	c, ok := g.nodes[n]
	if !ok || c.state == "" {
		c.state = MemberUnknown
	}
	return c
}

// send passes a change on. It waits for nothing but note, which waits for nothing.
func (g *gossip) send(n *memberlist.Node, kind eventKind) {
	e := gossipEvent{node: ident.NodeID(n.Name), kind: kind, at: time.Now()}
	if kind == eventPing { // not under memberlist's lock: only the name may be read
		select {
		case g.events <- e:
		default:
		}
		return
	}
	e.from = ident.DirectoryID(n.Meta)
	select {
	case g.events <- e:
	case <-g.stop:
	}
}

// NotifyJoin, NotifyUpdate and NotifyLeave are memberlist's callbacks, called under its lock.
func (g *gossip) NotifyJoin(n *memberlist.Node)   { g.send(n, eventAlive) }
func (g *gossip) NotifyUpdate(n *memberlist.Node) { g.send(n, eventAlive) }
func (g *gossip) NotifyLeave(n *memberlist.Node)  { g.send(n, eventDead) }

// AckPayload adds nothing to probes.
func (g *gossip) AckPayload() []byte { return nil }

// NotifyPingComplete tells that a node answered a probe.
func (g *gossip) NotifyPingComplete(n *memberlist.Node, _ time.Duration, _ []byte) {
	g.send(n, eventPing)
}

// NotifyConflict tells that two processes use one node id.
func (g *gossip) NotifyConflict(have, other *memberlist.Node) {
	g.log.Warn("node id is used at two addresses: stop one of the processes, unless the node has just moved",
		"peer", have.Name, "address", net.JoinHostPort(have.Addr.String(), strconv.Itoa(int(have.Port))),
		"other", net.JoinHostPort(other.Addr.String(), strconv.Itoa(int(other.Port))))
}

// NodeMeta tells others which data directory this node is.
func (g *gossip) NodeMeta(limit int) []byte {
	if len(g.directory) > limit {
		return nil
	}
	return []byte(g.directory)
}

// The rest of memberlist.Delegate is not used: decisions never travel by gossip.
func (g *gossip) NotifyMsg([]byte)                {}
func (g *gossip) GetBroadcasts(_, _ int) [][]byte { return nil }
func (g *gossip) LocalState(bool) []byte          { return nil }
func (g *gossip) MergeRemoteState([]byte, bool)   {}

var (
	_ memberlist.Delegate         = (*gossip)(nil)
	_ memberlist.EventDelegate    = (*gossip)(nil)
	_ memberlist.ConflictDelegate = (*gossip)(nil)
	_ memberlist.PingDelegate     = (*gossip)(nil)
)
