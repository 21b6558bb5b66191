package faultlab

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/understudy-ha/understudy/client"
	"github.com/understudy-ha/understudy/cmd/internal/oracle"
)

// outcomeOf sorts the answer to a write by the classes that docs/http.md promises. Codes that promise nothing count as unknown.
func outcomeOf(err error) oracle.Outcome {
	if err == nil {
		return oracle.OK
	}
	switch client.CodeOf(err) {
	case client.CodeUnknownOutcome, client.CodeInternal, client.CodeCorrupt, client.CodeUnsupported:
		return oracle.Unknown
	}
	return oracle.Failed
}

// localLag is the oldest copy that local reads take.
const localLag = time.Second

// Files of the workload. A key of the history is FILE/KEY.
const (
	setFile      = "set"      // keys that are written once
	registerFile = "register" // keys that several clients write
	counterFile  = "counter"  // numbers, each key written by one client
)

// Shape of the workload. Rates stay far below what the cluster can do: a history that takes minutes to check finds nothing.
const (
	adders         = 3
	registerWrites = 2
	counters       = 2
	readers        = 2
	localReaders   = 1
	registerKeys   = 6
	retireAfter    = 2                     // unknown writes to one register: each doubles the work of the checker
	pace           = 15 * time.Millisecond // between two operations of a client, on average
	writeWait      = 1500 * time.Millisecond
	unlikely       = 12 // one request in so many goes to any node that runs, stopped or not
)

// Workload is a set of clients that write and read through all nodes and remember what they were told.
type Workload struct {
	lab    *Lab
	cancel context.CancelFunc
	work   sync.WaitGroup
	record *oracle.Recorder

	mu       sync.Mutex
	retired  map[string]int // unknown writes by register
	keys     []string       // registers in use
	made     int            // registers made
	counters map[int]string // by client: which one it writes
	acked    chan struct{}  // closed and replaced at each acknowledged write
	count    int            // acknowledged writes
}

// StartWorkload starts the clients; Stop ends them.
func (l *Lab) StartWorkload(seed uint64) *Workload {
	ctx, cancel := context.WithCancel(context.Background())
	began := time.Now()
	w := &Workload{lab: l, cancel: cancel, record: oracle.NewRecorder(func() time.Duration { return time.Since(began) }), retired: map[string]int{}, counters: map[int]string{}, acked: make(chan struct{})}
	for range registerKeys {
		w.newRegister()
	}
	id := 0
	run := func(count int, do func(ctx context.Context, c *caller)) {
		for range count {
			c := &caller{w: w, id: id, rand: rand.New(rand.NewPCG(seed, uint64(id)))}
			id++
			w.work.Go(func() {
				for ctx.Err() == nil {
					do(ctx, c)
					c.rest(ctx)
				}
			})
		}
	}
	run(adders, func(_ context.Context, c *caller) { c.add() })
	run(registerWrites, func(_ context.Context, c *caller) { c.writeRegister() })
	run(counters, func(_ context.Context, c *caller) { c.countUp() })
	run(readers, func(_ context.Context, c *caller) { c.read() })
	run(localReaders, func(_ context.Context, c *caller) { c.readLocal() })
	return w
}

// Stop lets the operations under way end and returns the history.
func (w *Workload) Stop() []oracle.Operation {
	w.cancel()
	w.work.Wait()
	return w.record.Operations()
}

// Acknowledged counts the writes that were acknowledged.
func (w *Workload) Acknowledged() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.count
}

// AwaitAcknowledged waits until n more writes were acknowledged.
func (w *Workload) AwaitAcknowledged(ctx context.Context, n int, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	w.mu.Lock()
	goal := w.count + n
	w.mu.Unlock()
	for {
		w.mu.Lock()
		have, acked := w.count, w.acked
		w.mu.Unlock()
		if have >= goal {
			return nil
		}
		select {
		case <-acked:
		case <-ctx.Done():
			return fmt.Errorf("%d of %d writes were acknowledged within %s", n-(goal-have), n, limit)
		}
	}
}

func (w *Workload) newRegister() {
	w.keys = append(w.keys, fmt.Sprintf("r%03d", w.made))
	w.made++
}

// wrote is told of the end of every write.
func (w *Workload) wrote(o *oracle.Operation) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch o.Outcome {
	case oracle.OK:
		w.count++
		close(w.acked)
		w.acked = make(chan struct{})
	case oracle.Unknown:
		if w.retired[o.Key]++; w.retired[o.Key] != retireAfter {
			return
		}
		if i := slices.Index(w.keys, strings.TrimPrefix(o.Key, registerFile+"/")); i >= 0 {
			w.keys = slices.Delete(slices.Clone(w.keys), i, i+1)
			w.newRegister()
		}
	}
}

