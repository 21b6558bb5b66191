package core

import (
	"math"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/internal/mutant"
	"github.com/understudy-ha/understudy/journal/entry"
)

// LowestFlushed returns the lowest position that a crash can take any registered data node back to, but for those that were
// dropped, or that a consumer of the journal still has to read on from. ok is false when one of them is unknown or outside the
// history: then everything is kept.
func LowestFlushed(a fsm.Assignment, own ident.Position) (ident.Position, bool) {
	lowest := own
	if mutant.On(mutant.DeleteNeeded) {
		return own, !own.IsZero()
	}
	for id, n := range a.Nodes {
		if n.Kind != fsm.KindData || a.Group.IsDropped(id) {
			continue
		}
		at, known := n.Flushed[a.Group.Spec.Name]
		if id == a.Self {
			at, known = own, true
		}
		if !known || at.IsZero() || !a.Group.History.Contains(at) {
			return ident.Position{}, false
		}
		if at.History < lowest.History {
			lowest = at
		}
	}
	return heldTo(a.Group, lowest)
}

// CopyEnd returns up to where a node may say that it has a copy: only as far as the author has the same on its own disk. What
// lies beyond may be lost there when its power fails, and then the copy is cut and goes on from further down, after a report
// that others deleted receivers by. Up to the lowest of these ends all copies are the same, and none is ever cut.
func CopyEnd(durable, confirmed ident.Sequence) ident.Sequence { return min(durable, confirmed) }

// Rooted tells whether a copy that begins behind start goes on from what else the node holds. One that does not is no use to its
// store, and its end says nothing: who reported it would be taken for connected, although what lies between is deleted everywhere.
// Where start is outside the history, or newer than the table, others decide.
func Rooted(t ident.HistoryTable, start ident.Position, holds *Grove) bool {
	return start.IsZero() || !t.Contains(start) || holds.Connects(start)
}

// LowestCopy returns up to where every data node that was not dropped has its copy of what author wrote, as it reported. A copy goes on from its
// end, even where the store needs nothing of what follows. A node that reported none may have begun one since, so nothing is
// deleted before it has reported its end, too. This node's own copy counts like any other: it may have to be cut, too.
func LowestCopy(a fsm.Assignment, author ident.NodeID) ident.Sequence {
	lowest := ident.Sequence(math.MaxUint64)
	for id, n := range a.Nodes {
		if id != author && n.Kind == fsm.KindData && !a.Group.IsDropped(id) {
			lowest = min(lowest, n.Copies[a.Group.Spec.Name][author])
		}
	}
	return lowest
}

// Unneeded tells whether all facts in a receiver, which has the sequences first..last, are at or below flushed. Facts
// outside the history are needed until the flushed position has reached the point where they left it. Whether the store here still
// has some of them to undo is the UndoLog's to say: at the fork itself, the position does not tell which way it came.
func Unneeded(t ident.HistoryTable, flushed ident.Position, runs []entry.Run, first, last ident.Sequence) bool {
	for _, run := range runs {
		if run.First > last || run.Last < first {
			continue
		}
		if run.Epoch > t.Last().Epoch {
			return false
		}
		inside, ok := Clip(t, run)
		fork := inside.To
		if !ok {
			fork = t.Fork(ident.Position{Epoch: run.Epoch, History: run.From}).History
		}
		if (!ok || run.To > fork) && flushed.History < fork {
			return false // a part of it is outside, and not left behind for good
		}
		if !ok {
			continue
		}
		to := inside.To
		if run.Last > last { // it goes on in the next receiver: its facts here end somewhere below, since each takes a sequence
			to = min(to, run.From+ident.History(last-max(run.First, 1)))
		}
		if to > flushed.History {
			return false
		}
	}
	return true
}
