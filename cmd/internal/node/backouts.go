package node

import (
	"slices"

	"github.com/understudy-ha/understudy/client"
	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/replica"
)

// promotions are the certificates of a group, oldest first, as far as they are remembered.
func (j journals) promotions(group string) []fsm.Certificate {
	_, g, err := j.n.group(group)
	if err != nil {
		return nil
	}
	return g.Switches
}

// unheard tells whether surely no client heard that the fact at p was done, although it is no part of the history of the epoch that
// was opened: none of the promotions since then lost anything that was acknowledged. What is not remembered may have.
func unheard(p ident.Position, opened ident.Epoch, promotions []fsm.Certificate) bool {
	if len(promotions) == 0 || promotions[0].Epoch > p.Epoch {
		return false
	}
	known := false
	for i := range promotions {
		c := &promotions[i]
		if c.Epoch <= p.Epoch || c.Epoch > opened {
			continue
		}
		if c.Loss != fsm.LossNone {
			return false
		}
		known = known || c.Epoch == opened
	}
	return known
}

// backout is a report for those who ask over HTTP.
func backout(b *replica.BackoutReport, promotions []fsm.Certificate) client.Backout {
	out := client.Backout{ID: b.ID, Group: string(b.Group), Node: string(b.Node), Time: b.At, To: b.Fork.Format(b.Group), Epoch: uint64(b.Epoch), Undone: b.Undone, Lost: b.Lost}
	from := b.Fork
	for i := range b.Entries {
		e := &b.Entries[i]
		if i == 0 {
			out.Journal, out.Known = e.Journal.String(), uint64(e.Sequence)-1
		}
		if e.Undone && e.Position.Compare(from) > 0 {
			from = e.Position
		}
		c := client.BackoutEntry{Sequence: uint64(e.Sequence), Position: e.Position.Format(b.Group), Type: e.Type, File: e.File, Key: client.MakeKey(e.Key), LivesOn: e.LivesOn, Undone: e.Undone}
		if c.Unheard = !e.LivesOn && unheard(e.Position, b.Epoch, promotions); c.Unheard {
			out.Unheard++
		}
		if e.BeforeExists {
			c.Before = &client.Image{Kind: uint8(e.BeforeKind), Expiry: wallTime(e.BeforeExpiry), Value: slices.Clone(e.Before)}
		}
		if e.AfterExists {
			c.After = &client.Image{Kind: uint8(e.AfterKind), Expiry: wallTime(e.AfterExpiry), Value: slices.Clone(e.After)}
		}
		out.Entries = append(out.Entries, c)
	}
	out.From = from.Format(b.Group)
	return out
}
