package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// server answers with the given steps, one after the other, the last one again and again; it counts the requests.
func server(t *testing.T, steps ...http.HandlerFunc) (address string, count *atomic.Int32) {
	t.Helper()
	count = new(atomic.Int32)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		n := int(count.Add(1))
		steps[min(n, len(steps))-1](w, r)
	}))
	t.Cleanup(s.Close)
	return s.Listener.Addr().String(), count
}

func fails(status int, code Code) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/problem+json; charset=utf-8")
		w.WriteHeader(status)
		_, _ = fmt.Fprintf(w, `{"status":%d,"code":%q,"detail":"what","remedy":"do this","unheard":1}`, status, code)
	}
}

func answers(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

// hangsUp closes the connection without an answer.
func hangsUp(w http.ResponseWriter, _ *http.Request) { panic(http.ErrAbortHandler) }

// refusing is an address where nobody listens.
func refusing(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = ln.Close()
	return ln.Addr().String()
}

func connect(t *testing.T, o Options) *Client {
	t.Helper()
	c := NewWith(o)
	t.Cleanup(c.Close)
	return c
}

const written = `{"position":"default@3.42","journal":"default/a","sequence":42}`

func put(ctx context.Context, c *Client) error {
	_, err := c.Put(ctx, "f", []byte("k"), []byte("v"), WriteOptions{})
	return err
}

// A client with several addresses finds the one that answers, and stays there.
func TestGoesOnToTheNextAddress(t *testing.T) {
	down := refusing(t)
	up, count := server(t, answers(200, written))
	c := connect(t, Options{Addresses: []string{down, up}, Retry: -1})
	for range 3 {
		if err := put(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	if count.Load() != 3 || c.current.Load() != 1 {
		t.Errorf("%d requests, address %d", count.Load(), c.current.Load())
	}
}

// What surely was not done is repeated, a write too, until it is done or the time for it is over.
func TestRepeatsWhatWasNotDone(t *testing.T) {
	for _, code := range []Code{CodeNotPrimary, CodeNoPrimary, CodeNoQuorum, CodeUnavailable} {
		address, count := server(t, fails(503, code), fails(503, code), answers(200, written))
		c := connect(t, Options{Addresses: []string{address}})
		if err := put(t.Context(), c); err != nil || count.Load() != 3 {
			t.Errorf("%s: %v after %d requests", code, err, count.Load())
		}
	}
	address, count := server(t, fails(503, CodeNoPrimary))
	c := connect(t, Options{Addresses: []string{address}, Retry: 100 * time.Millisecond})
	if err := put(t.Context(), c); !errors.Is(err, ErrNoPrimary) || count.Load() < 2 {
		t.Errorf("in the end: %v after %d requests", err, count.Load())
	}
}

func TestDoesNotRepeatTheRest(t *testing.T) {
	for _, code := range []Code{
		CodeInvalid, CodeNotFound, CodeUnknownGroup, CodeTooLarge, CodeExists, CodeBusy, CodePrecondition, CodeNoSync, CodeStale,
		CodeStorageFull, CodeUnknownOutcome, CodeCorrupt, CodeInternal, "of_a_later_version",
	} {
		address, count := server(t, fails(code.Status(), code))
		c := connect(t, Options{Addresses: []string{address, address}})
		sentinel, _, _ := code.condition()
		for _, call := range []func() error{
			func() error { return put(t.Context(), c) },
			func() error { _, err := c.Get(t.Context(), "f", []byte("k"), ReadOptions{}); return err },
		} {
			count.Store(0)
			if err := call(); !errors.Is(err, sentinel) || count.Load() != 1 {
				t.Errorf("%s: %v after %d requests", code, err, count.Load())
			}
		}
	}
}

// A write that was on its way is never sent again; a read is.
func TestConnectionBreaks(t *testing.T) {
	up, count := server(t, hangsUp, answers(200, written))
	c := connect(t, Options{Addresses: []string{up}})
	err := put(t.Context(), c)
	if !errors.Is(err, ErrUnknownOutcome) || count.Load() != 1 {
		t.Errorf("write: %v after %d requests", err, count.Load())
	}
	var e *Error
	if !errors.As(err, &e) || e.Status != 0 || e.Remedy == "" || !errors.Is(err, io.EOF) {
		t.Errorf("write: %#v", err)
	}
	count.Store(0)
	if _, err := c.Get(t.Context(), "f", []byte("k"), ReadOptions{}); err != nil || count.Load() != 2 {
		t.Errorf("read: %v after %d requests", err, count.Load())
	}
	half, _ := server(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "100")
		_, _ = io.WriteString(w, `{"posit`)
	})
	if err := put(t.Context(), connect(t, Options{Addresses: []string{half}})); !errors.Is(err, ErrUnknownOutcome) {
		t.Errorf("half an answer: %v", err)
	}
}

// A caller that gives up on a write hears that its outcome is unknown, and why.
func TestCallerGivesUp(t *testing.T) {
	arrived := make(chan struct{})
	release := make(chan struct{})
	up, _ := server(t, func(http.ResponseWriter, *http.Request) { close(arrived); <-release })
	defer close(release)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-arrived; cancel() }()
	if err := put(ctx, connect(t, Options{Addresses: []string{up}})); !errors.Is(err, ErrUnknownOutcome) || !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	// Before it was sent there is nothing unknown.
	if err := put(ctx, connect(t, Options{Addresses: []string{up}})); errors.Is(err, ErrUnknownOutcome) || !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// A node that hangs costs one try; a read goes on to the next one.
func TestNodeHangs(t *testing.T) {
	release := make(chan struct{})
	hung, _ := server(t, func(http.ResponseWriter, *http.Request) { <-release })
	defer close(release)
	up, _ := server(t, answers(200, "v"))
	o := Options{Addresses: []string{hung, up}, Timeout: 50 * time.Millisecond}
	if _, err := connect(t, o).Get(t.Context(), "f", []byte("k"), ReadOptions{}); err != nil {
		t.Errorf("read: %v", err)
	}
	if err := put(t.Context(), connect(t, o)); !errors.Is(err, ErrUnknownOutcome) {
		t.Errorf("write: %v", err)
	}
}

func TestNobodyAnswers(t *testing.T) {
	one, two := refusing(t), refusing(t)
	c := connect(t, Options{Addresses: []string{one, two}, Retry: 50 * time.Millisecond})
	err := put(t.Context(), c)
	if !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), one) || !strings.Contains(err.Error(), two) || !strings.Contains(err.Error(), "check the addresses") {
		t.Errorf("got %v", err)
	}
}

