package switchload

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// Pause is what clients saw of one window of time.
type Pause struct {
	Gap     time.Duration `json:"gap_ns"`     // the longest time in which nobody's write was answered
	Longest time.Duration `json:"longest_ns"` // the longest time that any one write took
	Writes  int64         `json:"writes"`
	Took    time.Duration `json:"took_ns"` // the window itself
}

// Watch is a window of time in which pauses are measured. A write counts with its whole length when its end lies in the window.
type Watch struct {
	load  *Load
	began time.Time
	last  time.Time
	pause Pause
}

// Watch begins a window. There is one at a time.
func (l *Load) Watch() *Watch {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	l.watch = &Watch{load: l, began: now, last: now}
	return l.watch
}

func (w *Watch) seeLocked(_ int, began, now time.Time) {
	w.pause.Gap = max(w.pause.Gap, now.Sub(w.last))
	w.pause.Longest = max(w.pause.Longest, now.Sub(began))
	w.pause.Writes++
	w.last = now
}

// End waits until every client has completed a write that it began after the call, and ends the window: whatever anybody waited for is in it.
func (w *Watch) End(ctx context.Context) (Pause, error) {
	l := w.load
	l.mu.Lock()
	goal := slices.Clone(l.done)
	for i := range goal {
		goal[i]++
		if !l.begun[i].IsZero() {
			goal[i]++ // the one under way does not count
		}
	}
	for {
		behind := 0
		for i := range goal {
			if l.done[i] < goal[i] {
				behind++
			}
		}
		if behind == 0 {
			break
		}
		advanced := l.advanced
		l.mu.Unlock()
		select {
		case <-advanced:
		case <-ctx.Done():
			return Pause{}, fmt.Errorf("%d clients do not get on: %w", behind, context.Cause(ctx))
		}
		l.mu.Lock()
	}
	defer l.mu.Unlock()
	l.watch = nil
	w.pause.Took = time.Since(w.began)
	return w.pause, nil
}

// Quantile returns the value below which a share q of the values lies, as the nearest one among them; 0 of none.
func Quantile(all []time.Duration, q float64) time.Duration {
	if len(all) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(all))
	i := int(q*float64(len(sorted))+0.999999) - 1
	return sorted[min(max(i, 0), len(sorted)-1)]
}
