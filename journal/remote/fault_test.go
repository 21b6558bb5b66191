package remote

import (
	"context"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/understudy-ha/understudy/internal/host"
	"github.com/understudy-ha/understudy/journal"
	"github.com/understudy-ha/understudy/journal/remote/wire"
)

// brittle is a network whose connections break after so many bytes, in both directions together.
type brittle struct {
	budget func() int64 // of the next connection; negative: unbroken
	broken atomic.Int64
}

func (b *brittle) Listen(addr string) (net.Listener, error) { return net.Listen("tcp", addr) }

func (b *brittle) Dial(ctx context.Context, addr string) (net.Conn, error) {
	conn, err := host.Real().Network.Dial(ctx, addr)
	if err != nil {
		return nil, err
	}
	c := &brittleConn{Conn: conn, b: b}
	if c.left.Store(b.budget()); c.left.Load() < 0 {
		return conn, nil
	}
	return c, nil
}

type brittleConn struct {
	net.Conn
	b    *brittle
	left atomic.Int64
}

func (c *brittleConn) spend(n int) {
	if left := c.left.Add(-int64(n)); left <= 0 && left+int64(n) > 0 {
		c.b.broken.Add(1)
		_ = c.Conn.Close()
	}
}

func (c *brittleConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.spend(n)
	return n, err
}

func (c *brittleConn) Write(b []byte) (int, error) {
	if left := c.left.Load(); int64(len(b)) > left && left > 0 { // break within a frame
		n, _ := c.Conn.Write(b[:left])
		c.spend(n)
		return n, net.ErrClosed
	}
	n, err := c.Conn.Write(b)
	c.spend(n)
	return n, err
}

// Proves RJ-3 under broken connections: whatever the point at which a connection breaks, the copy goes on from there.
func TestReconnectAtRandomPoints(t *testing.T) {
	src, dst := newJournal(t), newJournal(t)
	random := rand.New(rand.NewPCG(1, 2))
	network := &brittle{budget: func() int64 { return 20 + random.Int64N(20<<10) }}
	s := newStage(dst)
	addr := s.serve(t)
	r := ship(t, src, addr, func(o *SourceOptions) { o.Network = network })
	for i := 0; network.broken.Load() < 40; i++ {
		src.deposit(5, 1, "v")
		if i%20 == 19 {
			src.change(1)
		}
		n := network.broken.Load()
		eventually(t, "acknowledged or broken", func() bool { return r.ack().Received == src.end() || network.broken.Load() != n })
	}
	r.stop(t)
	r = ship(t, src, addr, func(o *SourceOptions) { o.Life = 2 })
	r.caughtUp(t, src)
	sameFiles(t, src, dst)
	if len(s.asked) != 0 {
		t.Errorf("removal was asked for: %v", s.asked)
	}
}

// A target that promised a higher epoch takes nothing more from a session of an older one, not even a heartbeat.
func TestFencedInMidStream(t *testing.T) {
	src, dst := newJournal(t), newJournal(t)
	src.deposit(5, 1, "v")
	s := newStage(dst)
	r := ship(t, src, s.serve(t))
	r.caughtUp(t, src)
	end := dst.end()
	s.get(func() { s.promised = 2 }) // nobody is told
	src.deposit(20, 1, "late")
	got := r.refused(t, wire.CodeFenced)
	if !strings.Contains(got.Reason, "promised epoch 2") {
		t.Errorf("reason %q", got.Reason)
	}
	if dst.end() != end {
		t.Errorf("copy grew from %d to %d after the promise", end, dst.end())
	}
	eventually(t, "refused at hello as well", func() bool { var n int; s.get(func() { n = len(s.hellos) }); return n > 2 })
	if dst.end() != end {
		t.Error("copy grew after the promise")
	}
}

// An idle session is fenced by its next heartbeat.
func TestFencedWhileIdle(t *testing.T) {
	src, dst := newJournal(t), newJournal(t)
	src.deposit(5, 1, "v")
	s := newStage(dst)
	r := ship(t, src, s.serve(t))
	r.caughtUp(t, src)
	s.get(func() { s.promised = 2 })
	r.refused(t, wire.CodeFenced)
}

