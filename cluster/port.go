package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/understudy-ha/understudy/internal/host"
	"github.com/understudy-ha/understudy/internal/ident"
)

const (
	maxConnections = 256             // on the Raft port, both kinds together
	helloTimeout   = 2 * time.Second // until the hello has arrived, and until Raft has taken the connection
	controlTimeout = 15 * time.Second
)

// port owns the listener that Raft and the control protocol share, and every connection accepted on it.
type port struct {
	listener net.Listener
	network  host.Network
	address  advertised
	log      hclog.Logger
	cluster  func() ident.ClusterID
	protocol ident.Protocol
	doorman  *doorman // hears of nodes of other builds; nil: nobody does
	control  func(ctx context.Context, foreign bool, r request) response

	ctx     context.Context // ends with close
	cancel  context.CancelFunc
	inbound chan net.Conn // accepted Raft connections
	work    sync.WaitGroup

	mu    sync.Mutex
	conns map[net.Conn]struct{}
}

// start accepts connections from now on.
func (p *port) start() {
	p.ctx, p.cancel = context.WithCancel(context.Background())
	p.inbound = make(chan net.Conn)
	p.conns = map[net.Conn]struct{}{}
	p.work.Go(p.accept)
}

// close ends all connections and joins everything started here.
func (p *port) close() error {
	p.cancel()
	err := p.listener.Close()
	p.mu.Lock()
	open := slices.Collect(maps.Keys(p.conns))
	p.mu.Unlock()
	for _, c := range open {
		_ = c.Close() // its reader sees it
	}
	p.work.Wait()
	if errors.Is(err, net.ErrClosed) {
		err = nil
	}
	return err
}

func (p *port) accept() {
	var delay time.Duration
	for {
		conn, err := p.listener.Accept()
		if err != nil {
			if p.ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return
			}
			delay = min(max(2*delay, 5*time.Millisecond), time.Second)
			p.log.Warn("accept failed", "error", err, "retry", delay)
			select {
			case <-time.After(delay):
			case <-p.ctx.Done():
				return
			}
			continue
		}
		delay = 0
		tracked, ok := p.track(conn)
		if !ok {
			_ = conn.Close() // the peer tries again
			continue
		}
		p.work.Go(func() { p.greet(tracked) })
	}
}

// track bounds the number of connections and remembers each, since Raft's transport leaves accepted ones open at its end.
func (p *port) track(conn net.Conn) (net.Conn, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ctx.Err() != nil || len(p.conns) >= maxConnections {
		return nil, false
	}
	t := &trackedConn{Conn: conn, port: p}
	p.conns[t] = struct{}{}
	return t, true
}

// trackedConn leaves the port's list when it is closed.
type trackedConn struct {
	net.Conn
	port *port
}

func (t *trackedConn) Close() error {
	t.port.mu.Lock()
	delete(t.port.conns, t)
	t.port.mu.Unlock()
	return t.Conn.Close()
}

// greet reads the hello and hands the connection on.
func (p *port) greet(conn net.Conn) {
	_ = conn.SetDeadline(time.Now().Add(helloTimeout))
	h, err := readHello(conn)
	if err != nil {
		if !errors.Is(err, io.EOF) {
			p.log.Debug("connection refused", "peer", conn.RemoteAddr().String(), "error", err)
		}
		_ = conn.Close()
		return
	}
	if h.kind == helloControl {
		p.exchange(conn, h)
		_ = conn.Close()
		return
	}
	if id := p.cluster(); id == "" || h.cluster != id {
		p.log.Warn("raft connection of another cluster refused", "peer", conn.RemoteAddr().String(), "theirs", h.cluster, "ours", id)
		_, _ = conn.Write([]byte{helloRefused})
		_ = conn.Close()
		return
	}
	if theirs := ident.Spoken(uint16(h.version)); theirs != p.protocol {
		p.refuseRaft(conn, theirs)
		return
	}
	if _, err := conn.Write([]byte{helloAccepted}); err != nil {
		_ = conn.Close()
		return
	}
	_ = conn.SetDeadline(time.Time{})
	select {
	case p.inbound <- conn:
	case <-time.After(helloTimeout): // Raft is not running yet, or does not accept
		_ = conn.Close()
	case <-p.ctx.Done():
		_ = conn.Close()
	}
}

