package node

import (
	"fmt"

	"github.com/understudy-ha/understudy/client"
	"github.com/understudy-ha/understudy/internal/ident"
)

// distrusts returns why one of the entries first to last of a journal is not given out: it stands in a place that is known to be rotten. Such a place may
// well be readable: bundles of another chain are whole by every checksum in them.
func (s *scrubber) distrusts(id ident.JournalID, first, last ident.Sequence) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for at, p := range s.rot {
		if at.id == id && p.First != 0 && uint64(first) <= p.Last && p.First <= uint64(last) {
			return &client.Error{Code: client.CodeCorrupt, Detail: fmt.Sprintf("receiver %s of journal %s is rotten on node %s: entries %d to %d are not given out", at.number, id, s.n.config.Node, p.First, p.Last),
				Reason: p.Detail, Remedy: "ask another node, which holds an identical copy; understudy status shows the place"}
		}
	}
	return nil
}
