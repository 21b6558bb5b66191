package node

import (
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/understudy-ha/understudy/internal/host"
	"github.com/understudy-ha/understudy/internal/watchdog"
)

// GaveUpError ends a node that cannot go on: its disk hangs, or a journal, the store or Raft has failed for good. The process
// has to end, since what hangs cannot be joined.
type GaveUpError struct{ Err error }

func (e *GaveUpError) Error() string { return "the node gave up: " + e.Err.Error() }

// Unwrap returns the reason.
func (e *GaveUpError) Unwrap() error { return e.Err }

// Bounds of closing a node.
const (
	// closeLimit is for everything, whatever holds it up; a read of a disk that hangs, for example, no watchdog sees. It leaves the
	// flush its time, and with a hand-over before it, a service manager that kills after half a minute need not.
	closeLimit = flushTimeout + 5*time.Second

	unlimited = time.Duration(math.MaxInt64) // for a part of it

	// These hold when the disk hangs for certain.
	hungSessions = 500 * time.Millisecond // for the role sessions, before the lease is released without them: it is dropped first
	hungClose    = 4 * time.Second        // for everything
)

// errLeftBehind says that something did not end and was not joined: the process has to end.
var errLeftBehind = errors.New("left behind")

// hang is whether the disk of the node hangs.
type hang struct {
	once sync.Once
	seen chan struct{} // closed when it does
}

// note looks whether err says so.
func (h *hang) note(err error) {
	var e *watchdog.HangError
	if errors.As(err, &e) {
		h.once.Do(func() { close(h.seen) })
	}
}

// join runs f to its end, for at most limit; when the disk hangs, only for the time hung from then on. What has not ended is
// left behind.
func (h *hang) join(what string, limit, hung time.Duration, f func() error) error {
	done := make(chan error, 1)
	go func() { done <- f() }()
	late := time.NewTimer(limit)
	defer late.Stop()
	select {
	case err := <-done:
		return err
	case <-late.C:
		return fmt.Errorf("%s did not end within %s, and is %w: the disk may hang in a read", what, limit, errLeftBehind)
	case <-h.seen:
	}
	late.Reset(hung)
	select {
	case err := <-done:
		return err
	case <-late.C:
		return fmt.Errorf("%s did not end within %s after the disk hung, and is %w", what, hung, errLeftBehind)
	}
}

// lostAfter is how long another machine may leave what was sent unread before a connection counts as lost. Whoever does not go on
// for longer than a lease, and what clocks and the margin add to it, has lost its roles: until then it may go on and answer,
// after it nothing that waits for it is worth waiting for.
func lostAfter(lease time.Duration) time.Duration { return max(host.LostAfter, lease+time.Second) }
