package replica

import (
	"context"
	"errors"
	"fmt"

	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal"
	"github.com/understudy-ha/understudy/journal/entry"
	"github.com/understudy-ha/understudy/replica/store"
)

// applyBytes bounds what goes into one store batch, so that the positions readers see do not jump too far.
const applyBytes = 1 << 20

// errLeftHistory: the store is not in the history; it needs a reconcile before anything is applied.
var errLeftHistory = errors.New("the store's position is not in the history")

// applier brings the store forward from the journals held, bundle by bundle, each continuing exactly where the store is.
// It belongs to one role session.
type applier struct {
	r      *Replica
	from   *journal.Journal // followed at the moment, with reader
	reader *journal.Reader
	peeked *journal.Item // read, not applied yet
	looked string        // what was searched in vain; the same search is not repeated
	echo   *echo         // records what is applied; nil: nobody does
}

func (a *applier) close() {
	if a.reader != nil {
		_ = a.reader.Close() // only read from
	}
	a.reader, a.from, a.peeked = nil, nil, nil
}

// run applies everything that is durable here, in the history by table, and at or below limit. It tells whether the store
// moved.
func (a *applier) run(ctx context.Context, table ident.HistoryTable, limit ident.Position) (moved bool, err error) {
	for ctx.Err() == nil {
		before := a.r.data.Position()
		if !table.Contains(before) {
			return moved, errLeftHistory
		}
		if before.History >= limit.History {
			return moved, nil
		}
		after := before
		var changes []store.Change
		var taken []entry.Bundle
		var last journal.Item
		for size := 0; size < applyBytes; {
			item, ok, err := a.next(table, after)
			if err != nil {
				return moved, err
			}
			if !ok || item.Header.After().History > limit.History {
				break
			}
			b, err := entry.Decode(item.Raw)
			if err != nil {
				return moved, journalFailed(a.from, fmt.Errorf("bundle %s of journal %s: %w", item.Header.First, a.from.ID(), err))
			}
			if changes, err = appendChanges(changes, b); err != nil {
				return moved, err
			}
			after, last = b.After(), item
			if a.echo != nil && a.from.ID().Node != a.r.o.Node {
				taken = append(taken, b)
			}
			size += b.Expanded()
			a.peeked = nil
		}
		if after == before {
			return moved, nil
		}
		if err := a.echo.record(ctx, table, taken); err != nil {
			return moved, err
		}
		if err := a.r.data.Apply(before, after, changes); err != nil {
			return moved, storeFailed(fmt.Errorf("apply up to %s: %w", after, err))
		}
		moved = true
		a.r.picture.apply(a.from.ID().Node, last.Header.Last(), after)
		a.r.moved.fire()
	}
	return moved, context.Cause(ctx)
}

// next returns the bundle that continues before, once it is durable here; it stays the next one until it is taken from
// peeked.
func (a *applier) next(table ident.HistoryTable, before ident.Position) (journal.Item, bool, error) {
	if a.peeked != nil {
		if v, _ := a.from.View(); a.peeked.Header.Last() > v.Last { // removed since: it stands in another journal, if it lives on
			a.close()
			a.looked = ""
		}
	}
	if a.peeked == nil || a.peeked.Header.Before != before || !table.Contains(a.peeked.Header.Fact) {
		a.peeked = nil
		if err := a.read(table, before); err != nil {
			return journal.Item{}, false, err
		}
	}
	if a.peeked == nil {
		return journal.Item{}, false, nil
	}
	if v, _ := a.from.View(); a.peeked.Header.Last() > v.Durable {
		return journal.Item{}, false, nil
	}
	return *a.peeked, true, nil
}

// read looks for the continuation of before: where the reader is, else in all journals.
func (a *applier) read(table ident.HistoryTable, before ident.Position) error {
	next := func(h entry.Header) bool { return continues(h, before, table) }
	for a.reader != nil {
		item, ok, err := a.reader.TryNext()
		if err != nil {
			a.close() // rewound, or its receiver is gone: look again everywhere
			break
		}
		if !ok {
			break
		}
		if item.Raw == nil || !next(item.Header) {
			continue // something without facts, outside the history, or had already
		}
		a.peeked = &item
		return nil
	}
	return a.search(table, before, next)
}

// search looks through all journals for a bundle that continues before, and follows the journal where it finds one.
func (a *applier) search(table ident.HistoryTable, before ident.Position, next func(entry.Header) bool) error {
	journals := a.r.shelf.all()
	looked := fmt.Sprint(before, table.Last())
	for _, j := range journals {
		v, _ := j.View()
		looked += contents(j.ID().Node, v)
	}
	if looked == a.looked {
		return nil
	}
	inHistory := func(first ident.Position) bool { return table.Contains(first) }
	for _, j := range journals {
		seq, ok, err := j.FindAfter(before, inHistory)
		if err != nil {
			if errors.Is(err, journal.ErrNotHeld) || errors.Is(err, journal.ErrRewound) {
				continue
			}
			return journalFailed(j, err)
		}
		if v, _ := j.View(); !ok || seq > v.Durable {
			continue
		}
		reader, err := j.Reader(seq)
		if err != nil {
			continue // removed or deleted since
		}
		a.close()
		a.reader, a.from = reader, j
		for {
			item, ok, err := a.reader.TryNext()
			if err != nil || !ok {
				a.close()
				break
			}
			if item.Raw != nil && next(item.Header) {
				a.peeked = &item
				a.looked = ""
				return nil
			}
		}
	}
	a.looked = looked
	return nil
}

// contents tells what a journal holds from what it held. A copy that began elsewhere, or was cut, may end again where it did.
func contents(n ident.NodeID, v journal.View) string {
	return fmt.Sprint(" ", n, v.First, v.Durable, v.Chain)
}

// appendChanges appends what the bundle does to the store.
func appendChanges(dst []store.Change, b entry.Bundle) ([]store.Change, error) {
	for e, err := range b.Entries() {
		if err != nil {
			return dst, fmt.Errorf("bundle %s: %w", b.First, err)
		}
		if e.Code == entry.Record {
			dst = append(dst, store.Change{File: e.File, Key: e.Key, Put: e.After})
		}
	}
	return dst, nil
}

// appendUndo appends what takes the bundle back, newest entry first. It fails with ErrNeedsPriming when an image is missing.
func appendUndo(dst []store.Change, b entry.Bundle) ([]store.Change, error) {
	entries, err := b.All()
	if err != nil {
		return dst, fmt.Errorf("bundle %s: %w", b.First, err)
	}
	for i := len(entries) - 1; i >= 0; i-- {
		e := &entries[i]
		if e.Code != entry.Record {
			continue
		}
		if e.BeforeOmitted {
			return dst, fmt.Errorf("%w: %s of file %s at %s was journaled without its before-image", ErrNeedsPriming, e.Type, e.File, e.Position)
		}
		dst = append(dst, store.Change{File: e.File, Key: e.Key, Put: e.Before})
	}
	return dst, nil
}
