package replica

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal"
)

// load writes to whoever is primary until it is stopped, as the api does: only what was surely not sequenced is sent again.
type load struct {
	c       *cluster
	stop    chan struct{}
	wg      sync.WaitGroup
	mu      sync.Mutex
	acked   map[string]string
	unknown map[string]bool
	failed  atomic.Int64
}

func (c *cluster) load(writers int) *load {
	l := &load{c: c, stop: make(chan struct{}), acked: map[string]string{}, unknown: map[string]bool{}}
	for w := range writers {
		l.wg.Go(func() { l.write(w) })
	}
	return l
}

func (l *load) write(w int) {
	for i := 0; ; i++ {
		select {
		case <-l.stop:
			return
		default:
		}
		key, value := fmt.Sprintf("w%d-%d", w, i%10), fmt.Sprintf("%d", i)
		for deadline := time.Now().Add(patience); ; {
			p := l.c.primary()
			if p == nil {
				time.Sleep(time.Millisecond)
				continue
			}
			ctx, cancel := context.WithDeadline(context.Background(), deadline)
			_, err := p.rep.Write(ctx, Transaction{Writes: []Write{{File: "f", Key: []byte(key), Value: []byte(value)}}})
			cancel()
			var unknown *UnknownOutcomeError
			if errors.As(err, &unknown) {
				l.mu.Lock()
				l.unknown[key+"="+value] = true
				l.mu.Unlock()
				break
			}
			if err == nil {
				l.mu.Lock()
				l.acked[key] = value
				l.mu.Unlock()
				break
			}
			if !errors.Is(err, ErrNotPrimary) || time.Now().After(deadline) {
				l.failed.Add(1)
				l.c.t.Errorf("write %s: %v", key, err)
				break
			}
			select {
			case <-l.stop:
				return
			case <-time.After(time.Millisecond):
			}
		}
	}
}

func (l *load) end() {
	close(l.stop)
	l.wg.Wait()
}

// primary returns the node that the state names, if this life of it holds the role.
func (c *cluster) primary() *node {
	g := c.plane.group()
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.nodes[g.Primary]
}

// Proves RJ-11: the role goes over and back as planned, under load, without a failed request, and the data is equal.
func TestSwitchOverAndBack(t *testing.T) {
	c := newCluster(t, fsm.GroupSpec{}, "a", "b", "c")
	c.inSync("a", "b")
	l := c.load(4)
	c.eventually("the load runs", func() bool { l.mu.Lock(); defer l.mu.Unlock(); return len(l.acked) > 20 })
	for range 3 {
		c.switchover("b")
		c.inSync("a", "b")
		c.switchover("a")
		c.inSync("a", "b")
	}
	l.end()
	if l.failed.Load() > 0 || len(l.unknown) > 0 {
		t.Fatalf("%d failed, %d of unknown outcome", l.failed.Load(), len(l.unknown))
	}
	c.level("b", "c")
	for key, value := range l.acked {
		c.nodes["a"].mustGet(key, value, false)
	}
	for id, want := range map[ident.NodeID]journal.State{"a": journal.Active, "b": journal.Standby} {
		j, _ := c.nodes[id].rep.Journal(id)
		c.eventually("the local journal of "+string(id)+" is "+string(want), func() bool { return j.State() == want })
	}
	g := c.plane.group()
	for _, s := range g.Switches {
		if s.Loss != fsm.LossNone {
			t.Fatalf("certificate %+v", s)
		}
	}
	if row := g.History.Last(); row.First == 0 || row.Epoch != 7 {
		t.Fatalf("last row %+v", row)
	}
}

// A switch-over that cannot be drained is aborted, and the old primary goes on; held writes are answered.
func TestSwitchOverAborted(t *testing.T) {
	c := newCluster(t, fsm.GroupSpec{}, "a", "b")
	a := c.nodes["a"]
	c.inSync("a", "b")
	a.mustPut("k", "v")
	// The target disappears when the hold begins, but the set may not shrink.
	c.plane.mu.Lock()
	c.plane.veto = func(cmd fsm.Command) bool { return cmd.ChangeSet != nil || cmd.Handover != nil }
	c.plane.mu.Unlock()
	g := c.plane.group()
	c.must(fsm.Command{StartSwitch: &fsm.StartSwitch{
		Group: orders, Epoch: g.Epoch, To: "b", MaxPause: 300 * time.Millisecond, Deadline: time.Now().Add(time.Minute), Reason: "test",
	}})
	c.eventually("writes are held", func() bool { return a.rep.Status().Held })
	done := a.asyncPut("k", "held")
	c.eventually("the switch-over is over", func() bool { return c.plane.group().Operation == nil })
	c.plane.mu.Lock()
	c.plane.veto = nil
	c.plane.mu.Unlock()
	if err := <-done; err != nil {
		t.Fatalf("held write: %v", err)
	}
	a.mustGet("k", "held", false)
	if g := c.plane.group(); g.Primary != "a" || g.Epoch != 1 {
		t.Fatalf("group %+v", g)
	}
	if op, ok := c.plane.operation(1); !ok || op.State != fsm.OperationRolledBack {
		t.Fatalf("operation %+v", op)
	}
}

