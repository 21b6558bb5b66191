package core

import (
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
