package replica

import (
	"testing"
	"time"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
)

// A feeder whose disk hangs stays connected and says that it is there. Its target leaves it for the primary as soon as that has had more for
// a while, is not taken back at once, and is fed by it again once its disk goes on. Proves RJ-3.
func TestFeederWithAHungDisk(t *testing.T) {
	c := newCluster(t, fsm.GroupSpec{Delivery: fsm.DeliveryAsync, Feeds: map[ident.NodeID]ident.NodeID{"c": "b"}}, "a", "b", "c")
	a := c.nodes["a"]
	c.serves("a")
	a.mustPut("k", "v")
	c.fedBy("c", "b")
	c.level("b", "c")
	release := c.nodes["b"].hangDisk("a")
	released := false
	defer func() {
		if !released {
			release()
		}
	}()
	began := time.Now()
	a.mustPut("k", "w")
	c.level("c")
	if took := time.Since(began); took < testPatience {
		t.Errorf("the feeder was left after %s", took)
	}
	c.fedBy("c", "a")
	left := time.Now()
	a.mustPut("k", "x")
	c.level("c") // the feeder has not taken it back
	releases := time.Now()
	released = true
	release()
	c.fedBy("c", "b")
	t.Logf("left after %s, back %s after the disk went on", left.Sub(began), time.Since(releases))
	a.mustPut("k", "y")
	c.level("b", "c")
}
