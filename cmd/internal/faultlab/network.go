package faultlab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

// Protocol is what two nodes use to talk to each other.
type Protocol string

// Protocols between nodes. Gossip is UDP and TCP.
const (
	HTTP   Protocol = "http" // forwarded requests
	Gossip Protocol = "gossip"
	Raft   Protocol = "raft"
	Ship   Protocol = "ship"
	Redis  Protocol = "redis" // relayed commands
)

func protocols() []Protocol { return []Protocol{HTTP, Gossip, Raft, Ship, Redis} }

// Flow is the bytes of one protocol that go from one node to another, whoever opened the connection.
type Flow struct {
	From, To string
	Protocol Protocol
}

// Flows are all flows from each of from to each of to, by the protocols given; none given: all.
func Flows(from, to []string, by ...Protocol) (list []Flow) {
	if len(by) == 0 {
		by = protocols()
	}
	for _, a := range from {
		for _, b := range to {
			for _, p := range by {
				if a != b {
					list = append(list, Flow{a, b, p})
				}
			}
		}
	}
	return list
}

// Both are the flows in both directions.
func Both(a, b []string, by ...Protocol) []Flow {
	return append(Flows(a, b, by...), Flows(b, a, by...)...)
}

// Condition is what happens to a flow.
type Condition struct {
	Hold  bool          // nothing passes: packets are lost, what TCP holds arrives when the condition ends, as after retransmission
	Delay time.Duration // everything arrives later
}

// chunkSize and chunksKept bound what one direction of one connection keeps while it is held or delayed.
const (
	chunkSize   = 32 << 10
	chunksKept  = 64
	packetsKept = 1024 // delayed packets of all nodes
	packetSize  = 64 << 10
)

// Network is the lab's userland network: nodes know each other only by its addresses, so that it can cut, delay and reset every
// flow between two of them.
type Network struct {
	pids   func() map[string][]int // who runs now
	ctx    context.Context
	cancel context.CancelFunc
	work   sync.WaitGroup
	late   chan struct{} // bounds delayed packets

	mu         sync.Mutex
	stations   map[string]*station
	conditions map[Flow]Condition
	changed    chan struct{} // closed and replaced when a condition changes
	relays     map[*relay]struct{}
	touched    map[Flow]int // chunks, packets and connections that met a condition
	strangers  int          // connections of which nobody knows who opened them
}

// station is one node's place in the network.
type station struct {
	name      string
	listen    map[Protocol]string // where the node really listens
	advertise map[Protocol]string // where the others find it
	listeners []net.Listener
	packets   *net.UDPConn // gossip
}

// relay is one connection through the network.
type relay struct{ near, far net.Conn }

func (r *relay) close() {
	_ = r.near.Close() // whoever reads sees it
	_ = r.far.Close()
}

// reset ends the connection as a firewall does: both ends get a reset.
func (r *relay) reset() {
	for _, c := range []net.Conn{r.near, r.far} {
		if t, ok := c.(*net.TCPConn); ok {
			_ = t.SetLinger(0)
		}
	}
	r.close()
}

// newNetwork opens the advertised addresses of all stations.
func newNetwork(stations map[string]*station, pids func() map[string][]int) (*Network, error) {
	ctx, cancel := context.WithCancel(context.Background())
	n := &Network{
		pids: pids, ctx: ctx, cancel: cancel, late: make(chan struct{}, packetsKept), stations: stations,
		conditions: map[Flow]Condition{}, changed: make(chan struct{}), relays: map[*relay]struct{}{}, touched: map[Flow]int{},
	}
	for _, s := range stations { // their packets have a place for as long as the lab stands, so no other lab takes it
		addr, err := net.ResolveUDPAddr("udp", s.advertise[Gossip])
		if err == nil {
			s.packets, err = net.ListenUDP("udp", addr)
		}
		if err != nil {
			n.close()
			return nil, fmt.Errorf("proxy of node %s: %w", s.name, err)
		}
	}
	for _, s := range stations { // all are there before the first packet is passed on
		n.work.Go(func() { n.relayPackets(s) })
	}
	return n, nil
}

// up lets connections come to a node, whose process has started. Before, and after down, they are refused as by a machine on which
// nobody listens.
func (n *Network) up(s *station) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.ctx.Err() != nil || len(s.listeners) > 0 {
		return n.ctx.Err()
	}
	for _, p := range protocols() {
		ln, err := net.Listen("tcp", s.advertise[p])
		if err != nil {
			s.shut()
			return fmt.Errorf("proxy of node %s: %w", s.name, err)
		}
		s.listeners = append(s.listeners, ln)
		n.work.Go(func() { n.accept(s, p, ln) })
	}
	return nil
}

// down refuses connections to a node whose process has ended.
func (n *Network) down(s *station) {
	n.mu.Lock()
	defer n.mu.Unlock()
	s.shut()
}

func (s *station) shut() {
	for _, ln := range s.listeners {
		_ = ln.Close()
	}
	s.listeners = nil
}

// close ends everything that passes through.
func (n *Network) close() {
	n.cancel()
	for _, s := range n.stations {
		n.down(s)
		if s.packets != nil {
			_ = s.packets.Close()
		}
	}
	n.mu.Lock()
	for r := range n.relays {
		r.close()
	}
	n.mu.Unlock()
	n.work.Wait()
}

// Set puts flows under a condition; the zero condition ends it.
func (n *Network) Set(c Condition, flows ...Flow) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, f := range flows {
		if c == (Condition{}) {
			delete(n.conditions, f)
		} else {
			n.conditions[f] = c
		}
	}
	close(n.changed)
	n.changed = make(chan struct{})
}

