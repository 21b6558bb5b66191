package testcluster

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/understudy-ha/understudy/client"
	"github.com/understudy-ha/understudy/cmd/internal/node"
)

// retire stops the node as SIGTERM does: it hands its roles over and leaves the in-sync sets first. It returns how many it handed over.
func (n *Node) retire() int {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	moved := n.running.Leave(ctx)
	n.Stop()
	return moved
}

// Proves TR-1, CL-3: a primary that is stopped in good order hands its role over first. Under writers no request fails, none is
// left unknown, and nothing fails over.
func TestGracefulStopHandsTheRoleOver(t *testing.T) {
	c := Start(t, Options{})
	w := c.write(4)
	for round := range 3 {
		before := w.count()
		c.Wait("writes go on", 20*time.Second, func() error {
			if n := w.count(); n < before+100 {
				return fmt.Errorf("%d acknowledged since", n-before)
			}
			return nil
		})
		p := c.primary()
		if moved := p.retire(); moved != 1 {
			t.Fatalf("round %d: %s handed %d roles over, want 1", round, p.ID, moved)
		}
		if next := c.primary(); next == p {
			t.Fatalf("round %d: the stopped node serves", round)
		}
		after := w.count()
		c.Wait("writes go on elsewhere", 20*time.Second, func() error {
			if n := w.count(); n < after+100 {
				return fmt.Errorf("%d acknowledged since", n-after)
			}
			return nil
		})
		p.Start()
		c.Wait("the cluster is settled again", 30*time.Second, func() error {
			c.relax(w)
			return c.settled()
		})
	}
	w.finish()
	if len(w.unknown) > 0 || w.refused > 0 {
		t.Errorf("%d writes have an unknown outcome, %d were refused: %v", len(w.unknown), w.refused, w.last)
	}
	operations, err := c.primary().client.Operations(t.Context())
	if err != nil || len(operations) != 3 {
		t.Fatalf("operations: %+v, %v", operations, err)
	}
	for _, o := range operations {
		if o.Kind != "switchover" || o.State != client.OperationDone || !strings.Contains(o.Reason, "is being stopped") {
			t.Errorf("operation %+v", o)
		}
	}
	c.verify(w)
}

