package replica

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"testing"
	"time"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal/entry"
	"github.com/understudy-ha/understudy/replica/store"
)

// in returns a time that is so far away by the right clock.
func in(d time.Duration) int64 { return time.Now().Add(d).UnixNano() }

// lend puts a record that expires.
func (n *node) lend(key, value string, expiry int64) Receipt {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	r, err := n.rep.Write(ctx, Transaction{Writes: []Write{{File: "f", Key: []byte(key), Value: []byte(value), Expiry: expiry}}})
	if err != nil {
		n.t.Fatalf("put %s at %s: %v", key, n.id, err)
	}
	return r
}

func (n *node) mustNotGet(key string, local bool) {
	n.t.Helper()
	if got, err := n.get(key, local); !errors.Is(err, ErrNotFound) {
		n.t.Fatalf("get %s at %s: %q, %v; it has expired", key, n.id, got, err)
	}
}

// stored tells whether the store of a node has a record, expired or not.
func (n *node) stored(key string) bool {
	n.t.Helper()
	_, err := n.rep.data.Get("f", []byte(key))
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		n.t.Fatal(err)
	}
	return err == nil
}

// The primary deletes a record when its time is over, though nobody asks for it; the deletion is an entry like any other. A
// backup shows what it has, whatever its own clock says, and never again what the primary has deleted.
func TestExpiry(t *testing.T) {
	c := newCluster(t, fsm.GroupSpec{Images: fsm.ImagesBoth}, "a", "b")
	a, b := c.nodes["a"], c.nodes["b"]
	c.inSync("a", "b")
	c.walls["b"].set(9 * time.Hour)
	a.lend("soon", "v", in(time.Hour))
	a.lend("late", "v", in(3*time.Hour))
	a.mustPut("ever", "v")
	c.level("b")
	for _, n := range []*node{a, b} {
		n.mustGet("soon", "v", true)
	}
	before := a.rep.Status().Applied.History
	c.walls["a"].set(2 * time.Hour)
	c.eventually("it is deleted at both", func() bool { return !a.stored("soon") && !b.stored("soon") })
	a.mustNotGet("soon", false)
	b.mustNotGet("soon", true)
	a.mustGet("late", "v", false)
	b.mustGet("late", "v", true)
	c.level("b")
	if after := a.rep.Status().Applied.History; after != before+1 {
		t.Fatalf("one deletion is one entry: from %s to %s", before, after)
	}
	own, _ := a.rep.Journal("a")
	v, _ := own.View()
	bundle, err := own.BundleAt(v.Last)
	if err != nil {
		t.Fatal(err)
	}
	all, err := bundle.All()
	if err != nil || len(all) != 1 || all[0].Type != entry.Delete || string(all[0].Key) != "soon" || all[0].Before == nil || string(all[0].Before.Value) != "v" {
		t.Fatalf("%+v %v", all, err)
	}
	if bundle.Time < all[0].Before.Expiry {
		t.Fatalf("deleted at %d, its time was over at %d", bundle.Time, all[0].Before.Expiry)
	}
	if r := a.lend("soon", "again", 0); !r.Created {
		t.Fatalf("a record that had expired: %+v", r)
	}
	a.mustGet("soon", "again", false)
}

// Absence is answered when the deletion is committed, not before: to a read, and to whoever made it a condition. A list leaves
// out what is due and waits for nothing.
func TestAbsenceIsCommittedFirst(t *testing.T) {
	c := newCluster(t, fsm.GroupSpec{}, "a", "b")
	a, b := c.nodes["a"], c.nodes["b"]
	c.inSync("a", "b")
	soon := in(time.Hour)
	a.lend("read", "v", soon)
	a.lend("condition", "v", soon)
	a.mustPut("stays", "v")
	c.level("b")
	own, _ := a.rep.Journal("a")
	before, _ := own.View()
	c.plane.isolate("a", true) // it cannot take b out of the set
	release := sync.OnceFunc(b.hangDisk("a"))
	t.Cleanup(release) // also when the test fails: the nodes could not stop
	c.walls["a"].set(2 * time.Hour)
	answers := make(chan error, 2)
	a.wg.Go(func() {
		_, err := a.get("read", false)
		answers <- err
	})
	a.wg.Go(func() {
		_, err := a.rep.Write(context.Background(), Transaction{
			Writes:     []Write{{File: "f", Key: []byte("other"), Value: []byte("v")}},
			Conditions: []Condition{{File: "f", Key: []byte("condition")}},
		})
		answers <- err
	})
	c.eventually("a deletion is durable here", func() bool {
		v, _ := own.View()
		return v.Durable > before.Last
	})
	page, err := a.rep.List(t.Context(), "f", nil, nil, 10, false)
	if err != nil || len(page.Records) != 1 || string(page.Records[0].Key) != "stays" {
		t.Fatalf("a list: %+v, %v", page, err)
	}
	if !a.stored("read") || !a.stored("condition") {
		t.Fatal("deleted before it is committed")
	}
	select {
	case err := <-answers:
		t.Fatalf("answered before the deletion is committed: %v", err)
	default:
	}
	release()
	c.plane.isolate("a", false)
	for range 2 {
		if err := <-answers; !errors.Is(err, ErrNotFound) && !errors.Is(err, ErrCondition) {
			t.Fatalf("the answer: %v", err)
		}
	}
	if a.stored("read") || a.stored("condition") || a.stored("other") {
		t.Fatal("absence was answered, and it is not committed")
	}
}

