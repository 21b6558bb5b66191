package core

import (
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/internal/mutant"
)

// PromiseEffect is what has to be done to promise an epoch, while nothing is appended or removed.
type PromiseEffect struct {
	Fenced bool // a higher epoch was promised: refuse
	Write  bool // put it on disk, before anything follows from it
	Raise  bool // from then on everything below is refused
}

// Promise says what promising e takes for a node that has promised have.
func Promise(have, e ident.Epoch) PromiseEffect {
	return PromiseEffect{Fenced: have > e, Write: have < e && !mutant.On(mutant.PromiseUnsynced), Raise: have < e}
}
