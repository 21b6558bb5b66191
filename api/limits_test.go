package api

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/understudy-ha/understudy/client"
)

// chunked hides a reader's length, so that the body goes without Content-Length.
type chunked struct{ io.Reader }

func TestBodyLimits(t *testing.T) {
	f := newFake()
	n := start(t, f, nil)
	value := make([]byte, client.MaxValue)
	resp := n.send(t, "PUT", "/v1/files/f/records/new", bytes.NewReader(value))
	if resp.StatusCode != http.StatusCreated {
		t.Fatalf("a value of the largest size: %d", resp.StatusCode)
	}
	f.take()
	more := append(value, 0)
	for name, send := range map[string]func() *http.Response{
		"value": func() *http.Response { return n.send(t, "PUT", "/v1/files/f/records/k", bytes.NewReader(more)) },
		"value chunked": func() *http.Response {
			return n.send(t, "PUT", "/v1/files/f/records/k", chunked{bytes.NewReader(more)})
		},
		"JSON": func() *http.Response {
			return n.send(t, "POST", "/v1/groups", bytes.NewReader(bytes.Repeat([]byte(" "), jsonBody+1)))
		},
		"no body wanted": func() *http.Response {
			return n.send(t, "POST", "/v1/groups/g/journals/local/change-receiver", strings.NewReader("x"))
		},
		"no body wanted chunked": func() *http.Response {
			return n.send(t, "POST", "/v1/groups/g/journals/local/change-receiver", chunked{strings.NewReader("x")})
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := problemOf(t, send())
			if p.Code != client.CodeTooLarge || p.Status != http.StatusRequestEntityTooLarge || p.Remedy == "" {
				t.Errorf("got %+v", p)
			}
		})
	}
	if asked := f.take(); asked != nil {
		t.Errorf("asked %q", asked)
	}
}

func TestNameLimits(t *testing.T) {
	f := newFake()
	n := start(t, f, nil)
	key, file := strings.Repeat("k", client.MaxKey), strings.Repeat("f", client.MaxFileName)
	for _, tc := range []struct {
		path   string
		status int
	}{
		{"/v1/files/" + file + "/records/" + key, 200},
		{"/v1/files/f/records/" + strings.Repeat("%ff", client.MaxKey), 200},
		{"/v1/files/f/records/" + key + "k", 414},
		{"/v1/files/" + file + "f/records/k", 414},
		{"/v1/files/f/records?prefix=" + key + "k", 414},
		{"/v1/files/f/records/", 400},
		{"/v1/files/%ff/records/k", 400},
		{"/v1/files/f/records/" + strings.Repeat("k", 40<<10), 431}, // net/http answers this one
	} {
		if resp := n.send(t, "GET", tc.path, nil); resp.StatusCode != tc.status {
			t.Errorf("%.40s… (%d bytes): status %d, want %d", tc.path, len(tc.path), resp.StatusCode, tc.status)
		} else if tc.status == 400 || tc.status == 414 {
			problemOf(t, resp)
		}
	}
}

