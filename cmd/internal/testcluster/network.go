package testcluster

import (
	"context"
	"fmt"
	"net"
	"sync"
	"sync/atomic"

	"github.com/understudy-ha/understudy/internal/ident"
)

// network connects the nodes of one test over loopback and cuts them from each other on demand.
type network struct {
	mu    sync.Mutex
	owner map[string]ident.NodeID // by listening address
	cut   map[link]bool
	conns map[*cutConn]link
	sent  map[route]*atomic.Int64
}

// route is from a node to an address.
type route struct {
	from ident.NodeID
	to   string
}

// link is a direction-free pair of nodes; the smaller id stands first.
type link struct{ a, b ident.NodeID }

func between(a, b ident.NodeID) link {
	if a > b {
		a, b = b, a
	}
	return link{a, b}
}

func newNetwork() *network {
	return &network{owner: map[string]ident.NodeID{}, cut: map[link]bool{}, conns: map[*cutConn]link{}, sent: map[route]*atomic.Int64{}}
}

// setCut separates two nodes, or joins them again. Connections between them break at once.
func (n *network) setCut(a, b ident.NodeID, cut bool) {
	n.mu.Lock()
	l := between(a, b)
	n.cut[l] = cut
	var broken []*cutConn
	for c, cl := range n.conns {
		if cut && cl == l {
			broken = append(broken, c)
		}
	}
	n.mu.Unlock()
	for _, c := range broken {
		c.Close() // the reader on either side sees the end; nothing to do about an error of a test's own cut
	}
}

// view is the network as one node sees it.
type view struct {
	*network
	self ident.NodeID
}

func (v view) Listen(addr string) (net.Listener, error) {
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	v.mu.Lock()
	v.owner[ln.Addr().String()] = v.self
	v.mu.Unlock()
	return ln, nil
}

func (v view) Dial(ctx context.Context, addr string) (net.Conn, error) {
	v.mu.Lock()
	l := between(v.self, v.owner[addr])
	cut := v.cut[l]
	v.mu.Unlock()
	if cut {
		return nil, fmt.Errorf("dial %s: the test cut %s from %s", addr, l.a, l.b)
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	c := &cutConn{Conn: conn, network: v.network, sent: v.counter(route{v.self, addr})}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.cut[l] {
		conn.Close()
		return nil, fmt.Errorf("dial %s: the test cut %s from %s", addr, l.a, l.b)
	}
	v.conns[c] = l
	return c, nil
}

// cutConn is a connection that the test can break.
type cutConn struct {
	net.Conn
	network *network
	sent    *atomic.Int64
}

func (c *cutConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.sent.Add(int64(n))
	return n, err
}

// counter counts the bytes written on connections of one route by the side that dialled them.
func (n *network) counter(r route) *atomic.Int64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.sent[r] == nil {
		n.sent[r] = new(atomic.Int64)
	}
	return n.sent[r]
}

func (c *cutConn) Close() error {
	c.network.mu.Lock()
	delete(c.network.conns, c)
	c.network.mu.Unlock()
	return c.Conn.Close()
}
