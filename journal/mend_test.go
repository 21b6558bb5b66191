package journal

import (
	"bytes"
	"errors"
	"maps"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal/entry"
)

// Proves BX-8, I9: a journal that does not open is made whole from a twin, whatever is gone: files in the middle, headers of
// neighbours, the newest receivers, all of them, the state file. Where the end came from the twin it counts as torn.
func TestMendAClosedJournal(t *testing.T) {
	p := newPair(t)
	v, _ := p.j.View()
	last := v.Attached
	must(t, p.j.Close())
	whole := files(t, p.fs, testDir)
	remove := func(numbers ...ident.ReceiverNumber) func() {
		return func() {
			for _, n := range numbers {
				must(t, p.fs.Remove(receiverPath(n)))
			}
		}
	}
	spoil := func(at int64, numbers ...ident.ReceiverNumber) func() {
		return func() {
			for _, n := range numbers {
				overwrite(t, p.fs, receiverPath(n), at, []byte{9, 8, 7})
			}
		}
	}
	var all []ident.ReceiverNumber
	for n := ident.ReceiverNumber(1); n <= last; n++ {
		all = append(all, n)
	}
	for _, c := range []struct {
		name   string
		damage func()
		torn   bool
	}{
		{"one missing", remove(5), false},
		{"three missing in a row", remove(5, 6, 7), false},
		{"missing here and there", remove(3, 5, 9), false},
		{"the newest missing", remove(last), true},
		{"the two newest missing", remove(last-1, last), true},
		{"all missing", remove(all...), true},
		{"the newest missing, and a bundle of the one before", func() { remove(last)(); spoil(HeaderSize+200, last-1)() }, true},
		{"no state file, the newest header and a bundle", func() { must(t, p.fs.Remove(testDir+"/"+stateName)); spoil(60, last)(); spoil(HeaderSize+5, last)() }, true},
		{"one header", spoil(50, 4), false},
		{"headers of neighbours", spoil(50, 4, 5, 6), false},
		{"every header", spoil(50, all...), false},
		{"a header, and bundles of its neighbours", func() { spoil(50, 5)(); spoil(HeaderSize+200, 4, 6)() }, false},
		{"bundles of the newest", spoil(HeaderSize+5, last), false},
		{"the newest all but empty", func() { p.replace(t, last, []byte{0}) }, true},
		{"the newest cut", func() { p.replace(t, last, whole[fileName(last)][:HeaderSize+10]) }, true},
		{"the newest all zeros", func() { p.replace(t, last, make([]byte, len(whole[fileName(last)]))) }, true},
		{"the state file", func() { overwrite(t, p.fs, testDir+"/"+stateName, 12, []byte{77}) }, true},
		{"no state file", func() { must(t, p.fs.Remove(testDir+"/"+stateName)) }, true},
		{"both marks", func() { overwrite(t, p.fs, testDir+"/"+stateName, 512, make([]byte, 1024)) }, true},
		{"state file and newest header", func() { must(t, p.fs.Remove(testDir+"/"+stateName)); spoil(60, last)() }, true},
	} {
		c.damage()
		damaged := files(t, p.fs, testDir)
		if _, err := Open(p.o); !Damaged(err) {
			t.Fatalf("%s: open: %v", c.name, err)
		}
		if _, err := Mend(t.Context(), p.o, true, []Twin{silent{}}, nil); err == nil {
			t.Fatalf("%s: repaired by nobody", c.name)
		}
		if have := files(t, p.fs, testDir); !maps.EqualFunc(have, damaged, bytes.Equal) {
			t.Fatalf("%s: changed without a twin", c.name)
		}
		done, err := Mend(t.Context(), p.o, true, []Twin{silent{}, p.twin}, nil)
		if err != nil {
			t.Fatalf("%s: %v (%+v)", c.name, err, done)
		}
		p.j = open(t, p.o)
		if v, _ := p.j.View(); v.Torn != c.torn {
			t.Errorf("%s: torn %t, want %t", c.name, v.Torn, c.torn)
		}
		for _, rot := range inspected(t, p.j) { // what a start does not read
			if _, err := p.j.Repair(t.Context(), rot, []Twin{p.twin}, nil); err != nil {
				t.Errorf("%s: %v", c.name, err)
			}
		}
		p.sound(t)
		must(t, p.j.Close())
		for name, b := range files(t, p.fs, testDir) {
			if name != stateName && !strings.Contains(name, badInfix) && !equalButZeros(b, whole[name]) {
				t.Fatalf("%s: %s is not what it was", c.name, name)
			}
		}
		restore(t, p.fs, testDir, whole)
	}
}

