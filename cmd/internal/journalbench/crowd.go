package journalbench

import (
	"sync"
	"time"
)

// crowd is the plain program with many writers: what comes while one sync runs is written and synced with the next.
type crowd struct {
	plain *plain
	wake  chan struct{} // gets a token when there is something to write

	mu    sync.Mutex
	bytes []byte
	next  *shared // of those whose bytes wait
}

// shared is one sync, for all who wait for it.
type shared struct {
	done chan struct{}
	err  error // valid once done is closed
}

func newCrowd(p *plain) *crowd {
	return &crowd{plain: p, wake: make(chan struct{}, 1), next: &shared{done: make(chan struct{})}}
}

// run has all writers append the record, again and again for d, and returns how often they did.
func (c *crowd) run(record []byte, d time.Duration) (float64, error) {
	over, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		c.sync(over)
	}()
	n, err := many(d, func() error { return c.append(record) })
	close(over)
	<-ended
	return n, err
}

func (c *crowd) append(record []byte) error {
	c.mu.Lock()
	c.bytes = append(c.bytes, record...)
	mine := c.next
	c.mu.Unlock()
	select {
	case c.wake <- struct{}{}:
	default:
	}
	<-mine.done
	return mine.err
}

// sync writes what waits until it is over; then nobody waits any more.
func (c *crowd) sync(over <-chan struct{}) {
	var spare []byte
	for {
		select {
		case <-c.wake:
		case <-over:
			return
		}
		c.mu.Lock()
		bytes, mine := c.bytes, c.next
		c.bytes, c.next = spare[:0], &shared{done: make(chan struct{})}
		c.mu.Unlock()
		if len(bytes) > 0 {
			mine.err = c.plain.append(bytes)
		}
		spare = bytes
		close(mine.done)
	}
}
