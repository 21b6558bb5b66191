package replica

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/go-hclog"
	"go.uber.org/goleak"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/host"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal/entry"
	"github.com/understudy-ha/understudy/journal/remote"
	"github.com/understudy-ha/understudy/replica/store"
)

// testPatience is how long a feeder may bring nothing.
const testPatience = 2 * time.Second

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	testCluster = ident.ClusterID("c1")
	orders      = ident.GroupName("orders")
	patience    = 30 * time.Second
)

// errNoQuorum is what a node hears that the control plane cannot be reached from.
var errNoQuorum = errors.New("no quorum")

// node is one life of one node.
type node struct {
	t       testing.TB
	c       *cluster
	id      ident.NodeID
	life    ident.Incarnation
	fs      vfs.FS
	store   *store.Store
	rep     *Replica
	link    link
	cancel  context.CancelFunc
	wg      sync.WaitGroup
	fatal   atomic.Pointer[error]
	mu      sync.Mutex
	events  []Event
	fail    sync.Map // failpoint name -> func() error
	mute    atomic.Bool
	silent  atomic.Bool            // does not promise
	gone    atomic.Bool            // crashed: its answers are not heard
	veto    atomic.Pointer[error]  // nil: every deletion is allowed
	asked   atomic.Int64           // deletions asked for
	foreign atomic.Pointer[string] // a file that is not the group's; nil: all are
	stopped bool
}

// cluster is three nodes, their network and their control plane.
type cluster struct {
	t     testing.TB
	dir   string // on a real disk; "": disks are memory
	wires *wires
	plane *plane
	mu    sync.Mutex // guards writes to nodes, which load reads
	nodes map[ident.NodeID]*node
	disks map[ident.NodeID]vfs.FS // *vfs.MemFS where nodes crash
	walls map[ident.NodeID]*wall
	lives uint64
	spec  fsm.GroupSpec

	archive     Archive
	shrinkAfter time.Duration // without progress for so long a member leaves the set
}

func newCluster(t testing.TB, spec fsm.GroupSpec, ids ...ident.NodeID) *cluster {
	t.Helper()
	return newClusterIn(t, "", spec, ids...)
}

func newClusterIn(t testing.TB, dir string, spec fsm.GroupSpec, ids ...ident.NodeID) *cluster {
	t.Helper()
	return newClusterWith(t, dir, nil, spec, ids...)
}

// newClusterWith gives all nodes an archive; nil: none.
func newClusterWith(t testing.TB, dir string, a Archive, spec fsm.GroupSpec, ids ...ident.NodeID) *cluster {
	t.Helper()
	c := emptyCluster(t, dir)
	c.archive = a
	c.begin(spec, ids...)
	return c
}

// newSteadyCluster is one that misses a member after seconds only: nobody leaves the set because the machine stalls for less.
func newSteadyCluster(t testing.TB, spec fsm.GroupSpec, ids ...ident.NodeID) *cluster {
	t.Helper()
	c := emptyCluster(t, "")
	c.shrinkAfter = 2 * time.Second
	c.begin(spec, ids...)
	return c
}

func emptyCluster(t testing.TB, dir string) *cluster {
	return &cluster{t: t, dir: dir, wires: newWires(), plane: newPlane(), nodes: map[ident.NodeID]*node{}, disks: map[ident.NodeID]vfs.FS{}, walls: map[ident.NodeID]*wall{},
		shrinkAfter: 300 * time.Millisecond}
}

