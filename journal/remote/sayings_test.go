package remote

import (
	"testing"
	"time"

	"github.com/understudy-ha/understudy/internal/ident"
)

// TestSayings: the moment is never after the frame that was read was written, and never far before it.
func TestSayings(t *testing.T) {
	t0 := time.Unix(1000, 0)
	var s sayings
	if _, ok := s.before(0); ok {
		t.Error("a moment is known before anything was written")
	}
	const frames = 3 * sayingsKept
	for i := range frames {
		s.note(t0.Add(time.Duration(i) * sayingStep / 2))
	}
	last := time.Time{}
	for _, n := range []uint64{frames - 500, frames - 100, frames - 1, frames, frames + 7} {
		at, ok := s.before(n)
		written := t0.Add(time.Duration(min(n, frames)-1) * sayingStep / 2)
		if !ok || at.After(written) || written.Sub(at) > sayingStep || at.Before(last) {
			t.Errorf("frame %d, written at %s: %s, %v", n, written, at, ok)
		}
		last = at
	}
}

// Proves the age of copies: a source that has nothing more to tell says so again and again, each time for a later moment, and not
// while something that is committed has not been said.
func TestLevelIsSaidForAMoment(t *testing.T) {
	src, dst := newJournal(t), newJournal(t)
	src.deposit(10, 1, "v")
	src.durable()
	src.Mark(0, src.end())
	at, _ := src.View()
	s := newStage(dst)
	began := time.Now()
	r := ship(t, src, s.serve(t))
	r.caughtUp(t, src)
	read := func() (p ident.Position, asOf time.Time) {
		s.get(func() { p, asOf = s.level, s.asOf })
		return p, asOf
	}
	eventually(t, "level", func() bool { p, _ := read(); return p == at.After })
	_, first := read()
	if first.Before(began) || first.After(time.Now()) {
		t.Errorf("level as of %s, the session began at %s", first, began)
	}
	eventually(t, "level for a later moment", func() bool { p, asOf := read(); return p == at.After && asOf.After(first) })
	src.deposit(3, 1, "w")
	src.durable()
	src.Mark(0, src.end())
	end, _ := src.View()
	eventually(t, "level further on", func() bool { p, _ := read(); return p == end.After })
}
