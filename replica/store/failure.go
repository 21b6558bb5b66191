package store

import (
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/go-hclog"
)

// maxBackgroundErrors is how many flushes and compactions may fail in a row. Pebble repeats them at once and without a
// pause, thousands of times a second, so the number only forgives a passing error.
const maxBackgroundErrors = 64

// health is the one place where the store's failure is decided. It is also the logger Pebble calls when it gives up.
type health struct {
	log    hclog.Logger
	blown  atomic.Bool   // nothing is written any more
	failed chan struct{} // closed after err is set
	once   sync.Once
	err    error
	row    atomic.Int64 // background errors in a row
}

func newHealth(log hclog.Logger) *health {
	return &health{log: log, failed: make(chan struct{})}
}

// fail fails the store for good. It takes no lock of Pebble's and may be called from everywhere.
func (h *health) fail(err error) {
	h.once.Do(func() {
		h.blown.Store(true)
		h.err = &FailedError{Err: err}
		close(h.failed)
		h.log.Error("store failed", "error", err)
	})
}

func (h *health) error() error {
	select {
	case <-h.failed:
		return h.err
	default:
		return nil
	}
}

// Infof and Errorf are Pebble's log.
func (h *health) Infof(format string, args ...any) {
	if h.log.IsDebug() {
		h.log.Debug(fmt.Sprintf(format, args...))
	}
}

// Errorf logs what Pebble calls an error.
func (h *health) Errorf(format string, args ...any) { h.log.Error(fmt.Sprintf(format, args...)) }

// Fatalf is called when Pebble cannot go on, often with its locks held, and must not return: what follows the call
// assumes that it did not happen. The goroutine ends here, which releases the locks that Pebble holds with defer; the
// blown fuse keeps the rest of Pebble from writing anything in the state it is in.
func (h *health) Fatalf(format string, args ...any) {
	h.fail(fmt.Errorf(format, args...))
	runtime.Goexit()
}

// listener gets Pebble's events, most of them with DB.mu held: it must neither block nor call the database.
func (h *health) listener(flushes chan<- struct{}) *pebble.EventListener {
	return &pebble.EventListener{
		FlushEnd: func(info pebble.FlushInfo) {
			if info.Err == nil {
				h.row.Store(0)
			}
			select {
			case flushes <- struct{}{}:
			default: // one is waiting already
			}
		},
		CompactionEnd: func(info pebble.CompactionInfo) {
			if info.Err == nil {
				h.row.Store(0)
			}
		},
		BackgroundError: func(err error) {
			if n := h.row.Add(1); n >= maxBackgroundErrors {
				h.fail(fmt.Errorf("%d background jobs failed in a row: %w", n, err))
			}
			if h.blown.Load() {
				runtime.Goexit() // or Pebble would go on trying, in a hot loop
			}
		},
		// The default calls Fatalf, from inside readers too. It is reported without ending their goroutine.
		DataCorruption: func(info pebble.DataCorruptionInfo) { h.fail(fmt.Errorf("%s", info)) },
		WriteStallBegin: func(info pebble.WriteStallBeginInfo) {
			h.log.Warn("store holds up writes until a flush or compaction ends", "reason", info.Reason)
		},
	}
}

// fuseFS is the file system under Pebble. Once the store has failed nothing passes it that would change the disk.
type fuseFS struct {
	vfs.FS
	health *health
}

func (f *fuseFS) check() error {
	if f.health.blown.Load() {
		return f.health.error()
	}
	return nil
}

func (f *fuseFS) file(file vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	return &fuseFile{File: file, fuse: f}, nil
}

func (f *fuseFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	if err := f.check(); err != nil {
		return nil, err
	}
	return f.file(f.FS.Create(name, c))
}

func (f *fuseFS) ReuseForWrite(old, name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	if err := f.check(); err != nil {
		return nil, err
	}
	return f.file(f.FS.ReuseForWrite(old, name, c))
}

func (f *fuseFS) OpenReadWrite(name string, c vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	if err := f.check(); err != nil {
		return nil, err
	}
	return f.file(f.FS.OpenReadWrite(name, c, opts...))
}

// OpenDir is for syncing directories.
func (f *fuseFS) OpenDir(name string) (vfs.File, error) { return f.file(f.FS.OpenDir(name)) }

func (f *fuseFS) Link(old, name string) error {
	if err := f.check(); err != nil {
		return err
	}
	return f.FS.Link(old, name)
}

func (f *fuseFS) Rename(old, name string) error {
	if err := f.check(); err != nil {
		return err
	}
	return f.FS.Rename(old, name)
}

func (f *fuseFS) Remove(name string) error {
	if err := f.check(); err != nil {
		return err
	}
	return f.FS.Remove(name)
}

func (f *fuseFS) RemoveAll(name string) error {
	if err := f.check(); err != nil {
		return err
	}
	return f.FS.RemoveAll(name)
}

// Unwrap is part of vfs.FS.
func (f *fuseFS) Unwrap() vfs.FS { return f.FS }

type fuseFile struct {
	vfs.File
	fuse *fuseFS
}

func (f *fuseFile) Write(p []byte) (int, error) {
	if err := f.fuse.check(); err != nil {
		return 0, err
	}
	return f.File.Write(p)
}

func (f *fuseFile) WriteAt(p []byte, off int64) (int, error) {
	if err := f.fuse.check(); err != nil {
		return 0, err
	}
	return f.File.WriteAt(p, off)
}

func (f *fuseFile) Preallocate(offset, length int64) error {
	if err := f.fuse.check(); err != nil {
		return err
	}
	return f.File.Preallocate(offset, length)
}

func (f *fuseFile) Sync() error {
	if err := f.fuse.check(); err != nil {
		return err
	}
	return f.File.Sync()
}

func (f *fuseFile) SyncData() error {
	if err := f.fuse.check(); err != nil {
		return err
	}
	return f.File.SyncData()
}

func (f *fuseFile) SyncTo(length int64) (bool, error) {
	if err := f.fuse.check(); err != nil {
		return false, err
	}
	return f.File.SyncTo(length)
}
