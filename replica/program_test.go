package replica

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal/entry"
)

// increment is a program that adds to a counter, in steps of one.
func increment(key string, steps int) func(*View) error {
	return func(v *View) error {
		for range steps {
			now, err := v.Get("f", []byte(key))
			if err != nil {
				return err
			}
			n := 0
			if now != nil {
				if n, err = strconv.Atoi(string(now.Value)); err != nil {
					return err
				}
			}
			if err := v.Put("f", []byte(key), entry.Image{Value: []byte(strconv.Itoa(n + 1))}); err != nil {
				return err
			}
		}
		return nil
	}
}

func (n *node) runs(program func(*View) error) (Receipt, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return n.rep.Write(ctx, Transaction{Program: program})
}

// Programs see everything sequenced before, in flight too, and their own changes: concurrent increments all count, and each entry has
// what the one before it made as its before-image.
func TestProgramsCount(t *testing.T) {
	c := newCluster(t, fsm.GroupSpec{Images: fsm.ImagesBoth}, "a", "b")
	a := c.nodes["a"]
	c.inSync("a", "b")
	const clients, rounds = 8, 25
	var all sync.WaitGroup
	for range clients {
		all.Go(func() {
			for range rounds {
				if r, err := a.runs(increment("k", 2)); err != nil || r.Position.IsZero() || r.Sequence == 0 {
					t.Errorf("%+v %v", r, err)
				}
			}
		})
	}
	all.Wait()
	a.mustGet("k", strconv.Itoa(2*clients*rounds), false)
	own, _ := a.rep.Journal("a")
	v, _ := own.View()
	var last *entry.Entry
	for seq := max(v.First, 1); seq <= v.Last; {
		b, err := own.BundleAt(seq)
		if err != nil {
			t.Fatal(err)
		}
		all, err := b.All()
		if err != nil {
			t.Fatal(err)
		}
		for i := range all {
			e := &all[i]
			if e.Code != entry.Record {
				continue
			}
			if last != nil && (e.Before == nil || e.Before.Position != last.Position || string(e.Before.Value) != string(last.After.Value)) {
				t.Fatalf("%s has the before-image %+v, but %s made %q", e.Position, e.Before, last.Position, last.After.Value)
			}
			last = e
		}
		seq = b.Last() + 1
	}
	c.level("b")
}

// A transaction that writes a record more than once is undone newest change first: the record is again what it was before it.
// Proves RJ-10.
func TestBackOutOfRepeatedWrites(t *testing.T) {
	c := newCluster(t, fsm.GroupSpec{Delivery: fsm.DeliveryAsync}, "a", "b")
	a, b := c.nodes["a"], c.nodes["b"]
	a.mustPut("k", "7")
	a.mustPut("gone", "old")
	c.level("b")
	c.wires.sever("a", "b", true)
	if _, err := a.runs(increment("k", 3)); err != nil {
		t.Fatal(err)
	}
	if _, err := a.runs(func(v *View) error {
		for i := range 3 { // gone: deleted, made, deleted; new: made, deleted, made
			if _, err := v.Delete("f", []byte([]string{"gone", "new"}[i%2])); err != nil {
				return err
			}
			if err := v.Put("f", []byte([]string{"new", "gone"}[i%2]), entry.Image{Value: []byte(strconv.Itoa(i))}); err != nil {
				return err
			}
		}
		return increment("k", 2)(v)
	}); err != nil {
		t.Fatal(err)
	}
	a.mustGet("k", "12", false)
	a.mustGet("new", "2", false)
	c.plane.isolate("a", true)
	c.failover("b", true)
	c.serves("b")
	b.mustPut("later", "b")
	c.plane.isolate("a", false)
	c.wires.sever("a", "b", false)
	c.level("a") // attributes too: position and time of the record as it was
	a.mustGet("k", "7", true)
	a.mustGet("gone", "old", true)
	if _, err := a.get("new", true); !errors.Is(err, ErrNotFound) {
		t.Fatalf("a record that was backed out: %v", err)
	}
	reports, err := a.rep.Backouts()
	if err != nil || len(reports) != 1 || reports[0].Undone != 11 {
		t.Fatalf("reports %+v, %v", reports, err)
	}
}

