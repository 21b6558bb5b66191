package api

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/understudy-ha/understudy/client"
)

// eventLog answers Events as a node does: what it has, then what comes through the channel.
func eventLog(have []client.Event, more <-chan client.Event) func(context.Context, uint64, time.Duration) ([]client.Event, error) {
	return func(ctx context.Context, since uint64, wait time.Duration) ([]client.Event, error) {
		var events []client.Event
		for _, e := range have {
			if e.ID > since {
				events = append(events, e)
			}
		}
		if len(events) > 0 {
			return events, nil
		}
		select {
		case e := <-more:
			return []client.Event{e}, nil
		case <-time.After(wait):
			return nil, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func testEvents() []client.Event {
	return []client.Event{
		{ID: 1, Severity: "info", Group: "orders", Kind: "SRPRIMARY"}, {ID: 2, Severity: "error", Group: "default"},
		{ID: 3, Severity: "critical"}, {ID: 4, Severity: "warning", Group: "orders"},
	}
}

func TestEventFilters(t *testing.T) {
	f := newFake()
	f.events = eventLog(testEvents(), nil)
	n := start(t, f, nil)
	for query, want := range map[string]string{
		"": "1234", "since=2": "34", "severity=error": "23", "group=orders": "134", "group=orders&severity=warning": "34", "since=4": "",
		"severity=critical&since=3&wait=20ms": "", "kind=SRPRIMARY": "1", "kind=SRPRIMARY,SRSTANDBY&group=orders": "1", "kind=SRSTANDBY&wait=20ms": "",
	} {
		resp := n.send(t, "GET", "/v1/events?"+query, nil)
		var got client.Items[client.Event]
		if err := json.NewDecoder(resp.Body).Decode(&got); err != nil || got.Items == nil {
			t.Errorf("%s: %+v %v", query, got, err)
		}
		ids := ""
		for _, e := range got.Items {
			ids += string(rune('0' + e.ID))
		}
		if ids != want {
			t.Errorf("%s: got %s, want %s", query, ids, want)
		}
	}
}

// A kind that no node tells is refused, with those that there are; so is an unknown severity.
func TestEventsOfUnknownKinds(t *testing.T) {
	f := newFake()
	f.events = eventLog(testEvents(), nil)
	n := start(t, f, nil)
	for query, remedy := range map[string]string{"kind=NOPE": "SRSHADOWLOST", "kind=SRPRIMARY,NOPE&follow=true": "SRSHADOWLOST", "kind=srprimary": "SRPRIMARY", "severity=loud": "critical"} {
		resp := n.send(t, "GET", "/v1/events?"+query, nil)
		var e client.Error
		if err := json.NewDecoder(resp.Body).Decode(&e); err != nil || resp.StatusCode != 400 || e.Code != client.CodeInvalid || e.Detail == "" || !strings.Contains(e.Remedy, remedy) {
			t.Errorf("%s: status %d, %+v, %v", query, resp.StatusCode, e, err)
		}
	}
}

// A long poll goes on over events that are not wanted.
func TestLongPollSkipsUnwanted(t *testing.T) {
	more := make(chan client.Event, 2)
	more <- client.Event{ID: 5, Severity: "info"}
	more <- client.Event{ID: 6, Severity: "critical"}
	f := newFake()
	f.events = eventLog(nil, more)
	n := start(t, f, nil)
	resp := n.send(t, "GET", "/v1/events?severity=error&wait=1m", nil)
	if body, err := io.ReadAll(resp.Body); err != nil || !strings.Contains(string(body), `"id":6`) || strings.Contains(string(body), `"id":5`) {
		t.Errorf("got %s, %v", body, err)
	}
}

// A stream delivers events as they come, in both forms, outlives the limits of short requests, and ends with the listener.
func TestEventStreams(t *testing.T) {
	for _, tc := range []struct{ name, accept, query, kind, first, last string }{
		{"lines", "", "?follow&since=3", "application/x-ndjson", `{"id":4,`, `{"id":9,`},
		{"browser", "text/html, text/event-stream;q=0.9", "?since=3", "text/event-stream", "id: 4", "id: 9"},
		{"browser comes back", "text/event-stream", "", "text/event-stream", "id: 4", "id: 9"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			more := make(chan client.Event)
			f := newFake()
			f.events = eventLog(testEvents(), more)
			n := start(t, f, func(o *Options) {
				o.Limits.ReadTimeout, o.Limits.WriteTimeout, o.Limits.Wait = 50*time.Millisecond, 50*time.Millisecond, time.Millisecond // not that of the header: a busy machine may be late with it
			})
			headers := []string{"Accept", tc.accept}
			if tc.query == "" {
				headers = append(headers, "Last-Event-ID", "3")
			}
			resp := n.send(t, "GET", "/v1/events"+tc.query, nil, headers...)
			if got := resp.Header.Get("Content-Type"); got != tc.kind {
				t.Fatalf("content type %q", got)
			}
			lines := bufio.NewReader(resp.Body)
			until := func(begin string) {
				for {
					line, err := lines.ReadString('\n')
					if err != nil {
						t.Fatalf("no %q: %v", begin, err)
					}
					if strings.HasPrefix(line, begin) {
						return
					}
				}
			}
			until(tc.first)
			time.AfterFunc(200*time.Millisecond, func() { more <- client.Event{ID: 9, Severity: "info"} })
			until(tc.last)
			n.stop()
			if _, err := io.Copy(io.Discard, lines); err != nil {
				t.Errorf("the stream must end in order: %v", err)
			}
		})
	}
}

// The wait bounds a stream too.
func TestEventStreamEnds(t *testing.T) {
	f := newFake()
	f.events = eventLog(testEvents(), nil)
	n := start(t, f, nil)
	resp := n.send(t, "GET", "/v1/events?follow=true&wait=50ms", nil)
	if body, err := io.ReadAll(resp.Body); err != nil || strings.Count(string(body), "\n") < 4 {
		t.Errorf("got %q, %v", body, err)
	}
}

// The public client follows events over many polls.
func TestClientFollow(t *testing.T) {
	more := make(chan client.Event, 3)
	f := newFake()
	f.events = eventLog(testEvents(), more)
	c := start(t, f, nil).client(t)
	more <- client.Event{ID: 5, Severity: "info"}
	more <- client.Event{ID: 6, Severity: "info"}
	ids := ""
	for e, err := range c.Follow(t.Context(), 1) {
		if err != nil {
			t.Fatal(err)
		}
		if ids += string(rune('0' + e.ID)); e.ID == 6 {
			break
		}
	}
	if ids != "23456" {
		t.Errorf("got %s", ids)
	}
}
