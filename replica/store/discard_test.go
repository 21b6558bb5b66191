package store

import (
	"context"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal/entry"
)

// TestDiscard: nothing is left of a group that is removed, also after a crash, and of the others, whose names begin like its own, everything.
// It may be repeated. Proves TR-7.
func TestDiscard(t *testing.T) {
	fs := vfs.NewCrashableMem()
	s := open(t, Options{FS: fs})
	ctx := context.Background()
	names := []ident.GroupName{"orders", "order", "orders2", "orders.x"}
	for _, name := range names {
		if err := s.Group(name).Apply(ident.Position{}, at(1, 2), []Change{
			{File: "f", Key: []byte("k"), Put: &entry.Image{Position: at(1, 1), Value: []byte("v")}},
			{File: "f", Key: []byte("e"), Put: &entry.Image{Position: at(1, 2), Value: []byte("v"), Expiry: 7}},
		}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	check := func(s *Store) {
		t.Helper()
		if all, err := s.Groups(); err != nil || len(all) != len(names)-1 || all[0] != "order" {
			t.Errorf("groups %v, %v", all, err)
		}
		for _, name := range names {
			want := 2
			if name == "orders" {
				want = 0
			}
			g := s.Group(name)
			page, err := g.Scan("f", nil, nil, 0)
			if err != nil || len(page.Records) != want {
				t.Errorf("%s: %d records, %v", name, len(page.Records), err)
			}
			due, _, err := g.Expiring(Expiring{}, 100, 10)
			if err != nil || len(due) != want/2 || g.Position().IsZero() != (want == 0) || g.Flushed().IsZero() != (want == 0) {
				t.Errorf("%s: %v are due, at %s, flushed %s, %v", name, due, g.Position(), g.Flushed(), err)
			}
		}
	}
	for range 2 {
		if err := s.Discard(ctx, "orders"); err != nil {
			t.Fatal(err)
		}
		check(s)
	}
	crashed := fs.CrashClone(vfs.CrashCloneCfg{})
	check(open(t, Options{FS: crashed}))
}