// What a condition finds due is deleted in the same bundle, also when nothing else is written.
func TestConditionOnWhatIsDue(t *testing.T) {
	c := newCluster(t, fsm.GroupSpec{}, "a", "b")
	a := c.nodes["a"]
	c.inSync("a", "b")
	write := func(w Write, conditions ...Condition) error {
		_, err := a.rep.Write(t.Context(), Transaction{Writes: []Write{w}, Conditions: conditions})
		return err
	}
	at := Condition{File: "f", Key: []byte("k")}
	other := Write{File: "f", Key: []byte("other"), Value: []byte("v")}
	for _, position := range []bool{false, true} {
		r := a.lend("k", "v", in(-time.Hour)) // due at once
		c := at
		if position {
			c.Position = r.Position
		}
		if err := write(other, c); !errors.Is(err, ErrCondition) {
			t.Fatalf("it has expired: %v", err)
		}
		if a.stored("k") || a.stored("other") {
			t.Fatal("the refusal was answered before the deletion was committed")
		}
	}
	a.lend("k", "v", in(-time.Hour))
	absent := at
	absent.Absent = true
	if err := write(Write{File: "f", Key: []byte("k"), Value: []byte("new")}, absent); err != nil {
		t.Fatalf("what has expired is absent: %v", err)
	}
	a.mustGet("k", "new", false)
	c.level("b")
}

// What a program finds due is deleted before its answer, whatever it does for want of it.
func TestProgramOnWhatIsDue(t *testing.T) {
	c := newCluster(t, fsm.GroupSpec{}, "a", "b")
	a := c.nodes["a"]
	c.inSync("a", "b")
	enough := errors.New("enough seen")
	for name, end := range map[string]func(*View) error{
		"reads":   func(*View) error { return nil },
		"refuses": func(*View) error { return enough },
		"panics":  func(*View) error { panic(enough) },
		"writes":  func(v *View) error { return v.Put("f", []byte("other"), entry.Image{Value: []byte("v")}) },
		"deletes": func(v *View) error {
			if found, err := v.Delete("f", []byte("k")); found || err != nil {
				return fmt.Errorf("it is there: %v", err)
			}
			return nil
		},
	} {
		a.lend("k", "v", in(-time.Hour)) // due at once
		_, err := a.runs(func(v *View) error {
			if image, err := v.Get("f", []byte("k")); image != nil || err != nil {
				return fmt.Errorf("it is there: %v", err)
			}
			return end(v)
		})
		var refused *ProgramError
		if errors.As(err, &refused) != (name == "refuses" || name == "panics") || refused == nil && err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if a.stored("k") {
			t.Errorf("%s: answered before the deletion was committed", name)
		}
	}
	c.level("b")
}

