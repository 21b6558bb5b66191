package replica

import (
	"context"
	"fmt"
	"net"
	"sync"
	"sync/atomic"

	"github.com/understudy-ha/understudy/internal/ident"
)

// wires is a network of pipes between named nodes.
type wires struct {
	mu        sync.Mutex
	listeners map[string]*pipeListener
	cut       map[string]bool // "a>b": nothing goes between them
	mute      map[string]bool // "a>b": a cannot call b
	conns     map[net.Conn]string
	shipped   atomic.Int64 // bytes written by those who dialled
}

func newWires() *wires {
	return &wires{listeners: map[string]*pipeListener{}, cut: map[string]bool{}, mute: map[string]bool{}, conns: map[net.Conn]string{}}
}

func pair(a, b string) string {
	if a > b {
		a, b = b, a
	}
	return a + ">" + b
}

// sever cuts or joins the line between two nodes.
func (w *wires) sever(a, b ident.NodeID, cut bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut[pair(string(a), string(b))] = cut
	if !cut {
		return
	}
	for c, between := range w.conns {
		if between == pair(string(a), string(b)) {
			_ = c.Close()
			delete(w.conns, c)
		}
	}
}

// muted keeps a node from calling another, or no more.
func (w *wires) muted(a, b ident.NodeID, mute bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mute[string(a)+">"+string(b)] = mute
}

// severed cuts or joins the line and tells whether that was a change.
func (w *wires) severed(a, b ident.NodeID, cut bool) bool {
	w.mu.Lock()
	was := w.cut[pair(string(a), string(b))]
	w.mu.Unlock()
	w.sever(a, b, cut)
	return was != cut
}

// wire1 is the network as one node sees it.
type wire1 struct {
	w    *wires
	self string
}

type pipeListener struct {
	w      *wires
	addr   string
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (n wire1) Listen(addr string) (net.Listener, error) {
	n.w.mu.Lock()
	defer n.w.mu.Unlock()
	l := &pipeListener{w: n.w, addr: addr, conns: make(chan net.Conn), closed: make(chan struct{})}
	n.w.listeners[addr] = l
	return l, nil
}

func (n wire1) Dial(ctx context.Context, addr string) (net.Conn, error) {
	n.w.mu.Lock()
	l, cut := n.w.listeners[addr], n.w.cut[pair(n.self, addr)] || n.w.mute[n.self+">"+addr]
	n.w.mu.Unlock()
	if l == nil || cut {
		return nil, fmt.Errorf("dial %s from %s: connection refused", addr, n.self)
	}
	here, there := net.Pipe()
	select {
	case l.conns <- there:
	case <-l.closed:
		return nil, fmt.Errorf("dial %s: closed", addr)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	n.w.mu.Lock()
	n.w.conns[here], n.w.conns[there] = pair(n.self, addr), pair(n.self, addr)
	n.w.mu.Unlock()
	return dialled{here, &n.w.shipped}, nil
}

// dialled counts what is written.
type dialled struct {
	net.Conn
	bytes *atomic.Int64
}

func (d dialled) Write(b []byte) (int, error) {
	n, err := d.Conn.Write(b)
	d.bytes.Add(int64(n))
	return n, err
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	l.once.Do(func() {
		close(l.closed)
		l.w.mu.Lock()
		if l.w.listeners[l.addr] == l {
			delete(l.w.listeners, l.addr)
		}
		l.w.mu.Unlock()
	})
	return nil
}

func (l *pipeListener) Addr() net.Addr { return pipeAddr(l.addr) }

type pipeAddr string

func (pipeAddr) Network() string  { return "pipe" }
func (a pipeAddr) String() string { return string(a) }
