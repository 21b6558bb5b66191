package core

import (
	"testing"

	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal/entry"
)

// Proves RJ-14: up to where a node gives facts to those who follow the history.
func TestFollowLimit(t *testing.T) {
	at := func(e, h uint64) ident.Position {
		return ident.Position{Epoch: ident.Epoch(e), History: ident.History(h)}
	}
	table := ident.HistoryTable{{Epoch: 1, Node: "a", SW: 1}, {Epoch: 3, Node: "b", SW: 20}}
	for name, c := range map[string]struct {
		v     FollowView
		limit ident.Position
		ok    bool
	}{
		"nothing is known":                      {FollowView{Committed: at(3, 25), Store: at(3, 25)}, at(0, 0), false},
		"a backup, level":                       {FollowView{Table: table, Committed: at(3, 25), Store: at(3, 25)}, at(3, 25), true},
		"a backup that applies":                 {FollowView{Table: table, Committed: at(3, 25), Store: at(1, 7)}, at(1, 7), true},
		"a store beyond what is known":          {FollowView{Table: table, Committed: at(1, 19), Store: at(3, 25)}, at(1, 19), true},
		"a store that has to be taken back":     {FollowView{Table: table, Committed: at(3, 25), Store: at(1, 22)}, at(0, 0), false},
		"the primary":                           {FollowView{Table: table, Committed: at(3, 25), Store: at(3, 25), Author: true, Leads: true}, at(3, 25), true},
		"a primary without a lease":             {FollowView{Table: table, Committed: at(3, 25), Store: at(3, 25), Author: true}, at(0, 0), false},
		"a state that is older than the store":  {FollowView{Table: table[:1], Committed: at(1, 19), Store: at(3, 25)}, at(0, 0), false},
		"known in an epoch that was left aside": {FollowView{Table: table, Committed: at(2, 30), Store: at(3, 31)}, at(2, 30), false},
	} {
		if limit, ok := FollowLimit(c.v); ok != c.ok || ok && limit != c.limit {
			t.Errorf("%s: %s %t, want %s %t", name, limit, ok, c.limit, c.ok)
		}
	}
	run := func(node ident.NodeID, e, from, to, be, bh uint64) Bough {
		return Bough{Author: node, Run: entry.Run{Epoch: ident.Epoch(e), From: ident.History(from), To: ident.History(to), Before: at(be, bh)}}
	}
	for name, c := range map[string]struct {
		p, want ident.Position
		boughs  []Bough
	}{
		"all":                    {at(3, 25), at(0, 0), []Bough{run("a", 1, 1, 22, 0, 0), run("b", 3, 20, 30, 1, 19)}},
		"oldest receivers gone":  {at(3, 25), at(1, 9), []Bough{run("a", 1, 10, 22, 1, 9), run("b", 3, 20, 30, 1, 19)}},
		"a hole":                 {at(3, 25), at(1, 19), []Bough{run("a", 1, 1, 15, 0, 0), run("b", 3, 20, 30, 1, 19)}},
		"mended by another copy": {at(3, 25), at(0, 0), []Bough{run("a", 1, 1, 15, 0, 0), run("b", 1, 14, 19, 1, 13), run("b", 3, 20, 30, 1, 19)}},
		"not held":               {at(3, 25), at(3, 25), []Bough{run("a", 1, 1, 22, 0, 0)}},
		"only what is left":      {at(1, 19), at(1, 19), []Bough{run("a", 2, 1, 22, 0, 0)}},
		"nothing":                {at(0, 0), at(0, 0), nil},
	} {
		if got := Oldest(table, c.p, c.boughs); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}
