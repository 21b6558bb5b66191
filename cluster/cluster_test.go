package cluster

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
)

func TestBootstrapJoinAndProposeFromFollower(t *testing.T) {
	a, b, c := trio(t)
	all := []*machine{a, b, c}
	lead := leader(t, all...)
	for _, m := range others(all, lead) {
		before, _ := m.State()
		res, err := m.Propose(context.Background(), fsm.Command{StartSwitch: &fsm.StartSwitch{Group: group, Epoch: 9, To: "b", MaxPause: time.Second, Deadline: time.Now()}})
		if err != nil || res.Refused != fsm.RefusedEpoch {
			t.Fatalf("refusal has to be a result: %+v %v", res, err)
		}
		g := m.group()
		m.propose(fsm.Command{ChangeSet: &fsm.ChangeSet{Group: group, Epoch: g.Epoch, Version: g.SetVersion, Remove: "c"}})
		if g := m.group(); g.InSet("c") {
			t.Fatalf("accepted on %s, but not visible there on return", m.name)
		}
		m.propose(fsm.Command{ChangeSet: &fsm.ChangeSet{Group: group, Epoch: g.Epoch, Version: g.SetVersion + 1, Add: "c"}})
		if after, _ := m.State(); after.Applied <= before.Applied {
			t.Fatal("nothing was counted")
		}
	}
	st, _ := b.State()
	if st.Name != "demo" || st.Cluster != a.ID() || b.ID() != a.ID() || len(st.Nodes) != 3 {
		t.Fatalf("state of b: %+v", st)
	}
	eventually(t, "flushed positions travel with renewals", func() bool {
		st, _ := c.State()
		return st.Nodes["b"].Flushed[group] == ident.Position{Epoch: 1, History: 7}
	})
	for _, m := range a.Members() {
		if m.State != MemberAlive {
			t.Fatalf("member %+v", m)
		}
	}
	if a.LeaseRemaining() <= 0 || a.LeaseRemaining() > testTiming().Lease {
		t.Fatalf("lease remaining %s", a.LeaseRemaining())
	}
	if err := b.CheckLease(group, 1); !errors.Is(err, ErrNoLease) {
		t.Fatalf("b is not primary: %v", err)
	}
}

// Proves that the loss of the Raft leader, which is the primary, moves the role and leaves a working cluster.
func TestLeaderAndPrimaryDie(t *testing.T) {
	a, b, c := trio(t)
	all := []*machine{a, b, c}
	dead := leader(t, all...)
	rest := others(all, dead)
	was := dead.group().Primary
	dead.stop(false)
	if was == dead.name {
		eventually(t, "another node opens the group", func() bool { return rest[0].serves() || rest[1].serves() })
		if e := rest[0].group().Epoch; e != 2 {
			t.Fatalf("epoch %s, want 2", e)
		}
	}
	eventually(t, "the others agree that it is dead", func() bool { return !rest[0].Alive(dead.name) && !rest[1].Alive(dead.name) })
	for _, m := range rest {
		g := m.group()
		m.propose(fsm.Command{ChangeSet: &fsm.ChangeSet{Group: group, Epoch: g.Epoch, Version: g.SetVersion, Remove: dead.name, Reason: "test"}})
		g = m.group()
		m.propose(fsm.Command{ChangeSet: &fsm.ChangeSet{Group: group, Epoch: g.Epoch, Version: g.SetVersion, Add: dead.name, Reason: "test"}})
		eventually(t, "both see it", func() bool { return rest[0].group().SetVersion == rest[1].group().SetVersion })
	}
	// It comes back at the same address, with another gossip port, and is a member again.
	dead.start()
	dead.play()
	eventually(t, "it is back", func() bool { return rest[0].Alive(dead.name) && rest[1].Alive(dead.name) && dead.Alive(rest[0].name) })
	eventually(t, "one primary, known to all", func() bool {
		g := dead.group()
		return g.Phase == fsm.PhaseOpened && rest[0].group().Epoch == g.Epoch && rest[1].group().Epoch == g.Epoch
	})
}

