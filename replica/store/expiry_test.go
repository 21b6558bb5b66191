package store

import (
	"cmp"
	"context"
	"fmt"
	"hash/fnv"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal/entry"
)

// expiryFor makes the expiry of a value in the tests of crashes: half of the values have none, many have the same.
func expiryFor(value string) int64 {
	h := fnv.New32a()
	h.Write([]byte(value))
	return []int64{0, 0, 0, 1, 2, 3, -4, math.MaxInt64}[h.Sum32()%8]
}

func sortExpiring(all []Expiring) {
	slices.SortFunc(all, func(a, b Expiring) int {
		return cmp.Or(cmp.Compare(a.Expiry, b.Expiry), cmp.Compare(a.File, b.File), slices.Compare(a.Key, b.Key))
	})
}

// checkIndex compares the index of expiries with the records, and the pages of it with each other.
func checkIndex(t testing.TB, g *Group) {
	t.Helper()
	var want []Expiring
	files, err := g.Files()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		for from := []byte(nil); ; {
			page, err := g.Scan(f, nil, from, 0)
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range page.Records {
				if r.Image.Expiry != 0 {
					want = append(want, Expiring{f, r.Key, r.Image.Expiry})
				}
			}
			if from = page.Next; from == nil {
				break
			}
		}
	}
	sortExpiring(want)
	got, next, err := g.Expiring(Expiring{Expiry: math.MinInt64}, math.MaxInt64, math.MaxInt)
	if err != nil || next != math.MaxInt64 || !reflect.DeepEqual(got, want) {
		t.Fatalf("group %s at %s: the index says %v (next %d, %v), the records %v", g.Name(), g.Position(), got, next, err, want)
	}
	if len(want) == 0 {
		return
	}
	middle := len(want) / 2
	if got, next, err := g.Expiring(want[middle], math.MaxInt64, math.MaxInt); err != nil || next != math.MaxInt64 || !reflect.DeepEqual(got, want[middle:]) {
		t.Fatalf("from %v on: %v, next %d, %v; want %v", want[middle], got, next, err, want[middle:])
	}
	until := want[middle].Expiry
	n := slices.IndexFunc(want, func(e Expiring) bool { return e.Expiry > until })
	if n < 0 {
		n = len(want)
	}
	for _, limit := range []int{1, middle + 1, len(want)} {
		took := min(n, limit)
		wantNext := int64(math.MaxInt64)
		if took < len(want) {
			wantNext = want[took].Expiry
		}
		if got, next, err := g.Expiring(Expiring{Expiry: want[0].Expiry}, until, limit); err != nil || next != wantNext || !reflect.DeepEqual(got, want[:took]) {
			t.Fatalf("%d until %d: %v, next %d, %v; want %v and %d", limit, until, got, next, err, want[:took], wantNext)
		}
	}
}

// The same record several times in one batch, names that need an escape, and the order of times.
func TestExpiring(t *testing.T) {
	s := open(t, Options{})
	g, other := s.Group("g"), s.Group("g\x00")
	with := func(file, key string, expiry int64) Change {
		return Change{File: file, Key: []byte(key), Put: &entry.Image{Expiry: expiry, Value: []byte("v")}}
	}
	apply(t, other, at(0, 0), at(1, 1), with("f", "k", 1))
	apply(t, g, at(0, 0), at(1, 1), with("f", "k", 0), with("f", "k", 5), with("f", "k", 9), with("f\x00", "k\x00", 5), with("e", "z", -5))
	checkIndex(t, g)
	apply(t, g, at(1, 1), at(1, 2), with("f", "k", 9), with("f", "gone", 3), Change{File: "f", Key: []byte("gone")}, Change{File: "never", Key: []byte("was")})
	checkIndex(t, g)
	due, next, err := g.Expiring(Expiring{Expiry: math.MinInt64}, 5, 10)
	if err != nil || len(due) != 2 || due[0].File != "e" || due[1].File != "f\x00" || string(due[1].Key) != "k\x00" || next != 9 {
		t.Fatalf("%+v %d %v", due, next, err)
	}
	apply(t, g, at(1, 2), at(1, 3), with("f", "k", 0), Change{File: "e", Key: []byte("z")}, Change{File: "f\x00", Key: []byte("k\x00")})
	if due, next, err := g.Expiring(Expiring{Expiry: math.MinInt64}, math.MaxInt64, 10); err != nil || len(due) != 0 || next != math.MaxInt64 {
		t.Fatalf("%+v %d %v", due, next, err)
	}
	checkIndex(t, other)
}

