package journal

import (
	"bytes"
	"context"
	"errors"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal/entry"
)

// tape is a journal of several bundles, each durable before the next, as files in memory.
type tape struct {
	files   map[string][]byte
	states  [][]byte // the state file after each bundle
	bundles []entry.Bundle
	offsets []int64 // of the bundles in receiver 1
}

// record6 deposits six bundles, J PR included. The journal is a copy when asked for.
func record6(t testing.TB, asCopy bool) tape {
	fs := vfs.NewMem()
	source := active(t, options(vfs.NewMem()))
	deposit(t, source, 1, 1, 40) // J PR and a bundle: two
	flush(t, source)
	for i := range 4 {
		deposit(t, source, 1, 2, 100*i)
		flush(t, source)
	}
	j := open(t, options(fs))
	var p tape
	r := mustReader(t, source, 0)
	offset := int64(HeaderSize)
	for _, i := range drain(t, r) {
		if asCopy || i.ReceiverHeader != nil {
			ship(t, j, []Item{i})
		}
		if i.ReceiverHeader != nil {
			continue
		}
		p.bundles, p.offsets = append(p.bundles, i.Bundle()), append(p.offsets, offset)
		offset += int64(len(i.Raw))
		if asCopy {
			flush(t, j)
			p.states = append(p.states, readFile(t, fs, testDir+"/"+stateName))
		}
	}
	if !asCopy {
		must(t, j.Close())
		fs = source.disk.fs.(*vfs.MemFS)
		// The marks as the disk writer would have left them after each sync.
		must(t, source.Close())
		rec, err := decodeRecord(readFile(t, fs, testDir+"/"+stateName))
		must(t, err)
		for _, b := range p.bundles {
			rec.mark = b.Last()
			p.states = append(p.states, rec.encode())
		}
	} else {
		must(t, j.Close())
	}
	p.files = map[string][]byte{
		receiverPath(1):           readFile(t, fs, receiverPath(1)),
		testDir + "/" + stateName: p.states[len(p.states)-1],
	}
	return p
}

// play writes the files anew, with the durable mark as it was after the given number of bundles.
func (p tape) play(t testing.TB, durable int) *vfs.MemFS {
	t.Helper()
	fs := vfs.NewMem()
	must(t, fs.MkdirAll(testDir, 0o755))
	for name, b := range p.files {
		overwrite(t, fs, name, 0, bytes.Clone(b))
	}
	overwrite(t, fs, testDir+"/"+stateName, 0, bytes.Clone(p.states[durable-1]))
	return fs
}

func (p tape) end() int64 {
	n := len(p.bundles) - 1
	return p.offsets[n] + int64(len(p.bundles[n].Raw))
}

// wantCorrupt opens a journal that is corrupt at the given place.
func wantCorrupt(t testing.TB, fs vfs.FS, receiver ident.ReceiverNumber, offset int64) {
	t.Helper()
	j, err := Open(options(fs))
	var c *CorruptionError
	if !errors.As(err, &c) || c.Receiver != receiver || c.Offset != offset {
		t.Errorf("want corruption of receiver %s at %d, got %v", receiver, offset, err)
	}
	if err == nil {
		j.Close()
	}
}

// A receiver whose last bundle is cut at any byte, or holds anything else there, has a torn tail as long as the bundle was not
// known to be durable, and is corrupt when it was.
func TestCutAtEveryByte(t *testing.T) {
	for _, asCopy := range []bool{false, true} {
		p := record6(t, asCopy)
		n := len(p.bundles)
		begin, last := p.offsets[n-1], p.bundles[n-1]
		for cut := begin; cut < p.end(); cut++ {
			for _, filler := range []byte{0, 0xff} {
				rest := bytes.Repeat([]byte{filler}, int(p.end()-cut))
				if bytes.Equal(rest, last.Raw[cut-begin:]) {
					continue // only padding was cut
				}
				fs := p.play(t, n-1)
				overwrite(t, fs, receiverPath(1), cut, rest)
				j, err := Open(options(fs))
				if err != nil {
					t.Fatalf("cut at %d: %v", cut-begin, err)
				}
				v, _ := j.View()
				clean := cut == begin && filler == 0
				if v.Last != last.First-1 || v.Torn == clean || v.Durable != v.Last || v.Chain != last.Chain {
					t.Fatalf("cut at %d: %+v", cut-begin, v)
				}
				must(t, j.Close())
				if zero, _, err := restOf(t, fs, begin); err != nil || !zero {
					t.Fatalf("cut at %d: remains left %v", cut-begin, err)
				}
				fs = p.play(t, n)
				overwrite(t, fs, receiverPath(1), cut, rest)
				wantCorrupt(t, fs, 1, begin)
			}
		}
	}
}

