package api

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/understudy-ha/understudy/client"
)

// raw is a connection on which a test writes what it likes.
type raw struct {
	net.Conn
	t    *testing.T
	from *bufio.Reader
}

func dialRaw(t *testing.T, address string) *raw {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return &raw{c, t, bufio.NewReader(c)}
}

func (r *raw) say(text string) {
	r.t.Helper()
	if _, err := io.WriteString(r, text); err != nil {
		r.t.Fatal(err)
	}
}

// hear reads one answer.
func (r *raw) hear() (status int, closes bool, body string) {
	r.t.Helper()
	resp, err := http.ReadResponse(r.from, nil)
	if err != nil {
		r.t.Fatalf("no answer: %v", err)
	}
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return resp.StatusCode, resp.Close, string(b)
}

// expectNotDone reads an answer that says that nothing was done, and the end of the connection.
func (r *raw) expectNotDone(what string, want int) {
	r.t.Helper()
	status, closes, body := r.hear()
	if status != want || !closes || !strings.Contains(body, `"code":"unavailable"`) || !strings.Contains(body, "was not done") {
		r.t.Errorf("%s: %d, closes %t: %s", what, status, closes, body)
	}
}

const putOf = "PUT /v1/files/f/records/k HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nv"

// TestPartsWithAnAnswer: a connection that is closed at a stop has an answer to everything that was sent on it: its own, or one that
// says that it was not done. It is there also for a request that crosses it. Proves BX-1.
func TestPartsWithAnAnswer(t *testing.T) {
	f := newFake()
	var done atomic.Int64
	inside, finish := make(chan struct{}), make(chan struct{})
	f.ask = func(context.Context) error {
		if done.Add(1) == 1 {
			close(inside)
			<-finish
		}
		return nil
	}
	a := New(Options{Node: "a", Data: f, Roles: f, Journals: f, Logger: hclog.NewNullLogger(), Limits: Limits{Linger: 2 * time.Second}})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	served := make(chan error, 1)
	go func() { served <- a.Serve(ctx, ln) }()
	address := ln.Addr().String()

	idle, half, crossing, busy := dialRaw(t, address), dialRaw(t, address), dialRaw(t, address), dialRaw(t, address)
	for _, c := range []*raw{idle, half, crossing} {
		c.say("GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
		if status, _, _ := c.hear(); status != http.StatusOK {
			t.Fatalf("livez: %d", status)
		}
	}
	half.say(putOf[:len(putOf)-20])
	busy.say(putOf)
	<-inside
	cancel()
	fresh := dialRaw(t, address)
	for {
		fresh.say(putOf)
		status, closes, body := fresh.hear()
		if status == http.StatusServiceUnavailable && closes && strings.Contains(body, "was not done") {
			break
		}
		if status != http.StatusOK { // it came before the stop was seen
			t.Fatalf("a new connection: %d: %s", status, body)
		}
		done.Add(-1)
		_ = fresh.Close()
		fresh = dialRaw(t, address)
	}
	forwarded := dialRaw(t, address)
	forwarded.say(strings.Replace(putOf, "Host: x\r\n", "Host: x\r\n"+headerHops+": 1\r\n", 1))
	if status, closes, _ := forwarded.hear(); status != http.StatusMisdirectedRequest || !closes {
		t.Errorf("a forwarded request: %d, closes %t", status, closes)
	}
	idle.expectNotDone("idle", http.StatusRequestTimeout)
	for _, c := range []*raw{half, crossing} {
		if _, err := c.from.Peek(1); err != nil { // from here on nothing is done; the client has not looked
			t.Fatalf("no answer: %v", err)
		}
	}
	half.say(putOf[len(putOf)-20:])
	half.expectNotDone("half a request", http.StatusRequestTimeout)
	crossing.say(putOf)
	crossing.expectNotDone("a request that crosses", http.StatusRequestTimeout)
	close(finish)
	if status, closes, _ := busy.hear(); status >= 300 || !closes {
		t.Errorf("the one that was being answered: %d, closes %t", status, closes)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
	if n := done.Load(); n != 1 {
		t.Errorf("%d requests were done, want the one", n)
	}
}

// TestClientsTakeThePartingRight: net/http takes the answer for the end of an idle connection, and the client for an address that is no good;
// a forwarding node for a request that was not done. Proves BX-1.
func TestClientsTakeThePartingRight(t *testing.T) {
	farewell := New(Options{Node: "b", Data: newFake(), Roles: newFake(), Journals: newFake(), Logger: hclog.NewNullLogger()}).farewell()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	var asked atomic.Int64
	go func() { // reads a request and parts from whoever sent it
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			if req, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
				_, _ = io.Copy(io.Discard, req.Body)
				asked.Add(1)
			}
			_, _ = c.Write(farewell)
			_ = c.Close()
		}
	}()
	f := newFake()
	n := start(t, f, nil)
	c := client.NewWith(client.Options{Addresses: []string{ln.Addr().String(), n.address}, Retry: -1})
	defer c.Close()
	if _, err := c.Put(t.Context(), "f", []byte("k"), nil, client.WriteOptions{}); err != nil || asked.Load() != 1 {
		t.Errorf("the client: %v, asked %d times", err, asked.Load())
	}
	f.ask = func(context.Context) error {
		if asked.Load() < 2 {
			return &Elsewhere{HTTP: ln.Addr().String()}
		}
		return nil
	}
	if _, err := n.client(t).Put(t.Context(), "f", []byte("k"), nil, client.WriteOptions{}); err != nil || asked.Load() != 2 {
		t.Errorf("forwarded: %v, asked %d times", err, asked.Load())
	}
	if text := fmt.Sprintf("%s", farewell); !strings.HasPrefix(text, "HTTP/1.1 408 ") {
		t.Errorf("net/http takes 408 for the end of an idle connection, not %s", text)
	}
}