// A program that fails, panics or goes beyond the limits fails its own transaction only, and leaves nothing behind for those in the
// same bundle.
func TestProgramsThatFail(t *testing.T) {
	c := newCluster(t, fsm.GroupSpec{}, "a")
	a := c.nodes["a"]
	a.mustPut("k", "1")
	session := a.rep.primary.Load()
	wrong := errors.New("WRONGTYPE")
	spoil := func(v *View) error {
		return errors.Join(v.Put("f", []byte("k"), entry.Image{Value: []byte("spoilt")}), v.Put("f", []byte("new"), entry.Image{Value: []byte("spoilt")}))
	}
	cases := []struct {
		name    string
		program func(*View) error
		want    error
	}{
		{"error", func(v *View) error { return errors.Join(wrong, spoil(v)) }, wrong},
		{"panic", func(v *View) error { _ = spoil(v); panic("defect") }, errPanic},
		{"nil image", func(v *View) error { _ = spoil(v); var i *entry.Image; _ = i.Value; return nil }, errPanic},
		{"too many changes, not admitted", func(v *View) error {
			for i := range maxTransactionWrites + 1 {
				_ = v.Put("f", []byte(strconv.Itoa(i)), entry.Image{})
			}
			return nil
		}, ErrTooLarge},
		{"too many bytes", func(v *View) error {
			_ = spoil(v)
			for i := range 3 {
				_ = v.Put("f", []byte(strconv.Itoa(i)), entry.Image{Value: make([]byte, 15<<20)})
			}
			return wrong
		}, ErrTooLarge},
		{"too large a value", func(v *View) error {
			return v.Put("f", []byte("k"), entry.Image{Value: make([]byte, entry.MaxValue+1)})
		}, ErrTooLarge},
		{"no key", func(v *View) error { return v.Put("f", nil, entry.Image{}) }, ErrInvalid},
		{"reserved file", func(v *View) error { return v.Put(KeysFile, []byte("k"), entry.Image{}) }, ErrInvalid},
	}
	session.hold(true)
	type result struct {
		name string
		want error
		err  error
	}
	results := make(chan result, 2*len(cases))
	for i, x := range cases {
		for _, run := range []result{{x.name, x.want, nil}, {fmt.Sprint("increment ", i), nil, nil}} {
			program := x.program
			if run.want == nil {
				program = increment("k", 1)
			}
			go func() {
				_, run.err = a.runs(program)
				results <- run
			}()
		}
	}
	c.eventually("all wait", func() bool { return session.queue.length() == 2*len(cases) })
	session.hold(false)
	for range 2 * len(cases) {
		r := <-results
		if !errors.Is(r.err, r.want) || r.want != nil && !NotDone(r.err) {
			t.Errorf("%s: %v, want %v", r.name, r.err, r.want)
		}
	}
	a.mustGet("k", strconv.Itoa(1+len(cases)), false)
	for _, key := range []string{"new", "0"} {
		if _, err := a.get(key, false); !errors.Is(err, ErrNotFound) {
			t.Errorf("%s was left behind: %v", key, err)
		}
	}
	if a.rep.primary.Load() != session {
		t.Errorf("the session was replaced: %s", a.rep.Status().Error)
	}
	c.eventually("nothing is counted as in flight", func() bool {
		session.queue.mu.Lock()
		defer session.queue.mu.Unlock()
		return session.queue.made == 0 && session.queue.bytes == 0
	})
}

