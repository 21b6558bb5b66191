package nodesim

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Services a machine listens for; links can be cut for one alone.
const (
	anyService = ""
	httpPort   = "7400"
	gossipPort = "7401"
	raftPort   = "7402"
	shipPort   = "7403"
	redisPort  = "7404"
)

// window is how much one direction of a connection takes before its writer has to wait.
const window = 512 << 10

// network carries bytes between hosts, each with an address of its own. One direction of one service is a path; paths are
// held (nothing arrives, as with lost packets that TCP repeats), slow, or drop datagrams.
type network struct {
	mu        sync.Mutex
	rng       *rand.Rand
	paths     map[pathKey]*path
	listeners map[string]*listener
	packets   map[string]*gossipTransport
	conns     map[*conn]struct{}
	dark      map[string]bool // hosts without power: nothing answers, not even with a reset
	effects   *effects
}

type pathKey struct{ from, to, service string }

// path is one direction of one service between two hosts.
type path struct {
	key    pathKey
	held   atomic.Int32 // for how many reasons nothing passes
	lossy  atomic.Int32 // percent of datagrams that get lost
	delay  atomic.Int64 // nanoseconds, beside the usual
	cause  atomic.Pointer[string]
	passed atomic.Int64
}

func newNetwork(rng *rand.Rand, e *effects) *network {
	return &network{rng: rng, paths: map[pathKey]*path{}, listeners: map[string]*listener{}, packets: map[string]*gossipTransport{},
		conns: map[*conn]struct{}{}, dark: map[string]bool{}, effects: e}
}

func (n *network) path(from, to, service string) *path {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.pathLocked(from, to, service)
}

func (n *network) pathLocked(from, to, service string) *path {
	k := pathKey{from, to, service}
	p := n.paths[k]
	if p == nil {
		p = &path{key: k}
		n.paths[k] = p
	}
	return p
}

// change does f to every path that matches; "" matches all. Connections look again afterwards.
func (n *network) change(from, to, service string, f func(*path)) {
	n.mu.Lock()
	services := []string{httpPort, gossipPort, raftPort, shipPort, redisPort}
	if service != anyService {
		services = []string{service}
	}
	for _, s := range services {
		f(n.pathLocked(from, to, s))
	}
	open := make([]*conn, 0, len(n.conns))
	for c := range n.conns {
		open = append(open, c)
	}
	n.mu.Unlock()
	for _, c := range open {
		c.in.pulse()
		c.out.pulse()
	}
}

// jitter is how long a message travels.
func (n *network) jitter() time.Duration {
	n.mu.Lock()
	defer n.mu.Unlock()
	return 100*time.Microsecond + time.Duration(n.rng.IntN(400))*time.Microsecond
}

func (n *network) chance(percent int32) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.rng.IntN(100) < int(percent)
}

// sever ends all connections of a host: the process died (its peers get a reset) or the machine lost power (its peers get
// nothing, until it is back). What had not left the machine is gone.
func (n *network) sever(host string, power bool) {
	n.mu.Lock()
	n.dark[host] = power
	var mine []*conn
	for c := range n.conns {
		if c.local == host {
			mine = append(mine, c)
		}
	}
	n.mu.Unlock()
	for _, c := range mine {
		c.die(power)
	}
}

// light ends a power cut: peers that still hold old connections hear of their end.
func (n *network) light(host string) {
	n.mu.Lock()
	delete(n.dark, host)
	var stale []*conn
	for c := range n.conns {
		if c.remote == host && c.out.orphan.Load() {
			stale = append(stale, c)
		}
	}
	n.mu.Unlock()
	for _, c := range stale {
		c.in.reset()
		c.out.reset()
	}
}

// view is the network as one host sees it. It implements host.Network. A view of a life that has ended connects nothing.
type view struct {
	*network
	host string
	dead *atomic.Bool
}

