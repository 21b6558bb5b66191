package journal

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal/entry"
)

// cold returns a journal of several receivers that are on disk only.
func cold(t testing.TB, fs vfs.FS) (*Journal, Options) {
	t.Helper()
	o := options(fs)
	o.ReceiverBytes, o.RingBytes = 1<<20, 1
	j := active(t, o)
	random := rand.New(rand.NewPCG(3, 4))
	for i := range 600 {
		size := random.IntN(3000)
		if i%100 == 50 {
			size = 200 << 10 // more than lies between two points
		}
		deposit(t, j, 1, 1+random.IntN(3), size)
	}
	flush(t, j)
	return j, o
}

func readStretch(t testing.TB, s Stretch) []byte {
	t.Helper()
	b := make([]byte, s.Length)
	_, err := s.File.ReadAt(b, s.Offset)
	must(t, err)
	return b
}

// Stretches and single bundles together are the journal, whatever the size asked for, whether or not its receivers were read since
// it was opened, and a copy made of them is identical to the byte.
func TestStretches(t *testing.T) {
	for _, reopened := range []bool{false, true} {
		for _, most := range []int64{leastStretch, 200 << 10, 333_333, 4 << 20} {
			j, o := cold(t, vfs.NewMem())
			if reopened {
				j = reopen(t, j, o)
			}
			end, _ := j.View()
			to := options(vfs.NewMem())
			to.ReceiverBytes = o.ReceiverBytes
			c := open(t, to)
			r := mustReader(t, j, 1)
			var stretched, all int64
			next := ident.Sequence(1)
			for next <= end.Last {
				s, ok, err := r.TryStretch(most)
				must(t, err)
				if ok {
					if s.Length > most || s.Length < leastStretch || s.First != next {
						t.Fatalf("stretch %+v, want up to %d bytes from sequence %s", s, most, next)
					}
					used, last, err := c.AppendPiece(s.Receiver, s.Offset, readStretch(t, s))
					must(t, err)
					must(t, r.Intact())
					if v, _ := c.View(); int64(used) != s.Length || last != s.Last || v.After != s.After {
						t.Fatalf("%d bytes up to %s, then %s; the stretch says %+v", used, last, v.After, s)
					}
					next, stretched, all = s.Last+1, stretched+s.Length, all+s.Length
					continue
				}
				item, ok, err := r.TryNext()
				if err != nil || !ok {
					t.Fatal(ok, err)
				}
				ship(t, c, []Item{item})
				if item.Raw != nil {
					next, all = item.Header.Last()+1, all+int64(len(item.Raw))
				}
			}
			if stretched*4 < all*3 && most > o.ReceiverBytes { // large bundles go by themselves when they do not fit
				t.Errorf("%d of %d bytes in stretches", stretched, all)
			}
			flush(t, c)
			if v, _ := c.View(); v.Chain != end.Chain || v.Attached != end.Attached {
				t.Errorf("the copy ends at %+v, want %+v", v, end)
			}
			for n := ident.ReceiverNumber(1); n <= end.Attached; n++ {
				if !bytes.Equal(readContent(t, j, n), readContent(t, c, n)) {
					t.Errorf("receiver %s differs", n)
				}
			}
		}
	}
}

// What became of a stretch while it was read is known afterwards.
func TestStretchIsIntact(t *testing.T) {
	for name, c := range map[string]struct {
		act  func(j *Journal, s Stretch) error
		want error
	}{
		"nothing":            {func(*Journal, Stretch) error { return nil }, nil},
		"appended":           {func(j *Journal, _ Stretch) error { deposit(t, j, 1, 1, 10); return nil }, nil},
		"end removed behind": {func(j *Journal, s Stretch) error { return j.Rewind(s.Last) }, nil},
		"end removed within": {func(j *Journal, s Stretch) error {
			b, err := j.BundleAt(s.Last)
			return errors.Join(err, j.Rewind(b.First-1))
		}, ErrRewound},
		"removed and written anew": {func(j *Journal, s Stretch) error {
			err := j.Rewind(s.First - 1)
			for range 900 {
				deposit(t, j, 1, 1, 1000)
			}
			return err
		}, ErrRewound},
		"deleted": {func(j *Journal, s Stretch) error { return j.DeleteReceivers(s.Receiver) }, ErrNotHeld},
	} {
		j, _ := cold(t, vfs.NewMem())
		r := mustReader(t, j, 1)
		var s Stretch
		for ok := false; !ok; {
			var err error
			if s, ok, err = r.TryStretch(1 << 20); err == nil && !ok {
				_, _, err = r.TryNext()
			}
			must(t, err)
		}
		must(t, c.act(j, s))
		if err := r.Intact(); !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
		if c.want != nil {
			if _, _, err := r.TryNext(); !errors.Is(err, c.want) {
				t.Errorf("%s: the reader goes on with %v", name, err)
			}
		}
	}
}

// A piece that does not continue the copy is refused by what it is, and what came before the bad place stays.
func TestAppendPieceRefuses(t *testing.T) {
	j, _ := cold(t, vfs.NewMem())
	r := mustReader(t, j, 1)
	fresh := func() *Journal {
		c := open(t, options(vfs.NewMem()))
		must(t, c.BeginReceiver(j.receivers[0].raw))
		return c
	}
	_, _, err := r.TryNext() // the header
	must(t, err)
	s, ok, err := r.TryStretch(1 << 20)
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	raw := readStretch(t, s)
	first, err := entry.DecodeHeader(raw)
	must(t, err)
	one := int(first.Length)
	second, err := entry.DecodeHeader(raw[one:])
	must(t, err)
	two := one + int(second.Length)
	flipped := bytes.Clone(raw)
	flipped[two-20] ^= 1
	swapped := append(append(bytes.Clone(raw[:one]), raw[two:]...), raw[one:two]...)
	var gap *GapError
	var broken *CorruptionError
	for name, c := range map[string]struct {
		receiver ident.ReceiverNumber
		offset   int64
		piece    []byte
		used     int
		want     any
	}{
		"as it is":         {1, HeaderSize, raw, len(raw), nil},
		"cut off":          {1, HeaderSize, raw[:two+50], two, nil},
		"less than one":    {1, HeaderSize, raw[:one-1], 0, nil},
		"nothing":          {1, HeaderSize, nil, 0, nil},
		"another receiver": {2, HeaderSize, raw, 0, &broken},
		"another place":    {1, HeaderSize + 8, raw, 0, &broken},
		"without first":    {1, HeaderSize, raw[one:], 0, &gap},
		"without second":   {1, HeaderSize, swapped, one, &gap},
		"a flipped bit":    {1, HeaderSize, flipped, one, &broken},
		"zeros":            {1, HeaderSize, make([]byte, 4096), 0, &broken},
	} {
		to := fresh()
		used, _, err := to.AppendPiece(c.receiver, c.offset, bytes.Clone(c.piece))
		if used != c.used || (err == nil) != (c.want == nil) || err != nil && !errors.As(err, c.want) {
			t.Errorf("%s: %d bytes, %v", name, used, err)
		}
		if got := flush(t, to); used > 0 && !bytes.Equal(readContent(t, to, 1)[HeaderSize:], raw[:used]) || used == 0 && got.Last != 0 {
			t.Errorf("%s: the copy holds something else", name)
		}
	}
	empty := open(t, options(vfs.NewMem()))
	if _, _, err := empty.AppendPiece(1, HeaderSize, raw); !errors.Is(err, ErrNoReceiver) {
		t.Errorf("without a receiver: %v", err)
	}
}
