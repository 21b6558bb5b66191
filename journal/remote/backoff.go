package remote

import (
	"context"
	"errors"
	"time"

	"github.com/understudy-ha/understudy/journal/remote/wire"
)

// Pauses between two sessions of a source.
const (
	leastPause = 20 * time.Millisecond
	mostPause  = time.Second
	soonPause  = 100 * time.Millisecond // for reasons that the next command of the control plane is about to clear
)

// longestPause says how long a source may wait after a session that ended with err.
func longestPause(err error) time.Duration {
	var refusal *Refusal
	if errors.As(err, &refusal) {
		switch refusal.Code {
		case wire.CodeEpoch, wire.CodeDiverged, wire.CodeGroup, wire.CodeGap, wire.CodeRematch, wire.CodeNotSource:
			return soonPause
		}
	}
	return mostPause
}

// backoff is a pause that doubles.
type backoff struct {
	least, most time.Duration
	next        time.Duration
}

func (b *backoff) reset() { b.next = 0 }

// wait pauses, or returns earlier when ctx ends.
func (b *backoff) wait(ctx context.Context) {
	d := min(max(b.next, b.least), b.most)
	b.next = 2 * d
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
