package replica

import (
	"testing"
	"time"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
)

// Proves the age of local reads: a copy is as old as the moment for which the primary said where everything ends, once the store
// is there. Silence, waiting entries and older epochs make it no younger.
func TestFreshness(t *testing.T) {
	t0 := time.Unix(1000, 0)
	at := func(h uint64) ident.Position { return ident.Position{Epoch: 1, History: ident.History(h)} }
	second := func(n int) time.Time { return t0.Add(time.Duration(n) * time.Second) }
	var f freshness
	expect := func(what string, open ident.Epoch, h uint64, ok bool, asOf time.Time) {
		t.Helper()
		if have, when := f.reach(open, at(h)); have != ok || !when.Equal(asOf) {
			t.Errorf("%s: %v as of %s, want %v as of %s", what, have, when, ok, asOf)
		}
	}
	expect("nothing was said", 1, 10, false, time.Time{})
	f.say(1, at(10), second(1))
	expect("the store is behind", 1, 9, false, time.Time{})
	f.say(1, at(12), second(2))
	f.say(1, at(15), second(3))
	expect("the oldest is reached", 1, 10, true, second(1))
	expect("silence makes nothing younger", 1, 14, true, second(1))
	expect("the newest is reached", 1, 15, true, second(3))
	f.say(2, at(20), second(5))
	expect("another epoch is open", 1, 99, false, time.Time{})
	expect("not yet in the new epoch", 2, 19, false, second(3))
	f.say(1, at(1), second(6))
	expect("an old epoch says nothing", 2, 19, false, second(3))
	f.say(2, at(20), second(4))
	expect("never older than it was", 2, 20, true, second(5))
}

// A primary that was cut off, and replaced, does not tell the backups on its side of the cut that their copies are fresh.
func TestDeposedPrimarySaysNothingAboutAge(t *testing.T) {
	c := newCluster(t, fsm.GroupSpec{}, "a", "b", "c")
	c.keepInSync("a", "b")
	c.nodes["a"].mustPut("k", "old")
	c.level("b", "c")
	standby := c.nodes["c"].rep
	c.eventually("c knows its age", func() bool { _, ok := standby.Behind(); return ok })
	c.wires.sever("a", "b", true)
	c.wires.sever("b", "c", true)
	c.plane.isolate("a", true)
	c.plane.isolate("c", true)
	c.plane.lease("a", false) // it ran out
	c.failover("b", false)
	c.serves("b")
	c.nodes["b"].mustPut("k", "new")
	wrote := time.Now()
	heard := c.nodes["a"].rep.Status()
	for beats := 0; beats < 10; beats++ { // of the session between a and c, which goes on
		time.Sleep(20 * time.Millisecond)
		since := time.Since(wrote)
		if behind, ok := standby.Behind(); ok && behind < since {
			t.Fatalf("c says that it was level %s ago; b has acknowledged a write %s ago that c does not have (a: %+v)", behind, since, heard)
		}
	}
	c.nodes["c"].mustGet("k", "old", true)
}
