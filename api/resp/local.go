package resp

import "fmt"

// errCrossLocal refuses keys of which some belong to a group and some to this node alone.
func errCrossLocal(first, other Key, firstLocal bool) reply {
	grouped, local := first, other
	if firstLocal {
		grouped, local = other, first
	}
	return failure(fmt.Sprintf("CROSSSLOT Keys in request don't belong together: file %q is local to this node, file %q belongs to a group: a command and a transaction touch one group, or local files only",
		local.File, grouped.File))
}
