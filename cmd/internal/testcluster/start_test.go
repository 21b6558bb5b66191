package testcluster

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/understudy-ha/understudy/client"
	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
)

// Proves RJ-13 with whole nodes: the copy of a node that was away is told to begin with the attached receiver. Its records stand before that, so
// it says that it needs priming, and how to help it; nobody counts on it. Told to begin with the first receiver it is brought level.
func TestCopyToldWhereToBegin(t *testing.T) {
	c := Start(t, Options{Group: fsm.GroupSpec{ReceiverBytes: 64 << 10, KeepReceivers: -1}})
	c.Wait("a secondary is in sync", 20*time.Second, c.settled)
	a := c.Node("a")
	st, err := a.client.Group(t.Context(), "default")
	if err != nil {
		t.Fatal(err)
	}
	var target *Node
	for _, id := range []ident.NodeID{"b", "c"} {
		if !slices.Contains(st.InSync, string(id)) {
			target = c.Node(id)
		}
	}
	if st.Primary != "a" || target == nil {
		t.Fatalf("%+v", st)
	}
	write := func(n int) {
		t.Helper()
		for i := range n {
			c.record(a, "file", fmt.Sprintf("key%05d", i), []byte(strings.Repeat("x", 4000)))
		}
	}
	name, member := string(target.ID), "b"
	if name == "b" {
		member = "c"
	}
	write(20)
	c.Wait("all are level", 20*time.Second, c.settled)
	var no *client.Error
	if _, err := a.client.StartCopy(t.Context(), "default", "a", client.CopyStartRequest{Target: member, From: client.StartAttached}, time.Second); !errors.As(err, &no) || no.Code != client.CodePrecondition || no.Remedy == "" {
		t.Errorf("a member of the set: %v", err)
	}
	target.Stop()
	write(60)
	type result struct {
		start client.CopyStart
		err   error
	}
	told := make(chan result, 1)
	started := func(wait time.Duration) (client.CopyStart, bool, error) {
		s, err := a.client.StartCopy(t.Context(), "default", "a", client.CopyStartRequest{Target: name, From: client.StartAttached}, wait)
		var no *client.Error
		return s, errors.As(err, &no) && strings.Contains(no.Reason, "already"), err
	}
	go func() {
		s, taken, err := started(40 * time.Second)
		for ; taken; s, taken, err = started(40 * time.Second) { // by the one who looks whether it waits
		}
		told <- result{s, err}
	}()
	c.Wait("the order waits for the node", 10*time.Second, func() error {
		_, taken, err := started(time.Second)
		if !taken {
			return fmt.Errorf("asked again: %w", err)
		}
		return nil
	})
	target.Start()
	r := <-told
	if r.err != nil || r.start.Kept || r.start.Receiver < 3 {
		t.Fatalf("%+v, %v\n%s", r.start, r.err, c.tail())
	}
	local := func() client.Copy {
		st, err := target.client.LocalStatus(t.Context())
		if err != nil || len(st.Groups) != 1 {
			return client.Copy{}
		}
		return st.Groups[0].Local
	}
	c.Wait("the node says that it needs priming", 20*time.Second, func() error {
		if l := local(); !l.NeedsPriming || !strings.Contains(l.Priming, "/start") {
			return fmt.Errorf("%+v", l)
		}
		return nil
	})
	held, err := target.client.Receivers(t.Context(), "default", "a")
	if err != nil || len(held) == 0 || held[0].Number != r.start.Receiver {
		t.Errorf("held %+v, %v", held, err)
	}
	write(5)
	s, err := target.client.StartCopy(t.Context(), "default", "a", client.CopyStartRequest{Target: name, From: client.StartFirst}, 20*time.Second) // forwarded
	if err != nil || s.Kept || s.From != 1 {
		t.Fatalf("%+v, %v", s, err)
	}
	c.Wait("all are level again", 30*time.Second, c.settled)
	c.Wait("it needs priming no more", 20*time.Second, func() error {
		if l := local(); l.NeedsPriming {
			return fmt.Errorf("%+v", l)
		}
		return nil
	})
	c.equalDigests()
}
