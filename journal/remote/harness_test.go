package remote

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/go-hclog"
	"go.uber.org/goleak"

	"github.com/understudy-ha/understudy/internal/host"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal"
	"github.com/understudy-ha/understudy/journal/entry"
	"github.com/understudy-ha/understudy/journal/remote/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const cluster = ident.ClusterID("c1")

var ordersA = ident.JournalID{Group: "orders", Node: "a"}

// patience is how long a test waits for a condition before it gives up.
const patience = time.Minute

// unhurried are timeouts for tests that are not about them: a machine that stalls is no silent peer.
var unhurried = Timeouts{Silent: time.Minute, Hello: 30 * time.Second}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("gave up waiting: %s", what)
		}
	}
}

// paper is a journal on a file system of its own.
type paper struct {
	*journal.Journal
	t   *testing.T
	fs  vfs.FS
	dir string
}

const dir = "journals/orders/a"

func openJournal(t *testing.T, fs vfs.FS, h host.Host) *paper {
	t.Helper()
	j, err := journal.Open(journal.Options{FS: fs, Dir: dir, ID: ordersA, Cluster: cluster, RingBytes: 64 << 10, Host: h})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = j.Close() }) // some tests break the journal on purpose
	return &paper{Journal: j, t: t, fs: fs, dir: dir}
}

// onMachine opens a journal in a directory of the machine.
func onMachine(t *testing.T) *paper { t.Helper(); return onMachineOf(t, host.Real()) }

func onMachineOf(t *testing.T, h host.Host) *paper {
	t.Helper()
	p := &paper{t: t, fs: vfs.Default, dir: t.TempDir()}
	j, err := journal.Open(journal.Options{FS: p.fs, Dir: p.dir, ID: ordersA, Cluster: cluster, RingBytes: 64 << 10, Host: h})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = j.Close() }) // as above
	p.Journal = j
	return p
}

func newJournal(t *testing.T) *paper { t.Helper(); return openJournal(t, vfs.NewMem(), host.Real()) }

// deposit appends n bundles of two records each, of the given epoch; value makes them differ from others.
func (p *paper) deposit(n int, epoch ident.Epoch, value string) {
	p.t.Helper()
	if p.State() != journal.Active {
		if err := p.SetState(journal.Active); err != nil {
			p.t.Fatal(err)
		}
	}
	for range n {
		view, _ := p.View()
		record := func(key string) entry.Entry {
			return entry.Entry{
				Code: entry.Record, Type: entry.Put, File: "f", Key: []byte(key),
				After: &entry.Image{Value: []byte(value + strings.Repeat(".", 100))},
			}
		}
		_, err := p.Deposit(journal.Draft{
			Entries: []entry.Entry{record(fmt.Sprint(view.Last)), record("x")}, Session: epoch, Before: view.After, FactEpoch: epoch,
		})
		if err != nil {
			p.t.Fatal(err)
		}
	}
}

func (p *paper) change(epoch ident.Epoch) {
	p.t.Helper()
	if _, err := p.ChangeReceiver(epoch); err != nil {
		p.t.Fatal(err)
	}
}

func (p *paper) end() ident.Sequence { v, _ := p.View(); return v.Last }

func (p *paper) durable() {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := p.WaitDurable(ctx, p.end()); err != nil {
		p.t.Fatal(err)
	}
}

// files returns the receivers without the zeros behind their last bundle.
func (p *paper) files() map[string][]byte {
	p.t.Helper()
	names, err := p.fs.List(p.dir)
	if err != nil {
		p.t.Fatal(err)
	}
	out := map[string][]byte{}
	for _, name := range names {
		if !strings.HasSuffix(name, ".rcv") {
			continue
		}
		f, err := p.fs.Open(p.fs.PathJoin(p.dir, name))
		if err != nil {
			p.t.Fatal(err)
		}
		b, err := io.ReadAll(f)
		if err = errors.Join(err, f.Close()); err != nil {
			p.t.Fatal(err)
		}
		out[name] = bytes.TrimRight(b, "\x00")
	}
	return out
}

