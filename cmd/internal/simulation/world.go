package simulation

import (
	"fmt"
	"math/rand/v2"
	"runtime/debug"
	"time"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
)

// Times of the simulated cluster. They are those of the product in proportion, shorter, so that a schedule holds more.
const (
	ms          = time.Millisecond
	lease       = 400 * ms
	margin      = ms
	renewEvery  = 100 * ms
	nodeTick    = 40 * ms
	raftTick    = 40 * ms
	managerTick = 40 * ms
	heartbeat   = 50 * ms
	shipTimeout = 300 * ms
	proposeFor  = 300 * ms
	shrinkAfter = 200 * ms
	openGrace   = 120 * ms
	reportsWait = 150 * ms
	takeover    = 3 * time.Second
	deadAfter   = 250 * ms
	maxPause    = 300 * ms
	healTime    = 25 * time.Second
)

// violation is a broken invariant; it ends a run.
type violation struct{ name, detail string }

// event is something that happens at a time.
type event struct {
	at  time.Duration
	seq uint64
	run func()
}

// world is one simulated cluster.
type world struct {
	seed  uint64
	rng   *rand.Rand
	now   time.Duration
	queue []event // heap by time, then by order of making
	seq   uint64
	ids   uint64
	trace trace

	nodes  []*node
	groups []ident.GroupName
	links  [][]link // from, to
	loss   float64  // of messages outside sessions, and of sessions' lives
	lag    time.Duration
	forged float64 // how often gossip lies
	faults time.Duration
	healed bool
	nested int

	released map[uint64]bool // commands that end a hold because its reader asked for it

	raft   raft
	oracle *oracle
	stats  Stats
}

// link is one direction between two nodes.
type link struct {
	cut   int // faults that cut it
	heard time.Duration
}

// Stats count what happened, so that a run in which nothing did can be told from one in which all went well.
type Stats struct {
	Seeds, Events                                                               uint64
	Acked, Unknown, Refused, Reads, LocalReads                                  uint64
	Crashes, Restarts, Pauses, Cuts, LostMessages, LostTails, TornTails         uint64
	Snapshots, LeaderChanges, LateCommits, SlowDisks, LostCommands              uint64
	Fences, Promotes, Opens, Handovers, Aborts, Shrinks, Grows, Forced, Loses   uint64
	Removals, Trims, Undos, Deleted, Rejournaled, Releases, Restores, LateLives uint64
	Drops, Readmits, ReadmitsRefused, Returns, ReturnedIn, DroppedForced        uint64 // Returns: level again after a readmission; ReturnedIn: in the set again
	HoldsSet, HoldsMoved, HoldsReleased, HoldsExpired, KeptForHolds             uint64
	ToAsync, ToSync, Respecs, RespecsRefused, FullWrites, FullCopies            uint64
	Leaves, Left                                                                uint64 // Left: taken out of a set before it stopped
	Buried                                                                      uint64 // forced failovers to nodes that were dropped
	Aheads, Brought, NotBrought, AheadsCut                                      uint64 // journals brought ahead; AheadsCut: their switch-over ended meanwhile
	AheadBundles, Waylaid                                                       uint64 // Waylaid: something was made to go wrong while a switch-over was prepared
}

// Result is the end of one run.
type Result struct {
	Seed      uint64
	Hash      uint64 // of the trace
	Violation string // "" when all oracles are content
	Oracle    string // the name of the broken invariant
	Tail      []string
	Stats     Stats
}

// Run plays the world of a seed to its end.
func Run(seed uint64) (res Result) {
	w := newWorld(seed)
	defer func() {
		if x := recover(); x != nil {
			v, ok := x.(violation)
			if !ok {
				v = violation{"panic", fmt.Sprintf("%v\n%s", x, debug.Stack())}
			}
			res = Result{Oracle: v.name, Violation: v.name + ": " + v.detail, Tail: w.trace.tail()}
		}
		res.Seed, res.Hash, res.Stats = seed, w.trace.hash, w.stats
		res.Stats.Seeds = 1
	}()
	w.begin()
	w.runUntil(w.faults)
	w.heal()
	w.converge()
	return Result{}
}

func newWorld(seed uint64) *world {
	w := &world{seed: seed, rng: rand.New(rand.NewPCG(seed, 0x5eed)), ids: 1000, released: map[uint64]bool{}}
	w.oracle = newOracle(w)
	return w
}

// fail ends the run with a broken invariant.
func (w *world) fail(name, format string, args ...any) {
	panic(violation{name, fmt.Sprintf("at %s: ", w.now) + fmt.Sprintf(format, args...)})
}

// chance is true with probability p.
func (w *world) chance(p float64) bool { return w.rng.Float64() < p }

// between picks a duration.
func (w *world) between(from, to time.Duration) time.Duration {
	return from + time.Duration(w.rng.Int64N(int64(to-from)+1))
}

func (w *world) id() uint64 { w.ids++; return w.ids }

// after makes something happen later.
func (w *world) after(d time.Duration, run func()) {
	w.seq++
	w.push(event{w.now + d, w.seq, run})
}

func before(a, b event) bool { return a.at < b.at || a.at == b.at && a.seq < b.seq }

func (w *world) push(e event) {
	q := append(w.queue, e)
	i := len(q) - 1
	for i > 0 {
		up := (i - 1) / 2
		if !before(q[i], q[up]) {
			break
		}
		q[i], q[up] = q[up], q[i]
		i = up
	}
	w.queue = q
}

