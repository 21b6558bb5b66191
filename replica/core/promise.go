package core

import (
	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/internal/mutant"
)

// PromiseEffect is what has to be done to promise an epoch, while nothing is appended or removed.
type PromiseEffect struct {
	Fenced bool // a higher epoch was promised: refuse
	Write  bool // put it on disk, before anything follows from it
	Raise  bool // from then on everything below is refused
}

// OwesPromise tells whether a node that has promised promised should promise the group's present epoch without being asked: it is opened,
// so everything older is decided, and the new primary's first session need not wait for this disk.
func OwesPromise(g *fsm.Group, promised ident.Epoch) bool {
	return g.Phase == fsm.PhaseOpened && promised < g.Epoch
}

// Promise says what promising e takes for a node that has promised have.
func Promise(have, e ident.Epoch) PromiseEffect {
	return PromiseEffect{Fenced: have > e, Write: have < e && !mutant.On(mutant.PromiseUnsynced), Raise: have < e}
}
