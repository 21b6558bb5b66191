package core

import (
	"time"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
)

// This file decides who feeds a copy when it need not be the primary. The target has the last word, and it looks at who ships:
// a backup that the group names is let in beside the primary's session, and while it ships the primary is told so and comes
// again later. So a copy whose feeder goes away, or has nothing to give, is fed by the primary with its next call.

// MayFeed tells whether a backup may ship to a node, by one's own state: the group is opened at its present epoch and names it as
// that node's feeder, nobody waits for the node's acknowledgements, and no switch-over leads to it.
func MayFeed(g *fsm.Group, feeder, target ident.NodeID) bool {
	return feeder != "" && g.Phase == fsm.PhaseOpened && g.OpenEpoch == g.Epoch && g.FeederOf(target) == feeder &&
		!g.InSet(target) && SwitchTarget(g) != target
}

// Yields tells whether a caller that is admissible is turned away for the sake of one that ships the same journal here: the primary,
// while the backup feeds this node that is to feed it.
func Yields(g *fsm.Group, self ident.NodeID, have, c Caller) bool {
	return c.From == g.Primary && have.From != c.From && have.Epoch == c.Epoch && MayFeed(g, have.From, self)
}

// A feeder that was left is not let in again for stallRest times the patience with it, twice as long each time, stallRestMost times at
// last. The count begins anew when it has worked for as long as that.
const (
	stallRest     = 4
	stallRestMost = 40
)

// Stall is what a target notes of the backup that feeds one of its copies, whenever the primary calls and would be turned away: a feeder
// whose disk hangs says that it is there and brings nothing. Times are readings of any one clock that goes forward.
type Stall struct {
	feeder  ident.NodeID
	at      ident.Sequence // the end of the copy
	ahead   bool           // the primary had more
	since   time.Duration  // both have been so
	until   time.Duration  // the feeder is not let in before
	left    int            // in a row
	working time.Duration  // it has not been left since
}

// Leaves tells whether the primary is taken instead of the feeder. The copy ends at have, the primary's journal at end: the feeder has
// brought nothing for patience although the primary has had more all the time.
func (s *Stall) Leaves(feeder ident.NodeID, have, end ident.Sequence, now, patience time.Duration) bool {
	switch {
	case s.feeder != feeder:
		*s = Stall{feeder: feeder, at: have, ahead: end > have, since: now, working: now}
	case !s.ahead || end <= have || have != s.at:
		s.at, s.ahead, s.since = have, end > have, now
		if now-s.working >= stallRestMost*patience {
			s.left = 0
		}
	case now-s.since >= patience:
		s.until = now + time.Duration(min(stallRest<<min(s.left, 8), stallRestMost))*patience
		s.ahead, s.working = false, s.until
		s.left++
		return true
	}
	return false
}

// Rests tells whether a caller was left and is not to be let in yet.
func (s *Stall) Rests(caller ident.NodeID, now time.Duration) bool {
	return s != nil && s.feeder == caller && now < s.until
}

// Feeder is what a backup knows of itself when it decides whether to feed others.
type Feeder struct {
	Epoch    ident.Epoch // of the session in which it hears of the primary's journal; 0: it has none
	Promised ident.Epoch
	Level    bool // it has had everything from this primary
	Feeds    bool // it feeds already
	Lately   bool // it had such a session a moment ago
}

// Able tells whether a backup has something to give: it is level, or was, and is connected with who feeds it, or was a moment ago. It
// begins only when it is level, so that what it feeds is not held up behind what it lacks itself.
func (f Feeder) Able(g *fsm.Group) bool {
	switch {
	case g.Phase != fsm.PhaseOpened || g.OpenEpoch != g.Epoch || BelowPromise(f.Promised, g.Epoch):
		return false
	case f.Epoch == g.Epoch:
		return f.Feeds || f.Level
	}
	return f.Feeds && f.Lately
}
