package replica

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal"
	"github.com/understudy-ha/understudy/journal/entry"
	"github.com/understudy-ha/understudy/journal/remote/wire"
)

// veto has a function look at every command before it is applied; true drops it.
func (c *cluster) veto(f func(fsm.Command) bool) {
	c.plane.mu.Lock()
	defer c.plane.mu.Unlock()
	c.plane.veto = f
}

// begins begins a switch-over to a node.
func (c *cluster) begins(to ident.NodeID) {
	c.t.Helper()
	g := c.plane.group()
	c.must(fsm.Command{StartSwitch: &fsm.StartSwitch{
		Group: orders, Epoch: g.Epoch, To: to, MaxPause: patience, Deadline: time.Now().Add(time.Minute), Reason: "test",
	}})
}

// end is the last sequence of author's journal at a node, and up to where it is durable there.
func (n *node) end(author ident.NodeID) (last, durable ident.Sequence) {
	j, ok := n.rep.Journal(author)
	if !ok {
		return 0, 0
	}
	v, _ := j.View()
	return v.Last, v.Durable
}

// Proves BX-1: before writes are held, the primary has on disk what the target's journal has and no copy had, the changes of receivers; it has
// passed it on to the others. So SW is the first thing that the pause has to wait for.
func TestTargetBringsItsReceiversAhead(t *testing.T) {
	c := newCluster(t, fsm.GroupSpec{}, "a", "b", "c")
	a, b := c.nodes["a"], c.nodes["b"]
	c.keepInSync("a", "b")
	c.switchover("b") // so that b has a journal, and ceases to be primary
	c.keepInSync("a", "b")
	b.mustPut("k", "v")
	c.switchover("a")
	c.keepInSync("a", "b")
	own, _ := b.rep.Journal("b")
	c.eventually("b's journal rests", func() bool { return own.State() == journal.Standby })
	before, _ := a.end("b")
	c.veto(func(cmd fsm.Command) bool { return cmd.AdvanceSwitch != nil && cmd.AdvanceSwitch.From == fsm.StepHold })
	c.begins("b")
	c.eventually("the target has prepared", func() bool {
		op := c.plane.group().Operation
		return op != nil && op.Step == fsm.StepHold
	})
	last, _ := b.end("b")
	if _, durable := a.end("b"); durable != last || last < before+2 {
		t.Fatalf("the primary has b's journal up to %s on disk, b has it up to %s; it was %s before", durable, last, before)
	}
	c.eventually("the primary has passed it on", func() bool { _, durable := c.nodes["c"].end("b"); return durable == last })
	if own.State() != journal.Standby {
		t.Fatalf("b's journal is %s before the role is its", own.State())
	}
	c.veto(nil)
	c.serves("b")
}

// A target that does not reach the primary with its own journal is no reason not to switch over.
func TestReceiversAreNotWaitedForLong(t *testing.T) {
	c := newCluster(t, fsm.GroupSpec{}, "a", "b")
	c.keepInSync("a", "b")
	c.wires.muted("b", "a", true)
	c.begins("b")
	c.eventually("the role goes over all the same", func() bool { return c.plane.group().Epoch == 2 })
	c.wires.muted("b", "a", false)
	c.serves("b")
}

// The target brings nothing that its own disk does not have, and stops when the operation is over.
func TestOnlyWhatIsDurableIsBroughtAhead(t *testing.T) {
	c := newCluster(t, fsm.GroupSpec{}, "a", "b")
	a, b := c.nodes["a"], c.nodes["b"]
	c.keepInSync("a", "b")
	c.switchover("b")
	c.keepInSync("a", "b")
	c.switchover("a")
	c.keepInSync("a", "b")
	own, _ := b.rep.Journal("b")
	c.eventually("b's journal rests on its disk", func() bool {
		v, _ := own.View()
		return own.State() == journal.Standby && v.Durable == v.Last
	})
	durable, _ := b.end("b")
	release := b.hangDisk("b")
	c.veto(func(cmd fsm.Command) bool { return cmd.AdvanceSwitch != nil })
	c.begins("b")
	c.eventually("b has attached a receiver, and calls", func() bool {
		last, _ := b.end("b")
		return last > durable && a.rep.visitors.from("b") != nil
	})
	c.goesOn("b")
	if have, _ := a.end("b"); have > durable {
		t.Errorf("the primary has b's journal up to %s, b's own disk only up to %s", have, durable)
	}
	c.must(fsm.Command{AbortSwitch: &fsm.AbortSwitch{Group: orders, Operation: c.plane.group().Operation.ID, Reason: "test"}})
	c.eventually("b has stopped", func() bool { return a.rep.visitors.from("b") == nil })
	b.fail.Delete("journal.sync:orders/b")
	release()
	c.veto(nil)
	c.switchover("b")
}