// fill makes the target's journal a copy by means of its own: what src has, bundle for bundle.
func (p *paper) fill(src *paper, upTo ident.Sequence) {
	p.t.Helper()
	r, err := src.Reader(1)
	if err != nil {
		p.t.Fatal(err)
	}
	defer r.Close()
	for {
		item, ok, err := r.TryNext()
		if err != nil {
			p.t.Fatal(err)
		}
		if !ok || item.ReceiverHeader == nil && item.Header.Last() > upTo {
			p.durable()
			return
		}
		if item.ReceiverHeader != nil {
			err = p.BeginReceiver(item.ReceiverHeader)
		} else {
			_, err = p.AppendRaw(item.Raw)
		}
		if err != nil {
			p.t.Fatal(err)
		}
	}
}

func sameFiles(t *testing.T, a, b *paper) {
	t.Helper()
	a.durable()
	b.durable()
	fa, fb := a.files(), b.files()
	if len(fa) != len(fb) || len(fa) == 0 {
		t.Fatalf("%d receivers here, %d there", len(fa), len(fb))
	}
	for name := range fa {
		if !bytes.Equal(fa[name], fb[name]) {
			t.Errorf("receiver %s differs: %d and %d bytes", name, len(fa[name]), len(fb[name]))
		}
	}
}

// stage is a Host with one copy and simple rules.
type stage struct {
	copy *paper

	mu        sync.Mutex
	promised  ident.Epoch
	newest    map[ident.Incarnation]uint64
	removable error            // nil: allowed
	refused   error            // Admit says so
	asked     []ident.Sequence // by Removable
	cleared   []ident.Sequence // by Clearable: the common ends
	hellos    []wire.Hello
	progress  []wire.Progress
	level     ident.Position // as said last
	asOf      time.Time
	held      ident.Position
	changed   chan struct{}
	open      int
}

func newStage(copy *paper) *stage {
	return &stage{copy: copy, newest: map[ident.Incarnation]uint64{}, changed: make(chan struct{})}
}

func (s *stage) Admit(_ context.Context, h wire.Hello) (Admission, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hellos = append(s.hellos, h)
	switch {
	case s.refused != nil:
		return nil, s.refused
	case h.Journal != ordersA:
		return nil, &Refusal{wire.CodeGroup, "no such group"}
	case h.Epoch < s.promised:
		return nil, &FencedError{Have: s.promised, Want: h.Epoch}
	case h.Session <= s.newest[h.Life]:
		return nil, &FencedError{Have: h.Epoch, Want: h.Epoch}
	}
	s.newest[h.Life] = h.Session
	s.open++
	return &pass{s, h}, nil
}

func (s *stage) set(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *stage) get(read func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	read()
}

// pass is an Admission of a stage.
type pass struct {
	s *stage
	h wire.Hello
}

func (p *pass) Journal() *journal.Journal { return p.s.copy.Journal }

func (p *pass) Enter() (func(), error) {
	p.s.mu.Lock()
	if p.h.Epoch < p.s.promised || p.h.Session < p.s.newest[p.h.Life] {
		defer p.s.mu.Unlock()
		return nil, &FencedError{Have: max(p.s.promised, p.h.Epoch), Want: p.h.Epoch}
	}
	return p.s.mu.Unlock, nil
}

func (p *pass) Clearable(_, common ident.Sequence, _ wire.Hello) error { // as Removable
	p.s.cleared = append(p.s.cleared, common)
	return p.s.removable
}

func (p *pass) Removable(after ident.Sequence, _ wire.Hello) error { // between Enter and leave: mu is held
	p.s.asked = append(p.s.asked, after)
	return p.s.removable
}

func (p *pass) Progress(m wire.Progress) {
	p.s.mu.Lock()
	defer p.s.mu.Unlock()
	p.s.progress = append(p.s.progress, m)
}

