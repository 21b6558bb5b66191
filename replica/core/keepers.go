package core

import (
	"slices"
	"strings"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
)

// KeeperKind is what keeps a receiver.
type KeeperKind int

// Kinds of keepers.
const (
	KeptHere       KeeperKind = iota + 1 // this node has not flushed it yet
	KeptByConsumer                       // a hold
	KeptByNode                           // another data node has not flushed it, has no copy of it yet, or did not report
	KeptByArchive                        // the archive has not got it, for nodes that are away
	KeptByVeto                           // the program asked before a deletion objects
)

// Keeper is who keeps the oldest receiver of a journal from being deleted.
type Keeper struct {
	Kind   KeeperKind
	Name   string         // of the node or the consumer
	At     ident.Position // how far it has come; zero: not known
	Absent bool           // of a node: it is not alive
	Why    string         // of a veto
}

// Keepers lists who needs the oldest detached receiver of a journal by what retention goes by: this node first, then consumers and nodes by name.
// Empty: nobody, and what is not deleted is kept by the policy of the group, or is asked about.
func Keepers(a fsm.Assignment, o OldestReceiver, alive func(ident.NodeID) bool) (out []Keeper) {
	g := a.Group
	needs := func(flushed ident.Position) bool {
		return flushed.IsZero() || !g.History.Contains(flushed) || !Unneeded(g.History, flushed, o.Runs, o.First, o.Last)
	}
	if needs(o.Flushed) {
		out = append(out, Keeper{Kind: KeptHere, Name: string(a.Self), At: o.Flushed})
	}
	var others []Keeper
	for i := range g.Consumers {
		if needs(g.History.Fork(g.Consumers[i].Position)) {
			others = append(others, Keeper{Kind: KeptByConsumer, Name: g.Consumers[i].Name, At: g.Consumers[i].Position})
		}
	}
	for id, n := range a.Nodes {
		if id == a.Self || n.Kind != fsm.KindData || g.IsDropped(id) {
			continue
		}
		if at := n.Flushed[g.Spec.Name]; needs(at) || id != o.Author && n.Copies[g.Spec.Name][o.Author] < o.Last {
			others = append(others, Keeper{Kind: KeptByNode, Name: string(id), At: at, Absent: !alive(id)})
		}
	}
	slices.SortFunc(others, func(x, y Keeper) int {
		if x.Kind != y.Kind {
			return int(x.Kind) - int(y.Kind)
		}
		return strings.Compare(x.Name, y.Name)
	})
	return append(out, others...)
}