// Proves BX-8, I3: what was durable here is not given up because the copies that can be asked end earlier; and what stands here
// behind a rotten place joins what a copy has of it, although the copy ends in between.
func TestMendGivesNothingUp(t *testing.T) {
	fs := vfs.NewMem()
	o := options(fs)
	o.RingBytes = 1
	j := active(t, o)
	there := o
	there.Dir = "twin/journals/orders/a"
	for range 10 {
		deposit(t, j, 1, 2, 500)
	}
	flush(t, j)
	twin := journalTwin{copyOf(t, j, there)} // of the first half
	flush(t, twin.j)
	half, _ := j.View()
	for range 10 {
		deposit(t, j, 1, 2, 500)
	}
	v := flush(t, j)
	want := remember(t, j)
	end := j.attached().end
	must(t, j.Close())
	whole := files(t, fs, testDir)

	overwrite(t, fs, receiverPath(1), HeaderSize+3000, []byte{1, 2, 3}) // the copy has that
	if _, err := Mend(t.Context(), o, true, []Twin{twin}, nil); err != nil {
		t.Fatal(err)
	}
	j = open(t, o)
	if have, _ := j.View(); have.Last != v.Last || have.Torn {
		t.Errorf("ends at %s, want %s; torn %t", have.Last, v.Last, have.Torn)
	}
	if n, met := want.served(t, j); met || n != len(want) {
		t.Errorf("%d bundles of %d", n, len(want))
	}
	must(t, j.Close())

	for name, at := range map[string]int64{"in the middle of what the copy lacks": end - 3000, "at the end": end - 100} {
		restore(t, fs, testDir, whole)
		overwrite(t, fs, receiverPath(1), at, []byte{1, 2, 3})
		before := files(t, fs, testDir)
		if done, err := Mend(t.Context(), o, true, []Twin{twin}, nil); err == nil {
			t.Errorf("%s: %+v: gave up what lies beyond %s", name, done, half.Last)
		}
		if have := files(t, fs, testDir); !maps.EqualFunc(have, before, bytes.Equal) {
			t.Errorf("%s: changed something", name)
		}
	}
}

// Proves BX-8, I3: where the mark was forgotten with the power, what the bundles behind the place say of it counts.
func TestMendBelievesLaterBundles(t *testing.T) {
	fs := vfs.NewMem()
	o := options(fs)
	j := active(t, o)
	there := o
	there.Dir = "twin/journals/orders/a"
	deposit(t, j, 1, 2, 500)
	flush(t, j)
	twin := journalTwin{copyOf(t, j, there)}
	flush(t, twin.j)
	old := readFile(t, fs, testDir+"/"+stateName)
	at := j.attached().end
	for range 5 {
		deposit(t, j, 1, 2, 500)
		flush(t, j)
	}
	must(t, j.Close())
	overwrite(t, fs, testDir+"/"+stateName, 0, old)
	overwrite(t, fs, receiverPath(1), at+200, []byte{1, 2, 3})
	before := files(t, fs, testDir)
	if done, err := Mend(t.Context(), o, true, []Twin{twin}, nil); err == nil {
		t.Errorf("durable entries were given up: %+v", done)
	}
	if have := files(t, fs, testDir); !maps.EqualFunc(have, before, bytes.Equal) {
		t.Error("changed something")
	}
}

// Proves BX-8, I9: a copy that stands on another branch behind the rotten place is refused when anything sound here says so.
func TestMendKnowsAnotherBranch(t *testing.T) {
	fs := vfs.NewMem()
	o := options(fs)
	o.RingBytes = 1
	j := active(t, o)
	there := o
	there.Dir = "twin/journals/orders/a"
	for range 5 {
		deposit(t, j, 1, 2, 500)
	}
	fork := flush(t, j).Last
	for range 5 {
		deposit(t, j, 1, 2, 500)
	}
	flush(t, j)
	twin := journalTwin{copyOf(t, j, there)}
	flush(t, twin.j)
	must(t, j.Rewind(fork))
	for range 5 {
		deposit(t, j, 2, 2, 700)
	}
	flush(t, j)
	r, err := j.Reader(fork + 1)
	must(t, err)
	item, _, err := r.TryNext()
	must(t, err)
	must(t, r.Close())
	at := j.attached().end - 5*int64(item.Header.Length)
	overwrite(t, fs, receiverPath(1), at+200, []byte{1, 2, 3}) // the first bundle behind the fork
	rot := inspected(t, j)
	if len(rot) != 1 || rot[0].Good != fork {
		t.Fatalf("found %v", rot)
	}
	refusesBranch(t, fs, o, j, rot[0], twin)
}

