package replica

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/journal/entry"
	"github.com/understudy-ha/understudy/replica/store"
)

// together sequences requests in one bundle, in their order.
func (c *cluster) together(n *node, requests ...func()) {
	c.t.Helper()
	p := n.rep.primary.Load()
	p.hold(true)
	defer p.hold(false)
	c.eventually("nothing waits", func() bool { return p.queue.length() == 0 })
	for i, run := range requests {
		n.wg.Go(run)
		c.eventually("it waits", func() bool { return p.queue.length() == i+1 })
	}
}

// What a program has seen as absent only because of its own changes is not deleted when they are taken back.
func TestRefusedProgramsDeleteOnlyWhatIsDue(t *testing.T) {
	c := newCluster(t, fsm.GroupSpec{}, "a", "b")
	a := c.nodes["a"]
	c.inSync("a", "b")
	enough := errors.New("enough seen")
	for name, late := range map[string]int64{"for ever": 0, "for a while": in(time.Hour)} {
		a.lend("k", "live", late)
		a.lend("old", "v", in(time.Hour))
		if _, err := a.runs(func(v *View) error {
			for _, key := range []string{"k", "new"} {
				if err := v.Put("f", []byte(key), entry.Image{Value: []byte("due"), Expiry: v.Now() - 1}); err != nil {
					return err
				}
				if image, err := v.Get("f", []byte(key)); image != nil || err != nil {
					return fmt.Errorf("it is there: %v", err)
				}
			}
			return enough
		}); !errors.Is(err, enough) {
			t.Fatalf("%s: %v", name, err)
		}
		a.mustGet("k", "live", false)
	}
	c.level("b")
}

// Absence by time is committed before an answer that rests on it, also when the request itself makes no entry.
func TestAbsentConditionsWithoutAnEntry(t *testing.T) {
	c := newCluster(t, fsm.GroupSpec{}, "a", "b")
	a := c.nodes["a"]
	c.inSync("a", "b")
	nothing := func(*View) error { return nil }
	absent, there := Condition{File: "f", Key: []byte("k"), Absent: true}, Condition{File: "f", Key: []byte("none")}
	for name, x := range map[string]struct {
		t    Transaction
		want error
		more uint32 // entries beside the deletion
	}{
		"a program that changes nothing": {Transaction{Conditions: []Condition{absent, absent}, Program: nothing}, nil, 0},
		"a program that refuses":         {Transaction{Conditions: []Condition{absent}, Program: func(*View) error { return errPanic }}, errPanic, 0},
		"as it was seen":                 {Transaction{Conditions: []Condition{{File: "f", Key: []byte("k"), Unchanged: true}}, Program: nothing}, nil, 0},
		"another one does not hold":      {Transaction{Conditions: []Condition{absent, there}, Writes: []Write{{File: "f", Key: []byte("w")}}}, ErrCondition, 0},
		"one that does not hold, kept":   {Transaction{Conditions: []Condition{absent, there}, Writes: []Write{{File: "f", Key: []byte("w")}}, Once: once("x", 1)}, ErrCondition, 1},
	} {
		type answer struct {
			r   Receipt
			err error
		}
		first, second := make(chan answer, 1), make(chan answer, 1)
		send := func(tx Transaction, to chan answer) func() {
			return func() {
				r, err := a.rep.Write(t.Context(), tx)
				to <- answer{r, err}
			}
		}
		put := Transaction{Writes: []Write{{File: "f", Key: []byte("k"), Value: []byte("v"), Expiry: in(-time.Hour)}}}
		c.together(a, send(put, first), send(x.t, second))
		w, got := <-first, <-second
		if w.err != nil || !errors.Is(got.err, x.want) {
			t.Fatalf("%s: %v, %v", name, w.err, got.err)
		}
		own, _ := a.rep.Journal("a")
		b, err := own.BundleAt(w.r.Sequence)
		if err != nil || b.Count != 2+x.more {
			t.Errorf("%s: the bundle has %d entries, %v", name, b.Count, err)
		}
		if got.err == nil && got.r.Position.History != w.r.Position.History+1 {
			t.Errorf("%s: answered at %s, the record that is due was made at %s", name, got.r.Position, w.r.Position)
		}
		c.eventually("it is deleted", func() bool { return !a.stored("k") })
	}
	c.level("b")
}

// What is not due yet by the time of the bundle, since the clock was set back, was not got to.
func TestDeletionsStopAtTheTimeOfTheBundle(t *testing.T) {
	c := newCluster(t, fsm.GroupSpec{}, "a", "b")
	a := c.nodes["a"]
	c.inSync("a", "b")
	past, late := in(-time.Hour), in(time.Hour)
	a.lend("late", "v", late)
	p := a.rep.primary.Load()
	var handled int
	var err error
	done := make(chan struct{})
	c.together(a, func() { _ = a.lend("due", "v", past) }, func() {
		handled, err = p.expire(t.Context(), []store.Expiring{{File: "f", Key: []byte("due"), Expiry: past}, {File: "f", Key: []byte("late"), Expiry: late}})
		close(done)
	})
	<-done
	if handled != 1 || err != nil {
		t.Fatalf("got to %d of them, %v", handled, err)
	}
	a.mustGet("late", "v", false)
}
