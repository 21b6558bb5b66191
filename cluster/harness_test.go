package cluster

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"go.uber.org/goleak"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/host"
	"github.com/understudy-ha/understudy/internal/ident"
)

// memberlist.Leave and Raft's transport leave goroutines that end by themselves soon after; goleak waits for them, so
// nothing has to be ignored.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const group = ident.GroupName("default")

func testTiming() Timing {
	return Timing{
		Lease: 900 * time.Millisecond, Renew: 150 * time.Millisecond, Margin: 50 * time.Millisecond,
		RaftHeartbeat: 300 * time.Millisecond, RaftElection: 300 * time.Millisecond, RaftLeaderLease: 150 * time.Millisecond, RaftCommit: 5 * time.Millisecond,
		Probe: 60 * time.Millisecond, Rejoin: 150 * time.Millisecond, Reports: 300 * time.Millisecond,
		Discover: 500 * time.Millisecond, Propose: 3 * time.Second, DiskHang: 30 * time.Second,
	}
}

// memoryIdentity is a data directory's identity without the directory.
type memoryIdentity struct {
	mu sync.Mutex
	id ident.ClusterID
}

func (m *memoryIdentity) ClusterID() ident.ClusterID {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.id
}

func (m *memoryIdentity) SetClusterID(id ident.ClusterID) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.id != "" && m.id != id {
		return errors.New("bound to another cluster")
	}
	m.id = id
	return nil
}

// skewClock is a clock whose boot time runs faster or slower than the machine's.
type skewClock struct {
	host.Clock
	rate float64
}

func (s skewClock) Boot() time.Duration { return time.Duration(float64(s.Clock.Boot()) * s.rate) }

// machine is what survives a node's restart.
type machine struct {
	t         *testing.T
	name      ident.NodeID
	directory ident.DirectoryID
	identity  *memoryIdentity
	dir       string
	raftAddr  string // kept over restarts
	rate      float64
	timing    Timing
	speaks    ident.Protocol
	ended     func(error) // OnFatal
	renewFail atomic.Bool
	link      *link
	log       hclog.Logger

	*Cluster // of the present life
	life     ident.Incarnation
	player   *player
}

func newMachine(t *testing.T, name ident.NodeID) *machine {
	return &machine{
		t: t, name: name, directory: ident.DirectoryID("dir-" + string(name)), identity: &memoryIdentity{},
		dir: filepath.Join(t.TempDir(), "raft"), rate: 1, timing: testTiming(), link: &link{conns: map[net.Conn]bool{}}, log: testLogger(t, name),
	}
}

func testLogger(t *testing.T, name ident.NodeID) hclog.Logger {
	level := hclog.Error
	if testing.Verbose() {
		level = hclog.Info
	}
	if os.Getenv("CLUSTER_TEST_DEBUG") != "" {
		level = hclog.Debug
	}
	return hclog.New(&hclog.LoggerOptions{Name: string(name), Level: level})
}

type option func(*Options)

func bootstrap(groups ...fsm.GroupSpec) option {
	return func(o *Options) { o.Bootstrap, o.Groups = true, groups }
}

func join(addrs ...string) option { return func(o *Options) { o.Join = append(o.Join, addrs...) } }

// listen binds the Raft port, the one of an earlier life again if there was one.
func (m *machine) listen() net.Listener {
	addr := m.raftAddr
	if addr == "" {
		addr = "127.0.0.1:0"
	}
	var ln net.Listener
	eventually(m.t, "bind "+addr, func() bool {
		var err error
		ln, err = net.Listen("tcp", addr)
		return err == nil
	})
	m.raftAddr = ln.Addr().String()
	return ln
}

func (m *machine) options(opts ...option) Options {
	ln := m.listen()
	h := host.Real()
	h.Clock = skewClock{Clock: h.Clock, rate: m.rate}
	h.Network = linkedNetwork{Network: h.Network, link: m.link}
	h.Failpoint = func(name string) error {
		if name == "cluster.renew:"+string(m.name) && m.renewFail.Load() {
			return errors.New("renewals fail")
		}
		return nil
	}
	m.life = max(m.life+1, ident.Incarnation(time.Now().UnixNano()))
	o := Options{
		Node: m.name, Directory: m.directory, Kind: fsm.KindData, Priority: 100, Name: "demo", Protocol: m.speaks, OnFatal: m.ended, Identity: m.identity,
		Addresses:    fsm.Addresses{HTTP: "127.0.0.1:1", Gossip: "127.0.0.1:0", Raft: ln.Addr().String(), Ship: "127.0.0.1:2"},
		RaftListener: linkedListener{Listener: ln, link: m.link}, GossipBind: "127.0.0.1:0", Dir: m.dir, Incarnation: m.life, Host: h, Logger: m.log, Timing: m.timing,
		Flushed: func() map[ident.GroupName]ident.Position {
			return map[ident.GroupName]ident.Position{group: {Epoch: 1, History: 7}}
		},
	}
	for _, f := range opts {
		f(&o)
	}
	return o
}

// start opens a new life of the machine.
func (m *machine) start(opts ...option) {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	c, err := Open(ctx, m.options(opts...))
	if err != nil {
		m.t.Fatalf("open %s: %v", m.name, err)
	}
	m.Cluster = c
	m.t.Cleanup(func() { m.stop(false) })
}

