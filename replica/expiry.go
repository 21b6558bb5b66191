package replica

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal/entry"
	"github.com/understudy-ha/understudy/replica/store"
)

// dueBatch is how many records one request of the expirer deletes at most. One such request is under way at a time, so that a
// write never waits for more than that, however many records are due.
const dueBatch = 512

// errNotDue says that none of the records that were to be deleted is due any more: others have changed them.
var errNotDue = errors.New("nothing is due any more")

// now is the time by which this primary judges expiries. It never lies before what is journaled, by whichever clock that was: a
// record that was once deleted or overwritten as expired stays so under a new primary whose clock is behind.
func (p *primary) now() int64 { return max(p.r.o.Host.Clock.Now().UnixNano(), p.newest.Load()) }

// learnTime takes over the time of the newest bundle in the local journal. SW is never older than what it follows.
func (p *primary) learnTime() {
	p.newest.Store(p.sw.Time)
	view, _ := p.own.View()
	if b, err := p.own.BundleAt(view.Last); err == nil {
		p.newest.Store(max(p.sw.Time, b.Time))
	}
}

// expire deletes those of the given records that are still due and returns once that is committed, and how many of them, from the
// first on, it has got to. It takes no more of the queue than a quarter.
func (p *primary) expire(ctx context.Context, due []store.Expiring) (handled int, err error) {
	bytes := int64(64)
	for i := range due {
		n := int64(len(due[i].File) + len(due[i].Key) + 128)
		if i > 0 && bytes+n > p.queue.max/4 {
			due = due[:i]
			break
		}
		bytes += n
	}
	q := newRequest(bytes)
	q.due = due
	if _, err := p.submit(ctx, q); err != nil {
		return 0, fmt.Errorf("delete %d records that have expired: %w", len(due), err)
	}
	return q.handled, nil
}

// expirer is the part of a primary session that deletes records when their time is over.
type expirer struct {
	p *primary

	mu     sync.Mutex
	next   int64          // nothing in the store expires before, but what is being looked at
	past   store.Expiring // the index has nothing before, either; zero: not known
	landed int64          // the earliest expiry committed since the last look
	sooner pulse          // next went down
}

// saw takes note of what was committed to the store.
func (x *expirer) saw(changes []store.Change) {
	soonest := int64(math.MaxInt64)
	for i := range changes {
		if c := &changes[i]; c.Put != nil && c.Put.Expiry != 0 {
			soonest = min(soonest, c.Put.Expiry)
		}
	}
	x.mu.Lock()
	x.landed = min(x.landed, soonest)
	if soonest <= x.past.Expiry {
		x.past = store.Expiring{}
	}
	x.mu.Unlock()
	x.lower(soonest)
}

// advance takes note that everything up to last was deleted. Where something has landed before it, it does not know.
func (x *expirer) advance(last store.Expiring) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.past = last; x.landed <= last.Expiry {
		x.past = store.Expiring{}
	}
}

// lower says that something expires at t.
func (x *expirer) lower(t int64) {
	x.mu.Lock()
	lower := t < x.next
	x.next = min(x.next, t)
	x.mu.Unlock()
	if lower {
		x.sooner.fire()
	}
}

// begin returns from where on the index has to be looked at. Very many records may have the same expiry, so a time is not enough
// to get past those that were deleted. Until the result of that look is given to lower, next is what lands meanwhile.
func (x *expirer) begin() store.Expiring {
	x.mu.Lock()
	defer x.mu.Unlock()
	from := store.Expiring{Expiry: x.next}
	if x.past.File != "" && x.next <= x.past.Expiry {
		from = x.past
	}
	x.next, x.landed = math.MaxInt64, math.MaxInt64
	return from
}