// A record that was written again is not deleted for its old time, neither by the index nor by a deletion under way.
func TestRewrittenRecordsStay(t *testing.T) {
	c := newCluster(t, fsm.GroupSpec{}, "a", "b")
	a := c.nodes["a"]
	c.inSync("a", "b")
	soon := in(time.Hour)
	for i, next := range []int64{0, in(24 * time.Hour), in(-time.Hour)} {
		key := fmt.Sprint("k", i)
		a.lend(key, "old", soon)
		if next < soon && next != 0 { // shortened
			a.lend(key, "new", next)
			c.eventually("it is gone", func() bool { return !a.stored(key) })
			continue
		}
		a.lend(key, "new", next)
	}
	a.lend("k3", "old", soon)
	if _, err := a.rep.Write(t.Context(), Transaction{Writes: []Write{{File: "f", Key: []byte("k3"), Delete: true}}}); err != nil {
		t.Fatal(err)
	}
	a.mustPut("k3", "new")
	a.lend("marker", "v", soon+1)
	c.walls["a"].set(2 * time.Hour)
	c.eventually("the last one that is due is gone", func() bool { return !a.stored("marker") })
	p := a.rep.primary.Load()
	for _, key := range []string{"k0", "k1", "k3"} {
		a.mustGet(key, "new", false)
		if _, err := p.expire(t.Context(), []store.Expiring{{File: "f", Key: []byte(key), Expiry: soon}}); !errors.Is(err, errNotDue) {
			t.Fatalf("a deletion of what was written again: %v", err)
		}
		a.mustGet(key, "new", false)
	}
	if _, err := p.expire(t.Context(), []store.Expiring{{File: "f", Key: []byte("k1"), Expiry: in(24 * time.Hour)}}); !errors.Is(err, errNotDue) {
		t.Fatalf("a deletion before its time: %v", err)
	}
	c.level("b")
}

// Once absence was answered it stays absent, whatever the clock of the next primary says.
func TestExpiryThroughAFailover(t *testing.T) {
	for name, ahead := range map[string]time.Duration{"the same": 0, "behind": -5 * time.Hour, "ahead": 5 * time.Hour} {
		t.Run("the next clock is "+name, func(t *testing.T) {
			c := newCluster(t, fsm.GroupSpec{}, "a", "b")
			a, b := c.nodes["a"], c.nodes["b"]
			c.keepInSync("a", "b")
			c.walls["b"].set(ahead)
			late := in(4 * time.Hour)
			a.lend("soon", "v", in(time.Hour))
			a.lend("late", "v", late)
			c.walls["a"].set(2 * time.Hour)
			a.mustNotGet("soon", false)
			newest := a.rep.primary.Load().newest.Load()
			a.crash(0)
			c.failover("b", false)
			c.serves("b")
			if now := b.rep.primary.Load().now(); now < newest {
				t.Fatalf("the time of the new primary is %d, what is journaled goes up to %d", now, newest)
			}
			b.mustNotGet("soon", false)
			if ahead > 0 { // by its clock it is over, and it is the primary
				b.mustNotGet("late", false)
			} else {
				b.mustGet("late", "v", false)
				// By the clock on the wall this one lives for an hour, by the time of the history it is over.
				b.lend("between", "v", in(90*time.Minute))
				b.mustNotGet("between", false)
				b.lend("soon", "again", late)
				b.mustGet("soon", "again", false)
				c.walls["b"].set(6 * time.Hour)
				b.mustNotGet("late", false)
				b.mustNotGet("soon", false)
			}
			c.walls["a"].set(-5 * time.Hour)
			a = c.start("a")
			c.inSync("a", "b")
			c.switchover("a")
			a.mustNotGet("late", false)
			a.mustNotGet("soon", false)
			a.mustPut("soon", "for ever")
			a.mustGet("soon", "for ever", false)
			c.level("b")
		})
	}
}

// A deletion that the history leaves aside is undone like any other entry: the record is there again, with its kind and its
// time, and the index of expiries has it, so that it is deleted again when that time is over.
func TestUndoOfAnExpiry(t *testing.T) {
	c := newCluster(t, fsm.GroupSpec{}, "a", "b")
	a, b := c.nodes["a"], c.nodes["b"]
	c.inSync("a", "b")
	soon := in(time.Hour)
	if _, err := a.rep.Write(t.Context(), Transaction{Writes: []Write{{File: "f", Key: []byte("k"), Value: []byte("v"), Kind: entry.KindHash, Expiry: soon}}}); err != nil {
		t.Fatal(err)
	}
	c.level("b")
	c.wires.sever("a", "b", true)
	c.eventually("a is alone", func() bool { return len(c.plane.group().InSync) == 1 })
	c.walls["a"].set(2 * time.Hour)
	a.mustNotGet("k", false)
	if err := a.store.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	a.crash(100)
	c.failover("b", true)
	c.serves("b")
	b.mustGet("k", "v", false)
	c.wires.sever("a", "b", false)
	c.walls["a"].set(0)
	a = c.start("a")
	c.eventually("a backed out", func() bool { _, ok := a.event(EventBackedOut); return ok })
	c.level("a")
	image, err := a.rep.data.Get("f", []byte("k"))
	if err != nil || image.Kind != entry.KindHash || image.Expiry != soon || string(image.Value) != "v" {
		t.Fatalf("after the undo: %+v, %v", image, err)
	}
	due, _, err := a.rep.data.Expiring(store.Expiring{Expiry: math.MinInt64}, math.MaxInt64, 10)
	if err != nil || len(due) != 1 || due[0].Expiry != soon || string(due[0].Key) != "k" {
		t.Fatalf("the index after the undo: %+v, %v", due, err)
	}
	reports, err := a.rep.Backouts()
	if err != nil || len(reports) != 1 || reports[0].Undone != 1 {
		t.Fatalf("the back-out report: %+v, %v", reports, err)
	}
	if e := reports[0].Entries[0]; e.Type != "DL" || string(e.Before) != "v" || e.BeforeKind != entry.KindHash || e.BeforeExpiry != soon {
		t.Fatalf("the entry backed out: %+v", e)
	}
	c.inSync("a", "b")
	c.switchover("a")
	c.walls["a"].set(2 * time.Hour)
	c.eventually("it is deleted again", func() bool { return !a.stored("k") && !b.stored("k") })
}

