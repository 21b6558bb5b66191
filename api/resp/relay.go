package resp

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/understudy-ha/understudy/internal/ident"
)

// peerCommands are spoken between nodes. They allow nothing that other commands do not: a client that sends them gets less.
func peerCommands() []command {
	return []command{{name: "understudy", arity: -3, flags: internal | noMulti, family: "server", summary: "Between nodes.", own: ownUnderstudy}}
}

// ownUnderstudy answers
//
//	UNDERSTUDY RELAY ms                     from now on nothing is relayed again and nothing waits for a primary; commands have that long
//	UNDERSTUDY RELAY 0 protocol             what a node says first; it is answered with this node's protocol, and refused if that is another one
//	UNDERSTUDY POSITIONS key …              of the last changes, for WATCH: group@position; -group@position: where the history stood that has no such record
//	UNDERSTUDY WATCHED key position         of that form: EXEC is not done when the key has changed since, or is another group's
//	UNDERSTUDY POSITION group               of the last write over this connection, for WAIT
//	UNDERSTUDY FILES code group …           of which this node is primary, for SCAN; only between nodes, as PAGE is
//	UNDERSTUDY PAGE file key after limit    of the keys of a file; after 1: the key itself is left out
func ownUnderstudy(s *session, args [][]byte) reply {
	switch {
	case is(args[1], "RELAY"):
		ms, valid := integerOf(args[2])
		if !valid || ms < 0 {
			return errNotInteger
		}
		if !s.peer {
			if other := s.srv.otherProtocol(args[3:]); other != nil {
				return failure("OTHERBUILD " + other.Error())
			}
		}
		s.peer, s.wait = true, min(time.Duration(min(ms, 1<<32))*time.Millisecond, s.srv.o.Limits.Wait)
		s.endMulti() // of a batch that broke off
		if old := s.identity.Load(); !old.peer {
			next := *old
			next.peer = true
			s.identity.Store(&next)
		}
		if len(args) > 3 {
			return integer(s.srv.o.Protocol)
		}
		return ok
	case is(args[1], "POSITIONS"):
		j, bad := s.sightsJob(s.srv.commands["watch"].keysOf(args[1:]), args[2:])
		if bad != nil {
			return bad
		}
		return s.run(j)
	case is(args[1], "WATCHED") && len(args) == 4:
		seen, valid := sightOf(string(args[3]))
		if !valid || len(s.watched) == s.srv.o.Limits.Watches {
			return errSyntax
		}
		s.watched = append(s.watched, watch{keyOf(args[2]), args[2], seen})
		return ok
	case is(args[1], "POSITION"):
		s.write.Lock()
		defer s.write.Unlock()
		return text(s.last[string(args[2])].String())
	}
	if s.rights&MayRead == 0 {
		return failure("NOPERM this user has no permissions to run the 'understudy' command")
	}
	switch {
	case s.peer && is(args[1], "FILES") && len(args) > 3:
		return s.answerFiles(args[2], args[3:])
	case s.peer && is(args[1], "PAGE") && len(args) == 6:
		return s.answerPage(args[2], args[3], args[4], args[5])
	}
	return errSubcommand("understudy", args[1])
}

// relay asks another node to run jobs, which belong to one group. Those of which is sure that they were not done, and reads, stay without
// an answer.
func (s *session) relay(ctx context.Context, address string, jobs []*job) {
	c, err := s.srv.peers.get(ctx, address, s.proto)
	if err != nil {
		s.srv.o.Logger.Debug("could not relay", "address", address, "error", err)
		return
	}
	healthy := false
	defer func() { s.srv.peers.put(c, healthy) }()
	end, _ := ctx.Deadline()
	if err := c.conn.SetDeadline(end.Add(time.Second)); err != nil {
		return
	}
	stop := context.AfterFunc(s.ctx, func() { _ = c.conn.SetDeadline(time.Now()) }) // the grace of a stop is over
	defer stop()
	s.srv.counters.relayed.Add(float64(len(jobs)))

	sent := make(chan error, 1)
	go func() { sent <- c.send(max(time.Until(end), time.Millisecond), jobs) }() // beside reading: both ways may be full
	err = s.receive(c, jobs)
	if err != nil {
		_ = c.conn.SetDeadline(time.Now()) // ends send
	}
	if wrote := <-sent; err == nil {
		err = wrote
	}
	if healthy = err == nil && s.ctx.Err() == nil; healthy {
		return
	}
	for _, j := range s.unanswered(jobs) {
		if !j.reads && c.wrote && !errors.Is(err, errLeft) {
			s.answer(j, s.unknown(fmt.Sprintf("it was relayed to %s, but the answer is missing: %v", address, err)), 0)
		}
	}
}

