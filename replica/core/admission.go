package core

import (
	"fmt"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/internal/mutant"
	"github.com/understudy-ha/understudy/journal/entry"
)

// Caller is who asks for a shipping session, or has one.
type Caller struct {
	From    ident.NodeID // the source
	Author  ident.NodeID // whose journal it ships
	Epoch   ident.Epoch
	Life    ident.Incarnation
	Session uint64 // counts the source's sessions in this life
}

// Verdict is what an admission comes to.
type Verdict int

// Verdicts.
const (
	Admitted  Verdict = iota
	Fenced            // the epoch is over: Have is promised or known here
	NotSource         // this caller will not be admitted at this epoch
	TooEarly          // the epoch is not known here yet: try again
)

// Ruling is a verdict with what the caller is told.
type Ruling struct {
	Verdict Verdict
	Have    ident.Epoch // Fenced
	Text    string
}

// Admissible judges a caller by what this node knows of the group and has promised. The promise alone keeps old epochs out;
// the state keeps out whoever is not the primary of its epoch, or is another life of it.
func Admissible(g *fsm.Group, promised ident.Epoch, self ident.NodeID, c Caller) Ruling {
	switch {
	case BelowPromise(promised, c.Epoch):
		return Ruling{Verdict: Fenced, Have: promised}
	case c.From == self || c.Author == self:
		return Ruling{Verdict: NotSource, Text: "a node takes neither its own sessions nor its own journal back"}
	case mutant.On(mutant.AheadNextEpoch) && c.Epoch == AheadEpoch(g) && BringsAhead(g, self, c):
		return Ruling{}
	case c.Epoch > g.Epoch:
		return Ruling{Verdict: TooEarly, Text: fmt.Sprintf("epoch %s is not known here yet, only %s: try again", c.Epoch, g.Epoch)}
	case c.Epoch == g.Epoch && g.Phase != fsm.PhaseFenced && g.Primary == c.From:
		if g.Incarnation != c.Life {
			return Ruling{Verdict: NotSource, Text: fmt.Sprintf("epoch %s belongs to another life of node %s: wait for the next epoch", c.Epoch, c.From)}
		}
		return Ruling{}
	case c.Epoch == g.OpenEpoch && g.OpenNode == c.From && c.Epoch < g.Epoch:
		return Ruling{} // until this node promises the newer epoch
	case c.Epoch == g.Epoch && MayFeed(g, c.From, self):
		return Ruling{}
	case c.Epoch == AheadEpoch(g) && BringsAhead(g, self, c):
		return Ruling{}
	case c.Epoch < g.Epoch:
		return Ruling{Verdict: Fenced, Have: g.Epoch}
	}
	return Ruling{Verdict: NotSource, Text: fmt.Sprintf("node %s is not the primary of epoch %s", c.From, c.Epoch)}
}

// BelowPromise tells whether a node that promised an epoch must refuse work of epoch e: nothing below the promise is ever
// appended, removed, confirmed or undone again.
func BelowPromise(promised, e ident.Epoch) bool {
	return e < promised && !mutant.On(mutant.AdmitFenced)
}

// Outdated tells whether a caller comes too late beside one that has a session for the same journal. The newest counts.
func Outdated(have, c Caller) bool {
	return have.Epoch > c.Epoch || have.Epoch == c.Epoch && have.From == c.From && have.Life == c.Life && have.Session >= c.Session
}

// Trusts tells whether a committed end that this caller reports may be used: only the primary's own journal says it, whoever
// ships it, and only when this node's own state shows the epoch opened, with its row. Before that the same sequences may mean
// something else.
func Trusts(g *fsm.Group, c Caller, committed ident.Position) bool {
	if mutant.On(mutant.TrustBeforeOpen) {
		return g != nil && c.Author == c.From
	}
	if g == nil || g.Phase != fsm.PhaseOpened || g.OpenEpoch != c.Epoch {
		return false
	}
	row, ok := g.History.Row(c.Epoch)
	return ok && row.Node == c.Author && g.History.Contains(committed)
}

// FreeHere tells whether nobody waits for this node: its caller, the primary, said so, and its own state agrees. A backup that feeds
// cannot know it.
func FreeHere(g *fsm.Group, self ident.NodeID, c Caller, said bool) bool {
	return said && g.OpenNode == c.From && g.Phase == fsm.PhaseOpened && g.OpenEpoch == c.Epoch && !g.InSet(self)
}

