package replica

import "sync"

// pulse wakes everybody who waits for a change. A waiter takes the channel before it looks, so that no change is missed.
// The zero value is ready.
type pulse struct {
	mu sync.Mutex
	ch chan struct{} // closed at the next fire; nil while nobody waits
}

// wait returns a channel that is closed at the next fire.
func (p *pulse) wait() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ch == nil {
		p.ch = make(chan struct{})
	}
	return p.ch
}

func (p *pulse) fire() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ch != nil {
		close(p.ch)
		p.ch = nil
	}
}
