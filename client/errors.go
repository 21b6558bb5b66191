package client

import (
	"errors"
	"net/http"
)

// Conditions, for errors.Is. They hold across the network: a node sends a code, the client maps it back. Every error of the package
// but those of a context that ended is an *Error, which says more. After all but ErrUnknownOutcome, ErrCorrupt and ErrInternal a write has
// surely not been done: see OutcomeOf. "Repeated" says what the client has done by itself, up to Options.Retry, before you hear of it.
var (
	ErrInvalid        = errors.New("invalid request")                      // the request makes no sense; it never will
	ErrNotFound       = errors.New("not found")                            // no such record, journal or operation; a deletion found nothing to delete
	ErrUnknownGroup   = errors.New("unknown group")                        // no group of that name, or none selects the file
	ErrUnknownNode    = errors.New("unknown node")                         // no node of that name
	ErrGone           = errors.New("deleted here")                         // receivers that are needed were deleted on every node; Error.Position is where a stream can go on
	ErrTooLarge       = errors.New("too large")                            // a key, a value, a transaction or an answer is beyond a limit
	ErrExists         = errors.New("exists already")                       // there is one of that name
	ErrBusy           = errors.New("another operation runs")               // another operation of the group runs: wait for its end
	ErrPrecondition   = errors.New("precondition failed, nothing changed") // Error.Failed of a write, Error.Checks of an operation; of a stream: the history went another way
	ErrKeyReused      = errors.New("idempotency key of another request")   // nothing was done now; the key belongs to another request
	ErrNotPrimary     = errors.New("this node is not the primary")         // and no other node was found that is; repeated
	ErrNoPrimary      = errors.New("no primary")                           // nobody serves the group within the wait; repeated
	ErrNoQuorum       = errors.New("no quorum")                            // a majority of the nodes is not reachable from who answers; repeated
	ErrNoSync         = errors.New("no in-sync secondary")                 // the group takes no writes without an in-sync secondary (on_no_sync: refuse)
	ErrUnavailable    = errors.New("not available now")                    // no node answers, or one is starting or stopping; repeated
	ErrStale          = errors.New("copy is too old")                      // a local read: the copy is older than ReadOptions.MaxLag
	ErrStorageFull    = errors.New("storage full")                         // the disk has no room
	ErrJournalFull    = errors.New("journal full")                         // the journal is at its limit: nothing was done; an operator has to make room
	ErrUnknownOutcome = errors.New("outcome unknown")                      // the write may have been done; Error.Position, when set, is where it stands if so: Client.Settle
	ErrCorrupt        = errors.New("damaged data")                         // a disk does not hold what was written to it
	ErrUnsupported    = errors.New("not supported")                        // this node cannot do that
	ErrInternal       = errors.New("internal error")                       // a defect, or something that is no node
)

// Code is the stable name of a condition in a problem body.
type Code string

// Codes, part of the interface.
const (
	CodeInvalid          Code = "invalid"
	CodeNotFound         Code = "not_found"
	CodeUnknownPath      Code = "unknown_path"
	CodeMethodNotAllowed Code = "method_not_allowed"
	CodeUnknownGroup     Code = "unknown_group"
	CodeUnknownNode      Code = "unknown_node"
	CodeGone             Code = "gone" // what was asked for was deleted on this node
	CodeTooLarge         Code = "too_large"
	CodeExists           Code = "exists"
	CodeBusy             Code = "busy"
	CodePrecondition     Code = "precondition"
	CodeKeyReused        Code = "key_reused"      // nothing was done now
	CodeNotPrimary       Code = "not_primary"     // never sequenced
	CodeNoPrimary        Code = "no_primary"      // never sequenced
	CodeNoQuorum         Code = "no_quorum"       // nothing was proposed
	CodeNoSync           Code = "no_sync"         // never sequenced
	CodeUnavailable      Code = "unavailable"     // nothing was done, try again later
	CodeStale            Code = "stale"           // nothing was done
	CodeStorageFull      Code = "storage_full"    // never sequenced
	CodeJournalFull      Code = "journal_full"    // never sequenced
	CodeUnknownOutcome   Code = "unknown_outcome" // may have been done
	CodeCorrupt          Code = "corrupt"
	CodeUnsupported      Code = "unsupported"
	CodeInternal         Code = "internal"
)

// condition is what belongs to a code: its sentinel, its usual status and title.
func (c Code) condition() (sentinel error, status int, title string) {
	switch c {
	case CodeInvalid:
		return ErrInvalid, http.StatusBadRequest, "Invalid request"
	case CodeNotFound:
		return ErrNotFound, http.StatusNotFound, "Not found"
	case CodeUnknownPath:
		return ErrNotFound, http.StatusNotFound, "Unknown path"
	case CodeMethodNotAllowed:
		return ErrInvalid, http.StatusMethodNotAllowed, "Method not allowed"
	case CodeUnknownGroup:
		return ErrUnknownGroup, http.StatusNotFound, "Unknown group"
	case CodeUnknownNode:
		return ErrUnknownNode, http.StatusNotFound, "Unknown node"
	case CodeGone:
		return ErrGone, http.StatusGone, "Deleted here"
	case CodeTooLarge:
		return ErrTooLarge, http.StatusRequestEntityTooLarge, "Too large"
	case CodeExists:
		return ErrExists, http.StatusConflict, "Exists already"
	case CodeBusy:
		return ErrBusy, http.StatusConflict, "Another operation runs"
	case CodePrecondition:
		return ErrPrecondition, http.StatusPreconditionFailed, "Precondition failed"
	case CodeKeyReused:
		return ErrKeyReused, http.StatusUnprocessableEntity, "Idempotency key of another request"
	case CodeNotPrimary:
		return ErrNotPrimary, http.StatusMisdirectedRequest, "Not the primary"
	case CodeNoPrimary:
		return ErrNoPrimary, http.StatusServiceUnavailable, "No primary"
	case CodeNoQuorum:
		return ErrNoQuorum, http.StatusServiceUnavailable, "No quorum"
	case CodeNoSync:
		return ErrNoSync, http.StatusServiceUnavailable, "No in-sync secondary"
	case CodeUnavailable:
		return ErrUnavailable, http.StatusServiceUnavailable, "Not available now"
	case CodeStale:
		return ErrStale, http.StatusServiceUnavailable, "Copy is too old"
	case CodeStorageFull:
		return ErrStorageFull, http.StatusInsufficientStorage, "Storage full"
	case CodeJournalFull:
		return ErrJournalFull, http.StatusInsufficientStorage, "Journal full"
	case CodeUnknownOutcome:
		return ErrUnknownOutcome, http.StatusGatewayTimeout, "Outcome unknown"
	case CodeCorrupt:
		return ErrCorrupt, http.StatusInternalServerError, "Damaged data"
	case CodeUnsupported:
		return ErrUnsupported, http.StatusNotImplemented, "Not supported"
	}
	return ErrInternal, http.StatusInternalServerError, "Internal error"
}

