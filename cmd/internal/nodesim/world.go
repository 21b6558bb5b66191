package nodesim

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/go-hclog"

	"github.com/understudy-ha/understudy/client"
	"github.com/understudy-ha/understudy/cluster"
	"github.com/understudy-ha/understudy/cmd/internal/node"
	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
)

// group is the name of the one group of a simulated cluster.
const group = ident.GroupName("default")

// world is one simulated cluster with its machines, network and clients.
type world struct {
	seed     uint64
	rng      *rand.Rand // of the schedule's own goroutine
	began    time.Time
	network  *network
	effects  *effects
	machines []*machine
	timing   cluster.Timing
	operator *client.Client

	logs     *logBuffer
	logLevel hclog.Level

	work       sync.WaitGroup // lives and timers
	closing    atomic.Bool    // nothing starts any more
	transports []*http.Transport

	mu     sync.Mutex
	notes  []string
	traces *traces
}

// newWorld makes three machines; with witness set, the third holds no data.
func newWorld(seed uint64, witness bool) *world {
	rng := rand.New(rand.NewPCG(seed, 11))
	w := &world{seed: seed, rng: rng, began: time.Now(), effects: newEffects(), timing: cluster.DefaultTiming(), logs: &logBuffer{}, logLevel: hclog.Info, traces: newTraces()}
	w.network = newNetwork(rand.New(rand.NewPCG(seed, 12)), w.effects)
	spec := fsm.GroupSpec{Name: group, Files: []string{"*"}, ReceiverBytes: 64 << 10, KeepReceivers: 2}
	if !witness && rng.IntN(2) == 0 {
		spec.Secondaries = 2
	}
	var join []string
	for i, id := range []ident.NodeID{"a", "b", "c"} {
		m := &machine{id: id, ip: fmt.Sprintf("10.0.0.%d", i+1), world: w, rng: rand.New(rand.NewPCG(seed, uint64(100+i))), data: vfs.NewCrashableMem(), raft: newRaftDisk(nil), rate: 1}
		m.booted = w.began.Add(-time.Duration(rng.IntN(1000)) * time.Second)
		m.rate = 1 + (rng.Float64()*2-1)*0.0009 // within what leases allow for
		m.config = node.DefaultConfig()
		m.config.Node, m.config.Cluster, m.config.Data = id, "sim", "/"+string(id)
		m.config.Bootstrap, m.config.Priority = i == 0, 10*(i+1)
		m.config.Listen = node.Addresses{HTTP: m.ip + ":" + httpPort, Gossip: m.ip + ":" + gossipPort, Raft: m.ip + ":" + raftPort, Ship: m.ip + ":" + shipPort, Redis: m.ip + ":" + redisPort}
		m.config.Groups = []fsm.GroupSpec{spec}
		if witness && i == 2 {
			m.config.Kind = fsm.KindWitness
		}
		join = append(join, m.config.Listen.Raft)
		w.machines = append(w.machines, m)
	}
	for _, m := range w.machines {
		m.config.Join = join
		m.client = w.clientAt("10.0.1.1", 3*time.Second, m.config.Listen.HTTP)
	}
	w.operator = w.clientAt("10.0.1.2", 5*time.Second, w.addresses()...)
	return w
}

func (w *world) addresses() (out []string) {
	for _, m := range w.machines {
		out = append(out, m.config.Listen.HTTP)
	}
	return out
}

// data are the machines that hold records.
func (w *world) data() (out []*machine) {
	for _, m := range w.machines {
		if m.config.Kind == fsm.KindData {
			out = append(out, m)
		}
	}
	return out
}

// note writes down what happens, with the virtual time.
func (w *world) note(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.notes = append(w.notes, fmt.Sprintf("%9.3fs  ", time.Since(w.began).Seconds())+fmt.Sprintf(format, args...))
}

// after runs f later, unless the world ends before.
func (w *world) after(d time.Duration, f func()) {
	w.work.Go(func() {
		time.Sleep(d)
		f()
	})
}

// wait waits in virtual time until condition returns nil.
func (w *world) wait(what string, limit time.Duration, condition func() error) error {
	deadline := time.Now().Add(limit)
	for {
		err := condition()
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("waited %s until %s: %w", limit, what, err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// settled tells whether the group is open, with all data nodes level with it.
func (w *world) settled() error {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	var first client.Digest
	for _, m := range w.machines {
		if _, n := m.running(); n == nil {
			return fmt.Errorf("node %s is down", m.id)
		}
		st, err := m.client.Status(ctx)
		if err != nil {
			return fmt.Errorf("node %s: %w", m.id, err)
		}
		g, ok := st.Group(string(group))
		switch {
		case !ok:
			return errors.New("no group yet")
		case g.Phase != "opened" || g.Operation != nil:
			return fmt.Errorf("node %s: group is %s, operation %v", m.id, g.Phase, g.Operation)
		case g.Stale:
			return fmt.Errorf("node %s does not hear the primary", m.id)
		case len(g.InSync) < 1:
			return fmt.Errorf("node %s: no in-sync secondary", m.id)
		}
	}
	for i, m := range w.data() {
		d, err := m.client.Digest(ctx, string(group))
		switch {
		case err != nil:
			return fmt.Errorf("digest of %s: %w", m.id, err)
		case i == 0:
			first = d
		case d.Position != first.Position:
			return fmt.Errorf("%s is at %s, %s at %s", w.data()[0].id, first.Position, m.id, d.Position)
		}
	}
	return nil
}

// primary returns the machine of the present primary by what the nodes say, nil when none is known.
func (w *world) primary() *machine {
	var best *machine
	var epoch ident.Epoch
	for _, m := range w.machines {
		_, n := m.running()
		if n == nil {
			continue
		}
		st, _ := n.State()
		g := st.Groups[group]
		if g == nil || g.Epoch < epoch {
			continue
		}
		for _, p := range w.machines {
			if p.id == g.Primary {
				best, epoch = p, g.Epoch
			}
		}
	}
	return best
}

// leader returns the machine that leads Raft by its own belief, nil when none is known.
func (w *world) leader() *machine {
	for _, m := range w.machines {
		if _, n := m.running(); n != nil {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			st, err := m.client.LocalStatus(ctx)
			cancel()
			if err != nil {
				continue
			}
			for _, p := range w.machines {
				if string(p.id) == st.RaftLeader {
					return p
				}
			}
		}
	}
	return nil
}

// end stops everything that is left, so that the bubble can close.
func (w *world) end() {
	w.closing.Store(true)
	var stopping sync.WaitGroup
	for _, m := range w.machines {
		stopping.Go(func() { m.stop() })
	}
	stopping.Wait()
	for _, t := range w.transports {
		t.CloseIdleConnections()
	}
	w.work.Wait()
}

// logBuffer keeps the newest part of the nodes' logs.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

const maxLog = 4 << 20

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.b.Len() > maxLog {
		l.b.Next(maxLog / 2)
	}
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (w *world) history() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return strings.Join(w.notes, "\n") + "\n"
}