// Proves that nothing a caller mistypes is ignored.
func TestMalformedRequests(t *testing.T) {
	f := newFake()
	n := start(t, f, nil)
	for _, tc := range []struct{ method, path, body, says string }{
		{"POST", "/v1/groups/g/switchover", `{"to":`, "the body"},
		{"POST", "/v1/groups/g/switchover", `{"too":"b"}`, "too"},
		{"POST", "/v1/groups/g/switchover", `{"to":"b"} {}`, "more after"},
		{"POST", "/v1/groups/g/switchover", `{"to":7}`, "the body"},
		{"POST", "/v1/groups/g/switchover", `{"max_pause":"soon"}`, "soon"},
		{"POST", "/v1/groups/g/switchover", `{"max_pause":"-1s"}`, "-1s"},
		{"POST", "/v1/groups/g/switchover", `[]`, "the body"},
		{"POST", "/v1/groups/g/switchover", `{"to":""}`, "empty"},
		{"POST", "/v1/groups/g/switchover", `{"to":null}`, "empty"},
		{"POST", "/v1/groups/g/switchover", `null`, "null"},
		{"POST", "/v1/groups/g/switchover", `{"to":7}`, `field "to" has to be text, not a number`},
		{"POST", "/v1/groups/g/switchover", `[]`, "want an object, not a list"},
		{"POST", "/v1/groups/g/switchover", `{"at":"soon"}`, "soon is not a time"},
		{"POST", "/v1/groups/g/switchover", `{"max_pause":"-1s"}`, "negative"},
		{"POST", "/v1/groups/g/failover", `{}`, "where to"},
		{"POST", "/v1/groups/g/failover", "", "where to"},
		{"GET", "/v1/operations/7?wait=-1s", "", "negative"},
		{"POST", "/v1/groups/g/switchback", `{"to":"b"}`, "preferred"},
		{"POST", "/v1/groups/g/failover", `{"allow_dataloss":true}`, "allow_dataloss"},
		{"POST", "/v1/groups", `{}`, "no name"},
		{"POST", "/v1/groups", strings.Repeat("[", 20000), "the body"},
		{"POST", "/v1/groups/g/journals/local/entries", `{"type":"SW"}`, "SW"},
		{"POST", "/v1/groups/g/journals/local/entries", `{"type":"abc"}`, "abc"},
		{"POST", "/v1/groups/g/journals/local/entries", `{"type":"A1","data":"eA==","text":"x"}`, "both"},
		{"POST", "/v1/groups/g/journals/local/entries", `{"type":"A1","data":"?"}`, "the body"},
		{"GET", "/v1/status?locale=true", "", "locale"},
		{"GET", "/v1/status?local=maybe", "", "maybe"},
		{"GET", "/v1/status?local=true&local=false", "", "2 times"},
		{"GET", "/v1/status?local=%zz", "", "query"},
		{"GET", "/v1/operations/seven", "", "seven"},
		{"GET", "/v1/operations/7?wait=30", "", "wait=30"},
		{"GET", "/v1/operations/7?wait=11m", "", "wait=11m"},
		{"GET", "/v1/operations/7?wait=-1s", "", "wait=-1s"},
		{"GET", "/v1/files/f/records?limit=1001", "", "1001"},
		{"GET", "/v1/files/f/records?limit=-1", "", "-1"},
		{"GET", "/v1/files/f/records/k?max_lag=x", "", "max_lag"},
		{"GET", "/v1/groups/g/journals/b/entries?from=9&to=3", "", "from=9"},
		{"GET", "/v1/groups/g/journals/b/entries?code=X", "", "code=X"},
		{"GET", "/v1/groups/g/journals/b/entries?type=put", "", "type=put"},
		{"GET", "/v1/groups/g/journals/b/entries?since=yesterday", "", "since"},
		{"GET", "/v1/groups/g/journals/b/entries?include=some", "", "include"},
		{"GET", "/v1/groups/g/journals/b/entries?limit=10001", "", "10001"},
		{"GET", "/v1/events?severity=loud", "", "loud"},
		{"GET", "/replica?lag=much", "", "lag=much"},
		{"GET", "/primary?lag=1", "", "lag"},
	} {
		p := problemOf(t, n.send(t, tc.method, tc.path, strings.NewReader(tc.body)))
		if p.Status != 400 || p.Code != client.CodeInvalid || !strings.Contains(p.Detail, tc.says) || p.Remedy == "" {
			t.Errorf("%s %s %.40s: %d %s (%s), want a word on %q", tc.method, tc.path, tc.body, p.Status, p.Detail, p.Remedy, tc.says)
		}
	}
	if p := problemOf(t, n.send(t, "GET", "/v1/status", nil, headerHops, "many")); p.Status != 400 {
		t.Errorf("hops: %+v", p)
	}
	if p := problemOf(t, n.send(t, "POST", "/v1/groups/g/failover", nil, "Idempotency-Key", "1")); p.Code != client.CodeUnsupported {
		t.Errorf("an option that is not kept must be refused: %+v", p)
	}
	if asked := f.take(); asked != nil {
		t.Errorf("asked %q", asked)
	}
}

