package client_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/understudy-ha/understudy/client"
)

// streams is a node that answers each request for a stream with the next of the texts, and notes where it was to begin.
func streams(t testing.TB, asked *[]string, texts ...string) string {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		*asked = append(*asked, r.URL.Query().Get("after"))
		n := min(len(*asked), len(texts)) - 1
		text := texts[n]
		if strings.HasPrefix(text, `{"status"`) {
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(http.StatusGone)
		}
		_, _ = fmt.Fprint(w, text)
	}))
	t.Cleanup(s.Close)
	return s.URL
}

func fact(h int) string { return fmt.Sprintf(`{"sequence":%d,"position":"g@1.%d"}`+"\n", 10+h, h) }

// Proves RJ-14: a stream that breaks off, in the middle of a line too, goes on after the last whole entry, or after the last heartbeat; other
// nodes are asked; a node's word that no other can change ends it.
func TestFollowGoesOn(t *testing.T) {
	var asked []string
	url := streams(t, &asked,
		fact(1)+fact(2)+`{"sequence":13,"posi`,
		"\n"+fact(3)+`{"heartbeat":{"after":"g@1.7"}}`+"\n",
		`{"end":{"after":"g@1.8","error":{"code":"unavailable","detail":"stopping"}}}`+"\n",
		fact(9)+`{"rewound":{"after":5}}`+"\n",
		`{"end":{"after":"5","error":{"code":"precondition","detail":"left","position":"g@1.4"}}}`+"\n")
	c := client.NewWith(client.Options{Addresses: []string{"127.0.0.1:1", url}})
	defer c.Close()
	var got []string
	var last error
	rewound := uint64(0)
	o := client.FollowOptions{After: "g@1.0", Notice: func(n client.Notice) {
		if n.Rewound != nil {
			rewound = n.Rewound.After
		}
	}}
	for e, err := range c.FollowHistory(t.Context(), "g", o) {
		if err != nil {
			last = err
			break
		}
		got = append(got, e.Position)
	}
	if strings.Join(got, " ") != "g@1.1 g@1.2 g@1.3 g@1.9" || strings.Join(asked, " ") != "g@1.0 g@1.2 g@1.7 g@1.8 5" || rewound != 5 {
		t.Errorf("got %q, asked after %q, rewound to %d", got, asked, rewound)
	}
	var e *client.Error
	if !errors.As(last, &e) || !errors.Is(last, client.ErrPrecondition) || e.Position != "g@1.4" {
		t.Errorf("ended with %v", last)
	}
}

// What is gone at one node may be held at another; when it is gone at all, the iteration says so.
func TestFollowOfWhatIsGone(t *testing.T) {
	gone := `{"status":410,"code":"gone","detail":"deleted","position":"g@1.40"}`
	var first, second []string
	a, b := streams(t, &first, gone), streams(t, &second, fact(1), gone)
	c := client.New(a, b)
	defer c.Close()
	var got []string
	var last error
	for e, err := range c.FollowHistory(t.Context(), "g", client.FollowOptions{}) {
		if last = err; err == nil {
			got = append(got, e.Position)
		}
	}
	var e *client.Error
	if len(got) != 1 || !errors.Is(last, client.ErrGone) || !errors.As(last, &e) || e.Position != "g@1.40" {
		t.Errorf("got %q, %v", got, last)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	silent := client.New("127.0.0.1:1")
	defer silent.Close()
	for _, err := range silent.FollowHistory(ctx, "g", client.FollowOptions{}) {
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("without any node: %v", err)
		}
	}
	for _, err := range silent.FollowHistory(t.Context(), "g", client.FollowOptions{Patience: time.Millisecond}) {
		if !errors.Is(err, client.ErrUnavailable) {
			t.Errorf("out of patience: %v", err)
		}
	}
	for _, err := range client.New(a, b).FollowJournal(t.Context(), "g", client.Local, client.FollowOptions{}) {
		if !errors.Is(err, client.ErrInvalid) {
			t.Errorf("local at two nodes: %v", err)
		}
	}
}

// A cluster that keeps no holds says so in a way that can be told from other errors.
func TestHolds(t *testing.T) {
	var asked []string
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.Method+" "+r.URL.Path)
		switch r.Method {
		case http.MethodPut:
			_, _ = fmt.Fprint(w, `{"name":"billing","position":"g@3.42","until":"2026-11-23T00:00:00Z"}`)
		case http.MethodGet:
			_, _ = fmt.Fprint(w, `{"items":[{"name":"billing","position":"g@3.42"}]}`)
		}
	}))
	defer s.Close()
	c := client.New(s.URL)
	defer c.Close()
	h, err := c.SetHold(t.Context(), "g", "billing", client.HoldRequest{Position: "g@3.42", For: client.Duration(24 * time.Hour)})
	if err != nil || h.Position != "g@3.42" || h.Until.IsZero() {
		t.Errorf("%+v %v", h, err)
	}
	if all, err := c.Holds(t.Context(), "g"); err != nil || len(all) != 1 || all[0].Name != "billing" {
		t.Errorf("%+v %v", all, err)
	}
	if err := c.RemoveHold(t.Context(), "g", "billing"); err != nil {
		t.Error(err)
	}
	if want := "PUT /v1/groups/g/holds/billing GET /v1/groups/g/holds DELETE /v1/groups/g/holds/billing"; strings.Join(asked, " ") != want {
		t.Errorf("asked %q", asked)
	}
}