// A program that changes nothing, and one that refuses, is answered once what it has read is committed, and under the lease.
func TestProgramsAnswerWhatIsCommitted(t *testing.T) {
	c := newCluster(t, fsm.GroupSpec{OnNoSync: fsm.NoSyncHold}, "a", "b")
	a, b := c.nodes["a"], c.nodes["b"]
	c.inSync("a", "b")
	a.mustPut("k", "1")
	c.plane.overhear(func(cmd fsm.Command) bool { return cmd.ChangeSet != nil }) // the set may not shrink
	release := sync.OnceFunc(b.hangDisk("a"))
	defer release()
	before := a.rep.Status()
	write := a.asyncPut("k", "2")
	c.eventually("the write is sequenced", func() bool { return a.rep.Status().Sequence > before.Sequence })
	refused := errors.New("refused")
	type seen struct {
		value   string
		receipt Receipt
		err     error
	}
	results := make(chan seen, 2)
	for _, end := range []error{nil, refused} {
		go func() {
			var s seen
			s.receipt, s.err = a.runs(func(v *View) error {
				image, err := v.Get("f", []byte("k"))
				if err == nil {
					s.value, err = string(image.Value), end
				}
				return err
			})
			results <- s
		}()
	}
	select {
	case s := <-results:
		t.Fatalf("answered with %q, which is not committed: %v", s.value, s.err)
	case <-time.After(200 * time.Millisecond):
	}
	c.plane.lease("a", false)
	release()
	c.eventually("the write is committed without a lease", func() bool { return a.rep.Status().Applied != before.Applied })
	select {
	case s := <-results:
		t.Fatalf("answered with %q without a lease: %v", s.value, s.err)
	case <-time.After(100 * time.Millisecond):
	}
	c.plane.lease("a", true)
	for range 2 {
		s := <-results
		if s.value != "2" || s.err == nil && s.receipt.Position.History < before.Applied.History+1 || s.err != nil && !errors.Is(s.err, refused) {
			t.Errorf("%+v", s)
		}
	}
	if err := <-write; err != nil {
		t.Fatal(err)
	}
	if s := a.rep.Status().Sequence; s != before.Sequence+1 {
		t.Errorf("reading made entries: %s, was %s", s, before.Sequence)
	}
	c.plane.overhear(nil)
}

// Conditions of every kind, over records that are there, absent, and expired.
func TestConditions(t *testing.T) {
	at, other := ident.Position{Epoch: 1, History: 5}, ident.Position{Epoch: 1, History: 6}
	for name, x := range map[string]struct {
		c                   Condition
		there, gone, absent bool // whether it holds
	}{
		"exists":             {Condition{}, true, false, false},
		"absent":             {Condition{Absent: true}, false, true, true},
		"position":           {Condition{Position: at}, true, false, false},
		"another":            {Condition{Position: other}, false, false, false},
		"unchanged":          {Condition{Unchanged: true, Position: at}, true, false, false},
		"changed":            {Condition{Unchanged: true, Position: other}, false, false, false},
		"unchanged: was not": {Condition{Unchanged: true}, false, true, true},
	} {
		there := &entry.Image{Position: at, Expiry: 100}
		for moment, want := range map[int64]bool{99: x.there, 100: x.gone} {
			if got := x.c.holds(there, moment); got != want {
				t.Errorf("%s at %d: %t", name, moment, got)
			}
		}
		if got := x.c.holds(nil, 99); got != x.absent {
			t.Errorf("%s of a record that is not there: %t", name, got)
		}
	}
	c := newCluster(t, fsm.GroupSpec{}, "a")
	a := c.nodes["a"]
	r := a.mustPut("k", "v")
	_, err := a.rep.Write(t.Context(), Transaction{
		Writes:     []Write{{File: "f", Key: []byte("new"), Value: []byte("v")}},
		Conditions: []Condition{{File: "f", Key: []byte("k")}, {File: "f", Key: []byte("k"), Absent: true}},
	})
	var failed *ConditionError
	if !errors.As(err, &failed) || !errors.Is(err, ErrCondition) || failed.Index != 1 || !failed.Exists || failed.Position != r.Position || string(failed.Key) != "k" {
		t.Errorf("%+v, %v", failed, err)
	}
}