func (w *world) pop() event {
	q := w.queue
	top := q[0]
	n := len(q) - 1
	q[0] = q[n]
	q[n] = event{}
	q = q[:n]
	for i := 0; ; {
		least := i
		for _, c := range [2]int{2*i + 1, 2*i + 2} {
			if c < n && before(q[c], q[least]) {
				least = c
			}
		}
		if least == i {
			break
		}
		q[i], q[least] = q[least], q[i]
		i = least
	}
	w.queue = q
	return top
}

// runUntil plays events up to a time.
func (w *world) runUntil(end time.Duration) {
	for len(w.queue) > 0 && w.queue[0].at <= end {
		e := w.pop()
		w.now = max(w.now, e.at)
		e.run()
		w.stats.Events++
		w.oracle.look()
	}
	w.now = max(w.now, end)
}

// begin makes the cluster and its schedule.
func (w *world) begin() {
	data := []int{3, 3, 3, 3, 2, 4, 5}[w.rng.IntN(7)]
	witness := 0
	if data == 2 || data == 4 && w.chance(0.5) {
		witness = 1
	}
	w.loss = []float64{0, 0, 0.01, 0.05}[w.rng.IntN(4)]
	w.lag = []time.Duration{2 * ms, 5 * ms, 20 * ms}[w.rng.IntN(3)]
	w.forged = []float64{0, 0, 0, 0.05}[w.rng.IntN(4)]
	for i := range data + witness {
		n := &node{w: w, i: i, id: ident.NodeID(rune('a' + i)), kind: fsm.KindData, disk: 1}
		if i >= data {
			n.kind = fsm.KindWitness
		}
		n.rate = []float64{1 - 0.001, 1, 1 + 0.001}[w.rng.IntN(3)]
		n.offset = time.Duration(w.rng.Int64N(int64(time.Hour)))
		if w.chance(0.2) {
			n.disk = 10
		}
		w.nodes = append(w.nodes, n)
	}
	w.links = make([][]link, len(w.nodes))
	for i := range w.links {
		w.links[i] = make([]link, len(w.nodes))
	}
	w.found()
	for _, n := range w.nodes {
		n.start()
	}
	w.after(raftTick, w.raftLoop)
	w.faults = w.between(1500*ms, 4500*ms)
	w.plan()
	w.clients()
}

// found writes the log of a new cluster: its nodes, their first renewals, its groups.
func (w *world) found() {
	w.raft.leader = -1
	w.raft.truth = new(fsm.State)
	cmds := []fsm.Command{{CreateCluster: &fsm.CreateCluster{Cluster: "sim", Name: "sim"}}}
	for _, n := range w.nodes {
		n.life = ident.Incarnation(w.id())
		cmds = append(cmds,
			fsm.Command{RegisterNode: &fsm.RegisterNode{ID: n.id, Directory: n.directory(), Kind: n.kind, Priority: w.rng.IntN(3)}},
			fsm.Command{Renew: &fsm.Renew{Node: n.id, Directory: n.directory(), Incarnation: n.life}})
	}
	groups := []int{1, 1, 1, 2}[w.rng.IntN(4)]
	for i := range groups {
		name := ident.GroupName(rune('p' + i))
		w.groups = append(w.groups, name)
		n := w.dataNode()
		spec := fsm.GroupSpec{
			Name: name, Order: i, Preferred: n.id, Secondaries: 1 + w.rng.IntN(2)*w.rng.IntN(2),
			OnNoSync: []string{fsm.NoSyncDegrade, fsm.NoSyncDegrade, fsm.NoSyncHold, fsm.NoSyncRefuse}[w.rng.IntN(4)],
		}
		if w.chance(0.12) {
			spec.Delivery = fsm.DeliveryAsync
		}
		if w.chance(0.08) {
			spec.AutoFailover = fsm.FailoverOff
		}
		if w.chance(0.5) {
			spec.KeepReceivers = 1
		}
		spec.ReceiverBytes = receiverBytes
		if w.chance(0.6) {
			w.bound(&spec)
		}
		if w.buries() {
			spec.KeepReceivers, spec.MaximumBlocks, spec.JournalFull = 1, 5, fsm.JournalFullDrop
		}
		cmds = append(cmds, fsm.Command{CreateGroup: &fsm.CreateGroup{Spec: spec.Normalize(), Incarnation: n.life}})
	}
	for _, c := range cmds {
		w.raft.append(w, c)
	}
}

// dataNode picks a node that holds data.
func (w *world) dataNode() *node {
	for {
		if n := w.nodes[w.rng.IntN(len(w.nodes))]; n.kind == fsm.KindData {
			return n
		}
	}
}

func (w *world) byID(id ident.NodeID) *node {
	if i := int(id[0] - 'a'); id != "" && i < len(w.nodes) {
		return w.nodes[i]
	}
	return nil
}

// reaches tells whether messages get from one node to another.
func (w *world) reaches(from, to *node) bool { return w.links[from.i][to.i].cut == 0 }

// send carries a message; it may get lost or come late, and finds nobody when the receiver is down.
func (w *world) send(from, to *node, run func()) {
	if from != to && (!w.reaches(from, to) || w.chance(w.loss)) {
		w.stats.LostMessages++
		return
	}
	d := w.between(ms/10, ms)
	if from == to {
		d = ms / 100
	} else if w.chance(0.1) {
		d = w.between(ms, 10*w.lag)
	}
	to.at(d, run)
	if from != to && w.loss > 0 && w.chance(w.loss) { // twice
		to.at(d+w.between(0, 10*w.lag), run)
	}
}
