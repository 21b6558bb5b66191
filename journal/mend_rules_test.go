package journal

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"maps"
	"math/rand/v2"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/understudy-ha/understudy/internal/ident"
)

// refused fails unless Mend refuses and nothing is changed.
func refused(t *testing.T, fs vfs.FS, o Options, author bool, what string, twins ...Twin) {
	t.Helper()
	before := files(t, fs, testDir)
	if done, err := Mend(t.Context(), o, author, twins, nil); err == nil {
		t.Errorf("%s: repaired: %+v", what, done)
	}
	if have := files(t, fs, testDir); !maps.EqualFunc(have, before, bytes.Equal) {
		t.Errorf("%s: changed something", what)
	}
}

// shifted is a twin that answers with another receiver than it was asked for.
type shifted struct {
	journalTwin
	by ident.ReceiverNumber
}

func (s shifted) Receiver(ctx context.Context, n ident.ReceiverNumber) (TwinContent, error) {
	return s.journalTwin.Receiver(ctx, n+s.by)
}

// Proves BX-8, I9: nothing that a twin says is believed: not the receiver of another journal, nor another receiver than the one that is missing,
// nor a newest receiver that does not continue what is here.
func TestMendBelievesNoTwin(t *testing.T) {
	p := newPair(t)
	must(t, p.j.Close())
	whole := files(t, p.fs, testDir)
	for name := range whole {
		if name != stateName {
			must(t, p.fs.Remove(testDir+"/"+name))
		}
	}
	o := p.at("stranger")
	o.ID.Node = "z"
	stranger := active(t, o)
	manyReceivers(t, stranger, rand.New(rand.NewPCG(8, 8)))
	refused(t, p.fs, p.o, true, "another journal's receiver", journalTwin{stranger})
	refused(t, p.fs, p.o, true, "another receiver", shifted{p.twin, 1})

	fs := vfs.NewMem()
	o = options(fs)
	o.RingBytes = 1
	j := active(t, o)
	deposit(t, j, 1, 2, 500)
	fork := flush(t, j).Last
	branch := func(e uint64) { // of the same length in bytes and sequences
		deposit(t, j, e, 2, 500)
		_, err := j.ChangeReceiver(ident.Epoch(e))
		must(t, err)
		deposit(t, j, e, 2, 500)
		flush(t, j)
	}
	branch(1)
	there := o
	there.Dir = "other/journals/orders/a"
	other := copyOf(t, j, there)
	flush(t, other)
	must(t, j.Rewind(fork))
	branch(2)
	must(t, j.Close())
	must(t, fs.Remove(receiverPath(2)))
	must(t, syncDir(fs, testDir))
	refused(t, fs, o, true, "a newest receiver of another branch", journalTwin{other})
}

// Proves BX-8, I3: the last entry counts as much as any other.
func TestMendDoesNotGiveUpTheLastEntry(t *testing.T) {
	fs := vfs.NewMem()
	o := options(fs)
	j := active(t, o)
	there := o
	there.Dir = "twin/journals/orders/a"
	deposit(t, j, 1, 2, 500)
	flush(t, j)
	twin := journalTwin{copyOf(t, j, there)}
	flush(t, twin.j)
	at := j.attached().end
	deposit(t, j, 1, 1, 500)
	flush(t, j)
	must(t, j.Close())
	overwrite(t, fs, receiverPath(1), at+100, []byte{1, 2, 3})
	refused(t, fs, o, true, "one entry less", twin)
}