// Very many records that are due at once do not keep writes waiting until they are all deleted.
func TestManyAreDueAtOnce(t *testing.T) {
	const many, each = 32_000, 4000
	if testing.Short() {
		t.Skip("takes ten seconds")
	}
	c := newCluster(t, fsm.GroupSpec{ReceiverBytes: 8 << 20}, "a", "b")
	a := c.nodes["a"]
	c.inSync("a", "b")
	soon := in(time.Hour)
	for from := 0; from < many; from += each {
		var tx Transaction
		for i := range each {
			tx.Writes = append(tx.Writes, Write{File: "f", Key: fmt.Append(nil, "due", from+i), Expiry: soon + int64(i%2)})
		}
		if _, err := a.rep.Write(t.Context(), tx); err != nil {
			t.Fatal(err)
		}
	}
	written := a.rep.Status().Applied.History
	c.walls["a"].set(2 * time.Hour)
	c.eventually("deletions have begun", func() bool { return !a.stored("due0") })
	first := a.rep.Status().Applied
	var last ident.Position
	for i := range 10 {
		last = a.mustPut(fmt.Sprint("write", i), "v").Position
		a.mustNotGet(fmt.Sprint("due", many-1-i), false) // nor reads of what is due
	}
	left, _, err := a.rep.data.Expiring(store.Expiring{Expiry: math.MinInt64}, math.MaxInt64, many)
	if err != nil || len(left) == 0 {
		t.Fatalf("ten writes waited for all deletions: %d of %d are left, %v", len(left), many, err)
	}
	t.Logf("ten writes and reads took %d entries", last.History-first.History)
	for more := ident.History(0); more < many; more += many / 20 { // each step has its time, however busy the machine is
		c.eventually("more are deleted", func() bool { return a.rep.Status().Applied.History > written+more })
	}
	c.eventually("all are deleted", func() bool {
		left, next, err := a.rep.data.Expiring(store.Expiring{Expiry: math.MinInt64}, math.MaxInt64, 1)
		return err == nil && len(left) == 0 && next == math.MaxInt64
	})
	if at := a.rep.Status().Applied.History; at != written+many+10 {
		t.Fatalf("%d entries for %d deletions and 10 writes", at-written, many)
	}
	c.level("b")
	if d, err := c.nodes["b"].rep.Digest(t.Context()); err != nil || d.Records != 10 {
		t.Fatalf("%+v, %v", d, err)
	}
}

// At the cap of a journal the deletions stand back: they are refused, and what waits beside them is tried without them.
func TestExpiryMakesWay(t *testing.T) {
	p := &primary{queue: &queue{max: 1 << 20}}
	due, write := newRequest(10), newRequest(10)
	due.due, write.writes = []store.Expiring{{}}, []Write{{}}
	for _, q := range []*request{due, write} {
		if err := p.queue.push(t.Context(), q); err != nil {
			t.Fatal(err)
		}
	}
	full := errors.New("the journal is full")
	taken := p.queue.take(100, 100)
	others, ok := p.makeWay(taken, full)
	if !ok || len(others) != 1 || others[0] != write {
		t.Fatalf("%v %t", others, ok)
	}
	if _, err := p.queue.await(t.Context(), due); !errors.Is(err, ErrJournalFull) || !errors.Is(err, full) {
		t.Fatalf("the deletions: %v", err)
	}
	for _, alone := range [][]*request{{due}, {write}} {
		if _, ok := p.makeWay(alone, full); ok {
			t.Fatal("there is nobody to make way for, or nobody to make it")
		}
	}
}
