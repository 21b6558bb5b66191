package store

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal/entry"
)

// Each batch writes its number into all records of a set of its group, or deletes them; some are undos. Whoever reads meanwhile, from memory or
// not, sees one batch only, and none older than what was there before he began. Nobody sees what a batch makes of a record in between.
func TestRecentIsNeverStale(t *testing.T) {
	const sets, width, batches = 20, 4, 150
	for _, room := range []int64{-1, 20 << 10, 1 << 20} { // nothing, some of them for a while, everything
		t.Run(fmt.Sprint(room), func(t *testing.T) {
			s := open(t, Options{MemTableBytes: 64 << 10, RecordBytes: room})
			ctx, stop := context.WithCancel(context.Background())
			defer stop()
			var readers, writers sync.WaitGroup
			for _, name := range []ident.GroupName{"g", "h"} {
				g := s.Group(name)
				var began, landed [sets]atomic.Int64  // the batch of a set that was begun last, that has landed last
				var deleted [batches + 1]atomic.Int64 // which set the batch deletes, from 1 on
				names := make([][]Name, sets)
				for set := range names {
					for i := range width {
						names[set] = append(names[set], Name{File: "f", Key: fmt.Appendf(nil, "%d-%d", set, i)})
					}
				}
				for reader := range 3 {
					readers.Go(func() {
						random := rand.New(rand.NewPCG(1, uint64(reader)))
						for ctx.Err() == nil {
							set := random.IntN(sets)
							from := landed[set].Load()
							var images []*entry.Image
							if random.IntN(2) == 0 {
								var err error
								if images, _, err = g.Several(names[set]); err != nil {
									t.Error(err)
									return
								}
							} else {
								image, err := g.Get("f", names[set][random.IntN(width)].Key)
								switch {
								case err == nil:
									images = append(images, &image)
								case errors.Is(err, ErrNotFound):
									images = append(images, nil)
								default:
									t.Error(err)
									return
								}
							}
							to := began[set].Load()
							for _, image := range images {
								if got, first := generation(image), generation(images[0]); got != first {
									t.Errorf("set %d: one look sees %d and %d", set, first, got)
								}
								got := generation(image)
								if image == nil {
									for n := from; n <= to; n++ {
										if n == 0 || deleted[n].Load() == int64(set)+1 {
											got = n
										}
									}
								}
								if got < from || got > to {
									t.Errorf("set %d: %d was read, it was between %d and %d", set, got, from, to)
								}
							}
							if t.Failed() {
								return
							}
							runtime.Gosched()
						}
					})
				}
				writers.Go(func() {
					random := rand.New(rand.NewPCG(2, uint64(len(name))))
					var p ident.Position
					for n := int64(1); n <= batches && ctx.Err() == nil && !t.Failed(); n++ {
						set := random.IntN(sets)
						next := at(1, p.History+1)
						if random.IntN(4) == 0 && p.History > 1 { // an undo goes back, with older values
							next = at(1, p.History-1)
						}
						deletes := random.IntN(4) == 0
						if deletes {
							deleted[n].Store(int64(set) + 1)
						}
						began[set].Store(n)
						var changes []Change
						for _, name := range names[set] {
							changes = append(changes, put("f", string(name.Key), "between", next))
						}
						for _, name := range names[set] {
							c := put("f", string(name.Key), strconv.FormatInt(n, 10)+strings.Repeat(" ", random.IntN(60)), next)
							c.Put.Expiry = 0
							if deletes {
								c.Put = nil
							}
							changes = append(changes, c)
						}
						if err := g.Apply(p, next, changes); err != nil {
							t.Error(err)
							break
						}
						p = next
						landed[set].Store(n)
						if random.IntN(50) == 0 {
							if err := s.Flush(ctx); err != nil && ctx.Err() == nil {
								t.Error(err)
							}
						}
						runtime.Gosched()
					}
				})
			}
			writers.Wait()
			stop()
			readers.Wait()
		})
	}
}

// generation is the number of the batch that wrote a record; 0: there is none, -1: nobody may see it.
func generation(image *entry.Image) int64 {
	if image == nil {
		return 0
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(image.Value)), 10, 64)
	if err != nil {
		return -1
	}
	return n
}

func lookOf(t *testing.T, g *Group, key, want string) {
	t.Helper()
	image, err := g.Look("f", []byte(key))
	if err != nil {
		t.Fatal(err)
	}
	got := "none"
	if image != nil {
		got = string(image.Value)
	}
	if got != want {
		t.Fatalf("%s is %q, want %q", key, got, want)
	}
}

func (c *recent) knows(g *Group, key string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.rows[string(append(g.appendFile(nil, "f"), key...))]
	return r != nil && !r.hidden
}