// Proves S20, S6 for the count of leases: while the primary cannot renew, its CheckLease is false before any node's cover
// has ended, with clocks that differ by as much as the rule allows.
func TestLeaseEndsBeforeCovers(t *testing.T) {
	a, b, c := trio(t, func(m *machine) { m.rate = map[ident.NodeID]float64{"a": 0.9996, "b": 1.0004, "c": 1}[m.name] })
	all := []*machine{a, b, c}
	for _, m := range all {
		m.player.stop() // nobody promises, so that only the counting shows
	}
	a.renewFail.Store(true)
	for ended := 0; ended < len(all); {
		ended = 0
		for _, m := range all {
			if over, _, _ := m.CoverEnded(group); over { // asked before the lease: what is over now, has to be over first
				ended++
				if err := a.CheckLease(group, 1); err == nil {
					t.Fatalf("a holds its lease although its cover has ended on %s", m.name)
				}
			}
		}
		time.Sleep(time.Millisecond)
	}
	eventually(t, "the manager fences a", func() bool { return b.group().Phase == fsm.PhaseFenced && b.group().Epoch == 2 })
	a.renewFail.Store(false)
	eventually(t, "a renews again", func() bool { return a.LeaseRemaining() > 0 })
	if err := a.CheckLease(group, 1); err == nil {
		t.Fatal("renewals cover a fenced group")
	}
}

// Proves that a failover by hand against a living primary takes one epoch, although its choice cannot have renewed for the
// group when it is promoted.
func TestForcedFailoverTakesOneEpoch(t *testing.T) {
	a, b, c := trio(t, func(m *machine) { m.timing.Lease = 2 * time.Second })
	all := []*machine{a, b, c}
	for _, m := range all {
		m.renewFail.Store(true) // as late as a renewal can be
	}
	b.propose(fsm.Command{Fence: &fsm.Fence{Group: group, Epoch: 1, Force: true, Reason: "test"}})
	eventually(t, "somebody is promoted", func() bool { return b.group().Phase != fsm.PhaseFenced })
	time.Sleep(3 * managerTick) // the manager looks at it a few times
	for _, m := range all {
		m.renewFail.Store(false)
	}
	eventually(t, "somebody serves", func() bool { return a.serves() || b.serves() || c.serves() })
	if g := b.group(); g.Epoch != 2 || len(g.Switches) != 2 {
		t.Fatalf("at epoch %s after %d promotions, want 2 and 2: %+v", g.Epoch, len(g.Switches), g.Switches)
	}
}

// Proves that a primary that lives and never opens is replaced by another.
func TestStuckPrimaryIsReplaced(t *testing.T) {
	a, b, c := trio(t, func(m *machine) { m.timing.Takeover = 1500 * time.Millisecond })
	b.player.stop()
	a.propose(fsm.Command{Fence: &fsm.Fence{Group: group, Epoch: 1, Force: true, To: "b", Reason: "test"}})
	eventually(t, "b is promoted", func() bool {
		if now, _ := b.Assignment(group); now.PromiseDue() {
			playOnce(context.Background(), b.Cluster, now, "b", b.life) // that is all it does
		}
		return b.group().Phase == fsm.PhasePromoted
	})
	eventually(t, "another serves", func() bool { return a.serves() || c.serves() })
	if e := a.group().Epoch; e != 3 {
		t.Fatalf("epoch %s, want 3", e)
	}
}

// Proves that the release of a dead life saves the wait for the end of its lease.
func TestCrashReleaseEndsCovers(t *testing.T) {
	a, b, c := trio(t, func(m *machine) { m.timing.Lease = 10 * time.Minute })
	if over, rest, _ := b.CoverEnded(group); over || rest <= 0 {
		t.Fatalf("cover of a living primary: %v %s", over, rest)
	}
	_, _, cut := b.CoverEnded(group)
	life := a.life
	a.stop(false)
	b.propose(fsm.Command{Release: &fsm.Release{Node: "a", Incarnation: life}})
	select {
	case <-cut:
	case <-time.After(5 * time.Second):
		t.Fatal("nobody was told that the cover was cut short")
	}
	eventually(t, "the group is open elsewhere", func() bool { return b.serves() || c.serves() })
	st, _ := b.State()
	if last := st.Past[len(st.Past)-1]; last.Kind != fsm.OperationFailover || last.State != fsm.OperationDone || !strings.Contains(last.Reason, "a has ended") {
		t.Fatalf("operation %+v", last)
	}
	eventually(t, "a has left", func() bool { return b.Members()[0].State == MemberLeft })
}

