package replica

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/journal/entry"
)

// closing begins the deletion of the group. There is another one beside it, or it would be the last.
func (c *cluster) closing() uint64 {
	c.t.Helper()
	return c.must(fsm.Command{CloseGroup: &fsm.CloseGroup{Group: orders, Epoch: c.plane.group().Epoch}}).Operation
}

// beside adds another group, which nobody serves.
func (c *cluster) beside() {
	c.t.Helper()
	spec := fsm.GroupSpec{Name: "beside", Files: []string{"beside"}, Preferred: "a"}
	c.must(fsm.Command{CreateGroup: &fsm.CreateGroup{Spec: spec, Incarnation: c.nodes["a"].life}})
}

func (c *cluster) stays(id uint64) {
	c.t.Helper()
	c.must(fsm.Command{DropClosing: &fsm.DropClosing{Group: orders, Closing: id, Reason: "r"}})
}

// TestClosingAtTheSequencer: nothing that somebody asks for is taken in a group that is to be deleted, of whatever kind; what changes nothing
// is, and the end of what was before can be seen. Proves TR-7, I8.
func TestClosingAtTheSequencer(t *testing.T) {
	c := newCluster(t, fsm.GroupSpec{}, "a", "b")
	a := c.nodes["a"]
	c.inSync("a", "b")
	c.beside()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	a.mustPut("old", "v")
	id := c.closing()
	write := func(w ...Write) Transaction { return Transaction{Writes: w} }
	old := Write{File: "f", Key: []byte("old"), Delete: true}
	for name, tx := range map[string]Transaction{
		"write":    write(Write{File: "f", Key: []byte("k"), Value: []byte("v")}),
		"deletion": write(old),
		"several":  write(old, Write{File: "f", Key: []byte("k"), Value: []byte("v")}),
		"once":     {Writes: []Write{old}, Once: &Once{Key: "k", Request: [32]byte{1}, Keep: patience}},
		"program":  {Program: func(v *View) error { return v.Put("f", []byte("p"), entry.Image{Value: []byte("v")}) }},
	} {
		if _, err := a.rep.Write(ctx, tx); !errors.Is(err, ErrClosing) || !NotDone(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := a.rep.DepositOnce(ctx, entry.Type{'A', '1'}, []byte("x"), nil); !errors.Is(err, ErrClosing) {
		t.Errorf("a user's entry: %v", err)
	}
	if err := a.rep.Drain(ctx); err != nil {
		t.Errorf("the end of what was before: %v", err)
	}
	if h, err := a.rep.FirstHeld(); err != nil || h == nil || string(h.Key) != "old" {
		t.Errorf("held: %+v, %v", h, err)
	}
	c.stays(id)
	if _, err := a.rep.Write(ctx, write(old)); err != nil {
		t.Errorf("it goes on: %v", err)
	}
	if h, err := a.rep.FirstHeld(); err != nil || h != nil {
		t.Errorf("held: %+v, %v", h, err)
	}
}

// TestWritesRaceClosing: whatever comes when a group is to be deleted, either it was taken before the primary has looked, and is seen, or it is
// refused as surely not done. Proves TR-7, I8.
func TestWritesRaceClosing(t *testing.T) {
	c := newCluster(t, fsm.GroupSpec{}, "a", "b")
	a := c.nodes["a"]
	c.inSync("a", "b")
	c.beside()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var looked atomic.Uint64 // odd: the primary has looked and found nothing, and nobody has said yet that the group stays
	var acknowledged atomic.Int64
	var writing sync.WaitGroup
	stop := make(chan struct{})
	for i := range 3 {
		writing.Go(func() {
			w := Write{File: "f", Key: fmt.Appendf(nil, "k%d", i), Value: []byte("v")}
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				before := looked.Load()
				_, err := a.rep.Write(ctx, Transaction{Writes: []Write{w}})
				switch {
				case err == nil && before%2 == 1 && looked.Load() == before:
					t.Error("acknowledged after the look")
				case err != nil && !errors.Is(err, ErrClosing):
					t.Error(err)
					return
				}
				if err == nil {
					acknowledged.Add(1)
					w.Delete = !w.Delete
				}
			}
		})
	}
	empty, full := 0, 0
	for i := range 60 {
		more := acknowledged.Load() + int64(i%4)
		c.eventually("writes are acknowledged again", func() bool { return acknowledged.Load() > more })
		id := c.closing()
		if err := a.rep.Drain(ctx); err != nil {
			t.Fatal(err)
		}
		h, err := a.rep.FirstHeld()
		if err != nil {
			t.Fatal(err)
		}
		if h == nil {
			empty++
			looked.Add(1)
			if a.rep.Drain(ctx) != nil {
				t.Error("not served any more")
			}
			if h, err := a.rep.FirstHeld(); err != nil || h != nil {
				t.Errorf("found after the look: %+v, %v", h, err)
			}
			looked.Add(1)
		} else {
			full++
		}
		c.stays(id)
	}
	close(stop)
	writing.Wait()
	t.Logf("%d times without records, %d times with some", empty, full)
}