// run deletes what is due until ctx ends, and sleeps when nothing is. When that fails, for want of room or of a secondary, it
// tries again, ever more slowly.
func (x *expirer) run(ctx context.Context) error {
	p := x.p
	x.lower(math.MinInt64)
	for slow := time.Duration(0); ; {
		if err := x.await(ctx); err != nil {
			return err
		}
		due, next, err := p.r.data.Expiring(x.begin(), p.now(), dueBatch)
		if err != nil {
			return storeFailed(fmt.Errorf("look for records that have expired: %w", err))
		}
		if len(due) == 0 {
			x.lower(next)
			continue
		}
		x.lower(due[0].Expiry)
		switch handled, err := p.expire(ctx, due); {
		case err == nil:
			x.advance(due[handled-1])
			slow = 0
			continue
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.Is(err, errNotDue):
			slow = p.r.o.Timing.Tick // the index shows what has changed them; whatever it shows, this never runs in a tight circle
		default:
			p.r.log.Debug("records that have expired wait", "reason", err)
			slow = min(max(2*slow, p.r.o.Timing.Room), 16*p.r.o.Timing.Room)
		}
		if err := pause(ctx, slow); err != nil {
			return err
		}
	}
}

// await returns when something may be due. It looks at the clock now and then, since that may be set.
func (x *expirer) await(ctx context.Context) error {
	for {
		sooner := x.sooner.wait()
		x.mu.Lock()
		next := x.next
		x.mu.Unlock()
		if next == math.MaxInt64 {
			select {
			case <-sooner:
				continue
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		now := x.p.now()
		if next <= now {
			return ctx.Err()
		}
		tick := x.p.r.o.Timing.Tick
		if left := uint64(next) - uint64(now); left < uint64(tick) { // next > now: this cannot be negative
			tick = time.Duration(left)
		}
		if err := waitAny(ctx, tick, sooner, nil); err != nil {
			return err
		}
	}
}

// expire deletes those records of a request that are due, as many as the bundle takes; the others are found again. Each deletion
// stands for itself. A record that was written again is left alone.
func (d *draft) expire(r *request) error {
	w := waiter{request: r}
	first := len(d.entries)
	for i := range r.due {
		e := &r.due[i]
		if d.size >= bundleBytes || e.Expiry > d.time { // the clock was set back
			break
		}
		r.handled = i + 1
		k := recordKey{e.File, string(e.Key)}
		old, err := d.s.current(k, e.Key)
		if err != nil {
			return err
		}
		if old != nil && old.Expiry == e.Expiry && expired(old, d.time) {
			if _, err := d.change(e.File, e.Key, nil, false); err != nil {
				return err
			}
		}
	}
	if len(d.entries) == first {
		r.refused = errNotDue
		d.refused = append(d.refused, waiter{request: r, err: r.refused})
		return nil
	}
	w.entry = len(d.entries) - 1
	w.receipt.Position = d.position(w.entry)
	r.position = w.receipt.Position
	d.flight.waiters = append(d.flight.waiters, w)
	return nil
}

// deleteLapsed deletes what a request has seen as absent because it is due, when the request itself makes no entry, or only that of its
// key. Whatever is committed carries the time, so one deletion is enough: what does not fit into the bundle is found again. What only the
// request itself had made due, and was taken back, stays.
func (d *draft) deleteLapsed() error {
	for _, k := range d.lapsed {
		if len(d.entries) > 0 && d.size >= bundleBytes {
			return nil
		}
		key := []byte(k.key)
		now, err := d.s.current(k, key)
		if err != nil {
			return err
		}
		if now == nil || !expired(now, d.time) {
			continue
		}
		if _, err := d.change(k.file, key, nil, false); err != nil {
			return err
		}
	}
	return nil
}

// makeWay answers the deletions of expired records among requests that found no room in the journal, and returns the others, if
// there are both: what is smaller may still fit, and is more urgent.
func (p *primary) makeWay(taken []*request, full error) (others []*request, ok bool) {
	var due []*request
	for _, r := range taken {
		if r.due != nil {
			due = append(due, r)
		} else {
			others = append(others, r)
		}
	}
	if len(due) == 0 || len(others) == 0 {
		return nil, false
	}
	p.decline(due, fmt.Errorf("%w: %w", ErrJournalFull, full))
	return others, true
}

// expired tells whether a record has no effect any more at the given time.
func expired(i *entry.Image, now int64) bool { return i.Expiry != 0 && i.Expiry <= now }

// again makes a request that was given back as it was before it was taken.
func (r *request) again() { r.position, r.refused = ident.Position{}, nil }
