package cluster

import (
	"errors"
	"testing"

	"github.com/understudy-ha/understudy/internal/host"
)

// A primary that takes back what it had given away of one epoch does not take back what was given away of the next.
func TestYieldIsTakenBackForItsEpochOnly(t *testing.T) {
	l := newLeases("a", 1, host.Real(), DefaultTiming())
	l.yield("g", 2, true)
	l.yield("g", 3, true)
	l.yield("g", 2, false)
	if l.given["g"] != 3 {
		t.Errorf("epoch %d is given away, want 3", l.given["g"])
	}
	l.yield("g", 3, false)
	if _, ok := l.given["g"]; ok {
		t.Error("epoch 3 is given away still")
	}
	if err := l.check("g", 3); !errors.Is(err, ErrNoLease) {
		t.Error(err)
	}
}