// What a new primary seals before anybody has answered it may have to be backed out: its before-images are there.
func TestImagesOfWritesBehindTheSwitchEntry(t *testing.T) {
	for range 4 { // each is a race between the first write and the first look at the set
		imagesBehindTheSwitchEntry(t)
	}
}

func imagesBehindTheSwitchEntry(t *testing.T) {
	c := newCluster(t, fsm.GroupSpec{}, "a", "b")
	c.keepInSync("a", "b")
	a, b := c.nodes["a"], c.nodes["b"]
	a.mustPut("k", "old")
	c.level("b")
	c.veto(func(cmd fsm.Command) bool {
		if cmd.Handover != nil {
			c.wires.sever("a", "b", true)
		}
		return cmd.ChangeSet != nil && cmd.ChangeSet.Epoch == 1
	})
	var writers sync.WaitGroup
	for range 4 {
		writers.Go(func() {
			for {
				_, err := b.put("k", "new")
				if err == nil {
					return
				}
				if !errors.Is(err, ErrNotPrimary) {
					t.Error(err)
					return
				}
			}
		})
	}
	c.begins("b")
	writers.Wait() // the set shrinks
	own, _ := b.rep.Journal("b")
	view, _ := own.View()
	for seq := view.Last; seq >= view.First && seq > 0; {
		bundle, err := own.BundleAt(seq)
		if err != nil {
			t.Fatal(err)
		}
		for e, err := range bundle.Entries() {
			if err != nil || e.Code == entry.Record && e.Position.Epoch == 2 && e.BeforeOmitted {
				t.Fatalf("%+v, %v", e, err)
			}
		}
		seq = bundle.First - 1
	}
}

// A node that has handed the role over and does not hear of the new primary ends its turn all the same.
func TestTurnEndsWithoutTheNextPrimary(t *testing.T) {
	c := newCluster(t, fsm.GroupSpec{}, "a", "b")
	c.keepInSync("a", "b")
	c.veto(func(cmd fsm.Command) bool {
		if cmd.Handover != nil {
			c.wires.sever("a", "b", true)
		}
		return cmd.ChangeSet != nil
	})
	c.begins("b")
	own, _ := c.nodes["a"].rep.Journal("a")
	c.eventually("a's journal rests", func() bool { return c.plane.group().Epoch == 2 && own.State() == journal.Standby })
}

// Proves BX-1: writes are sequenced right behind SW, and answered when that is committed and they are. Where writes need an in-sync
// secondary they wait until somebody has looked for one.
func TestWritesFollowTheSwitchEntry(t *testing.T) {
	for _, policy := range []string{fsm.NoSyncDegrade, fsm.NoSyncHold, fsm.NoSyncRefuse} {
		t.Run(policy, func(t *testing.T) {
			c := newCluster(t, fsm.GroupSpec{OnNoSync: policy}, "a", "b")
			c.keepInSync("a", "b")
			b := c.nodes["b"]
			c.veto(func(cmd fsm.Command) bool { // b cannot reach a from the moment it has the role
				if cmd.Handover != nil {
					c.wires.sever("a", "b", true)
				}
				return cmd.ChangeSet != nil
			})
			c.begins("b")
			c.eventually("b has the role", func() bool { return b.rep.primary.Load() != nil })
			done := b.asyncPut("k", "v")
			if policy == fsm.NoSyncDegrade {
				c.eventually("the write is sequenced", func() bool {
					j, _ := b.rep.Journal("b")
					v, _ := j.View()
					return v.After.Epoch == 2 && v.After.History >= c.plane.group().History.Last().SW+1
				})
			}
			c.goesOn("b")
			s := b.rep.Status()
			j, _ := b.rep.Journal("b")
			v, _ := j.View()
			sw := c.plane.group().History.Last().SW
			if s.Serving || s.Applied.History >= sw {
				t.Fatalf("SW, at %d, is committed although nobody else has it: %+v", sw, s)
			}
			if policy != fsm.NoSyncDegrade && v.After.History > sw {
				t.Fatalf("a write was sequenced at %s without a secondary", v.After)
			}
			select {
			case err := <-done:
				if policy != fsm.NoSyncRefuse || !errors.Is(err, ErrNoSync) {
					t.Fatalf("answered before SW is committed: %v", err)
				}
				done = nil
			default:
			}
			c.veto(nil)
			c.wires.sever("a", "b", false)
			c.serves("b")
			if done != nil {
				if err := <-done; err != nil && !errors.Is(err, ErrNoSync) {
					t.Fatal(err)
				}
			}
			if policy == fsm.NoSyncDegrade {
				b.mustGet("k", "v", false)
			}
		})
	}
}

