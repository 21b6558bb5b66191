package journal

import (
	"errors"
	"fmt"

	"github.com/understudy-ha/understudy/internal/ident"
)

// Conditions, to be tested with errors.Is.
var (
	ErrClosed     = errors.New("journal is closed")
	ErrFailed     = errors.New("journal has failed and takes nothing any more; see the cause, then restart the node") // a write or sync failed; final
	ErrNotActive  = errors.New("journal is not ACTIVE")
	ErrRewound    = errors.New("entries already read were removed from the journal")
	ErrNotHeld    = errors.New("not held in this journal")                                  // deleted with its receiver, or never there
	ErrNoReceiver = errors.New("no attached receiver: the receiver header must come first") // AppendRaw before BeginReceiver
)

// CorruptionError names the place where a receiver's bytes are not what was written. The journal never cuts or skips it: the
// receiver can be repaired from its twin on another node.
type CorruptionError struct {
	Receiver ident.ReceiverNumber
	Offset   int64
	Err      error
}

func (e *CorruptionError) Error() string {
	return fmt.Sprintf("receiver %s is corrupt at byte %d: %v", e.Receiver, e.Offset, e.Err)
}

func (e *CorruptionError) Unwrap() error { return e.Err }

// GapError means that something offered to a copy does not continue it.
type GapError struct{ Want, Have ident.Sequence }

func (e *GapError) Error() string {
	return fmt.Sprintf("journal continues at sequence %s, was offered %s", e.Want, e.Have)
}
