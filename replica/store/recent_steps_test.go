package store

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"testing"

	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal/entry"
)

// steps are batches and looks at the database of two groups, in steps that the test puts into any order.
type steps struct {
	t      *testing.T
	random *rand.Rand
	c      *recent
	groups []*stepped
	number int64
}

type stepped struct {
	g    *Group
	keys [][]byte
	data map[string]*entry.Image // the database
	rest []func()                // of the batch that is under way
}

// batch begins a batch; its steps are what happens under one lock, or at once, in Apply.
func (s *steps) batch(g *stepped) {
	var t touched
	var changes []Change
	for range 1 + s.random.IntN(3*recentTurn) {
		t.add(g.keys[s.random.IntN(len(g.keys))])
		var c Change
		if s.number++; s.random.IntN(4) > 0 {
			c.Put = &entry.Image{Time: s.number, Value: make([]byte, s.random.IntN(100))}
		}
		changes = append(changes, c)
	}
	next := 0
	for i := 0; i < len(t.ends); i += recentTurn {
		g.rest = append(g.rest, func() { next = s.c.hideSome(g.g, &t, i, next) })
	}
	g.rest = append(g.rest, func() { t.make(changes) }, func() {
		from := 0
		for i, end := range t.ends {
			if key := string(t.keys[from:end]); changes[i].Put == nil {
				delete(g.data, key)
			} else {
				g.data[key] = changes[i].Put
			}
			from = end
		}
	}, func() {
		for i := 0; i < len(t.rows) || i == 0; i += recentTurn {
			g.rest = append(g.rest, func() { s.c.showSome(g.g, &t, i) })
		}
	})
}

// look begins a look at a few records and returns its other steps.
func (s *steps) look(g *stepped) []func() {
	key := g.keys[s.random.IntN(len(g.keys))]
	image, known, since := s.c.get(g.g, key)
	if known {
		s.same(g, key, image, g.data)
		return nil
	}
	var view map[string]*entry.Image
	return []func(){
		func() { view = maps.Clone(g.data) },
		func() { // what Several takes from memory beside a view
			for range 20 {
				key := g.keys[s.random.IntN(len(g.keys))]
				if r, ok := s.c.find(key); ok && s.c.last[placeOf(key)] <= since {
					s.same(g, key, r.image, view)
				}
			}
		},
		func() { s.c.keep(key, since, view[string(key)]) },
	}
}

func (s *steps) same(g *stepped, key []byte, image *entry.Image, data map[string]*entry.Image) {
	want := data[string(key)]
	if (image == nil) != (want == nil) || image != nil && (image.Time != want.Time || len(image.Value) != len(want.Value)) {
		s.t.Fatalf("%q of group %s is %+v in memory, and %+v in the database", key, g.g.name, image, want)
	}
}

// check holds what memory says against the database, and counts it.
func (s *steps) check() {
	rows, bytes := 0, int64(0)
	for _, g := range s.groups {
		for _, key := range g.keys {
			r := s.c.rows[string(key)]
			if r == nil {
				continue
			}
			rows, bytes = rows+1, bytes+costOf(len(r.key), r.image)
			if !r.hidden {
				s.same(g, key, r.image, g.data)
			}
		}
	}
	ring := 0
	for r := s.c.ring.next; r != &s.c.ring; r = r.next {
		ring++
	}
	if rows != len(s.c.rows) || rows != ring || bytes != s.c.bytes {
		s.t.Fatalf("%d of %d rows, %d in the ring, %d bytes, counted as %d", rows, len(s.c.rows), ring, bytes, s.c.bytes)
	}
}

// Batches of two groups, whose records share places, and looks at the database in every order of their steps: after each step what memory
// says is what is in the database.
func TestRecentAtEveryStep(t *testing.T) {
	store := open(t, Options{})
	places := map[ident.GroupName][][]byte{}
	for _, name := range []ident.GroupName{"g", "h"} {
		prefix := store.Group(name).appendFile(nil, "f")
		for i := 0; len(places[name]) < recentTurn+50; i++ {
			if key := fmt.Append(prefix[:len(prefix):len(prefix)], i); placeOf(key) < 100 {
				places[name] = append(places[name], key)
			}
		}
	}
	known := 0
	for seed := range uint64(20) {
		s := &steps{t: t, random: rand.New(rand.NewPCG(seed, 1)), c: newRecent([]int64{1 << 20, 16 << 10}[seed%2])}
		for _, name := range []ident.GroupName{"g", "h"} {
			s.groups = append(s.groups, &stepped{g: newGroup(store, name), keys: places[name], data: map[string]*entry.Image{}})
		}
		var looks [][]func()
		for range 1500 {
			g := s.groups[s.random.IntN(2)]
			switch n := s.random.IntN(40); {
			case n < 2:
				if len(g.rest) == 0 {
					s.batch(g)
				}
				step := g.rest[0]
				g.rest = g.rest[1:]
				step()
			case n < 22 || len(looks) == 0:
				if rest := s.look(g); rest != nil {
					looks = append(looks, rest)
				} else {
					known++
				}
			default:
				i := s.random.IntN(len(looks))
				looks[i][0]()
				if looks[i] = looks[i][1:]; len(looks[i]) == 0 {
					looks[i] = looks[len(looks)-1]
					looks = looks[:len(looks)-1]
				}
			}
			s.check()
		}
	}
	if known == 0 {
		t.Error("nothing was known")
	}
}
