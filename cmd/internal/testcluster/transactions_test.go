package testcluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/understudy-ha/understudy/client"
	"github.com/understudy-ha/understudy/cmd/internal/oracle"
	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
)

// counting is what clients that increment one counter have done, in two files at once.
type counting struct {
	c        *Cluster
	recorder *oracle.Recorder
	stop     chan struct{}
	done     sync.WaitGroup

	mu      sync.Mutex
	count   int           // increments that were acknowledged
	replays int           // answers that were given for an earlier try
	longest time.Duration // from the first try of something to its outcome
	newest  []increment
}

// increment is one that was acknowledged, to be sent again.
type increment struct {
	key    string
	t      client.Transaction
	result client.TransactionResult
}

var counterKey = []byte("counter")

// incrementing starts n clients. Half of them leave repetition to the client package, half repeat by themselves.
func (c *Cluster) incrementing(n int) *counting {
	w := &counting{c: c, stop: make(chan struct{})}
	began := time.Now()
	w.recorder = oracle.NewRecorder(func() time.Duration { return time.Since(began) })
	var addresses []string
	for _, id := range c.options.Nodes {
		addresses = append(addresses, c.Node(id).config.Listen.HTTP)
	}
	for i := range n {
		o := client.Options{Addresses: addresses, Retry: -1, Timeout: time.Second}
		if i%2 == 0 {
			o.Retry = 30 * time.Second
		}
		w.done.Go(func() {
			cl := client.NewWith(o)
			defer cl.Close()
			for !w.over() {
				if err := w.increment(cl, i); err != nil {
					c.t.Errorf("client %d: %v", i, err)
					return
				}
			}
		})
	}
	return w
}

func (w *counting) over() bool {
	select {
	case <-w.stop:
		return true
	default:
		return false
	}
}

// increment reads the counter and adds one to what it read; when somebody else was faster, once more from the beginning. It repeats
// every try until its outcome is known, with the same key.
func (w *counting) increment(cl *client.Client, self int) error {
	for {
		value, position, err := w.read(cl, self)
		if err != nil {
			return err
		}
		next := []byte(strconv.Itoa(value + 1))
		x := increment{key: client.NewIdempotencyKey()}
		x.t.Put("counter", counterKey, next).Put("mirror", counterKey, next)
		if position == "" {
			x.t.IfAbsent("counter", counterKey)
		} else {
			x.t.IfPosition("counter", counterKey, position)
		}
		o := w.recorder.Begin(oracle.Operation{Client: self, Kind: oracle.Write, Key: "counter", Value: string(next)})
		err = w.repeat(func(ctx context.Context) (err error) {
			x.result, err = cl.Transact(ctx, &x.t, client.WriteOptions{Wait: 5 * time.Second, IdempotencyKey: x.key})
			return err
		})
		switch {
		case err == nil:
			w.recorder.End(o, oracle.OK, nil)
			w.mu.Lock()
			defer w.mu.Unlock()
			w.count++
			if x.result.Replayed {
				w.replays++
			}
			if w.newest = append(w.newest, x); len(w.newest) > 20 {
				w.newest = w.newest[1:]
			}
			return nil
		case errors.Is(err, client.ErrPrecondition):
			w.recorder.End(o, oracle.Failed, nil)
			var e *client.Error
			if errors.As(err, &e) && e.Replayed {
				w.mu.Lock()
				w.replays++
				w.mu.Unlock()
			}
		default:
			return err
		}
	}
}

func (w *counting) read(cl *client.Client, self int) (value int, position string, err error) {
	o := w.recorder.Begin(oracle.Operation{Client: self, Kind: oracle.Read, Key: "counter"})
	var r client.Record
	err = w.repeat(func(ctx context.Context) (err error) {
		r, err = cl.Get(ctx, "counter", counterKey, client.ReadOptions{Wait: 5 * time.Second})
		return err
	})
	switch {
	case errors.Is(err, client.ErrNotFound):
		w.recorder.End(o, oracle.OK, nil)
		return 0, "", nil
	case err != nil:
		return 0, "", err
	}
	w.recorder.End(o, oracle.OK, func(o *oracle.Operation) { o.Found, o.Value = true, string(r.Value) })
	value, err = strconv.Atoi(string(r.Value))
	return value, r.Position, err
}