func restOf(t testing.TB, fs vfs.FS, offset int64) (bool, int64, error) {
	f, err := fs.Open(receiverPath(1))
	must(t, err)
	defer f.Close()
	info, err := f.Stat()
	must(t, err)
	return rest(f, offset, info.Size())
}

// A bad place is corruption when it was durable: the mark in the state file says so, or in a local journal a later bundle.
// Where nothing says so it may be a hole in the last, unsynced batch; then the tail is cut from there.
func TestHoleOrCorruption(t *testing.T) {
	for name, c := range map[string]struct {
		asCopy  bool
		durable int // bundles that the state file says are durable
		corrupt bool
	}{
		"local, marked":          {false, 6, true},
		"local, mark is old":     {false, 2, true}, // bundle 6 was sealed when bundle 4 was durable
		"copy, marked":           {true, 6, true},
		"copy, just marked":      {true, 4, true},
		"copy, not durable here": {true, 3, false},
	} {
		t.Run(name, func(t *testing.T) {
			p := record6(t, c.asCopy)
			for _, bad := range [][]byte{{0xff}, make([]byte, len(p.bundles[3].Raw))} { // a flipped byte, and a lost block
				fs := p.play(t, c.durable)
				overwrite(t, fs, receiverPath(1), p.offsets[3]+8*int64(len(bad)%2), bad)
				if c.corrupt {
					wantCorrupt(t, fs, 1, p.offsets[3])
					continue
				}
				j := open(t, options(fs))
				v, _ := j.View()
				if v.Last != p.bundles[2].Last() || !v.Torn {
					t.Errorf("%+v", v)
				}
				must(t, j.Close())
				if zero, _, err := restOf(t, fs, p.offsets[3]); err != nil || !zero {
					t.Errorf("remains left %v", err)
				}
			}
		})
	}
}

// What lies farther apart than a batch was not in one sync, so it is no hole in an unsynced batch.
func TestHoleLargerThanABatchIsCorruption(t *testing.T) {
	fs := vfs.NewMem()
	source := options(vfs.NewMem())
	source.ReceiverBytes = 64 << 20
	j := active(t, source)
	for range 4 {
		deposit(t, j, 1, 1, 2<<20)
	}
	c := options(fs)
	c.ReceiverBytes = 64 << 20
	to := copyOf(t, j, c)
	flush(t, to)
	must(t, to.Close())
	rec, err := decodeRecord(readFile(t, fs, testDir+"/"+stateName))
	must(t, err)
	rec.mark = 1
	overwrite(t, fs, testDir+"/"+stateName, 0, rec.encode())
	b, err := j.BundleAt(1)
	must(t, err)
	at := HeaderSize + int64(len(b.Raw))
	overwrite(t, fs, receiverPath(1), at+500, []byte{0xff})
	wantCorrupt(t, fs, 1, at)
}

// Torn is remembered until the journal was compared.
func TestTornIsRemembered(t *testing.T) {
	p := record6(t, false)
	fs := p.play(t, 6)
	overwrite(t, fs, receiverPath(1), p.end(), []byte("USBN remains of a write"))
	j := open(t, options(fs))
	if v, _ := j.View(); !v.Torn || v.Last != p.bundles[5].Last() {
		t.Fatalf("%+v", v)
	}
	j = reopen(t, j, options(fs))
	if v, _ := j.View(); !v.Torn {
		t.Fatalf("%+v", v)
	}
	must(t, j.ClearTorn())
	j = reopen(t, j, options(fs))
	if v, _ := j.View(); v.Torn {
		t.Fatalf("%+v", v)
	}
}

