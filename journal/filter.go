package journal

import (
	"bytes"
	"fmt"
	"math"
	"path"
	"slices"
	"sort"
	"time"

	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal/entry"
)

// Filter selects entries. Zero fields select everything.
type Filter struct {
	From, To                 ident.Sequence // both included
	PositionFrom, PositionTo ident.Position // facts between them, both included; entries that are no facts are left out
	Since, Until             time.Time      // both included
	Receivers                Receivers
	Codes                    []entry.Code
	Types                    []entry.Type
	Files                    []string // names, or patterns as in path.Match
	Key                      []byte   // this one
	KeyPrefix                []byte
	Transaction              ident.Sequence // first sequence of the transaction
	IncludeUnconfirmed       bool

	Images     Images
	Descending bool
	Limit      int   // entries; 0: no limit; whoever answers others sets one
	Bytes      int64 // of the entries: the one that reaches it is the last; 0: no limit
	Scan       int64 // of bundles looked at: as Bytes
}

// Receivers is a range of receivers, both included; the zero value means all that are held.
type Receivers struct {
	First, Last ident.ReceiverNumber
	Attached    bool // the attached one only
}

// Images says which images are returned.
type Images int

// The zero value returns all there are.
const (
	ImagesBoth Images = iota
	ImagesAfter
	ImagesNone
)

// Validate says why the filter makes no sense, or nil.
func (f *Filter) Validate() error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w: "+format, append([]any{entry.ErrInvalid}, args...)...)
	}
	switch {
	case f.To != 0 && f.To < f.From:
		return bad("sequence %s to %s is no range", f.From, f.To)
	case !f.PositionTo.IsZero() && f.PositionTo.Compare(f.PositionFrom) < 0:
		return bad("position %s to %s is no range", f.PositionFrom, f.PositionTo)
	case !f.Until.IsZero() && f.Until.Before(f.Since):
		return bad("time %s to %s is no range", f.Since.Format(time.RFC3339Nano), f.Until.Format(time.RFC3339Nano))
	case f.Receivers.Last != 0 && f.Receivers.Last < f.Receivers.First:
		return bad("receiver %s to %s is no range", f.Receivers.First, f.Receivers.Last)
	case f.Key != nil && f.KeyPrefix != nil:
		return bad("a key and a prefix of keys exclude each other")
	}
	for _, p := range f.Files {
		if _, err := path.Match(p, ""); err != nil {
			return bad("file pattern %q: %v", p, err)
		}
	}
	return nil
}

// Selects tells whether the filter wants e. Receivers and IncludeUnconfirmed say nothing about one entry alone.
func (f *Filter) Selects(e *entry.Entry) bool {
	switch {
	case e.Sequence < f.From, f.To != 0 && e.Sequence > f.To:
	case !f.PositionFrom.IsZero() && (e.Position.IsZero() || e.Position.Compare(f.PositionFrom) < 0):
	case !f.PositionTo.IsZero() && (e.Position.IsZero() || e.Position.Compare(f.PositionTo) > 0):
	case !f.Since.IsZero() && e.Time < f.Since.UnixNano(), !f.Until.IsZero() && e.Time > f.Until.UnixNano():
	case len(f.Codes) > 0 && !slices.Contains(f.Codes, e.Code):
	case len(f.Types) > 0 && !slices.Contains(f.Types, e.Type):
	case len(f.Files) > 0 && !slices.ContainsFunc(f.Files, func(p string) bool { return names(p, e.File) }):
	case f.Key != nil && !bytes.Equal(e.Key, f.Key):
	case f.KeyPrefix != nil && (len(e.Key) == 0 || !bytes.HasPrefix(e.Key, f.KeyPrefix)):
	case f.Transaction != 0 && e.Transaction != f.Transaction:
	default:
		return true
	}
	return false
}

// names tells whether a name, or pattern, means file. Entries without a file are meant by none.
func names(pattern, file string) bool {
	if file == "" {
		return false
	}
	ok, err := path.Match(pattern, file)
	return pattern == file || err == nil && ok
}

// Strip leaves out what f.Images does not want.
func (f *Filter) Strip(e *entry.Entry) {
	if f.Images != ImagesBoth {
		e.Before = nil
	}
	if f.Images == ImagesNone {
		e.After = nil
	}
}

// clockSlack is by how much a clock may have been set back between two entries without a search by time missing one. It
// matters for receivers that were not read yet: of the others the times are known.
const clockSlack = time.Minute

// span is a row of sequences, both included; empty when To is below From.
type span struct{ From, To ident.Sequence }