// begin starts the nodes, and waits until the first of them serves the group.
func (c *cluster) begin(spec fsm.GroupSpec, ids ...ident.NodeID) {
	c.t.Helper()
	spec.Name, spec.Preferred = orders, ids[0]
	if spec.ReceiverBytes == 0 {
		spec.ReceiverBytes = 64 << 10
	}
	c.spec = spec.Normalize()
	for i, id := range ids {
		c.disks[id], c.walls[id] = vfs.NewCrashableMem(), &wall{Clock: host.Real().Clock}
		if c.dir != "" {
			c.disks[id] = vfs.Default
		}
		c.must(fsm.Command{RegisterNode: &fsm.RegisterNode{
			ID: id, Directory: ident.DirectoryID("d-" + string(id)), Kind: fsm.KindData, Addresses: fsm.Addresses{Ship: string(id)}, Priority: i + 1,
		}})
	}
	c.t.Cleanup(func() {
		for _, n := range c.nodes {
			n.stop()
		}
	})
	for _, id := range ids {
		c.start(id)
	}
	c.must(fsm.Command{CreateGroup: &fsm.CreateGroup{Spec: c.spec, Incarnation: c.nodes[ids[0]].life}})
	c.eventually("the first primary serves", func() bool { return c.nodes[ids[0]].rep.Status().Serving })
}

func (c *cluster) must(cmd fsm.Command) fsm.Result {
	c.t.Helper()
	res := c.plane.apply(cmd)
	if res.Refused != "" {
		c.t.Fatalf("refused: %s %s", res.Refused, res.Detail)
	}
	return res
}

func (c *cluster) eventually(what string, ok func() bool) {
	c.t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			for id, n := range c.nodes {
				c.t.Logf("%s: %+v", id, n.rep.Status())
			}
			c.t.Logf("group: %+v", c.plane.group())
			c.t.Fatalf("gave up waiting: %s", what)
		}
	}
}

// wall is the clock on one node's wall, which a test sets.
type wall struct {
	host.Clock
	ahead atomic.Int64 // of the right time
}

func (w *wall) Now() time.Time { return w.Clock.Now().Add(time.Duration(w.ahead.Load())) }

func (w *wall) set(ahead time.Duration) { w.ahead.Store(int64(ahead)) }

// path is where a directory of a node is on its disk.
func (c *cluster) path(id ident.NodeID, name string) string {
	if c.dir == "" {
		return name
	}
	return filepath.Join(c.dir, string(id), name)
}

// start begins a new life of a node on its disk.
func (c *cluster) start(id ident.NodeID) *node {
	c.t.Helper()
	c.lives++
	n := &node{t: c.t, c: c, id: id, life: ident.Incarnation(c.lives), fs: c.disks[id]}
	n.link = link{p: c.plane, self: id, life: n.life}
	log := hclog.New(&hclog.LoggerOptions{Name: string(id), Level: hclog.Debug, Output: testWriter{c.t, &n.mute}})
	h := host.Real()
	h.Network, h.Clock = wire1{c.wires, string(id)}, c.walls[id]
	h.Failpoint = func(name string) error {
		if f, ok := n.fail.Load(name); ok {
			return f.(func() error)()
		}
		return nil
	}
	var err error
	n.store, err = store.Open(store.Options{FS: n.fs, Dir: c.path(id, "store"), Logger: hclog.NewNullLogger()})
	if err != nil {
		c.t.Fatal(err)
	}
	n.rep, err = Open(Options{
		Cluster: testCluster, Node: id, Group: orders, Life: n.life, FS: n.fs, Dir: c.path(id, "data"), Store: n.store, Host: h, Logger: log,
		ReceiverBytes: c.spec.ReceiverBytes, Events: n.heard, Veto: n.permit, Selection: n.selection, Archive: c.archive,
		Timing: Timing{ShrinkAfter: c.shrinkAfter, OpenGrace: 300 * time.Millisecond, Heartbeat: 20 * time.Millisecond,
			Timeout: 500 * time.Millisecond, Tick: 10 * time.Millisecond, Retention: 20 * time.Millisecond, Propose: time.Second,
			DropAfter: 200 * time.Millisecond, VetoRetry: 20 * time.Millisecond, Patience: testPatience},
	})
	if err != nil {
		c.t.Fatal(err)
	}
	n.rep.Attach(n.link)
	c.plane.mu.Lock()
	c.plane.leases[id], c.plane.alive[id] = true, true
	c.plane.mu.Unlock()
	c.must(fsm.Command{Renew: &fsm.Renew{Node: id, Directory: ident.DirectoryID("d-" + string(id)), Incarnation: n.life}})
	ctx, cancel := context.WithCancel(context.Background())
	n.cancel = cancel
	ln, err := h.Network.Listen(string(id))
	if err != nil {
		c.t.Fatal(err)
	}
	n.wg.Go(func() {
		if err := remote.Serve(ctx, ln, admitter{n.rep}, remote.ServeOptions{
			Cluster: testCluster, Self: id, Logger: log,
			Timeouts: remote.Timeouts{Heartbeat: 20 * time.Millisecond, Silent: 500 * time.Millisecond, Hello: time.Second},
		}); err != nil {
			c.t.Errorf("serve: %v", err)
		}
	})
	n.wg.Go(func() { n.play(ctx) })
	c.mu.Lock()
	c.nodes[id] = n
	c.mu.Unlock()
	return n
}

