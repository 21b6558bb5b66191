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

// schedule asks any node for a switch-over later.
func (c *Cluster) schedule(n *Node, to ident.NodeID, in time.Duration) client.Operation {
	c.t.Helper()
	q := client.SwitchoverRequest{To: string(to), At: time.Now().Add(in), MaxPause: client.Duration(30 * time.Second), By: "ann"}
	op, err := n.client.Switchover(c.t.Context(), "default", q, time.Minute)
	if err != nil || op.State != client.OperationScheduled || op.To != string(to) || op.Schedule == nil || op.Schedule.By != "ann" || !op.Schedule.At.Equal(q.At) {
		c.t.Fatalf("scheduled: %+v, %v", op, err)
	}
	return op
}

// became waits until an operation is over as this node sees it, and returns what became of it.
func (c *Cluster) became(n *Node, id uint64, state, outcome string) (op client.Operation) {
	c.t.Helper()
	c.Wait(fmt.Sprintf("switch-over %d is over at %s", id, n.ID), 2*time.Minute, func() (err error) {
		if op, err = n.client.Operation(c.t.Context(), id, time.Second); err == nil && !op.Finished() {
			err = fmt.Errorf("%+v", op)
		}
		return err
	})
	if op.State != state || op.Schedule == nil || op.Schedule.Outcome != outcome {
		c.t.Fatalf("switch-over %d: %+v %+v, want %s, %s", id, op, op.Schedule, state, outcome)
	}
	return op
}

// moves counts how often an operation moved the role.
func (c *Cluster) moves(n *Node, id uint64) (times int) {
	c.t.Helper()
	history, err := n.client.History(c.t.Context(), "default")
	if err != nil {
		c.t.Fatal(err)
	}
	for _, x := range history {
		if x.Operation == id {
			times++
		}
	}
	return times
}

// tells waits until a node's events name an operation.
func (c *Cluster) tells(n *Node, kind string, id uint64) {
	c.t.Helper()
	c.Wait(fmt.Sprintf("%s tells %s of %d", n.ID, kind, id), time.Minute, func() error {
		all, err := n.client.Events(c.t.Context(), 0, 0)
		if err == nil && !slices.ContainsFunc(all, func(e client.Event) bool { return e.Kind == kind && e.Fields["operation"] == fmt.Sprint(id) }) {
			err = fmt.Errorf("%+v", all)
		}
		return err
	})
}

// TestScheduledSwitchover: a switch-over that was scheduled happens at its time, once, although the node that led Raft was restarted in between;
// every node tells of it. Proves CL-5.
func TestScheduledSwitchover(t *testing.T) {
	c := Start(t, Options{Group: fsm.GroupSpec{Preferred: "a"}})
	leader := c.Node(ident.NodeID(c.leader()))
	others := slices.DeleteFunc(slices.Clone(c.options.Nodes), func(id ident.NodeID) bool { return id == leader.ID })
	if c.primary() == leader {
		c.handTo(others[0]) // its restart alone would move the role
	}
	p := c.primary()
	to := c.Node(others[0])
	if to == p {
		to = c.Node(others[1])
	}
	op := c.schedule(leader, to.ID, 3*time.Second)
	leader.Stop()
	leader.Start()
	done := c.became(to, op.ID, client.OperationDone, client.ScheduleStarted)
	if done.Started.Before(op.Schedule.At) {
		t.Errorf("it began at %s, before its time %s", done.Started, op.Schedule.At)
	}
	c.Wait("the role is there", time.Minute, func() error {
		if now := c.primary(); now != to {
			return fmt.Errorf("%s is primary", now.ID)
		}
		return nil
	})
	c.Wait("all are level", time.Minute, c.settled)
	for _, id := range c.options.Nodes {
		n := c.Node(id)
		c.became(n, op.ID, client.OperationDone, client.ScheduleStarted)
		if times := c.moves(n, op.ID); times != 1 {
			t.Errorf("%s knows %d moves of the role by it", id, times)
		}
		g, err := n.client.Group(t.Context(), "default")
		if err != nil || g.Primary != string(to.ID) || g.Scheduled != nil {
			t.Errorf("%s: primary %s, scheduled %+v, %v", id, g.Primary, g.Scheduled, err)
		}
		if n != leader { // which may have been down
			c.tells(n, "SWITCHOVER_SCHEDULED", op.ID)
			c.tells(n, "OPERATION", op.ID)
		}
	}
}

