package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/understudy-ha/understudy/client"
)

// This file closes connections on which no request is being answered. A request that a client sends in the moment in which its connection is
// closed would be lost, and nobody could tell the client that it was not done. So the connection gets an answer first, 408 with Connection:
// close: a client that waits for nothing takes it as the end of the connection (RFC 9110, 15.5.9), and one whose request is on its way
// takes it as the answer to that. Whoever got it is right: from then on no request of the connection is done.

const (
	farewellWrite = 100 * time.Millisecond // the answer has to be taken in this time; it fits into any buffer
	farewellRead  = 250 * time.Millisecond // so long what still arrives is read, and not done, until the client closes
)

// house is a listener that knows its connections, and has room for so many. Its guests are right around the connections that the listener
// accepts, so that none of their methods gets lost between.
type house struct {
	net.Listener
	room   chan struct{} // a token for each connection
	closed chan struct{}
	once   sync.Once

	mu     sync.Mutex
	guests map[*guest]struct{}
	shut   bool // who comes now is sent elsewhere
}

// guest is one connection.
type guest struct {
	net.Conn
	house *house
	late  bool          // it came when the house was shut
	gone  chan struct{} // closed when the connection is
	once  sync.Once

	mu     sync.Mutex
	busy   bool // a request is being answered
	parted bool // it was told that nothing is done any more
}

// guestKey is the context key of a request's guest.
type guestKey struct{}

func newHouse(ln net.Listener, room int) *house {
	return &house{Listener: ln, room: make(chan struct{}, room), closed: make(chan struct{}), guests: map[*guest]struct{}{}}
}

// Accept returns the next connection, once there is room for it. Who has to wait does so in the queue of the operating system.
func (h *house) Accept() (net.Conn, error) {
	select {
	case h.room <- struct{}{}:
	case <-h.closed:
		return nil, net.ErrClosed
	}
	c, err := h.Listener.Accept()
	if err != nil {
		<-h.room
		return nil, err
	}
	g := &guest{Conn: c, house: h, gone: make(chan struct{})}
	h.mu.Lock()
	g.late = h.shut
	h.guests[g] = struct{}{}
	h.mu.Unlock()
	return g, nil
}

// Close ends accepting, also where it waits for room.
func (h *house) Close() error {
	h.once.Do(func() { close(h.closed) })
	return h.Listener.Close()
}

// leave has who comes from now on sent elsewhere.
func (h *house) leave() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.shut = true
}

// know and state are hooks of the server.
func (h *house) know(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, guestKey{}, c)
}

func (h *house) state(c net.Conn, s http.ConnState) {
	if g, ok := c.(*guest); ok && s == http.StateIdle { // the answer is out
		g.mu.Lock()
		g.busy = false
		g.mu.Unlock()
	}
}

// part answers every connection on which no request is being answered, and waits until their clients have closed them, or for a while.
func (h *house) part(answer []byte) {
	h.mu.Lock()
	all := make([]*guest, 0, len(h.guests))
	for g := range h.guests {
		all = append(all, g)
	}
	h.mu.Unlock()
	until := time.Now().Add(farewellRead)
	free := make([]bool, len(all))
	var parting sync.WaitGroup // side by side, so that those who take nothing do not hold up the others; there are as many as there is room for
	for i, g := range all {
		parting.Go(func() { free[i] = g.part(answer, until) })
	}
	parting.Wait()
	late := time.NewTimer(time.Until(until))
	defer late.Stop()
	for i, g := range all {
		if !free[i] {
			continue
		}
		select {
		case <-g.gone:
		case <-late.C:
			return
		}
	}
}

// part tells whether the connection was free, and has its answer now.
func (g *guest) part(answer []byte, until time.Time) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.busy || g.parted {
		return false
	}
	g.parted = true
	_ = g.Conn.SetWriteDeadline(time.Now().Add(farewellWrite))
	_, _ = g.Conn.Write(answer) // the client may be gone
	_ = g.Conn.SetReadDeadline(until)
	return true
}

// enter tells whether a request of the connection may be done; then it is answered before the connection is closed.
func (g *guest) enter() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.parted {
		return false
	}
	g.busy = true
	return true
}

func (g *guest) isParted() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.parted
}

// Read reads; of a connection that was parted from everything is read away, so that its end does not destroy the answer on its way.
func (g *guest) Read(b []byte) (int, error) {
	n, err := g.Conn.Read(b)
	if !g.isParted() {
		return n, err
	}
	for err == nil {
		_, err = g.Conn.Read(b)
	}
	return 0, io.EOF
}

// Write writes; a connection that was parted from has had its last answer.
func (g *guest) Write(b []byte) (int, error) {
	if g.isParted() {
		return len(b), nil
	}
	return g.Conn.Write(b)
}

// SetReadDeadline sets it, but for a connection that was parted from.
func (g *guest) SetReadDeadline(t time.Time) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.parted {
		return nil
	}
	return g.Conn.SetReadDeadline(t)
}

// SetDeadline is SetReadDeadline and SetWriteDeadline.
func (g *guest) SetDeadline(t time.Time) error {
	if err := g.SetReadDeadline(t); err != nil {
		return err
	}
	return g.Conn.SetWriteDeadline(t)
}

// CloseWrite ends the way to the client and leaves the other one open, so that an answer in the middle of a request arrives before the
// connection breaks.
func (g *guest) CloseWrite() error {
	if half, can := g.Conn.(interface{ CloseWrite() error }); can {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

// Close closes the connection.
func (g *guest) Close() error {
	err := g.Conn.Close()
	g.once.Do(func() {
		g.house.mu.Lock()
		delete(g.house.guests, g)
		g.house.mu.Unlock()
		<-g.house.room
		close(g.gone)
	})
	return err
}

// welcome lets a request in, but not where its connection was parted from, or began when the node was leaving already: whoever is answered there
// comes again and again, until nobody is there to answer. Then it is not done, and answered with that.
func (a *API) welcome(w http.ResponseWriter, r *http.Request) bool {
	g, ok := r.Context().Value(guestKey{}).(*guest)
	if ok && !g.enter() {
		w.Header().Set("Connection", "close") // it has its answer
		return false
	}
	if ok && g.late {
		a.sendOn(w, r)
		return false
	}
	return true
}

// sendOn answers that a request was not done, and why. A node that forwarded it looks for another one then.
func (a *API) sendOn(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Connection", "close")
	code := client.CodeUnavailable
	if r.Header.Get(headerHops) != "" {
		code = client.CodeNotPrimary
	}
	a.problem(w, r, &client.Error{Code: code, Detail: "the node is being stopped: the request was not done", Remedy: "send it again, to another node"})
}

// farewell is the last answer on a connection.
func (a *API) farewell() []byte {
	e := a.complete(&client.Error{Code: client.CodeUnavailable, Status: http.StatusRequestTimeout,
		Detail: "the node is being stopped and closes this connection: a request sent on it now was not done", Remedy: "send it again, to another node"})
	body, err := json.Marshal(problem{Type: "urn:understudy:problem:" + string(e.Code), Title: e.Code.Title(), Error: e})
	if err != nil { // strings and numbers only: cannot happen
		body = []byte(`{"code":"unavailable"}`)
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "HTTP/1.1 %d %s\r\nConnection: close\r\nContent-Type: application/problem+json\r\nContent-Length: %d\r\n\r\n",
		http.StatusRequestTimeout, http.StatusText(http.StatusRequestTimeout), len(body)+1)
	b.Write(append(body, '\n'))
	return b.Bytes()
}
