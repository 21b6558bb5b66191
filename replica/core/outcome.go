package core

import "github.com/understudy-ha/understudy/internal/ident"

// Outcome is what has become of a write that was sequenced.
type Outcome string

// Outcomes of a write.
const (
	Undecided Outcome = "undecided" // it may still become part of the committed history, or not
	Done      Outcome = "done"      // it is part of it
	NotDone   Outcome = "not_done"  // it never will be
)

// OutcomeOf returns what has become of the write at p, by a history table and the end of what is known to be committed.
//
// NotDone is final whoever says it, however old its table: an epoch that is at or below the newest row either has its place
// in the table or never gets one, and what a newer row leaves aside stays outside of every later table. Done holds as long as
// the table and the committed end are those of the serving primary, checked as for a read: an operator who accepts loss may
// take something away that was committed, and then only the newer table says so.
func OutcomeOf(t ident.HistoryTable, committed, p ident.Position) Outcome {
	switch {
	case p.IsZero() || p.Epoch > t.Last().Epoch || t.Forgot(p):
		return Undecided
	case !t.Contains(p):
		return NotDone
	case t.Contains(committed) && p.History <= committed.History:
		return Done
	}
	return Undecided
}
