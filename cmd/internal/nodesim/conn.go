package nodesim

import (
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// conn is one end of a connection.
type conn struct {
	network               *network
	local, remote         string
	localAddr, remoteAddr address
	in, out               *half
	once                  sync.Once
}

// half is one direction of a connection: the bytes on their way, in order, each with the time it arrives.
type half struct {
	network *network
	path    *path
	orphan  atomic.Bool // its reader's machine lost power

	mu       sync.Mutex
	changed  chan struct{} // closed and replaced at each change
	segments []segment
	size     int
	ended    bool // the writer sends nothing more, a FIN stands at the end
	gone     bool // the reader has closed
	broken   bool // reset: both sides get an error
	shut     bool // closed by this process, at the reader's side
	muted    bool // closed by this process, at the writer's side
	readBy   time.Time
	writeBy  time.Time
}

type segment struct {
	at   time.Time
	data []byte
}

func newHalf(n *network, p *path) *half {
	return &half{network: n, path: p, changed: make(chan struct{})}
}

func (h *half) pulseLocked() {
	close(h.changed)
	h.changed = make(chan struct{})
}

func (h *half) pulse() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.pulseLocked()
}

func (h *half) reset() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.broken = true
	h.segments, h.size = nil, 0
	h.pulseLocked()
}

// wait waits for a change, or until the earlier of the given times. It unlocks and locks again.
func (h *half) wait(until ...time.Time) {
	changed := h.changed
	var first time.Time
	for _, u := range until {
		if !u.IsZero() && (first.IsZero() || u.Before(first)) {
			first = u
		}
	}
	h.mu.Unlock()
	defer h.mu.Lock()
	if first.IsZero() {
		<-changed
		return
	}
	t := time.NewTimer(time.Until(first))
	defer t.Stop()
	select {
	case <-changed:
	case <-t.C:
	}
}

func passed(deadline time.Time) bool { return !deadline.IsZero() && !time.Now().Before(deadline) }

func (h *half) read(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for {
		switch {
		case h.shut:
			return 0, net.ErrClosed
		case h.broken:
			return 0, syscall.ECONNRESET
		case passed(h.readBy):
			return 0, os.ErrDeadlineExceeded
		case len(p) == 0:
			return 0, nil
		}
		if h.path.held.Load() > 0 {
			if len(h.segments) > 0 || h.ended {
				h.network.effects.held(h.path, nil)
			}
			h.wait(h.readBy)
			continue
		}
		if len(h.segments) == 0 {
			if h.ended {
				return 0, io.EOF
			}
			h.wait(h.readBy)
			continue
		}
		first := &h.segments[0]
		if time.Now().Before(first.at) {
			h.wait(h.readBy, first.at)
			continue
		}
		n := copy(p, first.data)
		if first.data = first.data[n:]; len(first.data) == 0 {
			h.segments = h.segments[1:]
		}
		if h.size -= n; h.size+n > window/2 {
			h.pulseLocked()
		}
		return n, nil
	}
}

func (h *half) write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for {
		switch {
		case h.muted || h.ended:
			return 0, net.ErrClosed
		case h.broken:
			return 0, syscall.ECONNRESET
		case passed(h.writeBy):
			return 0, os.ErrDeadlineExceeded
		case h.gone && h.path.held.Load() == 0:
			return 0, syscall.EPIPE
		}
		if h.size < window {
			break
		}
		h.wait(h.writeBy)
	}
	at := time.Now().Add(h.network.jitter() + time.Duration(h.path.delay.Load()))
	if n := len(h.segments); n > 0 && h.segments[n-1].at.After(at) {
		at = h.segments[n-1].at
	}
	if h.orphan.Load() {
		return len(p), nil // nobody is there; nobody says so
	}
	h.segments = append(h.segments, segment{at: at, data: append([]byte(nil), p...)})
	h.size += len(p)
	h.path.passed.Add(int64(len(p)))
	h.pulseLocked()
	return len(p), nil
}

func (c *conn) Read(p []byte) (int, error) {
	n, err := c.in.read(p)
	return n, c.explain("read", err)
}

func (c *conn) Write(p []byte) (int, error) {
	n, err := c.out.write(p)
	return n, c.explain("write", err)
}

func (c *conn) explain(op string, err error) error {
	if err == nil || err == io.EOF {
		return err
	}
	return &net.OpError{Op: op, Net: "tcp", Source: c.localAddr, Addr: c.remoteAddr, Err: err}
}

// Close says goodbye: what was written arrives, then the end.
func (c *conn) Close() error {
	c.once.Do(func() {
		c.leave()
		c.out.mu.Lock()
		c.out.ended, c.out.muted = true, true
		c.out.pulseLocked()
		c.out.mu.Unlock()
		c.in.mu.Lock()
		c.in.shut, c.in.gone = true, true
		c.in.segments, c.in.size = nil, 0
		c.in.pulseLocked()
		c.in.mu.Unlock()
	})
	return nil
}

// die is the end of the process or the machine: local calls fail, and the peer gets a reset or nothing.
func (c *conn) die(power bool) {
	c.once.Do(func() {
		c.leave()
		c.out.mu.Lock()
		c.out.muted = true
		if c.out.path.held.Load() > 0 { // never left the machine
			c.out.segments, c.out.size = nil, 0
		}
		if !power {
			c.out.ended = true
		}
		c.out.pulseLocked()
		c.out.mu.Unlock()
		c.in.mu.Lock()
		c.in.shut = true
		c.in.segments, c.in.size = nil, 0
		if power {
			c.in.orphan.Store(true)
		} else {
			c.in.gone = true
		}
		c.in.pulseLocked()
		c.in.mu.Unlock()
	})
}

func (c *conn) leave() {
	c.network.mu.Lock()
	delete(c.network.conns, c)
	c.network.mu.Unlock()
}

func (c *conn) LocalAddr() net.Addr  { return c.localAddr }
func (c *conn) RemoteAddr() net.Addr { return c.remoteAddr }

// SetDeadline implements net.Conn.
func (c *conn) SetDeadline(t time.Time) error {
	_ = c.SetReadDeadline(t)
	return c.SetWriteDeadline(t)
}

// SetReadDeadline implements net.Conn.
func (c *conn) SetReadDeadline(t time.Time) error {
	c.in.mu.Lock()
	defer c.in.mu.Unlock()
	if c.in.shut {
		return c.explain("set", net.ErrClosed)
	}
	c.in.readBy = t
	c.in.pulseLocked()
	return nil
}

// SetWriteDeadline implements net.Conn.
func (c *conn) SetWriteDeadline(t time.Time) error {
	c.out.mu.Lock()
	defer c.out.mu.Unlock()
	if c.out.muted {
		return c.explain("set", net.ErrClosed)
	}
	c.out.writeBy = t
	c.out.pulseLocked()
	return nil
}
