package nodesim

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/go-hclog"

	"github.com/understudy-ha/understudy/client"
	"github.com/understudy-ha/understudy/cmd/internal/node"
	"github.com/understudy-ha/understudy/internal/host"
	"github.com/understudy-ha/understudy/internal/ident"
)

// machine is one machine with its disks and clock. At most one life of its node runs on it; lives that have ended may still
// be on their way out, without network and with disks that nobody reads.
type machine struct {
	id     ident.NodeID
	ip     string
	world  *world
	config node.Config
	client *client.Client // speaks to this node only
	rate   float64        // of its boot clock
	step   atomic.Int64   // of its wall clock, nanoseconds

	mu      sync.Mutex
	rng     *rand.Rand
	booted  time.Time
	data    *vfs.MemFS
	raft    *raftDisk
	life    *life // nil: down
	lives   int
	wanted  bool  // the supervisor starts the node again when it fails
	failure error // why the last life ended by itself
}

// life is one run of the node's process.
type life struct {
	machine *machine
	number  int
	faults  *faults
	disk    *disk
	raft    *raftDisk
	dead    atomic.Bool
	cancel  context.CancelFunc // ends a start that is under way
	node    atomic.Pointer[node.Node]
	over    bool          // guarded by machine.mu: ended is closed
	ended   chan struct{} // closed when the life has to end
	gone    chan struct{} // closed when everything of it has ended
}

// clock is a machine's clock. It implements host.Clock.
type clock struct{ m *machine }

func (c clock) Now() time.Time { return time.Now().Add(time.Duration(c.m.step.Load())) }

func (c clock) Boot() time.Duration {
	c.m.mu.Lock()
	defer c.m.mu.Unlock()
	since := time.Since(c.m.booted)
	return time.Minute + time.Duration(float64(since)*c.m.rate)
}

func (m *machine) random() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	for {
		if v := m.rng.Uint64(); v != 0 {
			return v
		}
	}
}

// start begins a new life. The node opens in the background; ready tells when it answers.
func (m *machine) start() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.wanted = true
	if m.life != nil || m.world.closing.Load() {
		return
	}
	m.lives++
	f := newFaults(rand.New(rand.NewPCG(m.rng.Uint64(), 1)), m.world.effects)
	m.raft.faults = f
	l := &life{machine: m, number: m.lives, faults: f, disk: newDisk(m.data, f), raft: m.raft, ended: make(chan struct{}), gone: make(chan struct{})}
	m.life = l
	m.world.network.light(m.ip)
	ctx, cancel := context.WithCancel(context.Background())
	l.cancel = cancel
	m.world.work.Go(func() { l.run(ctx) })
}

// run opens the node, waits for its end, and closes it.
func (l *life) run(ctx context.Context) {
	defer close(l.gone)
	defer l.cancel()
	m := l.machine
	h := host.Host{
		Clock: clock{m}, Network: view{network: m.world.network, host: m.ip, dead: &l.dead}, Random: m.random,
		Failpoint: func(string) error { return nil },
		Trace:     func(event string, fields ...any) { m.world.trace(l, event, fields) },
	}
	v := h.Network.(view)
	log := hclog.New(&hclog.LoggerOptions{Name: fmt.Sprintf("%s.%d", m.id, l.number), Output: m.world.logs, Level: m.world.logLevel, TimeFn: time.Now})
	n, err := node.Open(ctx, node.Options{
		Config: m.config, FS: l.disk, Host: h, Timing: m.world.timing, Logger: log,
		Raft: l.raft, Gossip: v.bindGossip, MemTableBytes: 128 << 10,
	})
	if err != nil {
		m.world.note("%s.%d does not start: %v", m.id, l.number, err)
		m.failed(l)
		return
	}
	l.node.Store(n)
	select {
	case <-l.ended:
	case err := <-n.Failed():
		if !l.dead.Load() {
			m.world.note("%s.%d gives up: %v", m.id, l.number, err)
		}
		if m.failed(l) {
			m.mu.Lock()
			m.failure = err
			m.mu.Unlock()
		}
	}
	if err := n.Close(); err != nil && !l.dead.Load() {
		m.world.note("%s.%d closes: %v", m.id, l.number, err)
	}
	m.mu.Lock()
	if m.life == l { // a clean stop
		m.life = nil
	}
	m.mu.Unlock()
}

