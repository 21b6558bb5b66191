package replica

import (
	"context"
	"sync"

	"github.com/understudy-ha/understudy/internal/ident"
)

// retreat remembers how far down the bundles were found that take the store back, each with the images of what it changed, so that who asks
// again, or for less, reads none of them again. A position says what stands below it; only where the store begins can change.
type retreat struct {
	mu       sync.Mutex
	from, to ident.Position
}

// undoes answers for a grove whether the store, at a position, can be taken back to a fork: a bundle is only undone as a whole, and one that was
// journaled without a before-image never. What cannot be read at the moment counts as what cannot be undone, and is looked at anew when asked
// again; so does the rest when ctx ends.
func (r *Replica) undoes(ctx context.Context, at ident.Position) func(fork ident.Position) bool {
	return func(fork ident.Position) bool {
		s := &r.retreat
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.from != at {
			s.from, s.to = at, at
		}
		for s.to.History > fork.History {
			if ctx.Err() != nil {
				return false
			}
			b, err := r.undoable(s.to)
			if err != nil {
				r.log.Warn("the store cannot be taken back", "from", at, "to", fork, "error", err)
				return false
			}
			s.to = b.Before
		}
		return true
	}
}
