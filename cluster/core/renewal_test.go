package core

import (
	"testing"
	"time"

	"github.com/understudy-ha/understudy/fsm"
)

// A renewal that is applied after a later one of its life gives nobody anything, and takes nothing from anybody: the holder keeps what
// the later one gave it, everybody else's cover ends when that one's does. A dead primary's last words do not put its failover off. Proves
// RJ-5, CL-1.
func TestRenewalThatWasPassed(t *testing.T) {
	var world time.Duration
	st := covered(t)
	holder, other := NewLeases("a", 1, world, lease, margin), NewLeases("b", 2, world, lease, margin)
	apply := func(cmd fsm.Command) {
		res := st.Apply(cmd)
		holder.Step(world, cmd, res, st.Snapshot())
		other.Step(world, cmd, res, st.Snapshot())
	}
	numbered := func(number uint64) fsm.Command {
		cmd := renewal(100+number, "a", 1)
		cmd.Renew.Number = number
		holder.Begin(world, cmd.ID)
		return cmd
	}
	first := numbered(1)
	world += 500 * time.Millisecond
	second := numbered(2)
	world += 10 * time.Millisecond
	apply(second)
	ends := world + other.Cover(world, group)
	remaining := holder.Remaining(world)
	if !holder.Holds(world, group, 1) || remaining != holder.short-10*time.Millisecond {
		t.Fatalf("the later one gives a lease: %s remain", remaining)
	}

	world += 300 * time.Millisecond // the primary is dead by then, for all that others know
	apply(first)
	if got := holder.Remaining(world); got != remaining-300*time.Millisecond || !holder.Holds(world, group, 1) {
		t.Fatalf("the lease changed: %s remain of %s", got, remaining)
	}
	if got := world + other.Cover(world, group); got != ends {
		t.Fatalf("the cover ends at %s instead of %s", got, ends)
	}
	if at, ok := other.Renewed(world, "a"); !ok || at != 510*time.Millisecond || other.Seen(group) != at {
		t.Fatalf("seen alive at %s, %s", at, other.Seen(group))
	}
	world = 500*time.Millisecond + holder.short
	if holder.Holds(world, group, 1) {
		t.Fatal("it holds the group for longer than the later one gave it")
	}
	for ; world < ends; world += time.Millisecond {
		if other.Cover(world, group) == 0 {
			t.Fatal("the cover ends early")
		}
	}
	if other.Cover(world, group) != 0 || other.MayHold(world, "a") {
		t.Fatal("the cover does not end")
	}
}

// A renewal that was passed covers nothing even where the later one covered less, since the role came to the node in between: for
// neither side, so that nobody promises while the holder thinks that it holds.
func TestRenewalThatWasPassedByOneThatCoveredLess(t *testing.T) {
	var world time.Duration
	st := covered(t)
	holder, other := NewLeases("b", 2, world, lease, margin), NewLeases("c", 3, world, lease, margin)
	apply := func(cmd fsm.Command) {
		t.Helper()
		cmd.Version = fsm.CommandVersion
		res := st.Apply(cmd)
		if res.Refused != "" {
			t.Fatalf("%+v", res)
		}
		holder.Step(world, cmd, res, st.Snapshot())
		other.Step(world, cmd, res, st.Snapshot())
	}
	send := func(number uint64) fsm.Command {
		cmd := renewal(100+number, "b", 2)
		cmd.Renew.Number = number
		holder.Begin(world, cmd.ID)
		return cmd
	}
	first, second := send(1), send(2)
	world += other.long // the covers of the start have ended
	apply(second)
	apply(fsm.Command{Fence: &fsm.Fence{Group: group, Epoch: 1, Force: true, To: "b", AllowLoss: true}})
	apply(fsm.Command{Promise: &fsm.Promise{Group: group, Report: fsm.Report{Node: "b", Epoch: 2, Incarnation: 2}}})
	apply(fsm.Command{Promote: &fsm.Promote{Group: group, Epoch: 2, To: "b", Incarnation: 2, Loss: fsm.LossNone}})
	apply(first)
	if holder.Holds(world, group, 2) || other.Cover(world, group) != 0 {
		t.Fatalf("held %t, covered for %s", holder.Holds(world, group, 2), other.Cover(world, group))
	}
	apply(send(3))
	if !holder.Holds(world, group, 2) || other.Cover(world, group) != other.long {
		t.Fatal("the next renewal covers it")
	}
}