// farewell is the last that a node which is leaving says over a connection of another node: what is not answered before it was not done.
const farewell = failure("LEAVING the node is stopping: nothing was done")

// errLeft says that the other node has said farewell.
var errLeft = errors.New("the other node is stopping")

// next reads a reply to the batch. errLeft: neither this command nor any after it was done.
func (c *peerConn) next(s *session) (reply, error) {
	r, err := c.reply(s)
	if f, is := r.(failure); is && f == farewell {
		return nil, errLeft
	}
	return r, err
}

// receive reads the answers in the order of the jobs.
func (s *session) receive(c *peerConn, jobs []*job) error {
	if _, err := c.next(s); err != nil {
		return err
	}
	writes, from, elsewhere := "", 0, false
	for i, j := range jobs {
		var r reply
		for range j.wire {
			s.give(c.charged)
			c.charged = 0
			var err error
			if r, err = c.next(s); err != nil {
				return err
			}
		}
		if !j.reads {
			writes = j.group
		}
		if f, is := r.(failure); is && (strings.HasPrefix(string(f), "ELSEWHERE") || strings.HasPrefix(string(f), "NOAUTH") || strings.HasPrefix(string(f), "TRYAGAIN")) {
			if !elsewhere {
				from, elsewhere = i, true
			}
			continue
		}
		if elsewhere { // the order of the client is gone for those before
			s.answerAll(s.unanswered(jobs[from:i]), failure("TRYAGAIN the primary changed: nothing was done"))
		}
		s.answer(j, j.complete(r), c.charged)
		c.charged = 0
		s.advance()
	}
	if writes == "" {
		return nil
	}
	r, err := c.reply(s)
	if b, is := r.(bulk); is {
		if at, valid := positionOf(string(b)); valid && !at.IsZero() {
			s.wrote(writes, at)
		}
	}
	s.give(c.charged)
	c.charged = 0
	return err
}

// peerConn is a connection to another node. It has one user at a time.
type peerConn struct {
	address string
	proto   int
	conn    net.Conn
	in      *bufio.Reader
	out     *bufio.Writer
	limits  *Limits
	wrote   bool  // something of the batch may have left
	charged int64 // for the reply read last
	idle    time.Time
}

// send writes a batch.
func (c *peerConn) send(wait time.Duration, jobs []*job) error {
	c.wrote = true
	out := c.out // one that has failed is not used again
	var b []byte
	put := func(args [][]byte) {
		b = header(b[:0], '*', int64(len(args)))
		for _, a := range args {
			b = header(b, '$', int64(len(a)))
			_, _ = out.Write(b) // the error of a bufio.Writer stays until Flush
			_, _ = out.Write(a)
			b = append(b[:0], '\r', '\n')
		}
		_, _ = out.Write(b)
	}
	put([][]byte{[]byte("understudy"), []byte("relay"), strconv.AppendInt(nil, wait.Milliseconds()+1, 10)})
	writes := ""
	for _, j := range jobs {
		for _, args := range j.wire {
			put(args)
		}
		if !j.reads {
			writes = j.group
		}
	}
	if writes != "" {
		put([][]byte{[]byte("understudy"), []byte("position"), []byte(writes)})
	}
	return out.Flush()
}

// reply reads one, and charges the session for it.
func (c *peerConn) reply(s *session) (reply, error) {
	r, err := readReply(c.in, c.limits.Reply)
	if err != nil {
		return nil, err
	}
	n := 2 * r.weight()
	if !s.charge(n) {
		return nil, errors.New("the memory for replies in flight is used up")
	}
	c.charged += n
	return r, nil
}

// peers keeps connections to other nodes.
type peers struct {
	o Options

	mu    sync.Mutex
	nodes map[string]*peerNode // by address
}

type peerNode struct {
	room chan struct{} // a token for each connection in use
	idle []*peerConn   // the one used last is at the end
}

func newPeers(o Options) *peers { return &peers{o: o, nodes: map[string]*peerNode{}} }

