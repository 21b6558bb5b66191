package replica

import (
	"errors"
	"slices"
	"testing"

	"github.com/understudy-ha/understudy/fsm"
)

// What is left of a deleted group is removed after its replica was retired: from then on nobody ships to it, and nothing is promised, so that no
// file is made anew. Proves TR-7.
func TestRetiredReplicaMakesNothingAnew(t *testing.T) {
	c := newCluster(t, fsm.GroupSpec{}, "a", "b")
	c.nodes["a"].mustPut("k", "v")
	c.level("b")
	b := c.nodes["b"]
	b.cancel()
	b.wg.Wait()
	if err := b.rep.Retire(t.Context()); err != nil {
		t.Fatal(err)
	}
	fs, dir := b.rep.o.FS, b.rep.o.Dir
	if err := Discard(t.Context(), fs, dir, b.store, orders); err != nil {
		t.Fatal(err)
	}
	if _, err := b.rep.Promise(t.Context(), 9); !errors.Is(err, ErrClosed) {
		t.Errorf("it promises: %v", err)
	}
	if err := b.rep.visitors.add(&visit{r: b.rep}, c.plane.group(), "b"); err == nil {
		t.Error("a session is admitted")
	}
	left, err := Remains(fs, dir, b.store)
	if err != nil || slices.Contains(left, orders) {
		t.Errorf("left are %v, %v", left, err)
	}
}
