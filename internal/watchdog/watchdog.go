// Package watchdog notices calls to a disk that do not return. A process whose disk hangs goes on with its heartbeats and
// holds what it holds for ever, unless somebody ends it.
package watchdog

import (
	"fmt"
	"sync"
	"time"
)

// looks is how often a call must have been seen running before it counts as hanging. A process that was stopped, or got no
// processor, looks late but not often, and its calls are not taken for hanging when it goes on.
const looks = 8

// HangError says which call did not return.
type HangError struct {
	Disk string // whose, such as "data disk"
	Call string
	For  time.Duration
}

func (e *HangError) Error() string {
	return fmt.Sprintf("%s hangs: %s has not returned for %s; the process ends so that another node can take over: check the disk, then start the node again",
		e.Disk, e.Call, e.For.Round(time.Millisecond))
}

// Watchdog watches calls. The zero value is of no use; a nil Watchdog watches nothing.
type Watchdog struct {
	disk   string
	limit  time.Duration
	onHang func(error)
	stop   chan struct{} // closed by Close
	once   sync.Once
	work   sync.WaitGroup

	mu      sync.Mutex
	next    uint64
	running map[uint64]*call
}

// call is one that has not returned.
type call struct {
	name  string
	since time.Time
	seen  int // looks that found it running
}

// New starts a watch over calls to disk. The first one that lasts longer than limit is told to onHang, once. Without a limit
// it returns nil.
func New(disk string, limit time.Duration, onHang func(error)) *Watchdog {
	if limit <= 0 {
		return nil
	}
	w := &Watchdog{disk: disk, limit: limit, onHang: onHang, stop: make(chan struct{}), running: map[uint64]*call{}}
	w.work.Go(w.watch)
	return w
}

// Enter notes that a call begins; the result must be called when it has returned.
func (w *Watchdog) Enter(name string) (leave func()) {
	if w == nil {
		return func() {}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.next++
	id := w.next
	w.running[id] = &call{name: name, since: time.Now()}
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.running, id)
	}
}

func (w *Watchdog) watch() {
	tick := time.NewTicker(max(w.limit/looks, time.Millisecond))
	defer tick.Stop()
	for {
		select {
		case <-w.stop:
			return
		case <-tick.C:
		}
		if err := w.look(time.Now()); err != nil {
			w.onHang(err)
			return
		}
	}
}

// look returns a *HangError for the call that runs longest, when that is too long.
func (w *Watchdog) look(now time.Time) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	var worst *call
	for _, c := range w.running {
		c.seen++
		if c.seen >= looks && now.Sub(c.since) > w.limit && (worst == nil || c.since.Before(worst.since)) {
			worst = c
		}
	}
	if worst == nil {
		return nil
	}
	return &HangError{Disk: w.disk, Call: worst.name, For: now.Sub(worst.since)}
}

// Close ends the watch. It is idempotent.
func (w *Watchdog) Close() error {
	if w == nil {
		return nil
	}
	w.once.Do(func() { close(w.stop) })
	w.work.Wait()
	return nil
}
