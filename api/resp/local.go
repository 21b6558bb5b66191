package resp

import (
	"cmp"
	"context"
	"fmt"
	"slices"

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

// filesHere lists the files that a scan goes through, in its order: by code, those that are local to this node first, by name. For another
// node the local ones are left out.
func (s *session) filesHere(ctx context.Context) ([]file, error) {
	names, err := s.srv.o.Store.Files(ctx)
	if err != nil {
		return nil, err
	}
	files := make([]file, 0, len(names))
	for _, n := range names {
		f := file{name: n, code: fileCode(n)}
		if s.srv.o.Local != "" {
			group, err := s.srv.o.Store.Group(Key{File: n})
			f.local = err == nil && group == s.srv.o.Local
		}
		if !f.local || !s.peer {
			files = append(files, f)
		}
	}
	slices.SortFunc(files, func(a, b file) int {
		return cmp.Or(cmp.Compare(a.code, b.code), cmp.Compare(truth(b.local), truth(a.local)), cmp.Compare(a.name, b.name))
	})
	return files, nil
}

// history names the history that positions of a group are of: what is local is each node's alone.
func (srv *Server) history(group string) ident.GroupName {
	name := ident.GroupName(group)
	if srv.o.Local != "" && group == srv.o.Local {
		name = name.Of(ident.NodeID(srv.o.Node))
	}
	return name
}

func truth(b bool) int {
	if b {
		return 1
	}
	return 0
}

// localAfter is the code of the first local file behind a code; 0: there is none. Another node that goes on with the scan must stop there,
// or it would pass over that file.
func localAfter(files []file, code uint64) uint64 {
	for _, f := range files {
		if f.local && f.code > code {
			return f.code
		}
	}
	return 0
}