// refuse opens a new life and expects it to fail.
func (m *machine) refuse(wait time.Duration, opts ...option) error {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), wait)
	defer cancel()
	c, err := Open(ctx, m.options(opts...))
	if err == nil {
		_ = c.Abandon()
		m.t.Fatalf("%s started, want a refusal", m.name)
	}
	return err
}

// stop ends the present life, as a crash would unless orderly.
func (m *machine) stop(orderly bool) {
	m.t.Helper()
	if m.Cluster == nil {
		return
	}
	if m.player != nil {
		m.player.stop()
	}
	end := m.Abandon
	if orderly {
		end = m.Close
	}
	if err := end(); err != nil {
		m.t.Errorf("close %s: %v", m.name, err)
	}
	m.Cluster = nil
}

// propose wants the command to be applied.
func (m *machine) propose(cmd fsm.Command) fsm.Result {
	m.t.Helper()
	res, err := m.Propose(context.Background(), cmd)
	if err != nil || res.Refused != "" {
		m.t.Fatalf("propose %+v on %s: %+v %v", cmd, m.name, res, err)
	}
	return res
}

func (m *machine) group() *fsm.Group {
	st, _ := m.State()
	return st.Groups[group]
}

// serves tells whether the machine's group is opened here and its lease is valid.
func (m *machine) serves() bool {
	g := m.group()
	return g != nil && g.Phase == fsm.PhaseOpened && g.Primary == m.name && m.CheckLease(group, g.Epoch) == nil
}

// trio starts three nodes, a bootstrapping, with one group whose roles are played.
func trio(t *testing.T, prepare ...func(*machine)) (a, b, c *machine) {
	t.Helper()
	a, b, c = newMachine(t, "a"), newMachine(t, "b"), newMachine(t, "c")
	for _, f := range prepare {
		f(a)
		f(b)
		f(c)
	}
	a.start(bootstrap(fsm.GroupSpec{Name: group}))
	a.play()
	b.start(join(a.raftAddr))
	c.start(join(a.raftAddr))
	b.play()
	c.play()
	eventually(t, "a serves with everybody alive", func() bool {
		return a.serves() && a.Alive("b") && a.Alive("c") && b.Alive("c") && b.Alive("a") && c.Alive("a") && c.Alive("b")
	})
	for _, id := range []ident.NodeID{"b", "c"} {
		eventually(t, string(id)+" is in the set", func() bool { // on a slow machine the leader may change meanwhile, and nobody knows the outcome
			g := a.group()
			if g.InSet(id) {
				return true
			}
			_, _ = a.Propose(context.Background(), fsm.Command{ChangeSet: &fsm.ChangeSet{Group: group, Epoch: 1, Version: g.SetVersion, Add: id, Reason: "test"}})
			return false
		})
	}
	eventually(t, "everybody sees the set", func() bool { return len(b.group().InSync) == 3 && len(c.group().InSync) == 3 })
	return a, b, c
}

// player does what a node's role sessions do towards the cluster: it promises when due and opens when promoted.
type player struct {
	cancel context.CancelFunc
	done   chan struct{}
}

func (m *machine) play() {
	ctx, cancel := context.WithCancel(context.Background())
	p := &player{cancel: cancel, done: make(chan struct{})}
	m.player = p
	c, life, name := m.Cluster, m.life, m.name
	go func() {
		defer close(p.done)
		for ctx.Err() == nil {
			a, ok := c.Assignment(group)
			_, changed := c.State()
			if ok && a.Group != nil {
				playOnce(ctx, c, a, name, life)
			}
			select {
			case <-changed:
			case <-time.After(10 * time.Millisecond):
			case <-ctx.Done():
			}
		}
	}()
}

func playOnce(ctx context.Context, c *Cluster, a fsm.Assignment, name ident.NodeID, life ident.Incarnation) {
	g := a.Group
	switch {
	case a.PromiseDue():
		if over, _, _ := c.CoverEnded(group); over {
			_, _ = c.Propose(ctx, fsm.Command{Promise: &fsm.Promise{Group: group, Report: fsm.Report{
				Node: name, Epoch: g.Epoch, Incarnation: life, Received: ident.Position{Epoch: g.OpenEpoch, History: g.History.Last().SW},
			}}})
		}
	case g.Phase == fsm.PhasePromoted && a.IsPrimary():
		_, _ = c.Propose(ctx, fsm.Command{Open: &fsm.Open{
			Group: group, Epoch: g.Epoch, Node: name, Incarnation: life, InSync: g.InSync,
			Rows: []ident.HistoryRow{{Epoch: g.Epoch, Node: name, SW: g.History.Last().SW + 1, First: 1}},
		}})
	}
}

func (p *player) stop() {
	p.cancel()
	<-p.done
}

func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !f() {
		if time.Now().After(deadline) {
			t.Fatalf("never happened: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// leader returns the machine that leads Raft.
func leader(t *testing.T, of ...*machine) *machine {
	t.Helper()
	var found *machine
	eventually(t, "one leader for all", func() bool {
		id := of[0].Leader()
		for _, m := range of {
			if m.Leader() != id {
				return false
			}
		}
		i := slices.IndexFunc(of, func(m *machine) bool { return m.name == id })
		if i < 0 {
			return false
		}
		found = of[i]
		return true
	})
	return found
}

func others(of []*machine, not *machine) []*machine {
	return slices.DeleteFunc(slices.Clone(of), func(m *machine) bool { return m == not })
}