// The index follows from the records and is no part of the digest: it is the same over any way that leads to them.
func TestIndexIsNotInTheDigest(t *testing.T) {
	s := open(t, Options{})
	g, other := s.Group("g"), s.Group("other")
	apply(t, g, at(0, 0), at(1, 1), put("f", "k", "v", at(1, 1)), put("f", "l", "v", at(1, 1)))
	apply(t, g, at(1, 1), at(1, 2), Change{File: "f", Key: []byte("l")})
	apply(t, other, at(0, 0), at(1, 2), put("f", "k", "v", at(1, 1)))
	a, err := g.Digest(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	b, err := other.Digest(context.Background())
	if err != nil || a != b || a.Records != 1 || a.Bytes != 2 {
		t.Fatalf("%+v\n%+v %v", a, b, err)
	}
}

// A kind is kept, whatever it is, and the digest shows it.
func TestKind(t *testing.T) {
	s := open(t, Options{})
	sums := map[string]bool{}
	for i, kind := range []entry.Kind{entry.KindBytes, entry.KindHash, 200} {
		g := s.Group([]ident.GroupName{"a", "b", "c"}[i])
		apply(t, g, at(0, 0), at(1, 1), Change{File: "f", Key: []byte("k"), Put: &entry.Image{Position: at(1, 1), Time: 2, Expiry: 3, Kind: kind, Value: []byte("v")}})
		r, err := g.Get("f", []byte("k"))
		if err != nil || r.Kind != kind || r.Position != at(1, 1) || r.Expiry != 3 || string(r.Value) != "v" {
			t.Fatalf("%+v %v", r, err)
		}
		checkIndex(t, g)
		d, err := g.Digest(context.Background())
		if err != nil || d.Bytes != 2 || sums[d.Sum] {
			t.Fatalf("kind %d: %+v %v", kind, d, err)
		}
		sums[d.Sum] = true
	}
}

// A store of version 1 is indexed when it is opened, also when a crash cut that short and an older program ran in between.
func TestIndexOfAnOldStore(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 7))
	fs := vfs.NewCrashableMem()
	old := func(s *Store, stale string) {
		t.Helper()
		if err := s.db.DeleteRange([]byte{kindExpiry}, []byte{kindExpiry + 1}, pebble.NoSync); err != nil {
			t.Fatal(err)
		}
		if stale != "" { // what a cut indexing has left, of a record that an older program has deleted since
			g := s.Group("g")
			if err := s.db.Set(g.expiryKey(nil, 3, append(g.appendFile(nil, "f"), stale...)), nil, pebble.NoSync); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.db.Set(formatKey, []byte{1}, pebble.NoSync); err != nil {
			t.Fatal(err)
		}
		if err := s.Flush(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	s := open(t, Options{FS: fs, MemTableBytes: 64 << 10})
	for _, name := range []ident.GroupName{"g", "h\x00"} {
		var changes []Change
		for i := range 20_000 {
			changes = append(changes, Change{File: "f", Key: fmt.Append(nil, "k", i), Put: &entry.Image{Expiry: int64(i % 3), Value: []byte("v")}})
		}
		apply(t, s.Group(name), at(0, 0), at(1, 1), changes...)
	}
	old(s, "")
	for _, stale := range []string{"gone", ""} {
		fs = fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 50, RNG: rng})
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = open(t, Options{FS: fs, MemTableBytes: 64 << 10})
		checkIndex(t, s.Group("g"))
		checkIndex(t, s.Group("h\x00"))
		if stale != "" {
			old(s, stale)
		}
	}
	apply(t, s.Group("g"), at(1, 1), at(1, 2), Change{File: "f", Key: []byte("k2")}) // the index is known to have rows
	checkIndex(t, s.Group("g"))
}
