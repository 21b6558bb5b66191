package replica

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/journal/entry"
	"github.com/understudy-ha/understudy/replica/store"
)

// verified replays the journal of a node from nothing: each entry has what the entries before it made as its before-image, and all together
// have made what the store has. It returns how often each value was written.
func (n *node) verified() map[string]int {
	n.t.Helper()
	own, _ := n.rep.Journal(n.id)
	v, _ := own.View()
	state, written := map[recordKey]*entry.Image{}, map[string]int{}
	for seq := v.First; seq <= v.Last; {
		b, err := own.BundleAt(seq)
		if err != nil {
			n.t.Fatal(err)
		}
		all, err := b.All()
		if err != nil {
			n.t.Fatal(err)
		}
		for i := range all {
			e := &all[i]
			if e.Code != entry.Record {
				continue
			}
			k := recordKey{e.File, string(e.Key)}
			old := state[k]
			if (old == nil) != (e.Before == nil) || old != nil && (old.Position != e.Before.Position || old.Time != e.Before.Time || old.Expiry != e.Before.Expiry || old.Kind != e.Before.Kind || !bytes.Equal(old.Value, e.Before.Value)) {
				n.t.Fatalf("%s of %q at %s has the before-image %+v, want %+v", e.Type, k, e.Position, e.Before, old)
			}
			if e.After != nil && (e.Type == entry.Update) != (old != nil) {
				n.t.Fatalf("%s of %q at %s, there was %+v", e.Type, k, e.Position, old)
			}
			state[k] = e.After
			if e.After != nil {
				written[string(e.After.Value)]++
			}
			if e.Type == entry.Delete && old != nil && old.Expiry == 0 && bytes.HasPrefix(e.Key, []byte("kept")) {
				n.t.Fatalf("%q was deleted at %s", k, e.Position)
			}
		}
		seq = b.Last() + 1
	}
	for k, want := range state {
		got, err := n.rep.data.Get(k.file, []byte(k.key))
		if want == nil {
			if err == nil {
				n.t.Fatalf("%q is in the store: %+v", k, got)
			}
			continue
		}
		if err != nil || got.Position != want.Position || got.Expiry != want.Expiry || got.Kind != want.Kind || !bytes.Equal(got.Value, want.Value) {
			n.t.Fatalf("%q in the store is %+v, %v; want %+v", k, got, err, want)
		}
	}
	return written
}

var errDrawn = errors.New("drawn")

// draw makes a request at random, whose writes all have the given value.
func draw(r *rand.Rand, value string) (t Transaction) {
	key := func() []byte { return fmt.Appendf(nil, "k%d", r.IntN(6)) }
	expiry := func() int64 {
		return []int64{0, 1, in(-time.Minute), in(time.Hour), in(3 * time.Millisecond)}[r.IntN(5)]
	}
	if r.IntN(2) == 0 {
		for range r.IntN(3) {
			t.Conditions = append(t.Conditions, Condition{File: "f", Key: key(), Absent: r.IntN(2) == 0})
		}
	}
	for range r.IntN(3) {
		t.Writes = append(t.Writes, Write{File: "f", Key: key(), Value: []byte(value), Delete: r.IntN(4) == 0, Expiry: expiry(), Kind: entry.Kind(r.IntN(2))})
	}
	if len(t.Writes) > 0 && r.IntN(2) == 0 {
		return t
	}
	seed, how := r.Uint64(), r.IntN(6)
	t.Program = func(v *View) error {
		r := rand.New(rand.NewPCG(seed, 1))
		for range r.IntN(6) {
			k := fmt.Appendf(nil, "k%d", r.IntN(6))
			var err error
			switch r.IntN(3) {
			case 0:
				_, err = v.Get("f", k)
			case 1:
				_, err = v.Delete("f", k)
			default:
				expiry := []int64{0, v.Now(), v.Now() - 1, v.Now() + int64(time.Hour)}[r.IntN(4)]
				err = v.Put("f", k, entry.Image{Value: []byte(value), Expiry: expiry, Kind: entry.Kind(r.IntN(2))})
			}
			if err != nil {
				return err
			}
		}
		switch how {
		case 0:
			return errDrawn
		case 1:
			panic(errDrawn)
		case 2:
			return v.Put("f", []byte("none"), entry.Image{Kind: 9})
		}
		return nil
	}
	return t
}