func TestRecentKeepsNothingThatABatchHasTouched(t *testing.T) {
	s := open(t, Options{})
	g, c := s.Group("g"), s.recent
	key := append(g.appendFile(nil, "f"), 'k')
	old, k := put("f", "k", "old", at(1, 1)), []Change{put("f", "k", "new", at(1, 2))}
	var batch touched
	batch.add(key)

	_, known, before := c.get(g, key)
	c.hide(g, &batch, k)
	_, _, during := c.get(g, key)
	for _, since := range []uint64{before, during} {
		if c.keep(key, since, old.Put); known || c.knows(g, "k") {
			t.Fatal("what was read before a batch has landed that changes it is kept while it lands")
		}
	}
	c.show(g, &batch)
	for _, since := range []uint64{before, during} {
		if c.keep(key, since, old.Put); c.knows(g, "k") {
			t.Fatal("what was read before a batch has landed that changes it is kept after")
		}
	}
	_, _, since := c.get(g, key)
	if c.keep(key, since, k[0].Put); !c.knows(g, "k") {
		t.Fatal("what was read after the batch is not kept")
	}

	// A record that is known is hidden while a batch changes it, also when there is no room for it meanwhile.
	for _, dropped := range []bool{false, true} {
		batch := touched{}
		batch.add(key)
		c.hide(g, &batch, k)
		if _, known, _ := c.get(g, key); known {
			t.Fatal("a record that a batch changes is shown while it lands")
		}
		if dropped {
			c.mu.Lock()
			c.drop(c.ring.next)
			c.mu.Unlock()
		}
		if c.show(g, &batch); c.knows(g, "k") == dropped {
			t.Fatal("a record that was dropped came back, or one that was not is gone")
		}
	}
	if c.bytes != 0 || len(c.rows) != 0 || c.ring.next != &c.ring {
		t.Fatalf("%d bytes of %d rows are left", c.bytes, len(c.rows))
	}
}

func TestRecentIsBounded(t *testing.T) {
	const room = 64 << 10
	s := open(t, Options{RecordBytes: room})
	g, c := s.Group("g"), s.recent
	var p ident.Position
	write := func(key, value string) {
		next := at(1, p.History+1)
		apply(t, g, p, next, put("f", key, value, next))
		p = next
	}
	write("unseen", "x")
	if lookOf(t, g, "none", "none"); c.knows(g, "unseen") || !c.knows(g, "none") {
		t.Fatal("a batch brings in what nobody looked at, or what is not there is not known")
	}
	lookOf(t, g, "k", "none")
	for i := range 500 { // records grow where they are
		value := strings.Repeat("v", i)
		write("k", value)
		lookOf(t, g, "k", value)
		key := strconv.Itoa(i)
		lookOf(t, g, key, "none")
		write(key, value)
		var sum int64
		c.mu.Lock()
		for _, r := range c.rows {
			sum += costOf(len(r.key), r.image)
		}
		if c.bytes != sum || sum > room {
			t.Fatalf("%d bytes are counted, there are %d, and room for %d", c.bytes, sum, room)
		}
		c.mu.Unlock()
	}
	if c.knows(g, "none") || !c.knows(g, "499") || !c.knows(g, "k") {
		t.Fatal("not what was looked at longest ago made room")
	}
	large := strings.Repeat("v", room/recentShare)
	write("k", large)
	if lookOf(t, g, "k", large); c.knows(g, "k") {
		t.Fatal("one record takes too much of the room")
	}
	write("k", "small")
	lookOf(t, g, "k", "small")
	// Who appends to what he was given reaches nobody else.
	image, err := g.Get("f", []byte("k"))
	if err != nil || cap(image.Value) != len(image.Value) {
		t.Fatal(err, cap(image.Value), len(image.Value))
	}
}

// What is known in memory is not mixed with a view that was made before.
func TestSeveralSeesOnePosition(t *testing.T) {
	s := open(t, Options{})
	g := s.Group("g")
	apply(t, g, at(0, 0), at(1, 1), put("f", "known", "1", at(1, 1)), put("f", "other", "1", at(1, 1)))
	lookOf(t, g, "known", "1")
	several := g.selection([]Name{{"f", []byte("known")}, {"f", []byte("other")}})
	_, since, all := several.recent(g)
	if all {
		t.Fatal("what nobody looked at is known")
	}
	v, err := g.open(s.db)
	if err != nil {
		t.Fatal(err)
	}
	apply(t, g, at(1, 1), at(1, 2), put("f", "known", "2", at(1, 2)), put("f", "other", "2", at(1, 2)))
	err = several.read(g, v, since)
	if err = errors.Join(err, v.close()); err != nil {
		t.Fatal(err)
	}
	if a, b := generation(several.images[0]), generation(several.images[1]); a != 1 || b != 1 || v.position != at(1, 1) {
		t.Fatalf("%d and %d at %s", a, b, v.position)
	}
	images, p, err := g.Several([]Name{{"f", []byte("known")}, {"f", []byte("other")}})
	if err != nil || p != at(1, 2) || generation(images[0]) != 2 || generation(images[1]) != 2 {
		t.Fatal(images, p, err)
	}
}