type admitter struct{ *Replica }

type testWriter struct {
	t    testing.TB
	mute *atomic.Bool
}

func (w testWriter) Write(b []byte) (int, error) {
	if !w.mute.Load() && testing.Verbose() {
		w.t.Log(strings.TrimSpace(string(b)))
	}
	return len(b), nil
}

var _ io.Writer = testWriter{}

func (n *node) heard(e Event) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.events = append(n.events, e)
}

// permit is Options.Veto.
func (n *node) permit(context.Context, Doomed) error {
	n.asked.Add(1)
	if err := n.veto.Load(); err != nil {
		return *err
	}
	return nil
}

// looks tells how often a node looked at its state.
func (c *cluster) looks(id ident.NodeID) int {
	c.plane.mu.Lock()
	defer c.plane.mu.Unlock()
	return c.plane.looks[id]
}

// goesOn waits until a node has looked at its state many times: each of its parts does so with every tick.
func (c *cluster) goesOn(id ident.NodeID) {
	c.t.Helper()
	n := c.looks(id)
	c.eventually(string(id)+" goes on", func() bool { return c.looks(id) > n+60 })
}

func (n *node) event(k EventKind) (Event, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for i := len(n.events) - 1; i >= 0; i-- {
		if n.events[i].Kind == k {
			return n.events[i], true
		}
	}
	return Event{}, false
}