// get returns a connection for one batch. With an error surely nothing was sent.
func (p *peers) get(ctx context.Context, address string, proto int) (*peerConn, error) {
	p.mu.Lock()
	n := p.nodes[address]
	if n == nil {
		n = &peerNode{room: make(chan struct{}, p.o.Limits.Relays)}
		p.nodes[address] = n
	}
	p.mu.Unlock()
	select {
	case n.room <- struct{}{}:
	case <-ctx.Done():
		return nil, fmt.Errorf("wait for a connection to %s: %w", address, context.Cause(ctx))
	}
	for {
		c := p.reuse(n, proto)
		if c == nil {
			break
		}
		if c.alive() {
			c.wrote, c.charged = false, 0
			return c, nil
		}
		_ = c.conn.Close()
	}
	c, err := p.dial(ctx, address, proto)
	if err != nil {
		<-n.room
		return nil, err
	}
	return c, nil
}

// reuse takes an idle connection out of the pool; nil when there is none.
func (p *peers) reuse(n *peerNode, proto int) *peerConn {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := len(n.idle) - 1; i >= 0; i-- {
		if c := n.idle[i]; c.proto == proto {
			n.idle = append(n.idle[:i], n.idle[i+1:]...)
			return c
		}
	}
	return nil
}

// put gives a connection back; one that is not healthy is closed.
func (p *peers) put(c *peerConn, healthy bool) {
	p.mu.Lock()
	n := p.nodes[c.address]
	keep := healthy && len(n.idle) < p.o.Limits.Relays && c.in.Buffered() == 0
	if keep {
		c.idle = time.Now()
		n.idle = append(n.idle, c)
	}
	p.mu.Unlock()
	<-n.room
	if !keep {
		_ = c.conn.Close()
	}
}

// dial makes a connection and says who is there.
func (p *peers) dial(ctx context.Context, address string, proto int) (*peerConn, error) {
	ctx, cancel := context.WithTimeout(ctx, p.o.Limits.Dial)
	defer cancel()
	conn, err := p.o.Network.Dial(ctx, address)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", address, err)
	}
	c := &peerConn{address: address, proto: proto, conn: conn, in: bufio.NewReaderSize(conn, 16<<10), out: bufio.NewWriterSize(conn, 16<<10), limits: &p.o.Limits}
	if err := c.greet(ctx, p.o.PeerSecret, p.o.Protocol); err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("speak to %s: %w", address, err)
	}
	return c, nil
}

func (c *peerConn) greet(ctx context.Context, secret string, protocol ident.Protocol) error {
	end, _ := ctx.Deadline()
	if err := c.conn.SetDeadline(end); err != nil {
		return err
	}
	hello := [][]byte{[]byte("hello"), strconv.AppendInt(nil, int64(c.proto), 10)}
	if secret != "" {
		hello = append(hello, []byte("auth"), []byte("default"), []byte(secret))
	}
	relay := [][]byte{[]byte("understudy"), []byte("relay"), []byte("0")} // from now on it says farewell
	if protocol != 0 {
		relay = append(relay, strconv.AppendInt(nil, int64(protocol), 10))
	}
	if _, err := c.conn.Write(wire(wire(nil, hello...), relay...)); err != nil {
		return err
	}
	var said reply
	for range 2 {
		r, err := readReply(c.in, 1<<16)
		if err != nil {
			return err
		}
		if f, is := r.(failure); is {
			return f
		}
		said = r
	}
	if said != integer(protocol) && protocol != 0 { // a build from before the number says OK
		return &ident.OtherProtocolError{Ours: protocol}
	}
	return nil
}

// alive tells whether an idle connection has not been closed at the other end.
func (c *peerConn) alive() bool {
	sc, can := c.conn.(syscall.Conn)
	if !can {
		return true
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return false
	}
	quiet := false
	err = raw.Control(func(fd uintptr) {
		var b [1]byte
		_, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		quiet = errors.Is(err, syscall.EAGAIN) // neither an end nor an answer that nobody asked for
	})
	return err == nil && quiet
}

// sweep closes connections that nobody has used for long; all with 0.
func (p *peers) sweep(unused time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, n := range p.nodes {
		kept := n.idle[:0]
		for _, c := range n.idle {
			if time.Since(c.idle) < unused {
				kept = append(kept, c)
				continue
			}
			_ = c.conn.Close()
		}
		clear(n.idle[len(kept):])
		n.idle = kept
	}
}
