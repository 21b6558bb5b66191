package replica

import (
	"context"
	"errors"
	"fmt"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal"
	"github.com/understudy-ha/understudy/journal/entry"
)

// echo records in a journal of its own, which is never shipped, what a backup replays. Each fact is recorded before it is applied,
// and is durable then: a crash leaves the store behind the echoes, never before them, and what is replayed again is not recorded
// again. A nil echo records nothing. It belongs to one role session.
type echo struct {
	r    *Replica
	j    *journal.Journal // nil: it does not open
	spec *fsm.GroupSpec   // bounds it

	known  bool
	end    ident.Position // recorded up to here
	behind bool           // the last bundle found no room
}

// record deposits the bundles, which are in order, of other nodes' journals, and in the history by table. Replication does not wait
// for room: what finds none is not recorded, and an event says so.
func (e *echo) record(ctx context.Context, table ident.HistoryTable, bundles []entry.Bundle) error {
	if e == nil || e.j == nil || len(bundles) == 0 {
		return nil
	}
	if !e.known {
		var err error
		if e.end, err = e.j.LastEcho(); err != nil {
			return journalFailed(e.j, fmt.Errorf("look for the last echo: %w", err))
		}
		e.known = true
	}
	var last ident.Sequence
	for _, b := range bundles {
		d, err := echoOf(table, e.end, b)
		if err != nil {
			return journalFailed(e.j, err)
		}
		if len(d.Entries) == 0 {
			continue
		}
		d.Session = e.r.gate.epoch()
		h, err := e.j.Deposit(d)
		if errors.Is(err, journal.ErrFull) {
			if err := e.r.boundReplays(e.spec); err != nil {
				return err
			}
			h, err = e.j.Deposit(d)
		}
		if full := errors.Is(err, journal.ErrFull); full || err == nil {
			if full && !e.behind {
				e.r.event(Event{Kind: EventNotRecorded, Journal: e.j.ID(), Position: b.Before, Detail: err.Error()})
			}
			if e.behind = full; full {
				continue
			}
		} else {
			return journalFailed(e.j, fmt.Errorf("record what is replayed: %w", err))
		}
		last, e.end = h.Last(), b.After()
	}
	if last == 0 {
		return nil
	}
	if err := e.j.WaitDurable(ctx, last); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return journalFailed(e.j, err)
	}
	return e.r.boundReplays(e.spec)
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
