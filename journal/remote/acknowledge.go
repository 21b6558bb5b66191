package remote

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal/remote/wire"
)

// acknowledge is the writing goroutine of a target: it says what the reading one hands over and, once Start was said, how
// far the target is, at each change. Commits wait for it, so it does nothing else.
func (in *inbound) acknowledge(ctx context.Context) error {
	tick := time.NewTicker(in.server.o.Timeouts.Heartbeat)
	defer tick.Stop()
	var said wire.Ack
	started, wrote := false, false
	var changed, shifted <-chan struct{} // nil until started
	for {
		select {
		case <-changed:
		case <-shifted:
		case m := <-in.outbox:
			if err := in.write(m); err != nil {
				return in.unsent(m, err)
			}
			started = started || m.Type() == wire.TypeStart
			wrote = true
		case <-tick.C:
			if !wrote {
				if err := in.write(wire.Heartbeat{}); err != nil {
					return in.unsent(wire.Heartbeat{}, err)
				}
			}
			wrote = false
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if started {
			leave, err := in.gate.Enter()
			if err != nil {
				return err
			}
			view, viewChanged := in.copy.View()
			held, applied, heldChanged := in.gate.Held()
			leave()
			changed, shifted = viewChanged, heldChanged
			if view.Err != nil {
				return fmt.Errorf("copy on node %s: %w", in.server.o.Self, view.Err)
			}
			ack := wire.Ack{Received: view.Last, Durable: view.Durable, Held: held, Applied: applied}
			if n := in.debt.settle(view.Durable); n > 0 {
				if err := in.write(wire.Credit{Bytes: uint64(n)}); err != nil {
					return in.unsent(wire.Credit{}, err)
				}
			}
			if ack != said {
				if err := in.write(ack); err != nil {
					return in.unsent(ack, err)
				}
				said, wrote = ack, true
			}
		}
		if err := in.w.Flush(); err != nil {
			return in.unsent(wire.Ack{}, err)
		}
	}
}

func (in *inbound) write(m wire.Message) error {
	in.said.note(time.Now())
	return in.w.Write(m)
}

func (in *inbound) unsent(m wire.Message, err error) error {
	return fmt.Errorf("send %s: %w", m.Type(), heard(err, in.hello.From, in.server.o.Timeouts.Silent))
}

// debt counts the bytes a source sent against its window and not yet got back. They are given back when they are durable,
// not when they are appended: that bounds what a slow disk can pile up in memory.
type debt struct {
	window int64 // set before use

	mu    sync.Mutex
	owed  int64 // not given back: what stands in dues, and free
	free  int64 // durable, waits for enough to be worth a frame
	dues  []due // ascending
	first int   // dues before it are settled
}

// due are bytes that are settled when last is durable.
type due struct {
	last  ident.Sequence
	bytes int64
}

// room tells whether the source was allowed to send something.
func (d *debt) room() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.owed < d.window
}

// fits tells whether the source was allowed to send n bytes at once.
func (d *debt) fits(n int64) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return n <= d.window-d.owed
}

// add notes n bytes that become durable with last.
func (d *debt) add(last ident.Sequence, n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.owed += int64(n)
	if k := len(d.dues); k > d.first && d.dues[k-1].last == last {
		d.dues[k-1].bytes += int64(n)
		return
	}
	if d.first > 0 && len(d.dues) == cap(d.dues) {
		d.dues = d.dues[:copy(d.dues, d.dues[d.first:])]
		d.first = 0
	}
	d.dues = append(d.dues, due{last, int64(n)})
}

// creditStep is what is worth a Credit frame. A source may limit itself to a window smaller than the one it was given, but
// never below twice this.
const creditStep = 64 << 10

// settle returns the bytes to give back now that durable is on disk: zero, or enough to be worth a frame.
func (d *debt) settle(durable ident.Sequence) int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	for d.first < len(d.dues) && d.dues[d.first].last <= durable {
		d.free += d.dues[d.first].bytes
		d.first++
	}
	if d.first == len(d.dues) {
		d.dues, d.first = d.dues[:0], 0
	}
	if d.free == 0 || d.free < min(d.window/8, creditStep) {
		return 0
	}
	n := d.free
	d.free, d.owed = 0, d.owed-n
	return n
}
