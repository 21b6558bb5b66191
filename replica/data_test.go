package replica

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal/entry"
)

// Proves RJ-7: the backup applies each committed entry once, in order, whatever a crash leaves of its store and journals.
func TestBackupAppliesExactlyOnce(t *testing.T) {
	c := newCluster(t, fsm.GroupSpec{}, "a", "b", "c")
	c.inSync("a", "b")
	l := c.load(3)
	for round := range 4 {
		n := c.nodes["b"]
		at := n.rep.Status().Applied
		c.eventually("b gets on", func() bool { return n.rep.Status().Applied.History > at.History+20 })
		if round%2 == 1 {
			if err := n.store.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		n.crash([]int{0, 100, 50, 0}[round])
		b := c.start("b")
		c.eventually("b is level again", func() bool {
			_, ok := b.event(EventRecovered)
			return ok
		})
		c.eventually("two are in the set", func() bool { return len(c.plane.group().InSync) == 2 })
	}
	l.end()
	if l.failed.Load() > 0 || len(l.unknown) > 0 {
		t.Fatalf("%d failed, %d unknown", l.failed.Load(), len(l.unknown))
	}
	// Equal positions, equal content with attributes: every record says which entry made it.
	c.level("b", "c")
}

// The primary sees its own writes in flight: images, conditions and types follow from the order of sequencing.
func TestTransactions(t *testing.T) {
	c := newCluster(t, fsm.GroupSpec{Images: fsm.ImagesBoth}, "a", "b")
	a := c.nodes["a"]
	c.inSync("a", "b")
	write := func(tx Transaction) (Receipt, error) { return a.rep.Write(t.Context(), tx) }
	r, err := write(Transaction{Writes: []Write{
		{File: "f", Key: []byte("k"), Value: []byte("1")},
		{File: "f", Key: []byte("k"), Value: []byte("2")},
		{File: "g", Key: []byte("k"), Value: []byte("3"), Expiry: math.MaxInt64, Kind: entry.KindHash},
	}})
	if err != nil || !r.Created {
		t.Fatalf("%+v %v", r, err)
	}
	own, _ := a.rep.Journal("a")
	b, err := own.BundleAt(r.Sequence)
	if err != nil {
		t.Fatal(err)
	}
	all, err := b.All()
	if err != nil || len(all) != 3 || all[2].Position != r.Position || all[2].Sequence != r.Sequence {
		t.Fatalf("entries %+v, %v", all, err)
	}
	for i, want := range []entry.Type{entry.Put, entry.Update, entry.Put} {
		if all[i].Type != want || all[i].Transaction != all[0].Sequence {
			t.Errorf("entry %d: %+v", i, all[i])
		}
	}
	if before := all[1].Before; before == nil || string(before.Value) != "1" || before.Position != all[0].Position {
		t.Errorf("before-image %+v", before)
	}
	absent := Condition{File: "f", Key: []byte("k"), Absent: true}
	if _, err := write(Transaction{Writes: []Write{{File: "f", Key: []byte("k"), Value: []byte("x")}}, Conditions: []Condition{absent}}); !errors.Is(err, ErrCondition) {
		t.Fatalf("the record exists: %v", err)
	}
	same := Condition{File: "f", Key: []byte("k"), Position: all[1].Position}
	if _, err := write(Transaction{Writes: []Write{{File: "f", Key: []byte("k"), Delete: true}}, Conditions: []Condition{same}}); err != nil {
		t.Fatal(err)
	}
	if _, err := write(Transaction{Writes: []Write{{File: "f", Key: []byte("k"), Delete: true}}, Conditions: []Condition{same}}); !errors.Is(err, ErrCondition) {
		t.Fatalf("the record is gone: %v", err)
	}
	if r, err := write(Transaction{Writes: []Write{{File: "f", Key: []byte("k"), Delete: true}}}); err != nil || r.Found || r.Created {
		t.Fatalf("deleting what is not there: %+v %v", r, err)
	}
	for _, bad := range []Transaction{
		{}, {Writes: []Write{{File: "f"}}}, {Writes: []Write{{Key: []byte("k")}}},
		{Writes: []Write{{File: "f", Key: make([]byte, entry.MaxKey+1)}}},
		{Writes: []Write{{File: "f", Key: []byte("k"), Kind: 2}}},
		{Writes: []Write{{File: strings.Repeat("f", entry.MaxFile+1), Key: []byte("k")}}},
	} {
		if _, err := write(bad); !errors.Is(err, ErrInvalid) && !errors.Is(err, ErrTooLarge) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
	if _, err := a.rep.Deposit(t.Context(), entry.Switch, nil); !errors.Is(err, ErrInvalid) {
		t.Errorf("SW is not for applications: %v", err)
	}
	u, err := a.rep.Deposit(t.Context(), entry.Type{'X', 'Y'}, []byte("payload"))
	if err != nil || u.Position.History != a.rep.Status().Applied.History {
		t.Fatalf("user entry %+v, %v", u, err)
	}
	c.level("b")
}

// Proves RJ-5: receivers are kept until every data node has flushed what is in them, and go afterwards.
func TestRetention(t *testing.T) {
	c := newCluster(t, fsm.GroupSpec{KeepReceivers: 1, ReceiverBytes: 64 << 10}, "a", "b", "c")
	a := c.nodes["a"]
	c.keepInSync("a", "b")
	fill := func(n int) {
		t.Helper()
		for i := range n {
			a.mustPut(fmt.Sprint("k", i%7), strings.Repeat("v", 8<<10))
		}
	}
	fill(40)
	own, _ := a.rep.Journal("a")
	if n := len(own.Receivers()); n < 5 {
		t.Fatalf("only %d receivers", n)
	}
	c.level("b", "c")
	report := func(ids ...ident.NodeID) {
		for _, id := range ids {
			n := c.nodes[id]
			if err := n.store.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
			c.eventually("the flush is known", func() bool { return n.rep.data.Flushed() == n.rep.data.Position() })
			c.renew(id)
		}
	}
	report("a", "b")
	c.goesOn("a") // several rounds of retention: nothing may happen
	c.goesOn("b")
	if first := own.Receivers()[0].Number; first != 1 {
		t.Fatalf("c has flushed nothing, but the receivers begin with %s", first)
	}
	report("c")
	c.eventually("old receivers go, here and in the copies", func() bool {
		for _, id := range []ident.NodeID{"a", "b", "c"} {
			j, _ := c.nodes[id].rep.Journal("a")
			if len(j.Receivers()) > 2 {
				return false
			}
		}
		return true
	})
	if e, ok := a.event(EventReceiversGone); !ok || e.First != 1 {
		t.Fatalf("event %+v", e)
	}
	fill(3)
	// The rest is enough: for a restart, for a takeover, for a node that comes back.
	c.nodes["b"].crash(0)
	c.start("b")
	c.level("b", "c")
	c.eventually("two are in the set", func() bool { return len(c.plane.group().InSync) == 2 })
	to := c.plane.group().InSync[1]
	c.nodes["a"].crash(0)
	c.failover(to, false)
	c.serves(to)
	c.start("a")
	c.level("a", "b", "c")
}

// A journal that fails ends the role for this life, loudly.
func TestJournalFailureIsFatal(t *testing.T) {
	c := newCluster(t, fsm.GroupSpec{}, "a", "b")
	a, b := c.nodes["a"], c.nodes["b"]
	c.keepInSync("a", "b")
	a.mustPut("k", "v")
	a.fail.Store("journal.sync:orders/a", func() error { return errors.New("the disk is broken") })
	_, err := a.put("k", "w")
	var unknown *UnknownOutcomeError
	if !errors.As(err, &unknown) {
		t.Fatalf("write on a broken disk: %v", err)
	}
	c.eventually("the session ended", func() bool { return a.fatal.Load() != nil })
	a.mute.Store(true)
	a.stop()
	c.failover("b", false)
	c.serves("b")
	if v, err := b.get("k", false); err != nil || v != "v" && v != "w" {
		t.Fatalf("%q %v", v, err)
	}
}