// Heal ends all conditions.
func (n *Network) Heal() {
	n.mu.Lock()
	defer n.mu.Unlock()
	clear(n.conditions)
	close(n.changed)
	n.changed = make(chan struct{})
}

// Reset breaks the connections that carry one of the flows.
func (n *Network) Reset(flows ...Flow) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	hit := 0
	for r := range n.relays {
		c, ok := r.near.(*namedConn)
		if !ok {
			continue
		}
		for _, f := range flows {
			if f == c.flow || f == c.flow.back() {
				(&relay{c.Conn, r.far}).reset()
				n.touched[f]++
				hit++
				break
			}
		}
	}
	return hit
}

// Touched counts what met a condition so far: chunks, packets and connections.
func (n *Network) Touched(flows ...Flow) (sum int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(flows) == 0 {
		for _, k := range n.touched {
			sum += k
		}
	}
	for _, f := range flows {
		sum += n.touched[f]
	}
	return sum
}

// Strangers counts connections that were refused because nobody could tell who opened them.
func (n *Network) Strangers() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.strangers
}

func (f Flow) back() Flow { return Flow{f.To, f.From, f.Protocol} }

// namedConn is the near end of a relay, with the flow of what is read from it.
type namedConn struct {
	net.Conn
	flow Flow
}

func (n *Network) accept(s *station, p Protocol, ln net.Listener) {
	for {
		conn, err := ln.Accept()
		if err != nil {
			if n.ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return
			}
			time.Sleep(5 * time.Millisecond) // no descriptors: others end
			continue
		}
		n.work.Go(func() { n.relay(s, p, conn) })
	}
}

// relay passes one connection through.
func (n *Network) relay(s *station, p Protocol, conn net.Conn) {
	from, err := owner(conn, n.pids())
	if err != nil { // its process has ended, or does not know it any more
		n.mu.Lock()
		n.strangers++
		n.mu.Unlock()
		_ = conn.Close()
		return
	}
	near := &namedConn{conn, Flow{from, s.name, p}}
	if !n.track(&relay{near: near, far: noConn{}}, func(r *relay) { n.through(r, near.flow, s.listen[p]) }) {
		_ = conn.Close()
	}
}

// track keeps r in the list while f runs.
func (n *Network) track(r *relay, f func(*relay)) bool {
	n.mu.Lock()
	if n.ctx.Err() != nil {
		n.mu.Unlock()
		return false
	}
	n.relays[r] = struct{}{}
	n.mu.Unlock()
	f(r)
	n.mu.Lock()
	delete(n.relays, r)
	n.mu.Unlock()
	r.close()
	return true
}

// noConn stands for the far end before it is there.
type noConn struct{ net.Conn }

func (noConn) Close() error { return nil }

func (n *Network) through(r *relay, f Flow, address string) {
	// A connection begins with a packet to there and one back.
	if n.gate(f, time.Now()) != nil || n.gate(f.back(), time.Now()) != nil {
		return
	}
	var d net.Dialer
	far, err := d.DialContext(n.ctx, "tcp", address)
	if err != nil { // nobody listens: the near end sees its connection break
		(&relay{r.near.(*namedConn).Conn, noConn{}}).reset()
		return
	}
	n.mu.Lock()
	r.far = far
	ended := n.ctx.Err() != nil
	n.mu.Unlock()
	if ended {
		_ = far.Close()
		return
	}
	var both sync.WaitGroup
	near := r.near.(*namedConn).Conn
	both.Go(func() { n.pump(f, near, far) })
	both.Go(func() { n.pump(f.back(), far, near) })
	both.Wait()
}

// chunk is what was read at once.
type chunk struct {
	data []byte
	at   time.Time
	err  error // the end: io.EOF, or why nothing more can be read
}

// pump carries one direction until its end, in order and under the flow's conditions.
func (n *Network) pump(f Flow, from, to net.Conn) {
	queue := make(chan chunk, chunksKept)
	done := make(chan struct{}) // the writer has given up
	var reading sync.WaitGroup
	reading.Go(func() {
		for {
			buf := make([]byte, chunkSize)
			k, err := from.Read(buf)
			if k > 0 {
				select {
				case queue <- chunk{data: buf[:k], at: time.Now()}:
				case <-done:
					return
				}
			}
			if err != nil {
				select {
				case queue <- chunk{at: time.Now(), err: err}:
				case <-done:
				}
				return
			}
		}
	})
	for {
		c := <-queue
		if n.gate(f, c.at) != nil {
			break
		}
		if c.err != nil {
			if t, ok := to.(*net.TCPConn); ok && n.ctx.Err() == nil && isEnd(c.err) {
				_ = t.CloseWrite() // half of it is still open
				close(done)
				reading.Wait()
				return
			}
			break
		}
		if _, err := to.Write(c.data); err != nil {
			break
		}
	}
	close(done)
	_ = from.Close()
	_ = to.Close()
	reading.Wait()
}

// gate returns when what was there at that time may pass; an error: the network has ended.
func (n *Network) gate(f Flow, at time.Time) error {
	counted := false
	for {
		n.mu.Lock()
		c, changed := n.conditions[f], n.changed
		if c != (Condition{}) && !counted {
			n.touched[f]++
			counted = true
		}
		n.mu.Unlock()
		var due <-chan time.Time
		if !c.Hold {
			wait := time.Until(at.Add(c.Delay))
			if c.Delay == 0 || wait <= 0 {
				return n.ctx.Err()
			}
			t := time.NewTimer(wait)
			defer t.Stop() // few turns
			due = t.C
		}
		select {
		case <-changed:
		case <-due:
			return nil
		case <-n.ctx.Done():
			return n.ctx.Err()
		}
	}
}
