package replica

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal/entry"
	"github.com/understudy-ha/understudy/replica/store"
)

// request is one write on its way: waiting in the queue, then sequenced in a flight, then answered once.
type request struct {
	writes     []Write
	conditions []Condition
	user       *entry.Entry     // instead of writes
	due        []store.Expiring // instead of writes: records that are deleted if they are still due
	handled    int              // of due, from the first on: not due any more once it is answered
	program    func(*View) error
	once       *Once
	bytes      int64
	made       int64        // bytes that its program made, once it is sequenced; under the queue's lock
	done       chan outcome // takes one without blocking

	sequenced chan struct{}  // closed when position and refused are final
	position  ident.Position // of its last entry; zero when it was refused
	refused   error          // a condition does not hold, or something else keeps it from being done
}

type outcome struct {
	receipt Receipt
	err     error
}

func newRequest(bytes int64) *request {
	return &request{bytes: bytes, done: make(chan outcome, 1), sequenced: make(chan struct{})}
}

// entries is how many entries the request makes; of a program nobody knows before it is run.
func (r *request) entries() int {
	n := len(r.writes)
	if r.user != nil || r.program != nil {
		n++
	}
	if r.once != nil {
		n++
	}
	return n + len(r.due)
}

// queue holds writes until they are sequenced, and counts the bytes of those that are until they are answered. A full
// queue makes callers wait.
type queue struct {
	max int64

	mu      sync.Mutex
	waiting []*request
	bytes   int64 // of all requests not answered yet
	made    int64 // by programs, for requests not answered yet; it may exceed max by a bundle, then nothing is taken
	over    error // set once: nothing is taken any more
	filled  pulse // something was added, or it is over
	freed   pulse // bytes became free, or it is over
	back    pulse // requests that were taken wait again
}

// push adds a request, waiting for room.
func (q *queue) push(ctx context.Context, r *request) error {
	if r.bytes > q.max {
		return fmt.Errorf("%w: %d bytes, the queue holds %d", ErrQueueFull, r.bytes, q.max)
	}
	for {
		q.mu.Lock()
		if q.over != nil {
			q.mu.Unlock()
			return q.over
		}
		if q.bytes+r.bytes <= q.max {
			q.bytes += r.bytes
			q.waiting = append(q.waiting, r)
			q.mu.Unlock()
			q.filled.fire()
			return nil
		}
		freed := q.freed.wait()
		q.mu.Unlock()
		select {
		case <-freed:
		case <-ctx.Done():
			return fmt.Errorf("%w: the queue is full: %w", ErrNotSequenced, context.Cause(ctx))
		}
	}
}

// take removes the oldest requests, at least one, up to the given bytes and entries. It returns nil when none waits.
func (q *queue) take(bytes int64, entries int) []*request {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.made > q.max {
		return nil
	}
	n := 0
	for n < len(q.waiting) {
		r := q.waiting[n]
		bytes -= r.bytes
		entries -= r.entries()
		if n > 0 && (bytes < 0 || entries < 0) {
			break
		}
		n++
	}
	if n == 0 {
		return nil
	}
	taken := q.waiting[:n:n]
	q.waiting = q.waiting[n:]
	return taken
}

// produced counts what the program of a request has made, until the request is answered.
func (q *queue) produced(r *request, bytes int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.made += bytes - r.made
	r.made = bytes
}

// overdrawn returns nil, or a channel closed when programs may have less in flight than now, if they have too much.
func (q *queue) overdrawn() <-chan struct{} {
	freed := q.freed.wait()
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.made > q.max {
		return freed
	}
	return nil
}

// giveBack makes requests that were taken wait again, before all others.
func (q *queue) giveBack(taken []*request) {
	q.mu.Lock()
	for _, r := range taken { // their programs are run again
		q.made -= r.made
		r.made = 0
	}
	q.waiting = slices.Concat(taken, q.waiting)
	q.mu.Unlock()
	q.back.fire()
}

// withdraw takes a request back; false when it was taken already.
func (q *queue) withdraw(r *request) bool {
	q.mu.Lock()
	for i, w := range q.waiting {
		if w == r {
			q.waiting = append(q.waiting[:i:i], q.waiting[i+1:]...)
			q.bytes -= r.bytes
			q.mu.Unlock()
			q.freed.fire()
			return true
		}
	}
	q.mu.Unlock()
	return false
}

// answer ends a request that was taken.
func (q *queue) answer(r *request, o outcome) {
	r.done <- o
	q.mu.Lock()
	q.bytes -= r.bytes
	q.made -= r.made
	r.made = 0
	q.mu.Unlock()
	q.freed.fire()
}

// close refuses everything that waits, and all that comes.
func (q *queue) close(err error) {
	q.mu.Lock()
	waiting := q.waiting
	q.waiting = nil
	if q.over == nil {
		q.over = err
	}
	q.mu.Unlock()
	for _, r := range waiting {
		close(r.sequenced)
		q.answer(r, outcome{err: err})
	}
	q.filled.fire()
	q.freed.fire()
}

// length is how many requests wait.
func (q *queue) length() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.waiting)
}

// await waits for the outcome of a request that was pushed.
func (q *queue) await(ctx context.Context, r *request) (Receipt, error) {
	select {
	case o := <-r.done:
		return o.receipt, o.err
	case <-ctx.Done():
	}
	for taken := true; taken; {
		back := q.back.wait()
		if q.withdraw(r) {
			return Receipt{}, fmt.Errorf("%w: %w", ErrNotSequenced, context.Cause(ctx))
		}
		select {
		case <-r.sequenced: // the bundle is being sealed, or the queue closed: neither takes long
			taken = false
		case <-back:
		}
	}
	select {
	case o := <-r.done:
		return o.receipt, o.err
	default:
	}
	if r.position.IsZero() {
		return Receipt{}, fmt.Errorf("%w: %w", ErrNotSequenced, context.Cause(ctx))
	}
	return Receipt{}, &UnknownOutcomeError{Position: r.position, Reason: context.Cause(ctx)}
}

// refuse answers everything that waits, and goes on.
func (q *queue) refuse(err error) {
	q.mu.Lock()
	waiting := q.waiting
	q.waiting = nil
	q.mu.Unlock()
	for _, r := range waiting {
		close(r.sequenced)
		q.answer(r, outcome{err: err})
	}
}
