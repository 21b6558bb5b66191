package replica

import (
	"context"
	"fmt"
)

// Written is what became of one transaction of a batch. Err is what Write would have returned.
type Written struct {
	Receipt Receipt
	Err     error
}

// WriteAll is Write for several transactions: they are sequenced in their order, and together where that can be. After one
// whose error is ErrNotPrimary or ErrNotSequenced no later one is done.
func (r *Replica) WriteAll(ctx context.Context, all []Transaction) []Written {
	out, requests := make([]Written, len(all)), make([]*request, len(all))
	p := r.primary.Load()
	for i := range all {
		switch err := all[i].validate(); {
		case err != nil:
			out[i].Err = err
		case p == nil:
			out[i].Err = ErrNotPrimary
		case p.refuse.Load():
			out[i].Err = ErrNoSync
		default:
			q := newRequest(all[i].size())
			q.writes, q.conditions, q.program, q.once = all[i].Writes, all[i].Conditions, all[i].Program, all[i].Once
			requests[i] = q
		}
	}
	if p == nil {
		return out
	}
	p.queue.pushAll(ctx, requests, out)
	p.queue.awaitAll(ctx, requests, out)
	for i := range out {
		if out[i].Receipt.Replayed {
			r.find(&out[i].Receipt)
		}
	}
	return out
}

// pushAll adds requests in their order, as many at once as there is room for. From the first that is not taken on none is:
// those are set to nil, and their errors in out.
func (q *queue) pushAll(ctx context.Context, requests []*request, out []Written) {
	for from := 0; from < len(requests); {
		freed, to, err := q.pushSome(requests, from, out)
		if err == nil && to == from { // no room
			select {
			case <-freed:
				continue
			case <-ctx.Done():
				err = fmt.Errorf("%w: the queue is full: %w", ErrNotSequenced, context.Cause(ctx))
			}
		}
		if err != nil {
			for i := to; i < len(requests); i++ {
				if requests[i] != nil {
					requests[i], out[i].Err = nil, err
				}
			}
			return
		}
		from = to
	}
}

// pushSome adds requests from the given one on, and returns behind the last one that there was room for.
func (q *queue) pushSome(requests []*request, from int, out []Written) (freed <-chan struct{}, to int, err error) {
	freed = q.freed.wait()
	q.mu.Lock()
	for to = from; to < len(requests); to++ {
		r := requests[to]
		switch {
		case r == nil:
			continue
		case r.bytes > q.max:
			requests[to], out[to].Err = nil, fmt.Errorf("%w: %d bytes, the queue holds %d", ErrQueueFull, r.bytes, q.max)
			continue
		case q.over != nil:
			err = q.over
		}
		if err != nil || q.bytes+r.bytes > q.max {
			break
		}
		q.bytes += r.bytes
		q.waiting = append(q.waiting, r)
	}
	q.mu.Unlock()
	if to > from {
		q.filled.fire()
	}
	return freed, to, err
}

// awaitAll waits for the outcomes of requests that were pushed. When ctx ends those that were not taken are withdrawn, the
// last one first: so none is done after one that was withdrawn.
func (q *queue) awaitAll(ctx context.Context, requests []*request, out []Written) {
	left := len(requests)
	for i := left - 1; i >= 0; i-- { // once the last one is answered the others mostly are: they wake nobody
		if r := requests[i]; r != nil {
			select {
			case o := <-r.done:
				out[i], requests[i] = Written{o.receipt, o.err}, nil
			case <-ctx.Done():
			}
			break
		}
	}
	for i, r := range requests {
		if r == nil {
			continue
		}
		select {
		case o := <-r.done:
			out[i], requests[i] = Written{o.receipt, o.err}, nil
			continue
		case <-ctx.Done():
		}
		left = i
		break
	}
	for i := len(requests) - 1; i >= left; i-- {
		if r := requests[i]; r != nil {
			out[i].Receipt, out[i].Err = q.await(ctx, r)
		}
	}
}
