package node

import (
	"testing"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal/entry"
	"github.com/understudy-ha/understudy/replica"
)

// What a back-out report says of a write depends on the promotions since it was sequenced: only one that lost something can have
// lost a write that a client heard of.
func TestBackoutTellsWhatNobodyHeardOf(t *testing.T) {
	at := func(e ident.Epoch, h ident.History) ident.Position { return ident.Position{Epoch: e, History: h} }
	certificates := func(losses ...string) (all []fsm.Certificate) {
		for i, loss := range losses {
			all = append(all, fsm.Certificate{Epoch: ident.Epoch(i + 1), Loss: loss})
		}
		return all
	}
	const none, some = fsm.LossNone, "what lies beyond default@1.4"
	for name, tc := range map[string]struct {
		promotions []fsm.Certificate
		epoch      ident.Epoch
		want       bool
	}{
		"a failover without loss":    {certificates(none, none), 2, true},
		"a failover with loss":       {certificates(none, some), 2, false},
		"loss on the way":            {certificates(none, some, none), 3, false},
		"loss before, and after":     {certificates(some, none, some), 2, true},
		"the promotion is not known": {certificates(none), 2, false},
		"the beginning is forgotten": {certificates(none, none, none)[2:], 3, false},
		"nothing is remembered":      {nil, 2, false},
	} {
		report := &replica.BackoutReport{ID: "00000002", Group: "default", Node: "a", Epoch: tc.epoch, Fork: at(1, 4), Undone: 2, Lost: 2, Entries: []replica.BackoutEntry{
			{Journal: ident.JournalID{Group: "default", Node: "a"}, Sequence: 9, Position: at(1, 5), Undone: true, AfterExists: true, AfterKind: entry.Kind(1)},
			{Journal: ident.JournalID{Group: "default", Node: "a"}, Sequence: 11, Position: at(1, 7), Undone: true},
			{Journal: ident.JournalID{Group: "default", Node: "a"}, Sequence: 12, Position: at(1, 8), LivesOn: true},
		}}
		b := backout(report, tc.promotions)
		if b.Entries[0].Unheard != tc.want || b.Entries[1].Unheard != tc.want || b.Entries[2].Unheard || (b.Unheard == 2) != tc.want || b.Lost != 2 {
			t.Errorf("%s: %+v, want %v", name, b, tc.want)
		}
		if b.From != "default@1.7" || b.To != "default@1.4" || b.Known != 8 || b.Journal != "default/a" {
			t.Errorf("%s: from %s to %s, known %d of %s", name, b.From, b.To, b.Known, b.Journal)
		}
	}
	empty := backout(&replica.BackoutReport{Group: "default"}, nil)
	if empty.From != "default@0.0" || empty.To != "default@0.0" {
		t.Errorf("nothing undone, from the beginning: %s to %s", empty.From, empty.To)
	}
}