// Proves BX-8, I3: in a journal that came from another node the marks in bundles are about the other's disk. What stands farther behind the place than
// one sync covers was synced all the same, and is not given up; less than that may be the remains of a last write.
func TestMendOfACopyWithoutItsMark(t *testing.T) {
	for _, c := range []struct {
		name    string
		bundles int
		mended  bool
	}{
		{"a batch behind it", 2, true},
		{"more than a batch", 6, false},
	} {
		fs := vfs.NewMem()
		o := options(vfs.NewMem())
		o.ReceiverBytes = 64 << 20
		source := active(t, o)
		deposit(t, source, 1, 2, 500)
		flush(t, source)
		there := o
		there.Dir = "twin/journals/orders/a"
		twin := journalTwin{copyOf(t, source, there)}
		flush(t, twin.j)
		o.FS = fs
		j := copyOf(t, source, o)
		flush(t, j)
		old, at := readFile(t, fs, testDir+"/"+stateName), j.attached().end
		r, err := source.Reader(twin.j.glance().Last + 1)
		must(t, err)
		for range c.bundles {
			deposit(t, source, 1, 1, 1<<20)
			flush(t, source)
			ship(t, j, drain(t, r))
			flush(t, j)
		}
		must(t, r.Close())
		must(t, j.Close())
		overwrite(t, fs, testDir+"/"+stateName, 0, old)      // the power was lost
		overwrite(t, fs, receiverPath(1), at+200, []byte{1}) // nobody has this one
		overwrite(t, fs, receiverPath(1), 60, []byte{9, 8})  // the header is what keeps it from opening
		if !c.mended {
			refused(t, fs, o, false, c.name, twin)
			continue
		}
		if _, err := Mend(t.Context(), o, false, []Twin{twin}, nil); err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if v := open(t, o).glance(); !v.Torn || v.Last != twin.j.glance().Last {
			t.Errorf("%s: it ends at %s, torn %v", c.name, v.Last, v.Torn)
		}
	}
}

// Proves BX-8: all twins are asked where the journal begins, one that holds nothing too; a missing newest receiver comes back as far as they
// have it, beyond the mark that a loss of power left.
func TestMendTakesAllThereIs(t *testing.T) {
	p := newPair(t)
	v, _ := p.j.View()
	later := copyOf(t, p.j, p.at("later"))
	flush(t, later)
	must(t, later.DeleteReceivers(3))
	empty := open(t, p.at("empty"))
	must(t, p.j.Close())
	rec, err := readRecord(p.fs, testDir)
	must(t, err)
	rec.mark = v.Last - 3
	must(t, disk{fs: p.fs, dir: testDir, id: p.o.ID, cluster: p.o.Cluster}.save(&rec))
	for n := ident.ReceiverNumber(1); n <= v.Attached; n++ {
		must(t, p.fs.Remove(receiverPath(n)))
	}
	if _, err := Mend(t.Context(), p.o, true, []Twin{journalTwin{empty}, journalTwin{later}, p.twin, silent{}}, nil); err != nil {
		t.Fatal(err)
	}
	p.j = open(t, p.o)
	p.sound(t)
	must(t, p.j.Close())
}

// Proves BX-8, I3: of what is left of the state file the newest whole part counts, in whichever place it stands. Of nothing the cautious is assumed.
func TestStateIsMadeAnew(t *testing.T) {
	for parity := range 2 {
		p := newPair(t)
		for range parity {
			deposit(t, p.j, 9, 1, 10)
			flush(t, p.j)
		}
		must(t, p.j.Close())
		want, err := readRecord(p.fs, testDir)
		must(t, err)
		overwrite(t, p.fs, testDir+"/"+stateName, 100, []byte{1})
		if _, err := Mend(t.Context(), p.o, true, []Twin{p.twin}, nil); err != nil {
			t.Fatal(err)
		}
		have, err := readRecord(p.fs, testDir)
		must(t, err)
		if !have.torn || have.mark != want.mark || have.state != want.state || have.authored != want.authored || have.received != want.received {
			t.Errorf("count %d: %+v, want %+v, torn", want.count, have, want)
		}
	}
	for _, author := range []bool{true, false} {
		p := newPair(t)
		must(t, p.j.Close())
		must(t, p.fs.Remove(testDir+"/"+stateName))
		if _, err := Mend(t.Context(), p.o, author, []Twin{p.twin}, nil); err != nil {
			t.Fatal(err)
		}
		have, err := readRecord(p.fs, testDir)
		must(t, err)
		if want := (record{state: Inactive, authored: author, received: true, torn: true, count: have.count}); have != want {
			t.Errorf("%+v, want %+v", have, want)
		}
	}
}

// What a newer program wrote is left alone, and so is what cannot be read at the moment.
func TestMendRepairsDamageOnly(t *testing.T) {
	p := newPair(t)
	must(t, p.j.Close())
	raw := readFile(t, p.fs, receiverPath(4))[:HeaderSize]
	binary.LittleEndian.PutUint32(raw[8:], 2)
	binary.LittleEndian.PutUint32(raw[HeaderSize-4:], crc32.Checksum(raw[:HeaderSize-4], castagnoli))
	sound := readFile(t, p.fs, receiverPath(4))[:HeaderSize]
	overwrite(t, p.fs, receiverPath(4), 0, raw)
	refused(t, p.fs, p.o, true, "a newer version", p.twin)
	overwrite(t, p.fs, receiverPath(4), 0, sound)
	o := p.o
	o.FS = errorfs.Wrap(p.fs, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind == errorfs.OpFileReadAt && op.Path == receiverPath(4) {
			return errorfs.ErrInjected
		}
		return nil
	}))
	refused(t, p.fs, o, true, "a disk that does not read", p.twin)
}

