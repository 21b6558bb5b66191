package store

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal/entry"
)

// content is what a group holds at one position.
type content map[string]string

// model remembers what one group held at every position it was ever at.
type model struct {
	at    map[ident.Position]content
	order []ident.Position // as visited
	floor int              // index in order of what is known to be flushed
	stack []ident.Position // the present branch, the base first
	epoch ident.Epoch
}

func newModel() *model {
	return &model{at: map[ident.Position]content{{}: {}}, order: []ident.Position{{}}, stack: []ident.Position{{}}, epoch: 1}
}

// step applies a bundle or undoes the newest one.
func (m *model) step(t *testing.T, g *Group, rng *rand.Rand) {
	now := m.stack[len(m.stack)-1]
	if len(m.stack) > 1 && rng.IntN(5) == 0 {
		m.undo(t, g, now)
		return
	}
	next := at(m.epoch, now.History+ident.History(1+rng.IntN(3)))
	c := maps.Clone(m.at[now])
	var changes []Change
	for range rng.IntN(6) {
		file, key := fmt.Sprint("f", rng.IntN(3)), fmt.Sprint("k", rng.IntN(12))
		if rng.IntN(4) == 0 {
			changes = append(changes, Change{File: file, Key: []byte(key)})
			delete(c, file+" "+key)
			continue
		}
		value := fmt.Sprintf("%s%0*d", next, rng.IntN(3000), 0)
		if rng.IntN(60) == 0 {
			value = string(bytes.Repeat([]byte{'x'}, 80<<10)) // larger than a memtable
		}
		change := put(file, key, value, next)
		change.Put.Expiry = expiryFor(value)
		changes = append(changes, change)
		c[file+" "+key] = value
	}
	apply(t, g, now, next, changes...)
	m.at[next] = c
	m.stack = append(m.stack, next)
	m.order = append(m.order, next)
}

func (m *model) undo(t *testing.T, g *Group, now ident.Position) {
	below := m.stack[len(m.stack)-2]
	old, c := m.at[now], m.at[below]
	var changes []Change
	for name := range old {
		if _, ok := c[name]; !ok {
			file, key, _ := bytes.Cut([]byte(name), []byte(" "))
			changes = append(changes, Change{File: string(file), Key: key})
		}
	}
	for name, value := range c {
		if old[name] != value {
			file, key, _ := bytes.Cut([]byte(name), []byte(" "))
			changes = append(changes, Change{File: string(file), Key: key, Put: &entry.Image{Expiry: expiryFor(value), Value: []byte(value)}})
		}
	}
	apply(t, g, now, below, changes...)
	m.stack = m.stack[:len(m.stack)-1]
	m.order = append(m.order, below)
	m.epoch++ // the undone positions never come again
}

// flushed notes what the store says it cannot lose any more.
func (m *model) flushed(t *testing.T, p ident.Position) {
	i := slices.Index(m.order[m.floor:], p)
	if i < 0 {
		t.Fatalf("flushed %s, which lies before %s or never was", p, m.order[m.floor])
	}
	m.floor += i
}

// check compares a store after a crash with the model and takes it back there.
func (m *model) check(t *testing.T, g *Group) {
	p := g.Position()
	i := slices.Index(m.order[m.floor:], p)
	if i < 0 {
		t.Fatalf("after the crash group %s is at %s; flushed was %s, the last %s", g.Name(), p, m.order[m.floor], m.order[len(m.order)-1])
	}
	got := content{}
	files, err := g.Files()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		page, err := g.Scan(f, nil, nil, 0)
		if err != nil || page.Position != p {
			t.Fatalf("scan at %s: %s, %v", p, page.Position, err)
		}
		for _, r := range page.Records {
			got[f+" "+string(r.Key)] = string(r.Image.Value)
		}
	}
	if !maps.Equal(got, m.at[p]) {
		t.Fatalf("group %s at %s has %d records that are not those of that position (%d)", g.Name(), p, len(got), len(m.at[p]))
	}
	checkIndex(t, g)
	// Go on from there, on a branch of its own.
	m.epoch++
	for len(m.stack) > 1 && m.stack[len(m.stack)-1] != p {
		m.stack = m.stack[:len(m.stack)-1]
	}
	if m.stack[len(m.stack)-1] != p {
		m.stack = []ident.Position{{}, p}
	}
	m.order, m.floor = append(m.order, p), len(m.order)
}

// TestCrash crashes a store at random moments, several times in a row, with random loss of what was not synced. Each
// group must be found exactly at a position it had, never before what was flushed. Proves RJ-7, RJ-9.
func TestCrash(t *testing.T) {
	seeds := uint64(16)
	if testing.Short() {
		seeds = 4
	}
	lost, kept := 0, 0
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 1))
			fs := vfs.NewCrashableMem()
			models := map[ident.GroupName]*model{"g": newModel(), "g2": newModel()}
			for range 4 {
				s := open(t, Options{FS: fs, MemTableBytes: 64 << 10})
				for name, m := range models {
					m.check(t, s.Group(name))
				}
				for range 20 + rng.IntN(200) {
					for name, m := range models {
						g := s.Group(name)
						m.step(t, g, rng)
						if rng.IntN(20) == 0 {
							checkIndex(t, g)
						}
						m.flushed(t, g.Flushed())
					}
					if rng.IntN(60) == 0 {
						if err := s.Flush(context.Background()); err != nil {
							t.Fatal(err)
						}
						for name, m := range models {
							if m.flushed(t, s.Group(name).Flushed()); m.order[m.floor] != m.order[len(m.order)-1] {
								t.Fatalf("a flush left %s behind", name)
							}
						}
					}
				}
				percent := []int{0, 30, 70, 100}[rng.IntN(4)]
				fs = fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rng})
				for _, m := range models {
					kept += m.floor
					lost += len(m.order) - m.floor
				}
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
	if lost == 0 || kept == 0 {
		t.Fatalf("%d positions lost, %d flushed: the crashes were no crashes", lost, kept)
	}
}
