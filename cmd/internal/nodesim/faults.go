package nodesim

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"syscall"
	"time"
)

// op is a kind of disk operation.
type op int

const (
	opWait  op = iota // anything that takes the disk's time and may not fail here
	opWrite           // data, names
	opSync
)

// faults are what is wrong with the disks of one machine at the moment, by class of file: "journal", "store", "small" for
// promises and other files of a few bytes, "raft".
type faults struct {
	effects *effects

	mu    sync.Mutex
	rng   *rand.Rand
	slow  map[string]time.Duration
	hang  map[string]chan struct{} // closed when the disk moves again
	fail  map[string]int           // percent of writes and syncs
	full  bool
	stall int           // percent of lease checks after which the goroutine is not scheduled for a while
	base  time.Duration // of a sync on a healthy disk
	all   chan struct{} // set: the whole machine stands still
	over  bool          // the life has ended: nothing waits or fails any more
}

func newFaults(rng *rand.Rand, e *effects) *faults {
	return &faults{effects: e, rng: rng, slow: map[string]time.Duration{}, hang: map[string]chan struct{}{}, fail: map[string]int{},
		base: time.Duration(100+rng.IntN(1400)) * time.Microsecond}
}

// before is called before an operation. It waits as long as the disk hangs or is slow, and returns the error it fails with.
func (f *faults) before(class string, o op) error {
	for {
		f.mu.Lock()
		wait := f.all
		what := "pause"
		if wait == nil {
			wait, what = f.hang[class], "disk hangs"
		}
		if f.over || wait == nil || class == storeNames {
			break
		}
		f.mu.Unlock()
		f.effects.add(what, 1)
		<-wait
	}
	slow, percent, full := f.slow[class], f.fail[class], f.full
	if class == storeNames {
		percent = f.fail["store"]
	}
	if f.over {
		f.mu.Unlock()
		return nil
	}
	hit := percent > 0 && o != opWait && f.rng.IntN(100) < percent
	f.mu.Unlock()
	switch {
	case slow > 0 && o != opWrite:
		f.effects.add("disk slow", 1)
		time.Sleep(slow)
	case o == opSync && class != storeNames:
		time.Sleep(f.base)
	}
	switch {
	case full && o == opWrite && class != "raft":
		f.effects.add("disk full", 1)
		return fmt.Errorf("no space: %w", syscall.ENOSPC)
	case hit:
		f.effects.add("disk error", 1)
		return fmt.Errorf("the disk failed: %w", syscall.EIO)
	}
	return nil
}

// set changes the faults and lets waiters look again.
func (f *faults) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

func (f *faults) hangs(class string) {
	f.set(func() {
		if f.hang[class] == nil && !f.over {
			f.hang[class] = make(chan struct{})
		}
	})
}

func (f *faults) pause() {
	f.set(func() {
		if f.all == nil && !f.over {
			f.all = make(chan struct{})
		}
	})
}

func (f *faults) resume() {
	f.set(func() {
		if f.all != nil {
			close(f.all)
			f.all = nil
		}
	})
}

// heal ends all faults.
func (f *faults) heal() {
	f.set(f.healLocked)
}

func (f *faults) healLocked() {
	if f.all != nil {
		close(f.all)
		f.all = nil
	}
	for class, ch := range f.hang {
		close(ch)
		delete(f.hang, class)
	}
	clear(f.slow)
	clear(f.fail)
	f.full, f.stall = false, 0
}

// end is the end of the life: what waits goes on, unseen.
func (f *faults) end() {
	f.set(func() {
		f.over = true
		f.healLocked()
	})
}

// checked is called after a lease check: now and then the goroutine loses the processor right there, between the check and
// what it does next.
func (f *faults) checked() {
	f.mu.Lock()
	hit := !f.over && f.stall > 0 && f.rng.IntN(100) < f.stall
	d := 2*time.Second + time.Duration(f.rng.Int64N(int64(3*time.Second)))
	f.mu.Unlock()
	if hit {
		f.effects.add("stalls", 1)
		time.Sleep(d)
	}
}

// effects counts what faults really did: a fault that touched nothing tests nothing.
type effects struct {
	mu    sync.Mutex
	count map[string]int
}

func newEffects() *effects { return &effects{count: map[string]int{}} }

func (e *effects) add(what string, n int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.count[what] += n
}

// held counts something that a cut path did not let pass.
func (e *effects) held(paths ...*path) {
	for _, p := range paths {
		if p == nil {
			continue
		}
		if why := p.cause.Load(); why != nil {
			e.add(*why, 1)
		}
	}
}

func (e *effects) get(what string) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.count[what]
}

func timeoutContext(d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(context.Background(), d, errors.New("timeout of the simulation"))
}