// Requests of every kind, in bundles together: each before-image is what was there, nothing of a refused one stays, and what is done once
// is there once.
func TestDraftsOfManyKinds(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, fsm.GroupSpec{Images: fsm.ImagesBoth, ReceiverBytes: 8 << 20}, "a", "b")
			a := c.nodes["a"]
			c.inSync("a", "b")
			a.mustPut("kept", "kept")
			r := rand.New(rand.NewPCG(seed, 7))
			p := a.rep.primary.Load()
			refused, puts := map[string]bool{}, map[string]int{}
			var mu sync.Mutex
			for round := range 40 {
				var all sync.WaitGroup
				p.hold(true)
				for i := range 20 {
					value := fmt.Sprintf("%d.%d", round, i)
					if r.IntN(10) == 0 {
						value += strings.Repeat("x", 200<<10)
					}
					x := draw(r, value)
					tries := 1
					if x.Program == nil && len(x.Writes) > 0 {
						puts[value] = 0
						for _, w := range x.Writes {
							if !w.Delete {
								puts[value]++
							}
						}
					}
					if x.Program == nil && r.IntN(2) == 0 {
						x.Once, tries = once(value[:min(20, len(value))], 1), 1+r.IntN(3)
					}
					for range tries {
						if x.Program == nil && len(x.Writes) == 0 {
							continue
						}
						all.Go(func() {
							ctx, cancel := context.WithTimeout(context.Background(), patience)
							defer cancel()
							_, err := a.rep.Write(ctx, x)
							if err != nil && !NotDone(err) {
								t.Error(err)
							}
							mu.Lock()
							refused[value] = err != nil
							mu.Unlock()
						})
					}
				}
				p.hold(false)
				all.Wait()
			}
			c.eventually("nothing is due, nor soon", func() bool {
				due, _, err := a.rep.data.Expiring(store.Expiring{Expiry: math.MinInt64}, in(time.Minute), 1)
				return err == nil && len(due) == 0 && p.flights.empty()
			})
			written := a.verified()
			for value, want := range puts {
				if !refused[value] && written[value] != want {
					t.Errorf("%.20s stands in the history %d times, not %d", value, written[value], want)
				}
			}
			for value, no := range refused {
				if no && written[value] > 0 {
					t.Errorf("%.20s was refused and stands in the history %d times", value, written[value])
				}
			}
			c.level("b")
		})
	}
}

// A program that does not fit beside others is run again in a bundle of its own.
func TestProgramThatNeedsABundle(t *testing.T) {
	c := newCluster(t, fsm.GroupSpec{Images: fsm.ImagesBoth}, "a")
	a := c.nodes["a"]
	big := func(n int) []byte { return make([]byte, n) }
	for _, k := range []string{"k1", "k2"} {
		a.mustPut(k, string(big(15<<20)))
	}
	a.mustPut("k3", string(big(1900<<10)))
	runs := 0
	done := make(chan error, 3)
	c.together(a, func() {
		_, err := a.rep.Write(t.Context(), Transaction{Once: once("x", 1), Writes: []Write{{File: "f", Key: []byte("s"), Value: big(900 << 10)}, {File: "f", Key: []byte("due"), Value: []byte("v"), Expiry: in(-1)}}})
		done <- err
	}, func() {
		_, err := a.runs(func(v *View) error {
			runs++
			if image, err := v.Get("f", []byte("due")); err != nil || image != nil {
				return errPanic
			}
			for k, n := range map[string]int{"k1": 15 << 20, "k2": 15 << 20, "k3": 1900 << 10} {
				if err := v.Put("f", []byte(k), entry.Image{Value: big(n)}); err != nil {
					return err
				}
			}
			return nil
		})
		done <- err
	}, func() { _, err := a.put("after", "v"); done <- err })
	for range 3 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if runs != 2 {
		t.Errorf("run %d times", runs)
	}
	if a.stored("due") {
		t.Error("it is there")
	}
	if _, err := a.get("after", false); err != nil {
		t.Error(err)
	}
	p := a.rep.primary.Load()
	c.eventually("nothing is counted as in flight", func() bool {
		p.queue.mu.Lock()
		defer p.queue.mu.Unlock()
		return p.queue.made == 0 && p.queue.bytes == 0
	})
	a.verified()
}
