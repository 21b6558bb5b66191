package replica

import (
	"fmt"
	"testing"

	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal/entry"
)

// An echo has what lies beyond the last one, each fact once; of what was recorded on a branch that was left since, only what lies
// below the fork counts as recorded. Proves RJ-7.
func TestEchoOf(t *testing.T) {
	at := func(e ident.Epoch, h ident.History) ident.Position { return ident.Position{Epoch: e, History: h} }
	table := ident.HistoryTable{{Epoch: 1, Node: "a", SW: 1, First: 1}, {Epoch: 3, Node: "b", SW: 5, First: 1}} // 1.5 and more of epoch 1 were left aside
	bundle := func(e ident.Epoch, before ident.Position, facts int) entry.Bundle {
		var list []entry.Entry
		for i := range facts {
			list = append(list, entry.Entry{Code: entry.Record, Type: entry.Put, File: "f", Key: fmt.Append(nil, i), After: &entry.Image{Value: []byte("v")}})
		}
		raw, _, err := entry.Seal(nil, entry.Header{First: 7, Session: e, Before: before, Fact: at(e, before.History+1)}, list)
		if err != nil {
			t.Fatal(err)
		}
		b, err := entry.Decode(raw)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for name, c := range map[string]struct {
		end    ident.Position
		bundle entry.Bundle
		facts  int
		before ident.Position
	}{
		"new":                         {at(1, 1), bundle(1, at(1, 1), 3), 3, at(1, 1)},
		"the first of it is recorded": {at(1, 2), bundle(1, at(1, 1), 3), 2, at(1, 2)},
		"all of it is recorded":       {at(1, 4), bundle(1, at(1, 1), 3), 0, at(1, 4)},
		"another one was recorded at these positions": {at(1, 8), bundle(3, at(1, 4), 3), 3, at(1, 4)},
	} {
		d, err := echoOf(table, c.end, c.bundle)
		if err != nil || len(d.Entries) != c.facts || d.Before != c.before || d.Flags&entry.FlagEcho == 0 {
			t.Errorf("%s: %d facts after %s, want %d after %s: %v", name, len(d.Entries), d.Before, c.facts, c.before, err)
		}
	}
}
