package fsm

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/internal/mutant"
)

// What becomes of writes at a full journal, part of the format.
const (
	JournalFullStall = "stall" // the same as "": writes are refused until there is room
	JournalFullDrop  = "drop"  // the absent shadow that the receivers are kept for is dropped
)

// BlockBytes is the unit of Blocks and MaximumBlocks.
const BlockBytes = 1 << 20

// MinReceiverAge is the least age at which a receiver is changed for its age: each change costs a file.
const MinReceiverAge = time.Second

const maxBlocks = 64 << 20 // 64 TiB

// Maximum returns the hard cap of each journal in bytes; 0: none.
func (s GroupSpec) Maximum() int64 { return int64(s.MaximumBlocks) * BlockBytes }

// CheckSpace says what is wrong with the keys that bound the journals of a normalized spec.
func (s GroupSpec) CheckSpace() error { return errors.Join(s.checkSpace()...) }

// checkSpace checks what bounds the journals.
func (s GroupSpec) checkSpace() (errs []error) {
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	switch {
	case s.MaximumBlocks < 0 || s.MaximumBlocks > maxBlocks:
		bad("maximum_blocks: %d is not in 0..%d MiB; 0: no cap", s.MaximumBlocks, maxBlocks)
	case s.MaximumBlocks > 0 && s.Maximum() < 4*s.ReceiverBytes:
		bad("maximum_blocks: %d MiB is below four receivers of %d bytes: only whole detached receivers go; raise it, or lower receiver_bytes", s.MaximumBlocks, s.ReceiverBytes)
	}
	switch {
	case s.Blocks < 0 || s.Blocks > maxBlocks:
		bad("blocks: %d is not in 0..%d MiB", s.Blocks, maxBlocks)
	case s.MaximumBlocks > 0 && 2*s.Blocks > s.MaximumBlocks:
		bad("blocks: %d MiB is more than half of maximum_blocks, %d MiB", s.Blocks, s.MaximumBlocks)
	}
	if !slices.Contains([]string{"", JournalFullStall, JournalFullDrop}, s.JournalFull) {
		bad("journal_full: %q is not one of [%s %s]", s.JournalFull, JournalFullStall, JournalFullDrop)
	}
	if s.ReceiverAge < 0 || s.ReceiverAge > 0 && s.ReceiverAge < MinReceiverAge {
		bad("receiver_age: %s is below %s; 0: never", s.ReceiverAge, MinReceiverAge)
	}
	return errs
}

// Dropped is a node that was dropped by policy: the others keep no receivers for it, and it takes no part in the group until it
// is readmitted.
type Dropped struct {
	Node     ident.NodeID   `json:"node"`
	Epoch    ident.Epoch    `json:"epoch"` // by the primary of this epoch
	At       time.Time      `json:"at"`
	Reason   string         `json:"reason"`
	Flushed  ident.Position `json:"flushed,omitzero"`    // what it had reported last
	LastCopy bool           `json:"last_copy,omitempty"` // no other node but the primary was left then
}

// Drop gives a node up for one group, since receivers kept for it fill the primary's journal; proposed by the serving primary.
type Drop struct {
	Group  ident.GroupName `json:"group"`
	Epoch  ident.Epoch     `json:"epoch"`
	Node   ident.NodeID    `json:"node"`
	Reason string          `json:"reason"`
}

// Readmit lets a dropped node take part again: receivers are kept for it from here on. Whether its copy still connects is found
// out when it is shipped to; if it does not, it goes on to need priming.
type Readmit struct {
	Group ident.GroupName `json:"group"`
	Epoch ident.Epoch     `json:"epoch"`
	Node  ident.NodeID    `json:"node"`
	By    string          `json:"by,omitempty"`
}

// Kinds of operations that are over at once: they stand among the past ones only.
const (
	OperationDrop    OperationKind = "drop"
	OperationReadmit OperationKind = "readmit"
)

// IsDropped tells whether nothing is kept for the node any more.
func (g *Group) IsDropped(n ident.NodeID) bool {
	return slices.ContainsFunc(g.Dropped, func(d Dropped) bool { return d.Node == n })
}

// undrop forgets that a node was dropped.
func (g *Group) undrop(n ident.NodeID) {
	g.Dropped = slices.DeleteFunc(slices.Clone(g.Dropped), func(d Dropped) bool { return d.Node == n })
	if len(g.Dropped) == 0 {
		g.Dropped = nil
	}
}

func (g *Group) droppedRefusal(n ident.NodeID) Result {
	return refuse(RefusedDropped, "node %s was dropped from group %s: its copy has to be primed anew, or readmitted if it still connects", n, g.Spec.Name)
}

// withoutDropped refuses a set that has a dropped node.
func (g *Group) withoutDropped(set []ident.NodeID) refusal {
	for _, n := range set {
		if g.IsDropped(n) && !mutant.On(mutant.DroppedJoins) {
			r := g.droppedRefusal(n)
			return &r
		}
	}
	return nil
}

