package replica

import (
	"context"
	"errors"
	"fmt"

	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal"
	"github.com/understudy-ha/understudy/journal/entry"
)

// Replays names, where a journal is asked for by its author, the one in which this node records what it replays.
const Replays = ident.ReplaysWord

// echo records in a journal of its own, which is never shipped, what a backup replays. Each fact is recorded before it is applied,
// and is durable then: a crash leaves the store behind the echoes, never before them, and what is replayed again is not recorded
// again. A nil echo records nothing. It belongs to one role session.
type echo struct {
	r    *Replica
	j    *journal.Journal // nil: it does not open
	keep int              // detached receivers; -1: all

	known  bool
	end    ident.Position // recorded up to here
	behind bool           // the last bundle found no room
}

// openReplays returns the journal of what is replayed here, and makes it when it is not there yet.
func (r *Replica) openReplays() (*journal.Journal, error) {
	if j := r.replays.Load(); j != nil {
		return j, nil
	}
	o := &r.o
	j, err := journal.Open(journal.Options{
		FS: o.FS, Dir: o.FS.PathJoin(o.Dir, "replays", string(o.Group)), ID: ident.JournalID{Group: o.Group, Node: Replays}, Cluster: o.Cluster,
		ReceiverBytes: o.ReceiverBytes, Host: o.Host, Logger: o.Logger,
	})
	if err != nil {
		return nil, fmt.Errorf("open the journal of what is replayed: %w", err)
	}
	if err := setState(j, journal.Active); err != nil {
		return nil, errors.Join(err, j.Close())
	}
	r.replays.Store(j)
	return j, nil
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
	if receivers := e.j.Receivers(); e.keep >= 0 && len(receivers) > e.keep+1 {
		if err := e.j.DeleteReceivers(receivers[len(receivers)-2-e.keep].Number); err != nil {
			return journalFailed(e.j, err)
		}
	}
	return nil
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
