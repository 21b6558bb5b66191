package watchdog

import (
	"os"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// FS returns fs with everything watched that changes the disk. Reads are not: one that hangs holds up its caller only.
func (w *Watchdog) FS(fs vfs.FS) vfs.FS {
	if w == nil {
		return fs
	}
	return &watchedFS{FS: fs, watchdog: w}
}

type watchedFS struct {
	vfs.FS
	watchdog *Watchdog
}

func (f *watchedFS) file(name string, file vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	name = strings.TrimSuffix(name, ".tmp") // it is renamed when it is complete
	return &watchedFile{File: file, watchdog: f.watchdog, write: "write " + name, sync: "sync " + name}, nil
}

func (f *watchedFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	defer f.watchdog.Enter("create " + name)()
	file, err := f.FS.Create(name, c)
	return f.file(name, file, err)
}

func (f *watchedFS) ReuseForWrite(old, name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	defer f.watchdog.Enter("create " + name)()
	file, err := f.FS.ReuseForWrite(old, name, c)
	return f.file(name, file, err)
}

func (f *watchedFS) OpenReadWrite(name string, c vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	defer f.watchdog.Enter("open " + name)()
	file, err := f.FS.OpenReadWrite(name, c, opts...)
	return f.file(name, file, err)
}

// OpenDir is for syncing directories.
func (f *watchedFS) OpenDir(name string) (vfs.File, error) {
	file, err := f.FS.OpenDir(name)
	return f.file("directory "+name, file, err)
}

func (f *watchedFS) Link(old, name string) error {
	defer f.watchdog.Enter("link " + name)()
	return f.FS.Link(old, name)
}

func (f *watchedFS) Rename(old, name string) error {
	defer f.watchdog.Enter("rename " + name)()
	return f.FS.Rename(old, name)
}

func (f *watchedFS) Remove(name string) error {
	defer f.watchdog.Enter("remove " + name)()
	return f.FS.Remove(name)
}

func (f *watchedFS) RemoveAll(name string) error {
	defer f.watchdog.Enter("remove " + name)()
	return f.FS.RemoveAll(name)
}

func (f *watchedFS) MkdirAll(dir string, mode os.FileMode) error {
	defer f.watchdog.Enter("create directory " + dir)()
	return f.FS.MkdirAll(dir, mode)
}

// Unwrap is part of vfs.FS.
func (f *watchedFS) Unwrap() vfs.FS { return f.FS }

type watchedFile struct {
	vfs.File
	watchdog    *Watchdog
	write, sync string // names of calls, made once
}

func (f *watchedFile) Write(p []byte) (int, error) {
	defer f.watchdog.Enter(f.write)()
	return f.File.Write(p)
}

func (f *watchedFile) WriteAt(p []byte, off int64) (int, error) {
	defer f.watchdog.Enter(f.write)()
	return f.File.WriteAt(p, off)
}

func (f *watchedFile) Preallocate(offset, length int64) error {
	defer f.watchdog.Enter(f.write)()
	return f.File.Preallocate(offset, length)
}

func (f *watchedFile) Sync() error {
	defer f.watchdog.Enter(f.sync)()
	return f.File.Sync()
}

func (f *watchedFile) SyncData() error {
	defer f.watchdog.Enter(f.sync)()
	return f.File.SyncData()
}

func (f *watchedFile) SyncTo(length int64) (bool, error) {
	defer f.watchdog.Enter(f.sync)()
	return f.File.SyncTo(length)
}

// Close may write, on some file systems.
func (f *watchedFile) Close() error {
	defer f.watchdog.Enter(f.sync)()
	return f.File.Close()
}
