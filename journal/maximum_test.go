package journal

import (
	"errors"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Without spares the maximum holds to the byte, too, where it is no multiple of what receivers grow by; and what a raised maximum or a
// deletion lets go on is said to have room at once, not with the next deposit. Proves TR-5.
func TestMaximumWithoutSpares(t *testing.T) {
	fs := vfs.NewMem()
	o := options(fs)
	o.SpareBytes, o.MaximumBytes = -1, 5<<16+12345
	j := active(t, o)
	onDisk := func() (sum int64) {
		for _, name := range list(t, fs, ".rcv") {
			info, err := fs.Stat(testDir + "/" + name)
			must(t, err)
			sum += info.Size()
		}
		return sum
	}
	fill := func() {
		t.Helper()
		for {
			_, err := try(j, 3000)
			if s := j.Space(); s.Held > s.Limit || onDisk() > s.Limit {
				t.Fatalf("%+v, on disk %d", s, onDisk())
			}
			if errors.Is(err, ErrFull) {
				return
			}
			must(t, err)
		}
	}
	room := func(why string) {
		t.Helper()
		if s := j.Space(); s.Full != nil {
			t.Errorf("%s: %+v", why, s)
		}
	}
	fill()
	must(t, j.DeleteReceivers(j.Receivers()[1].Number))
	room("after a deletion")
	fill()
	j.SetLimits(Limits{ReceiverBytes: o.ReceiverBytes, SpareBytes: -1, MaximumBytes: 7<<16 + 54321})
	room("with a higher maximum")
	fill()
}