// refusesBranch fails unless a twin that holds another branch is refused, by the open journal and by one that is closed, and nothing is changed.
func refusesBranch(t *testing.T, fs vfs.FS, o Options, j *Journal, rot *Rot, twin Twin) {
	t.Helper()
	before := files(t, fs, testDir)
	same := func() {
		t.Helper()
		if have := files(t, fs, testDir); !maps.EqualFunc(have, before, bytes.Equal) {
			t.Error("changed something")
		}
	}
	if done, err := j.Repair(t.Context(), rot, []Twin{twin}, nil); err == nil {
		t.Errorf("another branch was taken into an open journal: %+v", done)
	}
	same()
	must(t, j.Close())
	before = files(t, fs, testDir)
	if done, err := Mend(t.Context(), o, true, []Twin{twin}, nil); err == nil {
		t.Errorf("another branch was taken: %+v", done)
	}
	same()
}

// A file of a newer version is not damage.
func TestMendLeavesNewerVersionsAlone(t *testing.T) {
	for _, err := range []error{errHeaderVersion, errStateVersion, entry.ErrVersion} {
		if Damaged(errors.Join(&CorruptionError{Receiver: 1, Err: err})) {
			t.Errorf("%v counts as damage", err)
		}
	}
}

// Proves BX-8: a machine that dies at any moment of a repair leaves the rotten receiver or the repaired one; the next repair ends
// as the first would have.
func TestMendSurvivesCrashes(t *testing.T) {
	chance := rand.New(rand.NewPCG(3, 3))
	for step := 0; ; step++ {
		mem := vfs.NewCrashableMem()
		o := options(mem)
		o.ReceiverBytes = 8 << 10
		j := active(t, o)
		manyReceivers(t, j, rand.New(rand.NewPCG(7, 7)))
		want := remember(t, j)
		there := options(vfs.NewMem())
		there.ReceiverBytes = o.ReceiverBytes
		twin := journalTwin{copyOf(t, j, there)}
		flush(t, twin.j)
		must(t, j.Close())
		must(t, mem.Remove(receiverPath(6)))
		overwrite(t, mem, receiverPath(9), 20, []byte{1, 2, 3})
		must(t, syncDir(mem, testDir))

		broken := &cutOff{FS: mem, left: step}
		o.FS = broken
		_, err := Mend(t.Context(), o, true, []Twin{twin}, nil)
		if err == nil && !broken.cut {
			t.Logf("%d moments", step)
			return
		}
		o.FS = mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: chance.IntN(101), RNG: rand.New(rand.NewPCG(uint64(step), 1))})
		if _, err := Mend(t.Context(), o, true, []Twin{twin}, nil); err != nil {
			t.Fatalf("after a crash at moment %d: %v", step, err)
		}
		j = open(t, o)
		if n, met := want.served(t, j); met || n != len(want) {
			t.Fatalf("after a crash at moment %d: %d bundles of %d", step, n, len(want))
		}
		if rot := inspected(t, j); len(rot) > 0 {
			t.Fatalf("after a crash at moment %d: %v", step, rot)
		}
		must(t, j.Close())
		must(t, twin.j.Close())
	}
}

// cutOff is a disk that takes so many changes of names and syncs, and then nothing any more.
type cutOff struct {
	vfs.FS
	left int
	cut  bool
}

var errCutOff = errors.New("the power is gone")

func (c *cutOff) pass() error {
	if c.left--; c.left < 0 {
		c.cut = true
		return errCutOff
	}
	return nil
}

func (c *cutOff) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	if err := c.pass(); err != nil {
		return nil, err
	}
	f, err := c.FS.Create(name, category)
	return cutOffFile{f, c}, err
}

