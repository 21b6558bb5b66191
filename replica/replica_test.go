package replica

import (
	"testing"

	"github.com/understudy-ha/understudy/fsm"
)

// Proves RJ-3: a synchronous write is on the target when the writer has its answer.
func TestWriteReplicateRead(t *testing.T) {
	c := newCluster(t, fsm.GroupSpec{}, "a", "b", "c")
	a, b := c.nodes["a"], c.nodes["b"]
	c.inSync("a", "b")
	r := a.mustPut("k", "v1")
	if !r.Created || r.Found || r.Sequence == 0 || r.Position.Epoch != 1 {
		t.Fatalf("receipt of a new record: %+v", r)
	}
	copied, _ := b.rep.Journal("a")
	if v, _ := copied.View(); v.Durable < r.Sequence {
		t.Fatalf("acknowledged %s, but durable at b only up to %s", r.Sequence, v.Durable)
	}
	if r := a.mustPut("k", "v2"); r.Created || !r.Found {
		t.Fatalf("receipt of an update: %+v", r)
	}
	a.mustGet("k", "v2", false)
	c.level("b", "c")
	b.mustGet("k", "v2", true)
	if _, err := b.get("k", false); err == nil {
		t.Fatal("a backup answered for the primary")
	}
	if _, err := b.put("k", "v3"); err == nil {
		t.Fatal("a backup took a write")
	}
}
