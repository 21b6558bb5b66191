package core

import "github.com/understudy-ha/understudy/internal/mutant"

// Answer does the work of a read, or of any answer that only a primary may give, and tells whether its result may be shown.
// The lease is looked at after the work: nobody else can have served the epoch before that instant, however long the
// process stood still in between.
func Answer(work func(), holds func() bool) bool {
	if mutant.On(mutant.CheckBeforeWork) {
		ok := holds()
		work()
		return ok
	}
	work()
	return holds()
}