func (v view) Listen(addr string) (net.Listener, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.listeners[addr] != nil {
		return nil, fmt.Errorf("listen %s: %w", addr, syscall.EADDRINUSE)
	}
	l := &listener{network: v.network, addr: addr, wake: make(chan struct{}, 1), closed: make(chan struct{})}
	v.listeners[addr] = l
	return l, nil
}

func (v view) Dial(ctx context.Context, addr string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second) // as host.Real's dialer
	defer cancel()
	to, service, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	fail := func(err error) (net.Conn, error) {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Addr: address(addr), Err: err}
	}
	there, back := v.path(v.host, to, service), v.path(to, v.host, service)
	for !v.dead.Load() {
		trip := v.jitter() + v.jitter() + time.Duration(there.delay.Load()+back.delay.Load())
		select {
		case <-time.After(trip):
		case <-ctx.Done():
			return fail(os.ErrDeadlineExceeded)
		}
		v.mu.Lock()
		dark := v.dark[to]
		l := v.listeners[addr]
		v.mu.Unlock()
		if there.held.Load() > 0 || back.held.Load() > 0 || dark { // the packets are lost; TCP tries again after a while
			v.effects.held(there, back)
			select {
			case <-time.After(200 * time.Millisecond):
			case <-ctx.Done():
				return fail(os.ErrDeadlineExceeded)
			}
			continue
		}
		if l == nil {
			return fail(syscall.ECONNREFUSED)
		}
		here, peer := v.connect(to, service, there, back)
		if v.dead.Load() || !l.offer(peer) {
			here.die(false)
			return fail(syscall.ECONNREFUSED)
		}
		return here, nil
	}
	return fail(net.ErrClosed)
}

func (v view) connect(to, service string, there, back *path) (here, peer *conn) {
	a, b := newHalf(v.network, there), newHalf(v.network, back)
	port := v.ephemeral()
	here = &conn{network: v.network, local: v.host, remote: to, localAddr: address(v.host + ":" + port), remoteAddr: address(to + ":" + service), in: b, out: a}
	peer = &conn{network: v.network, local: to, remote: v.host, localAddr: here.remoteAddr, remoteAddr: here.localAddr, in: a, out: b}
	v.mu.Lock()
	v.conns[here], v.conns[peer] = struct{}{}, struct{}{}
	v.mu.Unlock()
	return here, peer
}

func (v view) ephemeral() string {
	v.mu.Lock()
	defer v.mu.Unlock()
	return fmt.Sprint(32768 + v.rng.IntN(28000))
}

// address is an address on the simulated network.
type address string

func (address) Network() string  { return "tcp" }
func (a address) String() string { return string(a) }

type listener struct {
	network *network
	addr    string
	wake    chan struct{}
	closed  chan struct{}

	mu      sync.Mutex
	shut    bool
	backlog []*conn
}

func (l *listener) offer(c *conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.shut {
		return false
	}
	l.backlog = append(l.backlog, c)
	select {
	case l.wake <- struct{}{}:
	default:
	}
	return true
}

func (l *listener) Accept() (net.Conn, error) {
	for {
		l.mu.Lock()
		if l.shut {
			l.mu.Unlock()
			return nil, net.ErrClosed
		}
		if len(l.backlog) > 0 {
			c := l.backlog[0]
			l.backlog = l.backlog[1:]
			l.mu.Unlock()
			return c, nil
		}
		l.mu.Unlock()
		select {
		case <-l.wake:
		case <-l.closed:
		}
	}
}

func (l *listener) Close() error {
	l.mu.Lock()
	if l.shut {
		l.mu.Unlock()
		return net.ErrClosed
	}
	l.shut = true
	waiting := l.backlog
	l.backlog = nil
	close(l.closed)
	l.mu.Unlock()
	for _, c := range waiting {
		c.die(false)
	}
	l.network.mu.Lock()
	if l.network.listeners[l.addr] == l {
		delete(l.network.listeners, l.addr)
	}
	l.network.mu.Unlock()
	return nil
}

func (l *listener) Addr() net.Addr { return address(l.addr) }
