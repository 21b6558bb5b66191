package cli

import (
	"cmp"
	"time"
)

const (
	firstRestart  = time.Second // pause before a node that died is restarted; doubled up to lastRestart
	lastRestart   = 30 * time.Second
	steadyAfter   = time.Minute // a node that ran this long starts at firstRestart again
	tooManyDeaths = 6           // so many in a row, none of them after steadyAfter, and a supervisor gives up
)

// restarts decides when a process that died is started again.
type restarts struct {
	first  time.Duration // pause after the first death; 0: firstRestart
	deaths int           // in a row, each before steadyAfter
	pause  time.Duration
}

// died is told of a death, and for how long the process had run. It returns how long to wait before the next start, and
// whether a start is likely to help at all.
func (r *restarts) died(ran time.Duration) (wait time.Duration, hopeless bool) {
	if ran > steadyAfter || r.pause == 0 {
		r.deaths, r.pause = 0, cmp.Or(r.first, firstRestart)
	} else {
		r.pause = min(2*r.pause, lastRestart)
	}
	r.deaths++
	return r.pause, r.deaths >= tooManyDeaths
}