// failed is the end of a process by itself; the supervisor starts it again after a while.
func (m *machine) failed(l *life) bool {
	if !m.kill(l, lossNone) {
		return false // it was killed before
	}
	m.mu.Lock()
	again := m.wanted
	m.mu.Unlock()
	if again {
		m.world.after(500*time.Millisecond, m.startAgain)
	}
	return true
}

func (m *machine) startAgain() {
	m.mu.Lock()
	again := m.wanted && m.life == nil
	m.mu.Unlock()
	if again {
		m.start()
	}
}

// kill ends a life at this instant, with what the crash leaves on the disk. It is false when that life has ended already.
func (m *machine) kill(l *life, what loss) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if l == nil || m.life != l {
		return false
	}
	l.dead.Store(true)
	m.world.network.sever(m.ip, what != lossNone) // first: what is not on the wire yet never will be
	m.world.network.unlisten(m.ip)
	m.data = l.disk.crash(what, rand.New(rand.NewPCG(m.rng.Uint64(), 2)))
	m.raft = l.raft.crash(nil)
	l.faults.end()
	m.life = nil
	if what != lossNone {
		m.booted = time.Now()
	}
	l.finishLocked()
	return true
}

// finishLocked lets the life end, however far it is.
func (l *life) finishLocked() {
	if !l.over {
		l.over = true
		l.cancel()
		close(l.ended)
	}
}

// crash ends the node and leaves it down until start.
func (m *machine) crash(what loss) bool {
	m.mu.Lock()
	m.wanted = false
	l := m.life
	m.mu.Unlock()
	return m.kill(l, what)
}

// stop ends the node in good order and waits for that.
func (m *machine) stop() {
	m.mu.Lock()
	m.wanted = false
	l := m.life
	if l == nil {
		m.mu.Unlock()
		return
	}
	l.faults.heal()
	l.finishLocked()
	m.mu.Unlock()
	<-l.gone
}

func (m *machine) current() *life {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.life
}

// running returns the open node, nil when there is none.
func (m *machine) running() (*life, *node.Node) {
	l := m.current()
	if l == nil {
		return nil, nil
	}
	return l, l.node.Load()
}

// unlisten frees the addresses of a host, for its next life.
func (n *network) unlisten(host string) {
	n.mu.Lock()
	var mine []*listener
	for addr, l := range n.listeners {
		if h, _, err := net.SplitHostPort(addr); err == nil && h == host {
			mine = append(mine, l)
		}
	}
	for addr, g := range n.packets {
		if h, _, err := net.SplitHostPort(addr); err == nil && h == host {
			g.dead.Store(true)
			delete(n.packets, addr)
		}
	}
	n.mu.Unlock()
	for _, l := range mine {
		_ = l.Close() // its owner may have closed it
	}
}

// clientAt returns a client of the given addresses, which lives on a host of its own.
func (w *world) clientAt(host string, timeout time.Duration, addresses ...string) *client.Client {
	v := view{network: w.network, host: host, dead: new(atomic.Bool)}
	t := &http.Transport{MaxIdleConnsPerHost: 8, IdleConnTimeout: 30 * time.Second,
		DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) { return v.Dial(ctx, addr) }}
	w.transports = append(w.transports, t)
	return client.NewWith(client.Options{Addresses: addresses, Retry: -1, Timeout: timeout, Hedge: time.Minute, // late answers are of interest, too
		HTTPClient: &http.Client{Transport: t, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}})
}
