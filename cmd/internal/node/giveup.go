package node

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/understudy-ha/understudy/internal/watchdog"
)

// GaveUpError ends a node that cannot go on: its disk hangs, or a journal, the store or Raft has failed for good. The process
// has to end, since what hangs cannot be joined.
type GaveUpError struct{ Err error }

func (e *GaveUpError) Error() string { return "the node gave up: " + e.Err.Error() }

// Unwrap returns the reason.
func (e *GaveUpError) Unwrap() error { return e.Err }

// Bounds of closing a node whose disk hangs.
const (
	hungSessions = 500 * time.Millisecond // for the role sessions, before the lease is released without them: it is dropped first
	hungClose    = 4 * time.Second        // for everything
)

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

// join runs f to its end; when the disk hangs it is left behind after the given time.
func (h *hang) join(what string, limit time.Duration, f func() error) error {
	done := make(chan error, 1)
	go func() { done <- f() }()
	select {
	case err := <-done:
		return err
	case <-h.seen:
	}
	late := time.NewTimer(limit)
	defer late.Stop()
	select {
	case err := <-done:
		return err
	case <-late.C:
		return fmt.Errorf("%s did not end within %s after the disk hung, and is left behind", what, limit)
	}
}