// play holds the role sessions, and promises when it is due and the old primary's lease is over.
func (n *node) play(ctx context.Context) {
	var sessions sync.WaitGroup
	defer sessions.Wait()
	for ctx.Err() == nil {
		a, _ := n.link.Assignment()
		if a.Group == nil {
			_, changed := n.link.Assignment()
			select {
			case <-changed:
			case <-ctx.Done():
			case <-time.After(5 * time.Millisecond):
			}
			continue
		}
		session, cancel := context.WithCancel(ctx)
		ended := make(chan error, 1)
		primary := a.Group.Holds(n.id, n.life)
		epoch := a.Group.Epoch
		sessions.Go(func() {
			if primary {
				ended <- n.rep.RunPrimary(session, n.link)
			} else {
				ended <- n.rep.RunBackup(session, n.link)
			}
		})
		var err error
		for over := false; !over; {
			a, changed := n.link.Assignment()
			if a.Group.Holds(n.id, n.life) != primary || (primary && a.Group.Epoch != epoch) {
				cancel()
				err, over = <-ended, true
				break
			}
			n.promise(ctx, a)
			select {
			case err = <-ended:
				over = true
			case <-changed:
			case <-time.After(20 * time.Millisecond):
			case <-ctx.Done():
				cancel()
				err, over = <-ended, true
			}
		}
		cancel()
		if err != nil {
			var fatal *FatalError
			if errors.As(err, &fatal) {
				n.fatal.Store(&err)
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
}

func (n *node) promise(ctx context.Context, a fsm.Assignment) {
	if !a.PromiseDue() || n.silent.Load() {
		return
	}
	if n.c.plane.covered(a.Group.Epoch) {
		return
	}
	report, err := n.rep.Promise(ctx, a.Group.Epoch)
	if err != nil {
		return
	}
	report.Node, report.Incarnation, report.Epoch = n.id, n.life, a.Group.Epoch
	_, _ = n.link.Propose(ctx, fsm.Command{Promise: &fsm.Promise{Group: orders, Report: report}}) // tried again
}

// stop ends this life in an orderly way. What is not flushed stays on the disk as far as the store closes with it.
func (n *node) stop() {
	if n.stopped {
		return
	}
	n.stopped = true
	n.c.plane.mu.Lock()
	n.c.plane.alive[n.id], n.c.plane.leases[n.id] = false, false
	n.c.plane.mu.Unlock()
	n.cancel()
	n.wg.Wait()
	if err := n.rep.Close(); err != nil && n.fatal.Load() == nil && !n.mute.Load() {
		n.t.Errorf("close %s: %v", n.id, err)
	}
	if err := n.store.Close(); err != nil && !n.mute.Load() {
		n.t.Errorf("close store of %s: %v", n.id, err)
	}
	n.mute.Store(true)
}

// crash ends this life as a power cut does: kept is how much of what was not synced survives, in percent. Nothing that it
// does after the moment of the crash may be heard by anybody.
func (n *node) crash(kept int) {
	n.gone.Store(true)
	for id := range n.c.disks {
		if id != n.id && n.c.wires.severed(n.id, id, true) {
			defer n.c.wires.sever(n.id, id, false)
		}
	}
	n.c.plane.isolate(n.id, true)
	defer n.c.plane.isolate(n.id, false)
	clone := n.fs.(*vfs.MemFS).CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: kept, RNG: rand.New(rand.NewPCG(1, uint64(n.life)))})
	n.mute.Store(true)
	n.stop()
	n.c.disks[n.id] = clone
}

// failover fences the group at the present epoch and promotes a node once it has reported.
func (c *cluster) failover(to ident.NodeID, allowLoss bool) {
	c.t.Helper()
	g := c.plane.group()
	c.plane.lease(g.Primary, false)
	f := fsm.Fence{Group: orders, Epoch: g.Epoch, Force: true, Reason: "test", AllowLoss: allowLoss}
	if allowLoss {
		f.To = to
	}
	c.must(fsm.Command{Fence: &f})
	c.promote(to)
}

func (c *cluster) promote(to ident.NodeID) {
	c.t.Helper()
	c.eventually("everybody reports", func() bool {
		g := c.plane.group()
		for id, n := range c.nodes {
			if _, ok := g.ReportOf(id); !ok && !n.stopped && c.reaches(id) {
				return false
			}
		}
		return true
	})
	g := c.plane.group()
	c.plane.lease(to, true)
	c.must(fsm.Command{Promote: &fsm.Promote{Group: orders, Epoch: g.Epoch, To: to, Incarnation: c.nodes[to].life}})
}

func (c *cluster) reaches(id ident.NodeID) bool {
	c.plane.mu.Lock()
	defer c.plane.mu.Unlock()
	return c.plane.away[id] == nil
}

func (c *cluster) serves(id ident.NodeID) {
	c.t.Helper()
	c.eventually(string(id)+" serves", func() bool { return c.nodes[id].rep.Status().Serving })
}

// inSync waits until the set has exactly these members. Whoever was level first is a member; one who is not meant to be is
// taken out, so that the meant one can become it.
func (c *cluster) inSync(ids ...ident.NodeID) {
	c.t.Helper()
	slices.Sort(ids)
	c.eventually(fmt.Sprint("in-sync set ", ids), func() bool {
		g := c.plane.group()
		for _, n := range g.InSync {
			if n != g.Primary && g.Phase == fsm.PhaseOpened && !slices.Contains(ids, n) && len(g.InSync) >= len(ids) {
				c.plane.apply(fsm.Command{ChangeSet: &fsm.ChangeSet{Group: g.Spec.Name, Epoch: g.Epoch, Version: g.SetVersion, Remove: n, Reason: "the test wants another"}})
			}
		}
		return slices.Equal(g.InSync, ids)
	})
}

// keepInSync is inSync, and keeps the set as it is until the epoch ends: nobody falls out of it who stalls with the machine.
func (c *cluster) keepInSync(ids ...ident.NodeID) {
	c.t.Helper()
	for kept := false; !kept; {
		c.inSync(ids...)
		c.plane.mu.Lock()
		g := c.plane.state.Groups[orders]
		if kept = slices.Equal(g.InSync, ids); kept {
			c.plane.fixed = g.Epoch
		}
		c.plane.mu.Unlock()
	}
}

// switchover hands the role over and waits until the operation has ended. What is rolled back since it was not drained in time
// is asked for again: that is how a slow machine looks.
func (c *cluster) switchover(to ident.NodeID) {
	c.t.Helper()
	for deadline := time.Now().Add(patience); ; {
		g := c.plane.group()
		res := c.must(fsm.Command{StartSwitch: &fsm.StartSwitch{
			Group: orders, Epoch: g.Epoch, To: to, MaxPause: 5 * time.Second, Deadline: time.Now().Add(time.Minute), Reason: "test",
		}})
		c.eventually("the switch-over ends", func() bool { return c.plane.group().Operation == nil })
		if c.plane.group().Primary == to {
			break
		}
		op, _ := c.plane.operation(res.Operation)
		if op.State != fsm.OperationRolledBack || time.Now().After(deadline) {
			c.t.Fatalf("switch-over %+v: the primary is %s, not %s", op, c.plane.group().Primary, to)
		}
		c.t.Logf("asked for again: %+v", op)
	}
	c.serves(to)
}

func (n *node) put(key, value string) (Receipt, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return n.rep.Write(ctx, Transaction{Writes: []Write{{File: "f", Key: []byte(key), Value: []byte(value)}}})
}

func (n *node) mustPut(key, value string) Receipt {
	n.t.Helper()
	r, err := n.put(key, value)
	if err != nil {
		n.t.Fatalf("put %s at %s: %v", key, n.id, err)
	}
	return r
}

func (n *node) get(key string, local bool) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	image, _, err := n.rep.Read(ctx, "f", []byte(key), local)
	return string(image.Value), err
}

