package replica

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/journal"
)

// small is a group whose journals have a cap.
func small(policy string) fsm.GroupSpec {
	return fsm.GroupSpec{MaximumBlocks: 1, ReceiverBytes: 64 << 10, JournalFull: policy}
}

// fill writes until the journal refuses, and returns what was acknowledged and the refusal.
func fill(t *testing.T, n *node) (acked map[string]string, refused error) {
	t.Helper()
	acked = map[string]string{}
	for i := 0; refused == nil; i++ {
		if i == 2000 {
			t.Fatal("the cap has no effect")
		}
		key, value := fmt.Sprintf("k%d", i%50), strings.Repeat(fmt.Sprint(i%10), 8<<10)
		_, err := n.put(key, value)
		if err == nil {
			acked[key] = value
		}
		refused = err
	}
	return acked, refused
}

// Proves TR-5, TR-4, S19: with a shadow away and journal_full stall, writes are refused at the cap with an error that says
// that nothing was done; the primary keeps its role and reads go on; when the shadow is back, writes go on by themselves, and it
// has everything.
func TestStallAtTheCap(t *testing.T) {
	c := newCluster(t, small(fsm.JournalFullStall), "a", "b")
	a := c.nodes["a"]
	c.inSync("a", "b")
	a.mustPut("first", "v")
	c.level("b")
	c.renew("a", "b")
	c.wires.sever("a", "b", true)
	acked, err := fill(t, a)
	var full *journal.FullError
	if !errors.Is(err, ErrJournalFull) || !errors.As(err, &full) || full.Reason != "maximum" || full.Limit != 7<<17 || !NotDone(err) {
		t.Fatalf("at the cap: %v", err)
	}
	epoch := c.plane.group().Epoch
	for key, value := range acked {
		a.mustGet(key, value, false)
	}
	if s := a.rep.Status(); !s.Serving || a.fatal.Load() != nil || s.Full(true) == "" {
		t.Fatalf("the primary: %+v", s)
	}
	if _, ok := a.event(EventJournalFull); !ok {
		t.Fatal("nobody was told")
	}
	if g := c.plane.group(); len(g.Dropped) != 0 {
		t.Fatalf("dropped: %+v", g.Dropped)
	}
	c.wires.sever("a", "b", false)
	c.eventually("writes go on by themselves", func() bool {
		c.renew("a", "b")
		_, err := a.put("after", strings.Repeat("v", 8<<10)) // what is small may fit in the rest all the time
		return err == nil
	})
	if g := c.plane.group(); g.Epoch != epoch || g.Primary != "a" {
		t.Fatalf("the role moved: %+v", g)
	}
	c.eventually("it was told", func() bool { _, ok := a.event(EventJournalFree); return ok })
	c.keepInSync("a", "b")
	c.level("b")
	acked["after"], acked["first"] = strings.Repeat("v", 8<<10), "v"
	c.failover("b", false)
	c.serves("b")
	for key, value := range acked {
		c.nodes["b"].mustGet(key, value, false)
	}
}

// Proves TR-5: with journal_full drop the primary drops the shadow that is away, which is recorded; writes go on, and the
// shadow is refused until it is primed or readmitted.
func TestDropAtTheCap(t *testing.T) {
	c := newCluster(t, small(fsm.JournalFullDrop), "a", "b", "c")
	a := c.nodes["a"]
	c.inSync("a", "b")
	a.mustPut("first", "v")
	c.level("b", "c")
	c.renew("a", "b", "c")
	c.wires.sever("a", "b", true)
	c.inSync("a", "c")
	for i := range 400 { // three times the cap
		c.eventually("writes go on", func() bool {
			_, err := a.put(fmt.Sprintf("k%d", i%50), strings.Repeat("x", 8<<10))
			if err != nil && !errors.Is(err, ErrJournalFull) {
				t.Fatal(err)
			}
			return err == nil
		})
		if i%20 == 0 {
			c.level("c")
			c.renew("a", "c")
		}
	}
	g := c.plane.group()
	if len(g.Dropped) != 1 || g.Dropped[0].Node != "b" || g.Dropped[0].LastCopy || g.InSet("b") {
		t.Fatalf("dropped: %+v, set %v", g.Dropped, g.InSync)
	}
	if fsm.Role(g, &fsm.Node{ID: "b", Kind: fsm.KindData}) != fsm.RoleDropped {
		t.Fatal("its role does not show it")
	}
	c.wires.sever("a", "b", false)
	c.eventually("b is told", func() bool {
		for _, s := range a.rep.Status().Targets {
			if s.Node == "b" {
				return strings.Contains(s.Reason, "dropped")
			}
		}
		return false
	})
	// The one that is left takes over, with everything.
	c.keepInSync("a", "c")
	c.failover("c", false)
	c.serves("c")
	c.nodes["c"].mustGet("first", "v", false)
}

