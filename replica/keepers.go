package replica

import (
	"errors"
	"fmt"
	"strings"

	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal"
	"github.com/understudy-ha/understudy/replica/core"
)

// Kept says who keeps the oldest detached receiver of a journal held here, each with what helps; empty when nobody does.
func (r *Replica) Kept(author ident.NodeID) (out []string) {
	a, _ := r.assignment()
	j, held := r.shelf.get(author)
	if !held || a.Group == nil {
		return nil
	}
	receivers := j.Receivers()
	if len(receivers) == 0 || receivers[0].Attached {
		return nil
	}
	for _, k := range r.keepers(j, receivers[0]) {
		out = append(out, keeperText(a.Group.Spec.Name, receivers[0].Number, k))
	}
	return out
}

func (r *Replica) keepers(j *journal.Journal, oldest journal.ReceiverInfo) []core.Keeper {
	a, _ := r.assignment()
	view, _ := j.View()
	alive := func(ident.NodeID) bool { return true }
	if c := r.control.Load(); c != nil {
		alive = (*c).Alive
	}
	flushed := r.data.Flushed()
	if r.o.Archive != nil && core.Spare(a, j.ID().Node, flushed, view.First, alive, view.Runs, oldest.First, oldest.Last) {
		if name, ok := nameOf(r.o.Cluster, j, oldest); ok && !r.o.Archive.Holds(name) {
			return []core.Keeper{{Kind: core.KeptByArchive}}
		}
	} else if all := core.Keepers(a, core.OldestReceiver{Author: j.ID().Node, First: oldest.First, Last: oldest.Last, Runs: view.Runs, Flushed: flushed}, alive); len(all) > 0 {
		return all
	}
	if why := r.permits.objection(j.ID().Node, oldest.Number); why != "" {
		return []core.Keeper{{Kind: core.KeptByVeto, Why: why}}
	}
	return nil
}

// objection is why the program asked last did not let a receiver go; "" when it did, or was not asked.
func (s *permits) objection(author ident.NodeID, number ident.ReceiverNumber) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.of[author]; p != nil && p.denied == number {
		return p.why
	}
	return ""
}

// keeperText names a keeper, and what lets the receiver go.
func keeperText(group ident.GroupName, oldest ident.ReceiverNumber, k core.Keeper) string {
	at := "it has not told how far it is"
	if !k.At.IsZero() {
		at = "it is at " + k.At.Format(group)
	}
	switch k.Kind {
	case core.KeptHere:
		return "this node has not flushed its own records that far yet: wait"
	case core.KeptByConsumer:
		return fmt.Sprintf("consumer %s has not read receiver %s (%s), and nobody is dropped for that: let it read on, or understudy journal holds %s --remove %s", k.Name, oldest, at, group, k.Name)
	case core.KeptByNode:
		if k.Absent {
			return fmt.Sprintf("node %s, which is away, needs receiver %s (%s): bring the node back, or understudy group set %s journal_full=drop gives it up", k.Name, oldest, at, group)
		}
		return fmt.Sprintf("node %s needs receiver %s (%s): wait until it has caught up; understudy status %s tells", k.Name, oldest, at, group)
	case core.KeptByArchive:
		return fmt.Sprintf("the archive has not got receiver %s, which nodes need that are away: understudy status %s says why; bring the storage back", oldest, group)
	case core.KeptByVeto:
		return fmt.Sprintf("the program asked before a deletion (hooks.before_delete) does not let receiver %s go: %s", oldest, k.Why)
	}
	return ""
}

// FullText says what is full, who keeps its receivers, and what helps. kept is what Kept returned.
func FullText(err error, kept []string) string {
	return fmt.Sprintf("%v: %s", err, FullRemedy(err, kept))
}

// FullRemedy is what helps when a journal is full.
func FullRemedy(err error, kept []string) string {
	var full *journal.FullError
	atCap := errors.As(err, &full) && full.Reason == journal.FullMaximum
	switch who := strings.Join(kept, "; "); {
	case atCap && who != "":
		return fmt.Sprintf("%s; or raise maximum_blocks: understudy group set %s maximum_blocks=N", who, full.Journal.Group)
	case atCap:
		return "bring the node back that its receivers are kept for, move or remove the hold of a consumer that has not read them, see whether the program asked before a deletion " +
			"objects, raise maximum_blocks of the group, or let journal_full drop a node that is away"
	case who != "":
		return "free space in the data directory, writes then go on by themselves; receivers that could go are kept: " + who
	}
	return "free space in the data directory, writes then go on by themselves"
}
