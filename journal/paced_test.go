package journal

import (
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// burdened is a file system that knows how much the syncs of its files have to write.
type burdened struct {
	vfs.FS

	mu    sync.Mutex
	worst int64 // the most that one sync had to write
	all   int64
}

func (b *burdened) OpenReadWrite(name string, category vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	f, err := b.FS.OpenReadWrite(name, category, opts...)
	return &burdenedFile{File: f, fs: b}, err
}

// reset returns the figures and begins anew.
func (b *burdened) reset() (worst, all int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	worst, all = b.worst, b.all
	b.worst, b.all = 0, 0
	return worst, all
}

type burdenedFile struct {
	vfs.File
	fs    *burdened
	dirty int64
}

func (f *burdenedFile) WriteAt(p []byte, at int64) (int, error) {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	n, err := f.File.WriteAt(p, at)
	f.dirty += int64(n)
	f.fs.worst, f.fs.all = max(f.fs.worst, f.dirty), f.fs.all+int64(n)
	return n, err
}

func (f *burdenedFile) synced(err error) error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	f.dirty = 0
	return err
}

func (f *burdenedFile) Sync() error     { return f.synced(f.File.Sync()) }
func (f *burdenedFile) SyncData() error { return f.synced(f.File.SyncData()) }

// A receiver is filled with zeros, or written again after a crash, in pieces: one sync of all of it may take longer on a slow disk
// than a call may that does not hang.
func TestLargeReceiversAreSyncedInPieces(t *testing.T) {
	const filled = 12 << 20
	most := int64(syncEvery + 1<<20) // what is written with one call comes on top
	mem := vfs.NewCrashableMem()
	o := options(mem)
	o.ReceiverBytes = 2 * filled
	j := active(t, o)
	deposit(t, j, 1, 2, 10)
	first := flush(t, j).Durable
	for range filled >> 20 {
		deposit(t, j, 1, 16, 1<<16)
		flush(t, j)
	}
	deposit(t, j, 1, 1, 10) // behind the durable mark, which is written once in a while
	flush(t, j)

	fs := &burdened{FS: mem.CrashClone(vfs.CrashCloneCfg{})}
	o.FS = fs
	k := open(t, o)
	if worst, all := fs.reset(); all < filled || worst > most {
		t.Errorf("a start after a crash wrote %d bytes, one sync %d of them: want at least %d, at most %d", all, worst, filled, most)
	}
	must(t, k.SetState(Active))
	must(t, k.Rewind(first))
	if worst, all := fs.reset(); all < filled || worst > most {
		t.Errorf("the removal of what follows %s wrote %d bytes, one sync %d of them: want at most %d", first, all, worst, most)
	}
	must(t, k.Close())
	o.FS = fs.FS
	if v, _ := open(t, o).View(); v.Last != first {
		t.Errorf("the journal ends at %s", v.Last)
	}
}
