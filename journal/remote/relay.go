package remote

import (
	"sort"
	"sync"
	"time"

	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal/remote/wire"
)

// Relay is what a backup that feeds another copy says of what it was told itself. It sends only what is durable here, it is never
// taken for the journal's author, and it never says that nobody waits for the target. Its functions are called from the session's
// goroutine and must not block.
type Relay struct {
	// Vouches tells whether Self knows, in the epoch of the session, that everything up to a position is committed. Nil: the
	// journal's committed end goes as it is; no target believes it.
	Vouches func(ident.Position) bool
	// Level returns what Self was told last: that nothing that was committed at asOf, by Self's clock, lies beyond at; ok is
	// false when it was told nothing in this epoch. May be nil.
	Level func() (at ident.Position, asOf time.Time, ok bool)
}

// vouches tells whether a committed end may be said.
func (p *shipment) vouches(at ident.Position) bool {
	r := p.s.o.Relay
	return r == nil || r.Vouches == nil || r.Vouches(at)
}

// relay is beat for a source that was told itself how old its copy is. It passes that on when it has read something that the
// target wrote before that moment: the target then knows the moment by its own clock.
func (p *shipment) relay() error {
	if level := p.s.o.Relay.Level; level != nil {
		if at, asOf, ok := level(); ok {
			if n := p.hearings.before(asOf); n > 0 {
				p.wrote = false
				return p.write(wire.Level{Position: at, Heard: n})
			}
		}
	}
	return p.live()
}

// hearings knows when a source read the frames of its target, as sayings knows when they were written.
type hearings struct {
	mu    sync.Mutex
	marks []saying // ascending
}

// note remembers when the n-th frame was read.
func (h *hearings) note(n uint64, at time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if k := len(h.marks); k > 0 && at.Sub(h.marks[k-1].at) < sayingStep {
		return
	}
	if len(h.marks) == sayingsKept {
		h.marks = h.marks[:copy(h.marks, h.marks[sayingsKept/2:])]
	}
	h.marks = append(h.marks, saying{n, at})
}

// before returns how many frames had certainly been read at a moment.
func (h *hearings) before(at time.Time) uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := sort.Search(len(h.marks), func(i int) bool { return h.marks[i].at.After(at) })
	if n == 0 {
		return 0
	}
	return h.marks[n-1].n
}
