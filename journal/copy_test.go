package journal

import (
	"bytes"
	"errors"
	"reflect"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal/entry"
)

// Proves RJ-2: a copy is identical to the byte, receiver by receiver, header included, up to the end of the bundles. Behind them
// there are zeros on both sides, however many: here receivers are made ahead, there they are not.
func TestCopyIsIdenticalToTheByte(t *testing.T) {
	here, there := vfs.NewMem(), vfs.NewMem()
	o := options(here)
	o.SpareBytes = 2 * o.ReceiverBytes
	j := active(t, o)
	for i := range 60 {
		deposit(t, j, uint64(1+i/25), 1+i%3, 100*i)
	}
	copied := copyOf(t, j, options(there))
	v, c := flush(t, j), flush(t, copied)
	if !reflect.DeepEqual(v.Runs, c.Runs) || v.Chain != c.Chain || v.After != c.After || v.Attached != c.Attached {
		t.Fatalf("copy %+v, want %+v", c, v)
	}
	ends := map[ident.ReceiverNumber]int64{}
	for n := ident.ReceiverNumber(1); n <= v.Attached; n++ {
		a, b := contentSize(t, j, n), contentSize(t, copied, n)
		if a != b {
			t.Errorf("receiver %s ends at %d here and at %d there", n, a, b)
		}
		ends[n] = a
	}
	must(t, j.Close())
	must(t, copied.Close())
	if v.Attached < 3 {
		t.Fatalf("only %d receivers", v.Attached)
	}
	for n := ident.ReceiverNumber(1); n <= v.Attached; n++ {
		a, b, end := readFile(t, here, receiverPath(n)), readFile(t, there, receiverPath(n)), ends[n]
		if !bytes.Equal(a[:end], b[:end]) {
			t.Errorf("receiver %s differs: %d and %d bytes", n, len(a), len(b))
		}
		if !allZero(a[end:]) || !allZero(b[end:]) {
			t.Errorf("receiver %s: more than zeros behind its last bundle", n)
		}
	}
}

func contentSize(t testing.TB, j *Journal, n ident.ReceiverNumber) int64 {
	t.Helper()
	c, err := j.Content(n)
	must(t, err)
	defer c.Close()
	return c.Size()
}

func TestCopyTakesOnlyWhatContinuesIt(t *testing.T) {
	j := active(t, options(vfs.NewMem()))
	deposit(t, j, 1, 2, 10)
	deposit(t, j, 1, 2, 10)
	_, err := j.ChangeReceiver(1)
	must(t, err)
	r, err := j.Reader(1)
	must(t, err)
	defer r.Close()
	items := drain(t, r) // header, PR, 2, 4, NR, header, PR
	if len(items) != 7 || items[5].ReceiverHeader == nil {
		t.Fatalf("%d items", len(items))
	}

	to := open(t, options(vfs.NewMem()))
	if _, err := to.AppendRaw(items[1].Raw); !errors.Is(err, ErrNoReceiver) {
		t.Error(err)
	}
	must(t, to.BeginReceiver(items[0].ReceiverHeader))
	must(t, to.BeginReceiver(items[0].ReceiverHeader)) // idempotent
	var gap *GapError
	if _, err := to.AppendRaw(items[2].Raw); !errors.As(err, &gap) || *gap != (GapError{Want: 1, Have: 2}) {
		t.Error(err)
	}
	ship(t, to, items[1:3])
	if err := to.BeginReceiver(items[5].ReceiverHeader); !errors.As(err, &gap) {
		t.Error(err)
	}
	if _, err := to.AppendRaw(items[2].Raw); !errors.As(err, &gap) || gap.Have != 2 || gap.Want != 4 {
		t.Error(err)
	}
	var broken *CorruptionError
	rotten := bytes.Clone(items[3].Raw)
	rotten[len(rotten)-9] ^= 1
	if _, err := to.AppendRaw(rotten); !errors.As(err, &broken) || !errors.Is(err, entry.ErrChecksum) {
		t.Error(err)
	}
	b, err := entry.Decode(items[3].Raw)
	must(t, err)
	entries, err := b.All()
	must(t, err)
	b.Header.Chain++
	forged, _, err := entry.Seal(nil, b.Header, entries)
	must(t, err)
	if _, err := to.AppendRaw(forged); !errors.As(err, &broken) || !errors.Is(err, errChain) {
		t.Error(err)
	}
	b.Header.Chain--
	early, _, err := entry.Seal(nil, b.Header, []entry.Entry{{Code: entry.Journal, Type: entry.Previous}})
	must(t, err)
	if _, err := to.AppendRaw(early); !errors.As(err, &broken) {
		t.Errorf("J PR, or facts without history: %v", err)
	}
	ship(t, to, items[3:5])
	if _, err := to.AppendRaw(items[6].Raw); !errors.Is(err, ErrNoReceiver) {
		t.Error(err)
	}
	wrong, err := DecodeReceiverHeader(items[5].ReceiverHeader)
	must(t, err)
	wrong.Chain++
	raw, err := wrong.encode()
	must(t, err)
	if err := to.BeginReceiver(raw); !errors.As(err, &broken) {
		t.Error(err)
	}
	ship(t, to, items[5:])
	flush(t, to)

	// A sole header may be begun again, with another time of creation only.
	other := open(t, options(vfs.NewMem()))
	must(t, other.BeginReceiver(items[5].ReceiverHeader)) // an empty journal begins anywhere
	v, _ := other.View()
	if v.First != 7 || v.Last != 6 || v.Durable != 6 || v.After != pos(1, 4) || v.Attached != 2 {
		t.Errorf("%+v", v)
	}
	watch, err := other.Reader(7)
	must(t, err)
	defer watch.Close()
	if i, ok, err := watch.TryNext(); !ok || err != nil || i.ReceiverHeader == nil {
		t.Fatal(ok, err)
	}
	wrong.Chain--
	wrong.Created = wrong.Created.Add(1)
	raw, err = wrong.encode()
	must(t, err)
	must(t, other.BeginReceiver(raw))
	if _, _, err := watch.TryNext(); !errors.Is(err, ErrRewound) {
		t.Errorf("reader of a replaced header: %v", err)
	}
	flush(t, other)
	other = reopen(t, other, other.testOptions())
	if got := other.attached().raw; !bytes.Equal(got, raw) {
		t.Error("the header was not replaced")
	}
	if v, _ := other.View(); v.First != 7 || v.Last != 6 || v.After != pos(1, 4) {
		t.Errorf("%+v", v)
	}
	ship(t, other, items[6:])
}

