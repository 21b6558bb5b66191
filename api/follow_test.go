package api

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/understudy-ha/understudy/client"
)

func (f *fake) FollowJournal(ctx context.Context, group, node string, e client.EntryFilter, after string) (EntryStream, error) {
	return f.open(), f.note(ctx, "follow %s/%s from=%d after=%s %s%s all=%t newest=%d", group, node, e.From, after, e.Code, e.Type, e.IncludeAll, e.Newest)
}

func (f *fake) FollowHistory(ctx context.Context, group string, e client.EntryFilter, after string) (EntryStream, error) {
	return f.open(), f.note(ctx, "follow %s after=%s %s%s %s", group, after, e.Code, e.Type, e.Images)
}

func (f *fake) Facts(ctx context.Context, group string, e client.EntryFilter, after string) (client.HistoryPage, error) {
	return client.HistoryPage{Items: []client.Entry{{Sequence: 7, Position: "default@3.43", Journal: "default/b"}}, Next: "default@3.43"},
		f.note(ctx, "facts %s after=%s %s limit=%d", group, after, e.Code, e.Limit)
}

func (f *fake) open() EntryStream {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.stream == nil {
		return &fakeStream{}
	}
	return f.stream
}

// fakeStream gives what comes through a channel.
type fakeStream struct {
	steps  chan StreamStep // nil: nothing ever comes
	fails  chan error
	taken  atomic.Int64
	after  string
	closed atomic.Bool
}

func (s *fakeStream) Next(ctx context.Context) (StreamStep, error) {
	select {
	case step := <-s.steps:
		s.taken.Add(1)
		for _, e := range step.Entries {
			s.after = e.Position
		}
		return step, nil
	case err := <-s.fails:
		return StreamStep{}, err
	case <-ctx.Done():
		return StreamStep{}, context.Cause(ctx)
	}
}

func (s *fakeStream) After() string { return s.after }

func (s *fakeStream) Close() { s.closed.Store(true) }

func fact(h int) client.Entry {
	return client.Entry{Sequence: uint64(100 + h), Position: fmt.Sprintf("default@3.%d", h), Code: "R", Type: "PT", Key: client.MakeKey([]byte("k\xff")), After: &client.Image{Value: []byte("<v>\n")}}
}

// reader reads lines of a stream.
type reader struct {
	t     *testing.T
	lines *bufio.Reader
}

func (r reader) next() client.StreamLine {
	r.t.Helper()
	raw, err := r.lines.ReadString('\n')
	if err != nil {
		r.t.Fatalf("read %q: %v", raw, err)
	}
	var l client.StreamLine
	if err := json.Unmarshal([]byte(raw), &l); err != nil {
		r.t.Fatalf("%q: %v", raw, err)
	}
	return l
}

// Proves RJ-14: a stream gives entries, signs of life and rewinds as they come, outlives the limits of short requests, and says
// at its end why and where to go on; in time when the node stops.
func TestFollowAsLines(t *testing.T) {
	f := newFake()
	s := &fakeStream{steps: make(chan StreamStep), after: "default@3.41"}
	f.stream = s
	n := start(t, f, func(o *Options) {
		o.Limits.ReadTimeout, o.Limits.WriteTimeout, o.Limits.Wait = 50*time.Millisecond, 50*time.Millisecond, time.Millisecond // not that of the header: a busy machine may be late with it
		o.Limits.Heartbeat = 30 * time.Millisecond
	})
	resp := n.send(t, "GET", "/v1/groups/default/entries?follow&after=default@3.41&code=R,U&images=none", nil)
	if got := resp.Header.Get("Content-Type"); resp.StatusCode != http.StatusOK || got != "application/x-ndjson" {
		t.Fatalf("%d %s", resp.StatusCode, got)
	}
	if calls := n.take(); len(calls) != 1 || calls[0] != "follow default after=default@3.41 R,U none" {
		t.Errorf("asked %q", calls)
	}
	r := reader{t, bufio.NewReader(resp.Body)}
	if l := r.next(); l.Heartbeat == nil || l.Heartbeat.After != "default@3.41" {
		t.Fatalf("first line %+v", l)
	}
	for range 4 { // longer than every limit
		if l := r.next(); l.Heartbeat == nil {
			t.Fatalf("%+v", l)
		}
	}
	entry := func() client.StreamLine {
		for {
			if l := r.next(); l.Heartbeat == nil {
				return l
			}
		}
	}
	s.steps <- StreamStep{Entries: []client.Entry{fact(42), fact(43)}}
	for _, h := range []string{"42", "43"} {
		if l := entry(); l.Position != "default@3."+h || string(l.Bytes()) != "k\xff" || string(l.Entry.After.Value) != "<v>\n" {
			t.Fatalf("%+v", l)
		}
	}
	s.steps <- StreamStep{Rewound: &client.Rewound{After: 42}}
	if l := entry(); l.Rewound == nil || l.Rewound.After != 42 {
		t.Fatalf("%+v", l)
	}
	began := time.Now()
	n.stop()
	if took := time.Since(began); took > DefaultLimits().Shutdown/2 { // what running requests are granted
		t.Errorf("the node took %s to stop", took)
	}
	if l := entry(); l.End == nil || l.End.After != "default@3.43" || l.End.Error == nil || l.End.Error.Code != client.CodeUnavailable || l.End.Error.Remedy == "" {
		t.Errorf("%+v", l)
	}
	if _, err := io.Copy(io.Discard, r.lines); err != nil || !s.closed.Load() {
		t.Errorf("the stream must end in order: %v, closed %t", err, s.closed.Load())
	}
}

