package cluster

import (
	"context"
	"errors"
	"net"
	"sync"

	"github.com/understudy-ha/understudy/internal/host"
)

// link is a machine's connection to the others, as far as Raft and the control protocol are concerned. Gossip does not pass
// through it: a cut link is a node that looks alive and reaches nobody.
type link struct {
	mu    sync.Mutex
	down  bool
	deaf  bool // answers to control requests get lost
	conns map[net.Conn]bool
}

func (l *link) cut(down bool) {
	l.mu.Lock()
	l.down = down
	var open []net.Conn
	for c := range l.conns {
		open = append(open, c)
	}
	l.mu.Unlock()
	for _, c := range open {
		_ = c.Close()
	}
}

func (l *link) wrap(c net.Conn, dialled bool) (net.Conn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.down {
		_ = c.Close()
		return nil, errors.New("link is down")
	}
	w := &linkedConn{Conn: c, link: l, dialled: dialled}
	l.conns[w] = true
	return w, nil
}

type linkedConn struct {
	net.Conn
	link    *link
	dialled bool
	control bool // of a dialled connection: known after the first write
	wrote   bool
}

func (c *linkedConn) Write(b []byte) (int, error) {
	if !c.wrote {
		c.wrote, c.control = true, len(b) > 0 && b[0] == helloControl
	}
	return c.Conn.Write(b)
}

func (c *linkedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.link.mu.Lock()
	deaf := c.link.deaf
	c.link.mu.Unlock()
	if deaf && c.dialled && c.control {
		return 0, errors.New("answer lost")
	}
	return n, err
}

func (c *linkedConn) Close() error {
	c.link.mu.Lock()
	delete(c.link.conns, c)
	c.link.mu.Unlock()
	return c.Conn.Close()
}

type linkedNetwork struct {
	host.Network
	link *link
}

func (n linkedNetwork) Dial(ctx context.Context, addr string) (net.Conn, error) {
	c, err := n.Network.Dial(ctx, addr)
	if err != nil {
		return nil, err
	}
	return n.link.wrap(c, true)
}

type linkedListener struct {
	net.Listener
	link *link
}

func (n linkedListener) Accept() (net.Conn, error) {
	for {
		c, err := n.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if w, err := n.link.wrap(c, false); err == nil {
			return w, nil
		}
	}
}
