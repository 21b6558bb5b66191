package replica

import (
	"errors"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/go-hclog"

	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal/entry"
	"github.com/understudy-ha/understudy/replica/store"
)

// A transaction may write a record more than once, so a bundle is undone entry by entry, newest first, and every record is
// again what it was before the bundle. Proves RJ-10.
func TestUndoOfABundle(t *testing.T) {
	s, err := store.Open(store.Options{FS: vfs.NewMem(), Dir: "store", Logger: hclog.NewNullLogger()})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	g := s.Group(orders)
	before := ident.Position{Epoch: 1, History: 1}
	image := func(h ident.History, v string) *entry.Image {
		return &entry.Image{Position: ident.Position{Epoch: 1, History: h}, Time: int64(h), Value: []byte(v)}
	}
	old := image(1, "old")
	if err := g.Apply(ident.Position{}, before, []store.Change{{File: "f", Key: []byte("was"), Put: old}}); err != nil {
		t.Fatal(err)
	}
	record := func(typ entry.Type, key string, was, is *entry.Image) entry.Entry {
		return entry.Entry{Code: entry.Record, Type: typ, File: "f", Key: []byte(key), Before: was, After: is}
	}
	raw, _, err := entry.Seal(nil, entry.Header{Session: 1, First: 2, Before: before, Fact: ident.Position{Epoch: 1, History: 2}, Time: 5}, []entry.Entry{
		record(entry.Put, "new", nil, image(2, "1")),
		record(entry.Update, "was", old, image(3, "2")),
		record(entry.Update, "new", image(2, "1"), image(4, "3")),
		record(entry.Delete, "was", image(3, "2"), nil),
		record(entry.Put, "was", nil, image(6, "4")),
	})
	if err != nil {
		t.Fatal(err)
	}
	b, err := entry.Decode(raw)
	if err != nil {
		t.Fatal(err)
	}
	redo, err := appendChanges(nil, b)
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Apply(before, b.After(), redo); err != nil {
		t.Fatal(err)
	}
	if got, err := g.Get("f", []byte("new")); err != nil || string(got.Value) != "3" {
		t.Fatalf("the bundle was not applied: %q, %v", got.Value, err)
	}
	undo, err := appendUndo(nil, b)
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Apply(b.After(), before, undo); err != nil {
		t.Fatal(err)
	}
	if got, err := g.Get("f", []byte("was")); err != nil || string(got.Value) != "old" || got.Position != old.Position {
		t.Errorf("record %q is %q since %s after the undo, %v; it was %q since %s", "was", got.Value, got.Position, err, old.Value, old.Position)
	}
	if got, err := g.Get("f", []byte("new")); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("record %q is %q after the undo, %v; it was not there", "new", got.Value, err)
	}
}
