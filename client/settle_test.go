package client_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/understudy-ha/understudy/client"
)

// A write whose outcome is unknown is settled by its receipt, over nodes that cannot say yet; without a position nobody can tell. Proves TR-3.
func TestSettle(t *testing.T) {
	var asked atomic.Int32
	n := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		problem := func(status int, code string) {
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(status)
			_, _ = fmt.Fprintf(w, `{"code":%q,"position":"default@3.42"}`, code)
		}
		switch k := asked.Add(1); {
		case r.Method == http.MethodPut:
			problem(504, "unknown_outcome")
		case k == 2:
			problem(503, "no_primary")
		case k == 3:
			_, _ = fmt.Fprint(w, `{"position":"default@3.42","outcome":"undecided"}`)
		default:
			_, _ = fmt.Fprint(w, `{"position":"default@3.42","outcome":"done"}`)
		}
	}))
	defer n.Close()
	c := client.NewWith(client.Options{Addresses: []string{n.URL}, Retry: -1})
	defer c.Close()
	_, err := c.Put(t.Context(), "orders", []byte("1"), []byte("v"), client.WriteOptions{})
	if !errors.Is(err, client.ErrUnknownOutcome) {
		t.Fatal(err)
	}
	if r, err := c.Settle(t.Context(), err); err != nil || r.Outcome != client.OutcomeDone || asked.Load() != 4 {
		t.Errorf("%+v, %v after %d requests", r, err, asked.Load())
	}
	asked.Store(0)
	for want, err := range map[string]error{client.OutcomeDone: nil, client.OutcomeNotDone: &client.Error{Code: client.CodeJournalFull}} {
		if r, err := c.Settle(t.Context(), err); err != nil || r.Outcome != want {
			t.Errorf("%+v, %v, want %s", r, err, want)
		}
	}
	lost := &client.Error{Code: client.CodeUnknownOutcome}
	if r, err := c.Settle(t.Context(), lost); err != lost || r.Outcome != client.OutcomeUndecided || asked.Load() != 0 {
		t.Errorf("%+v, %v after %d requests", r, err, asked.Load())
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	undecided := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = fmt.Fprint(w, `{"position":"default@3.42","outcome":"undecided"}`)
	}))
	defer undecided.Close()
	u := client.New(undecided.URL)
	defer u.Close()
	if r, err := u.Settle(ctx, &client.Error{Code: client.CodeUnknownOutcome, Position: "default@3.42"}); err == nil || r.Outcome != client.OutcomeUndecided {
		t.Errorf("%+v, %v", r, err)
	}
}
