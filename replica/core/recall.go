package core

import (
	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal/entry"
)

// Spare tells whether an archived receiver of author's journal, with the sequences first..last, may leave this disk although not
// every node has it. Nodes that are away, and nodes that are still fed from the archive because their copy ends before what is
// held here, do without. This node's own needs, and those of all who are here and go on from its disk, stay what they are: the
// receiver's facts are flushed in own and in their stores, and their copies reach beyond it.
func Spare(a fsm.Assignment, author ident.NodeID, own ident.Position, held ident.Sequence, alive func(ident.NodeID) bool,
	runs []entry.Run, first, last ident.Sequence) bool {
	group := a.Group.Spec.Name
	if read, ok := heldTo(a.Group, own); !ok || !Unneeded(a.Group.History, read, runs, first, last) {
		return false // a consumer reads from here, not from the archive
	}
	for id, n := range a.Nodes {
		if n.Kind != fsm.KindData {
			continue
		}
		at, end := n.Flushed[group], n.Copies[group][author]
		switch {
		case id == a.Self:
			at = own
		case !alive(id), a.Group.IsDropped(id), id != author && end+1 < held:
			continue
		}
		if id != author && end < last {
			return false
		}
		if at.IsZero() || !a.Group.History.Contains(at) || !Unneeded(a.Group.History, at, runs, first, last) {
			return false
		}
	}
	return true
}

// RecallNeeded tells whether a node whose copy ends before from has to be sent the receivers before start, which are not held any
// more. A copy goes on from its end, whatever the store has. An empty one may begin where the journal does, when all that went
// before is in the node's store for good.
func RecallNeeded(a fsm.Assignment, node, author ident.NodeID, from ident.Sequence, start ident.Position) bool {
	if from > 1 {
		return true
	}
	if a.Group == nil || a.Nodes[node] == nil {
		return false
	}
	if a.Nodes[node].Copies[a.Group.Spec.Name][author] > 0 {
		return true // it had one: the report is older than whatever emptied it, and so is what it says of the store
	}
	at := a.Nodes[node].Flushed[a.Group.Spec.Name]
	return at.IsZero() || !a.Group.History.Contains(at) || at.History < start.History
}
