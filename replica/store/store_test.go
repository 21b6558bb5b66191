package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/goleak"

	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal/entry"
)

func TestMain(m *testing.M) {
	// The database of a failed store is abandoned with what runs inside; open checks that a healthy one leaves nothing.
	const pebble = "github.com/cockroachdb/pebble/v2"
	goleak.VerifyTestMain(m,
		goleak.IgnoreAnyFunction(pebble+".(*ConcurrencyLimitScheduler).periodicGranter"),
		goleak.IgnoreAnyFunction(pebble+".(*cleanupManager).mainLoop"),
		goleak.IgnoreAnyFunction(pebble+".(*DB).makeRoomForWrite"),
		goleak.IgnoreAnyFunction(pebble+"/internal/genericcache.(*shard[...]).releaseLoop"),
		goleak.IgnoreAnyFunction(pebble+"/record.(*LogWriter).flushLoop"))
}

func at(e ident.Epoch, h ident.History) ident.Position {
	return ident.Position{Epoch: e, History: h}
}

func open(t testing.TB, o Options) *Store {
	t.Helper()
	if o.FS == nil {
		o.FS = vfs.NewMem()
	}
	if o.Dir == "" {
		o.Dir = "store"
	}
	present := goleak.IgnoreCurrent()
	s, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
		goleak.VerifyNone(t, present)
	})
	return s
}

func put(file, key, value string, p ident.Position) Change {
	return Change{File: file, Key: []byte(key), Put: &entry.Image{Position: p, Time: int64(p.History), Expiry: 7, Value: []byte(value)}}
}

func apply(t testing.TB, g *Group, before, after ident.Position, changes ...Change) {
	t.Helper()
	if err := g.Apply(before, after, changes); err != nil {
		t.Fatal(err)
	}
}

func TestApply(t *testing.T) {
	s := open(t, Options{})
	g := s.Group("g")
	if g.Position() != (ident.Position{}) || g.Name() != "g" || s.Group("g") != g {
		t.Fatal("an empty group is at the zero position")
	}
	apply(t, g, at(0, 0), at(1, 1))
	apply(t, g, at(1, 1), at(1, 3), put("f", "k", "one", at(1, 2)), put("f", "k", "two", at(1, 3)), put("f", "", "empty key", at(1, 3)))
	r, err := g.Get("f", []byte("k"))
	if err != nil || string(r.Value) != "two" || r.Position != at(1, 3) || r.Time != 3 || r.Expiry != 7 {
		t.Fatalf("%+v, %v", r, err)
	}
	if r, err = g.Get("f", nil); err != nil || string(r.Value) != "empty key" {
		t.Fatalf("%+v, %v", r, err)
	}
	var moved *PositionError
	err = g.Apply(at(1, 2), at(1, 4), []Change{{File: "f", Key: []byte("k")}})
	if !errors.As(err, &moved) || moved.Have != at(1, 3) || moved.Want != at(1, 2) {
		t.Fatalf("compare and set: %v", err)
	}
	if err := g.Apply(at(1, 3), at(1, 3), []Change{{File: "f", Key: []byte("k")}}); err == nil {
		t.Fatal("a change without a position was taken")
	}
	apply(t, g, at(1, 3), at(1, 3))
	if _, err := g.Get("f", []byte("k")); err != nil {
		t.Fatal(err)
	}
	apply(t, g, at(1, 3), at(1, 4), Change{File: "f", Key: []byte("k")})
	if _, err := g.Get("f", []byte("k")); !errors.Is(err, ErrNotFound) {
		t.Fatalf("deleted: %v", err)
	}
	// An undo lowers the position.
	apply(t, g, at(1, 4), at(1, 3), put("f", "k", "two", at(1, 3)))
	if g.Position() != at(1, 3) {
		t.Fatal(g.Position())
	}
}

