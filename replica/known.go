package replica

import (
	"sync"
	"time"

	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/replica/core"
)

// known gives core.Known a lock, somebody to tell, and the time of what was said last.
type known struct {
	mu      sync.Mutex
	ends    core.Known
	heard   time.Time
	changed pulse
}

// learn records what a session of epoch e said at a time. The caller has made sure that it may be trusted.
func (k *known) learn(e ident.Epoch, end ident.Position, at time.Time) {
	k.mu.Lock()
	news := k.ends.Learn(e, end)
	if e == k.ends.Epoch() && at.After(k.heard) {
		k.heard = at
	}
	k.mu.Unlock()
	if news {
		k.changed.fire()
	}
}

// committed returns the highest position known to be committed under the table.
func (k *known) committed(t ident.HistoryTable) ident.Position {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.ends.Committed(t)
}

// lastHeard returns when a session last said something that counted, and of which epoch it was.
func (k *known) lastHeard() (ident.Epoch, time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.ends.Epoch(), k.heard
}
