package core

import (
	"fmt"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal/entry"
)

// StartRule decides whether a whole copy may be removed, so that it begins with another receiver of the primary's journal. It is a
// CutRule for runs, since a copy may be long, and knows two more places where facts can be durable. Like that it is a snapshot.
type StartRule struct {
	CutRule
	Flushed       ident.Position // this node's store has the history up to here on its disk
	First, Common ident.Sequence // the author, who is the primary, has the same in its journal
}

// Keeps returns why a run of the copy must stay, "" when it may go. Nobody may wait for this node. Then each fact has to be outside the
// history, where the store will not have to undo it; or in the store on this disk; or durable here in another journal; or in
// the author's journal.
func (s StartRule) Keeps(run entry.Run) string {
	if !s.Free {
		return "writes wait for this node, or may soon"
	}
	inside, ok := Clip(s.Group.History, run)
	left := run.From // the lowest fact outside
	if ok {
		left = inside.To + 1
	}
	if left <= run.To && s.Undo.Needs(ident.Position{Epoch: run.Epoch, History: left}) && !s.elsewhere(run.Epoch, left, run.To) {
		return fmt.Sprintf("the store may still have to undo %s", ident.Position{Epoch: run.Epoch, History: left})
	}
	if !ok {
		return ""
	}
	from := inside.From
	if run.Epoch <= s.Group.History.Last().Epoch && s.Group.History.Contains(s.Flushed) { // a newer epoch may begin below it
		from = max(from, s.Flushed.History+1)
	}
	switch at := run.First + ident.Sequence(from-run.From); { // at least: each fact takes a sequence
	case from > inside.To, s.elsewhere(run.Epoch, from, inside.To), at >= s.First && inside.Last <= s.Common:
		return ""
	}
	return fmt.Sprintf("%s to %s are neither in the store on its disk nor in a journal of this node or of the primary",
		ident.Position{Epoch: run.Epoch, History: from}, inside.End())
}

// elsewhere tells whether facts are durable here in another journal.
func (s StartRule) elsewhere(e ident.Epoch, from, to ident.History) bool {
	for _, b := range s.Other {
		if b.Epoch == e && b.From <= from && to <= b.To {
			return true
		}
	}
	return false
}

// Stranded tells whether a backup's store can be brought level by no journal that anybody still ships: its copy of the primary's
// journal begins after start, which the primary itself has written before and which is not held here without a hole. Where
// another node wrote what is missing it may still come.
func Stranded(g *fsm.Group, store, start ident.Position, connects func(ident.Position) bool) bool {
	if g.Phase != fsm.PhaseOpened || !g.History.Contains(store) || !g.History.Contains(start) || start.History <= store.History {
		return false
	}
	row, ok := g.History.Row(start.Epoch)
	return ok && row.Node == g.OpenNode && !connects(start)
}
