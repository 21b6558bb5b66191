package remote

import (
	"bytes"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal/remote/wire"
)

// fiveReceivers returns a journal of so many receivers, and where each begins.
func fiveReceivers(t *testing.T) (*paper, []ident.Sequence) {
	t.Helper()
	src := newJournal(t)
	for range 4 {
		src.deposit(5, 1, "v")
		src.change(1)
	}
	src.deposit(5, 1, "v")
	src.durable()
	var first []ident.Sequence
	for _, r := range src.Receivers() {
		first = append(first, r.First)
	}
	return src, first
}

// beginning names the receiver that begins with a sequence, and notes from where the target is shipped to.
func beginning(first ident.Sequence, from *atomic.Uint64) func(*SourceOptions) {
	return func(o *SourceOptions) {
		o.Free = func() bool { return true }
		o.Begin = func() (ident.Sequence, bool) { return first - 1, true }
		o.Began = func(at ident.Sequence) { from.Store(uint64(at)) }
	}
}

// Proves RJ-13: a copy begins with the receiver known to the target, the first one held, the attached one, or one that was named. What it
// held is removed only when it does not have that receiver's start; what lies before is not sent.
func TestFourStarts(t *testing.T) {
	const attached, none = 5, 0
	for name, c := range map[string]struct {
		held  ident.Sequence // what the copy holds from 1 on; 0: nothing
		late  int            // the copy began with this receiver; 0: with the first
		begin int            // the receiver that is named; none: known to the target
		from  int            // with which receiver it begins then
		clear bool           // what it held is removed
	}{
		"known to the target, behind":       {8, 0, none, 1, false},
		"known to the target, nothing":      {0, 0, none, 1, false},
		"attached, nothing held":            {0, 0, attached, attached, false},
		"attached, behind":                  {8, 0, attached, attached, true},
		"attached, level":                   {1000, 0, attached, 1, false},
		"named, nothing held":               {0, 0, 3, 3, false},
		"named, behind":                     {8, 0, 3, 3, true},
		"named, beyond its start":           {40, 0, 3, 1, false},
		"first held, began later":           {1000, 4, 1, 1, true},
		"named, began later":                {1000, 4, 2, 2, true},
		"named, began later still":          {1000, 4, 5, 4, false},
		"known to the target, began later":  {1000, 4, none, 4, false},
		"first held, the target has it all": {1000, 0, 1, 1, false},
	} {
		t.Run(name, func(t *testing.T) {
			src, first := fiveReceivers(t)
			dst := newJournal(t)
			s := newStage(dst)
			addr := s.serve(t)
			var from atomic.Uint64
			switch {
			case c.late > 0:
				r := ship(t, src, addr, beginning(first[c.late-1], &from))
				r.caughtUp(t, src)
				r.stop(t)
			case c.held > 0:
				dst.fill(src, c.held)
			}
			before := dst.end()
			src.deposit(3, 1, "later")
			src.durable()
			s.set(func() { s.cleared, s.newest = nil, map[ident.Incarnation]uint64{} })
			from.Store(0)
			change := func(o *SourceOptions) {}
			if c.begin != none {
				change = beginning(first[c.begin-1], &from)
			}
			r := ship(t, src, addr, change)
			r.caughtUp(t, src)
			dst.durable()
			view, _ := dst.View()
			if view.First != first[c.from-1] || view.Last != src.end() {
				t.Errorf("the copy has %s to %s, want %s to %s", view.First, view.Last, first[c.from-1], src.end())
			}
			want := before + 1
			if c.clear || before == 0 {
				want = first[c.from-1]
			}
			if got := r.state().From; got != want || c.begin != none && from.Load() != uint64(want) {
				t.Errorf("shipped from %s, said to begin at %d, want %s", got, from.Load(), want)
			}
			if s.get(func() {}); (len(s.cleared) > 0) != c.clear {
				t.Errorf("asked whether it may be cleared: %v", s.cleared)
			}
			copied, whole := dst.files(), src.files()
			if len(copied) != len(first)+1-c.from {
				t.Errorf("%d receivers are held", len(copied))
			}
			for name, b := range copied {
				if !bytes.Equal(b, whole[name]) {
					t.Errorf("receiver %s differs", name)
				}
			}
			// What comes later continues it, over a change of receivers and another session.
			src.change(1)
			src.deposit(2, 1, "more")
			r.caughtUp(t, src)
			r.stop(t)
			s.set(func() { s.newest = map[ident.Incarnation]uint64{} })
			src.deposit(2, 1, "more still")
			r = ship(t, src, addr)
			r.caughtUp(t, src)
			if again, _ := dst.View(); again.First != view.First {
				t.Errorf("the copy begins with %s now, it did with %s", again.First, view.First)
			}
		})
	}
}

