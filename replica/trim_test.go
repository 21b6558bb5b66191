package replica

import (
	"testing"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/journal"
)

// A node that knew a bundle to be confirmed has said so, and others delete receivers by that. After a restart it only knows what the bundles
// themselves say, and an operator has given that bundle up meanwhile: the copy is not trimmed below it all the same, or it could never go on.
// Proves RJ-5 and RJ-6.
func TestRestartedCopyKeepsWhatItReported(t *testing.T) {
	c := newCluster(t, fsm.GroupSpec{Delivery: fsm.DeliveryAsync}, "a", "b", "c")
	a := c.nodes["a"]
	a.mustPut("k", "common")
	c.level("b", "c")
	c.wires.sever("a", "b", true)
	a.mustPut("k", "lost")
	copied, _ := c.nodes["c"].rep.Journal("a")
	var before journal.View
	c.eventually("c knows everything confirmed", func() bool {
		own, _ := a.rep.Journal("a")
		end, _ := own.View()
		before, _ = copied.View()
		return before.Confirmed == end.Last && before.Durable == end.Last
	})
	c.nodes["c"].stop()
	c.plane.isolate("a", true)
	a.stop()
	c.failover("b", true)
	c.start("c")
	c.serves("b")
	c.nodes["b"].mustPut("k", "after")
	c.level("c")
	copied, _ = c.nodes["c"].rep.Journal("a")
	if v, _ := copied.View(); v.Confirmed >= before.Last {
		t.Fatalf("after the restart %s is known as confirmed: this test needs less than %s", v.Confirmed, before.Last)
	}
	for range 3 {
		c.goesOn("c")
	}
	if v, _ := copied.View(); v.Last != before.Last {
		t.Fatalf("the copy ends at %s, and was reported up to %s", v.Last, before.Last)
	}
	c.plane.isolate("a", false)
	c.wires.sever("a", "b", false)
	c.start("a")
	c.level("a", "c")
}
