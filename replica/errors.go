package replica

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal/remote"
)

// Conditions that callers tell apart with errors.Is.
var (
	// ErrNotPrimary: this node is not the primary of the group. A write that returns it was never sequenced, so it is safe
	// to send it to another node.
	ErrNotPrimary = errors.New("this node is not the primary of the group: send the request to the primary")
	// ErrNoLease: the node is primary but has no valid lease, so it must not answer. The request had no effect.
	ErrNoLease = errors.New("the primary has no valid lease: try again, or look whether the control plane has a quorum")
	// ErrNotSequenced: the caller's context ended before the write was sequenced. It was not and will not be done.
	ErrNotSequenced = errors.New("the write was not done: it was still waiting when its time was over")
	// ErrNotFound: there is no such record.
	ErrNotFound = errors.New("no such record")
	// ErrNoSync: on_no_sync forbids writes while no in-sync secondary is there. The write was not done.
	ErrNoSync = errors.New("no in-sync secondary: on_no_sync of this group refuses writes until one is back")
	// ErrQueueFull: the write is larger than what the queue may hold. It was not done.
	ErrQueueFull = errors.New("the write queue is full: try again later")
	// ErrJournalFull: the local journal has no room, see journal.FullError. The write was not done; the primary goes on.
	ErrJournalFull = errors.New("the journal of the primary is full")
	// ErrTooLarge: a key, value, file name or transaction is beyond the limits of the journal. It was not done.
	ErrTooLarge = errors.New("the write is beyond the limits of the journal")
	// ErrInvalid: the request makes no sense, whatever the state. It was not done.
	ErrInvalid = errors.New("invalid request")
	// ErrCondition: a condition of the transaction does not hold. It was not done.
	ErrCondition = errors.New("a condition of the transaction does not hold")
	// ErrNotOwned: by the present selection the record is not one of this group. It was not done.
	ErrNotOwned = errors.New("the record belongs to another group")
	// ErrClosing: the group is to be deleted. It was not done; the group goes on if it holds records, else another one owns them soon.
	ErrClosing = errors.New("the group is being deleted: it takes no write until it is known whether it holds records")
	// ErrKeyReused: an idempotency key was used for another request before. It was not done.
	ErrKeyReused = errors.New("the idempotency key belongs to another request")
	// ErrNotReconciled: the store holds entries that are not known to be part of the committed history yet.
	ErrNotReconciled = errors.New("the replica is not reconciled with the history yet: read at the primary, or try again")
	// ErrNeedsPriming: a receiver or a before-image that is needed is gone; only a new copy of the data helps.
	ErrNeedsPriming = errors.New("the replica cannot be brought level from the journals: it needs priming from another node")
	// ErrForgotten: it is not known any more whether the history has the fact: its epoch is older than the history table.
	ErrForgotten = errors.New("the history of that epoch is not kept any more: read what the write should have changed")
	// ErrClosed: the replica was closed.
	ErrClosed = errors.New("the replica is closed")
	// ErrNotAttached: no control plane was attached yet, so nothing can be decided.
	ErrNotAttached = errors.New("the replica has no control plane yet: try again")
)

// UnknownOutcomeError is the outcome of a write that was sequenced, and so perhaps shipped, but not confirmed to the caller.
// It may be in the history or not, never twice; whether it is can be asked with the position.
type UnknownOutcomeError struct {
	Position ident.Position // of the transaction's last entry
	Reason   error
}

func (e *UnknownOutcomeError) Error() string {
	return fmt.Sprintf("outcome unknown: the write was sequenced at %s and is not confirmed (%v): read it back at the primary", e.Position, e.Reason)
}

func (e *UnknownOutcomeError) Unwrap() error { return e.Reason }

// NotDone tells whether an error of Write or Deposit says that surely nothing was done: it was never sequenced, and never will
// be. Every other error leaves the outcome unknown.
func NotDone(err error) bool {
	var unknown *UnknownOutcomeError
	if err == nil || errors.As(err, &unknown) { // whatever its reason is
		return false
	}
	var program *ProgramError
	if errors.As(err, &program) {
		return true
	}
	for _, sure := range []error{
		ErrNotPrimary, ErrNoLease, ErrNotSequenced, ErrNoSync, ErrQueueFull, ErrJournalFull, ErrTooLarge, ErrInvalid, ErrCondition, ErrKeyReused, ErrClosed,
		ErrNotAttached, ErrNotOwned, ErrClosing,
	} {
		if errors.Is(err, sure) {
			return true
		}
	}
	return false
}

// ConditionError says which condition of a transaction does not hold, and what there is instead. It is an ErrCondition.
type ConditionError struct {
	Index    int // in Transaction.Conditions
	File     string
	Key      []byte
	Exists   bool           // there is such a record
	Position ident.Position // of its last change, when it exists
	Replayed bool           // a request with the same idempotency key was refused so before
}

func (e *ConditionError) Error() string {
	if !e.Exists {
		return fmt.Sprintf("%v: number %d: record %q of file %s does not exist", ErrCondition, e.Index+1, e.Key, e.File)
	}
	return fmt.Sprintf("%v: number %d: record %q of file %s exists, last changed at %s", ErrCondition, e.Index+1, e.Key, e.File, e.Position)
}

// Is makes it an ErrCondition.
func (e *ConditionError) Is(target error) bool { return target == ErrCondition }

// KeyReusedError says where the request stands that the idempotency key belongs to. It is an ErrKeyReused.
type KeyReusedError struct {
	Position ident.Position // of the last entry of that transaction
}

func (e *KeyReusedError) Error() string {
	return fmt.Sprintf("%v, done at %s", ErrKeyReused, e.Position)
}

// Is makes it an ErrKeyReused.
func (e *KeyReusedError) Is(target error) bool { return target == ErrKeyReused }

// ProgramError says that the program of a transaction ended with an error or panicked. Nothing of the transaction was done.
type ProgramError struct {
	Err error // what it returned
}

func (e *ProgramError) Error() string { return e.Err.Error() }

func (e *ProgramError) Unwrap() error { return e.Err }

// FencedError refuses work of an epoch that is over: a higher one was promised here. Shipping sessions tell their peer so.
type FencedError = remote.FencedError

// StaleError refuses a read at a backup that lags more than the request allows.
type StaleError struct {
	Position ident.Position // of the store
	Behind   string         // by how much, for people
}

func (e *StaleError) Error() string {
	return fmt.Sprintf("the replica at %s is %s behind: read at the primary", e.Position, e.Behind)
}

// FatalError ends a role session that must not be followed by another one in this life: a journal or the store failed. The
// node has to give up its roles and restart.
type FatalError struct {
	Part string // which journal, or the store
	Err  error
}

func (e *FatalError) Error() string {
	if errors.Is(e.Err, syscall.ENOSPC) || errors.Is(e.Err, syscall.EDQUOT) {
		return fmt.Sprintf("%s could not be written for want of space and is not used any more: free space in the data directory, then restart the node: %v", e.Part, e.Err)
	}
	return fmt.Sprintf("%s failed and is not used any more: restart the node after checking its disk: %v", e.Part, e.Err)
}

func (e *FatalError) Unwrap() error { return e.Err }
