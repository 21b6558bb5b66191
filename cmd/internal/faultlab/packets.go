package faultlab

import (
	"errors"
	"io"
	"net"
	"time"
)

// relayPackets passes on the gossip packets that are sent to a station. They come from where the sender listens, and go on from the
// sender's advertised address, so that an answer takes the same way back.
func (n *Network) relayPackets(s *station) {
	senders := map[string]*station{}
	for _, x := range n.stations {
		senders[x.listen[Gossip]] = x
	}
	to, err := net.ResolveUDPAddr("udp", s.listen[Gossip])
	if err != nil {
		return
	}
	buf := make([]byte, packetSize)
	for {
		k, from, err := s.packets.ReadFromUDP(buf)
		if err != nil {
			if n.ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return
			}
			continue // nobody listened where the last one went
		}
		sender := senders[from.String()]
		if sender == nil {
			continue
		}
		f := Flow{sender.name, s.name, Gossip}
		n.mu.Lock()
		c := n.conditions[f]
		if c != (Condition{}) {
			n.touched[f]++
		}
		n.mu.Unlock()
		switch {
		case c.Hold:
		case c.Delay > 0:
			n.later(sender.packets, append([]byte(nil), buf[:k]...), to, c.Delay)
		default:
			_, _ = sender.packets.WriteToUDP(buf[:k], to) // packets may be lost
		}
	}
}

// later sends a packet after a while; too many of them are lost.
func (n *Network) later(by *net.UDPConn, packet []byte, to *net.UDPAddr, delay time.Duration) {
	select {
	case n.late <- struct{}{}:
	default:
		return
	}
	n.work.Go(func() {
		defer func() { <-n.late }()
		t := time.NewTimer(delay)
		defer t.Stop()
		select {
		case <-t.C:
			_, _ = by.WriteToUDP(packet, to)
		case <-n.ctx.Done():
		}
	})
}

// isEnd tells the orderly end of a connection from a broken one.
func isEnd(err error) bool { return errors.Is(err, io.EOF) }
