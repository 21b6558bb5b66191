package replica

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
)

// fedBy waits until a node gets its copy of the primary's journal from another one, and everybody who tells of it says so.
func (c *cluster) fedBy(target, feeder ident.NodeID) {
	c.t.Helper()
	c.eventually(fmt.Sprintf("%s feeds %s", feeder, target), func() bool {
		g := c.plane.group()
		p := c.nodes[g.Primary].rep.Status()
		if !p.Serving || c.nodes[target].rep.Status().FedBy != feeder {
			return false
		}
		for _, s := range p.Targets {
			if s.Node == target {
				return feeder == g.Primary && s.State != TargetFed && s.FedBy == "" || feeder != g.Primary && s.State == TargetFed && s.FedBy == feeder
			}
		}
		return false
	})
}

// writer writes one key after the other at whoever is primary, until it is stopped.
type writer struct {
	c     *cluster
	stop  context.CancelFunc
	wg    sync.WaitGroup
	mu    sync.Mutex
	acked []string
}

func (c *cluster) stream() *writer {
	ctx, cancel := context.WithCancel(context.Background())
	w := &writer{c: c, stop: cancel}
	w.wg.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			c.mu.Lock()
			n := c.nodes[c.plane.group().Primary]
			c.mu.Unlock()
			key := fmt.Sprint("load-", i)
			try, done := context.WithTimeout(ctx, 3*time.Second)
			_, err := n.rep.Write(try, Transaction{Writes: []Write{{File: "f", Key: []byte(key), Value: []byte(key)}}})
			done()
			if err == nil {
				w.mu.Lock()
				w.acked = append(w.acked, key)
				w.mu.Unlock()
			} else {
				_ = pause(ctx, 5*time.Millisecond) // the loop looks at ctx
			}
		}
	})
	c.t.Cleanup(w.end)
	return w
}

func (w *writer) end() {
	w.stop()
	w.wg.Wait()
}

// goesOn waits until something more was acknowledged.
func (w *writer) goesOn() {
	w.c.t.Helper()
	count := func() int { w.mu.Lock(); defer w.mu.Unlock(); return len(w.acked) }
	before := count()
	w.c.eventually("writes are acknowledged", func() bool { return count() >= before+5 })
}

// A copy is fed by the backup that the group names, by the primary while that one is away, and in any case when it is to become
// primary itself. Nothing acknowledged is lost on the way. Proves RJ-10, I3, I9.
func TestCascade(t *testing.T) {
	c := newCluster(t, fsm.GroupSpec{Feeds: map[ident.NodeID]ident.NodeID{"c": "b"}}, "a", "b", "c")
	w := c.stream()
	c.inSync("a", "b")
	c.fedBy("c", "b")
	w.goesOn()
	if _, ok := c.nodes["c"].event(EventFeeder); !ok {
		t.Error("c tells nothing of its feeder")
	}
	c.nodes["b"].crash(50)
	c.fedBy("c", "a")
	c.inSync("a", "c") // nobody else is left
	w.goesOn()
	c.start("b")
	c.eventually("c leaves the set for b", func() bool { g := c.plane.group(); return g.InSet("b") && !g.InSet("c") })
	c.fedBy("c", "b")
	w.goesOn()
	c.switchover("c")
	w.goesOn()
	c.switchover("b")
	c.fedBy("c", "b") // which is the primary
	w.goesOn()
	c.switchover("a")
	c.eventually("b is the only member", func() bool { g := c.plane.group(); return g.InSet("b") && !g.InSet("c") })
	c.fedBy("c", "b")
	c.nodes["a"].crash(50)
	c.failover("b", false)
	w.goesOn()
	c.fedBy("c", "b")
	c.start("a")
	w.goesOn()
	w.end()
	c.level("a", "b", "c")
	for _, key := range w.acked {
		c.nodes["b"].mustGet(key, key, false)
	}
	t.Logf("%d writes", len(w.acked))
}