func TestLostFiles(t *testing.T) {
	build := func(t *testing.T) *vfs.MemFS {
		fs := vfs.NewMem()
		j := active(t, options(fs))
		for range 3 {
			deposit(t, j, 1, 1, 10)
			_, err := j.ChangeReceiver(1)
			must(t, err)
		}
		must(t, j.Close())
		return fs
	}
	for name, c := range map[string]struct {
		file    string
		corrupt ident.ReceiverNumber
	}{
		"oldest receiver": {fileName(1), 0}, // as if it had been deleted
		"one between":     {fileName(2), 2},
		"newest receiver": {fileName(4), 3},
		"state":           {stateName, 0},
	} {
		fs := build(t)
		must(t, fs.Remove(testDir+"/"+c.file))
		j, err := Open(options(fs))
		var broken *CorruptionError
		switch {
		case c.corrupt != 0 && (!errors.As(err, &broken) || broken.Receiver != c.corrupt || !errors.Is(err, errGone)):
			t.Errorf("%s: %v", name, err)
		case c.file == stateName && !errors.Is(err, errStateFile):
			t.Errorf("%s: %v", name, err)
		case c.file == fileName(1) && err != nil:
			t.Errorf("%s: %v", name, err)
		}
		if err == nil {
			j.Close()
		}
	}
}

// Proves BX-7 for one journal: any changed byte in any receiver is found, at once where Open reads, else when it is read.
func TestAnyFlippedByteIsFound(t *testing.T) {
	fs := vfs.NewMem()
	j := active(t, options(fs))
	for range 2 {
		deposit(t, j, 1, 2, 30)
		_, err := j.ChangeReceiver(1)
		must(t, err)
	}
	must(t, j.Close())
	for n := ident.ReceiverNumber(1); n <= 3; n++ {
		whole := readFile(t, fs, receiverPath(n))
		step := 1
		if testing.Short() {
			step = 7
		}
		for at := 0; at < HeaderSize+800; at += step {
			if at > 100 && at < 256 || at > 1100 && at < HeaderSize-20 {
				continue // zeros of the header, alike
			}
			overwrite(t, fs, receiverPath(n), int64(at), []byte{whole[at] ^ 4})
			j, err := Open(options(fs))
			var c *CorruptionError
			if err == nil {
				err = j.Verify(context.Background())
				if v, _ := j.View(); err == nil && v.Torn && n == 3 && v.Last == 9 {
					err = &CorruptionError{Receiver: 3} // behind the last bundle: a torn tail without loss
				}
				must(t, j.Close())
			}
			if !errors.As(err, &c) || c.Receiver != n {
				t.Fatalf("receiver %s, byte %d: %v", n, at, err)
			}
			overwrite(t, fs, receiverPath(n), 0, whole)
		}
	}
}

// A reader and a look-up report a rotten detached receiver, which Open does not read.
func TestRotInADetachedReceiver(t *testing.T) {
	fs := vfs.NewMem()
	j := active(t, options(fs))
	deposit(t, j, 1, 2, 30)
	_, err := j.ChangeReceiver(1)
	must(t, err)
	for range 3 { // in receiver 2 no run begins
		deposit(t, j, 1, 2, 30)
	}
	_, err = j.ChangeReceiver(1)
	must(t, err)
	must(t, j.Close())
	overwrite(t, fs, receiverPath(2), HeaderSize+600, []byte{0xee})
	j = open(t, options(fs))
	var c *CorruptionError
	if _, err := j.BundleAt(9); !errors.As(err, &c) {
		t.Error(err)
	}
	if _, _, err := j.FindHistory(pos(1, 5)); !errors.As(err, &c) {
		t.Error(err)
	}
	r := mustReader(t, j, 0)
	for err = nil; err == nil; {
		_, _, err = r.TryNext()
	}
	if !errors.As(err, &c) || c.Receiver != 2 {
		t.Error(err)
	}
}

// FuzzOpen: whatever stands in a receiver, Open finds a journal that holds together or refuses; it never cuts what was durable.
// The writer's goroutine makes coverage vary, so run it with -fuzzminimizetime=10x.
func FuzzOpen(f *testing.F) {
	p := record6(f, false)
	body := p.files[receiverPath(1)][HeaderSize:p.end()]
	f.Add(body, uint8(6))
	f.Add(body[:len(body)/2], uint8(1))
	f.Fuzz(func(t *testing.T, body []byte, durable uint8) {
		fs := p.play(t, 1+int(durable)%6)
		overwrite(t, fs, receiverPath(1), HeaderSize, make([]byte, p.end()-HeaderSize))
		overwrite(t, fs, receiverPath(1), HeaderSize, body)
		j, err := Open(options(fs))
		if err != nil {
			return
		}
		defer j.Close()
		if err := j.Verify(context.Background()); err != nil {
			t.Fatalf("what was opened does not hold: %v", err)
		}
		v, _ := j.View()
		if mark := p.bundles[int(durable)%6].Last(); v.Last < mark {
			t.Fatalf("durable entries were cut: %+v, mark %s", v, mark)
		}
	})
}
