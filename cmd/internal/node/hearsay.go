package node

import (
	"context"
	"sync"
	"time"

	"github.com/understudy-ha/understudy/client"
)

// hearsayKept is how long what a primary said of its targets is told on. Every client library asks for them each ten seconds, from each of its
// processes.
const hearsayKept = time.Second

// hearsay remembers for a moment what other nodes said of themselves, by address; a cluster has few. Whoever asks meanwhile waits for one question, and
// hears its answer, also that there was none.
type hearsay struct {
	ask func(ctx context.Context, addr string) *client.Status

	mu   sync.Mutex
	from map[string]*saying
}

type saying struct {
	asking chan struct{} // holds a token while somebody asks
	at     time.Time     // zero: never
	said   *client.Status
}

func newHearsay(ask func(ctx context.Context, addr string) *client.Status) *hearsay {
	return &hearsay{ask: ask, from: map[string]*saying{}}
}

// of returns what the node at the address said, at most hearsayKept ago; nil when it did not answer, or ctx ended first.
func (h *hearsay) of(ctx context.Context, addr string) *client.Status {
	h.mu.Lock()
	w := h.from[addr]
	if w == nil {
		w = &saying{asking: make(chan struct{}, 1)}
		h.from[addr] = w
	}
	h.mu.Unlock()
	select {
	case w.asking <- struct{}{}:
	case <-ctx.Done():
		return nil
	}
	defer func() { <-w.asking }()
	if w.at.IsZero() || time.Since(w.at) >= hearsayKept {
		said := h.ask(ctx, addr)
		if said == nil && ctx.Err() != nil {
			return nil // the caller had no time: that says nothing about the node
		}
		w.said, w.at = said, time.Now()
	}
	return w.said
}