// Proves TR-4, RJ-5: what a consumer holds stays, on the backup too, until it moves on.
func TestHoldKeepsReceivers(t *testing.T) {
	c := newCluster(t, fsm.GroupSpec{KeepReceivers: 1}, "a", "b")
	a, b := c.nodes["a"], c.nodes["b"]
	c.inSync("a", "b")
	a.mustPut("first", "v")
	held := a.rep.Status().Applied
	c.must(fsm.Command{SetHold: &fsm.SetHold{Group: orders, Name: "reader", Position: held, Until: time.Now().Add(time.Hour)}})
	write := func() {
		for i := range 20 {
			a.mustPut(fmt.Sprint("k", i), strings.Repeat("y", 40<<10))
		}
		c.level("b")
		c.renew("a", "b")
	}
	write()
	own, _ := a.rep.Journal("a")
	copied, _ := b.rep.Journal("a")
	c.goesOn("a") // several looks of the retention
	for _, j := range []*journal.Journal{own, copied} {
		if rs := j.Receivers(); len(rs) < 5 || rs[0].Start.History > held.History {
			t.Fatalf("%s begins at %s although %s is held", j.ID(), rs[0].Start, held)
		}
	}
	h, _ := c.plane.group().Hold("reader")
	c.must(fsm.Command{SetHold: &fsm.SetHold{Group: orders, Name: "reader", Version: h.Version, Position: a.rep.Status().Applied, Until: time.Now().Add(time.Hour)}})
	for _, j := range []*journal.Journal{own, copied} {
		c.eventually("what was read goes", func() bool { c.renew("a", "b"); return len(j.Receivers()) <= 3 })
	}
}

// Proves RJ-5: a receiver whose deletion is vetoed stays, is told once, and goes when it is allowed.
func TestVeto(t *testing.T) {
	c := newCluster(t, fsm.GroupSpec{KeepReceivers: 1}, "a", "b")
	a := c.nodes["a"]
	c.inSync("a", "b")
	deny := errors.New("the archive has not got it yet")
	a.veto.Store(&deny)
	for i := range 20 {
		a.mustPut(fmt.Sprint("k", i), strings.Repeat("y", 40<<10))
	}
	c.level("b")
	c.eventually("somebody objects", func() bool { c.renew("a", "b"); _, ok := a.event(EventVetoed); return ok })
	asked := a.asked.Load()
	c.eventually("it is asked again", func() bool { return a.asked.Load() > asked+1 })
	own, _ := a.rep.Journal("a")
	if rs := own.Receivers(); rs[0].Number != 1 {
		t.Fatalf("receivers begin at %s", rs[0].Number)
	}
	a.mu.Lock()
	told := 0
	for _, e := range a.events {
		if e.Kind == EventVetoed {
			told++
		}
	}
	a.mu.Unlock()
	if told != 1 {
		t.Fatalf("told %d times", told)
	}
	a.veto.Store(nil)
	c.eventually("they go", func() bool { c.renew("a", "b"); return len(own.Receivers()) <= 3 })
}

// Proves that a copy that is full does not cost anything acknowledged: it leaves the set, the primary goes on by on_no_sync, and
// it catches up once it has room.
func TestFullCopy(t *testing.T) {
	c := newCluster(t, fsm.GroupSpec{}, "a", "b")
	a, b := c.nodes["a"], c.nodes["b"]
	c.inSync("a", "b")
	a.mustPut("first", "v")
	copied, _ := b.rep.Journal("a")
	v, _ := copied.View()
	b.rep.shelf.mu.Lock() // the group has no cap: this copy alone is given one
	copied.SetLimits(journal.Limits{MaximumBytes: v.Bytes + 100<<10})
	b.rep.shelf.mu.Unlock()
	for i := range 100 {
		a.mustPut(fmt.Sprint("k", i), strings.Repeat("z", 8<<10))
	}
	c.eventually("the copy has left the set, and says why", func() bool {
		for _, s := range a.rep.Status().Targets {
			if s.Node == "b" && strings.Contains(s.Reason, "is full") {
				return !c.plane.group().InSet("b")
			}
		}
		return false
	})
	if b.fatal.Load() != nil {
		t.Fatalf("the node ended: %v", *b.fatal.Load())
	}
	copied.SetLimits(journal.Limits{})
	c.keepInSync("a", "b")
	c.level("b")
	c.failover("b", false)
	c.serves("b")
	for i := range 100 {
		b.mustGet(fmt.Sprint("k", i), strings.Repeat("z", 8<<10), false)
	}
}

// Proves RJ-5: an idle receiver is changed for its age, one that holds nothing new is not.
func TestReceiverAge(t *testing.T) {
	c := newCluster(t, fsm.GroupSpec{ReceiverAge: time.Second}, "a", "b")
	a := c.nodes["a"]
	c.inSync("a", "b")
	a.mustPut("k", "v")
	own, _ := a.rep.Journal("a")
	held := len(own.Receivers())
	c.eventually("it is changed", func() bool { return len(own.Receivers()) > held })
	if own.Due(time.Now().Add(time.Hour)) {
		t.Fatal("a receiver that holds nothing is due")
	}
}