func (c *cutOff) OpenDir(name string) (vfs.File, error) {
	f, err := c.FS.OpenDir(name)
	return cutOffFile{f, c}, err
}

func (c *cutOff) Rename(from, to string) error {
	if err := c.pass(); err != nil {
		return err
	}
	return c.FS.Rename(from, to)
}

func (c *cutOff) Link(from, to string) error {
	if err := c.pass(); err != nil {
		return err
	}
	return c.FS.Link(from, to)
}

func (c *cutOff) Remove(name string) error {
	if c.cut {
		return errCutOff
	}
	return c.FS.Remove(name)
}

type cutOffFile struct {
	vfs.File
	disk *cutOff
}

func (f cutOffFile) Sync() error {
	if err := f.disk.pass(); err != nil {
		return err
	}
	return f.File.Sync()
}

// Proves BX-8, I9: in a detached receiver the header of the next one says what must come out.
func TestMendOfADetachedReceiverKnowsAnotherBranch(t *testing.T) {
	fs := vfs.NewMem()
	o := options(fs)
	o.RingBytes = 1
	j := active(t, o)
	there := o
	there.Dir = "twin/journals/orders/a"
	deposit(t, j, 1, 2, 500)
	fork := flush(t, j).Last
	at := j.attached().end
	for range 3 {
		deposit(t, j, 1, 2, 500)
	}
	_, err := j.ChangeReceiver(1)
	must(t, err)
	flush(t, j)
	twin := journalTwin{copyOf(t, j, there)}
	flush(t, twin.j)
	must(t, j.Rewind(fork))
	for range 3 {
		deposit(t, j, 2, 2, 500)
	}
	_, err = j.ChangeReceiver(2)
	must(t, err)
	flush(t, j)
	overwrite(t, fs, receiverPath(1), at, make([]byte, 5000)) // everything behind the fork; a run begins there, so a start reads it
	rot := inspected(t, j)
	if len(rot) != 1 {
		t.Fatal(rot)
	}
	refusesBranch(t, fs, o, j, rot[0], twin)
}

// Proves BX-8: a twin that holds another branch repairs nothing, whatever else is rotten here, ends soon, and does not keep a good twin from
// repairing it afterwards.
func TestMendBesideAnotherBranch(t *testing.T) {
	for _, bundleToo := range []bool{false, true} {
		fs := vfs.NewMem()
		o := options(fs)
		o.RingBytes = 1
		j := active(t, o)
		deposit(t, j, 1, 2, 500)
		fork, at := flush(t, j).Last, j.attached().end
		for range 9 {
			deposit(t, j, 1, 2, 500)
		}
		_, err := j.ChangeReceiver(1)
		must(t, err)
		flush(t, j)
		there := o
		there.Dir = "other/journals/orders/a"
		branch := journalTwin{copyOf(t, j, there)}
		flush(t, branch.j)
		must(t, j.Rewind(fork))
		for range 2 {
			for range 6 {
				deposit(t, j, 2, 2, 700)
			}
			_, err = j.ChangeReceiver(2)
			must(t, err)
		}
		deposit(t, j, 2, 2, 700)
		v := flush(t, j)
		there.Dir = "good/journals/orders/a"
		good := journalTwin{copyOf(t, j, there)}
		flush(t, good.j)
		must(t, j.Close())

		if bundleToo {
			overwrite(t, fs, receiverPath(1), at+200, []byte{1, 2, 3})
		}
		overwrite(t, fs, receiverPath(2), 50, []byte{9, 8, 7}) // the header
		before := files(t, fs, testDir)
		if _, err := Mend(t.Context(), o, true, []Twin{branch}, nil); err == nil || t.Context().Err() != nil {
			t.Fatalf("repaired by another branch: %v", err)
		}
		if have := files(t, fs, testDir); !equalButZeros(have[fileName(1)], before[fileName(1)]) {
			t.Errorf("rot in a bundle %v: receiver 1 was changed", bundleToo)
		}
		if _, err := Mend(t.Context(), o, true, []Twin{good}, nil); err != nil {
			t.Fatalf("the good twin does not help: %v", err)
		}
		j = open(t, o)
		if w, _ := j.View(); w.Last != v.Last || w.Chain != v.Chain {
			t.Errorf("ends at %s, want %s", w.Last, v.Last)
		}
	}
}
