package replica

import (
	"testing"

	"github.com/understudy-ha/understudy/fsm"
)

// A backup that needs priming says so once, acknowledges nothing as held, and is not chosen.
func TestNeedsPriming(t *testing.T) {
	c := newCluster(t, fsm.GroupSpec{Delivery: fsm.DeliveryAsync, Images: fsm.ImagesAfter}, "a", "b")
	a, b := c.nodes["a"], c.nodes["b"]
	a.mustPut("k", "1")
	c.level("b")
	c.wires.sever("a", "b", true)
	a.mustPut("k", "2") // applied at a alone, without its before-image
	if err := a.store.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	a.stop()
	c.failover("b", true)
	c.serves("b")
	c.wires.sever("a", "b", false)
	a = c.start("a")
	c.eventually("a needs priming", func() bool { return a.rep.Status().NeedsPriming })
	b.mustPut("k", "3")
	c.eventually("a receives", func() bool {
		for _, s := range b.rep.Status().Targets {
			if s.Node == "a" && s.Durable >= b.rep.Status().Sequence {
				return s.Held.IsZero()
			}
		}
		return false
	})
	c.goesOn("a") // several of its sessions end meanwhile
	n := 0
	a.mu.Lock()
	for _, e := range a.events {
		if e.Kind == EventNeedsPriming {
			n++
		}
	}
	a.mu.Unlock()
	if n != 1 || !a.rep.Status().NeedsPriming {
		t.Errorf("told %d times, still needed: %t", n, a.rep.Status().NeedsPriming)
	}
	report, err := a.rep.Promise(t.Context(), c.plane.group().Epoch)
	if err != nil || report.Unable == "" {
		t.Errorf("report %+v, %v", report, err)
	}
}