// A newer session of the same life takes the place of the older one, whatever that one still sends.
func TestSuperseded(t *testing.T) {
	src, dst := newJournal(t), newJournal(t)
	src.deposit(5, 1, "v")
	s := newStage(dst)
	addr := s.serve(t)
	old := ship(t, src, addr)
	old.caughtUp(t, src)
	s.get(func() { s.newest[1] = 100 }) // as if session 100 had been admitted
	end := dst.end()
	src.deposit(1, 1, "late")
	old.refused(t, wire.CodeSuperseded)
	if dst.end() != end {
		t.Error("a superseded session appended")
	}
	old.stop(t)
	sessions := new(atomic.Uint64)
	sessions.Store(100)
	r := ship(t, src, addr, func(o *SourceOptions) { o.Sessions = sessions })
	r.caughtUp(t, src)
	sameFiles(t, src, dst)
}

// hungDisk is a host whose syncs of the journal block while it is shut.
type hungDisk struct {
	mu     sync.Mutex
	gate   chan struct{} // closed: open
	isShut bool
}

func newHungDisk() *hungDisk { d := &hungDisk{gate: make(chan struct{})}; close(d.gate); return d }

func (d *hungDisk) host() host.Host {
	h := host.Real()
	h.Failpoint = func(name string) error {
		if strings.HasPrefix(name, "journal.sync") {
			d.mu.Lock()
			gate := d.gate
			d.mu.Unlock()
			<-gate
		}
		return nil
	}
	return h
}

func (d *hungDisk) shut() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.gate, d.isShut = make(chan struct{}), true
}

func (d *hungDisk) open() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.isShut {
		close(d.gate)
		d.isShut = false
	}
}

// A target whose disk hangs costs nobody else anything: the source appends on, another target is served, and what piles up
// at the slow one is bounded by the window, while its heartbeats keep the session.
func TestSlowTarget(t *testing.T) {
	const window = 256 << 10
	disk := newHungDisk()
	src, quick := newJournal(t), newJournal(t)
	slow := openJournal(t, vfs.NewMem(), disk.host())
	src.deposit(1, 1, "v")
	slowStage, quickStage := newStage(slow), newStage(quick)
	one := ship(t, src, slowStage.serve(t, func(o *ServeOptions) { o.Window = window }))
	other := ship(t, src, quickStage.serve(t))
	one.caughtUp(t, src)
	other.caughtUp(t, src)

	before, _ := slow.View()
	disk.shut()
	defer disk.open()         // whatever happens, or the journal cannot be closed
	src.deposit(4000, 1, "v") // about 1.5 MiB
	other.caughtUp(t, src)
	sameFiles(t, src, quick)
	stands := func() bool {
		s := one.state()
		return s.Sent > before.Last && s.Sent < src.end() && s.Phase == PhaseLive
	}
	eventually(t, "the slow target holds the window", stands)
	var sessions int
	slowStage.get(func() { sessions = len(slowStage.hellos) })
	held, _ := slow.View()
	var bytes int64
	if held.Last > before.Last {
		b, err := slow.BundleAt(held.Last)
		if err != nil {
			t.Fatal(err)
		}
		bytes = int64(held.Last-before.Last) / int64(b.Count) * int64(len(b.Raw))
	}
	if bytes == 0 || bytes > window+4<<10 {
		t.Errorf("the slow target holds %d bytes, want up to %d", bytes, window)
	}
	disk.open()
	one.caughtUp(t, src)
	sameFiles(t, src, slow)
	slowStage.get(func() {
		if len(slowStage.hellos) != sessions {
			t.Errorf("the slow target lost its session: %d hellos, %d before", len(slowStage.hellos), sessions)
		}
	})
}

// A source that limits itself to a small window still gets its credit back.
func TestSmallSourceWindow(t *testing.T) {
	src, dst := newJournal(t), newJournal(t)
	src.deposit(3000, 1, "v")
	s := newStage(dst)
	r := ship(t, src, s.serve(t), func(o *SourceOptions) { o.Window = 1 })
	r.caughtUp(t, src)
	sameFiles(t, src, dst)
}