// Several records are read as they are at one position, while transactions change all of them together.
func TestReadSeveral(t *testing.T) {
	c := newCluster(t, fsm.GroupSpec{}, "a", "b")
	a, b := c.nodes["a"], c.nodes["b"]
	c.inSync("a", "b")
	names := []Name{{File: "f", Key: []byte("x")}, {File: "g", Key: []byte("y")}, {File: "f", Key: []byte("none")}, {File: "g", Key: []byte("z")}}
	stop := make(chan struct{})
	var writer sync.WaitGroup
	writer.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			v := []byte(strconv.Itoa(i))
			if _, err := a.rep.Write(t.Context(), Transaction{Writes: []Write{{File: "f", Key: []byte("x"), Value: v}, {File: "g", Key: []byte("y"), Value: v}, {File: "g", Key: []byte("z"), Value: v}}}); err != nil {
				t.Error(err)
				return
			}
		}
	})
	c.eventually("there is something", func() bool { _, err := a.get("x", false); return err == nil })
	for range 300 {
		for n, local := range map[*node]bool{a: false, b: true} {
			images, at, err := n.rep.ReadSeveral(t.Context(), names, local)
			if errors.Is(err, ErrNotReconciled) {
				continue
			}
			if err != nil || len(images) != len(names) || images[2] != nil {
				t.Fatalf("%v, %v", images, err)
			}
			if images[0] == nil {
				continue // b has not begun
			}
			if string(images[0].Value) != string(images[1].Value) || string(images[0].Value) != string(images[3].Value) || at.History < images[3].Position.History {
				t.Fatalf("at %s: %q %q %q", at, images[0].Value, images[1].Value, images[3].Value)
			}
		}
	}
	close(stop)
	writer.Wait()
	past := time.Now().Add(-time.Second).UnixNano()
	if _, err := a.rep.Write(t.Context(), Transaction{Writes: []Write{{File: "f", Key: []byte("x"), Value: []byte("old"), Expiry: past}}}); err != nil {
		t.Fatal(err)
	}
	images, _, err := a.rep.ReadSeveral(t.Context(), names, false)
	if err != nil || images[0] != nil || images[1] == nil {
		t.Fatalf("an expired record: %v %v", images, err)
	}
	big := strings.Repeat("x", 12<<20)
	a.mustPut("big1", big)
	a.mustPut("big2", big)
	if _, _, err := a.rep.ReadSeveral(t.Context(), []Name{{File: "f", Key: []byte("big1")}, {File: "f", Key: []byte("big2")}, {File: "f", Key: []byte("x")}}, false); !errors.Is(err, ErrTooLarge) {
		t.Errorf("more than an answer may hold: %v", err)
	}
	if _, _, err := b.rep.ReadSeveral(t.Context(), names, false); !errors.Is(err, ErrNotPrimary) {
		t.Errorf("at a backup: %v", err)
	}
}

// What programs make counts until they are answered, or wait again; while it is too much nothing is taken.
func TestQueueCountsWhatProgramsMake(t *testing.T) {
	q := &queue{max: 100}
	for range 3 {
		if err := q.push(t.Context(), newRequest(10)); err != nil {
			t.Fatal(err)
		}
	}
	taken := q.take(20, 2)
	if len(taken) != 2 {
		t.Fatalf("%d taken", len(taken))
	}
	q.produced(taken[0], 70)
	if q.overdrawn() != nil {
		t.Error("70 bytes of 100 are too much")
	}
	q.produced(taken[1], 70)
	freed := q.overdrawn()
	if freed == nil || q.take(20, 2) != nil {
		t.Error("140 bytes of 100 are not too much")
	}
	q.giveBack(taken[1:])
	if q.overdrawn() != nil || q.made != 70 {
		t.Errorf("%d bytes count although a program is run again", q.made)
	}
	again := q.take(10, 1)
	q.produced(again[0], 70)
	q.answer(taken[0], outcome{})
	select {
	case <-freed:
	default:
		t.Error("nobody hears that there is room again")
	}
	if len(q.take(20, 2)) != 1 || q.made != 70 {
		t.Errorf("%d bytes count", q.made)
	}
}
