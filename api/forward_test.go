package api

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/understudy-ha/understudy/client"
)

// closedAddress returns an address that refuses connections.
func closedAddress(t *testing.T) string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	return ln.Addr().String()
}

// broken is a node that takes requests and closes the connection after some bytes of an answer.
func broken(t *testing.T, begin string) (address string, taken *atomic.Int32) {
	taken = new(atomic.Int32)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		taken.Add(1)
		c, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		_, _ = io.WriteString(c, begin)
		_ = c.Close()
	}))
	t.Cleanup(s.Close)
	return s.Listener.Addr().String(), taken
}

func elsewhere(address string) func(context.Context) error {
	return func(context.Context) error { return &Elsewhere{HTTP: address} }
}

// counts wants a line in the node's metrics.
func (n *testNode) counts(t *testing.T, line string) {
	t.Helper()
	m, err := n.client(t).Metrics(t.Context())
	if err != nil || !strings.Contains(string(m), "\n"+line+"\n") {
		t.Errorf("%q is missing in the metrics (%v):\n%s", line, err, m)
	}
}

// A node that is not the primary passes request and answer on unchanged.
func TestForward(t *testing.T) {
	primary := start(t, newFake(), nil)
	f := newFake()
	f.ask = elsewhere(primary.address)
	n := start(t, f, func(o *Options) { o.Node = "b" })
	c := n.client(t)

	key := []byte("a//../b\xff?")
	w, err := c.Put(t.Context(), "or/ders", key, []byte("\x00v"), client.WriteOptions{Wait: time.Minute})
	if err != nil || w.Sequence != 42 {
		t.Errorf("put: %+v, %v", w, err)
	}
	asked := primary.take()
	if len(asked) != 1 || !strings.HasPrefix(asked[0], `put or/ders "a//../b\xff?" "\x00v" 59.`) {
		t.Errorf("asked %q: want the same write, with the time that is left", asked)
	}
	if w, err := c.Put(t.Context(), "f", []byte("new"), nil, client.WriteOptions{}); err != nil || !w.Created {
		t.Errorf("created: %+v, %v", w, err)
	}
	r, err := c.Get(t.Context(), "f", []byte("k"), client.ReadOptions{})
	if err != nil || string(r.Value) != "3 apples" || r.Position != "default@3.41" {
		t.Errorf("get: %+v, %v", r, err)
	}
	primary.err = &client.Error{Code: client.CodeNoSync}
	if _, err := c.Put(t.Context(), "f", []byte("k"), nil, client.WriteOptions{}); !errors.Is(err, client.ErrNoSync) {
		t.Errorf("error of the other node: %v", err)
	}
	primary.err = nil
	resp := n.send(t, "HEAD", "/v1/files/f/records/k", nil)
	if resp.StatusCode != 200 || resp.ContentLength != 8 || resp.Header.Values(client.HeaderNode)[0] != "b" {
		t.Errorf("HEAD: %d %v", resp.StatusCode, resp.Header)
	}
	n.counts(t, "understudy_requests_forwarded_total 5")
}

// A switch-over that is forwarded keeps its wait and its location.
func TestForwardOperation(t *testing.T) {
	pf := newFake()
	pf.later = client.Operation{ID: 7, State: client.OperationRunning}
	primary := start(t, pf, nil)
	f := newFake()
	f.ask = elsewhere(primary.address)
	n := start(t, f, nil)
	resp := n.send(t, "POST", "/v1/groups/default/switchover?wait=3s", strings.NewReader(`{"to":"b"}`))
	if resp.StatusCode != 202 || resp.Header.Get("Location") != "/v1/operations/7" {
		t.Errorf("got %d %v", resp.StatusCode, resp.Header)
	}
	if asked := strings.Join(primary.take(), "; "); asked != `switchover default "b" dry=false 0s; operation 7 3s` {
		t.Errorf("asked %s", asked)
	}
}

// Nodes that point at each other do not pass a request round for ever, and the caller hears that nothing was done.
func TestForwardInCircles(t *testing.T) {
	fa, fb := newFake(), newFake()
	a, b := start(t, fa, nil), start(t, fb, func(o *Options) { o.Node = "b" })
	fa.ask, fb.ask = elsewhere(b.address), elsewhere(a.address)
	p := problemOf(t, a.send(t, "PUT", "/v1/files/f/records/k?wait=10s", nil, headerHops, "1"))
	if p.Code != client.CodeNotPrimary || p.Status != http.StatusMisdirectedRequest {
		t.Errorf("got %+v", p)
	}
	if n := len(fa.take()) + len(fb.take()); n != maxHops {
		t.Errorf("%d nodes were asked, want %d", n, maxHops)
	}
	p = problemOf(t, a.send(t, "PUT", "/v1/files/f/records/k?wait=50ms", nil))
	if p.Code != client.CodeNoPrimary || p.Status != http.StatusServiceUnavailable {
		t.Errorf("got %+v", p)
	}
	a.counts(t, "understudy_requests_failed_in_switch_total 1")
}

