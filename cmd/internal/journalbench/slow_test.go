package journalbench

import (
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/sys/unix"
)

// slow is a file system whose syncs take some time more, in a call that blocks as a disk does.
type slow struct {
	vfs.FS
	sync time.Duration
}

func (s slow) OpenReadWrite(name string, category vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	f, err := s.FS.OpenReadWrite(name, category, opts...)
	return slowFile{f, s.sync}, err
}

type slowFile struct {
	vfs.File
	sync time.Duration
}

func (f slowFile) SyncData() error {
	t := unix.NsecToTimespec(int64(f.sync))
	for unix.Nanosleep(&t, &t) != nil { // the runtime interrupts it
	}
	return f.File.SyncData()
}

// BenchmarkDepositOnASlowDisk shows how the ratio of deposits depends on the disk: what the writers take to come back is the same, so
// it counts the less the longer a sync takes.
func BenchmarkDepositOnASlowDisk(b *testing.B) {
	for _, sync := range []time.Duration{0, 500 * time.Microsecond, 2 * time.Millisecond, 8 * time.Millisecond} {
		b.Run(sync.String(), func(b *testing.B) {
			for b.Loop() {
				r, err := Bench{Dir: b.TempDir(), Time: 4 * time.Second, FS: slow{vfs.Default, sync}}.Run(b.Context(), "deposit")
				if err != nil {
					b.Fatal(err)
				}
				b.ReportMetric(0, "ns/op")
				b.ReportMetric(r.Ours, r.Unit)
				b.ReportMetric(r.Raw, "raw-"+r.Unit)
				b.ReportMetric(r.Ratio, "ratio")
			}
		})
	}
}
