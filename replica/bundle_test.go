package replica

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
)

// Before-images count towards the size of a bundle: deletes of large records are spread over bundles, a transaction that
// fits into none is refused, and the session goes on.
func TestBeforeImagesCountTowardsBundle(t *testing.T) {
	c := newCluster(t, fsm.GroupSpec{}, "a")
	a := c.nodes["a"]
	for i := range 5 {
		a.mustPut(fmt.Sprint("big", i), strings.Repeat("x", 15<<20))
	}
	before := a.rep.primary.Load()
	var all Transaction
	for i := range 5 {
		all.Writes = append(all.Writes, Write{File: "f", Key: []byte(fmt.Sprint("big", i)), Delete: true})
	}
	if _, err := a.rep.Write(t.Context(), all); !errors.Is(err, ErrTooLarge) {
		t.Fatalf("a transaction larger than a bundle: %v", err)
	}
	before.hold(true)
	var done []chan error
	for i := range all.Writes {
		ch := make(chan error, 1)
		done = append(done, ch)
		go func() {
			_, err := a.rep.Write(t.Context(), Transaction{Writes: all.Writes[i : i+1]})
			ch <- err
		}()
	}
	c.eventually("all wait", func() bool { return before.queue.length() == len(done) })
	a.mustGet("big4", strings.Repeat("x", 15<<20), false)
	before.hold(false)
	for _, ch := range done {
		if err := <-ch; err != nil {
			t.Errorf("delete: %v", err)
		}
	}
	if a.rep.primary.Load() != before {
		t.Errorf("the session was replaced: %s", a.rep.Status().Error)
	}
	if _, err := a.get("big4", false); !errors.Is(err, ErrNotFound) {
		t.Errorf("after the delete: %v", err)
	}
}

// While a member of the set is away, what is sealed carries before-images: it may be committed alone.
func TestBeforeImagesInDoubt(t *testing.T) {
	g := &fsm.Group{InSync: []ident.NodeID{"a", "b"}, Spec: fsm.GroupSpec{}.Normalize()}
	if wantsBefore(g, false) || !wantsBefore(g, true) {
		t.Error("auto journals before-images where an entry may be committed alone, and only there")
	}
	g.Spec.Images = fsm.ImagesAfter
	if wantsBefore(g, true) {
		t.Error("after journals none")
	}
	c := newCluster(t, fsm.GroupSpec{}, "a", "b")
	a := c.nodes["a"]
	c.inSync("a", "b")
	c.wires.sever("a", "b", true)
	c.eventually("in doubt", func() bool { return a.rep.primary.Load().doubt.Load() })
}

// A transaction that does not fit behind another one is taken back, and sees that one when the next bundle takes it.
func TestTransactionWaitsForNextBundle(t *testing.T) {
	c := newCluster(t, fsm.GroupSpec{}, "a")
	a := c.nodes["a"]
	large := Transaction{Conditions: []Condition{{File: "f", Key: []byte("first")}}}
	for i := range 5 {
		key, size := fmt.Sprint("big", i), 15<<20
		if i == 4 {
			size = 7 << 19
		}
		a.mustPut(key, strings.Repeat("x", size))
		large.Writes = append(large.Writes, Write{File: "f", Key: []byte(key), Delete: true})
	}
	large.Writes = append(large.Writes, Write{File: "f", Key: []byte("new"), Value: []byte("v")})
	p := a.rep.primary.Load()
	p.hold(true)
	first := a.asyncPut("first", strings.Repeat("y", 900<<10))
	c.eventually("the first waits", func() bool { return p.queue.length() == 1 })
	second := make(chan Receipt, 1)
	go func() {
		r, err := a.rep.Write(t.Context(), large)
		if err != nil {
			t.Errorf("the second: %v", err)
		}
		second <- r
	}()
	c.eventually("both wait", func() bool { return p.queue.length() == 2 })
	p.hold(false)
	if err := <-first; err != nil {
		t.Errorf("the first: %v", err)
	}
	at := <-second
	own, _ := a.rep.Journal("a")
	if b, err := own.BundleAt(at.Sequence); err != nil || b.Facts != 6 || b.Length <= 60<<20 {
		t.Errorf("bundle of the second: %+v, %v", b.Header, err)
	}
	a.mustGet("new", "v", false)
	a.mustGet("first", strings.Repeat("y", 900<<10), false)
	p.overlay.mu.Lock()
	defer p.overlay.mu.Unlock()
	if n := len(p.overlay.pending); n != 0 {
		t.Errorf("%d records are still in flight", n)
	}
}
