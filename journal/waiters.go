package journal

import (
	"context"
	"sync"

	"github.com/understudy-ha/understudy/internal/ident"
)

// maxIdle bounds the channels that are kept for the next waiters.
const maxIdle = 1024

// waiters are those who wait for the disk. Each is woken when its own sequence is durable, not when somebody else's is.
type waiters struct {
	mu      sync.Mutex
	waiting []waiter
	idle    []chan struct{}
}

type waiter struct {
	seq  ident.Sequence
	woke chan struct{} // takes one token
}

// add registers a waiter, unless ready says that there is nothing to wait for. Whoever calls wake changes what ready looks at
// before.
func (s *waiters) add(seq ident.Sequence, ready func() bool) (woke chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if ready() {
		return nil
	}
	if n := len(s.idle); n > 0 {
		woke, s.idle = s.idle[n-1], s.idle[:n-1]
	} else {
		woke = make(chan struct{}, 1)
	}
	s.waiting = append(s.waiting, waiter{seq, woke})
	return woke
}

// done gives back the channel of a waiter that was woken.
func (s *waiters) done(woke chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.idle) < maxIdle {
		s.idle = append(s.idle, woke)
	}
}

// leave takes back a waiter that may have been woken meanwhile.
func (s *waiters) leave(woke chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, w := range s.waiting {
		if w.woke == woke {
			s.waiting = append(s.waiting[:i], s.waiting[i+1:]...)
			return
		}
	}
}

// wake wakes everyone who waits for a sequence up to last; all: everyone.
func (s *waiters) wake(last ident.Sequence, all bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	stay := s.waiting[:0]
	for _, w := range s.waiting {
		if !all && w.seq > last {
			stay = append(stay, w)
			continue
		}
		w.woke <- struct{}{}
	}
	clear(s.waiting[len(stay):])
	s.waiting = stay
}

// WaitDurable waits until seq is on this node's disk. It returns the journal's error when it fails or is closed before.
func (j *Journal) WaitDurable(ctx context.Context, seq ident.Sequence) error {
	for {
		ended := false
		woke := j.waiters.add(seq, func() bool {
			select {
			case <-j.done:
				ended = true
			default:
			}
			v := j.glance()
			return v.Durable >= seq || v.Err != nil || ended
		})
		if woke != nil {
			select {
			case <-woke:
				j.waiters.done(woke)
				if j.glance().Durable >= seq {
					return nil
				}
				continue
			case <-ctx.Done():
				j.waiters.leave(woke)
				return context.Cause(ctx)
			}
		}
		switch v := j.glance(); {
		case v.Durable >= seq:
			return nil
		case v.Err != nil:
			return v.Err
		case ended:
			return ErrClosed
		}
	}
}
