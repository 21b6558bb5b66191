package restore

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal/entry"
)

// part is a part of a run and the receiver that it stands in.
type part struct {
	entry.Run
	in *source
}

// index is what all receivers say together: the tree of the facts, and what of it is committed.
type index struct {
	parts    map[ident.Epoch][]part // by From
	proven   []ident.Position       // committed; ascending, the highest of each receiver
	sources  []*source              // by journal and number
	unusable []string               // receivers that could not be read, and why
}

// build reads every receiver once.
func build(ctx context.Context, all []*source, progress func(done, of int)) (*index, error) {
	x := &index{parts: map[ident.Epoch][]part{}}
	var p prover
	for i, s := range all {
		progress(i, len(all))
		p.begin()
		stream, err := s.read(ctx, func(b entry.Bundle) bool {
			p.see(b)
			return true
		})
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if err != nil { // another one may have the same; if not, it is missing
			x.unusable = append(x.unusable, err.Error())
			p = prover{}
			continue
		}
		s.header, s.last, s.after, s.chain = stream.Header(), stream.Last(), stream.After(), stream.Chain()
		p.end(s)
		if !p.best.IsZero() {
			x.proven = append(x.proven, p.best)
		}
		for _, run := range stream.Pieces() {
			x.parts[run.Epoch] = append(x.parts[run.Epoch], part{Run: run, in: s})
		}
		x.sources = append(x.sources, s)
	}
	progress(len(all), len(all))
	for _, parts := range x.parts {
		slices.SortStableFunc(parts, func(a, b part) int { return cmp.Compare(a.From, b.From) })
	}
	slices.SortFunc(x.proven, ident.Position.Compare)
	x.proven = slices.Compact(x.proven)
	slices.SortStableFunc(x.sources, func(a, b *source) int {
		return cmp.Or(strings.Compare(string(a.header.ID.Node), string(b.header.ID.Node)), cmp.Compare(a.header.Number, b.header.Number), cmp.Compare(a.last, b.last))
	})
	return x, nil
}

// prover finds what the bundles of a receiver prove to be committed. It goes on from receiver to receiver of one journal.
type prover struct {
	chain  ident.Chain // after the last receiver seen
	recent []fact      // bundles with facts beyond what was said to be committed, ascending
	newest fact        // the one at or before it
	best   ident.Position
	fresh  bool
}

// fact is a bundle with facts.
type fact struct {
	last    ident.Sequence
	session ident.Epoch
	after   ident.Position
}

const maxRecent = 1 << 20 // bundles that wait for a mark; beyond that the oldest are not proven

func (p *prover) begin() { p.best, p.fresh = ident.Position{}, true }

func (p *prover) see(b entry.Bundle) {
	if p.fresh { // whether it continues what was seen before shows in its chain
		if p.fresh = false; b.Chain != p.chain {
			p.recent, p.newest = p.recent[:0], fact{}
		}
	}
	n := 0
	for n < len(p.recent) && p.recent[n].last <= b.Committed {
		p.newest = p.recent[n]
		n++
	}
	p.recent = slices.Delete(p.recent, 0, n)
	if b.Committed > 0 && p.newest.last > 0 && p.newest.session == b.Session && p.newest.after.Compare(p.best) > 0 {
		p.best = p.newest.after
	}
	if b.Facts > 0 && b.Flags&entry.FlagEcho == 0 {
		if len(p.recent) == maxRecent {
			p.recent = slices.Delete(p.recent, 0, maxRecent/2)
		}
		p.recent = append(p.recent, fact{last: b.Last(), session: b.Session, after: b.After()})
	}
}

func (p *prover) end(s *source) { p.chain = s.chain }

// find returns the part that holds p and reaches down furthest.
func (x *index) find(p ident.Position) (part, bool) {
	for _, c := range x.parts[p.Epoch] {
		if c.From <= p.History && p.History <= c.To {
			return c, true // they are ordered by From
		}
	}
	return part{}, false
}

// down returns the parts that lead to p, upwards, each cut to what is used of it. A *GapError says where they end.
func (x *index) down(p ident.Position) ([]part, error) {
	var way []part
	for !p.IsZero() {
		c, ok := x.find(p)
		if !ok || c.Before.History >= p.History {
			return nil, &GapError{At: p, Missing: x.missing(p), Unusable: x.unusable}
		}
		c.To = p.History
		way = append(way, c)
		p = c.Before
	}
	slices.Reverse(way)
	return way, nil
}

// passes tells whether the way down from p goes through to; ok is false when a gap comes first.
func (x *index) passes(p, to ident.Position) (through, ok bool) {
	for p.History > to.History {
		c, found := x.find(p)
		if !found || c.Before.History >= p.History {
			return false, false
		}
		if c.From <= to.History {
			return c.Epoch == to.Epoch, true
		}
		p = c.Before
	}
	return p == to, true
}

// inHistory tells whether p is committed, as far as can be told.
func (x *index) inHistory(p ident.Position) error {
	for _, q := range x.proven {
		if q.History < p.History {
			continue
		}
		if through, ok := x.passes(q, p); ok && through {
			return nil
		} else if ok {
			return fmt.Errorf("%w: %s is not part of the history, which leads to %s another way: it was undone", ErrTarget, p, q)
		}
	}
	if _, ok := x.find(p); !ok {
		return &GapError{At: p, Missing: x.missing(p), Unusable: x.unusable}
	}
	return fmt.Errorf("%w: nothing here proves that %s was committed; the highest position so proven is %s", ErrTarget, p, x.tip())
}

// tip is the highest position that is known to be committed.
func (x *index) tip() ident.Position {
	if len(x.proven) == 0 {
		return ident.Position{}
	}
	return x.proven[len(x.proven)-1]
}

// beyond returns the highest position that stands on tip.
func (x *index) beyond(tip ident.Position) ident.Position {
	best := tip
	for epoch, parts := range x.parts {
		for _, c := range parts {
			end := ident.Position{Epoch: epoch, History: c.To}
			if end.Compare(best) <= 0 {
				continue
			}
			if through, ok := x.passes(end, tip); ok && through {
				best = end
			}
		}
	}
	return best
}

// missing names the receivers that may hold p: holes in the journals, what went before the oldest, what comes after the newest.
func (x *index) missing(p ident.Position) []string {
	var out []string
	for i, s := range x.sources {
		id, first := s.header.ID, i == 0 || x.sources[i-1].header.ID != s.header.ID
		if first && s.header.Number > 1 && p.History <= s.header.Start.History {
			out = append(out, fmt.Sprintf("receivers 000001 to %s of journal %s", s.header.Number-1, id))
		}
		last := i == len(x.sources)-1 || x.sources[i+1].header.ID != id
		switch {
		case last && p.History > s.after.History:
			out = append(out, fmt.Sprintf("receivers from %s on of journal %s", s.header.Number+1, id))
		case !last && x.sources[i+1].header.Number > s.header.Number+1 && p.History > s.after.History && p.History <= x.sources[i+1].header.Start.History:
			out = append(out, fmt.Sprintf("receivers %s to %s of journal %s", s.header.Number+1, x.sources[i+1].header.Number-1, id))
		}
	}
	return out
}