// Proves RJ-11: the role does not go over between the commit of a write and its answer.
func TestSwitchOverWaitsForAnswers(t *testing.T) {
	c := newCluster(t, fsm.GroupSpec{}, "a", "b")
	a := c.nodes["a"]
	c.inSync("a", "b")
	a.mustPut("k", "v")
	committed, over := make(chan struct{}), make(chan struct{})
	var once sync.Once
	a.fail.Store("replica.commit:orders", func() error {
		once.Do(func() {
			close(committed)
			<-over
		})
		return nil
	})
	done := a.asyncPut("k", "w")
	<-committed
	g := c.plane.group()
	res := c.must(fsm.Command{StartSwitch: &fsm.StartSwitch{
		Group: orders, Epoch: g.Epoch, To: "b", MaxPause: 300 * time.Millisecond, Deadline: time.Now().Add(time.Minute), Reason: "test",
	}})
	c.eventually("the switch-over has given up, or has not waited", func() bool {
		g := c.plane.group()
		return g.Operation == nil || g.Epoch != 1
	})
	close(over)
	if err := <-done; err != nil {
		t.Fatalf("a committed write: %v", err)
	}
	if op, ok := c.plane.operation(res.Operation); !ok || op.State != fsm.OperationRolledBack {
		t.Fatalf("operation %+v", op)
	}
	a.fail.Delete("replica.commit:orders")
	c.switchover("b")
	c.nodes["b"].mustGet("k", "w", false)
}

// The outcome of a Handover that gets lost is read from the state: nobody serves two epochs, nothing is lost.
func TestHandoverOutcomeLost(t *testing.T) {
	c := newCluster(t, fsm.GroupSpec{}, "a", "b")
	a := c.nodes["a"]
	c.inSync("a", "b")
	a.mustPut("k", "v")
	lost := 0
	c.plane.mu.Lock()
	c.plane.veto = func(cmd fsm.Command) bool {
		if cmd.Handover == nil || lost > 0 {
			return false
		}
		lost++
		c.plane.applyLocked(cmd)
		return true
	}
	c.plane.mu.Unlock()
	c.switchover("b")
	c.nodes["b"].mustGet("k", "v", false)
	if _, err := a.put("k", "w"); !errors.Is(err, ErrNotPrimary) {
		t.Fatalf("the old primary took a write: %v", err)
	}
	c.inSync("a", "b")
}

// A node that dies with the role in its hands, before anybody heard of its SW, leaves the set able to open: the SW was not
// committed, whatever row there is.
func TestHandedOverButNeverServed(t *testing.T) {
	c := newCluster(t, fsm.GroupSpec{}, "a", "b")
	a, b := c.nodes["a"], c.nodes["b"]
	c.keepInSync("a", "b")
	a.mustPut("k", "v")
	c.plane.mu.Lock()
	c.plane.veto = func(cmd fsm.Command) bool { // b cannot reach a from the moment it has the role
		if cmd.Handover != nil {
			c.plane.applyLocked(cmd)
			c.wires.sever("a", "b", true)
			return true
		}
		return cmd.ChangeSet != nil
	}
	c.plane.mu.Unlock()
	c.begins("b")
	c.eventually("b has deposited its SW", func() bool {
		j, ok := b.rep.Journal("b")
		if !ok {
			return false
		}
		v, _ := j.View()
		return len(v.Runs) > 0
	})
	if b.rep.Status().Serving {
		t.Fatal("b serves although nobody holds its SW")
	}
	b.crash(100)
	c.failover("a", false)
	c.serves("a")
	a.mustGet("k", "v", false)
	c.plane.mu.Lock()
	c.plane.veto = nil
	c.plane.mu.Unlock()
	c.wires.sever("a", "b", false)
	a.mustPut("k", "w")
	if h := c.plane.group().History; len(h) != 2 || h[1].Epoch != 3 {
		t.Fatalf("history %+v", h)
	}
	c.start("b")
	c.inSync("a", "b")
	c.level("b")
}