// Status returns the HTTP status that usually goes with the code.
func (c Code) Status() int { _, status, _ := c.condition(); return status }

// Title returns the code's short title for people.
func (c Code) Title() string { _, _, title := c.condition(); return title }

// NotDone tells whether the code says that surely nothing was done and that the same request may succeed later, so that
// repeating it is safe, a write too.
func (c Code) NotDone() bool {
	switch c {
	case CodeNotPrimary, CodeNoPrimary, CodeNoQuorum, CodeUnavailable:
		return true
	}
	return false
}

// OutcomeOf returns what a write that returned err has come to: OutcomeDone without an error; OutcomeNotDone when surely
// nothing was done, now or later; else OutcomeUndecided, which Receipt settles when the error has a position.
func OutcomeOf(err error) string {
	if err == nil {
		return OutcomeDone
	}
	switch CodeOf(err) {
	case CodeInvalid, CodeNotFound, CodeUnknownPath, CodeMethodNotAllowed, CodeUnknownGroup, CodeUnknownNode, CodeGone, CodeTooLarge, CodeExists,
		CodeBusy, CodePrecondition, CodeKeyReused, CodeNotPrimary, CodeNoPrimary, CodeNoQuorum, CodeNoSync, CodeUnavailable, CodeStale, CodeStorageFull,
		CodeJournalFull, CodeUnsupported:
		return OutcomeNotDone
	}
	return OutcomeUndecided // also a code that a newer node says
}

// Error is a problem as a node reports it (application/problem+json), or as the client found it itself (then Status is 0).
type Error struct {
	Status   int     `json:"status"` // HTTP status; 0: take the code's own
	Code     Code    `json:"code"`
	Detail   string  `json:"detail,omitempty"`      // what happened, with names and numbers
	Reason   string  `json:"reason,omitempty"`      // why
	Remedy   string  `json:"remedy,omitempty"`      // what to do next
	Position string  `json:"position,omitempty"`    // unknown_outcome: where the write stands if it was done; gone and precondition of a stream: after which it can go on
	Node     string  `json:"node,omitempty"`        // who says so
	Applied  string  `json:"applied,omitempty"`     // not_found of a copy (local): the position up to which it has everything
	Age      float64 `json:"age_seconds,omitempty"` // with Applied: how old the copy may be; below 0: not known
	Checks   []Check `json:"checks,omitempty"`      // precondition: all checks, failed and passed

	Failed   *FailedCondition `json:"failed,omitempty"`   // precondition of a write: the condition that does not hold
	Replayed bool             `json:"replayed,omitempty"` // a request with the same idempotency key heard this before

	Forecast *LossForecast `json:"forecast,omitempty"` // precondition of a failover with loss: what it would lose now

	cause error // what went wrong underneath, on this side of the network only
}

func (e *Error) Error() string {
	s := e.Detail
	if s == "" {
		s = e.Code.Title()
	}
	if e.Reason != "" {
		s += ": " + e.Reason
	}
	if e.cause != nil {
		s += ": " + e.cause.Error()
	}
	if e.Remedy != "" {
		s += " (" + e.Remedy + ")"
	}
	return s
}

// Unwrap returns what went wrong underneath, such as context.Canceled; nil when a node reported the problem.
func (e *Error) Unwrap() error { return e.cause }

// Is maps the code to its sentinel.
func (e *Error) Is(target error) bool {
	sentinel, _, _ := e.Code.condition()
	return target == sentinel
}

// CodeOf returns the code of the condition that err stands for: of an *Error, or of anything that wraps one of the sentinels
// above. Everything else is CodeInternal.
func CodeOf(err error) Code {
	if e, ok := asError(err); ok {
		return e.Code
	}
	for _, c := range []Code{
		CodeInvalid, CodeNotFound, CodeUnknownGroup, CodeUnknownNode, CodeGone, CodeTooLarge, CodeExists, CodeBusy, CodePrecondition, CodeKeyReused,
		CodeNotPrimary, CodeNoPrimary, CodeNoQuorum, CodeNoSync, CodeUnavailable, CodeStale, CodeStorageFull,
		CodeJournalFull, CodeUnknownOutcome, CodeCorrupt, CodeUnsupported,
	} {
		if sentinel, _, _ := c.condition(); errors.Is(err, sentinel) {
			return c
		}
	}
	return CodeInternal
}

// asError finds the *Error in err.
func asError(err error) (*Error, bool) {
	var e *Error
	ok := errors.As(err, &e)
	return e, ok
}
