package replica

import (
	"sync"
	"time"

	"github.com/understudy-ha/understudy/internal/ident"
)

// freshness knows how old a backup's copy is. The primary says now and then up to where everything stands that was committed at a
// moment; once the store has come so far, it has all of that moment. Nothing else makes a copy younger: not that the primary is
// silent, and not that what was sent so far is applied, while more waits to be sent.
type freshness struct {
	mu      sync.Mutex
	epoch   ident.Epoch // of who said it
	pending claim       // the oldest one that the store has not reached
	newest  claim       // said after pending
	reached bool        // one of this epoch was
	asOf    time.Time   // the moment of the last one reached, of any epoch
}

// claim says that nothing that was committed at asOf lies beyond end.
type claim struct {
	end  ident.Position
	asOf time.Time // zero: there is none
}

// say notes what the primary of an epoch said.
func (f *freshness) say(e ident.Epoch, end ident.Position, asOf time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case e < f.epoch:
		return
	case e > f.epoch:
		f.epoch, f.pending, f.newest, f.reached = e, claim{}, claim{}, false
	}
	if f.pending.asOf.IsZero() {
		f.pending = claim{end, asOf}
	} else {
		f.newest = claim{end, asOf}
	}
}

// reach is told where the store is in the history, while an epoch is open. It returns whether the store has had everything in this
// epoch, and as of when.
func (f *freshness) reach(open ident.Epoch, at ident.Position) (ok bool, asOf time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.epoch != open {
		return false, time.Time{}
	}
	for !f.pending.asOf.IsZero() && at.History >= f.pending.end.History {
		f.reached = true
		if f.pending.asOf.After(f.asOf) {
			f.asOf = f.pending.asOf
		}
		f.pending, f.newest = f.newest, claim{}
	}
	return f.reached, f.asOf
}
