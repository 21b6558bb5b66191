package journal

import (
	"bytes"
	"errors"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal/entry"
)

// depositCompressed deposits n bundles of so many changes that look like each other.
func depositCompressed(t testing.TB, j *Journal, n, entries int) {
	t.Helper()
	for range n {
		v, _ := j.View()
		d := Draft{Entries: changes(entries, 300), Session: 1, FactEpoch: 1, Before: v.After, Flags: entry.FlagCompressed}
		h, err := j.Deposit(d)
		must(t, err)
		if h.Flags&entry.FlagCompressed == 0 {
			t.Fatal("not compressed")
		}
	}
}

// Compressed bundles stand in receivers as others do: they are found, read, copied, removed and recovered by what is in them.
func TestCompressedBundles(t *testing.T) {
	o := options(vfs.NewMem())
	j := active(t, o)
	depositCompressed(t, j, 400, 20) // receivers change with their size on disk
	deposit(t, j, 1, 2, 10)
	v := flush(t, j)
	if v.Attached < 2 || v.Attached > 4 {
		t.Errorf("%s receivers", v.Attached)
	}
	j = reopen(t, j, o)
	if again, _ := j.View(); again.Last != v.Last || again.After != v.After || again.Chain != v.Chain {
		t.Errorf("after recovery %+v, want %+v", again, v)
	}
	items := drain(t, mustReader(t, j, 1))
	var facts ident.History
	for _, i := range items {
		if i.Raw == nil {
			continue
		}
		all, err := i.Bundle().All()
		must(t, err)
		for _, e := range all {
			if e.Fact() {
				if facts++; e.Position.History != facts {
					t.Fatalf("fact %s where %d was due", e.Position, facts)
				}
			}
		}
	}
	if facts != v.After.History {
		t.Errorf("%d facts, want %s", facts, v.After.History)
	}
	seq, ok, err := j.FindHistory(pos(1, 4005))
	if b, err2 := j.BundleAt(seq); err != nil || err2 != nil || !ok || b.Before.History >= 4005 || b.After().History < 4005 {
		t.Errorf("fact 4005: %s %v %v %v", seq, ok, err, err2)
	}
	to := copyOf(t, j, options(vfs.NewMem()))
	flush(t, to)
	for n := ident.ReceiverNumber(1); n <= v.Attached; n++ {
		if !bytes.Equal(readContent(t, j, n), readContent(t, to, n)) {
			t.Errorf("the copy of receiver %s differs", n)
		}
	}
	b, err := j.BundleAt(2000)
	must(t, err)
	must(t, j.Rewind(b.Last()))
	depositCompressed(t, j, 3, 20)
	flush(t, j)
	j = reopen(t, j, o)
	if w, _ := j.View(); w.Last != b.Last()+60 {
		t.Errorf("ends at %s, want %s", w.Last, b.Last()+60)
	}
}

func readContent(t testing.TB, j *Journal, n ident.ReceiverNumber) []byte {
	t.Helper()
	c, err := j.Content(n)
	must(t, err)
	defer c.Close()
	b := make([]byte, c.Size())
	_, err = c.Section().ReadAt(b, 0)
	must(t, err)
	return b
}

// A rotten bundle that held far more entries than its bytes suggest, with whole ones behind it, is corruption and no torn tail:
// what was acknowledged would be lost without a word.
func TestRotBeforeCompressedBundles(t *testing.T) {
	fs := vfs.NewMem()
	o := options(fs)
	o.ReceiverBytes = 8 << 20
	j := active(t, o)
	deposit(t, j, 1, 1, 10)
	deposit(t, j, 1, 1, 10)
	v := flush(t, j)
	for range 5 { // each knows that those before it were durable
		depositCompressed(t, j, 1, 1000)
		flush(t, j)
	}
	first, err := j.BundleAt(v.Last + 1)
	must(t, err)
	at := bytes.Index(readFile(t, fs, receiverPath(1)), first.Raw)
	must(t, j.Close())
	overwrite(t, fs, receiverPath(1), int64(at+entry.HeaderSize+3), []byte{0xff, 0xff})
	// The mark in the state file would say so by itself. With an old one the bundles behind the place have to.
	for count := range uint64(2) {
		mark, at := record{count: count + 1, mark: first.First - 1}.slot()
		overwrite(t, fs, testDir+"/"+stateName, at, mark)
	}
	var broken *CorruptionError
	if _, err := Open(o); !errors.As(err, &broken) {
		t.Errorf("opened with %v", err)
	}
}

// Proves BX-7: rot in a compressed bundle is no torn tail when plain bundles that know it to be durable stand behind it, however many entries it
// held, whether or not its header can be read, and also when it is the first compressed one of the receiver.
func TestRotOfACompressedBundleBeforePlainOnes(t *testing.T) {
	for i, plain := range []int{1, 20, 1, 20} {
		for _, header := range []bool{false, true} {
			fs := vfs.NewMem()
			o := options(fs)
			o.ReceiverBytes = 8 << 20
			j := active(t, o)
			if i < 2 {
				depositCompressed(t, j, 1, 100)
			} else {
				deposit(t, j, 1, 1, 10)
			}
			v := flush(t, j)
			depositCompressed(t, j, 1, 1000)
			flush(t, j)
			for range plain {
				deposit(t, j, 1, 1, 10)
				flush(t, j)
			}
			first, err := j.BundleAt(v.Last + 1)
			must(t, err)
			at := int64(bytes.Index(readFile(t, fs, receiverPath(1)), first.Raw))
			must(t, j.Close())
			if at += entry.HeaderSize + 3; header {
				at -= entry.HeaderSize - 20
			}
			overwrite(t, fs, receiverPath(1), at, []byte{0xff, 0xff})
			for count := range uint64(2) { // as after a loss of power
				mark, at := record{state: Active, count: count + 1, mark: first.First - 1, authored: true}.slot()
				overwrite(t, fs, testDir+"/"+stateName, at, mark)
			}
			var broken *CorruptionError
			if _, err := Open(o); !errors.As(err, &broken) {
				t.Errorf("%d plain bundles behind, the first compressed one %v, rot in the header %v: opened, %v", plain, i > 1, header, err)
			}
		}
	}
}