// A target keeps what it must not remove, and says why; a session that does not say Free names no receiver.
func TestBeginIsRefused(t *testing.T) {
	src, first := fiveReceivers(t)
	dst := newJournal(t)
	dst.fill(src, 8)
	s := newStage(dst)
	s.removable = &Refusal{wire.CodeDiverged, "it is needed"}
	addr := s.serve(t)
	var from atomic.Uint64
	r := ship(t, src, addr, beginning(first[4], &from))
	if st := r.refused(t, wire.CodeDiverged); !strings.Contains(st.Reason, "it is needed") {
		t.Errorf("%+v", st)
	}
	r.stop(t)
	s.get(func() {
		if len(s.cleared) == 0 || slices.Max(s.cleared) != dst.end() || slices.Min(s.cleared) != dst.end() {
			t.Errorf("asked with the common ends %v, want %s", s.cleared, dst.end())
		}
	})
	if v, _ := dst.View(); v.First != 1 || v.Last > 8 || from.Load() != 0 {
		t.Errorf("%+v, began at %d", v, from.Load())
	}
	s.set(func() { s.newest = map[ident.Incarnation]uint64{} })
	r = ship(t, src, addr, beginning(first[4], &from), func(o *SourceOptions) { o.Free = nil })
	r.caughtUp(t, src)
	sameFiles(t, src, dst)
}

// Only the node that wrote the journal, and said that nobody waits for the target, has a copy begin elsewhere; and where it names no common
// end it names none. From anybody else, and anything else, it is malformed, and nothing is removed.
func TestBeginFromSomebodyElse(t *testing.T) {
	for name, c := range map[string]struct {
		hello func(*wire.Hello)
		begin wire.Begin
		empty bool // the copy
	}{
		"not free":                   {func(h *wire.Hello) { h.Free = false }, wire.Begin{After: 10, First: 1}, false},
		"not free, nothing held":     {func(h *wire.Hello) { h.Free = false }, wire.Begin{After: 10, First: 1}, true},
		"not the author":             {func(h *wire.Hello) { h.From = "c" }, wire.Begin{After: 10, First: 1}, false},
		"a common end that is none":  {func(*wire.Hello) {}, wire.Begin{Point: wire.Point{Sequence: 1 << 40, Chain: 7}, After: 10, First: 1}, false},
		"a receiver before the base": {func(*wire.Hello) {}, wire.Begin{After: 1<<64 - 1, First: 1}, false},
		"the oldest behind it":       {func(*wire.Hello) {}, wire.Begin{After: 10, First: 12}, false},
	} {
		t.Run(name, func(t *testing.T) {
			src, dst := newJournal(t), newJournal(t)
			src.deposit(5, 1, "v")
			if !c.empty {
				dst.fill(src, 4)
			}
			before, _ := dst.View()
			s := newStage(dst)
			p := call(t, s.serve(t), 1)
			h := hello()
			h.Free, h.End = true, src.end()
			c.hello(&h)
			p.say(h)
			for o := hear[wire.Offer](p); ; o = hear[wire.Offer](p) {
				if o.Last {
					break
				}
				p.say(wire.Match{End: h.End})
			}
			p.say(c.begin)
			if no := hear[wire.Refuse](p); no.Code != wire.CodeMalformed {
				t.Errorf("%+v", no)
			}
			if v, _ := dst.View(); v.Last != before.Last || v.First != before.First {
				t.Errorf("the copy has %s to %s, had %s to %s", v.First, v.Last, before.First, before.Last)
			}
			s.get(func() {
				if len(s.cleared) > 0 {
					t.Errorf("asked whether it may be cleared: %v", s.cleared)
				}
			})
		})
	}
}

// A receiver that was deleted since it was named is not named to the target, which would give up its copy for nothing.
func TestBeginWithADeletedReceiver(t *testing.T) {
	src, first := fiveReceivers(t)
	dst := newJournal(t)
	dst.fill(src, first[1]+2)
	if err := src.DeleteReceivers(src.Receivers()[0].Number); err != nil {
		t.Fatal(err)
	}
	before, _ := dst.View()
	s := newStage(dst)
	var from atomic.Uint64
	r := ship(t, src, s.serve(t), beginning(first[0], &from))
	r.caughtUp(t, src)
	if v, _ := dst.View(); v.First != before.First || from.Load() != 0 {
		t.Errorf("the copy begins with %s, it did with %s; said to begin at %d", v.First, before.First, from.Load())
	}
	s.get(func() {
		if len(s.cleared) > 0 {
			t.Errorf("asked whether it may be cleared: %v", s.cleared)
		}
	})
}