// While nobody can take a request it waits at the node that was asked, and is answered as soon as somebody can: here or
// elsewhere. Proves the waiting half of BX-1.
func TestWaitForPrimary(t *testing.T) {
	primary := start(t, newFake(), nil)
	refuses := closedAddress(t)
	notYet := start(t, func() *fake { f := newFake(); f.ask = elsewhere(""); return f }(), nil)
	for name, before := range map[string]*Elsewhere{
		"nobody is known":        {},
		"it does not listen":     {HTTP: refuses},
		"it is not the one":      {HTTP: notYet.address},
		"this node, but not yet": {HTTP: notYet.address, Retry: true},
	} {
		for where, after := range map[string]error{"here": nil, "there": &Elsewhere{HTTP: primary.address}} {
			t.Run(name+", then "+where, func(t *testing.T) {
				primary.take()
				notYet.take()
				changes := &changes{c: make(chan struct{})}
				f := newFake()
				var asked atomic.Int32
				f.ask = func(context.Context) error {
					switch asked.Add(1) {
					case 1, 2:
						return before
					case 3:
						defer changes.signal()
						return before
					}
					return after
				}
				n := start(t, f, func(o *Options) { o.Changed = changes.next })
				w, err := n.client(t).Put(t.Context(), "f", []byte("k"), []byte("v"), client.WriteOptions{Wait: time.Minute})
				if err != nil || w.Sequence != 42 {
					t.Errorf("got %+v, %v", w, err)
				}
				if wrote := len(primary.take()); (wrote == 1) != (where == "there") {
					t.Errorf("the primary was asked %d times", wrote)
				}
				if before.Retry && len(notYet.take()) > 0 {
					t.Error("forwarded although this node is about to be the one")
				}
			})
		}
	}
}

// changes signals changes of roles.
type changes struct {
	mu sync.Mutex
	c  chan struct{}
}

func (c *changes) next() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.c
}

func (c *changes) signal() {
	c.mu.Lock()
	defer c.mu.Unlock()
	close(c.c)
	c.c = make(chan struct{})
}

// A change of roles wakes waiting requests at once, without polling. A busy machine may be late: one prompt round of five
// is enough.
func TestChangeWakes(t *testing.T) {
	changes := &changes{c: make(chan struct{})}
	f := newFake()
	var primary atomic.Bool
	waiting := make(chan struct{}, 100)
	f.ask = func(context.Context) error {
		if primary.Load() {
			return nil
		}
		waiting <- struct{}{}
		return &Elsewhere{}
	}
	n := start(t, f, func(o *Options) { o.Changed = changes.next })
	c := n.client(t)
	var took time.Duration
	for range 5 {
		primary.Store(false)
		done := make(chan error, 1)
		go func() {
			_, err := c.Put(t.Context(), "f", []byte("k"), nil, client.WriteOptions{Wait: time.Minute})
			done <- err
		}()
		for range 6 { // by now the pauses are as long as they get
			<-waiting
		}
		primary.Store(true)
		at := time.Now()
		changes.signal()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if took = time.Since(at); took < lastPause/2 {
			return
		}
	}
	t.Errorf("took %s", took)
}

// A write that was sent on and lost is never sent again: its outcome is unknown. Proves that the API does not say "failed"
// of what may have been done.
func TestForwardedWriteGetsLost(t *testing.T) {
	for name, begin := range map[string]string{
		"before the answer":   "",
		"within its header":   "HTTP/1.1 200 OK\r\nContent-Le",
		"within its body":     "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"posit",
		"chunked, unfinished": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{\"pos\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			address, taken := broken(t, begin)
			f := newFake()
			f.ask = elsewhere(address)
			n := start(t, f, nil)
			for _, method := range []string{"PUT", "DELETE"} {
				taken.Store(0)
				p := problemOf(t, n.send(t, method, "/v1/files/f/records/k", nil))
				if p.Code != client.CodeUnknownOutcome || p.Status != http.StatusGatewayTimeout || taken.Load() != 1 {
					t.Errorf("%s: %+v, sent %d times", method, p, taken.Load())
				}
			}
			if p := problemOf(t, n.send(t, "POST", "/v1/groups/default/failover", strings.NewReader(`{"to":"*"}`))); p.Code != client.CodeUnknownOutcome {
				t.Errorf("failover: %+v", p)
			}
		})
	}
}

