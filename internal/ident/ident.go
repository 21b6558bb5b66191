// Package ident holds the value types by which the parts of Understudy name things: nodes, groups, journals, epochs,
// sequence numbers and history positions. The types are plain values; none does I/O.
//
// Two addresses must never be confused. A Sequence addresses an entry in one journal, so it addresses bytes; a Position
// orders facts across journals and switches. Equal positions mean equal content up to there.
package ident

import (
	"fmt"
	"strconv"
	"strings"
)

// NodeID is the operator's short name of a node, such as "a".
type NodeID string

// Words that stand for journals where a path names one by the node that wrote it. So no node may be called so.
const (
	LocalWord   NodeID = "local"   // the journal that the node asked has written itself
	ReplaysWord NodeID = "replays" // the one in which it records what it replays
)

// Reserved says why no node may have that name, or nil.
func (n NodeID) Reserved() error {
	if n == LocalWord || n == ReplaysWord {
		return fmt.Errorf("%q stands for a journal in paths and cannot be the name of a node: choose another one", string(n))
	}
	return nil
}

// GroupName names a group of files that has one primary at a time.
type GroupName string

// Of names the history that one node has for itself under the name of a group, as in "local/b@3.42". No group is called so.
func (g GroupName) Of(n NodeID) GroupName { return GroupName(JournalID{Group: g, Node: n}.String()) }

// ClusterID is the random identity a cluster gets when it is created.
type ClusterID string

// DirectoryID is the random identity of one data directory. A node whose directory was replaced has another one.
type DirectoryID string

// Incarnation identifies one life of a node process, and orders it: a later life of the same data directory has a higher one.
// It is written to the data directory before the first lease renewal. Zero means none.
type Incarnation uint64

func (i Incarnation) String() string { return fmt.Sprintf("%016x", uint64(i)) }

// Epoch numbers the terms of a group's primary role, from 1. Zero means none.
type Epoch uint64

func (e Epoch) String() string { return strconv.FormatUint(uint64(e), 10) }

// Sequence addresses an entry in one journal, from 1 without gaps. Zero means before the first entry.
type Sequence uint64

func (s Sequence) String() string { return strconv.FormatUint(uint64(s), 10) }

// History counts the facts of a group across journals, from 1 without gaps. Zero means before the first fact.
type History uint64

func (h History) String() string { return strconv.FormatUint(uint64(h), 10) }

// ReceiverNumber numbers the receivers of one journal, from 1.
type ReceiverNumber uint32

func (r ReceiverNumber) String() string { return fmt.Sprintf("%06d", uint32(r)) }

// Chain is the running checksum over all bundles of a journal before a given point.
type Chain uint64

func (c Chain) String() string { return fmt.Sprintf("%016x", uint64(c)) }

// JournalID names a journal: what Node wrote for Group. On that node it is the local journal, elsewhere a remote journal.
type JournalID struct {
	Group GroupName `json:"group"`
	Node  NodeID    `json:"node"`
}

func (j JournalID) String() string { return string(j.Group) + "/" + string(j.Node) }

// Position is a history position: the h-th fact of the group, first sequenced in Epoch. The zero Position lies before
// the first fact.
type Position struct {
	Epoch   Epoch   `json:"epoch"`
	History History `json:"h"`
}

func (p Position) String() string { return p.Epoch.String() + "." + p.History.String() }

// IsZero tells whether p lies before the first fact.
func (p Position) IsZero() bool { return p == Position{} }

// Compare orders positions by epoch, then by history: -1, 0 or +1. It is the order by which candidates are chosen, not a
// statement that one position is an ancestor of the other; for that see HistoryTable.
func (p Position) Compare(q Position) int {
	switch {
	case p.Epoch < q.Epoch, p.Epoch == q.Epoch && p.History < q.History:
		return -1
	case p == q:
		return 0
	}
	return 1
}

// Format prints the position with its group, as in "orders@3.42".
func (p Position) Format(g GroupName) string { return string(g) + "@" + p.String() }

// ParsePosition reads what Position.String prints, such as "3.42", with or without a leading "group@".
func ParsePosition(s string) (GroupName, Position, error) {
	group, rest, found := strings.Cut(s, "@")
	if !found {
		group, rest = "", s
	}
	es, hs, ok := strings.Cut(rest, ".")
	e, err1 := strconv.ParseUint(es, 10, 64)
	h, err2 := strconv.ParseUint(hs, 10, 64)
	if !ok || err1 != nil || err2 != nil {
		return "", Position{}, fmt.Errorf("%q is not a position: want EPOCH.H, such as 3.42", s)
	}
	return GroupName(group), Position{Epoch: Epoch(e), History: History(h)}, nil
}
