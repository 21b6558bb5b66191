package replica

import (
	"slices"
	"sync"
	"sync/atomic"

	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal"
	"github.com/understudy-ha/understudy/journal/entry"
	"github.com/understudy-ha/understudy/replica/store"
)

// flight is one bundle from its deposit to its commit.
type flight struct {
	header  entry.Header
	changes []store.Change
	touched []touch
	waiters []waiter
}

// waiter is a request whose answer depends on a flight.
type waiter struct {
	request *request
	receipt Receipt
	entry   int   // index of its last entry in the bundle
	err     error // it was refused; told once what it saw is committed
}

// flights are the bundles of this session that are not committed yet, in order.
type flights struct {
	mu      sync.Mutex
	list    []*flight
	pending ident.Sequence // a deposit is under way: everything from here on is not committed; 0: none is
	mark    ident.Sequence // committed end, of the journal
	idle    []waiter       // refused while nothing was in flight: answered at the next look
	changed pulse
}

// begin says that a bundle is about to be deposited.
func (f *flights) begin(own *journal.Journal) {
	f.mu.Lock()
	defer f.mu.Unlock()
	v, _ := own.View()
	f.pending = v.Last + 1
}

// abandon says that it was not.
func (f *flights) abandon() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.pending = 0
}

// push adds the bundle that was deposited.
func (f *flights) push(b *flight) {
	f.mu.Lock()
	f.pending = 0
	f.list = append(f.list, b)
	f.mu.Unlock()
	f.changed.fire()
}

// attach makes refused requests wait for everything they have seen.
func (f *flights) attach(refused []waiter) {
	if len(refused) == 0 {
		return
	}
	f.mu.Lock()
	if n := len(f.list); n > 0 {
		f.list[n-1].waiters = append(f.list[n-1].waiters, refused...)
	} else {
		f.idle = append(f.idle, refused...)
	}
	f.mu.Unlock()
	f.changed.fire()
}

// restore undoes what a draft that is not deposited put into the overlay.
func (f *flights) restore(o *overlay, d *flight) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if d == nil {
		return
	}
	o.release(d.touched)
	for _, b := range f.list { // oldest first, so the newest image stays
		for i, t := range b.touched {
			o.put(t.key, b.changes[i].Put, t.at)
		}
	}
}

// snapshot returns the bundles in flight.
func (f *flights) snapshot() []*flight {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.list[:len(f.list):len(f.list)]
}

// land removes the first n bundles, which are committed, and returns who waited for them. It counts them as owed before
// anybody can see that nothing is in flight: who finds neither may take it that everybody was answered.
func (f *flights) land(n int, owed *atomic.Int64) []waiter {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []waiter
	for _, b := range f.list[:n] {
		out = append(slices.Grow(out, len(b.waiters)), b.waiters...)
	}
	f.list = f.list[n:]
	if len(f.list) == 0 {
		out = append(out, f.idle...)
		f.list, f.idle = nil, nil
	}
	owed.Add(int64(len(out)))
	return out
}

// raise computes the committed end of the journal: everything durable before the first bundle that is not committed. Events
// without facts in between move it too.
func (f *flights) raise(own *journal.Journal) ident.Sequence {
	f.mu.Lock()
	defer f.mu.Unlock()
	v, _ := own.View()
	end := v.Durable
	switch {
	case len(f.list) > 0:
		end = min(end, f.list[0].header.First-1)
	case f.pending > 0:
		end = min(end, f.pending-1)
	}
	f.mark = max(f.mark, end)
	return f.mark
}

// committed returns the committed end as computed last.
func (f *flights) committed() ident.Sequence {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.mark
}

// empty tells whether nothing is in flight.
func (f *flights) empty() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.list) == 0 && f.pending == 0 && len(f.idle) == 0
}