// testOptions returns options by which j can be opened again.
func (j *Journal) testOptions() Options {
	o := options(j.disk.fs)
	o.Dir, o.ID = j.disk.dir, j.disk.id
	return o
}

// Proves RJ-4 for the journal: of a copy, confirmed is what the source said.
func TestMarksOfACopy(t *testing.T) {
	j := active(t, options(vfs.NewMem()))
	deposit(t, j, 1, 2, 10)
	flush(t, j)
	deposit(t, j, 1, 2, 10)
	flush(t, j)
	c := copyOf(t, j, options(vfs.NewMem()))
	v, _ := c.View()
	if v.Confirmed != 3 || v.Last != 5 { // the last bundle says that the one before it was durable
		t.Fatalf("%+v", v)
	}
	c.Mark(5, 4)
	c.Mark(2, 1)
	if v, _ = c.View(); v.Confirmed != 5 || v.Committed != 4 {
		t.Fatalf("%+v", v)
	}
	c.Mark(9, 9) // the source may be ahead
	must(t, c.Rewind(3))
	if v, _ = c.View(); v.Confirmed != 3 || v.Committed != 3 {
		t.Fatalf("after rewind %+v", v)
	}
	c.Mark(9, 9)
	c = reopen(t, c, c.testOptions())
	if v, _ = c.View(); v.Confirmed > 1 || v.Committed != 0 || v.Found != 3 {
		t.Fatalf("reopened %+v", v)
	}
	must(t, c.Rewind(1))
	if v, _ = c.View(); v.Found != 1 {
		t.Fatalf("cut after it was opened: %+v", v)
	}
	j.Mark(99, 3) // of a local journal only committed counts
	if v, _ = j.View(); v.Confirmed != 5 || v.Committed != 3 {
		t.Fatalf("local %+v", v)
	}
}

// The author of a journal gets its own entries back from a copy, after it has lost them.
func TestAuthorTakesItsEntriesBack(t *testing.T) {
	fs := vfs.NewMem()
	j := active(t, options(fs))
	for range 3 {
		deposit(t, j, 1, 2, 10)
	}
	c := copyOf(t, j, options(vfs.NewMem()))
	must(t, j.Rewind(3))
	r, err := c.Reader(4)
	must(t, err)
	defer r.Close()
	ship(t, j, drain(t, r))
	v := flush(t, j)
	if v.Last != 7 || v.Confirmed != 7 {
		t.Fatalf("%+v", v)
	}
	h := deposit(t, j, 2, 1, 1)
	if h.First != 8 || h.Before != pos(1, 6) {
		t.Fatalf("%+v", h)
	}
	flush(t, j)
	j = reopen(t, j, options(fs))
	if v, _ := j.View(); v.Last != 8 || v.Torn {
		t.Fatalf("%+v", v)
	}
}
