package journal

import (
	"math/rand/v2"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/understudy-ha/understudy/journal/entry"
)

// A copy that takes a backlog has, after a crash at any point, all that it said was durable, and what it has is a beginning of the source's
// journal, also while a mark is synced behind the batch before, and where bundles come one by one again. Proves RJ-3.
func TestCrashInABacklog(t *testing.T) {
	const receiver = 1 << 20
	so := options(vfs.NewMem())
	so.ReceiverBytes, so.RingBytes = receiver, 1
	src := active(t, so)
	for range 700 {
		deposit(t, src, 1, 1, 4<<10)
	}
	flush(t, src)
	var bundles []entry.Bundle
	for _, item := range drain(t, mustReader(t, src, 0)) {
		if item.ReceiverHeader == nil {
			bundles = append(bundles, item.Bundle())
		}
	}
	for seed := range *crashRounds {
		mem := vfs.NewCrashableMem()
		c := &crasher{fs: mem, rng: rand.New(rand.NewPCG(seed, 11)), percents: []int{0, 50, 100}, branches: make([]branch, 1)}
		o := options(errorfs.Wrap(mem, c))
		o.ReceiverBytes, o.SpareBytes, o.RingBytes = receiver, -1, 1
		k := open(t, o)
		c.set(func() { c.journal = k })
		r, rng := mustReader(t, src, 1), rand.New(rand.NewPCG(seed, 12)) // the crasher's is used by the writer
		for n := 0; ; n++ {
			if n%5 != 4 { // else one by one for a while
				if s, ok, err := r.TryStretch(leastStretch + rng.Int64N(400<<10)); err != nil {
					t.Fatal(err)
				} else if ok {
					_, _, err := k.AppendPiece(s.Receiver, s.Offset, readStretch(t, s))
					must(t, err)
					continue
				}
			}
			item, ok, err := r.TryNext()
			must(t, err)
			if !ok {
				break
			}
			ship(t, k, []Item{item})
			if rng.IntN(8) == 0 {
				flush(t, k)
			}
		}
		want := flush(t, k)
		must(t, k.Close())
		images := c.taken()
		t.Logf("%d images", len(images))
		for _, i := range images {
			o.FS = i.fs
			j, err := Open(o)
			if err != nil {
				t.Fatalf("%s: %v", i.name, err)
			}
			v, _ := j.View()
			if v.Last > 0 {
				if err := isBeginning(j, bundles, i.durable); err != nil {
					t.Fatalf("%s, durable %s: %v", i.name, i.durable, err)
				}
			} else if i.durable > 0 {
				t.Fatalf("%s: nothing, durable %s", i.name, i.durable)
			}
			must(t, j.Close())
		}
		if want.Last != bundles[len(bundles)-1].Last() {
			t.Fatalf("%+v", want)
		}
	}
}
