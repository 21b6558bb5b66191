package nodesim

import (
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// sector is what a disk writes whole or not at all.
const sector = 512

// disk is a machine's data disk: a crashable file system in memory that can be slow, hang, fail or fill up, and that knows
// which bytes of which file were written but not synced, so that a crash can tear them.
type disk struct {
	*vfs.MemFS
	faults *faults

	cut   sync.RWMutex // held by a crash while it takes its picture
	mu    sync.Mutex
	files map[string]*inode
}

// inode is the unsynced part of one file.
type inode struct {
	mu     sync.Mutex
	named  bool // its name was not synced since it changed
	dirty  []extent
	synced int64 // length at the last sync
	size   int64
}

type extent struct{ from, to int64 }

func newDisk(fs *vfs.MemFS, f *faults) *disk {
	return &disk{MemFS: fs, faults: f, files: map[string]*inode{}}
}

// loss says what a crash leaves of unsynced bytes.
type loss int

const (
	lossNone   loss = iota // the process died, the kernel lives
	lossAll                // power cut, nothing unsynced survives
	lossBlocks             // power cut, each unsynced page and name survives or not
	lossTorn               // power cut, unsynced sectors survive, do not, or hold garbage, in any order
)

func (l loss) String() string { return [...]string{"none", "all", "blocks", "torn"}[l] }

// crash returns the file system as the next life finds it. The disk itself goes on for the life that ended.
func (d *disk) crash(l loss, rng *rand.Rand) *vfs.MemFS {
	d.cut.Lock()
	defer d.cut.Unlock()
	switch l {
	case lossNone:
		return d.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rng})
	case lossBlocks:
		return d.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 50, RNG: rng})
	}
	left := d.CrashClone(vfs.CrashCloneCfg{})
	if l == lossTorn {
		for name, n := range d.files {
			if !n.named {
				d.tear(left, name, n, rng)
			}
		}
	}
	return left
}

// tear lets a random part of the unsynced sectors of a file survive.
func (d *disk) tear(left *vfs.MemFS, name string, n *inode, rng *rand.Rand) {
	if len(n.dirty) == 0 {
		return
	}
	if _, err := left.Stat(name); err != nil {
		return // its name is gone, too
	}
	now, err := d.MemFS.UnsafeGetFileDataBuffer(name)
	if err != nil {
		return
	}
	f, err := left.OpenReadWrite(name, vfs.WriteCategoryUnspecified)
	if err != nil {
		panic(err)
	}
	defer f.Close()
	for _, e := range n.dirty {
		for at := e.from / sector * sector; at < e.to; at += sector {
			end := min(at+sector, int64(len(now)))
			if end <= at {
				break
			}
			content := append([]byte(nil), now[at:end]...)
			switch r := rng.IntN(10); {
			case r < 4:
				continue
			case r < 8 || at < n.synced: // what was there before the write is never garbage
			case r == 8:
				clear(content)
			default:
				for i := range content {
					content[i] = byte(rng.Uint32())
				}
			}
			if _, err := f.WriteAt(content, at); err != nil {
				panic(err)
			}
			d.faults.effects.add("torn sectors", 1)
		}
	}
	if err := f.Sync(); err != nil {
		panic(err)
	}
}

// storeNames are the files in which the database keeps its own structure. It writes them with its mutexes held, so they can
// fail, but never take time.
const storeNames = "store names"

func classOf(name string) string {
	switch {
	case strings.Contains(name, "/journals/"):
		return "journal"
	case strings.Contains(name, "/store") && strings.HasSuffix(name, ".sst"):
		return "store"
	case strings.Contains(name, "/store"):
		return storeNames
	}
	return "small"
}

func (d *disk) inode(name string, fresh bool) *inode {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := d.files[name]
	if n == nil || fresh {
		n = &inode{named: fresh}
		d.files[name] = n
	}
	return n
}

// do does one operation that changes the disk.
func (d *disk) do(name string, o op, f func() error) error {
	if err := d.faults.before(classOf(name), o); err != nil {
		return err
	}
	d.cut.RLock()
	defer d.cut.RUnlock()
	return f()
}

