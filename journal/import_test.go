package journal

import (
	"bytes"
	"errors"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/understudy-ha/understudy/internal/ident"
)

// Proves RJ-13: saved receivers are taken where they continue what is held, at either end, also the rest of one that is held in part;
// what does not fit changes nothing.
func TestImport(t *testing.T) {
	j, contents := five(t, options(vfs.NewMem()))
	o := options(vfs.NewMem())
	k := open(t, o)
	add := func(n ident.ReceiverNumber, want bool) {
		t.Helper()
		added, err := k.Import(bytes.NewReader(contents[n]))
		if err != nil || added > 0 != want {
			t.Fatalf("receiver %s: %d %v", n, added, err)
		}
	}
	s, err := NewStream(bytes.NewReader(contents[2]))
	must(t, err)
	must(t, k.BeginReceiver(s.Raw()))
	for range 2 { // the beginning of receiver 2
		b, err := s.Next()
		must(t, err)
		_, err = k.AppendRaw(b.Raw)
		must(t, err)
	}
	var gap *GapError
	if _, err := k.Import(bytes.NewReader(contents[4])); !errors.As(err, &gap) {
		t.Fatal(err)
	}
	add(2, true)
	add(2, false)
	add(3, true)
	add(1, true)
	add(1, false)
	add(4, true)
	v, _ := k.View()
	if end, ok, err := j.ChainAt(v.Last); err != nil || !ok || end != v.Chain || v.Durable != v.Last || v.First != 1 {
		t.Fatalf("%+v, chain %s %v %v", v, end, ok, err)
	}
	k = reopen(t, k, o)
	must(t, k.Verify(t.Context()))

	other := options(vfs.NewMem())
	l := active(t, other)
	for range 2 {
		deposit(t, l, 1, 2, 901)
		deposit(t, l, 1, 1, 100)
		_, err := l.ChangeReceiver(1)
		must(t, err)
	}
	flush(t, l)
	var corrupt *CorruptionError
	if _, err := k.Import(bytes.NewReader(contentOf(t, l, 2))); !errors.As(err, &corrupt) {
		t.Errorf("another history's receiver was taken for the same: %v", err)
	}
}