// caller is one client of the workload.
type caller struct {
	w    *Workload
	id   int
	rand *rand.Rand
	n    int // operations begun
}

func (c *caller) rest(ctx context.Context) {
	t := time.NewTimer(time.Duration(c.rand.Int64N(int64(2 * pace))))
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// node picks whom to ask.
func (c *caller) node() *Node {
	for range 20 {
		n := c.w.lab.nodes[c.w.lab.names[c.rand.IntN(len(c.w.lab.names))]]
		if n.Answers() || n.Running() && c.rand.IntN(unlikely) == 0 {
			return n
		}
	}
	return c.w.lab.nodes[c.w.lab.names[0]] // nobody runs: the answer says so
}

func (c *caller) register() string {
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	return c.w.keys[c.rand.IntN(len(c.w.keys))]
}

// put does one write. Its context is the operation's own: stopping the workload must not make outcomes unknown.
func (c *caller) put(file, key, value string) oracle.Outcome {
	n := c.node()
	c.n++
	o := c.w.record.Begin(oracle.Operation{Client: c.id, Kind: oracle.Write, Copy: n.Name, Key: file + "/" + key, Value: value})
	ctx, cancel := context.WithTimeout(context.Background(), requestTimeout+writeWait)
	defer cancel()
	r, err := n.Client.Put(ctx, file, []byte(key), []byte(value), client.WriteOptions{Wait: writeWait})
	c.w.record.End(o, outcomeOf(err), func(o *oracle.Operation) {
		o.Position = r.Position
		var e *client.Error
		if errors.As(err, &e) {
			o.Position, o.Error = e.Position, e.Error()
		}
	})
	c.w.wrote(o)
	return o.Outcome
}

func (c *caller) add() {
	key := fmt.Sprintf("w%d/%06d", c.id, c.n)
	c.put(setFile, key, "element "+key)
}

func (c *caller) writeRegister() {
	c.put(registerFile, c.register(), fmt.Sprintf("%d.%d", c.id, c.n))
}

// countUp writes numbers that only grow. After an unknown outcome it goes on with another counter: the write may come late.
func (c *caller) countUp() {
	key := c.w.counter(c.id, "")
	if c.put(counterFile, key, strconv.Itoa(c.n+1)) == oracle.Unknown {
		c.w.counter(c.id, fmt.Sprintf("c%d.%d", c.id, c.n))
	}
}

// counter returns the counter that a client writes; it is another one from now on when next is not "".
func (w *Workload) counter(id int, next string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if next != "" || w.counters[id] == "" {
		if next == "" {
			next = fmt.Sprintf("c%d.0", id)
		}
		w.counters[id] = next
	}
	return w.counters[id]
}

// someCounter picks a counter that is written now.
func (c *caller) someCounter() string {
	return c.w.counter(adders+registerWrites+c.rand.IntN(counters), "")
}

// get does one read.
func (c *caller) get(kind oracle.Kind, file, key string, options client.ReadOptions) {
	n := c.node()
	c.n++
	o := c.w.record.Begin(oracle.Operation{Client: c.id, Kind: kind, Copy: n.Name, Key: file + "/" + key})
	ctx, cancel := context.WithTimeout(context.Background(), requestTimeout+writeWait)
	defer cancel()
	r, err := n.Client.Get(ctx, file, []byte(key), options)
	outcome := oracle.OK
	if err != nil && !errors.Is(err, client.ErrNotFound) {
		outcome = oracle.Failed
	}
	c.w.record.End(o, outcome, func(o *oracle.Operation) {
		o.Found, o.Value, o.Position, o.Applied = err == nil, string(r.Value), r.Position, r.Applied
		if outcome != oracle.OK {
			o.Error = err.Error()
		}
	})
}

func (c *caller) read() {
	if c.rand.IntN(3) == 0 {
		c.get(oracle.Read, counterFile, c.someCounter(), client.ReadOptions{Wait: writeWait})
		return
	}
	c.get(oracle.Read, registerFile, c.register(), client.ReadOptions{Wait: writeWait})
}

func (c *caller) readLocal() {
	c.get(oracle.Local, counterFile, c.someCounter(), client.ReadOptions{Local: true, MaxLag: localLag})
}
