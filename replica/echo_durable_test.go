package replica

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/understudy-ha/understudy/fsm"
)

// With journal_replays nothing is applied before its echo is on disk: while the disk of the echoes hangs, the store stands still.
// Proves RJ-7.
func TestEchoIsDurableBeforeItsFactIsApplied(t *testing.T) {
	c := newCluster(t, fsm.GroupSpec{JournalReplays: true}, "a", "b")
	a, b := c.nodes["a"], c.nodes["b"]
	c.inSync("a", "b")
	a.mustPut("k", "first")
	c.level("b")
	var syncs atomic.Int64
	b.fail.Store("journal.sync:orders/"+string(Replays), func() error {
		before := b.rep.Status().Applied
		for n := c.looks("b"); c.looks("b") < n+10; time.Sleep(time.Millisecond) { // b goes on
			if at := b.rep.Status().Applied; at != before {
				t.Errorf("applied from %s to %s while its echo is not on disk", before, at)
				break
			}
		}
		syncs.Add(1)
		return nil
	})
	at := a.mustPut("k", "second").Position
	c.eventually("it is applied", func() bool { return b.rep.Status().Applied.History >= at.History })
	if syncs.Load() == 0 {
		t.Error("no echo was synced")
	}
	b.fail.Delete("journal.sync:orders/" + string(Replays))
}