// TestGuestDecidesOnce: whether a request is done or its connection parted from is decided once, also for a request that was read completely in that
// moment. Proves BX-1.
func TestGuestDecidesOnce(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	h := newHouse(ln, 100)
	out := dialRaw(t, ln.Addr().String())
	c, err := h.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	g, ok := c.(*guest)
	if !ok {
		t.Fatalf("the house accepts a %T", c)
	}
	a := New(Options{Node: "a", Data: newFake(), Roles: newFake(), Journals: newFake(), Logger: hclog.NewNullLogger()})
	req := httptest.NewRequestWithContext(h.know(t.Context(), c), http.MethodPut, "/", nil)
	until := time.Now().Add(time.Minute)
	if !a.welcome(httptest.NewRecorder(), req) {
		t.Fatal("a request is not let in")
	}
	if g.part(a.farewell(), until) {
		t.Fatal("parted from while a request is being answered")
	}
	h.state(c, http.StateIdle)
	if !g.part(a.farewell(), until) || g.part(a.farewell(), until) {
		t.Fatal("not parted from once")
	}
	w := httptest.NewRecorder()
	if a.welcome(w, req) || w.Header().Get("Connection") != "close" || w.Body.Len() > 0 {
		t.Errorf("a request is let in after that: %+v", w)
	}
	if n, err := c.Write([]byte("HTTP/1.1 200 OK")); err != nil || n == 0 {
		t.Errorf("the server may not notice: %d, %v", n, err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	out.expectNotDone("what the client got", http.StatusRequestTimeout)
	if rest, err := io.ReadAll(out.from); err != nil || len(rest) > 0 {
		t.Errorf("it got %q besides, %v", rest, err)
	}
	if len(h.guests) != 0 {
		t.Error("the house knows who has gone")
	}
}

// TestHouse: what wraps a connection hides none of its ends: its way out is closed alone. There is room for so many, and closing the listener ends
// waiting for room. Proves BX-1.
func TestHouse(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h := newHouse(ln, 1)
	out := dialRaw(t, ln.Addr().String())
	c, err := h.Accept()
	if err != nil {
		t.Fatal(err)
	}
	half, can := c.(interface{ CloseWrite() error })
	if !can {
		t.Fatal("the way out cannot be closed alone")
	}
	if err := half.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the client reads on: %v", err)
	}
	out.say("x")
	if n, err := c.Read(make([]byte, 1)); n != 1 || err != nil {
		t.Errorf("the way in is closed, too: %v", err)
	}
	dialRaw(t, ln.Addr().String()) // has to wait
	accepted := make(chan error, 2)
	accept := func() {
		_, err := h.Accept()
		accepted <- err
	}
	go accept()
	_ = c.Close()
	_ = c.Close() // makes no more room than there is
	if err := <-accepted; err != nil {
		t.Errorf("there was room: %v", err)
	}
	if len(h.room) != 1 {
		t.Errorf("%d connections are counted", len(h.room))
	}
	go accept()
	if err := h.Close(); err != nil {
		t.Error(err)
	}
	if err := <-accepted; err == nil {
		t.Error("a closed listener has accepted")
	}
}

// pipes is a listener of connections that have no buffers: an answer that the client does not take stays where it is.
type pipes struct {
	next chan net.Conn // with a nil connection accepting fails
}

func (p pipes) Accept() (net.Conn, error) {
	c, open := <-p.next
	switch {
	case !open:
		return nil, net.ErrClosed
	case c == nil:
		return nil, errors.New("too many open files")
	}
	return c, nil
}

func (p pipes) Close() error   { return nil }
func (p pipes) Addr() net.Addr { return &net.TCPAddr{} }

// Proves BX-1: accepting that fails takes no room, and those who take no answer do not hold up that others get theirs.
func TestHouseWithClientsThatTakeNothing(t *testing.T) {
	const deaf = 100
	ln := pipes{make(chan net.Conn, deaf+2)}
	h := newHouse(ln, deaf+2)
	ln.next <- nil
	if _, err := h.Accept(); err == nil || len(h.room) != 0 {
		t.Errorf("accepting that failed: %v, %d connections are counted", err, len(h.room))
	}
	var out net.Conn
	for range deaf + 1 {
		here, there := net.Pipe()
		ln.next <- here
		g, err := h.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer g.Close()
		defer there.Close()
		out = there
	}
	heard := make(chan string, 1)
	go func() {
		b := make([]byte, 3)
		_, _ = io.ReadFull(out, b)
		heard <- string(b)
	}()
	began := time.Now()
	h.part([]byte("bye"))
	if took := time.Since(began); took > deaf*farewellWrite/2 {
		t.Errorf("it took %s", took)
	}
	if got := <-heard; got != "bye" {
		t.Errorf("who listens heard %q", got)
	}
}