// CutRule decides which bundles of one copy may be removed physically. It is a snapshot, made and used while nothing else
// changes the journals.
type CutRule struct {
	Group *fsm.Group
	Free  bool    // nobody waits for this node
	Other []Bough // durable in the other journals
	Undo  UndoGuard
	Spent ident.Position // up to here nobody needs a fact of the history any more: receivers with them are deleted; zero: nothing is known, or all are kept
}

// Spent returns up to where facts of the history need not be kept in any copy, as receivers are deleted by it; own is what this node's store has on
// its disk. The journal in which the same facts were durable here may be gone by that rule; what is left of them elsewhere is no more needed.
func Spent(a fsm.Assignment, own ident.Position) ident.Position {
	if g := a.Group; g.Phase != fsm.PhaseOpened || g.IsDropped(a.Self) || g.Spec.KeepReceivers < 0 && g.Spec.MaximumBlocks <= 0 {
		return ident.Position{}
	}
	lowest, ok := LowestFlushed(a, own)
	if !ok {
		return ident.Position{}
	}
	return lowest
}

// Keeps returns why the bundle must stay, "" when it may go: it has no facts; or each of them is durable here in another
// journal; or an Open that this node applied shows them outside the history; or nobody waits for this node; or nobody needs them any
// more. What the store may need for an undo stays in any case.
func (c CutRule) Keeps(h entry.Header) string {
	if h.Facts == 0 || mutant.On(mutant.TrimFreely) {
		return ""
	}
	for _, b := range c.Other {
		if b.Epoch == h.Fact.Epoch && b.From <= h.Fact.History && h.After().History <= b.To {
			return ""
		}
	}
	inside := Live(c.Group.History, h.Fact)
	if !inside && c.Undo.Needs(h.Fact) && !mutant.On(mutant.UndoUnguarded) {
		return "the store may still have to undo it"
	}
	switch {
	case c.Free, c.Group.Phase == fsm.PhasePromoted && mutant.On(mutant.CutBeforeOpen):
		return ""
	case !inside && c.Group.Phase == fsm.PhaseOpened && c.Group.OpenEpoch > h.Session:
		return ""
	case inside && c.Group.History.Contains(h.After()) && h.After().History <= c.Spent.History:
		return ""
	case inside:
		return "it may be part of the history and is durable in no other journal here"
	}
	return "no opened epoch shows it outside the history yet"
}

// HeaderAt reads the header of the bundle that contains a sequence of one journal.
type HeaderAt func(ident.Sequence) (entry.Header, error)

// Removable looks at everything beyond after, newest first, and returns the first bundle that must stay, and why; why is ""
// when all of it may go.
func (c CutRule) Removable(after, last ident.Sequence, at HeaderAt) (kept entry.Header, why string, err error) {
	for seq := last; seq > after; {
		h, err := at(seq)
		if err != nil {
			return entry.Header{}, "", err
		}
		if why := c.Keeps(h); why != "" {
			return h, why, nil
		}
		seq = h.First - 1
	}
	return entry.Header{}, "", nil
}

// TrimDue tells whether the unconfirmed tails of copies may be looked at: the group is opened at its present epoch, and this
// node has not promised the next one, for whose report everything is kept.
func TrimDue(g *fsm.Group, promised ident.Epoch) bool {
	if mutant.On(mutant.CutBeforeOpen) && g.Phase == fsm.PhasePromoted {
		return true
	}
	return g.Phase == fsm.PhaseOpened && g.OpenEpoch == g.Epoch && promised <= g.Epoch
}

// TrimFloor returns up to where a copy is not trimmed: what is confirmed, or stood here when the node started. Up to there an earlier life
// may have known it confirmed and have said so, and others deleted receivers by that (CopyEnd): a copy that was cut below could not go on. A
// session with the primary still cuts it where both differ.
func TrimFloor(confirmed, found ident.Sequence) ident.Sequence { return max(confirmed, found) }

// TrimEnd returns the sequence after which the unconfirmed tail of a copy may go, after an Open; ok is false when nothing
// may. What the present epoch itself deposited stays.
func (c CutRule) TrimEnd(floor, first, last ident.Sequence, at HeaderAt) (end ident.Sequence, ok bool, err error) {
	end = last
	for seq := last; seq > floor && seq >= first; {
		h, err := at(seq)
		if err != nil {
			return 0, false, err
		}
		if h.First <= floor || h.Session >= c.Group.Epoch || c.Keeps(h) != "" {
			break
		}
		seq = h.First - 1
		if h.Facts > 0 {
			ok, end = true, seq // events in front of the lowest removed fact stay: they tell nothing wrong
		}
	}
	return end, ok, nil
}
