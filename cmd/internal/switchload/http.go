package switchload

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/understudy-ha/understudy/client"
)

const (
	writerFile = "switch"
	wait       = 20 * time.Second // for a primary, within one request
)

// writer writes one record over HTTP: first as it comes, then on the condition that its last change is the write before, and so on. A write
// that was lost, or done again after its answer, breaks the condition of the next.
type writer struct {
	load   *Load
	id     int
	client *client.Client

	n        int64
	position string // of the last acknowledged write
	doubt    bool
}

func newWriter(l *Load, id int) *writer {
	at := id % len(l.o.Nodes)
	addresses := []string{l.o.Nodes[at].HTTP}
	if l.o.Moves {
		for i := range l.o.Nodes[1:] {
			addresses = append(addresses, l.o.Nodes[(at+1+i)%len(l.o.Nodes)].HTTP)
		}
	}
	return &writer{load: l, id: id, client: client.NewWith(client.Options{Addresses: addresses, Retry: -1})}
}

func (w *writer) key() []byte          { return fmt.Appendf(nil, "writer-%d", w.id) }
func (w *writer) value(n int64) string { return fmt.Sprintf("%d of writer %d", n, w.id) }

func (w *writer) step(ctx context.Context) error {
	o := client.WriteOptions{Wait: wait}
	next := w.n + 1
	if next%2 == 0 && !w.doubt {
		o.IfPosition = w.position
	}
	written, err := w.client.Put(ctx, writerFile, w.key(), []byte(w.value(next)), o)
	if errors.Is(err, client.ErrUnknownOutcome) && w.load.o.Moves && !w.doubt && w.n > 0 {
		if r, bad := w.client.Get(ctx, writerFile, w.key(), client.ReadOptions{Wait: wait}); bad == nil && r.Position == w.position {
			w.load.moved() // sent to a connection that was being closed, and not taken
			written, err = w.client.Put(ctx, writerFile, w.key(), []byte(w.value(next)), o)
		}
	}
	if errors.Is(err, client.ErrPrecondition) {
		w.judge(ctx)
	}
	if err != nil {
		w.doubt = true
		return fmt.Errorf("PUT of writer %d: %w", w.id, err)
	}
	w.n, w.position, w.doubt = next, written.Position, false
	return nil
}

// judge says what is wrong with a record that is not where its last write left it.
func (w *writer) judge(ctx context.Context) {
	r, err := w.client.Get(ctx, writerFile, w.key(), client.ReadOptions{Wait: wait})
	switch {
	case errors.Is(err, client.ErrNotFound):
		w.load.wrong(1, 0, "the record of writer %d is gone; its last write was %s", w.id, w.position)
	case err != nil:
	case string(r.Value) == w.value(w.n) && r.Position != w.position:
		w.load.wrong(0, 1, "write %d of writer %d was answered with %s, and is there at %s", w.n, w.id, w.position, r.Position)
	case string(r.Value) != w.value(w.n):
		w.load.wrong(1, 0, "writer %d finds %q at %s; its last write, at %s, was %q", w.id, r.Value, r.Position, w.position, w.value(w.n))
	}
}

func (w *writer) check(ctx context.Context) error {
	if w.n == 0 || w.doubt {
		return nil // nothing is known
	}
	r, err := w.client.Get(ctx, writerFile, w.key(), client.ReadOptions{Wait: wait})
	if err != nil && !errors.Is(err, client.ErrNotFound) {
		return fmt.Errorf("GET of writer %d: %w", w.id, err)
	}
	if err != nil || string(r.Value) != w.value(w.n) || r.Position != w.position {
		w.judge(ctx)
	}
	return nil
}

func (w *writer) close() { w.client.Close() }
