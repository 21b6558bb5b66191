package replica

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal/entry"
)

func TestGateExcludes(t *testing.T) {
	var g gate
	leave, err := g.enter(1)
	if err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := g.exclusive(short, func() error { return nil }); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("alone beside somebody: %v", err)
	}
	again, err := g.enter(1) // the attempt was given up
	if err != nil {
		t.Fatal(err)
	}
	again()
	promised := make(chan error)
	go func() {
		promised <- g.exclusive(context.Background(), func() error { g.promised.Store(2); return nil })
	}()
	select {
	case <-promised:
		t.Fatal("promised in the middle of an append")
	case <-time.After(10 * time.Millisecond):
	}
	leave()
	leave() // twice is once
	if err := <-promised; err != nil {
		t.Fatal(err)
	}
	var fenced *FencedError
	if _, err := g.enter(1); !errors.As(err, &fenced) || fenced.Have != 2 || fenced.Want != 1 {
		t.Fatalf("an older epoch got in: %v", err)
	}
	if leave, err = g.enter(2); err != nil {
		t.Fatal(err)
	}
	leave()
}

func TestQueueBounds(t *testing.T) {
	q := &queue{max: 100}
	if err := q.push(t.Context(), newRequest(101)); !errors.Is(err, ErrQueueFull) {
		t.Fatalf("larger than the queue: %v", err)
	}
	a, b := newRequest(60), newRequest(30)
	for _, r := range []*request{a, b} {
		if err := q.push(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	short, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := q.push(short, newRequest(20)); !errors.Is(err, ErrNotSequenced) {
		t.Fatalf("a full queue: %v", err)
	}
	if got := q.take(50, 10); len(got) != 1 || got[0] != a {
		t.Fatalf("took %d requests", len(got))
	}
	if q.withdraw(a) || !q.withdraw(b) {
		t.Fatal("what was taken is taken, what waits can be withdrawn")
	}
	done, cancel := context.WithCancel(t.Context())
	cancel()
	a.position = pos(1, 7)
	close(a.sequenced)
	var unknown *UnknownOutcomeError
	if _, err := q.await(done, a); !errors.As(err, &unknown) || unknown.Position != a.position {
		t.Fatalf("gave up after it was sequenced: %v", err)
	}
	c := newRequest(30)
	if err := q.push(t.Context(), c); err != nil { // b's bytes are free, a's are not
		t.Fatal(err)
	}
	if _, err := q.await(done, c); !errors.Is(err, ErrNotSequenced) {
		t.Fatalf("gave up while waiting: %v", err)
	}
	d := newRequest(10)
	if err := q.push(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	q.close(ErrNotPrimary)
	if _, err := q.await(t.Context(), d); !errors.Is(err, ErrNotPrimary) {
		t.Fatalf("closed: %v", err)
	}
	if err := q.push(t.Context(), newRequest(1)); !errors.Is(err, ErrNotPrimary) {
		t.Fatalf("after close: %v", err)
	}
}

func TestOverlay(t *testing.T) {
	var o overlay
	k := recordKey{"f", "k"}
	first, second := &entry.Image{Value: []byte("1")}, &entry.Image{Value: []byte("2")}
	o.put(k, first, pos(1, 1))
	o.put(k, second, pos(1, 2))
	o.release([]touch{{k, pos(1, 1)}})
	if got, ok := o.get(k); !ok || got != second {
		t.Fatal("the newest write in flight is what counts")
	}
	o.put(k, nil, pos(1, 3))
	if got, ok := o.get(k); !ok || got != nil {
		t.Fatal("a delete in flight is known")
	}
	o.release([]touch{{k, pos(1, 3)}})
	if _, ok := o.get(k); ok || len(o.pending) != 0 {
		t.Fatal("what landed is in the store")
	}
}

func pos(e ident.Epoch, h ident.History) ident.Position { return ident.Position{Epoch: e, History: h} }