// Without a secondary that could take the role a node stops as it is, soon, and says why.
func TestGracefulStopWithoutASecondary(t *testing.T) {
	c := Start(t, Options{})
	p := c.primary()
	for _, id := range c.options.Nodes {
		if n := c.Node(id); n != p {
			n.Stop()
		}
	}
	events, err := p.client.Events(t.Context(), 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	last := events[len(events)-1].ID
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if moved := p.running.Leave(ctx); moved != 0 || ctx.Err() != nil {
		t.Errorf("%d roles handed over to nobody, %v", moved, ctx.Err())
	}
	events, err = p.client.Events(t.Context(), last, 0)
	said := ""
	for _, e := range events {
		if e.Kind == "NOT_HANDED_OVER" {
			said = e.Message
		}
	}
	if err != nil || !strings.Contains(said, "without a hand-over") {
		t.Errorf("it does not say why: %+v, %v", events, err)
	}
}

// Proves CL-3: where the time of a failover goes is in its operation, from the last sign of life on, the same on every node,
// and in the metrics of the node that took over, and of no other.
func TestWhereTheTimeOfAFailoverGoes(t *testing.T) {
	c := Start(t, Options{})
	p := c.primary()
	if _, err := p.client.Put(t.Context(), "file", []byte("key"), []byte("value"), client.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	died := time.Now()
	p.Crash()
	next := c.primary()
	took := time.Since(died)
	operations, err := next.client.Operations(t.Context())
	if err != nil || len(operations) != 1 {
		t.Fatalf("operations: %+v, %v", operations, err)
	}
	op := operations[0]
	var names []string
	var sum time.Duration
	for _, s := range op.Steps {
		names = append(names, s.Name)
		sum += time.Duration(s.Took)
	}
	if got := strings.Join(names, " "); got != "detect lease fence reports promote recover open" {
		t.Errorf("steps: %s", got)
	}
	if whole := op.Ended.Sub(op.Started); sum != whole {
		t.Errorf("the steps add up to %s, the operation took %s", sum, whole)
	}
	// The last sign of life lies before the death by no more than a lease, which it held: after it, when a renewal that was on its way was only
	// committed by the next Raft leader. The operation ends before we know.
	if early := died.Sub(op.Started); early > c.options.Timing.Lease {
		t.Errorf("it was seen last %s before it died", early)
	}
	if op.Ended.After(died.Add(took)) {
		t.Errorf("it ended at %s, after somebody served", op.Ended)
	}
	if lease := op.Steps[2].At.Sub(op.Started); lease < c.options.Timing.Lease {
		t.Errorf("the fence was proposed %s after the last sign of life: before the lease had run out", lease)
	}
	for _, id := range c.options.Nodes {
		n := c.Node(id)
		if n == p {
			continue
		}
		c.Wait("the metrics tell it", 10*time.Second, func() error {
			raw, err := n.client.Metrics(t.Context())
			if err != nil {
				return err
			}
			want := fmt.Sprintf(`understudy_failover_seconds_count{node="%s",step="total"} 1`, n.ID)
			if has := strings.Contains(string(raw), want); has != (n == next) {
				return fmt.Errorf("node %s, which took over: %t, has %q: %t", n.ID, n == next, want, has)
			}
			return nil
		})
	}
}

// Proves CL-3: who knows that a process is dead says so, and the role moves long before the lease has run out. Only the life
// that died can be released, by nobody who answers himself, and it may be said again.
func TestCrashRelease(t *testing.T) {
	slow := unhurried()
	slow.Lease = time.Minute
	c := Start(t, Options{Timing: slow})
	p := c.primary()
	st, err := p.client.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	life := ""
	for _, n := range st.Nodes {
		if n.ID == string(p.ID) {
			life = n.Incarnation
		}
	}
	if _, err := p.client.ReleaseNode(t.Context(), string(p.ID), life); client.CodeOf(err) != client.CodePrecondition {
		t.Errorf("a living node releases itself: %v", err)
	}
	var helper *Node
	for _, id := range c.options.Nodes {
		if n := c.Node(id); n != p {
			helper = n
		}
	}
	if _, err := helper.client.ReleaseNode(t.Context(), string(p.ID), life); client.CodeOf(err) != client.CodePrecondition || !strings.Contains(err.Error(), "answers") {
		t.Errorf("a living node is released by another: %v", err)
	}
	if _, err := helper.client.ReleaseNode(t.Context(), string(p.ID), "00000000deadbeef"); client.CodeOf(err) != client.CodePrecondition {
		t.Errorf("another life: %v", err)
	}
	if _, err := helper.client.ReleaseNode(t.Context(), "x", life); client.CodeOf(err) != client.CodeUnknownNode {
		t.Errorf("a node that does not exist: %v", err)
	}
	p.Crash()
	dead, err := node.FindDeadLifeIn(p.fs, p.config)
	if err != nil || dead.Life.String() != life || len(dead.Members) != 2 {
		t.Fatalf("the data directory tells %+v, %v; the life was %s", dead, err, life)
	}
	began := time.Now()
	r, err := helper.client.ReleaseNode(t.Context(), string(dead.Node), dead.Life.String())
	if err != nil || len(r.Groups) != 1 || r.Groups[0] != "default" {
		t.Fatalf("release: %+v, %v", r, err)
	}
	next := c.primary()
	if took := time.Since(began); took > c.options.Timing.Lease {
		t.Errorf("the role moved %s after the release, no sooner than a lease runs out", took)
	}
	if r, err := next.client.ReleaseNode(t.Context(), string(dead.Node), dead.Life.String()); err != nil || len(r.Groups) != 0 {
		t.Errorf("released again: %+v, %v", r, err)
	}
	ops, err := next.client.Operations(t.Context())
	if err != nil || len(ops) != 1 || !strings.Contains(ops[0].Reason, "has ended") {
		t.Errorf("operations: %+v, %v", ops, err)
	}
	p.Start()
	c.Wait("the cluster is settled again", 30*time.Second, func() error { return c.settled() })
	var late *client.Error
	if _, err := next.client.ReleaseNode(t.Context(), string(dead.Node), dead.Life.String()); !errors.As(err, &late) || late.Reason != client.ReasonOtherLife {
		t.Errorf("a life that is long over: %v", err)
	}
	if now := c.primary(); now != next {
		t.Errorf("%s serves after a late release, want %s", now.ID, next.ID)
	}
}
