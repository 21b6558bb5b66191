package replica

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/replica/core"
)

// verdicts is what writers of records with names of their own were told of each.
type verdicts struct {
	mu      sync.Mutex
	done    map[string]ident.Position
	unknown map[string]ident.Position
	failed  []string // surely not done
}

// scribble writes new records at a node until it is not the primary any more or stop is closed.
func (n *node) scribble(l *verdicts, name string, stop <-chan struct{}) {
	for i := 0; ; i++ {
		select {
		case <-stop:
			return
		default:
		}
		key := fmt.Sprintf("%s-%d", name, i)
		r, err := n.put(key, "v")
		var unknown *UnknownOutcomeError
		l.mu.Lock()
		switch {
		case err == nil && !n.gone.Load():
			l.done[key] = r.Position
		case errors.As(err, &unknown):
			l.unknown[key] = unknown.Position
		case err != nil:
			l.failed = append(l.failed, key)
		}
		l.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// Proves TR-2 (receipts), S4: a primary dies under writers. After the failover every unknown outcome is settled, by the new
// primary, and agrees with what can be read; what was said to be not done is not there.
func TestUnknownOutcomesAreSettled(t *testing.T) {
	settled := map[core.Outcome]int{}
	for round := 0; round < 4 || round < 16 && settled[core.NotDone] == 0; round++ { // what a crash catches is chance
		t.Run(fmt.Sprint(round), func(t *testing.T) {
			c := newCluster(t, fsm.GroupSpec{}, "a", "b", "c")
			c.keepInSync("a", "b") // alone, a would acknowledge what nobody else has
			a, b := c.nodes["a"], c.nodes["b"]
			l := &verdicts{done: map[string]ident.Position{}, unknown: map[string]ident.Position{}}
			stop := make(chan struct{})
			var writers sync.WaitGroup
			for w := range 8 {
				writers.Go(func() { a.scribble(l, fmt.Sprintf("w%d", w), stop) })
			}
			c.eventually("writes go on", func() bool {
				l.mu.Lock()
				defer l.mu.Unlock()
				return len(l.done) > 100
			})
			if round%2 == 0 { // the next bundle is committed and not answered: the lease ends between its check and the deposit
				a.fail.Store("replica.seal:orders", func() error { c.plane.lease("a", false); return nil })
				c.eventually("replies wait for the lease", func() bool { return a.rep.primary.Load().owed.Load() > 0 })
			} else { // what is sequenced from here on reaches nobody
				c.wires.sever("a", "c", true)
				c.wires.sever("a", "b", true)
				writers.Go(func() { a.scribble(l, "late", stop) }) // the others may all wait for what b has received
				c.eventually("something is on its way that nobody has", func() bool {
					own, _ := a.rep.Journal("a")
					view, _ := own.View()
					for _, id := range []ident.NodeID{"b", "c"} {
						if copied, ok := c.nodes[id].rep.Journal("a"); ok {
							if v, _ := copied.View(); v.Last >= view.Last {
								return false
							}
						}
					}
					return true
				})
			}
			a.crash(100)
			close(stop)
			writers.Wait()
			c.failover("b", false)
			c.serves("b")
			for key, at := range l.unknown {
				s, err := b.rep.Settle(t.Context(), at, patience)
				if err != nil {
					t.Fatalf("settle %s at %s: %v", key, at, err)
				}
				settled[s.Outcome]++
				_, read := b.get(key, false)
				switch {
				case s.Outcome == core.Done && read == nil:
				case s.Outcome == core.NotDone && errors.Is(read, ErrNotFound):
				default:
					t.Errorf("%s at %s is %s, reading it: %v", key, at, s.Outcome, read)
				}
			}
			for key, at := range l.done {
				if s, err := b.rep.Settle(t.Context(), at, 0); err != nil || s.Outcome != core.Done {
					t.Errorf("%s was acknowledged at %s and is %s, %v", key, at, s.Outcome, err)
				}
			}
			for _, key := range l.failed {
				if _, err := b.get(key, false); !errors.Is(err, ErrNotFound) {
					t.Errorf("%s was said to be not done; reading it: %v", key, err)
				}
			}
		})
	}
	if settled[core.Done] == 0 || settled[core.NotDone] == 0 || settled[core.Undecided] > 0 {
		t.Fatalf("settled %v: both kinds must have come up, and none may stay open", settled)
	}
}

// cutOff has a node write, cuts it off from its secondary once that is sequenced and before the secondary has it on its disk, has it
// give up then, and returns what the writer is told. However slow the machine is, the secondary is not missed before.
func (c *cluster) cutOff(n, secondary *node, write func(context.Context) error) error {
	c.t.Helper()
	release := secondary.hangDisk(n.id)
	last := n.rep.Status().Sequence
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	done := make(chan error, 1)
	n.wg.Go(func() { done <- write(ctx) })
	c.eventually("the write is sequenced", func() bool { return n.rep.Status().Sequence > last })
	c.wires.sever(n.id, secondary.id, true)
	secondary.fail.Delete("journal.sync:orders/" + string(n.id))
	release()
	cancel()
	return <-done
}

// Proves TR-2 (receipts): a write in flight is undecided until its secondary is back; only the primary says so, and says
// nothing without its lease. What was left aside is not done at every node that knows.
func TestOutcomeOfWriteInFlight(t *testing.T) {
	c := newCluster(t, fsm.GroupSpec{OnNoSync: fsm.NoSyncHold}, "a", "b")
	c.inSync("a", "b")
	a, b := c.nodes["a"], c.nodes["b"]
	err := c.cutOff(a, b, func(ctx context.Context) error {
		_, err := a.rep.Write(ctx, Transaction{Writes: []Write{{File: "f", Key: []byte("k"), Value: []byte("v")}}})
		return err
	})
	var unknown *UnknownOutcomeError
	if !errors.As(err, &unknown) {
		t.Fatalf("the write: %v", err)
	}
	if s, err := a.rep.Settle(t.Context(), unknown.Position, 0); err != nil || s.Outcome != core.Undecided {
		t.Fatalf("in flight: %+v, %v", s, err)
	}
	if s, err := b.rep.Settle(t.Context(), unknown.Position, 0); !errors.Is(err, ErrNotPrimary) {
		t.Fatalf("a backup says %+v, %v", s, err)
	}
	c.plane.lease("a", false)
	short, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if s, err := a.rep.Settle(short, unknown.Position, 0); !errors.Is(err, ErrNoLease) {
		t.Fatalf("without a lease: %+v, %v", s, err)
	}
	c.plane.lease("a", true)
	decided := make(chan Settlement, 1)
	go func() {
		s, _ := a.rep.Settle(t.Context(), unknown.Position, patience)
		decided <- s
	}()
	c.wires.sever("a", "b", false)
	if s := <-decided; s.Outcome != core.Done {
		t.Fatalf("with the secondary back: %+v", s)
	}
	a.mustGet("k", "v", false)
	beyond := ident.Position{Epoch: 1, History: 1 << 40} // nothing stands there, and once epoch 2 is open nothing ever will
	if s, err := a.rep.Settle(t.Context(), beyond, 0); err != nil || s.Outcome != core.Undecided {
		t.Fatalf("beyond the end: %+v, %v", s, err)
	}
	c.switchover("b")
	for _, n := range []*node{a, b} {
		c.eventually("it is not done", func() bool {
			s, err := n.rep.Settle(t.Context(), beyond, 0)
			return err == nil && s.Outcome == core.NotDone
		})
	}
}
