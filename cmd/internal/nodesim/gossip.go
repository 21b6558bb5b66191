package nodesim

import (
	"encoding/binary"
	"fmt"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/memberlist"
)

// gossipTransport is memberlist's transport over the simulated network: datagrams that may get lost, and streams.
type gossipTransport struct {
	view    view
	addr    string
	packets chan *memberlist.Packet
	streams chan net.Conn
	ln      net.Listener
	dead    atomic.Bool
	once    sync.Once
	work    sync.WaitGroup
}

// bindGossip is a cluster.GossipBinder.
func (v view) bindGossip(bind string, _ hclog.Logger) (memberlist.Transport, int, error) {
	ln, err := v.Listen(bind)
	if err != nil {
		return nil, 0, err
	}
	_, p, err := net.SplitHostPort(bind)
	if err != nil {
		return nil, 0, err
	}
	port, err := strconv.Atoi(p)
	if err != nil {
		return nil, 0, err
	}
	g := &gossipTransport{view: v, addr: bind, packets: make(chan *memberlist.Packet, 256), streams: make(chan net.Conn), ln: ln}
	v.mu.Lock()
	v.network.packets[bind] = g
	v.mu.Unlock()
	g.work.Go(g.accept)
	return g, port, nil
}

func (g *gossipTransport) accept() {
	for {
		c, err := g.ln.Accept()
		if err != nil {
			return
		}
		t := time.NewTimer(time.Second)
		select {
		case g.streams <- c:
		case <-t.C: // nobody reads any more
			_ = c.Close()
		}
		t.Stop()
	}
}

func (g *gossipTransport) FinalAdvertiseAddr(ip string, port int) (net.IP, int, error) {
	host, _, err := net.SplitHostPort(g.addr)
	if err != nil {
		return nil, 0, err
	}
	return net.ParseIP(host), port, nil
}

func (g *gossipTransport) WriteTo(b []byte, addr string) (time.Time, error) {
	now := time.Now()
	if g.view.dead.Load() {
		return now, nil
	}
	to, service, err := net.SplitHostPort(addr)
	if err != nil {
		return now, err
	}
	p := g.view.path(g.view.host, to, service)
	if p.held.Load() > 0 || p.lossy.Load() > 0 && g.view.chance(p.lossy.Load()) {
		g.view.effects.held(p, nil)
		return now, nil
	}
	g.view.send(addr, &memberlist.Packet{Buf: append([]byte(nil), b...), From: address(g.addr)}, time.Duration(p.delay.Load()))
	return now, nil
}

// send delivers a datagram after a while, if somebody listens there then.
func (n *network) send(addr string, p *memberlist.Packet, delay time.Duration) {
	time.AfterFunc(n.jitter()+delay, func() {
		n.mu.Lock()
		to := n.packets[addr]
		n.mu.Unlock()
		if to == nil || to.dead.Load() {
			return
		}
		p.Timestamp = time.Now()
		select {
		case to.packets <- p:
		default: // as a full socket buffer
		}
	})
}

func (g *gossipTransport) PacketCh() <-chan *memberlist.Packet { return g.packets }
func (g *gossipTransport) StreamCh() <-chan net.Conn           { return g.streams }

func (g *gossipTransport) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := timeoutContext(timeout)
	defer cancel()
	return g.view.Dial(ctx, addr)
}

// Shutdown implements memberlist.Transport.
func (g *gossipTransport) Shutdown() error {
	g.once.Do(func() {
		g.dead.Store(true)
		g.view.mu.Lock()
		if g.view.network.packets[g.addr] == g {
			delete(g.view.network.packets, g.addr)
		}
		g.view.mu.Unlock()
		_ = g.ln.Close() // closed by its owner's death already, perhaps
		g.work.Wait()
	})
	return nil
}

// Kinds of forged messages; memberlist's numbers.
const (
	forgeSuspect = 3
	forgeAlive   = 4
	forgeDead    = 5
	labelHeader  = 244
)

// forge makes a datagram of somebody who holds the cluster's label: victim is said to be dead, suspected, or alive at an
// address where it is not.
func forge(label string, kind byte, incarnation uint32, victim, from string, ip net.IP, meta []byte) []byte {
	b := append([]byte{labelHeader, byte(len(label))}, label...)
	b = append(b, kind)
	if kind != forgeAlive {
		b = append(b, 0x83)
		b = packField(b, "Incarnation", packUint(nil, incarnation))
		b = packField(b, "Node", packRaw(nil, []byte(victim)))
		return packField(b, "From", packRaw(nil, []byte(from)))
	}
	b = append(b, 0x86)
	b = packField(b, "Incarnation", packUint(nil, incarnation))
	b = packField(b, "Node", packRaw(nil, []byte(victim)))
	b = packField(b, "Addr", packRaw(nil, ip.To16()))
	b = packField(b, "Port", packUint(nil, 7401))
	b = packField(b, "Meta", packRaw(nil, meta))
	return packField(b, "Vsn", packRaw(nil, []byte{1, 5, 2, 0, 0, 0})) // with others, memberlist breaks off every exchange of states for good
}

// The encoding is MessagePack in its old form, which knows no difference between text and bytes.
func packField(b []byte, name string, value []byte) []byte {
	return append(packRaw(b, []byte(name)), value...)
}

func packRaw(b, v []byte) []byte {
	if len(v) > 31 {
		panic(fmt.Sprintf("a forged field of %d bytes", len(v)))
	}
	return append(append(b, 0xa0|byte(len(v))), v...)
}

func packUint(b []byte, v uint32) []byte {
	return binary.BigEndian.AppendUint32(append(b, 0xce), v)
}

// forge delivers a datagram that nobody sent.
func (n *network) forge(to, from string, b []byte) {
	n.send(to, &memberlist.Packet{Buf: b, From: address(from)}, 0)
}
