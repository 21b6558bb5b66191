package journal

import (
	"context"
	"errors"
	"runtime"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/understudy-ha/understudy/internal/ident"
)

// Whoever waits for a bundle hears of it when that one is durable, when their own time is over, and when the journal ends, also if the bundle
// never came.
func TestWaitersAreAllAnswered(t *testing.T) {
	j := active(t, options(vfs.NewMem()))
	h := deposit(t, j, 1, 1, 100)
	never := h.Last() + 1000
	ended, given := make(chan error, 20), make(chan error, 1)
	for range cap(ended) {
		go func() { ended <- j.WaitDurable(context.Background(), never) }()
	}
	ctx, cancel := context.WithCancel(t.Context())
	go func() { given <- j.WaitDurable(ctx, never) }()
	waiting := func(n int) bool {
		j.waiters.mu.Lock()
		defer j.waiters.mu.Unlock()
		return len(j.waiters.waiting) == n
	}
	for end := time.Now().Add(20 * time.Second); !waiting(cap(ended) + 1); runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatal("they do not wait")
		}
	}
	cancel()
	if err := <-given; !errors.Is(err, context.Canceled) {
		t.Errorf("one whose time is over: %v", err)
	}
	if err := j.WaitDurable(t.Context(), h.Last()); err != nil { // woken alone: the others wait for something else
		t.Error(err)
	}
	if !waiting(cap(ended)) {
		t.Error("others were woken, or forgotten")
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	for range cap(ended) {
		if err := <-ended; !errors.Is(err, ErrClosed) {
			t.Errorf("at the end: %v", err)
		}
	}
	for _, seq := range []ident.Sequence{never, h.Last()} {
		if err := j.WaitDurable(t.Context(), seq); (err == nil) != (seq == h.Last()) {
			t.Errorf("afterwards, %s: %v", seq, err)
		}
	}
}
