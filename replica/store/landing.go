package store

import "sync"

// landing keeps the taking of a view and the commit of a batch apart, for one group; Group.iterate says why. A view is taken
// in no time, a commit may hang with its disk: whoever waits gives up when the store has failed.
type landing struct {
	mu      sync.Mutex
	under   bool          // a batch lands, or waits for the views being taken
	views   int           // being taken
	changed chan struct{} // closed at the next change; nil: nobody waits
}

// look waits until no batch lands and keeps new ones waiting until leave. It returns false once failed is closed.
func (l *landing) look(failed <-chan struct{}) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.under {
		if !l.await(failed) {
			return false
		}
	}
	l.views++
	return true
}

func (l *landing) leave() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.views--
	l.wake()
}

// begin keeps new views waiting until end, and waits for those being taken. Batches of a group come one at a time.
func (l *landing) begin(failed <-chan struct{}) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.under = true
	for l.views > 0 {
		if !l.await(failed) {
			l.under = false
			return false
		}
	}
	return true
}

func (l *landing) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.under = false
	l.wake()
}

// await waits for a change, with mu given up meanwhile.
func (l *landing) await(failed <-chan struct{}) bool {
	if l.changed == nil {
		l.changed = make(chan struct{})
	}
	changed := l.changed
	l.mu.Unlock()
	defer l.mu.Lock()
	select {
	case <-changed:
		return true
	case <-failed:
		return false
	}
}

func (l *landing) wake() {
	if l.changed != nil {
		close(l.changed)
		l.changed = nil
	}
}