// HoldsBack tells whether receivers are kept for a node that the primary itself does not need: nobody else who is not dropped
// reported to be further behind, and the primary is ahead of it. When two are equally far behind, both do. What a node has not
// reported counts as 0, here as in what is deleted: until it says what it has, in each of its lives anew, all is kept for it. It is for the
// primary not to give up a node that has only just begun to live.
func (g *Group) HoldsBack(n ident.NodeID, nodes map[ident.NodeID]*Node) bool {
	name := g.Spec.Name
	primary, own := nodes[g.Primary], nodes[n]
	if primary == nil || own == nil {
		return false
	}
	lowest := func(of func(*Node) uint64, except ident.NodeID) bool { // an author has no copy of its own journal
		low := uint64(math.MaxUint64)
		for id, x := range nodes {
			if x.Kind == KindData && id != except && !g.IsDropped(id) {
				low = min(low, of(x))
			}
		}
		return of(own) <= low && of(own) < of(primary)
	}
	if lowest(func(x *Node) uint64 { return uint64(x.Flushed[name].History) }, "") {
		return true
	}
	for author := range nodes {
		if author != n && lowest(func(x *Node) uint64 { return uint64(x.Copies[name][author]) }, author) {
			return true
		}
	}
	return false
}

func (s *State) drop(c *Drop, at time.Time) Result {
	g, r := s.editGroup(c.Group)
	if r != nil {
		return *r
	}
	n, r := s.dataNode(c.Node)
	if r != nil {
		return *r
	}
	switch {
	case g.Phase != PhaseOpened || g.Epoch != c.Epoch:
		return g.movedFrom(c.Epoch, PhaseOpened)
	case g.IsDropped(c.Node):
		return Result{}
	case s.Pause != nil:
		return s.pauseRefusal(g)
	case g.Operation != nil:
		return refuse(RefusedBusy, "%s %d of group %s runs", g.Operation.Kind, g.Operation.ID, c.Group)
	case g.Spec.JournalFull != JournalFullDrop && !mutant.On(mutant.DropUnasked):
		return refuse(RefusedDrop, "group %s does not drop anybody at a full journal (journal_full: %s)", c.Group, JournalFullStall)
	case c.Node == g.Primary || g.InSet(c.Node) && !mutant.On(mutant.DropMember):
		return refuse(RefusedDrop, "node %s is in the in-sync set %v: only who is not is dropped", c.Node, g.InSync)
	case !g.HoldsBack(c.Node, s.Nodes):
		return refuse(RefusedDrop, "node %s is not what receivers of group %s are kept for", c.Node, c.Group)
	}
	d := Dropped{Node: c.Node, Epoch: c.Epoch, At: at, Reason: c.Reason, Flushed: n.Flushed[c.Group], LastCopy: true}
	for id, x := range s.Nodes {
		if x.Kind == KindData && id != g.Primary && id != c.Node && !g.IsDropped(id) {
			d.LastCopy = false
		}
	}
	g.Dropped = append(slices.Clip(slices.Clone(g.Dropped)), d)
	slices.SortFunc(g.Dropped, func(a, b Dropped) int { return strings.Compare(string(a.Node), string(b.Node)) })
	g.SetVersion++ // a growth of the node that was proposed before is decided by this
	s.record(OperationDrop, g, c.Node, at, c.Reason)
	s.putGroup(g)
	return Result{}
}

func (s *State) readmit(c *Readmit, at time.Time) Result {
	g, r := s.editGroup(c.Group)
	if r != nil {
		return *r
	}
	switch {
	case g.Phase != PhaseOpened || g.Epoch != c.Epoch:
		return g.movedFrom(c.Epoch, PhaseOpened)
	case !g.IsDropped(c.Node):
		return refuse(RefusedInvalid, "node %q is not dropped from group %s", c.Node, c.Group)
	case g.Operation != nil:
		return refuse(RefusedBusy, "%s %d of group %s runs", g.Operation.Kind, g.Operation.ID, c.Group)
	}
	g.undrop(c.Node)
	if mutant.On(mutant.ReadmitIntoSet) {
		g.InSync = append(slices.Clone(g.InSync), c.Node)
	}
	s.record(OperationReadmit, g, c.Node, at, fallback(c.By, "operator"))
	s.putGroup(g)
	return Result{}
}

// record adds an operation that is over at once to the past ones.
func (s *State) record(kind OperationKind, g *Group, node ident.NodeID, at time.Time, reason string) {
	o := Operation{ID: s.NextOperation, Kind: kind, Group: g.Spec.Name, From: node, State: OperationDone, Step: string(kind), Reason: reason,
		Started: at, Ended: at, Committed: true, Epoch: g.Epoch, Steps: []Step{{Name: string(kind), At: at, Node: string(node), Detail: reason}}}
	s.NextOperation++
	s.Past = appendBounded(s.Past, o, maxPast)
}

// errKeep is why a key of a group does not change.
var errKeep = errors.New("it cannot be changed while the group exists")