// A window smaller than a bundle lets one bundle through at a time.
func TestTinyTargetWindow(t *testing.T) {
	src, dst := newJournal(t), newJournal(t)
	src.deposit(50, 1, "v")
	s := newStage(dst)
	r := ship(t, src, s.serve(t, func(o *ServeOptions) { o.Window = 1 }))
	r.caughtUp(t, src)
	sameFiles(t, src, dst)
}

// A copy whose disk failed refuses, and its source goes on trying.
func TestFailedCopy(t *testing.T) {
	var fail atomic.Bool
	h := host.Real()
	h.Failpoint = func(name string) error {
		if fail.Load() && strings.HasPrefix(name, "journal.sync") {
			return net.ErrClosed // any error
		}
		return nil
	}
	src, dst := newJournal(t), openJournal(t, vfs.NewMem(), h)
	src.deposit(1, 1, "v")
	s := newStage(dst)
	r := ship(t, src, s.serve(t))
	r.caughtUp(t, src)
	fail.Store(true)
	src.deposit(1, 1, "v")
	r.refused(t, wire.CodeFailed)
}

// A source sees that the target stops, and the target sees that the source ends.
func TestStopping(t *testing.T) {
	src, dst := newJournal(t), newJournal(t)
	src.deposit(1, 1, "v")
	s := newStage(dst)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- Serve(ctx, ln, s, ServeOptions{Cluster: cluster, Self: "b", Logger: logger(t), Timeouts: unhurried})
	}()
	r := ship(t, src, ln.Addr().String())
	r.caughtUp(t, src)
	cancel()
	r.refused(t, wire.CodeStopping)
	if err := <-done; err != nil {
		t.Error(err)
	}
	eventually(t, "dials in vain", func() bool { s := r.state(); return s.Phase == PhaseConnecting && s.Reason != "" })
}

func TestClosedJournalEndsTheSource(t *testing.T) {
	src, dst := newJournal(t), newJournal(t)
	src.deposit(1, 1, "v")
	s := newStage(dst)
	addr := s.serve(t)
	o := SourceOptions{
		Cluster: cluster, Self: "a", Target: "b", Life: 1, Epoch: 1, Journal: src.Journal, Author: true,
		Addr: func() string { return addr }, Network: host.Real().Network, Sessions: new(atomic.Uint64), Timeout: unhurried.Silent,
	}
	done := make(chan error, 1)
	go func() { done <- RunSource(context.Background(), o) }()
	eventually(t, "shipped", func() bool { return dst.end() == src.end() })
	if err := src.Close(); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-done:
		if err == nil || !strings.Contains(err.Error(), journal.ErrClosed.Error()) {
			t.Errorf("ended with %v", err)
		}
	case <-time.After(patience):
		t.Fatal("the source does not end")
	}
}

// pipes is a network of net.Pipe: every write waits for its read.
type pipes struct{ conns chan net.Conn }

func (p *pipes) Listen(string) (net.Listener, error) { return p, nil }
func (p *pipes) Dial(ctx context.Context, _ string) (net.Conn, error) {
	here, there := net.Pipe()
	select {
	case p.conns <- there:
		return here, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
func (p *pipes) Accept() (net.Conn, error) {
	c, ok := <-p.conns
	if !ok {
		return nil, net.ErrClosed
	}
	return c, nil
}
func (p *pipes) Close() error   { close(p.conns); return nil }
func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "pipe"} }

// No side needs the kernel's buffers to make progress.
func TestOverPipe(t *testing.T) {
	src, dst := newJournal(t), newJournal(t)
	src.deposit(300, 1, "v")
	p := &pipes{conns: make(chan net.Conn)}
	s := newStage(dst)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, p, s, ServeOptions{Cluster: cluster, Self: "b", Timeouts: unhurried}) }()
	r := ship(t, src, "pipe", func(o *SourceOptions) { o.Network = p })
	eventually(t, "live", func() bool { return r.state().Phase == PhaseLive })
	src.deposit(100, 1, "v")
	r.caughtUp(t, src)
	sameFiles(t, src, dst)
	r.stop(t)
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
