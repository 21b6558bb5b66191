package replica

import (
	"sync"
	"time"

	"github.com/understudy-ha/understudy/internal/ident"
)

// known is what this life of the node has learned to be committed. It starts empty in every life: durable marks of an
// earlier one prove nothing about the present history.
type known struct {
	mu      sync.Mutex
	epoch   ident.Epoch    // of the session that said it; only counts while it is the newest row's
	end     ident.Position // committed end
	heard   time.Time      // when it was said last
	changed pulse
}

// learn records what a session of epoch e said. The caller has made sure that its own state shows e opened, with a row.
func (k *known) learn(e ident.Epoch, end ident.Position) {
	k.mu.Lock()
	news := false
	switch {
	case e < k.epoch:
	case e > k.epoch:
		k.epoch, k.end, news = e, end, true
	case end.Compare(k.end) > 0:
		k.end, news = end, true
	}
	if e == k.epoch {
		k.heard = time.Now()
	}
	k.mu.Unlock()
	if news {
		k.changed.fire()
	}
}

// committed returns the highest position known to be committed under the table: what a session of the newest row's epoch
// said, but at least everything before that row's SW.
func (k *known) committed(t ident.HistoryTable) ident.Position {
	last := t.Last()
	p := beforeRow(t)
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.epoch == last.Epoch && t.Contains(k.end) && k.end.History > p.History {
		p = k.end
	}
	return p
}

// age returns when a session of epoch e last said something.
func (k *known) lastHeard() (ident.Epoch, time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.epoch, k.heard
}

// beforeRow returns the last position before the newest row, which is committed: Open and Handover commit everything
// before SW.
func beforeRow(t ident.HistoryTable) ident.Position {
	h := t.Last().SW
	if h <= 1 {
		return ident.Position{}
	}
	return ident.Position{Epoch: t.EpochAt(h - 1), History: h - 1}
}
