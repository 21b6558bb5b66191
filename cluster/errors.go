package cluster

import (
	"errors"
	"fmt"
	"time"

	"github.com/understudy-ha/understudy/internal/ident"
)

// Conditions a caller may meet.
var (
	// ErrNoQuorum says that no Raft leader took the command before the deadline; it was not proposed and may be sent again.
	ErrNoQuorum = errors.New("no quorum: a majority of the nodes must be running and connected")
	// ErrNoLease says that no lease of this life covers the group at that epoch now.
	ErrNoLease = errors.New("no lease covers the group at this epoch")
	// ErrLifeOver says that the cluster counts this process as ended, for good: it was released, or a renewal of another life of the
	// node came after its own. It can never hold a lease again.
	ErrLifeOver = errors.New("the cluster counts this process of the node as ended: it ends itself, the next start is a new life")
	// ErrClosed says that the cluster was closed.
	ErrClosed = errors.New("cluster is closed")
)

// LifeOverError is ErrLifeOver where the cluster knows a later life of the node. The next one has to follow that, which the clock does not
// bring about when the later one began while the clock was far ahead, and the directory was set back since.
type LifeOverError struct{ Life, Latest ident.Incarnation }

func (e *LifeOverError) Error() string {
	return fmt.Sprintf("%v: it is life %s, and the cluster knows the later life %s of this node, of %s by the clock of that time. The data directory was set back to an older state, or is used by two processes; "+
		"the next start follows that life. If it is refused again, look for another process with a copy of this directory, and stop it", ErrLifeOver, e.Life, e.Latest, time.Unix(0, int64(e.Latest)).UTC().Format(time.RFC3339))
}

func (e *LifeOverError) Unwrap() error { return ErrLifeOver }

// UnknownOutcomeError says that a command was handed to Raft but its result is not known here: it may still be applied.
// Read the state before proposing again.
type UnknownOutcomeError struct {
	Command uint64 // id of the command
	Unseen  uint64 // State.Applied that this node has to reach to see the command, which the leader has applied; 0: not known
	Err     error  // what broke
}

func (e *UnknownOutcomeError) Error() string {
	return fmt.Sprintf("outcome of command %016x unknown, read the state before proposing again: %v", e.Command, e.Err)
}

// Unwrap gives access to what broke.
func (e *UnknownOutcomeError) Unwrap() error { return e.Err }

// DirectoryError says that the node's id is registered with another data directory.
type DirectoryError struct {
	Node       ident.NodeID
	Registered ident.DirectoryID
	Have       ident.DirectoryID
	Peer       string // who said so
}

func (e *DirectoryError) Error() string {
	return fmt.Sprintf("node %q is registered in this cluster with data directory %s, but this one is %s (told by %s): "+
		"start it with its own data directory, or give this node another `node` id", e.Node, e.Registered, e.Have, e.Peer)
}
