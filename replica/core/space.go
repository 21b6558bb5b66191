package core

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/internal/mutant"
	"github.com/understudy-ha/understudy/journal/entry"
)

// Cap returns the most bytes that a journal may take; 0: any. A node's own journal gets less than its copies elsewhere, by an
// eighth or a receiver: so it is full first, while they still take what is under way, and no secondary leaves the set for that.
func Cap(spec fsm.GroupSpec, own bool) int64 {
	limit := spec.Maximum()
	if limit > 0 && own {
		limit -= max(limit/8, spec.ReceiverBytes)
	}
	return limit
}

// Surplus returns how many of a journal's oldest detached receivers go if nobody needs them: all but those that keep_receivers
// asks for; and where the journal has a cap, as many as bring it down to three quarters of what an own one may take. sizes are
// those of the detached ones, oldest first, total is what the whole journal takes.
func Surplus(spec fsm.GroupSpec, sizes []int64, total int64) int {
	n := 0
	if limit := Cap(spec, true); limit > 0 {
		for over := total - (limit - limit/4); n < len(sizes) && over > 0; n++ {
			over -= sizes[n]
		}
	}
	if spec.KeepReceivers >= 0 {
		n = max(n, len(sizes)-spec.KeepReceivers)
	}
	return n
}

// heldTo lowers a position to where the consumers of the journal stand. ok is false when one of them has read nothing yet.
func heldTo(g *fsm.Group, lowest ident.Position) (ident.Position, bool) {
	for i := range g.Consumers {
		at := g.History.Fork(g.Consumers[i].Position)
		if mutant.On(mutant.HoldsByNumber) {
			at = g.Consumers[i].Position
		}
		if at.History < lowest.History && !mutant.On(mutant.IgnoreHolds) {
			lowest = at
		}
	}
	return lowest, !lowest.IsZero()
}

// OldestReceiver is the oldest detached receiver of a full journal, and what it takes to know who needs it.
type OldestReceiver struct {
	Author      ident.NodeID
	First, Last ident.Sequence
	Runs        []entry.Run    // of its journal
	Flushed     ident.Position // by this node
}

// DecideDrop says which node the primary drops so that the oldest receiver of its full journal may go, or why it drops nobody.
// Only who is absent and not in the in-sync set is dropped, and only if nothing else keeps the receiver: neither this node
// itself, nor a consumer, nor a node that is there. Of several the one that is furthest behind goes first.
func DecideDrop(a fsm.Assignment, o OldestReceiver, absent func(ident.NodeID) bool) (drop ident.NodeID, why string) {
	g := a.Group
	switch {
	case g.Spec.JournalFull != fsm.JournalFullDrop && !mutant.On(mutant.DropUnasked):
		return "", "journal_full of the group is stall: nobody is dropped"
	case g.Phase != fsm.PhaseOpened || g.Operation != nil:
		return "", "an operation of the group is under way"
	case a.Pause != nil:
		return "", "automatic actions are paused: nobody is dropped meanwhile"
	}
	needs := func(flushed ident.Position) bool {
		return flushed.IsZero() || !g.History.Contains(flushed) || !Unneeded(g.History, flushed, o.Runs, o.First, o.Last)
	}
	if needs(o.Flushed) {
		return "", "this node itself has not flushed what it holds yet"
	}
	for i := range g.Consumers {
		if at := g.History.Fork(g.Consumers[i].Position); needs(at) {
			return "", fmt.Sprintf("consumer %s holds it, at %s: nobody is dropped for that", g.Consumers[i].Name, g.Consumers[i].Position.Format(g.Spec.Name))
		}
	}
	var behind []ident.NodeID
	for id, n := range a.Nodes {
		if id == a.Self || n.Kind != fsm.KindData || g.IsDropped(id) {
			continue
		}
		if needs(n.Flushed[g.Spec.Name]) || id != o.Author && n.Copies[g.Spec.Name][o.Author] < o.Last {
			behind = append(behind, id)
		}
	}
	slices.SortFunc(behind, func(x, y ident.NodeID) int {
		p, q := a.Nodes[x], a.Nodes[y]
		return cmp.Or(cmp.Compare(p.Flushed[g.Spec.Name].History, q.Flushed[g.Spec.Name].History),
			cmp.Compare(p.Copies[g.Spec.Name][o.Author], q.Copies[g.Spec.Name][o.Author]), strings.Compare(string(x), string(y)))
	})
	for _, id := range behind {
		switch {
		case g.InSet(id) && !mutant.On(mutant.DropMember):
			return "", fmt.Sprintf("node %s, which is in the in-sync set, still needs it", id)
		case !absent(id):
			return "", fmt.Sprintf("node %s, which is connected or was a moment ago, or has just returned, still needs it", id)
		}
	}
	for _, id := range behind {
		if g.HoldsBack(id, a.Nodes) {
			return id, ""
		}
	}
	if len(behind) > 0 {
		return "", fmt.Sprintf("node %s still needs it, by what it reported last", behind[0])
	}
	return "", "nobody needs it: it is about to go"
}