// Proves RJ-14: the form for browsers has ids, and goes on after the last one.
func TestFollowAsEvents(t *testing.T) {
	f := newFake()
	s := &fakeStream{steps: make(chan StreamStep, 1), after: "default@3.41", fails: make(chan error, 1)}
	f.stream = s
	n := start(t, f, nil)
	resp := n.send(t, "GET", "/v1/groups/default/journals/a/entries", nil, "Accept", "text/event-stream", "Last-Event-ID", "141")
	if calls := n.take(); len(calls) != 1 || calls[0] != "follow default/a from=0 after=141  all=false newest=0" {
		t.Errorf("asked %q", calls)
	}
	s.steps <- StreamStep{Entries: []client.Entry{fact(42)}}
	lines := bufio.NewReader(resp.Body)
	until := func(begin string) string {
		for {
			line, err := lines.ReadString('\n')
			if err != nil {
				t.Fatalf("no %q: %v", begin, err)
			}
			if strings.HasPrefix(line, begin) {
				return line
			}
		}
	}
	until("id: 142\n")
	if line := until("data: "); !strings.Contains(line, `"position":"default@3.42"`) {
		t.Errorf("got %q", line)
	}
	s.fails <- &client.Error{Code: client.CodeGone, Detail: "deleted", Position: "500"}
	until("event: end\n")
	var end client.StreamEnd
	if err := json.Unmarshal([]byte(strings.TrimPrefix(until("data: "), "data: ")), &end); err != nil || end.Error == nil || end.Error.Code != client.CodeGone || end.Error.Position != "500" {
		t.Errorf("%+v, %v", end, err)
	}
	if _, err := io.Copy(io.Discard, lines); err != nil {
		t.Error(err)
	}
}

