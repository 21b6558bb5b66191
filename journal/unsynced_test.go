package journal

import (
	"errors"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/understudy-ha/understudy/journal/entry"
)

// Proves RJ-9 for the directories: a process that died between making them and syncing their names must not leave a later
// one believing in names that a loss of power takes away.
func TestDirectoriesMadeByADeadProcess(t *testing.T) {
	fs := vfs.NewCrashableMem()
	if err := errors.Join(fs.MkdirAll("data", 0o755), syncDir(fs, "."), fs.MkdirAll(testDir, 0o755)); err != nil {
		t.Fatal(err)
	}
	j := active(t, options(fs))
	deposit(t, j, 1, 2, 10)
	durable := flush(t, j).Durable
	k := open(t, options(fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 0})))
	if v, _ := k.View(); v.Last < durable {
		t.Errorf("durable was %s, after a loss of power the journal ends at %s", durable, v.Last)
	}
}

// written is a piece of a file that is dirty in the page cache.
type written struct {
	at int64
	b  []byte
}

// pageCache is a file system as Linux has it: a sync that fails marks the pages clean, and the next one succeeds without
// writing them. disk is what a loss of power leaves.
type pageCache struct {
	vfs.FS
	disk *vfs.MemFS

	mu    sync.Mutex
	fails int // so many syncs are left to fail
	dirty map[string][]written
}

type cachedFile struct {
	vfs.File
	fs   *pageCache
	path string
}

func (c *pageCache) OpenReadWrite(name string, category vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	f, err := c.FS.OpenReadWrite(name, category, opts...)
	if err != nil {
		return nil, err
	}
	d, err := c.disk.OpenReadWrite(name, category)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &cachedFile{File: f, fs: c, path: name}, d.Close()
}

func (c *pageCache) MkdirAll(name string, mode os.FileMode) error {
	return errors.Join(c.disk.MkdirAll(name, mode), c.FS.MkdirAll(name, mode))
}

func (c *pageCache) Rename(from, to string) error {
	return errors.Join(c.disk.Rename(from, to), c.FS.Rename(from, to))
}

func (c *pageCache) Remove(name string) error {
	return errors.Join(ignoreMissing(c.disk.Remove(name)), c.FS.Remove(name))
}

func ignoreMissing(err error) error {
	if isNotExist(err) {
		return nil
	}
	return err
}

// name is the one the file will have: what is written under a temporary one is renamed while it is open.
func (f *cachedFile) name() string { return strings.TrimSuffix(f.path, tempSuffix) }

func (f *cachedFile) WriteAt(b []byte, at int64) (int, error) {
	f.fs.mu.Lock()
	f.fs.dirty[f.name()] = append(f.fs.dirty[f.name()], written{at, append([]byte(nil), b...)})
	f.fs.mu.Unlock()
	return f.File.WriteAt(b, at)
}

func (f *cachedFile) SyncData() error { return f.Sync() }

func (f *cachedFile) Sync() error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	pages := f.fs.dirty[f.name()]
	f.fs.dirty[f.name()] = nil
	if f.fs.fails > 0 {
		f.fs.fails--
		return errors.New("input/output error")
	}
	path := f.path
	if _, err := f.fs.disk.Stat(path); err != nil {
		path = f.name()
	}
	on, err := f.fs.disk.OpenReadWrite(path, category)
	if err != nil {
		return err
	}
	for _, p := range pages {
		if _, err := on.WriteAt(p.b, p.at); err != nil {
			return errors.Join(err, on.Close())
		}
	}
	return on.Close()
}

// Proves reliability rule S18 and RJ-9: after a sync failed, a restart finds the bytes in the page cache, where they look as
// if they were on disk. It must not believe so.
func TestRestartAfterAFailedSync(t *testing.T) {
	fs := &pageCache{FS: vfs.NewMem(), disk: vfs.NewMem(), dirty: map[string][]written{}}
	j := active(t, options(fs))
	deposit(t, j, 1, 2, 10)
	flush(t, j)
	fs.mu.Lock()
	fs.fails = 1
	fs.mu.Unlock()
	deposit(t, j, 1, 2, 10)
	if err := j.Close(); err == nil {
		t.Fatal("the failed sync was not reported")
	}
	j = open(t, options(fs))
	deposit(t, j, 1, 2, 10)
	durable := flush(t, j).Durable
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	k, err := Open(options(fs.disk))
	if err != nil {
		t.Fatalf("after a loss of power: %v", err)
	}
	defer k.Close()
	if v, _ := k.View(); v.Last < durable {
		t.Errorf("durable was %s, after a loss of power the journal ends at %s", durable, v.Last)
	}
}

// A torn write whose value holds the bytes of a bundle is a torn write all the same.
func TestTornValueHoldsABundle(t *testing.T) {
	inside, _, err := entry.Seal(nil, entry.Header{First: 1000, Durable: 900, Session: 1, Fact: pos(1, 0)}, changes(1, 1))
	if err != nil {
		t.Fatal(err)
	}
	for pad := range 8 {
		fs := vfs.NewCrashableMem()
		j := active(t, options(fs))
		deposit(t, j, 1, 1, 10)
		durable := flush(t, j).Durable
		end := j.attached().end
		entries := changes(1, 0)
		entries[0].After.Value = append(make([]byte, 1024+pad), inside...)
		v, _ := j.View()
		if _, err := j.Deposit(Draft{Entries: entries, Session: 1, FactEpoch: 1, Before: v.After}); err != nil {
			t.Fatal(err)
		}
		flush(t, j)
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
		rec, err := decodeRecord(readFile(t, fs, testDir+"/"+stateName))
		if err != nil {
			t.Fatal(err)
		}
		rec.mark = durable
		overwrite(t, fs, testDir+"/"+stateName, 0, rec.encode())
		overwrite(t, fs, receiverPath(1), end, make([]byte, 512))
		k, err := Open(options(fs))
		if err != nil {
			t.Errorf("pad %d: a torn tail is called corruption: %v", pad, err)
			continue
		}
		if v, _ := k.View(); v.Last != durable || !v.Torn {
			t.Errorf("pad %d: ends at %s, torn %v; want %s, torn", pad, v.Last, v.Torn, durable)
		}
		if err := k.Close(); err != nil {
			t.Error(err)
		}
	}
}

// Proves BX-7 for a copy after a loss of power: rot farther from the end than the mark may lie behind is corruption, which
// is repaired, never a torn tail, which would be cut.
func TestRotInACopyIsNotATornTail(t *testing.T) {
	o := options(vfs.NewMem())
	o.ReceiverBytes = 8 << 20 // one receiver: only the mark tells that the bundles were synced
	source := active(t, o)
	for range 600 {
		deposit(t, source, 1, 1, 1000)
	}
	flush(t, source)
	fs := vfs.NewCrashableMem()
	j := open(t, options(fs))
	r := mustReader(t, source, 0)
	defer r.Close()
	for _, item := range drain(t, r) {
		ship(t, j, []Item{item})
		flush(t, j)
	}
	durable := flush(t, j).Durable
	rotten := fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 0})
	overwrite(t, rotten, receiverPath(1), HeaderSize+1000, []byte{0xff, 0xff})
	k, err := Open(options(rotten))
	var corrupt *CorruptionError
	if !errors.As(err, &corrupt) {
		v, _ := k.View()
		t.Fatalf("durable was %s, the journal opens (%v) and ends at %s, torn %v", durable, err, v.Last, v.Torn)
	}
}
