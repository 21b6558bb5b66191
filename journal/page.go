package journal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal/entry"
)

// Page is a part of what a filter selects.
type Page struct {
	Entries []entry.Entry  // they share no memory with the journal
	Next    ident.Sequence // where the next page begins: From of the filter, or To when it descends; 0: there is no more
}

// Entries returns all that is selected. Unconfirmed entries, which the source has not said to be on its own disk, are left out
// unless asked for.
func (j *Journal) Entries(ctx context.Context, f Filter) ([]entry.Entry, error) {
	p, err := j.Page(ctx, f)
	return p.Entries, err
}

// Page returns the selected entries in order, as far as the limits of f let it. Sequences do not change as the journal grows,
// so pages neither overlap nor leave something out. ErrNotHeld: the receivers that f names are not here.
func (j *Journal) Page(ctx context.Context, f Filter) (Page, error) {
	var p *page
	err := f.Validate()
	if err == nil {
		err = j.settle(func() error {
			p = &page{ctx: ctx, f: &f}
			s, err := j.find(&f)
			if err != nil || s.From > s.To {
				return err
			}
			if f.Descending {
				return p.descend(j, s)
			}
			return p.ascend(j, s)
		})
	}
	if err != nil {
		return Page{}, fmt.Errorf("list entries of journal %s: %w", j.disk.id, err)
	}
	return Page{Entries: p.entries, Next: p.next}, nil
}

// find returns the sequences among which f selects. Receivers at the ends are read once when their points are needed.
func (j *Journal) find(f *Filter) (span, error) {
	for {
		j.mu.RLock()
		s := span{From: max(j.view.First, 1), To: j.view.Last}
		if !f.IncludeUnconfirmed {
			s.To = min(s.To, j.view.Confirmed)
		}
		s, err := f.within(s, j.receivers)
		var unread *receiver
		if err == nil && s.From <= s.To && (!f.Since.IsZero() || !f.Until.IsZero() || !f.PositionFrom.IsZero() || !f.PositionTo.IsZero()) {
			for _, end := range []ident.Sequence{s.From, s.To} {
				if i := j.indexLocked(end); i >= 0 && !j.receivers[i].indexed {
					unread = j.receivers[i]
					break
				}
			}
		}
		j.mu.RUnlock()
		if unread == nil {
			return s, err
		}
		if err := j.index(unread); err != nil {
			return s, err
		}
	}
}

// page collects what a filter selects.
type page struct {
	ctx     context.Context
	f       *Filter
	entries []entry.Entry
	next    ident.Sequence
	bytes   int64 // of entries
	scanned int64 // of bundles
}

// full tells whether there is no room for another entry; an entry of any size has room in an empty page.
func (p *page) full() bool {
	return p.f.Limit > 0 && len(p.entries) >= p.f.Limit || p.f.Bytes > 0 && p.bytes >= p.f.Bytes
}

// ends tells whether no other bundle is looked at.
func (p *page) ends() bool { return p.full() || p.f.Scan > 0 && p.scanned >= p.f.Scan }

// take adds an entry.
func (p *page) take(e entry.Entry) {
	p.entries = append(p.entries, detach(e))
	p.bytes += int64(weight(&e))
}

// weight is about what an entry takes in memory.
func weight(e *entry.Entry) int {
	n := 128 + len(e.File) + len(e.Key) + len(e.Data)
	for _, i := range []*entry.Image{e.Before, e.After} {
		if i != nil {
			n += len(i.Value)
		}
	}
	return n
}

func (p *page) ascend(j *Journal, s span) error {
	from, err := j.start(s.From)
	if err != nil {
		return err
	}
	var wrong error
	err = j.walk(from, func(b entry.Bundle) bool {
		if wrong = context.Cause(p.ctx); wrong != nil || p.f.Transaction != 0 && b.First > p.f.Transaction {
			return false
		}
		if b.Last() < s.From {
			return true // on the way from the nearest point: counted, a page could end before it began
		}
		p.scanned += int64(len(b.Raw))
		for e, err := range b.Entries() {
			if err != nil || e.Sequence > s.To {
				wrong = err
				return false
			}
			if p.full() {
				p.next = e.Sequence
				return false
			}
			if e.Sequence >= s.From && p.f.Selects(&e) {
				p.take(e)
			}
		}
		if b.Last() >= s.To {
			return false
		}
		if p.ends() {
			p.next = b.Last() + 1
		}
		return p.next == 0
	})
	return errors.Join(err, wrong)
}

// descend reads forward from one point to the next one already read, from the end to the beginning.
func (p *page) descend(j *Journal, s span) error {
	for s.From <= s.To {
		from, err := j.start(s.To)
		if err != nil {
			return err
		}
		var found []entry.Entry
		var wrong error
		err = j.walk(from, func(b entry.Bundle) bool {
			if wrong = context.Cause(p.ctx); wrong != nil {
				return false
			}
			p.scanned += int64(len(b.Raw))
			for e, err := range b.Entries() {
				if err != nil || e.Sequence > s.To {
					wrong = err
					return false
				}
				if e.Sequence >= s.From && p.f.Selects(&e) {
					found = append(found, e)
				}
			}
			return b.Last() < s.To
		})
		if err := errors.Join(err, wrong); err != nil {
			return err
		}
		for _, e := range slices.Backward(found) {
			if p.full() {
				p.next = e.Sequence
				return nil
			}
			p.take(e)
		}
		s.To = from - 1
		if p.ends() && s.From <= s.To {
			p.next = s.To
			return nil
		}
	}
	return nil
}

// detach copies what e shares with its bundle.
func detach(e entry.Entry) entry.Entry {
	e.Key, e.Data = bytes.Clone(e.Key), bytes.Clone(e.Data)
	for _, i := range []**entry.Image{&e.Before, &e.After} {
		if *i != nil {
			c := **i
			c.Value = bytes.Clone(c.Value)
			*i = &c
		}
	}
	return e
}
