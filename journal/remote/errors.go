package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal"
	"github.com/understudy-ha/understudy/journal/entry"
	"github.com/understudy-ha/understudy/journal/remote/wire"
)

// Refusal is the numbered reason for which one side ended a session. A Host returns it from Admit, an Admission from Enter
// and Removable; RunSource finds it when the target sent one.
type Refusal struct {
	Code wire.Code
	Text string // for the operator: what is wrong and what to do
}

func (r *Refusal) Error() string {
	if r.Text == "" {
		return r.Code.String()
	}
	return r.Code.String() + ": " + r.Text
}

// FencedError says that a session, or a frame of it, came too late. Have is the epoch that this node promised or serves,
// Want the one the session belongs to. When both are equal, a newer session of the same epoch took its place.
type FencedError struct{ Have, Want ident.Epoch }

func (e *FencedError) Error() string {
	if e.Have == e.Want {
		return fmt.Sprintf("session of epoch %d was superseded by a newer one", e.Want)
	}
	return fmt.Sprintf("epoch %d is fenced: this node promised epoch %d", e.Want, e.Have)
}

// errPeerClosed says that the peer closed the connection without a reason.
var errPeerClosed = errors.New("connection closed by the peer")

// errHungUp ends reads and writes of a link that this side gave up.
var errHungUp = errors.New("session ended here")

// connectionLost tells that err came from a connection that is no more: nobody is left to give a reason to.
func connectionLost(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && !op.Timeout() || errors.Is(err, errPeerClosed) || errors.Is(err, io.ErrClosedPipe)
}

// refuse returns the reason that tells the peer of err.
func refuse(err error) wire.Refuse {
	var refusal *Refusal
	var fenced *FencedError
	var version *wire.VersionError
	var format *wire.FormatError
	var gap *journal.GapError
	var corrupt *journal.CorruptionError
	var malformed *entry.CorruptionError
	code := wire.CodeFailed
	switch {
	case errors.As(err, &refusal):
		return wire.Refuse{Code: refusal.Code, Text: refusal.Text}
	case errors.As(err, &fenced) && fenced.Have == fenced.Want:
		code = wire.CodeSuperseded
	case errors.As(err, &fenced):
		code = wire.CodeFenced
	case errors.As(err, &version):
		code = wire.CodeVersion
	case errors.As(err, &format):
		code = wire.CodeMalformed
	case errors.Is(err, journal.ErrFull):
		return wire.Refuse{Code: wire.CodeFull, Text: err.Error() + "; free space there, raise maximum_blocks of the group, or let it delete receivers"}
	case errors.As(err, &gap), errors.Is(err, journal.ErrNoReceiver):
		code = wire.CodeGap
	case errors.As(err, &corrupt), errors.As(err, &malformed):
		code = wire.CodeCorrupt
	case errors.Is(err, context.Canceled), errors.Is(err, journal.ErrClosed):
		code = wire.CodeStopping
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		code = wire.CodeSilent
	}
	return wire.Refuse{Code: code, Text: err.Error()}
}

// heard rewords an error of a connection for the operator.
func heard(err error, peer ident.NodeID, timeout time.Duration) error {
	var ne net.Error
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("%w, node %s (%w)", errPeerClosed, peer, err)
	case errors.As(err, &ne) && ne.Timeout():
		return &Refusal{Code: wire.CodeSilent, Text: fmt.Sprintf("nothing went to or came from node %s for %s", peer, timeout)}
	}
	return err
}
