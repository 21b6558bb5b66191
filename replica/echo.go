package replica

import (
	"context"
	"fmt"

	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal"
	"github.com/understudy-ha/understudy/journal/entry"
)

// echo records in a backup's own journal what the backup replays. Each fact is recorded before it is applied, and is durable
// then: a crash leaves the store behind the echoes, never before them, and what is replayed again is not recorded again. A nil
// echo records nothing. It belongs to one role session.
type echo struct {
	own  *journal.Journal
	gate *gate

	known bool
	end   ident.Position // recorded up to here
}

// record deposits the bundles, which are in order, of other nodes' journals, and in the history by table.
func (e *echo) record(ctx context.Context, table ident.HistoryTable, bundles []entry.Bundle) error {
	if e == nil {
		return nil
	}
	if !e.known {
		var err error
		if e.end, err = e.own.LastEcho(); err != nil {
			return journalFailed(e.own, fmt.Errorf("look for the last echo: %w", err))
		}
		e.known = true
	}
	var last ident.Sequence
	for _, b := range bundles {
		d, err := echoOf(table, e.end, b)
		if err != nil {
			return journalFailed(e.own, err)
		}
		if len(d.Entries) > 0 {
			d.Session = e.gate.epoch()
			h, err := e.own.Deposit(d)
			if err != nil {
				return journalFailed(e.own, fmt.Errorf("record what is replayed: %w", err))
			}
			last, e.end = h.Last(), b.After()
		}
	}
	if last == 0 {
		return nil
	}
	if err := e.own.WaitDurable(ctx, last); err != nil && ctx.Err() == nil {
		return journalFailed(e.own, err)
	}
	return context.Cause(ctx)
}

// echoOf drafts the echo of the facts of b beyond end, which may lie on a branch that was left since.
func echoOf(table ident.HistoryTable, end ident.Position, b entry.Bundle) (journal.Draft, error) {
	if !table.Contains(end) {
		end = table.Fork(end)
	}
	d := journal.Draft{Before: b.Before, FactEpoch: b.Fact.Epoch, Time: b.Time, Flags: entry.FlagEcho}
	for x, err := range b.Entries() {
		switch {
		case err != nil:
			return d, fmt.Errorf("bundle %s: %w", b.First, err)
		case !x.Fact():
		case x.Position.History <= end.History:
			d.Before = x.Position
		default:
			d.Entries = append(d.Entries, x)
		}
	}
	return d, nil
}