// A read that got lost is asked again, where it is answered.
func TestForwardedReadGetsLost(t *testing.T) {
	address, taken := broken(t, "")
	f := newFake()
	f.ask = func(context.Context) error {
		if taken.Load() == 0 {
			return &Elsewhere{HTTP: address}
		}
		return nil
	}
	n := start(t, f, nil)
	r, err := n.client(t).Get(t.Context(), "f", []byte("k"), client.ReadOptions{})
	if err != nil || string(r.Value) != "3 apples" || taken.Load() != 1 {
		t.Errorf("got %+v, %v", r, err)
	}
}

// The answer to a read that breaks off must not look complete.
func TestForwardedReadBreaksOff(t *testing.T) {
	address, _ := broken(t, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n3 app\r\n")
	f := newFake()
	f.ask = elsewhere(address)
	n := start(t, f, nil)
	if r, err := n.client(t).Get(t.Context(), "f", []byte("k"), client.ReadOptions{}); err == nil {
		t.Errorf("got %q without an error", r.Value)
	}
}

// A request that waits for a primary ends when the node stops, and its caller may repeat it elsewhere.
func TestStopEndsWaiting(t *testing.T) {
	f := newFake()
	waiting := make(chan struct{}, 100)
	f.ask = func(context.Context) error { waiting <- struct{}{}; return &Elsewhere{} }
	n := start(t, f, nil)
	c := n.client(t)
	done := make(chan error, 1)
	go func() {
		_, err := c.Put(t.Context(), "f", []byte("k"), nil, client.WriteOptions{Wait: time.Minute})
		done <- err
	}()
	<-waiting
	n.stop()
	if err := <-done; !errors.Is(err, client.ErrNoPrimary) {
		t.Errorf("got %v", err)
	}
}

// Headers of one connection, and what a browser says about its page, are not passed on.
func TestForwardedHeaders(t *testing.T) {
	var got http.Header
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { got = r.Header.Clone() }))
	t.Cleanup(s.Close)
	f := newFake()
	f.ask = elsewhere(s.Listener.Addr().String())
	n := start(t, f, nil)
	n.send(t, "GET", "/v1/files/f/records/k", nil, "Origin", "http://"+n.address, "Sec-Fetch-Site", "same-origin", "Te", "trailers", "X-Trace", "7")
	if got.Get("X-Trace") != "7" || got.Get(headerHops) != "1" || got.Get("Origin")+got.Get("Sec-Fetch-Site")+got.Get("Te") != "" {
		t.Errorf("got %v", got)
	}
}

// flaky is a network whose connections die at a signal: they take no byte any more, and no new ones are made.
type flaky struct{ dead atomic.Bool }

func (f *flaky) Listen(address string) (net.Listener, error) { return net.Listen("tcp", address) }

func (f *flaky) Dial(ctx context.Context, address string) (net.Conn, error) {
	if f.dead.Load() {
		return nil, errors.New("connection refused")
	}
	c, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	return &flakyConn{Conn: c, network: f}, err
}

type flakyConn struct {
	net.Conn
	network *flaky
}

func (c *flakyConn) Write(b []byte) (int, error) {
	if c.network.dead.Load() {
		return 0, errors.New("broken pipe")
	}
	return c.Conn.Write(b)
}

// A write for which an old connection turned out dead before it took a byte was not sent: it waits for a primary as if
// there had been no connection.
func TestDeadConnectionIsNotSent(t *testing.T) {
	primary := start(t, newFake(), nil)
	network := &flaky{}
	f := newFake()
	f.ask = elsewhere(primary.address)
	n := start(t, f, func(o *Options) { o.Network = network })
	c := n.client(t)
	put := func() error {
		_, err := c.Put(t.Context(), "f", []byte("k"), []byte("v"), client.WriteOptions{})
		return err
	}
	if err := put(); err != nil { // leaves an idle connection
		t.Fatal(err)
	}
	var asked atomic.Int32
	f.ask = func(context.Context) error {
		if asked.Add(1) == 1 {
			network.dead.Store(true)
			return &Elsewhere{HTTP: primary.address}
		}
		return nil // this node has become the primary
	}
	if err := put(); err != nil || asked.Load() != 2 {
		t.Errorf("got %v after %d questions", err, asked.Load())
	}
}
