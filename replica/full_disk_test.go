package replica

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/understudy-ha/understudy/fsm"
)

// Proves S18 and S19, as far as the journal goes: the disk of the primary is full, at a write or at a sync. What was not on disk
// is not acknowledged, the error names the cause and the remedy, the node gives up its part, and with space again the next life
// has everything that was acknowledged.
func TestFullDisk(t *testing.T) {
	for _, at := range []string{"journal.write:orders/a", "journal.sync:orders/a"} {
		t.Run(at, func(t *testing.T) {
			c := newCluster(t, fsm.GroupSpec{}, "a", "b", "c")
			c.keepInSync("a", "b")
			a := c.nodes["a"]
			acked := map[string]string{}
			for i := range 20 {
				key := fmt.Sprint("k", i)
				a.mustPut(key, "v")
				acked[key] = "v"
			}
			a.fail.Store(at, func() error { return &osError{syscall.ENOSPC} })
			var unknown *UnknownOutcomeError
			for i := range 5 {
				_, err := a.put(fmt.Sprint("full", i), "v")
				if err == nil {
					t.Fatal("a write was acknowledged that is not on disk")
				}
				if i == 0 && !errors.As(err, &unknown) {
					t.Fatalf("it was shipped, and its error is %v", err)
				}
			}
			c.eventually("the session is over for good", func() bool { return a.fatal.Load() != nil })
			if err := *a.fatal.Load(); !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "free space") {
				t.Fatalf("the node ends with: %v", err)
			}
			a.crash(100) // the process ends
			c.failover("b", false)
			c.serves("b")
			a = c.start("a") // there is space again
			c.level("a", "b", "c")
			for key, value := range acked {
				c.nodes["b"].mustGet(key, value, false)
			}
			if s, err := c.nodes["b"].rep.Settle(t.Context(), unknown.Position, patience); err != nil || s.Outcome == "undecided" {
				t.Fatalf("the write in doubt: %+v, %v", s, err)
			}
			c.eventually("a takes part again", func() bool { return a.fatal.Load() == nil && a.rep.Status().Error == "" })
		})
	}
}

// osError is an error as the operating system gives it, with a path around it.
type osError struct{ no syscall.Errno }

func (e *osError) Error() string { return "write 000001.rcv: " + e.no.Error() }
func (e *osError) Unwrap() error { return e.no }
