package replica

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/understudy-ha/understudy/internal/ident"
)

// recordOf is a record of any version with a checksum that fits.
func recordOf(magic string, version uint16, e ident.Epoch) []byte {
	b := promiseOf(e)[:promiseRecord]
	copy(b, magic)
	binary.LittleEndian.PutUint16(b[4:], version)
	binary.LittleEndian.PutUint32(b[28:], crc32.Checksum(b[:28], castagnoli))
	return b
}

// promiseFiles are the files of each version that promise epoch 5.
func promiseFiles() map[string][]byte {
	second := make([]byte, promiseSize2)
	copy(second, recordOf(promiseMagic, 2, 4))
	copy(second[promiseSector2:], recordOf(promiseMagic, 2, 5))
	return map[string][]byte{
		"version 1": recordOf(promiseMagic, 1, 5), "version 2": second, "version 3": slices.Concat(promiseOf(5), promiseOf(5), promiseOf(5)),
	}
}

// Whatever the disk refuses, at a start or when something is promised, is an error, and no promise is taken for none or for damaged: only one slot
// of version 3 may be unreadable. Afterwards the file says what it said, or what was to be promised. Proves CL-3, S7.
func TestPromiseOnADiskThatFails(t *testing.T) {
	for name, content := range promiseFiles() {
		for doing, do := range map[string]func(*promiseFile) error{
			"start": func(p *promiseFile) error { _, err := p.load(); return err },
			"write": func(p *promiseFile) error { return p.write(6) },
		} {
			for n, hit := 0, true; hit; n++ {
				p := holding(t, content)
				disk := p.fs
				var failed errorfs.Op
				hit = false
				left := n
				p.fs = errorfs.Wrap(disk, errorfs.InjectorFunc(func(op errorfs.Op) error {
					if left--; left == -1 {
						failed, hit = op, true
						return errorfs.ErrInjected
					}
					return nil
				}))
				err := do(p)
				spare := failed.Kind == errorfs.OpFileReadAt && name == "version 3"
				if hit && !spare && !errors.Is(err, errorfs.ErrInjected) || (!hit || spare) && err != nil {
					t.Errorf("%s, %s: operation %d, %v of %s, failed: %v: %v", name, doing, n, failed.Kind, failed.Path, hit, err)
				}
				p.fs = disk
				if e, err := p.load(); err != nil || e != 5 && (doing == "start" || e != 6) {
					t.Errorf("%s, %s: after operation %d, %v of %s, failed the file says %s, %v", name, doing, n, failed.Kind, failed.Path, e, err)
				}
			}
		}
	}
}

// What a start reads may be in the page cache only, the names of the directories too, whatever version it is of. It is written again before it is
// synced: after a sync that failed the pages count as clean. Proves CL-3, S7.
func TestPromiseOfAnyVersionIsOnDiskOnceRead(t *testing.T) {
	for name, content := range promiseFiles() {
		fs := vfs.NewCrashableMem()
		if err := fs.MkdirAll("data/promises", 0o755); err != nil {
			t.Fatal(err)
		}
		f, err := fs.Create(promisePath, fileCategory)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write(slices.Clone(content)); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		var clean int64 = int64(len(content)) // bytes that were not written again
		p := promiseOn(errorfs.Wrap(fs, errorfs.InjectorFunc(func(op errorfs.Op) error {
			switch op.Kind {
			case errorfs.OpFileWriteAt:
				clean = min(clean, op.Offset)
			case errorfs.OpFileSync, errorfs.OpFileSyncData:
				if op.Path == promisePath && clean > 0 {
					t.Errorf("%s: synced before it was written again", name)
				}
			}
			return nil
		})))
		if e, err := p.load(); e != 5 || err != nil {
			t.Fatalf("%s: %s, %v", name, e, err)
		}
		have, err := promiseOn(fs.CrashClone(vfs.CrashCloneCfg{})).read()
		if err != nil || have.highest() != 5 {
			t.Errorf("%s: after a power cut %s, %v", name, have.highest(), err)
		}
	}
}

// A file of an older version is replaced as a whole: no power cut leaves a part of each. That its name was synced when it was found says nothing
// of the new one.
func TestOldPromiseIsReplaced(t *testing.T) {
	for name, content := range promiseFiles() {
		if len(content) == promiseSize {
			continue
		}
		fs := vfs.NewCrashableMem()
		if err := replaceFile(fs, "data/promises", "orders", slices.Clone(content)); err != nil {
			t.Fatal(err)
		}
		started, fails := false, true
		p := promiseOn(errorfs.Wrap(fs, errorfs.InjectorFunc(func(op errorfs.Op) error {
			if !started || !fails {
				return nil
			}
			if op.Kind == errorfs.OpFileWriteAt {
				t.Errorf("%s: written in place", name)
			}
			if op.Kind == errorfs.OpFileSync && op.Path == "data/promises" {
				return errorfs.ErrInjected
			}
			return nil
		})))
		if e, err := p.load(); e != 5 || err != nil {
			t.Fatal(e, err)
		}
		started = true
		if err := p.write(6); !errors.Is(err, errorfs.ErrInjected) {
			t.Fatalf("%s: promised under a name that is not on disk: %v", name, err)
		}
		fails = false
		if err := p.write(6); err != nil {
			t.Fatal(err)
		}
		promiseOn(fs.CrashClone(vfs.CrashCloneCfg{})).says(t, 6)
	}
}
