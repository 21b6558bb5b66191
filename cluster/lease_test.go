package cluster

import (
	"testing"
	"time"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/host"
	"github.com/understudy-ha/understudy/internal/ident"
)

// fakeClock shows the time of a world through a rate of its own.
type fakeClock struct {
	world  *time.Duration
	rate   float64
	offset time.Duration
}

func (f *fakeClock) Now() time.Time { return time.Unix(0, 0).Add(*f.world) }
func (f *fakeClock) Boot() time.Duration {
	return f.offset + time.Duration(float64(*f.world)*f.rate)
}

func fakeHost(c host.Clock) host.Host {
	return host.Host{Clock: c, Trace: func(string, ...any) {}}
}

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
	timing := DefaultTiming()
	st := covered(t)
	apply := func(l *leases, cmd fsm.Command) { l.observe(cmd, st.Apply(cmd), st.Snapshot()) }
	l := newLeases("a", 1, fakeHost(&fakeClock{world: &world, rate: 1}), timing)

	l.begin(100)
	world += 1500 * time.Millisecond // the answer is late
	apply(l, renewal(100, "a", 1))
	if l.check(group, 1) != nil || l.check(group, 2) == nil || l.check("other", 1) == nil || l.check(group, 0) == nil {
		t.Fatal("the lease covers exactly this group at this epoch")
	}
	if got, want := l.remaining(), 498*time.Millisecond; got != want {
		t.Fatalf("remaining %s, want %s: counted from the clock before the send, less the drift", got, want)
	}
	world += 498 * time.Millisecond
	if l.check(group, 1) == nil {
		t.Fatal("valid at its end")
	}
	if over, rest, _ := l.coverEnded(group); over || rest != 2*time.Second+2*time.Millisecond+timing.Margin-498*time.Millisecond {
		t.Fatalf("cover counts from the apply: %v %s", over, rest)
	}

	// A renewal that nobody of this life sent gives nothing: neither an old one in the log nor one whose time has passed.
	apply(l, renewal(101, "a", 1))
	if l.check(group, 1) == nil {
		t.Fatal("a renewal that was not sent here gave a lease")
	}
	l.begin(102)
	world += 3 * time.Second
	l.begin(103)
	if len(l.pending) != 1 {
		t.Fatalf("%d renewals remembered, want 1", len(l.pending))
	}
}

func TestLeaseEndsWithFenceReleaseAndRestore(t *testing.T) {
	var world time.Duration
	timing := DefaultTiming()
	begin := func(t *testing.T) (*leases, *fsm.State) {
		l := newLeases("a", 1, fakeHost(&fakeClock{world: &world, rate: 1}), timing)
		st := covered(t)
		l.begin(100)
		cmd := renewal(100, "a", 1)
		l.observe(cmd, st.Apply(cmd), st.Snapshot())
		if l.check(group, 1) != nil {
			t.Fatal("no lease")
		}
		return l, st
	}
	run := func(l *leases, st *fsm.State, cmd fsm.Command) fsm.Result {
		cmd.Version = fsm.CommandVersion
		res := st.Apply(cmd)
		l.observe(cmd, res, st.Snapshot())
		return res
	}
	t.Run("fence", func(t *testing.T) {
		l, st := begin(t)
		if res := run(l, st, fsm.Command{Fence: &fsm.Fence{Group: group, Epoch: 1, Force: true}}); res.Refused != "" {
			t.Fatal(res)
		}
		if l.check(group, 1) == nil || l.check(group, 2) == nil {
			t.Fatal("held after the fence")
		}
		if over, _, _ := l.coverEnded(group); over {
			t.Fatal("a fence does not end the cover: the holder may not know of it")
		}
		l.begin(101)
		cmd := renewal(101, "a", 1)
		l.observe(cmd, st.Apply(cmd), st.Snapshot())
		if l.check(group, 1) == nil || l.remaining() == 0 {
			t.Fatal("renewals after a fence renew the node's lease, not the group's")
		}
	})
	t.Run("release", func(t *testing.T) {
		l, st := begin(t)
		_, _, cut := l.coverEnded(group)
		run(l, st, fsm.Command{Release: &fsm.Release{Node: "a", Incarnation: 1}})
		over, rest, _ := l.coverEnded(group)
		if l.check(group, 1) == nil || !over || rest != 0 || l.remaining() != 0 {
			t.Fatal("a released life holds and covers nothing")
		}
		select {
		case <-cut:
		default:
			t.Fatal("nobody was told")
		}
	})
	t.Run("other life", func(t *testing.T) {
		l, st := begin(t)
		cmd := renewal(200, "a", 9)
		l.observe(cmd, st.Apply(cmd), st.Snapshot())
		if over, _, _ := l.coverEnded(group); !over || l.check(group, 1) == nil {
			t.Fatal("a new life proves that the old one is over")
		}
	})
	t.Run("restore", func(t *testing.T) {
		l, st := begin(t)
		world += timing.Lease * 2
		if over, _, _ := l.coverEnded(group); !over {
			t.Fatal("cover should have ended")
		}
		l.restored(st.Snapshot())
		if over, rest, _ := l.coverEnded(group); over || rest != l.long {
			t.Fatalf("every group counts from a restore: %v %s", over, rest)
		}
	})
	t.Run("start", func(t *testing.T) {
		l := newLeases("b", 2, fakeHost(&fakeClock{world: &world, rate: 1}), timing)
		if over, rest, _ := l.coverEnded(group); over || rest != l.long {
			t.Fatalf("every group counts from the start: %v %s", over, rest)
		}
	})
	t.Run("drop", func(t *testing.T) {
		l, st := begin(t)
		l.drop()
		l.begin(300)
		cmd := renewal(300, "a", 1)
		l.observe(cmd, st.Apply(cmd), st.Snapshot())
		if l.check(group, 1) == nil {
			t.Fatal("a closing node renewed its lease")
		}
	})
}
