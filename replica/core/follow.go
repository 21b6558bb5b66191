package core

import "github.com/understudy-ha/understudy/internal/ident"

// FollowView is what a node knows when somebody follows the history there.
type FollowView struct {
	Table     ident.HistoryTable
	Committed ident.Position // known in this life
	Store     ident.Position
	Author    bool // the newest epoch is this node's own
	Leads     bool // it serves that epoch, and its lease was valid after the rest was read
}

// FollowLimit returns up to where facts may be given to those who follow: what is known to be committed and can be read here
// already. The author of the newest epoch has nobody to learn from but itself: without a valid lease, what it commits may be
// what another node leaves aside. ok is false while nothing may be said.
func FollowLimit(v FollowView) (limit ident.Position, ok bool) {
	if len(v.Table) == 0 || !v.Table.Contains(v.Store) || v.Author && !v.Leads {
		return ident.Position{}, false
	}
	if v.Store.History < v.Committed.History {
		return v.Store, true
	}
	return v.Committed, v.Table.Contains(v.Committed)
}

// Oldest returns the position from which the runs held lead to p without a hole: the first fact that can be had is the one
// after it. It is p itself when the fact p is not held.
func Oldest(t ident.HistoryTable, p ident.Position, boughs []Bough) ident.Position {
	var live []Bough
	for _, b := range boughs {
		if run, ok := Clip(t, b.Run); ok {
			live = append(live, Bough{Run: run, Author: b.Author})
		}
	}
	for !p.IsZero() {
		b, found := find(live, p)
		if !found || b.Before.History >= p.History {
			return p
		}
		p = b.Before
	}
	return p
}