func (n *node) mustGet(key, want string, local bool) {
	n.t.Helper()
	got, err := n.get(key, local)
	if err != nil || got != want {
		n.t.Fatalf("get %s at %s: %q, %v; want %q", key, n.id, got, err, want)
	}
}

// level waits until the nodes have applied what the primary has, and compares the content at equal positions.
func (c *cluster) level(ids ...ident.NodeID) {
	c.t.Helper()
	digest := func(id ident.NodeID) store.Digest {
		d, err := c.nodes[id].rep.Digest(c.t.Context())
		if err != nil {
			c.t.Fatal(err)
		}
		return d
	}
	for _, id := range ids {
		c.eventually(string(id)+" is level", func() bool {
			want, got := digest(c.plane.group().Primary), digest(id)
			if got.Position == want.Position && got != want {
				c.t.Fatalf("content of %s: %+v, of the primary: %+v", id, got, want)
			}
			return got == want
		})
	}
}

// entries returns how often each value stands in the history, over all facts of all journals held, by position.
func (n *node) history() map[ident.Position]string {
	n.t.Helper()
	out := map[ident.Position]string{}
	table := n.c.plane.group().History
	for _, j := range n.rep.Journals() {
		v, _ := j.View()
		for seq := max(v.First, 1); seq <= v.Last; {
			b, err := j.BundleAt(seq)
			if err != nil {
				n.t.Fatal(err)
			}
			for e, err := range b.Entries() {
				if err != nil {
					n.t.Fatal(err)
				}
				if e.Code == entry.Record && table.Contains(e.Position) {
					s := string(e.Key)
					if e.After != nil {
						s += "=" + string(e.After.Value)
					}
					if old, ok := out[e.Position]; ok && old != s {
						n.t.Fatalf("%s means %q and %q", e.Position, old, s)
					}
					out[e.Position] = s
				}
			}
			seq = b.Last() + 1
		}
	}
	return out
}