// All bodies together have a limit, and it is given back.
func TestBodiesTogether(t *testing.T) {
	f := newFake()
	inside, finish := make(chan struct{}), make(chan struct{})
	f.ask = func(context.Context) error { inside <- struct{}{}; <-finish; return nil }
	n := start(t, f, func(o *Options) { o.Limits.Bodies = 150 })
	c := n.client(t)
	first := make(chan error, 1)
	go func() {
		_, err := c.Put(t.Context(), "f", []byte("k"), make([]byte, 100), client.WriteOptions{})
		first <- err
	}()
	<-inside
	if p := problemOf(t, n.send(t, "PUT", "/v1/files/f/records/k", bytes.NewReader(make([]byte, 100)))); p.Code != client.CodeUnavailable {
		t.Errorf("got %+v", p)
	}
	close(finish)
	if err := <-first; err != nil {
		t.Error(err)
	}
	if used := n.api.bodies.used.Load(); used != 0 {
		t.Errorf("%d bytes are not given back", used)
	}
}

// A client that sends its header or its body slowly loses its connection.
func TestSlowClients(t *testing.T) {
	for name, begin := range map[string]string{
		"header": "GET /v1/status HTTP/1.1\r\nHost: a\r\nX-Slow",
		"body":   "PUT /v1/files/f/records/k HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc",
	} {
		t.Run(name, func(t *testing.T) {
			n := start(t, newFake(), func(o *Options) {
				if name == "header" {
					o.Limits.HeaderTimeout = 50 * time.Millisecond
				} else {
					o.Limits.ReadTimeout = 50 * time.Millisecond
				}
			})
			c, err := net.Dial("tcp", n.address)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = c.Close() }()
			_, _ = io.WriteString(c, begin) // a busy machine may be late with it, and the connection closed
			_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
			var late net.Error
			if _, err := io.Copy(io.Discard, c); errors.As(err, &late) && late.Timeout() { // to its end: the node closed it
				t.Errorf("the connection stayed open: %v", err)
			}
			if asked := n.take(); asked != nil {
				t.Errorf("asked %q", asked)
			}
		})
	}
}

// Keys are taken as they are written, also where a path would be cleaned.
func TestKeysAreNotCleaned(t *testing.T) {
	n := start(t, newFake(), nil)
	for path, want := range map[string]string{
		"a//b": "a//b", "a/../b": "a/../b", "a/./b/": "a/./b/", "/a": "/a", "a%2Fb": "a/b", "a%252Fb": "a%2Fb", "a+b;c=d:e@f": "a+b;c=d:e@f", "%00": "\x00",
	} {
		resp := n.send(t, "GET", "/v1/files/f/records/"+path, nil)
		if asked := n.take(); resp.StatusCode != 200 || len(asked) != 1 || asked[0] != fmt.Sprintf("get f %q local=false lag=0s", want) {
			t.Errorf("%s: %d, asked %q", path, resp.StatusCode, asked)
		}
	}
}

func TestDefaultLimitsAreSet(t *testing.T) {
	l := Limits{}.withDefaults()
	if l != DefaultLimits() || l.HeaderTimeout != 5*time.Second || l.Header != 32<<10 {
		t.Errorf("got %+v", l)
	}
	for name, v := range map[string]time.Duration{"read": l.ReadTimeout, "write": l.WriteTimeout, "idle": l.IdleTimeout, "wait": l.Wait, "max": l.MaxWait, "shutdown": l.Shutdown} {
		if v <= 0 {
			t.Errorf("%s has no limit", name)
		}
	}
}

