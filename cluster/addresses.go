package cluster

import (
	"fmt"
	"sync"

	"github.com/hashicorp/raft"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
)

// addressBook tells Raft where a server is now: as registered, or where it said it moved to while nobody leads. Without
// that a node that comes back at another address could be needed for the quorum that would have to learn its address.
type addressBook struct {
	board *board
	self  ident.DirectoryID
	own   string

	mu    sync.Mutex
	moved map[ident.DirectoryID]move // of registered nodes only
}

// move is an address that counts until the registration changes.
type move struct{ from, to string }

// note remembers where a registered node said it is. The caller has asked it there.
func (b *addressBook) note(reg fsm.RegisterNode) {
	st, _ := b.board.read()
	n := st.Nodes[reg.ID]
	if n == nil || n.Directory != reg.Directory || n.Addresses.Raft == reg.Addresses.Raft {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.moved[reg.Directory] = move{from: n.Addresses.Raft, to: reg.Addresses.Raft}
}

// of returns where the node's Raft port is.
func (b *addressBook) of(n *fsm.Node) string {
	if n.Directory == b.self {
		return b.own
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if m, ok := b.moved[n.Directory]; ok {
		if m.from == n.Addresses.Raft {
			return m.to
		}
		delete(b.moved, n.Directory)
	}
	return n.Addresses.Raft
}

// ServerAddr implements raft.ServerAddressProvider.
func (b *addressBook) ServerAddr(id raft.ServerID) (raft.ServerAddress, error) {
	if id == raft.ServerID(b.self) {
		return raft.ServerAddress(b.own), nil
	}
	if n := b.node(ident.DirectoryID(id)); n != nil {
		return raft.ServerAddress(b.of(n)), nil
	}
	return "", fmt.Errorf("server %s is not registered", id) // Raft falls back to its own configuration
}

// node returns the node that is registered with a directory.
func (b *addressBook) node(d ident.DirectoryID) *fsm.Node {
	st, _ := b.board.read()
	for _, n := range st.Nodes {
		if n.Directory == d {
			return n
		}
	}
	return nil
}
