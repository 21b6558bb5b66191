package journal

import (
	"errors"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/understudy-ha/understudy/journal/entry"
)

// Behind every bundle there is space for J NR, whatever was taken last and however full the journal is: so it can always be left in
// order. Proves TR-5.
func TestSpaceForTheEndOfAReceiver(t *testing.T) {
	for size := range 40 { // bundles end at other places each time
		o := options(vfs.NewMem())
		o.MaximumBytes, o.SpareBytes = 4<<16-int64(size)*1000, -1 // the last receiver is cut short
		j := active(t, o)
		look := func() {
			r := j.attached()
			j.mu.RLock()
			defer j.mu.RUnlock()
			if left := r.allotted - r.end; left < nextBytes {
				t.Fatalf("data of %d bytes: %d bytes are left behind %d", size, left, r.end)
			}
		}
		full := 0
		for n := 0; full < 2; n++ { // with facts, then with what may use the reserve
			_, err := try(j, 1500+size)
			if full == 1 {
				v, _ := j.View()
				_, err = j.Deposit(Draft{Entries: []entry.Entry{{Code: entry.User, Type: entry.Switch, Data: make([]byte, 8*size)}}, Session: 1, FactEpoch: 1, Before: v.After})
			}
			switch {
			case errors.Is(err, ErrFull):
				full++
			case err != nil:
				t.Fatal(err)
			}
			if look(); n > 10000 {
				t.Fatal("it is never full")
			}
		}
		must(t, j.Close())
	}
}