func (p *pass) Level(at ident.Position, asOf time.Time) {
	p.s.mu.Lock()
	defer p.s.mu.Unlock()
	p.s.level, p.s.asOf = at, asOf
}

func (p *pass) Held() (held, applied ident.Position, changed <-chan struct{}) { // between Enter and leave
	return p.s.held, p.s.held, p.s.changed
}

func (p *pass) Close() { p.s.set(func() { p.s.open-- }) }

// serve runs Serve on loopback until the test ends and returns its address.
func (s *stage) serve(t *testing.T, change ...func(*ServeOptions)) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	o := ServeOptions{Cluster: cluster, Self: "b", Logger: logger(t), Timeouts: unhurried}
	for _, c := range change {
		c(&o)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, ln, s, o) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
		s.get(func() {
			if s.open != 0 {
				t.Errorf("%d admissions were not closed", s.open)
			}
		})
	})
	return ln.Addr().String()
}

func logger(t *testing.T) hclog.Logger {
	if !testing.Verbose() {
		return nil
	}
	return hclog.New(&hclog.LoggerOptions{Level: hclog.Debug, Output: t.Output()})
}

// run is a source in a test.
type run struct {
	cancel context.CancelFunc
	done   chan error

	mu     sync.Mutex
	acks   []wire.Ack
	states []SessionState
	begun  int
}

func (r *run) ack() (a wire.Ack) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.acks) > 0 {
		a = r.acks[len(r.acks)-1]
	}
	return a
}

func (r *run) state() (s SessionState) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.states) > 0 {
		s = r.states[len(r.states)-1]
	}
	return s
}

func (r *run) phases() (out []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.states {
		out = append(out, s.Phase)
	}
	return slices.Compact(out)
}

func (r *run) stop(t *testing.T) {
	t.Helper()
	r.cancel()
	select {
	case err := <-r.done:
		if err != nil {
			t.Errorf("source: %v", err)
		}
		r.done <- nil
	case <-time.After(patience):
		t.Fatal("the source does not end")
	}
}

// ship runs a source of src until the test ends.
func ship(t *testing.T, src *paper, addr string, change ...func(*SourceOptions)) *run {
	t.Helper()
	r := &run{done: make(chan error, 2)}
	o := SourceOptions{
		Cluster: cluster, Self: "a", Target: "b", Life: 1, Epoch: 1, Journal: src.Journal, Author: true,
		Leads: func() bool { return true }, Addr: func() string { return addr }, Network: host.Real().Network, Logger: logger(t), Sessions: new(atomic.Uint64),
		Timeout:   unhurried.Silent,
		OnSession: func() { r.mu.Lock(); defer r.mu.Unlock(); r.acks, r.begun = nil, r.begun+1 },
		OnAck:     func(a wire.Ack) { r.mu.Lock(); defer r.mu.Unlock(); r.acks = append(r.acks, a) },
		OnState:   func(s SessionState) { r.mu.Lock(); defer r.mu.Unlock(); r.states = append(r.states, s) },
	}
	for _, c := range change {
		c(&o)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r.cancel = cancel
	go func() { r.done <- RunSource(ctx, o) }()
	t.Cleanup(func() { r.stop(t) })
	return r
}

// caughtUp waits until the target has acknowledged everything as durable.
func (r *run) caughtUp(t *testing.T, src *paper) {
	t.Helper()
	eventually(t, "the target has everything durable", func() bool { return r.ack().Durable == src.end() && src.end() > 0 })
}

// refused waits until the target refused with the given code.
func (r *run) refused(t *testing.T, code wire.Code) SessionState {
	t.Helper()
	var found SessionState
	eventually(t, "refused with "+code.String(), func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, s := range r.states {
			if s.Phase == PhaseRefused && s.Code == code.String() {
				found = s
				return true
			}
		}
		return false
	})
	return found
}
