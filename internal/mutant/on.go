//go:build mutant

package mutant

import "sync/atomic"

// chosen is for the whole process: a rule cannot be handed a switch without carrying it in every signature.
var chosen atomic.Uint32

// On tells whether the variant is the chosen one.
func On(v Variant) bool { return Variant(chosen.Load()) == v }

// Choose makes On true for one variant, for tests. restore ends it.
func Choose(v Variant) (restore func()) {
	chosen.Store(uint32(v))
	return func() { chosen.Store(uint32(None)) }
}
