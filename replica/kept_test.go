package replica

import (
	"errors"
	"strings"
	"testing"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/replica/core"
)

// Who was dropped deletes nothing: by what it may be readmitted, or given the role, it still holds; and the primary says of a dropped node
// whether its copy, and its store, still connect. Proves TR-5.
func TestDroppedNodeKeepsItsReceivers(t *testing.T) {
	c := newCluster(t, fsm.GroupSpec{}, "a", "b") // receivers stay
	a, b := c.nodes["a"], c.nodes["b"]
	c.inSync("a", "b")
	for range 4 {
		a.mustPut("k", strings.Repeat("x", 4<<10))
		if _, err := a.rep.ChangeReceiver(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	a.mustPut("k", "last")
	c.level("b")
	for _, n := range []*node{a, b} {
		if err := n.rep.data.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	c.renew("a", "b")
	copied, _ := b.rep.Journal("a")
	held := len(copied.Receivers())
	look, _ := b.rep.assignment()
	c.eventually("all is flushed and told", func() bool {
		c.renew("a", "b")
		look, _ = b.rep.assignment()
		flushed, ok := core.LowestFlushed(look, b.rep.data.Flushed())
		return ok && flushed == a.rep.Status().Applied && core.LowestCopy(look, "a") > copied.Receivers()[1].Last
	})
	g := *look.Group
	g.Spec.KeepReceivers, g.Dropped = 1, []fsm.Dropped{{Node: "b"}}
	look.Group = &g
	retain := func() (err error) {
		for range 2 { // what may go is asked for in between
			err = errors.Join(err, b.rep.retain(t.Context(), look))
			b.rep.permits.work.Wait()
		}
		return err
	}
	if err := retain(); err != nil || len(copied.Receivers()) != held {
		t.Fatalf("a dropped node keeps %d of %d receivers: %v", len(copied.Receivers()), held, err)
	}
	g.Dropped = nil
	if err := retain(); err != nil || len(copied.Receivers()) >= held {
		t.Fatalf("one that takes part keeps %d of %d receivers: %v", len(copied.Receivers()), held, err)
	}

	own, _ := a.rep.Journal("a")
	end := own.Receivers()[0].Last
	if err := own.DeleteReceivers(1); err != nil {
		t.Fatal(err)
	}
	at := a.rep.Status().Applied
	told := func(flushed ident.Position, copied ident.Sequence) string {
		return a.rep.Disconnected(&fsm.Node{ID: "b", Flushed: map[ident.GroupName]ident.Position{orders: flushed}, Copies: map[ident.GroupName]fsm.Ends{orders: {"a": copied}}})
	}
	for what, c := range map[string]struct {
		flushed ident.Position
		copied  ident.Sequence
		want    string
	}{
		"it goes on from what is kept":   {at, end, ""},
		"its copy ends before":           {at, end - 1, "what is kept begins"},
		"its store is of another branch": {ident.Position{Epoch: at.Epoch + 7, History: 1}, end, "outside the history"},
	} {
		if why := told(c.flushed, c.copied); (why == "") != (c.want == "") || !strings.Contains(why, c.want) {
			t.Errorf("%s: %q", what, why)
		}
	}
}
