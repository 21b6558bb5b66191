package replica

import (
	"fmt"

	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal/entry"
	"github.com/understudy-ha/understudy/replica/store"
)

// continues is the rule by which every bundle is applied: it has facts of the history by table, and continues before.
func continues(h entry.Header, before ident.Position, table ident.HistoryTable) bool {
	return h.Facts > 0 && h.Flags&entry.FlagEcho == 0 && h.Before == before && table.Contains(h.Fact)
}

// Replay applies bundles to a store by the rule of every backup, from wherever they are read. It belongs to one goroutine.
type Replay struct {
	data    *store.Group
	table   ident.HistoryTable
	after   ident.Position // of what was taken; the store follows
	changes []store.Change
	size    int
}

// NewReplay returns a replay that goes on where the store is. The history is known by table.
func NewReplay(data *store.Group, table ident.HistoryTable) *Replay {
	return &Replay{data: data, table: table, after: data.Position()}
}

// Position is the position after what was taken.
func (p *Replay) Position() ident.Position { return p.after }

// Take takes the bundle when it is the next one of the history, else it does nothing. Of its entries only the first n are taken:
// the caller ends at the end of a transaction.
func (p *Replay) Take(b entry.Bundle, n int) (taken bool, err error) {
	if !continues(b.Header, p.after, p.table) {
		return false, nil
	}
	entries, err := b.All()
	if err != nil {
		return false, fmt.Errorf("bundle %s: %w", b.First, err)
	}
	for i := range entries[:n] {
		e := &entries[i]
		if e.Fact() {
			p.after = e.Position
		}
		if e.Code == entry.Record {
			p.changes = append(p.changes, store.Change{File: e.File, Key: e.Key, Put: e.After})
		}
	}
	if p.size += len(b.Raw); p.size >= applyBytes {
		return true, p.Land()
	}
	return true, nil
}

// Land puts what was taken into the store.
func (p *Replay) Land() error {
	before := p.data.Position()
	if p.after == before {
		return nil
	}
	if err := p.data.Apply(before, p.after, p.changes); err != nil {
		return fmt.Errorf("apply up to %s: %w", p.after, err)
	}
	p.changes, p.size = p.changes[:0], 0
	return nil
}
