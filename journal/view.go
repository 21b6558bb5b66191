package journal

import (
	"sync/atomic"

	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal/entry"
)

// View is what a journal looks like at one moment. It is immutable.
//
// An empty journal has First and Last 0. Otherwise Last is First-1 when the only receiver held is still empty.
type View struct {
	First   ident.Sequence // held
	Last    ident.Sequence // appended, in memory at least
	Durable ident.Sequence // on this node's disk

	// Of a copy: the source's durable and committed ends as far as known, which may lie beyond Last. Of a journal deposited
	// here Confirmed is Durable. After Open they are what the newest bundle says, which may be less than was known before.
	Confirmed, Committed ident.Sequence

	Found ident.Sequence // Last at Open, or less since something was removed: how far an earlier life may have known it confirmed

	After        ident.Position // history after Last
	DurableAfter ident.Position // history after Durable
	Chain        ident.Chain    // after Last

	Attached ident.ReceiverNumber // the newest receiver; 0: none
	Bytes    int64                // of all receiver files
	Torn     bool                 // a torn tail was cut and the journal was not compared with another copy since
	Runs     []Run                // of all facts held, in the order of their sequences; must not be modified
	Err      error                // a write or sync failed; final. Wraps ErrFailed
}

// Run is entry.Run: the run of one journal.
type Run = entry.Run

// runs collects the runs of a journal. The newest one changes with every bundle, the slice only with every new run.
type runs struct {
	base   []Run
	newest Run // zero: there are none
}

// set replaces all.
func (r *runs) set(all []Run) {
	*r = runs{}
	if n := len(all); n > 0 {
		r.base, r.newest = all[:n-1:n-1], all[n-1]
	}
}

// add takes the newest bundle's header and the piece of a run that ends with it.
func (r *runs) add(h entry.Header, p Run) {
	switch n := r.newest; {
	case n.Epoch == 0:
		r.newest = p
	case h.Fact.Epoch == n.Epoch && h.Before == n.End():
		r.newest.To, r.newest.Last = p.To, p.Last
	default:
		r.base, r.newest = append(r.base[:len(r.base):len(r.base)], n), p
	}
}

// all returns the runs in a slice of their own.
func (r *runs) all() []Run {
	if r.newest.Epoch == 0 {
		return nil
	}
	return append(r.base[:len(r.base):len(r.base)], r.newest)
}

// published is a view that readers can get at. What only few ask for is made when first asked for: the slice of runs and the
// channel.
type published struct {
	view    View
	runs    runs
	slice   atomic.Pointer[[]Run]
	changed atomic.Pointer[chan struct{}] // closed when the next view is published
}

func (p *published) channel() <-chan struct{} {
	if c := p.changed.Load(); c != nil {
		return *c
	}
	c := make(chan struct{})
	if p.changed.CompareAndSwap(nil, &c) {
		return c
	}
	return *p.changed.Load()
}

// replaced tells all who wait on p; who asks for the channel afterwards gets closed, which is.
func (p *published) replaced(closed *chan struct{}) {
	if !p.changed.CompareAndSwap(nil, closed) {
		close(*p.changed.Load())
	}
}

// all returns the runs; the slice is shared by all who ask.
func (p *published) all() []Run {
	if s := p.slice.Load(); s != nil {
		return *s
	}
	s := p.runs.all()
	p.slice.Store(&s)
	return s
}

// publishLocked publishes the present state.
func (j *Journal) publishLocked() {
	if j.record.authored {
		j.view.Confirmed = j.view.Durable
	}
	old := j.published.Swap(&published{view: j.view, runs: j.runs})
	if old != nil {
		old.replaced(&j.closedChannel)
		if old.view.Durable != j.view.Durable || old.view.Err != j.view.Err {
			j.waiters.wake(j.view.Durable, j.view.Err != nil)
		}
	}
}

// View returns the present view and a channel that is closed at the next change of any of its fields.
func (j *Journal) View() (View, <-chan struct{}) {
	p := j.published.Load()
	v := p.view
	v.Runs = p.all()
	return v, p.channel()
}

// watch returns the parts of the view that cost nothing, and a channel that is closed at the next change.
func (j *Journal) watch() (*View, <-chan struct{}) {
	p := j.published.Load()
	return &p.view, p.channel()
}

// glance returns the parts of the view that cost nothing.
func (j *Journal) glance() *View { return &j.published.Load().view }

// Mark records what the source said is durable and committed there. Marks are only ever raised, except by Rewind. In a journal
// deposited here durable is ignored.
func (j *Journal) Mark(durable, committed ident.Sequence) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.raiseMarksLocked(durable, committed) {
		j.publishLocked()
	}
}

func (j *Journal) raiseMarksLocked(durable, committed ident.Sequence) bool {
	raised := false
	if durable > j.view.Confirmed && !j.record.authored {
		j.view.Confirmed, raised = durable, true
	}
	if committed > j.view.Committed {
		j.view.Committed, raised = committed, true
	}
	return raised
}

// lowerMarksLocked forgets marks beyond last, the journal's new end.
func (j *Journal) lowerMarksLocked(last ident.Sequence) {
	j.view.Confirmed = min(j.view.Confirmed, last)
	j.view.Committed = min(j.view.Committed, last)
	j.view.Found = min(j.view.Found, last)
}

// tailLocked takes over what the receivers say, after their list or the end of the journal has changed.
func (j *Journal) tailLocked() {
	v := &j.view
	v.First, v.Last, v.Attached, v.After, v.Chain = 0, 0, 0, ident.Position{}, 0
	if n := len(j.receivers); n > 0 {
		t := j.receivers[n-1]
		v.First, v.Attached = j.receivers[0].header.First, t.header.Number
		v.Last, v.After, v.Chain = t.last, t.after, t.chain
	}
	if v.Last < v.Durable { // the end was removed
		v.Durable, v.DurableAfter = v.Last, v.After
	}
	j.runs.set(runsOf(j.receivers))
}

// appendLocked makes b the newest bundle, for readers at once and for the disk when the writer comes to it.
func (j *Journal) appendLocked(r *receiver, b entry.Bundle) {
	offset := r.end
	j.showLocked(r, b, entry.NextChain(b.Chain, b.Raw))
	j.queue.push(operation{receiver: r, bundle: b, offset: offset})
}

// showLocked makes b the newest bundle for readers. The chain after it is next.
func (j *Journal) showLocked(r *receiver, b entry.Bundle, next ident.Chain) {
	offset := r.end
	r.addChained(b, next)
	v := &j.view
	v.Last, v.After, v.Chain = r.last, r.after, r.chain
	if b.Facts > 0 {
		j.runs.add(b.Header, r.pieces[len(r.pieces)-1])
	}
	j.ring.push(ringItem{bundle: b, receiver: r.header.Number})
	if wants := j.limits.ReceiverBytes / 8; offset < wants && r.end >= wants {
		j.stock.signal()
	}
}
