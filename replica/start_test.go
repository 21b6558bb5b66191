package replica

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
)

// Proves RJ-13: a copy begins with the attached receiver. A store that stands before that is marked as needing priming, counts for nothing and
// is kept current; once its copy begins with the first receiver that is held, it is brought level. A store that has everything before simply goes on.
func TestStartOfACopy(t *testing.T) {
	c := newCluster(t, fsm.GroupSpec{Delivery: fsm.DeliveryAsync}, "a", "b")
	a, b := c.nodes["a"], c.nodes["b"]
	put := func(n int) {
		t.Helper()
		for i := range n {
			a.mustPut(fmt.Sprint("k", i), fmt.Sprint(time.Now().UnixNano()))
		}
	}
	change := func() {
		t.Helper()
		if _, err := a.rep.ChangeReceiver(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	begins := func() ident.ReceiverNumber {
		j, ok := b.rep.Journal("a")
		if !ok || len(j.Receivers()) == 0 {
			return 0
		}
		return j.Receivers()[0].Number
	}
	start := func(from string) (Started, error) {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		return a.rep.StartCopy(ctx, "b", from)
	}
	put(3)
	c.level("b")

	// The store has everything before the attached receiver, and the copy its start.
	change()
	put(3)
	c.level("b")
	if s, err := start(StartAttached); err != nil || !s.Kept || s.Receiver != 2 || begins() != 1 {
		t.Fatalf("%+v, %v; the copy begins with receiver %s", s, err, begins())
	}

	// It does not: b was away.
	c.wires.sever("a", "b", true)
	put(3)
	change()
	put(3)
	change()
	put(2)
	done := make(chan error, 1)
	var s Started
	go func() {
		var err error
		s, err = start(StartAttached)
		done <- err
	}()
	c.eventually("the order waits", func() bool {
		a.rep.primary.Load().targets.mu.Lock()
		defer a.rep.primary.Load().targets.mu.Unlock()
		return a.rep.primary.Load().targets.nodes["b"].ship["a"].start != nil
	})
	c.wires.sever("a", "b", false)
	if err := <-done; err != nil || s.Kept || s.Receiver != 4 {
		t.Fatalf("%+v, %v", s, err)
	}
	c.eventually("b needs priming", func() bool { return b.rep.Status().NeedsPriming })
	if why := b.rep.Status().Priming; !strings.Contains(why, "begin earlier") || begins() != 4 {
		t.Errorf("%q, the copy begins with receiver %s", why, begins())
	}
	at := b.rep.Status().Applied
	put(4)
	c.eventually("the copy is kept current, and nothing is held", func() bool {
		for _, x := range a.rep.Status().Targets {
			if x.Node == "b" && x.Durable >= a.rep.Status().Sequence {
				return x.Held.IsZero()
			}
		}
		return false
	})
	if now := b.rep.Status().Applied; now != at {
		t.Errorf("the store moved from %s to %s", at, now)
	}
	report, err := b.rep.Promise(t.Context(), c.plane.group().Epoch)
	if err != nil || report.Unable == "" {
		t.Errorf("report %+v, %v", report, err)
	}

	// What the primary still holds helps.
	if s, err := start(StartFirst); err != nil || s.Kept || s.Receiver != 1 || s.From != 1 {
		t.Fatalf("%+v, %v", s, err)
	}
	c.level("b")
	c.eventually("b needs priming no more", func() bool { return !b.rep.Status().NeedsPriming && b.rep.Status().Priming == "" })
	put(1)
	c.level("b")

	// Now everything is in the store: the copy may go, and begin with a named receiver that it does not have.
	c.wires.sever("a", "b", true)
	change()
	go func() {
		var err error
		s, err = start("5")
		done <- err
	}()
	c.eventually("the order waits", func() bool {
		a.rep.primary.Load().targets.mu.Lock()
		defer a.rep.primary.Load().targets.mu.Unlock()
		return a.rep.primary.Load().targets.nodes["b"].ship["a"].start != nil
	})
	c.wires.sever("a", "b", false)
	if err := <-done; err != nil || s.Receiver != 5 {
		t.Fatalf("%+v, %v", s, err)
	}
	put(2)
	c.level("b")
	if b.rep.Status().NeedsPriming {
		t.Error("b needs priming although its store has everything before its copy")
	}
	if s, err := start(StartKnown); err != nil || !s.Kept || s.Receiver != 0 {
		t.Errorf("%+v, %v", s, err)
	}
}

// A copy is not told to begin elsewhere where writes wait for it, where the source holds no such receiver, and during an operation.
func TestStartOfACopyIsRefused(t *testing.T) {
	c := newCluster(t, fsm.GroupSpec{}, "a", "b")
	a := c.nodes["a"]
	c.keepInSync("a", "b")
	a.mustPut("k", "1")
	refused := func(n *node, target ident.NodeID, from, why string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		_, err := n.rep.StartCopy(ctx, target, from)
		var no *StartRefusedError
		if !errors.As(err, &no) || !strings.Contains(no.Why, why) || no.Remedy == "" {
			t.Errorf("start of %s from %s: %v, want %q", target, from, err, why)
		}
	}
	refused(a, "b", StartAttached, "in-sync set")
	refused(a, "a", StartAttached, "holds no copy")
	refused(a, "x", StartAttached, "holds no copy")
	if _, err := c.nodes["b"].rep.StartCopy(t.Context(), "a", StartFirst); !errors.Is(err, ErrNotPrimary) {
		t.Error(err)
	}
	c2 := newCluster(t, fsm.GroupSpec{Delivery: fsm.DeliveryAsync}, "a", "b")
	a = c2.nodes["a"]
	c2.serves("a")
	a.mustPut("k", "1")
	c2.level("b")
	refused(a, "b", "7", "does not hold receiver 7")
	if _, err := a.rep.StartCopy(t.Context(), "b", "latest"); !errors.Is(err, ErrInvalid) {
		t.Error(err)
	}
	c2.wires.sever("a", "b", true)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	var no *StartRefusedError
	if _, err := a.rep.StartCopy(ctx, "b", StartFirst); !errors.As(err, &no) || !strings.Contains(no.Why, "in time") {
		t.Error(err)
	}
}

// The copy of a node that another backup feeds is not told where to begin: the operator hears that at once, and what helps. Proves RJ-13.
func TestStartOfAFedCopy(t *testing.T) {
	c := newCluster(t, fsm.GroupSpec{Feeds: map[ident.NodeID]ident.NodeID{"c": "b"}}, "a", "b", "c")
	c.inSync("a", "b")
	c.nodes["a"].mustPut("k", "v")
	c.fedBy("c", "b")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	_, err := c.nodes["a"].rep.StartCopy(ctx, "c", StartAttached)
	var no *StartRefusedError
	if !errors.As(err, &no) || !strings.Contains(no.Why, "node b feeds node c") || !strings.Contains(no.Remedy, "feeds") || ctx.Err() != nil {
		t.Fatalf("%v", err)
	}
	c.fedBy("c", "b")
	c.nodes["a"].mustPut("k", "w")
	c.level("b", "c")
}
