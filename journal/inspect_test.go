package journal

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/understudy-ha/understudy/internal/ident"
)

// Proves BX-7: a check finds nothing where nothing is rotten, whatever the journal does meanwhile: deposits, changes of receiver,
// removals of the end, deletions, changes of state.
func TestInspectBesideEverything(t *testing.T) {
	o := options(vfs.NewMem())
	o.ReceiverBytes, o.RingBytes = 8<<10, 4<<10
	j := active(t, o)
	deposit(t, j, 1, 2, 300)
	ctx, cancel := context.WithCancel(t.Context())
	var work sync.WaitGroup
	for range 2 {
		work.Go(func() {
			for ctx.Err() == nil {
				for _, r := range j.Receivers() {
					rot, err := j.Inspect(ctx, r.Number, nil)
					if ctx.Err() == nil && (rot != nil || err != nil && !errors.Is(err, ErrNotHeld)) {
						t.Errorf("receiver %s: %v, %v", r.Number, rot, err)
						return
					}
				}
				if rot, err := j.InspectState(); rot != nil || err != nil {
					t.Errorf("state: %v, %v", rot, err)
					return
				}
			}
		})
	}
	end := time.Now().Add(1500 * time.Millisecond) // bounds the work, nothing waits for it
	for i := 0; time.Now().Before(end) && !t.Failed(); i++ {
		h := deposit(t, j, uint64(1+i/50), 1+i%3, 10+i*37%900)
		switch {
		case i%40 == 39:
			must(t, j.Rewind(h.First-1))
		case i%97 == 96:
			_, err := j.ChangeReceiver(1)
			must(t, err)
		case i%150 == 149:
			rs := j.Receivers()
			must(t, j.DeleteReceivers(rs[len(rs)/2].Number))
		case i%60 == 59:
			must(t, j.SetState(Standby))
			must(t, j.SetState(Active))
		}
	}
	cancel()
	work.Wait()
}

// Proves BX-7: a check reads at the rate it is told, in large pieces, and ends with its context.
func TestInspectKeepsItsPace(t *testing.T) {
	o := options(vfs.NewMem())
	o.ReceiverBytes = 4 << 20
	j := active(t, o)
	for range 40 {
		deposit(t, j, 1, 1, 64<<10)
	}
	flush(t, j)
	pieces, bytes := 0, 0
	rot, err := j.Inspect(t.Context(), 1, func(_ context.Context, n int) error { pieces, bytes = pieces+1, bytes+n; return nil })
	must(t, err)
	if size := int(j.Receivers()[0].Bytes); rot != nil || bytes < 40*64<<10 || bytes > size+pieces*chunk || pieces > bytes/(chunk/2)+4 {
		t.Errorf("%v: %d bytes of %d in %d pieces", rot, bytes, size, pieces)
	}
	stop := errors.New("enough")
	if _, err := j.Inspect(t.Context(), 1, func(context.Context, int) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("stopped by the pace: %v", err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(stop)
	if _, err := j.Inspect(ctx, 1, nil); !errors.Is(err, stop) {
		t.Errorf("stopped by the context: %v", err)
	}
	if _, err := j.Inspect(t.Context(), ident.ReceiverNumber(99), nil); !errors.Is(err, ErrNotHeld) {
		t.Errorf("no such receiver: %v", err)
	}
}
