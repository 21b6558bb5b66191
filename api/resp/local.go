package resp

import (
	"fmt"

	"github.com/understudy-ha/understudy/internal/ident"
)

// errCrossLocal refuses keys of which some belong to a group and some to this node alone.
func errCrossLocal(first, other Key, firstLocal bool) reply {
	grouped, local := first, other
	if firstLocal {
		grouped, local = other, first
	}
	return failure(fmt.Sprintf("CROSSSLOT Keys in request don't belong together: file %q is local to this node, file %q belongs to a group: a command and a transaction touch one group, or local files only",
		local.File, grouped.File))
}

// history names the history that positions of a group are of: what is local is each node's alone.
func (srv *Server) history(group string) ident.GroupName {
	name := ident.GroupName(group)
	if srv.o.Local != "" && group == srv.o.Local {
		name = name.Of(ident.NodeID(srv.o.Node))
	}
	return name
}
