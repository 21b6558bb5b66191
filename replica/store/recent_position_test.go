package store

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal/entry"
)

// story is what batches that were begun have made of each record, by the number of the batch.
type story struct {
	mu      sync.Mutex
	number  map[ident.Position]int
	changes map[string][]told // in the order of the batches
}

type told struct {
	number int
	image  *entry.Image
}

func (s *story) tell(n int, p ident.Position, changes []Change) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.number[p] = n
	for _, c := range changes {
		s.changes[string(c.Key)] = append(s.changes[string(c.Key)], told{n, c.Put})
	}
}

// among tells whether the record was that image after one of the batches from first to last.
func (s *story) among(key string, image *entry.Image, first, last int) bool {
	same := func(a *entry.Image) bool {
		if a == nil || image == nil {
			return a == nil && image == nil
		}
		return a.Position == image.Position && a.Expiry == image.Expiry && a.Time == image.Time && a.Kind == image.Kind && string(a.Value) == string(image.Value)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var before *entry.Image
	all := s.changes[key]
	for i, c := range all {
		switch {
		case c.number <= first:
			before = c.image
		case c.number > last:
		case i+1 < len(all) && all[i+1].number == c.number: // what a batch makes of it in between nobody sees
		case same(c.image):
			return true
		}
	}
	return same(before)
}

// Batches of more records than are hidden or shown at once, some of them several times, forth and back in the history, while others
// look: what Several returns is all of what there was at the position that it returns with it, and what Get returns was there while it
// looked. Proves BX-2 for reads.
func TestRecentIsWhatWasAtThePosition(t *testing.T) {
	const keys, batches = 3 * recentTurn, 60
	for _, room := range []int64{-1, 24 << 10, 4 << 20} {
		t.Run(fmt.Sprint(room), func(t *testing.T) {
			s := open(t, Options{MemTableBytes: 256 << 10, RecordBytes: room})
			var groups sync.WaitGroup
			for _, name := range []ident.GroupName{"g", "h"} { // of which records share places
				groups.Go(func() { tellAndRead(t, s, s.Group(name), keys, batches) })
			}
			groups.Wait()
			var sum int64
			for _, r := range s.recent.rows {
				sum += costOf(len(r.key), r.image)
			}
			if s.recent.bytes != sum || sum > max(room, 0) {
				t.Errorf("%d bytes are counted, there are %d, and room for %d", s.recent.bytes, sum, room)
			}
		})
	}
}

func tellAndRead(t *testing.T, s *Store, g *Group, keys, batches int) {
	tale := &story{number: map[ident.Position]int{{}: 0}, changes: map[string][]told{}}
	name := func(i int) []byte { return fmt.Appendf(nil, "%04d", i) }
	var done atomic.Bool
	var readers sync.WaitGroup
	for reader := range 3 {
		readers.Go(func() {
			random := rand.New(rand.NewPCG(7, uint64(reader)))
			at := func(p ident.Position) int {
				tale.mu.Lock()
				defer tale.mu.Unlock()
				return tale.number[p]
			}
			for !done.Load() && !t.Failed() {
				if random.IntN(3) == 0 {
					k := name(random.IntN(keys))
					first := at(g.Position())
					image, err := g.Look("f", k)
					if last := at(g.Position()); err != nil || !tale.among(string(k), image, first, last+1) { // the next may have landed
						t.Errorf("%s was %+v between %d and %d, %v", k, image, first, last, err)
					}
					continue
				}
				var names []Name
				for range 1 + random.IntN(6) {
					names = append(names, Name{File: "f", Key: name(random.IntN(keys))})
				}
				images, p, err := g.Several(names)
				if err != nil {
					t.Error(err)
					return
				}
				n := at(p)
				for i, image := range images {
					if !tale.among(string(names[i].Key), image, n, n) {
						t.Errorf("%s is %+v at %s, the position after batch %d", names[i].Key, image, p, n)
					}
				}
				runtime.Gosched()
			}
		})
	}
	random := rand.New(rand.NewPCG(3, uint64(g.Name()[0])))
	var p ident.Position
	for n := 1; n <= batches && !t.Failed(); n++ {
		next := at(ident.Epoch(n), ident.History(1+random.IntN(1000))) // forth or back, and no position twice
		var changes []Change
		for range 1 + random.IntN(2*keys) {
			c := put("f", string(name(random.IntN(keys))), strings.Repeat("x", random.IntN(80)), next)
			if c.Put.Expiry = 0; random.IntN(8) == 0 {
				c.Put.Expiry = int64(1 + random.IntN(1000))
			}
			if random.IntN(4) == 0 {
				c.Put = nil
			}
			changes = append(changes, c)
		}
		tale.tell(n, next, changes)
		if err := g.Apply(p, next, changes); err != nil {
			t.Error(err)
		}
		p = next
		if n%10 == 0 {
			if err := s.Flush(context.Background()); err != nil {
				t.Error(err)
			}
		}
		runtime.Gosched()
	}
	done.Store(true)
	readers.Wait()

	// The index of expiries was built with what memory said.
	index := map[string]int64{}
	due, _, err := g.Expiring(Expiring{}, 1<<62, 10*keys)
	if err != nil {
		t.Error(err)
	}
	for _, e := range due {
		index[string(e.Key)] = e.Expiry
	}
	for i := range keys {
		image, err := g.Look("f", name(i))
		if err != nil {
			t.Error(err)
			return
		}
		var want int64
		if image != nil {
			want = image.Expiry
		}
		if got := index[string(name(i))]; got != want {
			t.Errorf("%s expires at %d, and stands in the index with %d", name(i), want, got)
		}
		if !tale.among(string(name(i)), image, batches, batches) {
			t.Errorf("%s is %+v in the end", name(i), image)
		}
	}
	if len(due) != len(index) {
		t.Errorf("%d rows in the index, of %d records", len(due), len(index))
	}
}

// The disk hangs while a batch lands, and the store fails. Another batch at the same position, which had waited for the first one's turn, is
// refused like all that follows: it finds records that stay hidden.
func TestBatchBehindOneThatFailed(t *testing.T) {
	d := newDisk()
	s, err := Open(Options{FS: d, Dir: "store"})
	if err != nil {
		t.Fatal(err)
	}
	g := s.Group("g")
	apply(t, g, at(0, 0), at(1, 1), put("f", "a", "1", at(1, 1)), put("f", "b", "1", at(1, 1)))
	lookOf(t, g, "a", "1")
	lookOf(t, g, "b", "1")
	g.landing.look(s.health.failed) // somebody takes a view, and does not end
	results := make(chan error)
	two := []Change{put("f", "a", "2", at(1, 2)), put("f", "b", "2", at(1, 2))}
	go func() { results <- g.Apply(at(1, 1), at(1, 2), two) }()
	for hidden := false; !hidden; runtime.Gosched() {
		hidden = !s.recent.knows(g, "b")
	}
	go func() { results <- g.Apply(at(1, 1), at(1, 2), two[1:]) }()
	for inside := 0; inside < 2; runtime.Gosched() {
		s.gate.mu.Lock()
		inside = s.gate.inside
		s.gate.mu.Unlock()
	}
	s.health.fail(errDisk)
	for range 2 {
		var f *FailedError
		if err := <-results; !errors.As(err, &f) {
			t.Errorf("a batch of a failed store: %v", err)
		}
	}
	if err := s.Close(); err == nil {
		t.Error("Close hides the failure")
	}
}

// The position moves before what the batch has made of records is shown: who finds all he wants in memory never gets it with a position
// from before. Until then they are not known there, and the others are.
func TestPositionMovesBeforeRecordsAreShown(t *testing.T) {
	s := open(t, Options{})
	g, c := s.Group("g"), s.recent
	apply(t, g, at(0, 0), at(1, 1), put("f", "k", "1", at(1, 1)), put("f", "other", "1", at(1, 1)))
	lookOf(t, g, "k", "1")
	lookOf(t, g, "other", "1")
	g.landing.look(s.health.failed) // somebody takes a view: the batch waits before it lands
	applied := make(chan error, 1)
	go func() { applied <- g.Apply(at(1, 1), at(1, 2), []Change{put("f", "k", "2", at(1, 2))}) }()
	for c.knows(g, "k") {
		runtime.Gosched()
	}
	c.mu.Lock() // and before it shows anything
	g.landing.leave()
	deadline := time.Now().Add(20 * time.Second)
	for g.Position() != at(1, 2) && time.Now().Before(deadline) {
		runtime.Gosched()
	}
	_, touched := c.find(append(g.appendFile(nil, "f"), "k"...))
	_, known := c.find(append(g.appendFile(nil, "f"), "other"...))
	reached := g.Position()
	c.mu.Unlock()
	if reached != at(1, 2) || touched || !known {
		t.Errorf("at %s: the record that the batch has changed is known: %t, the other one: %t", reached, touched, known)
	}
	if err := <-applied; err != nil {
		t.Fatal(err)
	}
	lookOf(t, g, "k", "2")
}

// A batch of more records than are hidden at once goes on hiding while one of another group begins, and records of both share a place: what
// is read before the younger batch has landed is not kept all the same. It would stay, and be stale for good.
func TestRecentOfGroupsThatShareAPlace(t *testing.T) {
	s := open(t, Options{})
	g, h, c := s.Group("g"), s.Group("h"), s.recent
	key := append(h.appendFile(nil, "f"), 'k')
	var other []byte
	for i := 0; other == nil || placeOf(other) != placeOf(key); i++ {
		other = fmt.Append(g.appendFile(nil, "f"), i)
	}
	old, younger := put("f", "k", "old", at(1, 1)), []Change{put("f", "k", "new", at(1, 2))}
	var large, small touched
	for range recentTurn {
		large.add([]byte("elsewhere"))
	}
	large.add(other)
	small.add(key)
	next := c.hideSome(g, &large, 0, 0)
	c.hide(h, &small, younger)
	_, _, since := c.get(h, key)
	c.hideSome(g, &large, recentTurn, next)
	if c.keep(key, since, old.Put); c.knows(h, "k") {
		t.Error("what was read before a batch has landed that changes it is kept")
	}
	c.show(h, &small)
	if c.keep(key, since, old.Put); c.knows(h, "k") {
		t.Error("what was read before a batch has landed that changes it is kept after")
	}
	c.show(g, &large)
	_, _, since = c.get(h, key)
	if c.keep(key, since, younger[0].Put); !c.knows(h, "k") {
		t.Error("what was read after the batch is not kept")
	}
}