// exchange answers one control request.
func (p *port) exchange(conn net.Conn, h hello) {
	foreign := h.cluster == ""
	limit := uint32(maxFrame)
	if foreign {
		limit = maxForeignFrame
	}
	var r request
	if err := readFrame(conn, limit, &r); err != nil {
		p.log.Debug("control request not readable", "peer", conn.RemoteAddr().String(), "error", err)
		return
	}
	_ = conn.SetDeadline(time.Now().Add(controlTimeout))
	var reply response
	if id := p.cluster(); !foreign && id != h.cluster && r.Info == nil {
		reply = response{Code: codeOf(id), Detail: fmt.Sprintf("this node belongs to cluster %s, the request to %s", id, h.cluster)}
	} else if theirs := ident.Spoken(uint16(h.version)); r.Info == nil && theirs != p.protocol {
		reply = p.refuseControl(conn, theirs, r)
	} else {
		p.sawQuestion(conn, h, r.Info)
		ctx, cancel := context.WithTimeout(p.ctx, controlTimeout-helloTimeout)
		reply = p.control(ctx, foreign, r)
		cancel()
	}
	if err := writeFrame(conn, reply); err != nil {
		p.log.Debug("control response not sent", "peer", conn.RemoteAddr().String(), "error", err)
	}
}

// callError is a failed control exchange.
type callError struct {
	Peer string
	Sent bool // the request may have arrived
	Err  error
}

func (e *callError) Error() string { return e.Peer + ": " + e.Err.Error() }
func (e *callError) Unwrap() error { return e.Err }

// call makes one control exchange with the node at addr. Its errors are *callError.
func (p *port) call(ctx context.Context, addr string, r request) (reply response, err error) {
	conn, err := p.network.Dial(ctx, addr)
	if err != nil {
		return response{}, &callError{Peer: addr, Err: err}
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	deadline := time.Now().Add(controlTimeout)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	_ = conn.SetDeadline(deadline)
	if err := writeHello(conn, hello{kind: helloControl, version: p.version(r.Info != nil), cluster: p.cluster()}); err != nil {
		return response{}, &callError{Peer: addr, Err: err}
	}
	if err := writeFrame(conn, r); err != nil {
		return response{}, &callError{Peer: addr, Sent: true, Err: err}
	}
	if err := readFrame(conn, maxFrame, &reply); err != nil {
		return response{}, &callError{Peer: addr, Sent: true, Err: err}
	}
	return reply, nil
}

// streams is Raft's view of the port.
type streams struct{ port *port }

var _ raft.StreamLayer = streams{}

func (s streams) Accept() (net.Conn, error) {
	select {
	case c := <-s.port.inbound:
		return c, nil
	case <-s.port.ctx.Done():
		return nil, net.ErrClosed
	}
}

// Close does nothing: the port is closed after Raft has ended, by its owner.
func (s streams) Close() error { return nil }

func (s streams) Addr() net.Addr { return s.port.address }

func (s streams) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(s.port.ctx, timeout)
	defer cancel()
	conn, err := s.port.network.Dial(ctx, string(address))
	if err != nil {
		return nil, err
	}
	deadline, _ := ctx.Deadline()
	_ = conn.SetDeadline(deadline)
	if err := s.greet(conn); err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("greet %s: %w", address, err)
	}
	_ = conn.SetDeadline(time.Time{})
	return conn, nil
}

func (s streams) greet(conn net.Conn) error {
	id := s.port.cluster()
	if err := writeHello(conn, hello{kind: helloRaft, version: s.port.version(false), cluster: id}); err != nil {
		return err
	}
	var answer [1]byte
	if _, err := io.ReadFull(conn, answer[:]); err != nil {
		return err
	}
	if answer[0] == helloOther {
		return s.port.otherAt(conn)
	}
	if answer[0] != helloAccepted {
		return fmt.Errorf("it does not belong to cluster %s", id)
	}
	return nil
}

// codeOf is how a request for another cluster than id is refused; a node without a cluster may belong to it soon.
func codeOf(id ident.ClusterID) string {
	if id == "" {
		return codeBusy
	}
	return codeCluster
}
