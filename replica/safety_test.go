package replica

import (
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal/remote/wire"
)

// overhear calls f with every command that is proposed, before it is applied. True from f loses its outcome.
func (p *plane) overhear(f func(fsm.Command) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.veto = f
}

// A promise outlives a power cut right after it was given, and still keeps the older epoch out.
func TestPromiseSurvivesPowerCut(t *testing.T) {
	c := newCluster(t, fsm.GroupSpec{}, "a", "b")
	b := c.nodes["b"]
	c.inSync("a", "b")
	b.silent.Store(true)
	report, err := b.rep.Promise(t.Context(), 5)
	if err != nil || report.Epoch != 5 {
		t.Fatalf("report %+v, %v", report, err)
	}
	if _, err := b.rep.Promise(t.Context(), 5); err != nil {
		t.Fatalf("the same promise again: %v", err)
	}
	var fenced *FencedError
	if _, err := b.rep.Promise(t.Context(), 4); !errors.As(err, &fenced) || fenced.Have != 5 {
		t.Fatalf("a lower promise: %v", err)
	}
	b.crash(0)
	b = c.start("b")
	b.silent.Store(true)
	if e := b.rep.Status().Promised; e != 5 {
		t.Fatalf("after a power cut the promise is %s", e)
	}
	hello := wire.Hello{Cluster: testCluster, Journal: ident.JournalID{Group: orders, Node: "a"}, From: "a", To: "b", Epoch: 1, Session: 1 << 40, Life: c.nodes["a"].life}
	if _, err := b.rep.Admit(t.Context(), hello); !errors.As(err, &fenced) {
		t.Fatalf("a session of the older epoch: %v", err)
	}
}

// A node joins the set only when its disk holds what was deposited before the primary began to wait for it.
func TestGrowthWaitsForTheDisk(t *testing.T) {
	c := newCluster(t, fsm.GroupSpec{}, "a", "b")
	a, b := c.nodes["a"], c.nodes["b"]
	c.inSync("a", "b")
	c.wires.sever("a", "b", true)
	c.inSync("a")
	release := sync.OnceFunc(b.hangDisk("a"))
	defer release()
	a.mustPut("k", "not at b")
	var mu sync.Mutex
	var added bool
	c.plane.overhear(func(cmd fsm.Command) bool {
		mu.Lock()
		defer mu.Unlock()
		added = added || cmd.ChangeSet != nil && cmd.ChangeSet.Add == "b"
		return false
	})
	c.wires.sever("a", "b", false)
	copied, _ := b.rep.Journal("a")
	c.eventually("b has received what it lacks", func() bool {
		v, _ := copied.View()
		return v.Last == a.rep.Status().Sequence && v.Durable < v.Last
	})
	for range 4 { // longer than a growth may take
		c.goesOn("a")
	}
	mu.Lock()
	early := added
	mu.Unlock()
	if early {
		t.Fatal("proposed before its disk had it")
	}
	release()
	c.inSync("a", "b")
}

// Nothing is handed over before what was sequenced is committed and answered, even when the target holds it already.
func TestHandoverWaitsForTheOwnDisk(t *testing.T) {
	c := newCluster(t, fsm.GroupSpec{}, "a", "b")
	a, b := c.nodes["a"], c.nodes["b"]
	c.inSync("a", "b")
	release := sync.OnceFunc(a.hangDisk("a"))
	defer release()
	last := a.rep.Status().Sequence
	done := a.asyncPut("k", "v")
	copied, _ := b.rep.Journal("a")
	c.eventually("b holds the write", func() bool {
		v, _ := copied.View()
		return v.Durable > last
	})
	g := c.plane.group()
	c.must(fsm.Command{StartSwitch: &fsm.StartSwitch{
		Group: orders, Epoch: g.Epoch, To: "b", MaxPause: 20 * time.Second, Deadline: time.Now().Add(time.Minute), Reason: "test",
	}})
	c.eventually("the old primary drains", func() bool {
		op := c.plane.group().Operation
		return op == nil || op.Step == fsm.StepDrain
	})
	c.goesOn("a")
	if e := c.plane.group().Epoch; e != 1 {
		t.Fatalf("handed over at epoch %s with a write on its way", e)
	}
	release()
	if err := <-done; err != nil {
		t.Fatalf("the write on its way ended with %v", err)
	}
	c.serves("b")
	b.mustGet("k", "v", false)
}