// What keeps a stream from beginning is a problem; what bounds a list does not go with a stream; too many streams are refused, and
// what a stream took is given back.
func TestFollowIsRefused(t *testing.T) {
	f := newFake()
	n := start(t, f, func(o *Options) { o.Limits.Streams = 1 })
	for _, query := range []string{
		"/journals/a/entries?follow&to=7", "/journals/a/entries?follow&limit=7", "/journals/a/entries?follow&after=x", "/journals/a/entries?after=7",
		"/journals/a/entries?follow&after=other@3.42", "/entries?follow&after=142", "/entries?after=x", "/entries?from=3", "/entries?follow=maybe",
		"/journals/a/entries?code=X", "/journals/a/entries?code=R,,U", "/journals/a/entries?type=PT,dl", "/journals/a/entries?file=a[", "/journals/a/entries?receiver=7-3", "/journals/a/entries?receiver=x",
		"/journals/a/entries?key=a&key_prefix=b", "/journals/a/entries?position_from=3", "/journals/a/entries?position_from=3.42&position_to=3.41", "/journals/a/entries?images=few",
		"/journals/a/entries?newest=10001", "/journals/a/entries?newest=3&limit=4", "/journals/a/entries?order=up", "/journals/a/entries?since=2026-11-22T15:00:00Z&until=2026-11-21T15:00:00Z",
	} {
		if p := problemOf(t, n.send(t, "GET", "/v1/groups/default"+query, nil)); p.Code != client.CodeInvalid || p.Remedy == "" {
			t.Errorf("%s: %+v", query, p)
		}
	}
	if calls := n.take(); len(calls) != 0 {
		t.Errorf("the node was asked %q", calls)
	}
	f.err = &client.Error{Code: client.CodeGone, Detail: "deleted", Position: "default@3.7"}
	for range 2 { // a refused stream is none that counts
		if p := problemOf(t, n.send(t, "GET", "/v1/groups/default/entries?follow", nil)); p.Code != client.CodeGone || p.Status != http.StatusGone || p.Position != "default@3.7" {
			t.Errorf("%+v", p)
		}
	}
	f.err = nil
	first := n.send(t, "GET", "/v1/groups/default/entries?follow&wait=5m", nil)
	if p := problemOf(t, n.send(t, "GET", "/v1/groups/default/entries?follow", nil)); p.Code != client.CodeUnavailable {
		t.Errorf("a second stream: %+v", p)
	}
	_ = first.Body.Close()
	for deadline := time.Now().Add(10 * time.Second); ; {
		resp := n.send(t, "GET", "/v1/groups/default/entries?follow&wait=1ms", nil)
		if resp.StatusCode == http.StatusOK {
			body, err := io.ReadAll(resp.Body)
			if err != nil || !strings.Contains(string(body), `{"end":{"after":""}}`) {
				t.Errorf("a stream bounded in time: %s, %v", body, err)
			}
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("what the first stream took was not given back")
		}
	}
	if resp := n.send(t, "HEAD", "/v1/groups/default/entries?follow", nil); resp.StatusCode != http.StatusOK {
		t.Errorf("HEAD: %d", resp.StatusCode)
	}
}

// Proves RJ-14: a client that takes nothing stops its stream, not the node, costs no more than what the kernel keeps, and is cut.
func TestFollowOfASlowClient(t *testing.T) {
	f := newFake()
	s := &fakeStream{steps: make(chan StreamStep)}
	f.stream = s
	n := start(t, f, func(o *Options) { o.Limits.Stall = 300 * time.Millisecond })
	conn, err := net.Dial("tcp", n.address)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if _, err := io.WriteString(conn, "GET /v1/groups/default/entries?follow HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	big := fact(42)
	big.After.Value = make([]byte, 1<<20)
	feed := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case s.steps <- StreamStep{Entries: []client.Entry{big}}:
			case <-feed:
				return
			}
		}
	}()
	for deadline := time.Now().Add(20 * time.Second); !s.closed.Load(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the stream goes on after %d steps", s.taken.Load())
		}
	}
	close(feed)
	<-done
	if taken := s.taken.Load(); taken > 64 {
		t.Errorf("%d MiB were taken for a client that reads nothing", taken)
	}
}

// The node counts the streams that are open, and what was sent in them, by group.
func TestStreamsAreCounted(t *testing.T) {
	f := newFake()
	s := &fakeStream{steps: make(chan StreamStep), after: "default@3.41"}
	f.stream = s
	n := start(t, f, func(o *Options) { o.Limits.Heartbeat = 10 * time.Millisecond })
	resp := n.send(t, "GET", "/v1/groups/default/entries?follow", nil)
	r := reader{t, bufio.NewReader(resp.Body)}
	s.steps <- StreamStep{Entries: []client.Entry{fact(42), fact(43)}}
	for got := 0; got < 2; {
		if l := r.next(); l.Heartbeat == nil {
			got++
		}
	}
	shows := func(want ...string) bool {
		text, err := n.client(t).Metrics(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range want {
			if !strings.Contains(string(text), line+"\n") {
				return false
			}
		}
		return true
	}
	if !shows(`understudy_journal_streams{group="default"} 1`, `understudy_journal_streams_entries_total{group="default"} 2`) {
		t.Error("an open stream is not counted")
	}
	if err := resp.Body.Close(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); !shows(`understudy_journal_streams{group="default"} 0`, `understudy_journal_streams_entries_total{group="default"} 2`); {
		if time.Now().After(deadline) {
			t.Fatal("a closed stream is counted")
		}
		time.Sleep(5 * time.Millisecond)
	}
}
