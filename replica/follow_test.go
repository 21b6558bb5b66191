package replica

import (
	"errors"
	"testing"

	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal"
	"github.com/understudy-ha/understudy/journal/entry"
)

// changingJournal is a journal that is changed while something is looked for in it.
type changingJournal struct {
	find    error // of FindHistory
	read    error // of BundleAt
	durable ident.Sequence
	bundle  entry.Bundle
}

func (j *changingJournal) ID() ident.JournalID { return ident.JournalID{Group: "g", Node: "a"} }

func (j *changingJournal) FindHistory(ident.Position) (ident.Sequence, bool, error) {
	return j.bundle.First, j.find == nil && j.bundle.First > 0, j.find
}

func (j *changingJournal) BundleAt(ident.Sequence) (entry.Bundle, error) { return j.bundle, j.read }

func (j *changingJournal) View() (journal.View, <-chan struct{}) {
	return journal.View{Durable: j.durable}, nil
}

// Proves RJ-14: a follower that begins within a bundle takes no edge for granted while a journal changes under the search. It would
// wait for ever for a bundle that continues there.
func TestFollowFromWithinABundle(t *testing.T) {
	table := ident.HistoryTable{{Epoch: 1, Node: "a", SW: 1}}
	at := ident.Position{Epoch: 1, History: 5}
	whole := entry.Bundle{Header: entry.Header{
		First: 4, Count: 6, Facts: 6, Before: ident.Position{Epoch: 1, History: 3}, Fact: ident.Position{Epoch: 1, History: 4},
	}}
	ends := whole
	ends.Count, ends.Facts = 2, 2
	for name, c := range map[string]struct {
		journals  []*changingJournal
		found     bool
		unsettled bool
	}{
		"none":                      {nil, false, false},
		"another place":             {[]*changingJournal{{}}, false, false},
		"in the middle":             {[]*changingJournal{{bundle: whole, durable: 9}}, true, false},
		"at its end":                {[]*changingJournal{{bundle: ends, durable: 9}}, false, false},
		"rewound":                   {[]*changingJournal{{find: journal.ErrRewound}, {}}, false, true},
		"not held":                  {[]*changingJournal{{}, {find: journal.ErrNotHeld}}, false, true},
		"deleted since":             {[]*changingJournal{{bundle: whole, durable: 9, read: journal.ErrNotHeld}}, false, true},
		"not durable":               {[]*changingJournal{{bundle: whole, durable: 8}}, false, true},
		"rewound, found in another": {[]*changingJournal{{find: journal.ErrRewound}, {bundle: whole, durable: 9}}, true, false},
		"rewound, an end elsewhere": {[]*changingJournal{{find: journal.ErrRewound}, {bundle: ends, durable: 9}}, false, false},
	} {
		f, found, err := middle(c.journals, at, table)
		if found != c.found || errors.Is(err, errUnsettled) != c.unsettled || err != nil && !c.unsettled || found && f.After != at {
			t.Errorf("%s: %+v, %v, %v", name, f, found, err)
		}
	}
}
