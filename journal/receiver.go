package journal

import (
	"fmt"
	"math"
	"slices"
	"sort"

	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal/entry"
)

// fileName returns the name of a receiver's file in the journal's directory.
func fileName(n ident.ReceiverNumber) string { return n.String() + ".rcv" }

// tail is the state of a journal after its newest bundle: what the next one must continue.
type tail struct {
	last  ident.Sequence
	after ident.Position
	chain ident.Chain
	run   Run // in progress, from its very beginning; zero when there was no fact yet
}

// continues tells whether the facts of h belong to the run in progress.
func (t *tail) continues(h entry.Header) bool {
	return t.run.First != 0 && h.Before == t.after && h.Fact.Epoch == t.after.Epoch
}

// add moves the tail behind the bundle, after which the chain is next.
func (t *tail) add(h entry.Header, next ident.Chain) {
	if h.Facts > 0 {
		if !t.continues(h) {
			t.run = Run{Epoch: h.Fact.Epoch, From: h.Fact.History, Before: h.Before, First: h.First}
		}
		t.after = h.After()
		t.run.To, t.run.Last = t.after.History, h.Last()
	}
	t.last, t.chain = h.Last(), next
}

// accepts says why h cannot stand behind the tail, or nil. The sequence is not looked at.
func (t *tail) accepts(h entry.Header) error {
	if h.Chain != t.chain {
		return fmt.Errorf("%w: bundle at sequence %s has chain %s, want %s", errChain, h.First, h.Chain, t.chain)
	}
	if h.Facts == 0 && h.Before != t.after {
		return fmt.Errorf("%w: bundle at sequence %s without facts stands at history %s, want %s", errChain, h.First, h.Before, t.after)
	}
	return nil
}

// point is a mark in a receiver from which bundles can be read.
type point struct {
	first   ident.Sequence
	offset  int64
	history ident.History // before the bundle
	newest  int64         // latest time of the bundles before it in the receiver; unix nanoseconds
	oldest  int64         // earliest time of the bundles from it up to the next point
}

// pointSpacing is about how far points lie apart: what a look-up reads at most too much.
const pointSpacing = 64 << 10

// receiver is what is known about one receiver. Fields change only under Journal.mu; a detached receiver does not change but
// for its points, which are found when first needed.
type receiver struct {
	header   ReceiverHeader
	raw      []byte // the header's bytes, never modified
	tail            // behind its last bundle
	closed   bool   // its last bundle holds J NR
	packed   bool   // it holds compressed bundles; known when indexed
	indexed  bool   // end and points are known
	end      int64  // behind its last bundle
	written  int64  // up to here the file may be read
	size     int64  // of the file
	allotted int64  // up to here its space is certain; at least end
	pieces   []Run  // the parts of runs that stand in it
	points   []point
	newest   int64 // latest time of its bundles; known when indexed, else as in an empty receiver
}

// newReceiver returns an empty receiver.
func newReceiver(h ReceiverHeader, raw []byte) *receiver {
	return &receiver{
		header: h, raw: raw, indexed: true, end: HeaderSize, written: HeaderSize, newest: math.MinInt64,
		tail: tail{last: h.First - 1, after: h.Start, chain: h.Chain, run: h.Run},
	}
}

func (r *receiver) empty() bool { return r.last < r.header.First }

// accepts says why b cannot be the next bundle of r, or nil. The sequence is not looked at.
func (r *receiver) accepts(b entry.Bundle) error {
	if err := r.tail.accepts(b.Header); err != nil {
		return err
	}
	switch {
	case r.closed:
		return fmt.Errorf("%w: the receiver has ended with J NR", errStructure)
	case r.empty() != b.Holds(entry.Journal, entry.Previous):
		return fmt.Errorf("%w: J PR must be the first bundle of a receiver and nothing else", errStructure)
	}
	return nil
}

// add records the bundle that stands at r.end.
func (r *receiver) add(b entry.Bundle) { r.addChained(b, entry.NextChain(b.Chain, b.Raw)) }

