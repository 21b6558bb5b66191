package client

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

const once = "key of this write"

func putOnce(ctx context.Context, c *Client) (WriteResult, error) {
	return c.Put(ctx, "f", []byte("k"), []byte("v"), WriteOptions{IdempotencyKey: once})
}

// A write with a key is repeated, with the same key, until a node knows its outcome; what a node refuses for a reason of its own says
// nothing about a try whose outcome is unknown. Proves TR-3.
func TestRepeatsWithKey(t *testing.T) {
	done := answers(200, written)
	unknown, refused := fails(504, CodeUnknownOutcome), fails(412, CodePrecondition)
	for name, tc := range map[string]struct {
		steps []http.HandlerFunc
		want  error
		count int32
	}{
		"hangs up":                       {[]http.HandlerFunc{hangsUp, done}, nil, 2},
		"unknown":                        {[]http.HandlerFunc{unknown, done}, nil, 2},
		"a defect":                       {[]http.HandlerFunc{fails(500, CodeInternal), done}, nil, 2},
		"a proxy's words":                {[]http.HandlerFunc{answers(502, "bad gateway"), done}, nil, 2},
		"again and again":                {[]http.HandlerFunc{hangsUp, unknown, fails(503, CodeNoPrimary), hangsUp, done}, nil, 5},
		"refused for good":               {[]http.HandlerFunc{hangsUp, refused}, ErrPrecondition, 2},
		"nothing to delete":              {[]http.HandlerFunc{unknown, fails(404, CodeNotFound)}, ErrNotFound, 2},
		"refused at once":                {[]http.HandlerFunc{refused}, ErrPrecondition, 1},
		"not taken":                      {[]http.HandlerFunc{fails(503, CodeNoSync)}, ErrNoSync, 1},
		"unknown, then not taken, done":  {[]http.HandlerFunc{unknown, fails(503, CodeNoSync), fails(507, CodeJournalFull), done}, nil, 4},
		"unknown, then too large, known": {[]http.HandlerFunc{hangsUp, fails(413, CodeTooLarge), done}, nil, 3},
	} {
		var mu sync.Mutex
		var keys []string
		steps := make([]http.HandlerFunc, len(tc.steps))
		for i, step := range tc.steps {
			steps[i] = func(w http.ResponseWriter, r *http.Request) {
				mu.Lock()
				keys = append(keys, r.Header.Get(HeaderIdempotencyKey))
				mu.Unlock()
				step(w, r)
			}
		}
		address, count := server(t, steps...)
		_, err := putOnce(t.Context(), connect(t, Options{Addresses: []string{address}}))
		if !errors.Is(err, tc.want) || count.Load() != tc.count {
			t.Errorf("%s: %v after %d requests, want %v after %d", name, err, count.Load(), tc.want, tc.count)
		}
		if all := strings.Join(keys, ","); all != strings.TrimSuffix(strings.Repeat(once+",", int(tc.count)), ",") {
			t.Errorf("%s: keys %s", name, all)
		}
	}
}

// When the time is over the outcome stays unknown, whatever was heard last.
func TestUnknownStaysUnknown(t *testing.T) {
	for _, later := range []http.HandlerFunc{fails(503, CodeNoPrimary), fails(503, CodeNoSync), hangsUp} {
		address, count := server(t, hangsUp, later)
		_, err := putOnce(t.Context(), connect(t, Options{Addresses: []string{address}, Retry: 100 * time.Millisecond}))
		var e *Error
		if !errors.Is(err, ErrUnknownOutcome) || !errors.As(err, &e) || !strings.Contains(e.Remedy, "key") || count.Load() < 2 {
			t.Errorf("%v after %d requests", err, count.Load())
		}
	}
	address, count := server(t, hangsUp)
	if _, err := putOnce(t.Context(), connect(t, Options{Addresses: []string{address}, Retry: -1})); !errors.Is(err, ErrUnknownOutcome) || count.Load() != 1 {
		t.Errorf("without repetition: %v after %d requests", err, count.Load())
	}
	// A caller that gives up.
	ctx, cancel := context.WithCancel(t.Context())
	address, _ = server(t, func(w http.ResponseWriter, r *http.Request) { cancel(); hangsUp(w, r) })
	if _, err := putOnce(ctx, connect(t, Options{Addresses: []string{address}})); !errors.Is(err, ErrUnknownOutcome) {
		t.Errorf("given up: %v", err)
	}
}

// A node that hangs costs one try: the write goes to the next one.
func TestHungNodeDoesNotKeepAKeyedWrite(t *testing.T) {
	release := make(chan struct{})
	hung, _ := server(t, func(http.ResponseWriter, *http.Request) { <-release })
	defer close(release)
	up, _ := server(t, answers(201, written))
	if w, err := putOnce(t.Context(), connect(t, Options{Addresses: []string{hung, up}, Timeout: 50 * time.Millisecond, Retry: time.Millisecond})); err != nil || !w.Created {
		t.Errorf("%+v %v", w, err)
	}
}

// With ExactlyOnce each write has a key of its own, reads have none.
func TestEachWriteHasItsKey(t *testing.T) {
	var mu sync.Mutex
	var keys []string
	address, _ := server(t, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		if keys = append(keys, r.Header.Get(HeaderIdempotencyKey)); len(keys)%2 == 1 && r.Method != http.MethodGet {
			hangsUp(w, r)
		}
		w.Header().Set(HeaderReplayed, "true")
		answers(200, written)(w, r)
	})
	c := connect(t, Options{Addresses: []string{address}, ExactlyOnce: true})
	calls := []func() (bool, error){
		func() (bool, error) {
			w, err := c.Put(t.Context(), "f", []byte("k"), nil, WriteOptions{})
			return w.Replayed, err
		},
		func() (bool, error) {
			w, err := c.Delete(t.Context(), "f", []byte("k"), WriteOptions{})
			return w.Replayed, err
		},
		func() (bool, error) {
			var x Transaction
			w, err := c.Transact(t.Context(), x.Put("f", []byte("k"), nil), WriteOptions{})
			return w.Replayed, err
		},
		func() (bool, error) {
			w, err := c.DepositEntry(t.Context(), "g", DepositRequest{Type: "A1"})
			return w.Replayed, err
		},
	}
	seen := map[string]bool{}
	for i, call := range calls {
		if replayed, err := call(); err != nil || !replayed || len(keys) != 2*(i+1) || len(keys[2*i]) != 32 || keys[2*i] != keys[2*i+1] || seen[keys[2*i]] {
			t.Fatalf("call %d: %v, keys %q", i, err, keys)
		}
		seen[keys[2*i]] = true
	}
	if _, err := c.Get(t.Context(), "f", []byte("k"), ReadOptions{}); err != nil || keys[len(keys)-1] != "" {
		t.Errorf("a read: %v, key %q", err, keys[len(keys)-1])
	}
}
