//go:build !mutant

package mutant

// On tells whether a variant was chosen: never in this build.
func On(Variant) bool { return false }
