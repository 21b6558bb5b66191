package journal

import (
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// smallDisk is a file system with a limit on the bytes of all files. Like a real one it takes a write into what a file has
// already, and refuses one that makes a file longer.
type smallDisk struct {
	vfs.FS

	mu      sync.Mutex
	limit   int64
	sizes   map[string]*int64 // by name; a file keeps its own when it is renamed
	refused map[string]int    // writes and new files, by the ending of the name
	moody   func() bool       // refuses whatever is longer, now and then
}

func newSmallDisk(limit int64) *smallDisk {
	return &smallDisk{FS: vfs.NewMem(), limit: limit, sizes: map[string]*int64{}, refused: map[string]int{}}
}

func (d *smallDisk) usedLocked() (n int64) {
	for _, size := range d.sizes {
		n += *size
	}
	return n
}

// resize changes the limit to what is used and more.
func (d *smallDisk) resize(more int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.limit = d.usedLocked() + more
}

func (d *smallDisk) refuseLocked(name string) error {
	d.refused[name[strings.LastIndexByte(name, '.')+1:]]++
	return syscall.ENOSPC
}

func (d *smallDisk) refusals() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := 0
	for _, k := range d.refused {
		n += k
	}
	return n
}

func (d *smallDisk) OpenReadWrite(name string, c vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.sizes[name] == nil {
		if d.usedLocked() >= d.limit || d.moody != nil && d.moody() {
			return nil, d.refuseLocked(name)
		}
		d.sizes[name] = new(int64)
	}
	f, err := d.FS.OpenReadWrite(name, c, opts...)
	if err != nil {
		return nil, err
	}
	return &smallFile{File: f, disk: d, name: name, size: d.sizes[name]}, nil
}

func (d *smallDisk) Rename(from, to string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	err := d.FS.Rename(from, to)
	if err == nil {
		d.sizes[to] = d.sizes[from]
		delete(d.sizes, from)
	}
	return err
}

func (d *smallDisk) Remove(name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	err := d.FS.Remove(name)
	if err == nil {
		delete(d.sizes, name)
	}
	return err
}

type smallFile struct {
	vfs.File
	disk *smallDisk
	name string
	size *int64
}

func (f *smallFile) WriteAt(b []byte, at int64) (int, error) {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	if more := at + int64(len(b)) - *f.size; more > 0 {
		if f.disk.usedLocked()+more > f.disk.limit || f.disk.moody != nil && f.disk.moody() {
			return 0, f.disk.refuseLocked(f.name)
		}
		*f.size += more
	}
	return f.File.WriteAt(b, at)
}

// until waits until the journal's space is as wanted, by the channel that every change of fullness closes, or by looking again.
func until(t testing.TB, j *Journal, what string, ok func(Space) bool) Space {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; {
		s := j.Space()
		if ok(s) {
			return s
		}
		if v, _ := j.View(); v.Err != nil {
			t.Fatalf("%s: %v", what, v.Err)
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %+v", what, s)
		}
		time.Sleep(time.Millisecond)
	}
}
