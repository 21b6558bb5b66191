package replica

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"testing"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/journal/entry"
)

// A batch whose time is over is withdrawn from its end: nothing of it is done after something that was not. Here the sequencer takes
// what is left as soon as the first request is withdrawn. Proves BX-5.
func TestBatchIsWithdrawnFromItsEnd(t *testing.T) {
	for range 50 {
		q := &queue{max: 1 << 20}
		requests, out := make([]*request, 8), make([]Written, 8)
		for i := range requests {
			requests[i] = newRequest(100)
		}
		q.pushAll(t.Context(), requests, out)
		freed := q.freed.wait()
		answered := make(chan struct{})
		go func() {
			defer close(answered)
			<-freed
			for _, r := range q.take(1<<20, 100) {
				close(r.sequenced)
				q.answer(r, outcome{receipt: Receipt{Found: true}})
			}
		}()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		q.awaitAll(ctx, requests, out)
		<-answered
		refused := false
		for i := range out {
			switch notDone := errors.Is(out[i].Err, ErrNotSequenced); {
			case notDone:
				refused = true
			case refused:
				t.Fatalf("%d is done after one that is not: %+v", i, out)
			}
		}
		if !refused || q.bytes != 0 {
			t.Fatalf("nothing was withdrawn, or %d bytes are still counted: %+v", q.bytes, out)
		}
	}
}

// From the first request on that finds no room in time none is taken, however small; one that is larger than the queue is refused alone.
// Proves BX-5.
func TestBatchWithoutRoom(t *testing.T) {
	q := &queue{max: 250}
	sizes := []int64{100, 1000, 100, 100, 10}
	requests, out := make([]*request, len(sizes)), make([]Written, len(sizes))
	for i, n := range sizes {
		requests[i] = newRequest(n)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	q.pushAll(ctx, requests, out)
	for i, want := range []error{nil, ErrQueueFull, nil, ErrNotSequenced, ErrNotSequenced} {
		if !errors.Is(out[i].Err, want) || (want == nil) != (requests[i] != nil) {
			t.Errorf("%d: %v, want %v", i, out[i].Err, want)
		}
	}
	if n := q.length(); n != 2 || q.bytes != 200 {
		t.Errorf("%d requests of %d bytes wait", n, q.bytes)
	}
	q.close(ErrNotPrimary)
	late, said := []*request{newRequest(1)}, make([]Written, 1)
	if q.pushAll(t.Context(), late, said); !errors.Is(said[0].Err, ErrNotPrimary) || late[0] != nil {
		t.Errorf("after the end: %v", said[0].Err)
	}
}

// Transactions of a batch are done in their order, each seeing those before it, and a refused one spoils no other. Where this node is
// not the primary none is done.
func TestBatchInOrder(t *testing.T) {
	c := newCluster(t, fsm.GroupSpec{}, "a", "b")
	a := c.nodes["a"]
	c.inSync("a", "b")
	refused := errors.New("refused")
	batch := make([]Transaction, 40)
	for i := range batch {
		batch[i].Program = func(v *View) error {
			now, err := v.Get("f", []byte("k"))
			if err != nil {
				return err
			}
			if want := strconv.Itoa(i - 1 - i/20); i > 0 && i != 20 && (now == nil || string(now.Value) != want) {
				return fmt.Errorf("%d sees %+v, want %s", i, now, want)
			}
			if i == 19 {
				return refused
			}
			return v.Put("f", []byte("k"), entry.Image{Value: []byte(strconv.Itoa(i - i/20))})
		}
	}
	for i, w := range a.rep.WriteAll(t.Context(), batch) {
		switch {
		case i == 19 && errors.Is(w.Err, refused):
		case i == 19 || w.Err != nil || w.Receipt.Position.IsZero():
			t.Errorf("%d: %+v", i, w)
		}
	}
	a.mustGet("k", "38", false)
	for i, w := range c.nodes["b"].rep.WriteAll(t.Context(), batch[:2]) {
		if !errors.Is(w.Err, ErrNotPrimary) {
			t.Errorf("%d at a backup: %+v", i, w)
		}
	}
}
