package replica

import (
	"testing"
	"time"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/replica/core"
)

// After a Handover the new primary's sessions begin before it has promised its epoch itself. If it dies then, others have promised an
// epoch that it has not, nothing of that epoch was deposited, and nothing acknowledged is lost. Proves I1, I3.
func TestNewPrimaryDiesBeforeItPromises(t *testing.T) {
	c := newCluster(t, fsm.GroupSpec{}, "a", "b", "c")
	a, b := c.nodes["a"], c.nodes["b"]
	c.keepInSync("a", "b")
	a.mustPut("k", "v")
	g := c.plane.group()
	leave := func() {}
	defer func() { leave() }()
	c.plane.mu.Lock()
	c.plane.veto = func(cmd fsm.Command) bool {
		if cmd.Handover != nil { // somebody is inside b's gate, so that its promise waits
			var err error
			if leave, err = b.rep.gate.enter(g.Epoch); err != nil {
				t.Error(err)
			}
		}
		return false
	}
	c.plane.mu.Unlock()
	c.must(fsm.Command{StartSwitch: &fsm.StartSwitch{
		Group: orders, Epoch: g.Epoch, To: "b", MaxPause: 30 * time.Second, Deadline: time.Now().Add(time.Minute), Reason: "test",
	}})
	for _, id := range []ident.NodeID{"a", "c"} {
		c.eventually(string(id)+" has a session of the new epoch", func() bool {
			v := c.nodes[id].rep.visitors.from("b")
			return v != nil && v.hello.Epoch == g.Epoch+1 && c.nodes[id].rep.gate.epoch() == g.Epoch+1
		})
	}
	if e := b.rep.gate.epoch(); e != g.Epoch {
		t.Fatalf("b has promised %s", e)
	}
	if j, _ := b.rep.Journal("b"); j != nil {
		if v, _ := j.View(); len(v.Runs) > 0 {
			t.Fatalf("b has deposited %+v before its promise", v.Runs)
		}
	}
	b.crash(0)
	c.failover("a", false)
	c.serves("a")
	a.mustGet("k", "v", false)
	a.mustPut("k", "w")
	b = c.start("b")
	c.level("b", "c")
	for _, row := range c.plane.group().History {
		if row.Epoch == g.Epoch+1 {
			t.Fatalf("an epoch that nobody began is in the history: %+v", c.plane.group().History)
		}
	}
	b.mustGet("k", "w", true)
}

// A feeder that was left rests only while the primary ships in its place.
func TestFeederThatRestsComesBackWhenNobodyShips(t *testing.T) {
	g := &fsm.Group{
		Spec: fsm.GroupSpec{Feeds: map[ident.NodeID]ident.NodeID{"c": "b"}}, Phase: fsm.PhaseOpened, Epoch: 1, OpenEpoch: 1, Primary: "a", OpenNode: "a",
		InSync: []ident.NodeID{"a"},
	}
	stall := new(core.Stall)
	s := visitors{stalls: map[ident.NodeID]*core.Stall{"a": stall}, began: time.Now()}
	stall.Leaves("b", 5, 9, 0, time.Hour)
	if !stall.Leaves("b", 5, 9, time.Hour, time.Hour) {
		t.Fatal("it was not left")
	}
	visitOf := func(from ident.NodeID) *visit {
		v := &visit{}
		v.hello.From, v.hello.Epoch, v.hello.Session = from, 1, 1
		v.hello.Journal = ident.JournalID{Group: orders, Node: "a"}
		return v
	}
	primary := visitOf("a")
	if err := s.add(primary, g, "c"); err != nil {
		t.Fatal(err)
	}
	if err := s.add(visitOf("b"), g, "c"); err == nil {
		t.Fatal("a feeder that rests took the copy from the primary")
	}
	delete(s.current, "a") // its session has ended
	if err := s.add(visitOf("b"), g, "c"); err != nil {
		t.Fatalf("nobody ships, and the feeder is kept out: %v", err)
	}
}
