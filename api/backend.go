package api

import (
	"context"
	"fmt"
	"time"

	"github.com/understudy-ha/understudy/client"
	"github.com/understudy-ha/understudy/internal/ident"
)

// Data answers for records. Implementations return *client.Error, *Elsewhere, or any other error, which is answered as an
// internal one. Keys and values belong to the callee. The context carries the request's deadline.
type Data interface {
	Transactions
	// Put returns once the write is committed. Created in the result says that the record did not exist. Of o's times only Expiry counts,
	// never TTL. Code precondition, with Failed, when a condition does not hold; key_reused, when the idempotency key belongs to another
	// request. Both are true of all writes.
	Put(ctx context.Context, file string, key, value []byte, o WriteOptions) (client.WriteResult, error)
	// Delete returns once the deletion is committed; code not_found when there was no record.
	Delete(ctx context.Context, file string, key []byte, o WriteOptions) (client.WriteResult, error)
	// Get reads from the primary, or from this node's own copy with o.Local; code not_found, code stale.
	Get(ctx context.Context, file string, key []byte, o client.ReadOptions) (client.Record, error)
	// List returns at most o.Limit records in key order; Limit is set.
	List(ctx context.Context, file string, o client.ListOptions) (client.RecordPage, error)
	// Receipt tells what has become of the write at a position. While that is undecided it waits, at most for wait; code
	// unknown_group.
	Receipt(ctx context.Context, group ident.GroupName, at ident.Position, wait time.Duration) (client.Receipt, error)
}

// Roles answers for the cluster, its groups and their operations. Errors are as in Data.
type Roles interface {
	Lives
	Orders
	Groups
	// Status describes the cluster; local: without asking any other node. It must answer within the context in every
	// situation, since the health paths call it (with local).
	Status(ctx context.Context, local bool) (client.Status, error)
	// Group describes one group; code unknown_group.
	Group(ctx context.Context, name string) (client.GroupStatus, error)
	// Resync describes the resynchronization that runs; with none, phase in_sync.
	Resync(ctx context.Context, name string) (client.Resync, error)
	// Why checks whether a switch-over to the node could be done now; "" means the best candidate.
	Why(ctx context.Context, name, to string) (client.Readiness, error)
	// CreateGroup adds a group; code exists when there is another of that name.
	CreateGroup(ctx context.Context, spec client.GroupSpec) error
	// Switchover starts a planned switch-over and returns at once. The readiness is set on a dry run and when checks fail
	// (then with code precondition). One with a time is scheduled only: it is in the state OperationScheduled then. The time and
	// By are checked.
	Switchover(ctx context.Context, group string, r client.SwitchoverRequest) (client.Operation, *client.Readiness, error)
	// CancelSwitchover rolls the running switch-over back and calls a scheduled one off; code precondition once the running one's commit
	// point is passed, or when there is none.
	CancelSwitchover(ctx context.Context, group string) error
	// Failover starts a failover by hand and returns at once.
	Failover(ctx context.Context, group string, r client.FailoverRequest) (client.Operation, error)
	// Operations lists running and past operations, newest first.
	Operations(ctx context.Context) ([]client.Operation, error)
	// Operation returns one operation as soon as it is finished, or as it is after wait; code not_found.
	Operation(ctx context.Context, id uint64, wait time.Duration) (client.Operation, error)
	// History lists the promotions of a group, oldest first.
	History(ctx context.Context, group string) ([]client.Certificate, error)
	// Events lists this node's events with an id above since, oldest first; with none it waits up to wait for one.
	Events(ctx context.Context, since uint64, wait time.Duration) ([]client.Event, error)
	// Ready is nil once this node takes part: it knows the Raft leader and its copies are open.
	Ready(ctx context.Context) error
}

// Journals answers for this node's own journals and copies. Errors are as in Data.
type Journals interface {
	// Journals lists the journals of the group that this node holds.
	Journals(ctx context.Context, group string) ([]client.Journal, error)
	// Receivers lists the receivers of what node wrote, as held here, oldest first; code unknown_node.
	Receivers(ctx context.Context, group, node string) ([]client.Receiver, error)
	Streams
	// Entries lists a page of entries, at most f.Limit, which is set. The filter was checked.
	Entries(ctx context.Context, group, node string, f client.EntryFilter) (client.EntryPage, error)
	// ChangeReceiver attaches a new receiver to this node's own journal and returns it.
	ChangeReceiver(ctx context.Context, group string) (client.Receiver, error)
	// DepositEntry deposits a user entry at the primary and returns once it is committed.
	DepositEntry(ctx context.Context, group, typ string, data []byte, o WriteOptions) (client.WriteResult, error)
	// Backouts lists this node's back-out reports without their entries, newest first.
	Backouts(ctx context.Context, group string) ([]client.Backout, error)
	// Backout returns one report with its entries; code not_found.
	Backout(ctx context.Context, group, id string) (client.Backout, error)
	// Digest computes the digest of this node's own copy.
	Digest(ctx context.Context, group string) (client.Digest, error)
	// Verify reads everything of one journal; code corrupt names the place.
	Verify(ctx context.Context, group, node string) error
	Healer
	Archives
	Starter
}

// Elsewhere says that another node has to answer, and that here surely nothing was done. The api forwards the request to
// HTTP; when that is empty, cannot be reached or is not the one either, it waits for a change of roles and asks here again,
// until the request's deadline.
type Elsewhere struct {
	HTTP  string // host:port of the node to ask; "" when nobody is known
	Retry bool   // this node itself is about to be the one: ask here again soon, do not forward
}

func (e *Elsewhere) Error() string {
	switch {
	case e.Retry:
		return "this node is not ready to answer yet"
	case e.HTTP == "":
		return "this node is not the primary and knows of none"
	}
	return fmt.Sprintf("this node is not the primary; ask %s", e.HTTP)
}

// Is makes an Elsewhere count as client.ErrNotPrimary.
func (e *Elsewhere) Is(target error) bool { return target == client.ErrNotPrimary }
