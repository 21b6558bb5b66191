// Package switchload loads a cluster with clients that know exactly what they have to find: Redis connections that count and write, and HTTP
// writers whose every second write holds only if the one before it was done once. It measures for how long nobody, and for how long any one
// client, had to wait, while somebody else moves roles or restarts nodes. It repeats nothing that may have been done.
//
// A Load is driven by one goroutine: Resume, Watch, whatever happens to the cluster, Watch.End, Rest, Check, and so on; at last Close.
package switchload

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// Endpoint is where clients reach one node.
type Endpoint struct {
	Node  string
	HTTP  string // host:port
	Redis string // host:port
}

// Options says how much load is made. Client i speaks to node i modulo their number.
type Options struct {
	Nodes   []Endpoint
	Redis   int           // connections; each has one command under way
	Writers int           // over HTTP; each has one request under way
	Think   time.Duration // each client rests so long between two writes; 0: not at all
	Timeout time.Duration // for one write; 0: 30 s
	Moves   bool          // a client whose connection its node closes goes on at another one, as when nodes are restarted
}

// Tally counts what clients were told, since the beginning.
type Tally struct {
	Redis      int64    `json:"redis_writes"` // acknowledged
	HTTP       int64    `json:"http_writes"`  // acknowledged
	Errors     int64    `json:"errors"`       // requests that were not answered with what they asked for
	Lost       int64    `json:"lost"`         // acknowledged writes that are not there
	Duplicated int64    `json:"duplicated"`   // writes that were done more than once
	Moved      int64    `json:"moved"`        // connections that a node closed between two answers; what was sent after the last one was not done
	Examples   []string `json:"examples,omitempty"`
}

// Wrong tells whether anything was not as promised.
func (t Tally) Wrong() bool { return t.Errors+t.Lost+t.Duplicated > 0 }

func (t Tally) String() string {
	return fmt.Sprintf("%d writes (%d Redis, %d HTTP): %d errors, %d lost, %d duplicated", t.Redis+t.HTTP, t.Redis, t.HTTP, t.Errors, t.Lost, t.Duplicated)
}

const maxExamples = 20

// worker is one client.
type worker interface {
	step(ctx context.Context) error  // one write; an error means that the worker cannot go on
	check(ctx context.Context) error // reads back what is known to be there
	close()
}

// Load is running load.
type Load struct {
	o       Options
	workers []worker
	stop    context.CancelFunc
	ctx     context.Context
	joined  sync.WaitGroup

	turns sync.RWMutex // held for reading during a write; by Rest for writing

	mu       sync.Mutex
	resting  bool
	tally    Tally
	begun    []time.Time // of the write under way, by worker; zero: none
	done     []int64     // writes completed, by worker
	advanced chan struct{}
	watch    *Watch
}

// New returns a load that rests.
func New(o Options) *Load {
	if o.Timeout == 0 {
		o.Timeout = 30 * time.Second
	}
	l := &Load{o: o, advanced: make(chan struct{}), resting: true}
	l.turns.Lock()
	l.ctx, l.stop = context.WithCancel(context.Background())
	for i := range o.Redis {
		l.workers = append(l.workers, newCounter(l, i))
	}
	for i := range o.Writers {
		l.workers = append(l.workers, newWriter(l, i))
	}
	l.begun, l.done = make([]time.Time, len(l.workers)), make([]int64, len(l.workers))
	for i, w := range l.workers {
		l.joined.Go(func() { l.run(i, w) })
	}
	return l
}

func (l *Load) run(i int, w worker) {
	for l.ctx.Err() == nil {
		l.turns.RLock()
		if l.ctx.Err() != nil {
			l.turns.RUnlock()
			return
		}
		l.begin(i)
		ctx, cancel := context.WithTimeout(context.WithoutCancel(l.ctx), l.o.Timeout) // the last write has an outcome, too
		err := w.step(ctx)
		cancel()
		l.end(i, err)
		l.turns.RUnlock()
		if err != nil || l.o.Think > 0 { // who is refused at once must not spin
			select {
			case <-time.After(max(l.o.Think, time.Millisecond)):
			case <-l.ctx.Done():
			}
		}
	}
}

func (l *Load) begin(i int) {
	now := time.Now()
	l.mu.Lock()
	l.begun[i] = now
	l.mu.Unlock()
}

func (l *Load) end(i int, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now() // under the lock: the ends are in order
	began := l.begun[i]
	l.begun[i] = time.Time{}
	if err != nil {
		l.failLocked("%v", err)
		return
	}
	l.done[i]++
	if i < l.o.Redis {
		l.tally.Redis++
	} else {
		l.tally.HTTP++
	}
	if l.watch != nil {
		l.watch.seeLocked(i, began, now)
	}
	close(l.advanced)
	l.advanced = make(chan struct{})
}

func (l *Load) failLocked(format string, args ...any) {
	l.tally.Errors++
	l.exampleLocked(format, args...)
}

func (l *Load) exampleLocked(format string, args ...any) {
	if len(l.tally.Examples) < maxExamples {
		l.tally.Examples = append(l.tally.Examples, fmt.Sprintf(format, args...))
	}
}

// wrong counts n writes that are lost, or were done more than once.
func (l *Load) wrong(lost, duplicated int64, format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tally.Lost += lost
	l.tally.Duplicated += duplicated
	l.exampleLocked(format, args...)
}

func (l *Load) moved() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tally.Moved++
}

// Resume lets the clients go on.
func (l *Load) Resume() {
	if l.resting {
		l.resting = false
		l.turns.Unlock()
	}
}

// Rest lets the writes under way end and begins no other; it returns when none is.
func (l *Load) Rest() {
	if !l.resting {
		l.turns.Lock()
		l.resting = true
	}
}

// Check reads back, while the load rests, what the clients know to be there.
func (l *Load) Check(ctx context.Context) error {
	if !l.resting {
		return errors.New("a load that does not rest cannot be checked")
	}
	errs := make([]error, len(l.workers))
	var checking sync.WaitGroup
	for i, w := range l.workers {
		checking.Go(func() { errs[i] = w.check(ctx) })
	}
	checking.Wait()
	return errors.Join(errs...)
}

// Tally returns the counts as they are now.
func (l *Load) Tally() Tally {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := l.tally
	t.Examples = append([]string(nil), t.Examples...)
	return t
}

// Close ends the load.
func (l *Load) Close() {
	l.stop()
	l.Resume()
	l.joined.Wait()
	for _, w := range l.workers {
		w.close()
	}
}