// What is held when the role was handed over is answered when the next primary calls, or does not call soon. Else it is answered at once.
func TestHeldWritesAreHandedOn(t *testing.T) {
	handed := func() *fsm.Group {
		return &fsm.Group{
			Phase: fsm.PhaseOpened, Epoch: 2, OpenEpoch: 2, Primary: "b", OpenNode: "b",
			Switches: []fsm.Certificate{{Epoch: 2, Kind: fsm.CertificateSwitchover, From: "a", To: "b"}},
		}
	}
	begin := func(t *testing.T, g *fsm.Group) (r *Replica, answered func() bool) {
		r = &Replica{}
		p := &primary{r: r, control: still{fsm.Assignment{Self: "a", Group: g}}, epoch: 1, queue: &queue{max: 1 << 20}}
		q := newRequest(1)
		if err := p.queue.push(t.Context(), q); err != nil {
			t.Fatal(err)
		}
		p.handOn()
		return r, func() bool {
			synctest.Wait()
			select {
			case o := <-q.done:
				if !errors.Is(o.err, ErrNotPrimary) {
					t.Errorf("answered with %v", o.err)
				}
				return true
			default:
				return false
			}
		}
	}
	call := func(r *Replica, e ident.Epoch) {
		v := &visit{r: r, hello: wire.Hello{Journal: ident.JournalID{Node: "b"}, From: "b", Epoch: e, Session: 1}}
		if err := r.visitors.add(v, handed(), "a"); err != nil {
			t.Error(err)
		}
	}
	t.Run("the next primary calls", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r, answered := begin(t, handed())
			call(r, 1) // while it was prepared
			if answered() {
				t.Fatal("answered before the next primary has called")
			}
			call(r, 2)
			if !answered() {
				t.Fatal("not answered when it called")
			}
			r.handing.Wait()
		})
	})
	t.Run("it does not call", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r, answered := begin(t, handed())
			time.Sleep(successorCalls - 1)
			if answered() {
				t.Fatal("answered early")
			}
			time.Sleep(1)
			if !answered() {
				t.Fatal("not answered in time")
			}
			r.handing.Wait()
		})
	})
	t.Run("the node stops", func(t *testing.T) { // what is held is answered before its journals are closed
		synctest.Test(t, func(t *testing.T) {
			r, answered := begin(t, handed())
			r.o.FS = vfs.NewMem()
			r.roles, r.shelf = make(chan struct{}, 1), newShelf(&r.o)
			closed := make(chan error, 1)
			go func() { closed <- r.Close() }()
			synctest.Wait()
			select {
			case err := <-closed:
				t.Fatalf("closed before what is held was answered: %v", err)
			default:
			}
			time.Sleep(successorCalls)
			if !answered() {
				t.Error("not answered")
			}
			if err := <-closed; err != nil {
				t.Error(err)
			}
		})
	})
	for name, change := range map[string]func(*fsm.Group){
		"a failover":       func(g *fsm.Group) { g.Switches[0].Kind = fsm.CertificateFailover },
		"a fence":          func(g *fsm.Group) { g.Phase = fsm.PhaseFenced },
		"the role is here": func(g *fsm.Group) { g.Primary = "a" },
		"two epochs passed": func(g *fsm.Group) {
			g.Epoch, g.OpenEpoch = 3, 3
			g.Switches = append(g.Switches, fsm.Certificate{Epoch: 3, Kind: fsm.CertificateSwitchover, From: "b", To: "c"})
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := handed()
				change(g)
				if _, answered := begin(t, g); !answered() {
					t.Fatal("kept waiting")
				}
			})
		})
	}
}

// still is a Control whose state does not change.
type still struct{ a fsm.Assignment }

func (s still) Assignment() (fsm.Assignment, <-chan struct{}) { return s.a, nil }

func (still) CheckLease(ident.Epoch) error { return nil }

func (still) Yield(ident.Epoch, bool) {}

func (still) Propose(context.Context, fsm.Command) (fsm.Result, error) { return fsm.Result{}, nil }

func (still) Alive(ident.NodeID) bool { return true }
