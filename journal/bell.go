package journal

import "sync/atomic"

// bell wakes all who listen. Who listens before a look at what it announces misses nothing.
type bell struct{ next atomic.Pointer[chan struct{}] }

// listen returns a channel that is closed when the bell rings next.
func (b *bell) listen() <-chan struct{} {
	for {
		if c := b.next.Load(); c != nil {
			return *c
		}
		c := make(chan struct{})
		if b.next.CompareAndSwap(nil, &c) {
			return c
		}
	}
}

func (b *bell) ring() {
	if c := b.next.Swap(nil); c != nil {
		close(*c)
	}
}
