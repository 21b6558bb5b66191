package core

import (
	"testing"
	"time"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
)

const (
	group  = ident.GroupName("default")
	lease  = 2 * time.Second
	margin = 100 * time.Millisecond
)

// fakeClock shows the time of a world through a rate of its own.
type fakeClock struct {
	world  *time.Duration
	rate   float64
	offset time.Duration
}

func (f *fakeClock) boot() time.Duration { return f.offset + time.Duration(float64(*f.world)*f.rate) }

// covered builds the state in which a, living as 1, is primary at epoch 1.
func covered(t *testing.T) *fsm.State {
	t.Helper()
	st := new(fsm.State)
	for _, cmd := range opening() {
		if res := st.Apply(cmd); res.Refused != "" {
			t.Fatalf("%+v: %+v", cmd, res)
		}
	}
	return st
}

// opening founds a cluster of three nodes whose group a holds at epoch 1 in life 1.
func opening() []fsm.Command {
	cmds := []fsm.Command{{CreateCluster: &fsm.CreateCluster{Cluster: "x", Name: "demo"}}}
	for i, n := range []ident.NodeID{"a", "b", "c"} {
		dir := ident.DirectoryID("dir-" + n)
		cmds = append(cmds,
			fsm.Command{RegisterNode: &fsm.RegisterNode{ID: n, Directory: dir, Kind: fsm.KindData}},
			fsm.Command{Renew: &fsm.Renew{Node: n, Directory: dir, Incarnation: ident.Incarnation(i + 1)}})
	}
	cmds = append(cmds, fsm.Command{CreateGroup: &fsm.CreateGroup{Spec: fsm.GroupSpec{Name: group, Preferred: "a"}.Normalize(), Incarnation: 1}})
	for i := range cmds {
		cmds[i].Version, cmds[i].ID = fsm.CommandVersion, uint64(i+1)
	}
	return cmds
}

func renewal(id uint64, n ident.NodeID, life ident.Incarnation) fsm.Command {
	return fsm.Command{Version: fsm.CommandVersion, ID: id, Renew: &fsm.Renew{Node: n, Directory: ident.DirectoryID("dir-" + n), Incarnation: life}}
}

func TestLeaseCountsFromBeforeTheSend(t *testing.T) {
	var world time.Duration
	st := covered(t)
	apply := func(l *Leases, cmd fsm.Command) { l.Step(world, cmd, st.Apply(cmd), st.Snapshot()) }
	l := NewLeases("a", 1, world, lease, margin)

	l.Begin(world, 100)
	world += 1500 * time.Millisecond // the answer is late
	apply(l, renewal(100, "a", 1))
	if !l.Holds(world, group, 1) || l.Holds(world, group, 2) || l.Holds(world, "other", 1) || l.Holds(world, group, 0) {
		t.Fatal("the lease covers exactly this group at this epoch")
	}
	if got, want := l.Remaining(world), 498*time.Millisecond; got != want {
		t.Fatalf("remaining %s, want %s: counted from the clock before the send, less the drift", got, want)
	}
	world += 498 * time.Millisecond
	if l.Holds(world, group, 1) {
		t.Fatal("valid at its end")
	}
	if rest := l.Cover(world, group); rest != lease+2*time.Millisecond+margin-498*time.Millisecond {
		t.Fatalf("cover counts from the apply: %s", rest)
	}

	// A renewal that nobody of this life sent gives nothing: neither an old one in the log nor one whose time has passed.
	apply(l, renewal(101, "a", 1))
	if l.Holds(world, group, 1) {
		t.Fatal("a renewal that was not sent here gave a lease")
	}
	l.Begin(world, 102)
	world += 3 * time.Second
	l.Begin(world, 103)
	if len(l.pending) != 1 {
		t.Fatalf("%d renewals remembered, want 1", len(l.pending))
	}
}

