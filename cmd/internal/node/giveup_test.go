package node

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/understudy-ha/understudy/internal/host"
	"github.com/understudy-ha/understudy/internal/watchdog"
)

// Proves that closing is bounded in every case: a disk that hangs in a read is told by nobody, one that hangs in a write is, and
// leaves less time.
func TestClosingIsBounded(t *testing.T) {
	for name, c := range map[string]struct {
		hangs error
		want  time.Duration
	}{
		"hangs in a read":  {nil, closeLimit},
		"hangs in a write": {&watchdog.HangError{}, time.Second + hungClose},
		"fails":            {errors.New("no space"), closeLimit},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := hang{seen: make(chan struct{})}
				gate := make(chan struct{})
				defer close(gate)
				began := time.Now()
				go func() {
					time.Sleep(time.Second)
					if c.hangs != nil {
						h.note(c.hangs)
					}
				}()
				err := h.join("closing the node", closeLimit, hungClose, func() error { <-gate; return nil })
				if took := time.Since(began); !errors.Is(err, errLeftBehind) || took != c.want {
					t.Errorf("after %s: %v", took, err)
				}
			})
		})
	}
	h := hang{seen: make(chan struct{})}
	own := errors.New("its own")
	if err := h.join("x", time.Minute, time.Minute, func() error { return own }); !errors.Is(err, own) {
		t.Errorf("what ends in time returns %v", err)
	}
}

// A connection to a node that may still hold its roles is not broken, however long the lease.
func TestConnectionsOutlastTheLease(t *testing.T) {
	for lease, want := range map[time.Duration]time.Duration{time.Second: host.LostAfter, 2 * time.Second: 3 * time.Second, time.Minute: 61 * time.Second} {
		if got := lostAfter(lease); got != want {
			t.Errorf("with a lease of %s a connection is lost after %s, want %s", lease, got, want)
		}
	}
}
