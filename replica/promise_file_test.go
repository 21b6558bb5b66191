package replica

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/understudy-ha/understudy/internal/ident"
)

const promisePath = "data/promises/orders"

func promiseOn(fs vfs.FS) *promiseFile {
	return &promiseFile{fs: fs, dir: "data/promises", name: "orders"}
}

// promisedUpTo returns a file system with the promise file of epochs 1 to e.
func promisedUpTo(t testing.TB, fs vfs.FS, e ident.Epoch) *promiseFile {
	t.Helper()
	p := promiseOn(fs)
	for n := ident.Epoch(1); n <= e; n++ {
		if err := p.write(n); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

// holding returns a promise file of these bytes.
func holding(t testing.TB, content []byte) *promiseFile {
	t.Helper()
	p := promiseOn(vfs.NewMem())
	if err := replaceFile(p.fs, p.dir, p.name, bytes.Clone(content)); err != nil { // a file may change what it is given
		t.Fatal(err)
	}
	return p
}

func (p promiseFile) bytes(t testing.TB) []byte {
	t.Helper()
	b, err := readFile(p.fs, p.path())
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// says checks what the file says, in all slots.
func (p promiseFile) says(t testing.TB, want ident.Epoch) {
	t.Helper()
	have, err := p.read()
	if err != nil || have.slots != [promiseSlots]ident.Epoch{want, want, want} {
		t.Fatalf("the file says %v, %v, want %s", have.slots, err, want)
	}
}

func TestPromiseFile(t *testing.T) {
	fs := vfs.NewCrashableMem()
	p := promiseOn(fs)
	if e, err := p.load(); e != 0 || err != nil {
		t.Fatalf("no file: %s %v", e, err)
	}
	if _, err := fs.Stat(promisePath); !isNotExist(err) {
		t.Fatalf("a look made the file: %v", err)
	}
	for _, e := range []ident.Epoch{1, 2, 3, 7, 8, 9} {
		if err := p.write(e); err != nil {
			t.Fatal(err)
		}
		promiseOn(fs.CrashClone(vfs.CrashCloneCfg{})).says(t, e)
	}
	if got := p.bytes(t); len(got) != 3*4096 {
		t.Fatalf("%d bytes", len(got))
	}
}

// A promise costs one sync, and no space: nothing is made and nothing grows. A disk that is full does not keep a node from promising.
func TestPromiseCostsOneSync(t *testing.T) {
	fs := vfs.NewMem()
	promisedUpTo(t, fs, 1)
	p := promiseOn(fs) // a start makes sure of its name, once and for all
	if _, err := p.load(); err != nil {
		t.Fatal(err)
	}
	syncs := 0
	p.fs = errorfs.Wrap(fs, errorfs.InjectorFunc(func(op errorfs.Op) error {
		switch op.Kind {
		case errorfs.OpFileSyncData:
			syncs++
		case errorfs.OpCreate, errorfs.OpRename, errorfs.OpFileWrite, errorfs.OpFileSync, errorfs.OpFilePreallocate, errorfs.OpLink, errorfs.OpMkdirAll:
			return fmt.Errorf("operation %v of %s", op.Kind, op.Path)
		}
		return nil
	}))
	for e := ident.Epoch(2); e < 9; e++ {
		if err := p.write(e); err != nil || syncs != int(e)-1 {
			t.Fatalf("%d syncs, %v", syncs, err)
		}
		p.says(t, e)
		if got := len(p.bytes(t)); got != promiseSize {
			t.Fatalf("%d bytes", got)
		}
	}
}

// The bytes of all versions are part of the format.
func TestPromiseVersions(t *testing.T) {
	record := func(version uint16, e byte) []byte { // by hand
		b := append([]byte("USPR"), byte(version), 0, 0, 0, e, 0, 0, 0, 0, 0, 0, 0)
		b = append(b, make([]byte, 12)...)
		sum := crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli))
		return append(b, byte(sum), byte(sum>>8), byte(sum>>16), byte(sum>>24))
	}
	padded := func(size int, b []byte) []byte { return append(b, make([]byte, size-len(b))...) }
	if got, want := hex.EncodeToString(promiseOf(7)[:32]), hex.EncodeToString(record(3, 7)); got != want || want != "55535052"+"0300"+"0000"+"0700000000000000"+"000000000000000000000000"+"350a86d3" {
		t.Fatalf("%s, want %s", got, want)
	}
	two := func(a, b, c byte) (out []byte) {
		for _, e := range []byte{a, b, c} {
			sector := []byte(nil)
			if e > 0 {
				sector = record(2, e)
			}
			out = append(out, padded(512, sector)...)
		}
		return out
	}
	for name, c := range map[string]struct {
		content []byte
		want    ident.Epoch // zero: damaged
	}{
		"version 1":                        {record(1, 5), 5},
		"version 2, new":                   {two(5, 0, 0), 5},
		"version 2":                        {two(3, 5, 4), 5},
		"version 2, the other":             {two(3, 5, 6), 6},
		"version 2, once":                  {two(3, 4, 0), 4},
		"version 2 that lost the first":    {two(0, 5, 4), 0},
		"version 2 that lost the second":   {two(3, 0, 4), 0},
		"version 2 cut":                    {two(3, 5, 4)[:1024], 0},
		"version 3 in the size of 1":       {record(3, 5), 0},
		"version 1 in a file of version 2": {bytes.Repeat(padded(512, record(1, 5)), 3), 0},
		"version 3 in a file of version 2": {bytes.Repeat(padded(512, record(3, 5)), 3), 0},
		"version 2 in a file of version 3": {bytes.Repeat(padded(4096, record(2, 5)), 3), 0},
		"version 3":                        {bytes.Repeat(padded(4096, record(3, 5)), 3), 5},
		"version 3 without an epoch":       {bytes.Repeat(padded(4096, record(3, 0)), 3), 0},
		"version 1 without an epoch":       {record(1, 0), 0},
		"something else":                   {bytes.Repeat(padded(4096, recordOf("USPX", 3, 5)), 3), 0},
		"version 3 cut":                    {bytes.Repeat(padded(4096, record(3, 5)), 2), 0},
		"zeros":                            {make([]byte, 3*4096), 0},
		"nothing":                          {[]byte{}, 0},
	} {
		p := holding(t, c.content)
		e, err := p.load()
		if c.want == 0 {
			if err == nil || !strings.Contains(err.Error(), "add it anew") || p.write(9) == nil || !bytes.Equal(p.bytes(t), c.content) {
				t.Errorf("%s: %s, %v", name, e, err)
			}
			continue
		}
		if err != nil || e != c.want || !bytes.Equal(p.bytes(t), c.content) {
			t.Errorf("%s: %s, %v, want %s and the file as it was", name, e, err, c.want)
		}
		if err := p.write(c.want + 1); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		p.says(t, c.want+1)
		if len(c.content) < promiseSlot { // a sector that is 512 bytes for this file and 4096 for the disk: every flipped bit is noticed
			for at := range c.content {
				if at%512 >= 32 || c.content[at/512*512] == 0 {
					continue
				}
				for bit := range 8 {
					b := bytes.Clone(c.content)
					b[at] ^= 1 << bit
					if e, err := holding(t, b).load(); err == nil {
						t.Fatalf("%s, bit %d of byte %d flipped: %s", name, bit, at, e)
					}
				}
			}
		}
	}
}

// No flipped bit, lost or unreadable slot changes what was promised, and it is mended, while one slot is left. The loss of all is noticed.
func TestPromiseRot(t *testing.T) {
	for e := ident.Epoch(1); e < 6; e++ {
		sound := promisedUpTo(t, vfs.NewMem(), e).bytes(t)
		rotten := func(b []byte) {
			t.Helper()
			p := holding(t, b)
			if got, err := p.load(); got != e || err != nil {
				t.Fatalf("%s, %v, want %s", got, err, e)
			}
			p.says(t, e)
			p = holding(t, b) // in a process that read it before it rotted
			if err := p.write(e + 1); err != nil {
				t.Fatal(err)
			}
			p.says(t, e+1)
		}
		for at := range sound {
			bits := 1
			if at%promiseSlot < promiseRecord {
				bits = 8
			} else if at%61 != 0 {
				continue
			}
			for bit := range bits {
				b := bytes.Clone(sound)
				b[at] ^= 1 << bit
				rotten(b)
			}
		}
		for lost := 1; lost < 1<<promiseSlots; lost++ {
			var of []int
			for slot := range promiseSlots {
				if lost>>slot&1 != 0 {
					of = append(of, slot)
				}
			}
			unreadable := errorfs.Wrap(holding(t, sound).fs, errorfs.InjectorFunc(func(op errorfs.Op) error {
				if op.Kind == errorfs.OpFileReadAt && slices.Contains(of, int(op.Offset/promiseSlot)) {
					return errorfs.ErrInjected
				}
				return nil
			}))
			if got, err := promiseOn(unreadable).load(); len(of) < promiseSlots && (got != e || err != nil) || len(of) == promiseSlots && !errors.Is(err, errorfs.ErrInjected) {
				t.Fatalf("slots %v cannot be read: %s, %v, want %s", of, got, err, e)
			}
			for _, fill := range []byte{0, 0xff} {
				b := bytes.Clone(sound)
				for _, slot := range of {
					copy(b[slot*promiseSlot:], bytes.Repeat([]byte{fill}, promiseSlot))
				}
				if len(of) < promiseSlots {
					rotten(b)
					continue
				}
				p := holding(t, b)
				if got, err := p.load(); err == nil || !bytes.Equal(p.bytes(t), b) {
					t.Fatalf("all slots are damaged, and %s taken for what was promised", got)
				}
				if err := p.write(e + 1); err == nil {
					t.Fatal("wrote a promise over what is not known")
				}
			}
		}
	}
}

// A power cut in the middle of a promise, or of what a start does about the file, leaves each slot that was being written as it was, as it was to be, or
// destroyed, with what the disk has as physical sector; but not all of them. The promise is the old one then, or the new one that nobody
// has heard of, and the node starts. What a start answers is the promise after any further power cut. Proves CL-3, S7.
func TestPromiseTornWrites(t *testing.T) {
	images, destroyed := 0, 0
	for e := ident.Epoch(1); e < 5; e++ {
		before := promisedUpTo(t, vfs.NewMem(), e).bytes(t)
		among := func(b []byte) ident.Epoch {
			t.Helper()
			have, err := holding(t, b).read()
			if got := have.highest(); err != nil || got != e && got != e+1 {
				t.Fatalf("%s, %v after a power cut between %s and %s", got, err, e, e+1)
			}
			return have.highest()
		}
		writing := newTornDisk(t, before, before)
		if err := promiseOn(writing).write(e + 1); err != nil {
			t.Fatal(err)
		}
		if among(writing.disk) != e+1 || writing.syncs != 1 {
			t.Fatalf("answered after %d syncs, and it is not on disk", writing.syncs)
		}
		starts := []*tornDisk{}
		for _, c := range writing.crashes {
			among(c.content)
			starts = append(starts, newTornDisk(t, c.content, c.content)) // the machine was switched off
			if !c.destroyed {
				starts = append(starts, newTornDisk(t, c.content, c.cache)) // the process alone was killed
			}
		}
		for _, s := range starts {
			got, err := promiseOn(s).load()
			if err != nil || got != among(s.cache(t)) {
				t.Fatalf("%s, %v", got, err)
			}
			holding(t, s.cache(t)).says(t, got)
			for slot := range promiseSlots { // now it counts, and a sector may rot
				b := bytes.Clone(s.disk)
				clear(b[slot*promiseSlot:][:promiseSlot])
				if later := among(b); later != got {
					t.Fatalf("a start answered %s; with slot %d lost it is %s", got, slot, later)
				}
			}
			for _, c := range s.crashes {
				images++
				if c.destroyed {
					destroyed++
				}
				among(c.content)
			}
		}
	}
	if destroyed == 0 || destroyed == images {
		t.Fatalf("%d of %d images have a destroyed sector: the test does not test it", destroyed, images)
	}
}

// tornDisk is a file system with a promise file that notes what a power cut can leave of it at every moment.
type tornDisk struct {
	vfs.FS
	t       testing.TB
	disk    []byte // synced
	crashes []crash
	syncs   int
}

type crash struct {
	content   []byte
	cache     []byte // what the next process reads if this one alone is killed
	destroyed bool   // one slot is
}

func newTornDisk(t testing.TB, disk, cache []byte) *tornDisk {
	return &tornDisk{FS: holding(t, cache).fs, t: t, disk: bytes.Clone(disk)}
}

func (d *tornDisk) cache(t testing.TB) []byte { return promiseOn(d.FS).bytes(t) }

func (d *tornDisk) OpenReadWrite(name string, category vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	f, err := d.FS.OpenReadWrite(name, category, opts...)
	return &tornFile{File: f, d: d, dirty: map[int]bool{}}, err
}

type tornFile struct {
	vfs.File
	d     *tornDisk
	dirty map[int]bool // slots written since the last sync
}

func (f *tornFile) WriteAt(b []byte, at int64) (int, error) {
	if at%promiseSlot != 0 || len(b) != promiseSlot {
		f.d.t.Fatalf("%d bytes at %d are not one slot", len(b), at)
	}
	n, err := f.File.WriteAt(b, at)
	f.dirty[int(at/promiseSlot)] = true
	f.crash(0, bytes.Clone(f.d.disk), 0)
	return n, err
}

func (f *tornFile) SyncData() error {
	cache := f.d.cache(f.d.t)
	for slot := range f.dirty {
		copy(f.d.disk[slot*promiseSlot:][:promiseSlot], cache[slot*promiseSlot:])
	}
	clear(f.dirty)
	f.d.syncs++
	f.crash(0, bytes.Clone(f.d.disk), 0)
	return f.File.SyncData()
}

// crash notes the images in which the slots from the given one on are old, new or destroyed.
func (f *tornFile) crash(slot int, image []byte, destroyed int) {
	if slot == promiseSlots {
		if destroyed < promiseSlots {
			f.d.crashes = append(f.d.crashes, crash{image, f.d.cache(f.d.t), destroyed > 0})
		}
		return
	}
	f.crash(slot+1, bytes.Clone(image), destroyed)
	if !f.dirty[slot] {
		return
	}
	fresh, half := f.d.cache(f.d.t)[slot*promiseSlot:][:promiseSlot], bytes.Repeat([]byte{0xa5}, promiseSlot)
	copy(half, fresh[:10])
	for _, part := range [][]byte{fresh, half} {
		next := bytes.Clone(image)
		copy(next[slot*promiseSlot:], part)
		if lost := destroyed; &part[0] == &half[0] {
			f.crash(slot+1, next, lost+1)
		} else {
			f.crash(slot+1, next, lost)
		}
	}
}

// A process that dies between the write of a promise and its sync, or whose sync fails, leaves it in the page cache. The next life reads it
// from there and acts on it, so it has to be on disk by then.
func TestPromiseReadIsOnDisk(t *testing.T) {
	for before := ident.Epoch(0); before < 4; before++ {
		fs := vfs.NewCrashableMem()
		p := promisedUpTo(t, fs, before)
		dies := *p
		dies.fs = errorfs.Wrap(fs, errorfs.InjectorFunc(func(op errorfs.Op) error {
			if op.Kind == errorfs.OpFileSyncData || op.Kind == errorfs.OpFileSync && before == 0 && op.Path == p.dir {
				return errorfs.ErrInjected
			}
			return nil
		}))
		if err := dies.write(before + 1); err == nil {
			t.Fatalf("promised %s without a sync", before+1)
		}
		if e, err := dies.load(); before > 0 && err == nil {
			t.Fatalf("the next life acts on %s, which is not on disk", e)
		}
		e, err := p.load()
		if err != nil || e < before {
			t.Fatalf("the next life reads %s, %v, after %s", e, err, before)
		}
		promiseOn(fs.CrashClone(vfs.CrashCloneCfg{})).says(t, e)
	}
}

// The directory cannot be synced when the file is made, or replaced: the promise is not given. It is asked for again, by the same process,
// which finds the file: what is answered then is there after a power cut, too. Proves CL-3, S7.
func TestPromiseWhoseNameWasNotSynced(t *testing.T) {
	old := append([]byte("USPR"), 1, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0)
	old = append(old, make([]byte, 12)...)
	old = binary.LittleEndian.AppendUint32(old, crc32.Checksum(old, castagnoli))
	for name, before := range map[string][]byte{"there was none": nil, "one of version 1": old} {
		fs := vfs.NewCrashableMem()
		fails := true
		p := promiseOn(errorfs.Wrap(fs, errorfs.InjectorFunc(func(op errorfs.Op) error {
			if fails && op.Kind == errorfs.OpFileSync && op.Path == "data/promises" {
				return errorfs.ErrInjected
			}
			return nil
		})))
		if before != nil {
			if err := replaceFile(fs, p.dir, p.name, before); err != nil {
				t.Fatal(err)
			}
		}
		for range 2 {
			if err := p.write(7); !errors.Is(err, errorfs.ErrInjected) {
				t.Fatalf("%s: promised under a name that is not on disk: %v", name, err)
			}
		}
		fails = false
		if err := p.write(7); err != nil {
			t.Fatal(err)
		}
		promiseOn(fs.CrashClone(vfs.CrashCloneCfg{})).says(t, 7)
	}
}