// addChained is add for a bundle after which the chain is known.
func (r *receiver) addChained(b entry.Bundle, next ident.Chain) {
	h := b.Header
	if n := len(r.points); n == 0 || r.end-r.points[n-1].offset >= pointSpacing {
		r.points = append(r.points, point{first: h.First, offset: r.end, history: h.Before.History, newest: r.newest, oldest: h.Time})
	}
	q := &r.points[len(r.points)-1]
	q.oldest, r.newest = min(q.oldest, h.Time), max(r.newest, h.Time)
	if h.Facts > 0 {
		to := h.After().History
		switch n := len(r.pieces); {
		case !r.continues(h):
			r.pieces = append(r.pieces, Run{Epoch: h.Fact.Epoch, From: h.Fact.History, To: to, Before: h.Before, First: h.First, Last: h.Last()})
		case n == 0: // the run goes on from the receiver before
			r.pieces = append(r.pieces, Run{Epoch: h.Fact.Epoch, From: h.Fact.History, To: to, Before: h.Before, First: r.header.First, Last: h.Last()})
		default:
			r.pieces[n-1].To, r.pieces[n-1].Last = to, h.Last()
		}
	}
	r.packed = r.packed || h.Flags&entry.FlagCompressed != 0
	r.tail.add(h, next)
	r.end += int64(h.Length)
	r.closed = b.Holds(entry.Journal, entry.Next)
}

// assume fills in what the next receiver's header says about r, when no run begins in r. So r need not be read.
func (r *receiver) assume(next ReceiverHeader) {
	r.tail = tail{last: next.First - 1, after: next.Start, chain: next.Chain, run: next.Run}
	r.closed, r.indexed, r.written = true, false, r.size
	if next.Start != r.header.Start {
		r.pieces = []Run{{
			Epoch: next.Start.Epoch, From: r.header.Start.History + 1, To: next.Start.History, Before: r.header.Start,
			First: r.header.First, Last: next.Run.Last,
		}}
	}
}

// sameRun tells whether the run in progress at the start of r is still the one in progress at the start of next.
func (r *receiver) sameRun(next ReceiverHeader) bool {
	a, b := r.header.Run, next.Run
	return a.First == b.First && a.Before == b.Before && a.Epoch == b.Epoch
}

// pointBelow returns the last point at or below seq.
func (r *receiver) pointBelow(seq ident.Sequence) point {
	i := sort.Search(len(r.points), func(i int) bool { return r.points[i].first > seq })
	return r.points[i-1]
}

// pointBefore returns a point from which the bundle with the fact h of piece p is reached soon.
func (r *receiver) pointBefore(p Run, h ident.History) point {
	i := sort.Search(len(r.points), func(i int) bool {
		q := r.points[i]
		return q.first > p.Last || q.first > p.First && q.history >= h
	})
	return r.points[i-1]
}

func (r *receiver) info(attached bool) ReceiverInfo {
	return ReceiverInfo{
		Number: r.header.Number, First: r.header.First, Last: r.last, Start: r.header.Start, Chain: r.header.Chain,
		Bytes: r.size, Attached: attached, Created: r.header.Created,
	}
}

// extend adds piece p to the runs, which are maximal: it lengthens the last one when it continues it. The slice before is not
// modified.
func extend(runs []Run, p Run) []Run {
	if n := len(runs); n > 0 {
		last := runs[n-1]
		if p.Epoch == last.Epoch && p.Before == (ident.Position{Epoch: last.Epoch, History: last.To}) {
			last.To, last.Last = p.To, p.Last
			return append(slices.Clip(runs[:n-1]), last)
		}
	}
	return append(slices.Clip(runs), p)
}

// runsOf joins the pieces of all receivers.
func runsOf(receivers []*receiver) []Run {
	var runs []Run
	for _, r := range receivers {
		for _, p := range r.pieces {
			runs = extend(runs, p)
		}
	}
	return runs
}