// TestGroupsAndFiles uses names chosen to collide under a careless key map.
func TestGroupsAndFiles(t *testing.T) {
	s := open(t, Options{})
	groups := []ident.GroupName{"a", "a\x00", "a\x00\x01", "a\x00\xff", "a\x01", "ab", "b", "\xff", "\xff\xff", ""}
	files := []string{"", "\x00", "\x00\x01", "\x00\x01a", "f", "f\x00", "f\x00\x01k", "f\x01", "fk", "\xff", "\xff\xff"}
	keys := []string{"", "\x00", "\x00\x01", "k", "\xff", "\xff\xff\xff"}
	for _, name := range groups {
		var changes []Change
		for _, f := range files {
			for _, k := range keys {
				changes = append(changes, put(f, k, fmt.Sprintf("%q %q %q", name, f, k), at(1, 1)))
			}
		}
		rand.Shuffle(len(changes), func(i, j int) { changes[i], changes[j] = changes[j], changes[i] })
		apply(t, s.Group(name), at(0, 0), at(1, 1), changes...)
	}
	for _, name := range groups {
		g := s.Group(name)
		got, err := g.Files()
		if err != nil || fmt.Sprintf("%q", got) != fmt.Sprintf("%q", files) {
			t.Fatalf("files of %q: %q, %v", name, got, err)
		}
		for _, f := range files {
			page, err := g.Scan(f, nil, nil, 0)
			if err != nil || page.Next != nil || page.Position != at(1, 1) || len(page.Records) != len(keys) {
				t.Fatalf("scan of %q %q: %+v, %v", name, f, page, err)
			}
			for i, r := range page.Records {
				if want := fmt.Sprintf("%q %q %q", name, f, keys[i]); string(r.Key) != keys[i] || string(r.Image.Value) != want {
					t.Fatalf("record %d of %q %q is %q: %s", i, name, f, r.Key, r.Image.Value)
				}
			}
		}
		d, err := g.Digest(context.Background())
		if err != nil || d.Files != len(files) || d.Records != uint64(len(files)*len(keys)) || d.Position != at(1, 1) {
			t.Fatalf("digest: %+v, %v", d, err)
		}
	}
}

func TestScan(t *testing.T) {
	s := open(t, Options{})
	g := s.Group("g")
	var changes []Change
	for i := range 100 {
		changes = append(changes, put("f", fmt.Sprintf("k%02d", i), "v", at(1, 1)))
	}
	changes = append(changes, put("f", "a", "v", at(1, 1)), put("f", "z", "v", at(1, 1)), put("f\x00", "k00", "v", at(1, 1)))
	apply(t, g, at(0, 0), at(1, 1), changes...)
	for _, c := range []struct {
		prefix, from string
		limit        int
		n            int
		first, next  string
	}{
		{"", "", 0, 102, "a", ""},
		{"", "", 1, 1, "a", "k00"},
		{"", "", 102, 102, "a", ""},
		{"", "", 101, 101, "a", "z"},
		{"k", "", 0, 100, "k00", ""},
		{"k", "k50", 10, 10, "k50", "k60"},
		{"k", "k5", 0, 50, "k50", ""},
		{"k", "b", 1, 1, "k00", "k01"}, // from below the prefix
		{"k", "l", 0, 0, "", ""},       // from above it
		{"k9", "k95\x00", 0, 4, "k96", ""},
		{"k99", "", 1, 1, "k99", ""},
		{"nothing", "", 0, 0, "", ""},
	} {
		p, err := g.Scan("f", []byte(c.prefix), []byte(c.from), c.limit)
		if err != nil || len(p.Records) != c.n || string(p.Next) != c.next || c.n > 0 && string(p.Records[0].Key) != c.first {
			t.Errorf("prefix %q from %q limit %d: %d records, next %q, %v", c.prefix, c.from, c.limit, len(p.Records), p.Next, err)
		}
	}
	// All pages together are the whole.
	var from []byte
	n := 0
	for {
		p, err := g.Scan("f", []byte("k"), from, 7)
		if err != nil {
			t.Fatal(err)
		}
		n += len(p.Records)
		if from = p.Next; from == nil {
			break
		}
	}
	if n != 100 {
		t.Fatalf("%d records in all pages", n)
	}
	// A page is bounded in bytes too.
	big := make([]byte, 6<<20)
	for i := range 4 {
		apply(t, g, at(1, ident.History(i+1)), at(1, ident.History(i+2)), Change{File: "big", Key: []byte{byte(i)}, Put: &entry.Image{Value: big}})
	}
	p, err := g.Scan("big", nil, nil, 0)
	if err != nil || len(p.Records) != 3 || !bytes.Equal(p.Next, []byte{3}) || p.Position != at(1, 5) {
		t.Fatalf("%d records, next %v, %v", len(p.Records), p.Next, err)
	}
}