// Something between client and node answers in its own words.
func TestAnswersThatAreNoProblems(t *testing.T) {
	for _, tc := range []struct {
		status       int
		write, read  error
		says, answer string
	}{
		{502, ErrUnknownOutcome, ErrInternal, "bad gateway", "<html>bad gateway</html>"},
		{404, ErrInternal, ErrInternal, "404", ""},
		{301, ErrInternal, ErrInternal, "301", ""},
	} {
		address, _ := server(t, answers(tc.status, tc.answer))
		c := connect(t, Options{Addresses: []string{address}})
		if err := put(t.Context(), c); !errors.Is(err, tc.write) || !strings.Contains(err.Error(), tc.says) {
			t.Errorf("write: %v", err)
		}
		if _, err := c.Status(t.Context()); !errors.Is(err, tc.read) {
			t.Errorf("read: %v", err)
		}
	}
	address, _ := server(t, answers(200, "no JSON"))
	c := connect(t, Options{Addresses: []string{address}})
	if _, err := c.Status(t.Context()); !errors.Is(err, ErrInternal) {
		t.Errorf("no JSON: %v", err)
	}
}

func TestAddresses(t *testing.T) {
	for address, want := range map[string]string{
		"127.0.0.1:7400": "http://127.0.0.1:7400", "http://a:1/": "http://a:1", "https://a": "https://a", "[::1]:7400": "http://[::1]:7400", "a": "http://a",
	} {
		if got, err := baseOf(address); err != nil || got != want {
			t.Errorf("%s: %s, %v", address, got, err)
		}
	}
	for _, address := range []string{"", ":7400", "ftp://a", "http://a/v1", "a:b:c", "a b", "a:99999"} {
		c := connect(t, Options{Addresses: []string{"127.0.0.1:1", address}})
		if _, err := c.Status(t.Context()); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "host:port") {
			t.Errorf("%q: %v", address, err)
		}
	}
	c := New()
	defer c.Close()
	if _, err := c.Status(t.Context()); !errors.Is(err, ErrInvalid) {
		t.Errorf("none: %v", err)
	}
}

// A switch-over that takes longer than one request waits is followed to its end.
func TestFollowsOperation(t *testing.T) {
	var paths []string
	running, done := `{"id":7,"state":"running"}`, `{"id":7,"state":"done"}`
	note := func(next http.HandlerFunc) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			paths = append(paths, r.Method+" "+r.URL.Path)
			next(w, r)
		}
	}
	address, _ := server(t, note(answers(202, running)), note(answers(200, running)), note(answers(200, done)))
	c := connect(t, Options{Addresses: []string{address}})
	op, err := c.Switchover(t.Context(), "default", SwitchoverRequest{To: "b"}, time.Minute)
	if err != nil || op.State != OperationDone {
		t.Errorf("got %+v, %v", op, err)
	}
	want := []string{"POST /v1/groups/default/switchover", "GET /v1/operations/7", "GET /v1/operations/7"}
	if !slices.Equal(paths, want) {
		t.Errorf("asked %q", paths)
	}
	address, count := server(t, answers(202, running))
	c = connect(t, Options{Addresses: []string{address}})
	if op, err = c.Failover(t.Context(), "default", FailoverRequest{}, 0); err != nil || op.Finished() || count.Load() != 1 {
		t.Errorf("without wait: %+v, %v, %d requests", op, err, count.Load())
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err = c.WaitOperation(ctx, 7); !errors.Is(err, context.Canceled) {
		t.Errorf("wait: %v", err)
	}
}

