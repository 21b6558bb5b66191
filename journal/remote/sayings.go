package remote

import (
	"sync"
	"time"
)

// Bounds of what a target remembers of its own frames.
const (
	sayingStep  = 10 * time.Millisecond // those that follow within it are not worth a time of their own
	sayingsKept = 1024
)

// sayings knows when a target wrote its frames. A source tells how many it has read, and so gives the target a moment, by the
// target's own clock, before which the source did not speak. A message that was under way for long is known as old by that.
type sayings struct {
	mu    sync.Mutex
	count uint64
	marks []saying // ascending
}

// saying is when the n-th frame was written.
type saying struct {
	n  uint64
	at time.Time
}

// note counts a frame that is about to be written.
func (s *sayings) note(at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.count++
	if k := len(s.marks); k > 0 && at.Sub(s.marks[k-1].at) < sayingStep {
		return
	}
	if len(s.marks) == sayingsKept {
		s.marks = s.marks[:copy(s.marks, s.marks[sayingsKept/2:])]
	}
	s.marks = append(s.marks, saying{s.count, at})
}

// before returns a moment before which nobody can have read so many frames; ok is false when none is known.
func (s *sayings) before(heard uint64) (at time.Time, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for n < len(s.marks) && s.marks[n].n <= heard {
		n++
	}
	if n == 0 {
		return time.Time{}, false
	}
	s.marks = s.marks[:copy(s.marks, s.marks[n-1:])]
	return s.marks[0].at, true
}
