package remote

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal"
	"github.com/understudy-ha/understudy/journal/remote/wire"
)

// match answers offers until the target is ready. It has no deadline of its own: the target may be removing entries, and
// shows by its heartbeats that it lives.
func (p *shipment) match(ctx context.Context) (wire.Start, error) {
	tick := time.NewTicker(p.s.o.Heartbeat)
	defer tick.Stop()
	found := false
	for {
		select {
		case offer := <-p.offers:
			if err := p.goesOn(offer); err != nil {
				return wire.Start{}, err
			}
			m, done, err := p.answer(ctx, offer)
			if err != nil {
				return wire.Start{}, err
			}
			if err := p.send(m); err != nil {
				return wire.Start{}, err
			}
			found = done
		case start := <-p.starts:
			if p.begin != nil && found {
				if err := p.begun(start); err != nil {
					return wire.Start{}, err
				}
			}
			if !found || start.From != p.common.Sequence+1 || start.Window == 0 {
				return wire.Start{}, &wire.FormatError{Type: wire.TypeStart, Reason: "does not follow from the match"}
			}
			p.started = true
			return start, nil
		case <-tick.C:
			if err := p.live(); err != nil {
				return wire.Start{}, err
			}
		case <-ctx.Done():
			return wire.Start{}, context.Cause(ctx)
		}
	}
}

// goesOn says why an offer is none that a target makes, or nil. Offers go downwards and are full until the last one, so that they
// come to an end; only the first point of the first may lie beyond what Hello said.
func (p *shipment) goesOn(offer wire.Offer) error {
	n := len(offer.Points)
	switch {
	case p.s.o.Protocol != 0 && !offer.Checked:
		return &Refusal{wire.CodeVersion, (&ident.OtherProtocolError{Node: p.s.o.Target, Ours: p.s.o.Protocol}).Error()}
	case n == 0 || !offer.Last && n < wire.MaxOffer:
		return &wire.FormatError{Type: wire.TypeOffer, Reason: fmt.Sprintf("%d points, and more to come", n)}
	case p.offered > 0 && offer.Points[0].Sequence >= p.offered,
		p.offered == 0 && !offer.Last && offer.Points[1].Sequence > p.helloEnd: // a copy may begin beyond that, and has no more then
		return &wire.FormatError{Type: wire.TypeOffer, Reason: "offers do not go downwards"}
	}
	p.offered = max(offer.Points[n-1].Sequence, 1)
	return nil
}

// answer answers an offer. done: a Start is what comes next.
func (p *shipment) answer(ctx context.Context, offer wire.Offer) (m wire.Message, done bool, err error) {
	if p.begin == nil {
		m, err := p.compare(ctx, offer)
		return m, m.Found, err
	}
	view, _ := p.s.o.Journal.View()
	p.begin.Point, p.begin.Found, err = p.highest(offer, view.Last)
	if err == nil && !p.begin.Found && !offer.Last {
		return wire.Match{End: view.Last}, false, nil
	}
	p.common = p.begin.Point
	return *p.begin, true, err
}

// begun takes in where the copy goes on: at the common end, or with the receiver that was named.
func (p *shipment) begun(start wire.Start) error {
	if !p.begin.Found || start.From != p.common.Sequence+1 {
		chain, ok, err := p.s.o.Journal.ChainAt(p.begin.After)
		if err != nil || !ok {
			return fmt.Errorf("look up sequence %s: %w", p.begin.After, errors.Join(err, journal.ErrNotHeld))
		}
		p.common = wire.Point{Sequence: p.begin.After, Chain: chain}
	}
	if start.From == p.common.Sequence+1 {
		p.s.o.Began(start.From)
	}
	return nil
}

// highest finds the highest offered point up to last that this journal has with the same chain.
func (p *shipment) highest(offer wire.Offer, last ident.Sequence) (point wire.Point, found bool, err error) {
	j := p.s.o.Journal
	view, _ := j.View()
	base := max(view.First, 1) - 1
	for _, point := range offer.Points {
		if point.Sequence > last || point.Sequence < base {
			continue
		}
		chain, ok, err := j.ChainAt(point.Sequence)
		if err != nil {
			return wire.Point{}, false, fmt.Errorf("look up sequence %s: %w", point.Sequence, err)
		}
		if ok && chain == point.Chain {
			return point, true, nil
		}
	}
	return wire.Point{}, false, nil
}

// compare finds the highest offered point that this journal has with the same chain.
func (p *shipment) compare(ctx context.Context, offer wire.Offer) (wire.Match, error) {
	j := p.s.o.Journal
	view, _ := j.View()
	base := max(view.First, 1) - 1
	point, found, err := p.highest(offer, view.Last)
	if err != nil {
		return wire.Match{}, err
	}
	if found {
		p.common = point
		return wire.Match{
			Found: true, Point: point, End: view.Last,
			Shorter: !p.s.o.Author && point.Sequence == view.Last,
		}, nil
	}
	if p.recalled(ctx, offer, base) {
		return wire.Match{}, errRematch("what the target needs is read back from the archive")
	}
	if !offer.Last {
		return wire.Match{End: view.Last}, nil
	}
	if len(offer.Points) == 1 && offer.Points[0].Sequence == 0 && base > 0 {
		// The target has nothing, and the receivers before base are gone everywhere: it begins where this journal does. A relay
		// cannot know that: the primary may still have them.
		chain, ok, err := j.ChainAt(base)
		if err == nil && ok && p.s.o.Relay == nil {
			p.common = wire.Point{Sequence: base, Chain: chain}
			return wire.Match{Found: true, Point: p.common, End: view.Last}, nil
		}
	}
	return wire.Match{}, &Refusal{
		wire.CodePriming,
		fmt.Sprintf("node %s has no part of %s in common with what is kept here (from sequence %s): its copy must be primed anew",
			p.s.o.Target, j.ID(), view.First),
	}
}