// Proves that a life that follows another one neither serves under the old epoch nor waits for the old lease.
func TestRestartedPrimaryTakesNewEpoch(t *testing.T) {
	a, b, c := trio(t, func(m *machine) { m.timing.Lease = 10 * time.Minute })
	a.stop(false)
	a.start()
	if err := a.CheckLease(group, 1); err == nil {
		t.Fatal("the new life holds the old life's lease")
	}
	a.play()
	eventually(t, "open at a later epoch", func() bool { return (a.serves() || b.serves() || c.serves()) && a.group().Epoch >= 2 })
}

// Proves that an orderly end hands the role on without waiting for the lease.
func TestCloseReleases(t *testing.T) {
	a, b, c := trio(t, func(m *machine) { m.timing.Lease = 10 * time.Minute })
	life := a.life
	a.stop(true)
	eventually(t, "released", func() bool {
		st, _ := b.State()
		return st.Nodes["a"].Released && st.Nodes["a"].Incarnation == life
	})
	eventually(t, "the group is open elsewhere", func() bool { return b.serves() || c.serves() })
}

func TestWrongDirectoryRefused(t *testing.T) {
	a, b, _ := trio(t)
	b.stop(true)
	other := newMachine(t, "b")
	other.directory = "dir-other"
	err := other.refuse(10*time.Second, join(a.raftAddr))
	var wrong *DirectoryError
	if !errors.As(err, &wrong) || wrong.Registered != "dir-b" || !strings.Contains(err.Error(), "start it with its own data directory") {
		t.Fatalf("got %v", err)
	}
	if st, _ := a.State(); st.Nodes["b"].Directory != "dir-b" {
		t.Fatal("the registration moved")
	}
	// The same on an empty bootstrapping node.
	lost := newMachine(t, "b")
	lost.directory = "dir-lost"
	err = lost.refuse(10*time.Second, bootstrap(), join(a.raftAddr))
	if !errors.As(err, &wrong) {
		t.Fatalf("got %v", err)
	}
}

func TestSecondClusterRefused(t *testing.T) {
	a := newMachine(t, "a")
	a.start(bootstrap())
	// A name of its own is another cluster, which nobody joins by mistake.
	x := newMachine(t, "x")
	err := x.refuse(10*time.Second, join(a.raftAddr), func(o *Options) { o.Name = "other" })
	if err == nil || !strings.Contains(err.Error(), `belongs to cluster "demo"`) {
		t.Fatalf("got %v", err)
	}
	// A bootstrapping node whose peers know the cluster joins it instead of founding another.
	b := newMachine(t, "b")
	b.start(bootstrap(fsm.GroupSpec{Name: group}), join(a.raftAddr))
	if b.ID() != a.ID() || b.group() != nil {
		t.Fatal("b founded a second cluster, or created groups in one it joined")
	}
	// A member of another cluster of the same name is not let in, by either protocol.
	z := newMachine(t, "z")
	z.start(bootstrap())
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	reg := z.registration()
	r, err := z.port.call(ctx, a.raftAddr, request{Join: &joinRequest{Name: "demo", Node: reg}})
	if err != nil || r.Code != codeCluster {
		t.Fatalf("got %+v %v", r, err)
	}
	if _, err := (streams{z.port}).Dial(raft.ServerAddress(a.raftAddr), 2*time.Second); err == nil || !strings.Contains(err.Error(), "does not belong to cluster") {
		t.Fatalf("got %v", err)
	}
}