// Proves TR-1: a lost secondary leaves the set, a standby takes its place, and who returns becomes level.
func TestInSyncSetShrinksAndGrows(t *testing.T) {
	c := newCluster(t, fsm.GroupSpec{}, "a", "b", "c")
	a := c.nodes["a"]
	c.inSync("a", "b")
	l := c.load(2)
	c.nodes["b"].crash(0)
	c.inSync("a", "c") // the standby takes its place
	c.eventually("SRSHADOWLOST", func() bool { _, ok := a.event(EventShadowLost); return ok })
	c.eventually("SRSHADOWGAIN of c", func() bool { e, ok := a.event(EventShadowGain); return ok && e.Peer == "c" })
	b := c.start("b")
	c.eventually("b is level again", func() bool {
		_, ok := b.event(EventRecovered)
		return ok
	})
	l.end()
	if l.failed.Load() > 0 || len(l.unknown) > 0 {
		t.Fatalf("%d failed, %d unknown", l.failed.Load(), len(l.unknown))
	}
	c.level("b", "c")
	c.nodes["c"].crash(0)
	c.inSync("a", "b")
}

// While the control plane is away the set cannot shrink, so nothing is acknowledged alone.
func TestNoLocalShrink(t *testing.T) {
	c := newCluster(t, fsm.GroupSpec{}, "a", "b")
	a := c.nodes["a"]
	c.keepInSync("a", "b")
	c.plane.isolate("a", true)
	c.plane.mu.Lock()
	c.plane.fixed = 0 // from here on a is kept from changing the set by that it reaches nobody
	c.plane.mu.Unlock()
	c.wires.sever("a", "b", true)
	last := a.rep.Status().Sequence
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	a.wg.Go(func() {
		_, err := a.rep.Write(ctx, Transaction{Writes: []Write{{File: "f", Key: []byte("k"), Value: []byte("v")}}})
		done <- err
	})
	c.eventually("the write is sequenced", func() bool { return a.rep.Status().Sequence > last })
	p := a.rep.primary.Load()
	c.eventually("b would have left the set", func() bool {
		p.targets.mu.Lock()
		defer p.targets.mu.Unlock()
		return p.targets.roster.Stalled("b", p.targets.now()) > 2*c.shrinkAfter
	})
	c.goesOn("a")
	cancel()
	var unknown *UnknownOutcomeError
	if err := <-done; !errors.As(err, &unknown) {
		t.Fatalf("acknowledged alone: %v", err)
	}
	c.plane.isolate("a", false)
	c.inSync("a") // now it may go on alone
	c.eventually("the write is committed", func() bool { v, err := a.get("k", false); return err == nil && v == "v" })
	c.wires.sever("a", "b", false)
	c.inSync("a", "b")
}

// on_no_sync: hold makes writes wait, refuse refuses them, and neither acknowledges alone.
func TestNoSync(t *testing.T) {
	for _, mode := range []string{fsm.NoSyncHold, fsm.NoSyncRefuse} {
		t.Run(mode, func(t *testing.T) {
			c := newCluster(t, fsm.GroupSpec{OnNoSync: mode}, "a", "b")
			a := c.nodes["a"]
			c.inSync("a", "b")
			c.eventually("writes are open", func() bool { _, err := a.put("k", "v"); return err == nil })
			c.wires.sever("a", "b", true)
			c.eventually("the loss is noticed", func() bool {
				p := a.rep.primary.Load()
				return p != nil && (p.paused.Load() || p.refuse.Load())
			})
			wait := patience // it is refused long before
			if mode == fsm.NoSyncHold {
				wait = 100 * time.Millisecond
			}
			ctx, cancel := context.WithTimeout(t.Context(), wait)
			defer cancel()
			_, err := a.rep.Write(ctx, Transaction{Writes: []Write{{File: "f", Key: []byte("k"), Value: []byte("w")}}})
			if mode == fsm.NoSyncRefuse && !errors.Is(err, ErrNoSync) || mode == fsm.NoSyncHold && !errors.Is(err, ErrNotSequenced) {
				t.Fatalf("write without a shadow: %v", err)
			}
			a.mustGet("k", "v", false)
			if g := c.plane.group(); !g.InSet("b") {
				t.Fatal("the last secondary was given up")
			}
			c.wires.sever("a", "b", false)
			c.eventually("writes go on", func() bool { _, err := a.put("k", "x"); return err == nil })
		})
	}
}
