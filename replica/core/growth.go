package core

import "time"

// Growth measures how fast a journal grows, over the last minutes. Times are readings of any one clock that goes forward.
type Growth struct {
	marks []growthMark // oldest first
}

type growthMark struct {
	at    time.Duration
	bytes int64
}

// Growth is measured over growthWindow, from readings that are at least growthStep apart, and known after growthLeast.
const (
	growthWindow = 5 * time.Minute
	growthStep   = 5 * time.Second
	growthLeast  = 10 * time.Second
)

// See takes a reading.
func (g *Growth) See(at time.Duration, bytes int64) {
	for len(g.marks) > 1 && at-g.marks[1].at >= growthWindow {
		g.marks = g.marks[1:]
	}
	if n := len(g.marks); n == 0 || at-g.marks[n-1].at >= growthStep {
		g.marks = append(g.marks[:n:n], growthMark{at, bytes})
	}
}

// Rate returns bytes per second up to a reading; ok is false as long as too little was seen.
func (g *Growth) Rate(at time.Duration, bytes int64) (rate float64, ok bool) {
	if len(g.marks) == 0 || at-g.marks[0].at < growthLeast {
		return 0, false
	}
	return float64(bytes-g.marks[0].bytes) / (at - g.marks[0].at).Seconds(), true
}

// Runways that are no time.
const (
	RunwayUnknown time.Duration = -1 // not enough was seen, or nothing bounds the journal that is known
	RunwayEndless time.Duration = 1<<63 - 1
)

// Runway returns how long it takes until a journal is full, at the rate of the last minutes: the room is what its cap leaves, or
// what is free on the disk, whichever is less. free 0: not known; limit 0: none.
func (g *Growth) Runway(at time.Duration, bytes, free, limit int64) time.Duration {
	room := int64(-1)
	if limit > 0 {
		room = max(0, limit-bytes)
	}
	if free > 0 && (room < 0 || free < room) {
		room = free
	}
	rate, ok := g.Rate(at, bytes)
	switch {
	case room < 0:
		return RunwayUnknown
	case room == 0:
		return 0
	case !ok:
		return RunwayUnknown
	case rate <= 0:
		return RunwayEndless
	}
	seconds := float64(room) / rate
	if seconds >= float64(RunwayEndless)/float64(time.Second) {
		return RunwayEndless
	}
	return time.Duration(seconds * float64(time.Second))
}