func TestAllReadsPageByPage(t *testing.T) {
	var from []string
	page := func(body string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			from = append(from, r.URL.Query().Get("from"))
			_, _ = io.WriteString(w, body)
		}
	}
	address, _ := server(t, page(`{"records":[{"key":"a"},{"key":"b"}],"next":{"key":"?","key_base64":"/2M="}}`), page(`{"records":[{"key":"d"}]}`))
	keys := ""
	for r, err := range connect(t, Options{Addresses: []string{address}}).All(t.Context(), "f", ListOptions{}) {
		if err != nil {
			t.Fatal(err)
		}
		keys += r.Key.Text
	}
	if keys != "abd" || !slices.Equal(from, []string{"", "\xffc"}) {
		t.Errorf("keys %s, pages from %q", keys, from)
	}
	address, _ = server(t, page(`{"records":[{"key":"a"}],"next":{"key":"b"}}`), fails(404, CodeNotFound))
	var last error
	for _, err := range connect(t, Options{Addresses: []string{address}}).All(t.Context(), "f", ListOptions{}) {
		last = err
	}
	if !errors.Is(last, ErrNotFound) {
		t.Errorf("got %v", last)
	}
}

// deadConn takes no byte once its network is down.
type deadConn struct {
	net.Conn
	down *atomic.Bool
}

func (c deadConn) Write(b []byte) (int, error) {
	if c.down.Load() {
		return 0, errors.New("broken pipe")
	}
	return c.Conn.Write(b)
}

// A write for which an old connection turned out dead before it took a byte goes on to the next address.
func TestDeadConnectionIsNotSent(t *testing.T) {
	var down atomic.Bool
	first, count := server(t, answers(200, written))
	second, other := server(t, answers(200, written))
	tr := &http.Transport{DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
		if address == first && down.Load() {
			return nil, errors.New("connection refused")
		}
		c, err := (&net.Dialer{}).DialContext(ctx, network, address)
		if address == first {
			c = deadConn{c, &down}
		}
		return c, err
	}}
	defer tr.CloseIdleConnections()
	c := connect(t, Options{Addresses: []string{first, second}, HTTPClient: &http.Client{Transport: tr}})
	if err := put(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	down.Store(true)
	if err := put(t.Context(), c); err != nil || count.Load() != 1 || other.Load() != 1 {
		t.Errorf("got %v; %d and %d requests", err, count.Load(), other.Load())
	}
}

// What a living node says wins over the silence of the others, for reads and for changes.
func TestAnAnswerWinsOverSilence(t *testing.T) {
	living, _ := server(t, fails(503, CodeNoQuorum))
	for _, addresses := range [][]string{{living, refusing(t), refusing(t)}, {refusing(t), living, refusing(t)}, {refusing(t), refusing(t), living}} {
		c := connect(t, Options{Addresses: addresses, Retry: 50 * time.Millisecond})
		_, read := c.Status(t.Context())
		for what, err := range map[string]error{"read": read, "write": put(t.Context(), c)} {
			if !errors.Is(err, ErrNoQuorum) || !strings.Contains(err.Error(), "do this") {
				t.Errorf("%s: %v", what, err)
			}
		}
	}
}

// A node that hangs blinds nobody: a read is answered by the next one, and a change does not go to it when it is probed.
func TestHungNodeCostsAMoment(t *testing.T) {
	release := make(chan struct{})
	hung, reached := server(t, func(http.ResponseWriter, *http.Request) { <-release })
	defer close(release)
	up, _ := server(t, answers(200, written))
	c := connect(t, Options{Addresses: []string{hung, refusing(t), up}, Hedge: 20 * time.Millisecond, Probe: true})
	if err := put(t.Context(), c); err != nil || reached.Load() != 1 || c.current.Load() != 2 {
		t.Errorf("write: %v; %d requests hang, address %d", err, reached.Load(), c.current.Load())
	}
	began := time.Now()
	c = connect(t, Options{Addresses: []string{hung, up}, Hedge: 20 * time.Millisecond})
	if _, err := c.Get(t.Context(), "f", []byte("k"), ReadOptions{}); err != nil || time.Since(began) > 5*time.Second {
		t.Errorf("read: %v after %s", err, time.Since(began))
	}
	// An answer that says nothing was done is not held back by one that hangs.
	without, _ := server(t, fails(503, CodeNoQuorum))
	c = connect(t, Options{Addresses: []string{without, hung}, Hedge: 20 * time.Millisecond, Retry: -1})
	if _, err := c.Status(t.Context()); !errors.Is(err, ErrNoQuorum) {
		t.Errorf("no quorum: %v", err)
	}
	// Nobody answers in the caller's time: there is something to do about it.
	c = connect(t, Options{Addresses: []string{hung, refusing(t)}, Hedge: 20 * time.Millisecond})
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err := c.Status(ctx)
	if !errors.Is(err, ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "no answer in time") || !strings.Contains(err.Error(), "check the addresses") {
		t.Errorf("nobody: %v", err)
	}
}