// within narrows the sequences to those that f can select, by what is known of the receivers: their headers, the runs and the
// points in them. It reads nothing. ErrNotHeld: the receivers that f names are not there.
func (f *Filter) within(s span, receivers []*receiver) (span, error) {
	s.From = max(s.From, f.From, f.Transaction)
	if f.To != 0 {
		s.To = min(s.To, f.To)
	}
	if len(receivers) == 0 {
		return span{From: 1}, nil
	}
	list, err := f.Receivers.of(receivers)
	if err != nil {
		return s, err
	}
	s.From, s.To = max(s.From, list[0].header.First), min(s.To, list[len(list)-1].last)
	s = f.withinPositions(s, list)
	return f.withinTimes(s, list), nil
}

// of returns the receivers that r names, at least one.
func (r Receivers) of(all []*receiver) ([]*receiver, error) {
	oldest, newest := all[0].header.Number, all[len(all)-1].header.Number
	first, last := max(r.First, oldest), newest
	if r.Last != 0 {
		last = min(r.Last, newest)
	}
	if r.Attached {
		first = newest
	}
	if r.First != 0 && r.First < oldest || first > last {
		return nil, fmt.Errorf("%w: receivers %s to %s are here", ErrNotHeld, oldest, newest)
	}
	return all[first-oldest : last-oldest+1], nil
}

// withinPositions narrows s to the pieces of runs that hold facts between the positions.
func (f *Filter) withinPositions(s span, list []*receiver) span {
	if f.PositionFrom.IsZero() && f.PositionTo.IsZero() {
		return s
	}
	from, to := ident.Sequence(math.MaxInt64), ident.Sequence(0)
	for _, r := range list {
		for _, p := range r.pieces {
			low := ident.Position{Epoch: p.Epoch, History: p.From}
			if p.End().Compare(f.PositionFrom) < 0 || !f.PositionTo.IsZero() && low.Compare(f.PositionTo) > 0 {
				continue
			}
			first, last := p.First, p.Last
			if r.indexed && f.PositionFrom.Compare(low) > 0 {
				first = max(first, r.pointBefore(p, f.PositionFrom.History).first)
			}
			if r.indexed && f.PositionTo.Epoch == p.Epoch && f.PositionTo.History < p.To {
				last = min(last, r.behind(p, f.PositionTo.History))
			}
			from, to = min(from, first), max(to, last)
		}
	}
	return span{From: max(s.From, from), To: min(s.To, to)}
}

// behind returns a sequence of piece p at or behind the fact h, soon after it.
func (r *receiver) behind(p Run, h ident.History) ident.Sequence {
	i := sort.Search(len(r.points), func(i int) bool { return r.points[i].first > p.First && r.points[i].history >= h })
	if i == len(r.points) {
		return p.Last
	}
	return r.points[i].first - 1
}

// withinTimes narrows s to where entries of the wanted times can stand. Times need not ascend: the facts of another node that
// were re-journaled keep theirs.
func (f *Filter) withinTimes(s span, list []*receiver) span {
	if !f.Since.IsZero() {
		since := f.Since.UnixNano()
		for len(list) > 1 && list[0].newestBound(list[1]) < since {
			list = list[1:]
		}
		r := list[0]
		s.From = max(s.From, r.header.First)
		switch {
		case r.indexed && r.newest < since:
			s.From = max(s.From, r.last+1)
		case r.indexed:
			n := sort.Search(len(r.points), func(i int) bool { return r.points[i].newest >= since })
			s.From = max(s.From, r.points[n-1].first) // the first point has nothing before it
		}
	}
	if !f.Until.IsZero() {
		until := f.Until.UnixNano()
		for len(list) > 0 {
			r := list[len(list)-1]
			end := r.endBefore(until)
			s.To = min(s.To, end)
			if end >= r.header.First {
				break
			}
			list = list[:len(list)-1]
		}
	}
	return s
}

// newestBound returns a time that no entry of r is later than; next is the receiver after it.
func (r *receiver) newestBound(next *receiver) int64 {
	if r.indexed {
		return r.newest
	}
	return next.header.Created.Add(clockSlack).UnixNano()
}

// endBefore returns the last sequence of r that can be an entry at or before the time; the one before r when there is none.
func (r *receiver) endBefore(until int64) ident.Sequence {
	if !r.indexed {
		if r.header.Created.Add(-clockSlack).UnixNano() > until {
			return r.header.First - 1
		}
		return r.last
	}
	last := r.last
	for _, p := range slices.Backward(r.points) {
		if p.oldest <= until {
			return last
		}
		last = p.first - 1
	}
	return r.header.First - 1
}