// repeat calls f until it says something definite.
func (w *counting) repeat(f func(ctx context.Context) error) error {
	began := time.Now()
	defer func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.longest = max(w.longest, time.Since(began))
	}()
	for end := began.Add(time.Minute); ; {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
		err := f(ctx)
		cancel()
		if err == nil || errors.Is(err, client.ErrNotFound) || errors.Is(err, client.ErrPrecondition) {
			return err
		}
		if time.Now().After(end) {
			return fmt.Errorf("no outcome in a minute: %w", err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// all lists the nodes.
func (c *Cluster) all() (all []*Node) {
	for _, id := range c.options.Nodes {
		all = append(all, c.Node(id))
	}
	return all
}

// goesOn waits for more increments.
func (w *counting) goesOn() {
	w.c.t.Helper()
	w.mu.Lock()
	before := w.count
	w.mu.Unlock()
	w.c.Wait("the counter goes on", 2*time.Minute, func() error {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.count < before+40 {
			return fmt.Errorf("%d increments since", w.count-before)
		}
		return nil
	})
}

// again sends what was acknowledged once more, through any node: nothing is done, and the first answers come back. The journal may be another
// one: what the disk of a dead primary might lack, the next one journals again.
func (w *counting) again(nodes ...*Node) {
	w.c.t.Helper()
	w.mu.Lock()
	newest := w.newest
	w.newest = nil
	w.mu.Unlock()
	if len(newest) == 0 {
		w.c.t.Error("nothing to send again")
	}
	for i, x := range newest {
		var r client.TransactionResult
		err := w.repeat(func(ctx context.Context) (err error) {
			r, err = nodes[i%len(nodes)].client.Transact(ctx, &x.t, client.WriteOptions{Wait: 10 * time.Second, IdempotencyKey: x.key})
			return err
		})
		if err != nil || !r.Replayed || r.Position != x.result.Position || !sameChanges(r.Changes, x.result.Changes) {
			w.c.t.Errorf("sent again: %+v, %v; the first answer was %+v", r, err, x.result)
		}
	}
}

// sameChanges compares the changes of two answers but for the sequences, which are of a journal.
func sameChanges(a, b []client.ChangeResult) bool {
	return slices.EqualFunc(a, b, func(a, b client.ChangeResult) bool {
		a.Sequence, b.Sequence = 0, 0
		return a == b
	})
}

// dieBeforeItSyncs crashes a primary when another node has on its disk what its own disk does not have: it lives on, and nobody has
// heard of it.
func (c *Cluster) dieBeforeItSyncs(p *Node) {
	c.t.Helper()
	p.disk.Hang("journal.sync:default/" + string(p.ID))
	c.Wait("another node has more than the primary's disk", time.Minute, func() error {
		durable := func(n *Node) (uint64, error) {
			journals, err := n.client.Journals(c.t.Context(), "default")
			for _, j := range journals {
				if j.Node == string(p.ID) {
					return j.Durable, err
				}
			}
			return 0, err
		}
		own, err := durable(p)
		if err != nil {
			return err
		}
		for _, id := range c.options.Nodes {
			n := c.Node(id)
			if n == p || n.running == nil {
				continue
			}
			if copied, err := durable(n); err != nil || copied > own {
				return err
			}
		}
		return fmt.Errorf("it has synced up to %d, and nobody has more", own)
	})
	p.Crash()
}

// A counter that clients increment by reading and writing, repeating every error with the same key, is exact after machines died and
// the role moved; its two files are equal on every node; and what clients saw is linearizable. Proves TR-3 and CL-7.
func TestCounterIsExact(t *testing.T) {
	c := Start(t, Options{})
	w := c.incrementing(4)
	for range 3 {
		w.goesOn()
		p := c.primary()
		c.dieBeforeItSyncs(p)
		next := c.primary()
		w.again(slices.DeleteFunc(c.all(), func(n *Node) bool { return n == p })...)
		w.goesOn()
		p.Start()
		c.Wait("somebody may take over", 2*time.Minute, func() error {
			g, err := next.client.Group(t.Context(), "default")
			if err == nil && len(g.InSync) == 0 {
				err = errors.New("nobody is in sync")
			}
			return err
		})
	}
	for range 2 {
		w.goesOn()
		c.Wait("the role moves", time.Minute, func() error { // a set that is changing, or Raft's leader, may refuse it on a busy machine
			op, err := c.primary().client.Switchover(t.Context(), "default", client.SwitchoverRequest{}, 20*time.Second)
			if err == nil && op.State != client.OperationDone {
				err = fmt.Errorf("%s: %s", op.State, op.Reason)
			}
			return err
		})
		w.again(c.all()...)
	}
	w.goesOn()
	close(w.stop)
	w.done.Wait()
	if t.Failed() {
		return
	}
	t.Logf("%d increments, %d answers for an earlier try; the longest took %s", w.count, w.replays, w.longest.Round(time.Millisecond))
	if w.replays == 0 {
		t.Error("no answer got lost: the test proves nothing")
	}
	c.equalDigests()
	want := strconv.Itoa(w.count)
	for _, id := range c.options.Nodes {
		for _, file := range []string{"counter", "mirror"} {
			r, err := c.Node(id).client.Get(t.Context(), file, counterKey, client.ReadOptions{Local: true})
			if err != nil || string(r.Value) != want {
				t.Errorf("%s at %s is %s, %v; %s increments were acknowledged", file, id, r.Value, err, want)
			}
		}
	}
	if err := oracle.Linearizable(w.recorder.Operations(), time.Minute); err != nil {
		t.Error(err)
	}
}

// What is asked of a transaction and of a write with conditions over HTTP, end to end. Proves CL-4 and TR-3.
func TestTransactionsOverHTTP(t *testing.T) {
	c := Start(t, Options{Timing: steady(), Nodes: []ident.NodeID{"a", "b"}, Group: fsm.GroupSpec{Files: []string{"*"}}})
	through := c.Node("b").client // forwarded
	if err := through.CreateGroup(t.Context(), client.GroupSpec{Name: "others", Files: []string{"other*"}}); err != nil {
		t.Fatal(err)
	}
	o := client.WriteOptions{Wait: 10 * time.Second}
	var e *client.Error
	var both client.Transaction
	both.Put("orders", []byte("k"), []byte("v")).Put("other", []byte("k"), []byte("v"))
	if _, err := through.Transact(t.Context(), &both, o); !errors.As(err, &e) || e.Status != 400 || !strings.Contains(e.Detail, "group default") || !strings.Contains(e.Detail, "group others") || e.Remedy == "" {
		t.Errorf("two groups: %v", err)
	}
	wrong := client.Transaction{Group: "others"}
	if _, err := through.Transact(t.Context(), wrong.Put("orders", []byte("k"), []byte("v")), o); !errors.As(err, &e) || e.Status != 400 || !strings.Contains(e.Detail, "not to group others") {
		t.Errorf("another group: %v", err)
	}
	var first client.Transaction
	first.Put("orders", []byte("k"), []byte{0xff}).Delete("orders", []byte("none")).Put("lines", []byte("k"), []byte("line")).IfAbsent("orders", []byte("k"))
	first.Changes[2].TTL = client.Duration(time.Hour)
	r, err := through.Transact(t.Context(), &first, o)
	want := []client.ChangeResult{{Created: true}, {}, {Created: true}}
	group, last, _ := ident.ParsePosition(r.Position)
	for i := range want {
		want[i].Position = ident.Position{Epoch: last.Epoch, History: last.History - ident.History(2-i)}.Format(group)
		want[i].Sequence = r.Sequence - uint64(2-i)
	}
	if err != nil || !slices.Equal(r.Changes, want) || r.Journal != "default/a" || r.Sequence == 0 {
		t.Fatalf("%+v %v", r, err)
	}
	cluster := c
	for i, c := range []struct{ file, key, typ string }{{"orders", "k", "PT"}, {"orders", "none", "DL"}, {"lines", "k", "PT"}} {
		var found []client.Entry
		cluster.Wait("b knows that they are confirmed", 20*time.Second, func() (err error) { // it hears of that a moment after the answer
			found, err = through.Entries(t.Context(), "default", "a", client.EntryFilter{From: r.Changes[i].Sequence, To: r.Changes[i].Sequence})
			if err == nil && len(found) == 0 {
				err = errors.New("it does not")
			}
			return err
		})
		if len(found) != 1 || found[0].File != c.file || found[0].Text != c.key || found[0].Type != c.typ || found[0].Position != r.Changes[i].Position {
			t.Errorf("change %d stands at %+v: %+v", i, r.Changes[i], found)
		}
	}
	line, err := through.Get(t.Context(), "lines", []byte("k"), client.ReadOptions{})
	if err != nil || line.Position != r.Position || line.Expiry.Before(time.Now().Add(50*time.Minute)) {
		t.Errorf("%+v %v", line, err)
	}
	_, err = through.Transact(t.Context(), &first, o)
	if !errors.Is(err, client.ErrPrecondition) || !errors.As(err, &e) || e.Status != 412 || e.Failed == nil || e.Failed.In != "conditions" || e.Failed.Index != 0 || !e.Failed.Exists || e.Failed.Position == "" {
		t.Errorf("the condition: %+v, %v", e, err)
	}
	var stale client.Transaction
	stale.Put("orders", []byte("new"), []byte("v")).Put("lines", []byte("k"), []byte("v"))
	stale.Changes[1].IfPosition = e.Failed.Position
	if _, err = through.Transact(t.Context(), &stale, o); !errors.As(err, &e) || e.Failed == nil || e.Failed.In != "changes" || e.Failed.Index != 1 || e.Failed.Position != line.Position {
		t.Errorf("the condition of a change: %+v, %v", e, err)
	}
	if _, err := through.Get(t.Context(), "orders", []byte("new"), client.ReadOptions{}); !errors.Is(err, client.ErrNotFound) {
		t.Errorf("half of it was done: %v", err)
	}

	put := func(o client.WriteOptions) (client.WriteResult, error) {
		o.Wait = 10 * time.Second
		return through.Put(t.Context(), "orders", []byte("one"), []byte("v"), o)
	}
	if _, err := put(client.WriteOptions{IfExists: true}); !errors.As(err, &e) || e.Status != 412 || e.Failed == nil || e.Failed.Exists || e.Failed.In != "" {
		t.Errorf("if it exists: %v", err)
	}
	w, err := put(client.WriteOptions{IfAbsent: true, IdempotencyKey: "first"})
	if err != nil || !w.Created || w.Replayed {
		t.Fatalf("if absent: %+v %v", w, err)
	}
	if again, err := put(client.WriteOptions{IfAbsent: true, IdempotencyKey: "first"}); err != nil || !again.Replayed || again.Position != w.Position || again.Sequence != w.Sequence || !again.Created {
		t.Errorf("again: %+v %v", again, err)
	}
	if _, err := put(client.WriteOptions{IfAbsent: true}); !errors.As(err, &e) || e.Failed == nil || e.Failed.Position != w.Position {
		t.Errorf("if absent, without a key: %v", err)
	}
	if _, err := put(client.WriteOptions{IdempotencyKey: "first"}); !errors.Is(err, client.ErrKeyReused) || !errors.As(err, &e) || e.Status != 422 || e.Remedy == "" {
		t.Errorf("the key for another request: %v", err)
	}
	if _, err := put(client.WriteOptions{IfPosition: w.Position}); err != nil {
		t.Errorf("if it stands at %s: %v", w.Position, err)
	}
	for _, replayed := range []bool{false, true} {
		if _, err := through.Delete(t.Context(), "orders", []byte("absent"), client.WriteOptions{IdempotencyKey: "deletion"}); !errors.Is(err, client.ErrNotFound) || !errors.As(err, &e) || e.Replayed != replayed {
			t.Errorf("a deletion of nothing: %v", err)
		}
		d, err := through.DepositEntryWith(t.Context(), "default", client.DepositRequest{Type: "M1", Text: "x"}, client.WriteOptions{IdempotencyKey: "entry"})
		if err != nil || d.Replayed != replayed {
			t.Errorf("an entry: %+v %v", d, err)
		}
	}
	c.equalDigests()
}