func TestLeaseEndsWithFenceReleaseAndRestore(t *testing.T) {
	var world time.Duration
	begin := func(t *testing.T) (*Leases, *fsm.State) {
		l := NewLeases("a", 1, world, lease, margin)
		st := covered(t)
		l.Begin(world, 100)
		cmd := renewal(100, "a", 1)
		l.Step(world, cmd, st.Apply(cmd), st.Snapshot())
		if !l.Holds(world, group, 1) {
			t.Fatal("no lease")
		}
		return l, st
	}
	run := func(l *Leases, st *fsm.State, cmd fsm.Command) fsm.Result {
		cmd.Version = fsm.CommandVersion
		res := st.Apply(cmd)
		l.Step(world, cmd, res, st.Snapshot())
		return res
	}
	t.Run("fence", func(t *testing.T) {
		l, st := begin(t)
		if res := run(l, st, fsm.Command{Fence: &fsm.Fence{Group: group, Epoch: 1, Force: true}}); res.Refused != "" {
			t.Fatal(res)
		}
		if l.Holds(world, group, 1) || l.Holds(world, group, 2) {
			t.Fatal("held after the fence")
		}
		if rest := l.Cover(world, group); rest == 0 {
			t.Fatal("a fence does not end the cover: the holder may not know of it")
		}
		l.Begin(world, 101)
		cmd := renewal(101, "a", 1)
		l.Step(world, cmd, st.Apply(cmd), st.Snapshot())
		if l.Holds(world, group, 1) || l.Remaining(world) == 0 {
			t.Fatal("renewals after a fence renew the node's lease, not the group's")
		}
	})
	t.Run("release", func(t *testing.T) {
		l, st := begin(t)
		cmd := fsm.Command{Version: fsm.CommandVersion, Release: &fsm.Release{Node: "a", Incarnation: 1}}
		change := l.Step(world, cmd, st.Apply(cmd), st.Snapshot())
		if rest := l.Cover(world, group); l.Holds(world, group, 1) || rest != 0 || l.Remaining(world) != 0 {
			t.Fatal("a released life holds and covers nothing")
		}
		if len(change.Ended) != 1 || change.Ended[0] != group {
			t.Fatal("nobody is told")
		}
	})
	t.Run("other life", func(t *testing.T) {
		l, st := begin(t)
		cmd := renewal(200, "a", 9)
		l.Step(world, cmd, st.Apply(cmd), st.Snapshot())
		if rest := l.Cover(world, group); rest != 0 || l.Holds(world, group, 1) {
			t.Fatal("a new life proves that the old one is over")
		}
	})
	t.Run("handover", func(t *testing.T) {
		// Counted by the node that gets the group and by a third one; b renewed 0.5 s ago.
		begin := func(t *testing.T) (to, other *Leases, hand func() fsm.Result) {
			to, other = NewLeases("b", 2, world, lease, margin), NewLeases("c", 3, world, lease, margin)
			st := covered(t)
			run := func(cmd fsm.Command) fsm.Result {
				cmd.Version = fsm.CommandVersion
				res := st.Apply(cmd)
				for _, l := range []*Leases{to, other} {
					l.Step(world, cmd, res, st.Snapshot())
				}
				return res
			}
			to.Begin(world, 400)
			for _, cmd := range []fsm.Command{
				renewal(400, "b", 2),
				{Open: &fsm.Open{Group: group, Epoch: 1, Node: "a", Incarnation: 1, Rows: []ident.HistoryRow{{Epoch: 1, Node: "a", SW: 1, First: 1}}, InSync: []ident.NodeID{"a", "b"}}},
				{StartSwitch: &fsm.StartSwitch{Group: group, Epoch: 1, To: "b", MaxPause: time.Second, Deadline: time.Unix(1, 0)}},
				{AdvanceSwitch: &fsm.AdvanceSwitch{Group: group, Operation: 1, From: fsm.StepPrepare, Node: "b"}},
				{AdvanceSwitch: &fsm.AdvanceSwitch{Group: group, Operation: 1, From: fsm.StepHold, Node: "a"}},
			} {
				if res := run(cmd); res.Refused != "" {
					t.Fatalf("%+v: %+v", cmd, res)
				}
			}
			return to, other, func() fsm.Result {
				return run(fsm.Command{Handover: &fsm.Handover{
					Group: group, Operation: 1, Epoch: 1, From: "a", FromLife: 1, To: "b", Incarnation: 2,
					Last: ident.Position{Epoch: 1, History: 7}, InSync: []ident.NodeID{"a", "b"},
				}})
			}
		}
		to, other, hand := begin(t)
		world += 500 * time.Millisecond
		if res := hand(); res.Refused != "" {
			t.Fatal(res)
		}
		if !to.Holds(world, group, 2) || to.Holds(world, group, 1) || other.Holds(world, group, 2) {
			t.Fatal("the new holder, and nobody else, holds the group from the handover on")
		}
		if rest := other.Cover(world, group); rest != other.long {
			t.Fatalf("everybody counts from the handover: %s", rest)
		}
		world += to.short - 500*time.Millisecond
		if to.Holds(world, group, 2) {
			t.Fatal("held for longer than the renewal before the handover lasts")
		}

		to, other, hand = begin(t)
		world += to.short
		if res := hand(); res.Refused != "" || to.Holds(world, group, 2) {
			t.Fatalf("held by a renewal that is over: %+v", res)
		}
		if other.Cover(world, group) == 0 {
			t.Fatal("who counts for others cannot know that")
		}

		to, _, hand = begin(t)
		to.Drop()
		if res := hand(); res.Refused != "" || to.Holds(world, group, 2) {
			t.Fatalf("a closing node holds a group: %+v", res)
		}
	})
	t.Run("restore", func(t *testing.T) {
		l, st := begin(t)
		world += lease * 2
		if rest := l.Cover(world, group); rest != 0 {
			t.Fatal("cover should have ended")
		}
		l.Restored(world, st.Snapshot())
		if rest := l.Cover(world, group); rest != l.long {
			t.Fatalf("every group counts from a restore: %s", rest)
		}
	})
	t.Run("start", func(t *testing.T) {
		l := NewLeases("b", 2, world, lease, margin)
		if rest := l.Cover(world, group); rest != l.long {
			t.Fatalf("every group counts from the start: %s", rest)
		}
	})
	t.Run("drop", func(t *testing.T) {
		l, st := begin(t)
		l.Drop()
		l.Begin(world, 300)
		cmd := renewal(300, "a", 1)
		l.Step(world, cmd, st.Apply(cmd), st.Snapshot())
		if l.Holds(world, group, 1) {
			t.Fatal("a closing node renewed its lease")
		}
	})
}
