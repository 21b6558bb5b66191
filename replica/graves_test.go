package replica

import (
	"errors"
	"fmt"
	"testing"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal/entry"
)

// A deletion is never said to be earlier than it was, whatever other records share its place.
func TestGraves(t *testing.T) {
	g := newGraves(10)
	if at := g.since(recordKey{"f", "never"}); at != 10 {
		t.Errorf("before the session began nothing is known, but: %d", at)
	}
	for i := range 3 * graveCount {
		g.dig(recordKey{"f", fmt.Sprint(i)}, ident.History(11+i))
	}
	for i := range 3 * graveCount {
		if at := g.since(recordKey{"f", fmt.Sprint(i)}); at < ident.History(11+i) {
			t.Fatalf("record %d was deleted at %d, not at %d", i, 11+i, at)
		}
	}
	g.dig(recordKey{"f", "1"}, 12)
	if at := g.since(recordKey{"f", "1"}); at < 12+graveCount/2 && at != 12 {
		t.Errorf("a later deletion at the same place was forgotten: %d", at)
	}
}

// A program is told of a record that was made and deleted again since it was seen to be absent: by a program, by a write, and by its
// expiry. Proves BX-5.
func TestProgramsKnowOfDeletions(t *testing.T) {
	c := newCluster(t, fsm.GroupSpec{}, "a", "b")
	c.inSync("a", "b")
	r := c.nodes["a"].rep
	deleted := func(key string) (at ident.History, end ident.Position) {
		t.Helper()
		_, err := r.Write(t.Context(), Transaction{Program: func(v *View) error {
			at, end = v.Deleted("f", []byte(key)), v.End()
			return nil
		}})
		if err != nil {
			t.Fatal(err)
		}
		return at, end
	}
	_, seen := deleted("k")
	if at, _ := deleted("k"); at > seen.History {
		t.Fatalf("it was never there, but deleted at %d, after %s", at, seen)
	}
	write := func(all ...Write) {
		t.Helper()
		for _, w := range all {
			if _, err := r.Write(t.Context(), Transaction{Writes: []Write{w}}); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, f := range map[string]func(){
		"write": func() {
			write(Write{File: "f", Key: []byte("k"), Value: []byte("v")}, Write{File: "f", Key: []byte("k"), Delete: true})
		},
		"expiry": func() {
			write(Write{File: "f", Key: []byte("k"), Value: []byte("v"), Expiry: 1})
			_, _, err := r.Read(t.Context(), "f", []byte("k"), false)
			if !errors.Is(err, ErrNotFound) {
				t.Error(err)
			}
		},
		"program": func() {
			write(Write{File: "f", Key: []byte("k"), Value: []byte("v")})
			_, err := r.Write(t.Context(), Transaction{Program: func(v *View) error { _, err := v.Delete("f", []byte("k")); return err }})
			if err != nil {
				t.Error(err)
			}
		},
		"both in one program": func() {
			_, err := r.Write(t.Context(), Transaction{Program: func(v *View) error {
				if err := v.Put("f", []byte("k"), entry.Image{Value: []byte("v")}); err != nil {
					return err
				}
				_, err := v.Delete("f", []byte("k"))
				return err
			}})
			if err != nil {
				t.Error(err)
			}
		},
	} {
		_, seen := deleted("k")
		f()
		if at, _ := deleted("k"); at <= seen.History {
			t.Errorf("%s: deleted at %d, seen at %s before", name, at, seen)
		}
	}
}