func TestTwoBootstrappersRefused(t *testing.T) {
	a, b := newMachine(t, "a"), newMachine(t, "b")
	ao := a.options(bootstrap())
	bo := b.options(bootstrap(), join(a.raftAddr))
	ao.Join = []string{b.raftAddr}
	fails := make(chan error, 2)
	for _, o := range []Options{ao, bo} {
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
			defer cancel()
			c, err := Open(ctx, o)
			if err == nil {
				_ = c.Close()
			}
			fails <- err
		}()
	}
	if err := <-fails; err == nil || !strings.Contains(err.Error(), "exactly one node") {
		t.Fatalf("got %v", err)
	}
	// The other one saw the same, or its peer is gone and it founds alone: never two that know of each other.
	if err := <-fails; err != nil && !strings.Contains(err.Error(), "exactly one node") {
		t.Fatalf("got %v", err)
	}
}

func TestRestartFromDisk(t *testing.T) {
	a, b, c := trio(t)
	all := []*machine{a, b, c}
	id := a.ID()
	for _, m := range all {
		m.stop(false)
	}
	fails := make(chan error, len(all))
	opened := make([]*Cluster, len(all))
	for i, m := range all {
		o := m.options() // needs neither bootstrap nor join
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
			defer cancel()
			var err error
			opened[i], err = Open(ctx, o)
			fails <- err
		}()
	}
	for range all {
		if err := <-fails; err != nil {
			t.Fatal(err)
		}
	}
	for i, m := range all {
		m.Cluster = opened[i]
		m.play()
	}
	if a.ID() != id || a.group() == nil || len(a.group().History) == 0 {
		t.Fatalf("state was lost: %+v", a.group())
	}
	eventually(t, "open again at a later epoch", func() bool { return a.group().Epoch > 1 && (a.serves() || b.serves() || c.serves()) })
	eventually(t, "everybody counts its cover", func() bool {
		for _, m := range all {
			if over, _, _ := m.CoverEnded(group); over {
				return false
			}
		}
		return true
	})
}

func TestLostRaftLogRefused(t *testing.T) {
	a := newMachine(t, "a")
	a.start(bootstrap())
	a.stop(true)
	a.dir = t.TempDir()
	if err := a.refuse(5*time.Second, bootstrap()); err == nil || !strings.Contains(err.Error(), "must not vote again") {
		t.Fatalf("got %v", err)
	}
}

func TestForeignRaftLogRefused(t *testing.T) {
	a := newMachine(t, "a")
	a.start(bootstrap())
	a.stop(true)
	a.identity = &memoryIdentity{}
	if err := a.refuse(5*time.Second, bootstrap()); err == nil || !strings.Contains(err.Error(), "belongs to no cluster") {
		t.Fatalf("got %v", err)
	}
}

func TestNoQuorum(t *testing.T) {
	a, b, c := trio(t)
	all := []*machine{a, b, c}
	last := others(all, leader(t, all...))[0]
	for _, m := range others(all, last) {
		m.stop(false)
	}
	eventually(t, "no leader", func() bool { return last.Leader() == "" })
	began := time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), 700*time.Millisecond)
	defer cancel()
	_, err := last.Propose(ctx, fsm.Command{Release: &fsm.Release{Node: "a", Incarnation: 1}})
	if !errors.Is(err, ErrNoQuorum) {
		t.Fatalf("got %v", err)
	}
	if d := time.Since(began); d > 2*time.Second {
		t.Fatalf("took %s", d)
	}
	ctx, cancel = context.WithCancel(context.Background())
	cancel()
	if _, err := last.Propose(ctx, fsm.Command{Release: &fsm.Release{Node: "a", Incarnation: 1}}); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
	// A start without quorum ends with its context, and says whom it asked.
	last.stop(false)
	if err := last.refuse(time.Second); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "asked "+a.raftAddr) && !strings.Contains(err.Error(), "asked "+b.raftAddr) {
		t.Fatalf("got %v", err)
	}
}