// openTwin is a twin that counts what of it is open.
type openTwin struct {
	journalTwin
	asked, open *int
}

type openContent struct {
	TwinContent
	open *int
}

func (c openContent) Close() error { *c.open--; return c.TwinContent.Close() }

func (o openTwin) Receiver(ctx context.Context, n ident.ReceiverNumber) (TwinContent, error) {
	c, err := o.journalTwin.Receiver(ctx, n)
	if err == nil {
		*o.asked++
		*o.open++
	}
	return openContent{c, o.open}, err
}

// A repair opens a twin's receiver once for its header and once for its bundles, closes what it has opened, and keeps the newest rotten files only.
func TestRepairsLeaveNothingBehind(t *testing.T) {
	p := newPair(t)
	asked, opened := 0, 0
	twin := openTwin{p.twin, &asked, &opened}
	bad := func() {
		for range 5 {
			name := testDir + "/" + ident.ReceiverNumber(2).String() + badInfix + "20230101T00000" + string(rune('0'+asked%10)) + ".000000000Z"
			asked++
			overwrite(t, p.fs, name, 0, []byte{1})
		}
	}
	kept := func(what string) {
		t.Helper()
		if n := len(list(t, p.fs, "")); opened != 0 {
			t.Errorf("%s: %d of %d are open", what, opened, n)
		}
		names, err := p.fs.List(testDir)
		must(t, err)
		n := 0
		for _, name := range names {
			if bytes.Contains([]byte(name), []byte(badInfix)) {
				n++
			}
		}
		if n != keptBad {
			t.Errorf("%s: %d rotten files are kept", what, n)
		}
	}
	bad()
	overwrite(t, p.fs, receiverPath(4), HeaderSize+300, []byte{1, 2, 3})
	rot := inspected(t, p.j)
	asked = 0
	if _, err := p.j.Repair(t.Context(), rot[0], []Twin{twin}, nil); err != nil || asked != 1 {
		t.Errorf("asked %d times, %v", asked, err)
	}
	kept("repaired while open")
	must(t, p.j.Close())
	bad()
	overwrite(t, p.fs, receiverPath(4), 50, []byte{1, 2, 3})
	overwrite(t, p.fs, receiverPath(4), HeaderSize+300, []byte{1, 2, 3})
	asked = 0
	if _, err := Mend(t.Context(), p.o, true, []Twin{twin}, nil); err != nil || asked != 2 {
		t.Errorf("asked %d times, %v", asked, err)
	}
	kept("repaired while closed")
}

// Proves BX-8: a rotten file that cannot be kept aside is not replaced, and the journal goes on.
func TestRottenFileThatCannotBeKept(t *testing.T) {
	var on bool
	mem := vfs.NewMem()
	o := options(errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if on && op.Kind == errorfs.OpLink {
			return errorfs.ErrInjected
		}
		return nil
	})))
	o.RingBytes = 1
	j := active(t, o)
	deposit(t, j, 1, 2, 500)
	_, err := j.ChangeReceiver(1)
	must(t, err)
	flush(t, j)
	there := o
	there.Dir = "twin/journals/orders/a"
	twin := journalTwin{copyOf(t, j, there)}
	flush(t, twin.j)
	overwrite(t, mem, receiverPath(1), HeaderSize+300, []byte{1, 2, 3})
	rot := inspected(t, j)
	before := files(t, mem, testDir)
	on = true
	if done, err := j.Repair(t.Context(), rot[0], []Twin{twin}, nil); !errors.Is(err, errorfs.ErrInjected) {
		t.Errorf("%+v, %v", done, err)
	}
	if have := files(t, mem, testDir); !maps.EqualFunc(have, before, bytes.Equal) {
		t.Error("changed something")
	}
	on = false
	deposit(t, j, 1, 1, 10)
	flush(t, j)
	if _, err := j.Repair(t.Context(), rot[0], []Twin{twin}, nil); err != nil {
		t.Error(err)
	}
}
