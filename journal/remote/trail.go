package remote

import (
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal"
)

// trailLength bounds how many bundle ends a source remembers between its committed end and what it sent. Those before are
// looked up in the journal.
const trailLength = 4096

// step is a bundle end on a trail. Of a range only the last end is one.
type step struct {
	first ident.Sequence // of a range; of a bundle: last
	last  ident.Sequence
	after ident.Position
}

// trail knows the history position after the bundles that a session sent, so that a Progress can name the one at the
// committed end without reading the journal each time.
type trail struct {
	journal *journal.Journal
	steps   []step // ascending, of bundles that follow each other
}

// push adds the bundle just sent.
func (t *trail) push(last ident.Sequence, after ident.Position) { t.pushRange(last, last, after) }

// pushRange adds the bundles just sent.
func (t *trail) pushRange(first, last ident.Sequence, after ident.Position) {
	if len(t.steps) == trailLength {
		t.steps = t.steps[:copy(t.steps, t.steps[trailLength/2:])]
	}
	t.steps = append(t.steps, step{first, last, after})
}

// at returns the highest bundle end at or below committed, which never goes down between calls, and the history position
// after it. ok is false when the journal no longer knows.
func (t *trail) at(committed ident.Sequence) (end ident.Sequence, after ident.Position, ok bool) {
	if len(t.steps) == 0 || t.steps[0].last > committed {
		return t.lookUp(committed)
	}
	n := 0
	for n+1 < len(t.steps) && t.steps[n+1].last <= committed {
		n++
	}
	t.steps = t.steps[:copy(t.steps, t.steps[n:])]
	if len(t.steps) > 1 && t.steps[1].first <= committed { // within a range
		return t.lookUp(committed)
	}
	return t.steps[0].last, t.steps[0].after, true
}

func (t *trail) lookUp(committed ident.Sequence) (ident.Sequence, ident.Position, bool) {
	if committed == 0 {
		return 0, ident.Position{}, true
	}
	for _, r := range t.journal.Receivers() {
		if r.First == committed+1 {
			return committed, r.Start, true
		}
	}
	b, err := t.journal.BundleAt(committed)
	if err != nil {
		return 0, ident.Position{}, false
	}
	if b.Header.Last() > committed {
		return b.Header.First - 1, b.Header.Before, true
	}
	return committed, b.Header.After(), true
}