// TestScheduleIsCanceledOrVoid: one that was canceled does not happen, nor one after a switch-over by hand; both are told, everywhere. Times that
// are over or too far ahead are refused. Proves CL-5.
func TestScheduleIsCanceledOrVoid(t *testing.T) {
	c := Start(t, Options{Group: fsm.GroupSpec{Preferred: "a"}})
	p := c.primary()
	others := slices.DeleteFunc(slices.Clone(c.options.Nodes), func(id ident.NodeID) bool { return id == p.ID })
	b, d := c.Node(others[0]), c.Node(others[1])
	for _, in := range []time.Duration{-time.Minute, 31 * 24 * time.Hour} {
		if _, err := b.client.Switchover(t.Context(), "default", client.SwitchoverRequest{At: time.Now().Add(in)}, 0); !errors.Is(err, client.ErrInvalid) {
			t.Errorf("in %s: %v", in, err)
		}
	}
	canceled := c.schedule(b, b.ID, 8*time.Second)
	if err := d.client.CancelSwitchover(t.Context(), "default"); err != nil {
		t.Fatalf("cancel: %v", err)
	}
	if err := d.client.CancelSwitchover(t.Context(), "default"); !errors.Is(err, client.ErrPrecondition) {
		t.Errorf("cancel nothing: %v", err)
	}
	void := c.schedule(d, b.ID, time.Hour)
	if _, err := p.client.Switchover(t.Context(), "default", client.SwitchoverRequest{At: time.Now().Add(time.Hour)}, 0); !errors.Is(err, client.ErrBusy) {
		t.Errorf("a second one: %v", err)
	}
	c.Wait("why tells it", time.Minute, func() error {
		why, err := p.client.Why(t.Context(), "default", "")
		if err == nil && !strings.Contains(strings.Join(why.Notes, "\n"), fmt.Sprintf("switch-over %d to %s is scheduled", void.ID, b.ID)) {
			err = fmt.Errorf("%q", why.Notes)
		}
		return err
	})
	for _, id := range c.options.Nodes {
		n := c.Node(id)
		c.Wait(fmt.Sprintf("%s shows it", id), time.Minute, func() error {
			g, err := n.client.Group(t.Context(), "default")
			if err == nil && (g.Scheduled == nil || g.Scheduled.ID != void.ID || g.Scheduled.Schedule.By != "ann") {
				err = fmt.Errorf("scheduled: %+v", g.Scheduled)
			}
			return err
		})
	}
	if all, err := d.client.Operations(t.Context()); err != nil || len(all) < 2 || all[0].ID != void.ID || all[0].State != client.OperationScheduled {
		t.Errorf("operations: %+v, %v", all, err)
	}
	c.handTo(d.ID)
	c.Wait("all are level", time.Minute, c.settled)
	last := c.schedule(p, b.ID, max(3*time.Second, time.Until(canceled.Schedule.At))) // happens: so the time of the canceled one is over, too
	c.became(b, last.ID, client.OperationDone, client.ScheduleStarted)
	for _, n := range []*Node{p, b, d} {
		c.became(n, canceled.ID, client.OperationRolledBack, client.ScheduleCanceled)
		c.became(n, void.ID, client.OperationRolledBack, client.ScheduleVoid)
		c.tells(n, "SWITCHOVER_CANCELED", canceled.ID)
		c.tells(n, "SWITCHOVER_VOID", void.ID)
		if c.moves(n, canceled.ID)+c.moves(n, void.ID) > 0 {
			t.Errorf("%s knows moves of the role that were called off", n.ID)
		}
	}
}

// TestScheduledSwitchoverWaits: one whose target is in maintenance at its time waits and says so, and happens as soon as it can. Its end is told although an
// operation with a later number ended before. Proves CL-5.
func TestScheduledSwitchoverWaits(t *testing.T) {
	c := Start(t, Options{Group: fsm.GroupSpec{Preferred: "a", Files: []string{"*", "!other"}}, Others: []fsm.GroupSpec{{Name: "other", Preferred: "a", Files: []string{"other"}}}})
	p := c.primary()
	others := slices.DeleteFunc(slices.Clone(c.options.Nodes), func(id ident.NodeID) bool { return id == p.ID })
	to := c.Node(others[0])
	if _, err := p.client.Maintain(t.Context(), string(to.ID), client.OrderRequest{Reason: "new disk"}); err != nil {
		t.Fatal(err)
	}
	op := c.schedule(p, to.ID, 3*time.Second)
	c.Wait("it waits", time.Minute, func() error {
		g, err := to.client.Group(t.Context(), "default")
		if err == nil && (g.Scheduled == nil || !strings.Contains(g.Scheduled.Schedule.Waits, "target_maintenance")) {
			err = fmt.Errorf("scheduled: %+v", g.Scheduled)
		}
		return err
	})
	var other client.Operation
	c.Wait("another group is switched over", time.Minute, func() (err error) {
		other, err = p.client.Switchover(t.Context(), "other", client.SwitchoverRequest{To: string(others[1]), MaxPause: client.Duration(30 * time.Second)}, time.Minute)
		if err == nil && other.State != client.OperationDone {
			err = fmt.Errorf("%+v", other)
		}
		return err
	})
	if _, err := p.client.EndMaintenance(t.Context(), string(to.ID)); err != nil {
		t.Fatal(err)
	}
	c.became(to, op.ID, client.OperationDone, client.ScheduleStarted)
	if other.ID <= op.ID {
		t.Errorf("%d was asked for before %d", op.ID, other.ID)
	}
	c.tells(to, "SWITCHOVER_WAITS", op.ID)
	c.tells(to, "OPERATION", other.ID)
	c.tells(to, "OPERATION", op.ID)
}
