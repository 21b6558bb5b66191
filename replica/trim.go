package replica

import (
	"context"
	"fmt"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal"
	"github.com/understudy-ha/understudy/replica/core"
)

// trim removes the unconfirmed tail of every copy that is not the present primary's journal, as far as cutRule lets it go:
// the entries live on in another journal here, or are outside the history. It runs after Open.
func (r *Replica) trim(ctx context.Context, g *fsm.Group) error {
	if !core.TrimDue(g, r.gate.epoch()) {
		return nil
	}
	for _, j := range r.shelf.all() {
		author := j.ID().Node
		if author == r.o.Node || author == g.Primary {
			continue
		}
		if v, _ := j.View(); v.Last <= core.TrimFloor(v.Confirmed, v.Found) || v.Last < v.First {
			continue
		}
		if err := r.trimCopy(ctx, g, j); err != nil {
			return err
		}
	}
	return nil
}

func (r *Replica) trimCopy(ctx context.Context, g *fsm.Group, j *journal.Journal) error {
	if _, ok, err := r.trimEnd(g, j); err != nil || !ok {
		return err // looked without the gate first: usually there is nothing to do
	}
	var from, to ident.Sequence
	err := r.gate.exclusive(ctx, func() error {
		if !core.TrimDue(g, r.gate.epoch()) {
			return nil // the next fence is under way: keep everything for its report
		}
		end, ok, err := r.trimEnd(g, j)
		if err != nil || !ok {
			return err
		}
		v, _ := j.View()
		from, to = end, v.Last
		return j.Rewind(end)
	})
	if err != nil {
		return journalFailed(j, fmt.Errorf("trim copy: %w", err))
	}
	if to > from {
		r.log.Info("removed the unconfirmed tail of a copy", "journal", j.ID(), "after", from, "up to", to)
		r.event(Event{Kind: EventTrimmed, Epoch: g.Epoch, Journal: j.ID(), First: from + 1, Last: to, Peer: j.ID().Node})
		r.moved.fire()
	}
	return nil
}

// trimEnd returns the sequence after which everything may go; ok is false when nothing may.
func (r *Replica) trimEnd(g *fsm.Group, j *journal.Journal) (end ident.Sequence, ok bool, err error) {
	c := r.cutRule(g, j.ID().Node)
	v, _ := j.View()
	return c.TrimEnd(core.TrimFloor(v.Confirmed, v.Found), v.First, v.Last, headers(j))
}