// TestDigest: equal content has an equal digest whatever way led to it; any difference shows. Proves HB-9.
func TestDigest(t *testing.T) {
	digest := func(steps func(g *Group)) Digest {
		g := open(t, Options{Dir: t.Name()}).Group("g")
		steps(g)
		d, err := g.Digest(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	one := digest(func(g *Group) {
		apply(t, g, at(0, 0), at(1, 2), put("f", "a", "x", at(1, 1)), put("f", "b", "y", at(1, 2)))
	})
	two := digest(func(g *Group) {
		apply(t, g, at(0, 0), at(1, 1), put("f", "a", "x", at(1, 1)))
		apply(t, g, at(1, 1), at(1, 3), put("f", "b", "other", at(1, 2)), put("h", "c", "z", at(1, 3)))
		apply(t, g, at(1, 3), at(1, 2), Change{File: "h", Key: []byte("c")}, put("f", "b", "y", at(1, 2)))
	})
	if one != two || one.Records != 2 || one.Files != 1 || one.Bytes != 4 {
		t.Fatalf("equal content: %+v, %+v", one, two)
	}
	attribute := put("f", "b", "y", at(1, 2))
	attribute.Put.Expiry++
	for i, other := range [][]Change{
		{put("f", "a", "x", at(1, 1)), put("f", "b", "z", at(1, 2))},
		{put("f", "a", "x", at(1, 1)), attribute},
		{put("f", "a", "x", at(1, 1)), put("f", "b", "y", at(1, 1))},
		{put("f", "a", "x", at(1, 1)), put("f", "by", "", at(1, 2))},
		{put("fa", "", "x", at(1, 1)), put("f", "b", "y", at(1, 2))},
		{put("f", "a", "x", at(1, 1))},
	} {
		if d := digest(func(g *Group) { apply(t, g, at(0, 0), at(1, 2), other...) }); d.Sum == one.Sum || d.Position != one.Position {
			t.Errorf("difference %d does not show: %+v", i, d)
		}
	}
	g := open(t, Options{}).Group("g")
	apply(t, g, at(0, 0), at(1, 1), put("f", "a", "x", at(1, 1)))
	ctx, cancel := context.WithCancelCause(context.Background())
	why := errors.New("enough")
	cancel(why)
	if _, err := g.Digest(ctx); !errors.Is(err, why) {
		t.Fatalf("cancelled digest: %v", err)
	}
}

func TestFlushedAndReopen(t *testing.T) {
	fs := vfs.NewMem()
	s := open(t, Options{FS: fs})
	g, h := s.Group("g"), s.Group("h")
	apply(t, g, at(0, 0), at(1, 9), put("f", "k", "v", at(1, 9)))
	if g.Flushed() != (ident.Position{}) {
		t.Fatal("nothing is flushed yet")
	}
	if err := g.Flush(context.Background()); err != nil || g.Flushed() != at(1, 9) || h.Flushed() != (ident.Position{}) {
		t.Fatalf("flushed %s, %v", g.Flushed(), err)
	}
	apply(t, g, at(1, 9), at(1, 5), put("f", "k", "u", at(1, 5)))
	apply(t, h, at(0, 0), at(2, 1))
	if g.Flushed() != at(1, 9) {
		t.Fatal("an undo counts only when it is flushed")
	}
	for range 3 {
		if err := s.Close(); err != nil { // flushes
			t.Fatal(err)
		}
	}
	for name, err := range map[string]error{
		"apply": g.Apply(at(1, 5), at(1, 6), nil), "flush": s.Flush(context.Background()), "get": second(g.Get("f", nil)),
		"scan": second(g.Scan("f", nil, nil, 1)), "files": second(g.Files()), "digest": second(g.Digest(context.Background())),
	} {
		if !errors.Is(err, ErrClosed) {
			t.Errorf("%s after Close: %v", name, err)
		}
	}
	s = open(t, Options{FS: fs})
	for _, name := range []ident.GroupName{"g", "h"} {
		want := map[ident.GroupName]ident.Position{"g": at(1, 5), "h": at(2, 1)}[name]
		if p := s.Group(name); p.Position() != want || p.Flushed() != want {
			t.Errorf("%s is at %s, flushed %s", name, p.Position(), p.Flushed())
		}
	}
	if r, err := s.Group("g").Get("f", []byte("k")); err != nil || string(r.Value) != "u" {
		t.Fatalf("%+v, %v", r, err)
	}
}

func second[T any](_ T, err error) error { return err }

// TestFlushedFollowsByItself: nobody calls Flush, the memtable fills up.
func TestFlushedFollowsByItself(t *testing.T) {
	s := open(t, Options{MemTableBytes: 64 << 10})
	g := s.Group("g")
	value := string(make([]byte, 8<<10))
	deadline := time.Now().Add(30 * time.Second)
	h := ident.History(0)
	for g.Flushed() == (ident.Position{}) {
		apply(t, g, g.Position(), at(1, h+1), put("f", fmt.Sprint(h), value, at(1, h+1)))
		if h++; time.Now().After(deadline) {
			t.Fatal("the flushed position does not follow")
		}
	}
	if p := g.Flushed(); p.Epoch != 1 || p.History > h {
		t.Fatal(p)
	}
}

func TestFormat(t *testing.T) {
	fs := vfs.NewMem()
	s := open(t, Options{FS: fs})
	if err := s.db.Set(formatKey, []byte{formatVersion + 1}, pebble.NoSync); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(Options{FS: fs, Dir: "store"}); err == nil {
		t.Fatal("opened a store of an unknown format")
	}
}

func TestDamagedRows(t *testing.T) {
	s := open(t, Options{})
	g := s.Group("g")
	apply(t, g, at(0, 0), at(1, 1), put("f", "k", "v", at(1, 1)))
	if err := s.db.Set(append(g.appendFile(nil, "f"), 'k'), []byte("short"), pebble.NoSync); err != nil {
		t.Fatal(err)
	}
	for name, err := range map[string]error{
		"get": second(g.Get("f", []byte("k"))), "scan": second(g.Scan("f", nil, nil, 0)), "digest": second(g.Digest(context.Background())),
	} {
		var bad *CorruptionError
		if !errors.As(err, &bad) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := s.db.Set(append(bytes.Clone(g.prefix), "no end"...), nil, pebble.NoSync); err != nil {
		t.Fatal(err)
	}
	if _, err := g.Files(); err == nil {
		t.Error("a malformed key was passed over")
	}
	if err := s.db.Set([]byte{kindPosition, 'x'}, nil, pebble.NoSync); err != nil {
		t.Fatal(err)
	}
	if _, err := s.positions(false); err == nil {
		t.Error("a malformed position was passed over")
	}
	if err := s.db.Delete([]byte{kindPosition, 'x'}, pebble.NoSync); err != nil {
		t.Fatal(err)
	}
}

// TestConcurrency has readers see each batch whole while writers of several groups and Close go on.
func TestConcurrency(t *testing.T) {
	s := open(t, Options{MemTableBytes: 64 << 10})
	var wg sync.WaitGroup
	ended := func(err error) bool {
		if err != nil && !errors.Is(err, ErrClosed) {
			t.Error(err)
		}
		return err != nil
	}
	progress := make(chan struct{}, 100)
	for _, name := range []ident.GroupName{"g", "h"} {
		g := s.Group(name)
		wg.Go(func() {
			for h := ident.History(1); ; h++ {
				v := fmt.Sprint(h)
				if ended(g.Apply(g.Position(), at(1, h), []Change{put("f", "a", v, at(1, h)), put("f", "b", v, at(1, h))})) {
					return
				}
				if h%100 == 0 {
					select {
					case progress <- struct{}{}:
					default:
					}
				}
			}
		})
		wg.Go(func() {
			for {
				p, err := g.Scan("f", nil, nil, 0)
				if ended(err) {
					return
				}
				for _, r := range p.Records {
					if r.Image.Position != p.Position {
						t.Errorf("record of %s in a page of %s", r.Image.Position, p.Position)
						return
					}
				}
				seen := g.Position()
				r, err := g.Get("f", []byte("a"))
				if errors.Is(err, ErrNotFound) && seen.IsZero() {
					continue
				}
				if ended(err) {
					return
				}
				if r.Position.Compare(seen) < 0 {
					t.Errorf("read %s after position %s", r.Position, seen)
				}
			}
		})
	}
	wg.Go(func() {
		for !ended(s.Flush(context.Background())) {
		}
	})
	for range 10 {
		<-progress
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	wg.Wait()
}