func (d *disk) file(name string, n *inode, open func() (vfs.File, error)) (vfs.File, error) {
	var out *diskFile
	err := d.do(name, opWrite, func() error {
		f, err := open()
		if err == nil {
			out = &diskFile{File: f, disk: d, inode: n, name: name}
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// Create implements vfs.FS.
func (d *disk) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return d.file(name, d.inode(name, true), func() (vfs.File, error) { return d.MemFS.Create(name, c) })
}

// OpenReadWrite implements vfs.FS.
func (d *disk) OpenReadWrite(name string, c vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	_, err := d.MemFS.Stat(name)
	n := d.inode(name, err != nil)
	f, err := d.file(name, n, func() (vfs.File, error) { return d.MemFS.OpenReadWrite(name, c, opts...) })
	if err != nil {
		return nil, err
	}
	if s, err := f.Stat(); err == nil {
		n.mu.Lock()
		if n.size == 0 {
			n.size, n.synced = s.Size(), s.Size()
		}
		n.mu.Unlock()
	}
	return f, nil
}

// ReuseForWrite implements vfs.FS.
func (d *disk) ReuseForWrite(old, name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return d.file(name, d.inode(name, true), func() (vfs.File, error) { return d.MemFS.ReuseForWrite(old, name, c) })
}

// OpenDir implements vfs.FS.
func (d *disk) OpenDir(name string) (vfs.File, error) {
	f, err := d.MemFS.OpenDir(name)
	if err != nil {
		return nil, err
	}
	return &diskFile{File: f, disk: d, name: name, dir: true}, nil
}

// Rename implements vfs.FS.
func (d *disk) Rename(old, name string) error {
	return d.do(name, opWrite, func() error {
		err := d.MemFS.Rename(old, name)
		if err == nil {
			d.mu.Lock()
			defer d.mu.Unlock()
			if n := d.files[old]; n != nil {
				delete(d.files, old)
				d.files[name] = n
				n.named = true
			}
		}
		return err
	})
}

// Link implements vfs.FS.
func (d *disk) Link(old, name string) error {
	return d.do(name, opWrite, func() error { return d.MemFS.Link(old, name) })
}

// Remove implements vfs.FS.
func (d *disk) Remove(name string) error {
	return d.do(name, opWait, func() error {
		err := d.MemFS.Remove(name)
		if err == nil {
			d.mu.Lock()
			delete(d.files, name)
			d.mu.Unlock()
		}
		return err
	})
}

// MkdirAll implements vfs.FS.
func (d *disk) MkdirAll(name string, perm os.FileMode) error {
	return d.do(name, opWrite, func() error { return d.MemFS.MkdirAll(name, perm) })
}

// Lock implements vfs.FS.
func (d *disk) Lock(name string) (io.Closer, error) { return d.MemFS.Lock(name) }

// Unwrap implements vfs.FS.
func (d *disk) Unwrap() vfs.FS { return d.MemFS }

// diskFile is an open file or directory.
type diskFile struct {
	vfs.File
	disk  *disk
	inode *inode
	name  string
	dir   bool
	pos   atomic.Int64
}

func (f *diskFile) wrote(from, to int64) {
	n := f.inode
	n.mu.Lock()
	defer n.mu.Unlock()
	n.size = max(n.size, to)
	if last := len(n.dirty) - 1; last >= 0 && n.dirty[last].to == from {
		n.dirty[last].to = to
		return
	}
	n.dirty = append(n.dirty, extent{from, to})
}

func (f *diskFile) Write(p []byte) (n int, err error) {
	err = f.disk.do(f.name, opWrite, func() error {
		n, err = f.File.Write(p)
		f.wrote(f.pos.Load(), f.pos.Load()+int64(n))
		f.pos.Add(int64(n))
		return err
	})
	return n, err
}

func (f *diskFile) WriteAt(p []byte, off int64) (n int, err error) {
	err = f.disk.do(f.name, opWrite, func() error {
		n, err = f.File.WriteAt(p, off)
		f.wrote(off, off+int64(n))
		return err
	})
	return n, err
}

// Sync implements vfs.File.
func (f *diskFile) Sync() error {
	return f.disk.do(f.name, opSync, func() error {
		if err := f.File.Sync(); err != nil {
			return err
		}
		if f.dir {
			f.disk.syncedNames(f.name)
			return nil
		}
		f.inode.mu.Lock()
		defer f.inode.mu.Unlock()
		f.inode.dirty, f.inode.synced = nil, f.inode.size
		return nil
	})
}

// SyncData implements vfs.File.
func (f *diskFile) SyncData() error { return f.Sync() }

func (d *disk) syncedNames(dir string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for name, n := range d.files {
		if d.PathDir(name) == strings.TrimSuffix(dir, "/") {
			n.mu.Lock()
			n.named = false
			n.mu.Unlock()
		}
	}
}
