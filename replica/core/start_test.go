package core

import (
	"strings"
	"testing"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal/entry"
)

// Proves RJ-13: a copy is removed to begin elsewhere only when everything in it is durable elsewhere or outside the history.
func TestStartRule(t *testing.T) {
	g := &fsm.Group{Phase: fsm.PhaseOpened, OpenNode: "a", OpenEpoch: 3, Epoch: 3, History: ident.HistoryTable{
		{Epoch: 1, Node: "b", SW: 1}, {Epoch: 3, Node: "a", SW: 11},
	}}
	at := func(e, h uint64) ident.Position {
		return ident.Position{Epoch: ident.Epoch(e), History: ident.History(h)}
	}
	run := func(e, from, to, first, last uint64) entry.Run {
		return entry.Run{Epoch: ident.Epoch(e), From: ident.History(from), To: ident.History(to), First: ident.Sequence(first), Last: ident.Sequence(last)}
	}
	bough := func(e, from, to uint64) []Bough { return []Bough{{Run: run(e, from, to, 0, 0), Author: "b"}} }
	for name, c := range map[string]struct {
		run           entry.Run
		waited        bool
		flushed       ident.Position
		first, common ident.Sequence
		other         []Bough
		undo          ident.History
		want          string
	}{
		"nobody has it":                        {run: run(3, 11, 40, 101, 140), want: "3.11 to 3.40"},
		"in the store on the disk":             {run: run(3, 11, 40, 101, 140), flushed: at(3, 40)},
		"a part is":                            {run: run(3, 11, 40, 101, 140), flushed: at(3, 30), want: "3.31 to 3.40"},
		"the store left the history":           {run: run(3, 11, 40, 101, 140), flushed: at(2, 90), want: "3.11 to 3.40"},
		"the primary has it":                   {run: run(3, 11, 40, 101, 140), first: 101, common: 140},
		"the primary has deleted some":         {run: run(3, 11, 40, 101, 140), first: 102, common: 140, want: "3.11 to"},
		"which the store has":                  {run: run(3, 11, 40, 101, 140), flushed: at(3, 12), first: 103, common: 140},
		"the primary has not all":              {run: run(3, 11, 40, 101, 140), first: 1, common: 139, want: "3.11 to"},
		"nothing in common, all of it flushed": {run: run(3, 11, 40, 101, 140), first: 500, flushed: at(3, 50)},
		"another journal has it":               {run: run(3, 11, 40, 101, 140), other: bough(3, 5, 40)},
		"another journal has less":             {run: run(3, 11, 40, 101, 140), other: bough(3, 12, 40), want: "3.11 to"},
		"writes wait for the node":             {run: run(3, 11, 40, 101, 140), waited: true, flushed: at(3, 40), want: "wait"},
		"outside the history":                  {run: run(2, 5, 9, 101, 140)},
		"outside, and to be undone":            {run: run(2, 5, 9, 101, 140), undo: 7, want: "undo"},
		"that in another journal":              {run: run(2, 5, 9, 101, 140), undo: 7, other: bough(2, 1, 9)},
		"one end outside":                      {run: run(1, 5, 20, 101, 140), flushed: at(3, 11)},
		"one end outside, to be undone":        {run: run(1, 5, 20, 101, 140), flushed: at(3, 11), undo: 11, want: "undo"},
		"a newer epoch than is known":          {run: run(9, 5, 20, 101, 140), flushed: at(3, 40), want: "9.5 to"},
	} {
		s := StartRule{CutRule: CutRule{Group: g, Free: !c.waited, Other: c.other, Undo: UndoGuard{UpTo: c.undo}}, Flushed: c.flushed, First: c.first, Common: c.common}
		if why := s.Keeps(c.run); (why == "") != (c.want == "") || !strings.Contains(why, c.want) {
			t.Errorf("%s: %q, want %q", name, why, c.want)
		}
	}
}

func TestStranded(t *testing.T) {
	g := &fsm.Group{Phase: fsm.PhaseOpened, OpenNode: "a", History: ident.HistoryTable{{Epoch: 1, Node: "b", SW: 1}, {Epoch: 3, Node: "a", SW: 11}}}
	at := func(e, h uint64) ident.Position {
		return ident.Position{Epoch: ident.Epoch(e), History: ident.History(h)}
	}
	for name, c := range map[string]struct {
		store, start ident.Position
		connects     bool
		want         bool
	}{
		"the copy begins after the store":              {at(3, 20), at(3, 30), false, true},
		"what lies between is held":                    {at(3, 20), at(3, 30), true, false},
		"the store has all before":                     {at(3, 30), at(3, 30), false, false},
		"another node wrote what is missing":           {at(1, 2), at(1, 10), false, false},
		"another node wrote a part of it, not the end": {at(1, 2), at(3, 12), false, true},
		"an empty store":                               {ident.Position{}, at(3, 12), false, true},
		"a copy from the beginning":                    {ident.Position{}, ident.Position{}, false, false},
		"a store outside the history":                  {at(2, 4), at(3, 30), false, false},
	} {
		if got := Stranded(g, c.store, c.start, func(ident.Position) bool { return c.connects }); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
