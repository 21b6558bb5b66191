package journal

import (
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/understudy-ha/understudy/internal/ident"
)

// sourceOf returns a journal of n receivers, and what a copy is sent of it.
func sourceOf(t testing.TB, n int) (*Journal, []Item) {
	t.Helper()
	j := active(t, options(vfs.NewMem()))
	for range n - 1 {
		deposit(t, j, 1, 2, 300)
		_, err := j.ChangeReceiver(1)
		must(t, err)
	}
	deposit(t, j, 1, 2, 300)
	flush(t, j)
	return j, drain(t, mustReader(t, j, 0))
}

// from returns the items from receiver n on.
func from(items []Item, n ident.ReceiverNumber) []Item {
	for i, item := range items {
		if item.ReceiverHeader == nil {
			continue
		}
		if h, err := DecodeReceiverHeader(item.ReceiverHeader); err == nil && h.Number == n {
			return items[i:]
		}
	}
	return nil
}

// Proves RJ-13 for a journal: a copy that holds nothing but one header begins with any later receiver, and one that holds more does so
// once it was cleared. A crash at any point leaves what was there, nothing, or a beginning of what came then.
func TestCopyBeginsElsewhere(t *testing.T) {
	_, items := sourceOf(t, 4)
	for name, c := range map[string]struct {
		before []Item // what the copy holds
		clear  bool
		next   ident.ReceiverNumber
	}{
		"the header of the first receiver":   {items[:1], false, 3},
		"the header of a later one":          {from(items, 2)[:1], false, 4},
		"the same, cleared":                  {from(items, 2)[:1], true, 4},
		"a receiver, cleared":                {from(items, 1)[:4], true, 2},
		"several, cleared, and one of those": {from(items, 1)[:len(items)-3], true, 1},
	} {
		t.Run(name, func(t *testing.T) {
			mem := vfs.NewCrashableMem()
			crash := &crasher{fs: mem, rng: rand.New(rand.NewPCG(3, 4)), percents: []int{0, 50, 100}, branches: make([]branch, 1)}
			o := options(errorfs.Wrap(mem, crash))
			o.SpareBytes = -1
			j := open(t, o)
			ship(t, j, c.before)
			held, _ := j.View()
			flush(t, j)
			if next, err := DecodeReceiverHeader(from(items, 4)[0].ReceiverHeader); err == nil && held.Last >= held.First && held.Last+1 < next.First {
				if err := j.BeginReceiver(from(items, 4)[0].ReceiverHeader); err == nil {
					t.Error("a copy that holds bundles began elsewhere")
				}
			}
			crash.set(func() { crash.images = nil })
			if c.clear {
				must(t, j.Clear())
				if v, _ := j.View(); v.First != 0 || v.Last != 0 || v.Durable != 0 || len(j.Receivers()) != 0 {
					t.Errorf("cleared: %+v", v)
				}
				must(t, j.Clear())
			}
			rest := from(items, c.next)
			ship(t, j, rest)
			want := flush(t, j)
			if want.Last < want.First || len(j.Receivers()) != 5-int(c.next) {
				t.Errorf("%+v", want)
			}
			must(t, j.Verify(t.Context()))
			j = reopen(t, j, o)
			if v, _ := j.View(); v.Last != want.Last || v.Chain != want.Chain || v.Torn {
				t.Errorf("reopened %+v, want %+v", v, want)
			}
			must(t, j.Close())
			for _, i := range crash.taken() {
				o.FS = i.fs
				k, err := Open(o)
				if err != nil {
					t.Fatalf("%s: %v", i.name, err)
				}
				if v, _ := k.View(); v.First != 0 && v.First != held.First && v.First != want.First {
					t.Fatalf("%s: %+v", i.name, v)
				}
				must(t, k.Verify(t.Context()))
				must(t, k.Clear())
				ship(t, k, rest)
				if v := flush(t, k); v.Last != want.Last || v.Chain != want.Chain {
					t.Fatalf("%s: %+v, want %+v", i.name, v, want)
				}
				must(t, k.Close())
			}
		})
	}
}

// A journal that was written here is not cleared: it would begin with sequence 1 again.
func TestClearOfAnOwnJournal(t *testing.T) {
	j, _ := sourceOf(t, 2)
	before, _ := j.View()
	if err := j.Clear(); !errors.Is(err, ErrAuthored) {
		t.Error(err)
	}
	if v, _ := j.View(); v.Last != before.Last || v.First != before.First {
		t.Errorf("%+v, want %+v", v, before)
	}
}