// Beyond the limit, connections wait until another one ends.
func TestConnectionLimit(t *testing.T) {
	n := start(t, newFake(), func(o *Options) { o.Limits.Connections = 1 })
	first, err := net.Dial("tcp", n.address)
	if err != nil {
		t.Fatal(err)
	}
	get := func(c net.Conn) (*http.Response, error) {
		if _, err := fmt.Fprint(c, "GET /livez HTTP/1.1\r\nHost: a\r\n\r\n"); err != nil {
			return nil, err
		}
		return http.ReadResponse(bufio.NewReader(c), nil)
	}
	if _, err := get(first); err != nil {
		t.Fatal(err)
	}
	second, err := net.Dial("tcp", n.address)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = second.Close() }()
	_ = second.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	if _, err := get(second); err == nil {
		t.Error("a second connection was served")
	}
	_ = first.Close()
	_ = second.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := http.ReadResponse(bufio.NewReader(second), nil); err != nil {
		t.Errorf("the second connection was not served after the first one ended: %v", err)
	}
}

// A long wait outlives the limits that are meant for short requests.
func TestLongPollOutlivesTimeouts(t *testing.T) {
	f := newFake()
	f.events = func(ctx context.Context, since uint64, wait time.Duration) ([]client.Event, error) {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(wait):
			return []client.Event{{ID: 1, Severity: client.SeverityInfo}}, nil
		}
	}
	n := start(t, f, func(o *Options) {
		o.Limits.ReadTimeout, o.Limits.WriteTimeout = 50*time.Millisecond, 50*time.Millisecond // not that of the header: a busy machine may be late with it
	})
	got, err := n.client(t).Events(t.Context(), 0, 300*time.Millisecond)
	if err != nil || len(got) != 1 {
		t.Errorf("got %v, %v", got, err)
	}
}

// Serve tells waiting requests to finish, lets writes finish, and returns when no handler runs.
func TestServeEndsInOrder(t *testing.T) {
	f := newFake()
	inside, finish := make(chan struct{}, 2), make(chan struct{})
	f.events = func(ctx context.Context, _ uint64, _ time.Duration) ([]client.Event, error) {
		inside <- struct{}{}
		<-ctx.Done()
		return nil, ctx.Err()
	}
	f.ask = func(ctx context.Context) error {
		inside <- struct{}{}
		<-finish
		return ctx.Err()
	}
	n := start(t, f, nil)
	c := n.client(t)
	poll, write := make(chan error, 1), make(chan error, 1)
	go func() { _, err := c.Events(t.Context(), 0, time.Minute); poll <- err }()
	go func() {
		_, err := c.Put(t.Context(), "f", []byte("k"), nil, client.WriteOptions{})
		write <- err
	}()
	<-inside
	<-inside
	stopped := make(chan struct{})
	go func() { n.stop(); close(stopped) }()
	if err := <-poll; client.CodeOf(err) != client.CodeUnavailable {
		t.Errorf("poll: %v", err)
	}
	close(finish)
	if err := <-write; err != nil {
		t.Errorf("write: %v", err)
	}
	<-stopped
}

// A handler that is stuck does not keep Serve for ever, and is named.
func TestServeGivesUpOnHandlers(t *testing.T) {
	f := newFake()
	inside, finish := make(chan struct{}), make(chan struct{})
	f.ask = func(context.Context) error { close(inside); <-finish; return nil }
	a := New(Options{Node: "a", Data: f, Roles: f, Journals: f, Logger: hclog.NewNullLogger(), Limits: Limits{Shutdown: 50 * time.Millisecond}})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- a.Serve(ctx, ln) }()
	c := client.NewWith(client.Options{Addresses: []string{ln.Addr().String()}, Retry: -1})
	defer c.Close()
	lost := make(chan error, 1)
	go func() { _, err := c.Put(t.Context(), "f", []byte("k"), nil, client.WriteOptions{}); lost <- err }()
	<-inside
	cancel()
	if err := <-served; err == nil || !strings.Contains(err.Error(), "1 requests do not end") {
		t.Errorf("Serve: %v", err)
	}
	if err := <-lost; client.CodeOf(err) != client.CodeUnknownOutcome {
		t.Errorf("the write whose connection was closed: %v", err)
	}
	close(finish)
}
