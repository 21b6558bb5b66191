package testcluster

import (
	"os"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Stall makes every write, sync and change of names on the node's data disk hang, until it is stopped or crashes. Reads go
// on, as from a page cache.
func (d *disk) Stall() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.stalled == nil {
		d.stalled = make(chan struct{})
	}
}

// pass waits while the disk is stalled.
func (d *disk) pass() {
	d.mu.Lock()
	stalled := d.stalled
	d.mu.Unlock()
	if stalled != nil {
		<-stalled
	}
}

// stallFS is a file system on a disk that can be stalled.
type stallFS struct {
	vfs.FS
	disk *disk
}

func (f stallFS) file(file vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	return stallFile{file, f.disk}, nil
}

func (f stallFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	f.disk.pass()
	return f.file(f.FS.Create(name, c))
}

func (f stallFS) OpenReadWrite(name string, c vfs.DiskWriteCategory, o ...vfs.OpenOption) (vfs.File, error) {
	return f.file(f.FS.OpenReadWrite(name, c, o...))
}

func (f stallFS) OpenDir(name string) (vfs.File, error) { return f.file(f.FS.OpenDir(name)) }

func (f stallFS) Rename(old, name string) error { f.disk.pass(); return f.FS.Rename(old, name) }

func (f stallFS) Remove(name string) error { f.disk.pass(); return f.FS.Remove(name) }

func (f stallFS) MkdirAll(dir string, mode os.FileMode) error {
	f.disk.pass()
	return f.FS.MkdirAll(dir, mode)
}

func (f stallFS) Unwrap() vfs.FS { return f.FS }

type stallFile struct {
	vfs.File
	disk *disk
}

func (f stallFile) Write(p []byte) (int, error) { f.disk.pass(); return f.File.Write(p) }

func (f stallFile) WriteAt(p []byte, off int64) (int, error) {
	f.disk.pass()
	return f.File.WriteAt(p, off)
}

func (f stallFile) Sync() error { f.disk.pass(); return f.File.Sync() }

func (f stallFile) SyncData() error { f.disk.pass(); return f.File.SyncData() }

func (f stallFile) SyncTo(n int64) (bool, error) { f.disk.pass(); return f.File.SyncTo(n) }