// Proves that an answer that got lost does not make an outcome unknown when the log tells it.
func TestLostAnswerIsFoundInTheLog(t *testing.T) {
	a, b, c := trio(t)
	all := []*machine{a, b, c}
	m := others(all, leader(t, all...))[0]
	m.link.mu.Lock()
	m.link.deaf = true
	m.link.mu.Unlock()
	g := m.group()
	m.propose(fsm.Command{ChangeSet: &fsm.ChangeSet{Group: group, Epoch: g.Epoch, Version: g.SetVersion, Remove: "c"}})
	if m.group().InSet("c") {
		t.Fatal("not visible on return")
	}
}

// Proves that a leader that is cut off neither says "done" nor "failed", that its lease ends before the others choose a
// new primary although gossip believes it alive, and that it follows them afterwards.
func TestIsolatedLeader(t *testing.T) {
	a, b, c := trio(t)
	all := []*machine{a, b, c}
	lead := leader(t, all...)
	rest := others(all, lead)
	st := lead.group()
	lead.link.cut(true)
	_, err := lead.Propose(context.Background(), fsm.Command{ChangeSet: &fsm.ChangeSet{Group: group, Epoch: st.Epoch, Version: st.SetVersion, Remove: "c"}})
	var unknown *UnknownOutcomeError
	if !errors.As(err, &unknown) || unknown.Command == 0 {
		t.Fatalf("got %v", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	if _, err := lead.Propose(ctx, fsm.Command{Release: &fsm.Release{Node: "x", Incarnation: 1}}); !errors.Is(err, ErrNoQuorum) {
		t.Fatalf("got %v", err)
	}
	if lead == a { // the usual case: it is the primary, too
		eventually(t, "the others go on", func() bool {
			now := rest[0].serves() || rest[1].serves()
			if now && lead.CheckLease(group, st.Epoch) == nil {
				t.Fatal("two nodes hold the group")
			}
			return now
		})
	}
	lead.link.cut(false)
	eventually(t, "it follows", func() bool {
		return lead.group().Epoch == rest[0].group().Epoch && lead.LeaseRemaining() > 0 && lead.group().Phase == fsm.PhaseOpened
	})
	if g := lead.group(); g.InSync == nil {
		t.Fatalf("group %+v", g)
	}
}

// Proves that a state restored from a snapshot makes every group count from then.
func TestRestartFromSnapshot(t *testing.T) {
	a := newMachine(t, "a")
	a.start(bootstrap(fsm.GroupSpec{Name: group}))
	a.play()
	eventually(t, "a serves", a.serves)
	if err := a.raft.Snapshot().Error(); err != nil {
		t.Fatal(err)
	}
	before, _ := a.State()
	a.stop(false)
	a.start()
	after, _ := a.State()
	if after.Applied < before.Applied || after.Groups[group] == nil {
		t.Fatalf("state lost: %d commands, had %d", after.Applied, before.Applied)
	}
	a.play()
	eventually(t, "a serves at a later epoch", func() bool { return a.serves() && a.group().Epoch > 1 })
}

func TestGroupForAnotherNode(t *testing.T) {
	a, b := newMachine(t, "a"), newMachine(t, "b")
	a.start(bootstrap(fsm.GroupSpec{Name: group, Preferred: "b"}))
	if a.group() != nil {
		t.Fatal("created before its primary is known")
	}
	b.start(join(a.raftAddr))
	b.play()
	eventually(t, "b serves it", b.serves)
}

// Proves that a process that the cluster counts as ended says so: it can never serve again.
func TestLifeOver(t *testing.T) {
	a, b, _ := trio(t)
	over := make(chan error, 1)
	b.stop(false)
	b.start(join(a.raftAddr), func(o *Options) { o.OnFatal = func(err error) { over <- err } })
	eventually(t, "b renews", func() bool { st, _ := a.State(); return st.Nodes["b"].Incarnation == b.life })
	a.propose(fsm.Command{Release: &fsm.Release{Node: "b", Incarnation: b.life}})
	if err := <-over; !errors.Is(err, ErrLifeOver) {
		t.Fatal(err)
	}
}

// Proves that a process whose directory was set back, from a time when its clock was years ahead, learns what its next life has to follow. The other
// nodes go on.
func TestLifeOfAClockFarAhead(t *testing.T) {
	a, b, _ := trio(t)
	over := make(chan error, 1)
	b.stop(false)
	b.start(join(a.raftAddr), func(o *Options) { o.OnFatal = func(err error) { over <- err } })
	eventually(t, "b renews", func() bool { st, _ := a.State(); return st.Nodes["b"].Incarnation == b.life })
	ahead := b.life + ident.Incarnation(20*365*24*time.Hour)
	a.propose(fsm.Command{Renew: &fsm.Renew{Node: "b", Directory: b.directory, Incarnation: ahead}})
	err := <-over
	var later *LifeOverError
	if !errors.Is(err, ErrLifeOver) || !errors.As(err, &later) || later.Latest != ahead || !strings.Contains(err.Error(), "the next start follows") {
		t.Fatal(err)
	}
	b.stop(false)
	b.life = later.Latest // as the directory has it from now on
	b.start(join(a.raftAddr))
	eventually(t, "b lives again", func() bool { st, _ := a.State(); return st.Nodes["b"].Incarnation > ahead })
}

func TestAddressChange(t *testing.T) {
	if underRace {
		t.Skip("hashicorp/raft 1.8.0 reads a peer's id while it writes the peer anew with the same id and another address: updateLastAppended, startStopReplication")
	}
	a, b, c := trio(t)
	for _, m := range []*machine{b, c} {
		m.stop(false)
		m.raftAddr = "" // the next life gets another port
	}
	b.start(join(a.raftAddr))
	c.start(join(a.raftAddr))
	eventually(t, "all see the new addresses", func() bool {
		st, _ := a.State()
		return st.Nodes["b"].Addresses.Raft == b.raftAddr && st.Nodes["c"].Addresses.Raft == c.raftAddr
	})
}

func TestProposeAfterClose(t *testing.T) {
	a := newMachine(t, "a")
	a.start(bootstrap())
	c := a.Cluster
	a.stop(true)
	if _, err := c.Propose(context.Background(), fsm.Command{}); !errors.Is(err, ErrClosed) {
		t.Fatalf("got %v", err)
	}
	if err := c.Close(); err != nil {
		t.Fatalf("second close: %v", err)
	}
}

// breakingIdentity fails once, before or after it has written.
type breakingIdentity struct {
	*memoryIdentity
	write bool
}

func (b breakingIdentity) SetClusterID(id ident.ClusterID) error {
	if b.write {
		_ = b.memoryIdentity.SetClusterID(id)
	}
	return errors.New("power cut")
}

// Proves that a founder that dies while it binds its directory founds the cluster at its next start.
func TestCrashWhileFounding(t *testing.T) {
	for _, write := range []bool{false, true} {
		a := newMachine(t, "a")
		breaking := func(o *Options) { o.Identity = breakingIdentity{a.identity, write} }
		if err := a.refuse(10*time.Second, bootstrap(fsm.GroupSpec{Name: group}), breaking); err == nil || !strings.Contains(err.Error(), "power cut") {
			t.Fatalf("got %v", err)
		}
		bound := a.identity.ClusterID()
		a.start(bootstrap(fsm.GroupSpec{Name: group}))
		if a.group() == nil || a.ID() == "" || write && a.ID() != bound {
			t.Fatalf("not founded: cluster %q, bound to %q", a.ID(), bound)
		}
	}
}

// A name that stands for a journal in paths is no name of a node.
func TestReservedNameRefused(t *testing.T) {
	a := newMachine(t, "a")
	a.start(bootstrap())
	for _, name := range []ident.NodeID{"local", "replays"} {
		err := newMachine(t, name).refuse(10*time.Second, join(a.raftAddr))
		if err == nil || !strings.Contains(err.Error(), "stands for a journal") || !strings.Contains(err.Error(), "choose another one") {
			t.Errorf("%s: %v", name, err)
		}
		if st, _ := a.State(); st.Nodes[name] != nil {
			t.Errorf("%s is registered", name)
		}
	}
}
