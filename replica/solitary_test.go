package replica

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/go-hclog"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/host"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal/entry"
	"github.com/understudy-ha/understudy/replica/store"
)

// hermit is one life of a node with a copy for itself.
type hermit struct {
	t       *testing.T
	fs      vfs.FS
	store   *store.Store
	plane   *Solitary
	rep     *Replica
	cancel  context.CancelFunc
	wg      sync.WaitGroup
	over    error // of Run, once wg is through
	fail    sync.Map
	retries atomic.Int64
	stopped bool
}

const private = ident.GroupName("local")

func (h *hermit) options(life ident.Incarnation, spec fsm.GroupSpec) SolitaryOptions {
	return SolitaryOptions{FS: h.fs, Dir: "data/local", Cluster: testCluster, Node: "a", Directory: "d-a", Life: life, Group: private, Spec: spec, Clock: host.Real().Clock}
}

func startHermit(t *testing.T, fs vfs.FS, life ident.Incarnation, spec fsm.GroupSpec) *hermit {
	t.Helper()
	return startHermitWith(t, &hermit{t: t, fs: fs}, life, spec)
}

// startHermitWith begins a life whose failpoints may be set already.
func startHermitWith(t *testing.T, h *hermit, life ident.Incarnation, specs ...fsm.GroupSpec) *hermit {
	t.Helper()
	fs := h.fs
	var spec fsm.GroupSpec
	if len(specs) > 0 {
		spec = specs[0]
	}
	if spec.ReceiverBytes == 0 {
		spec.ReceiverBytes = 64 << 10
	}
	var err error
	if h.store, err = store.Open(store.Options{FS: fs, Dir: "store", Logger: hclog.NewNullLogger()}); err != nil {
		t.Fatal(err)
	}
	if h.plane, err = OpenSolitary(h.options(life, spec)); err != nil {
		t.Fatal(err)
	}
	machine := host.Real()
	machine.Network = nil // nobody is dialled
	machine.Failpoint = func(name string) error {
		if f, ok := h.fail.Load(name); ok {
			return f.(func() error)()
		}
		return nil
	}
	h.rep, err = Open(Options{Cluster: testCluster, Node: "a", Group: private, Life: life, FS: fs, Dir: "data/local", Store: h.store, Host: machine,
		ReceiverBytes: spec.ReceiverBytes, Timing: Timing{Tick: 10 * time.Millisecond, Retention: 20 * time.Millisecond, Propose: time.Second}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	h.cancel = cancel
	h.wg.Go(func() { h.over = h.plane.Run(ctx, h.rep, func(error) { h.retries.Add(1) }) })
	t.Cleanup(h.stop)
	return h
}

func (h *hermit) stop() {
	if h.stopped {
		return
	}
	h.stopped = true
	h.cancel()
	h.wg.Wait()
	_ = h.rep.Close()   // a crashed life cannot be tidy
	_ = h.store.Close() // as above
}

// crash ends the life as a power cut does and returns the disk that is left.
func (h *hermit) crash(kept int) vfs.FS {
	left := h.fs.(*vfs.MemFS).CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: kept, RNG: rand.New(rand.NewPCG(1, uint64(kept)))})
	h.stop()
	return left
}

func (h *hermit) put(key, value string) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for {
		_, err := h.rep.Write(ctx, Transaction{Writes: []Write{{File: "f", Key: []byte(key), Value: []byte(value)}}})
		if !errors.Is(err, ErrNotPrimary) || pause(ctx, time.Millisecond) != nil {
			return err
		}
	}
}

func (h *hermit) mustPut(key, value string) {
	h.t.Helper()
	if err := h.put(key, value); err != nil {
		h.t.Fatalf("put %s: %v", key, err)
	}
}

func (h *hermit) mustGet(key, want string) {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for {
		image, _, err := h.rep.Read(ctx, "f", []byte(key), false)
		if errors.Is(err, ErrNotPrimary) && pause(ctx, time.Millisecond) == nil {
			continue
		}
		if err != nil || string(image.Value) != want {
			h.t.Fatalf("get %s: %q, %v; want %q", key, image.Value, err, want)
		}
		return
	}
}

func (h *hermit) eventually(what string, ok func() bool) {
	h.t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			h.t.Fatalf("gave up waiting: %s: %+v", what, h.rep.Status())
		}
	}
}

// Proves HB-2, HB-3: a copy that one node has for itself takes writes with nobody else there, with conditions, programs, expiry and
// idempotency keys, and both images are journaled. Each life takes an epoch of its own and has what earlier ones had.
func TestSolitaryServesAlone(t *testing.T) {
	fs := vfs.NewCrashableMem()
	h := startHermit(t, fs, 1, fsm.GroupSpec{})
	h.mustPut("k", "1")
	h.mustPut("k", "2")
	ctx := t.Context()
	if _, err := h.rep.Write(ctx, Transaction{Writes: []Write{{File: "f", Key: []byte("k"), Value: []byte("x")}},
		Conditions: []Condition{{File: "f", Key: []byte("k"), Absent: true}}}); !errors.Is(err, ErrCondition) {
		t.Fatalf("a condition that does not hold: %v", err)
	}
	once := &Once{Key: "payment", Request: [32]byte{1}, Keep: time.Hour}
	first, err := h.rep.Write(ctx, Transaction{Once: once, Writes: []Write{{File: "f", Key: []byte("paid"), Value: []byte("1")}}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.rep.Write(ctx, Transaction{Program: func(v *View) error {
		return v.Put("f", []byte("soon"), entry.Image{Value: []byte("gone"), Expiry: v.Now() + int64(time.Millisecond)})
	}}); err != nil {
		t.Fatal(err)
	}
	h.eventually("a record expires", func() bool {
		_, _, err := h.rep.Read(ctx, "f", []byte("soon"), false)
		return errors.Is(err, ErrNotFound)
	})
	own, _ := h.rep.Journal("a")
	view, _ := own.View()
	var updates int
	for seq := view.First; seq <= view.Last; {
		b, err := own.BundleAt(seq)
		if err != nil {
			t.Fatal(err)
		}
		for e, err := range b.Entries() {
			if err != nil {
				t.Fatal(err)
			}
			if e.Code == entry.Record && string(e.Key) == "k" && e.Before != nil && e.After != nil && string(e.Before.Value) == "1" && string(e.After.Value) == "2" {
				updates++
			}
		}
		seq = b.Last() + 1
	}
	if updates != 1 {
		t.Fatalf("%d entries with both images of the update, want 1", updates)
	}
	if s := h.rep.Status(); s.Epoch != 1 || !s.Serving || len(s.Targets) != 0 {
		t.Fatalf("status: %+v", s)
	}
	h.stop()

	for life := ident.Incarnation(2); life < 5; life++ {
		h = startHermit(t, fs, life, fsm.GroupSpec{})
		h.mustGet("k", "2")
		if s := h.rep.Status(); s.Epoch != ident.Epoch(life) {
			t.Fatalf("life %d serves epoch %s", life, s.Epoch)
		}
		again, err := h.rep.Write(ctx, Transaction{Once: once, Writes: []Write{{File: "f", Key: []byte("paid"), Value: []byte("1")}}})
		if err != nil || !again.Replayed || again.Position != first.Position {
			t.Fatalf("the repeated request: %+v, %v", again, err)
		}
		h.stop()
	}
}

// Proves HB-2: nothing acknowledged is lost by a power cut, wherever the life before it stood on its way to serve.
func TestSolitaryCrashes(t *testing.T) {
	var fs vfs.FS = vfs.NewCrashableMem()
	acked := map[string]string{}
	life := ident.Incarnation(0)
	points := []string{"", "replica.promise:local", "replica.takeover:local", "replica.open:local", "journal.sync:local/a"}
	for round := range 3 * len(points) {
		life++
		h := startHermit(t, fs, life, fsm.GroupSpec{})
		for key, value := range acked {
			h.mustGet(key, value)
		}
		var wg sync.WaitGroup
		var mu sync.Mutex
		sure := map[string]string{}
		for w := range 4 {
			wg.Go(func() {
				for i := range 10 {
					key, value := fmt.Sprintf("k%d-%d-%d", round, w, i), fmt.Sprint("v", round)
					if h.put(key, value) == nil {
						mu.Lock()
						sure[key] = value
						mu.Unlock()
					}
				}
			})
		}
		wg.Wait()
		if len(sure) != 40 {
			t.Fatalf("round %d: %d of 40 writes were acknowledged", round, len(sure))
		}
		for k, v := range sure {
			acked[k] = v
		}
		kept := []int{0, 50, 100}[round%3]
		if fs = h.crash(kept); points[round%len(points)] == "" {
			continue
		}
		// One more life, which does not come further than the failpoint, and dies there.
		life++
		short := &hermit{t: t, fs: fs}
		reached := make(chan struct{}, 1)
		short.fail.Store(points[round%len(points)], func() error {
			select {
			case reached <- struct{}{}:
			default:
			}
			return errors.New("the power goes")
		})
		short = startHermitWith(t, short, life)
		select {
		case <-reached:
		case <-time.After(patience):
			t.Fatalf("%s was not reached", points[round%len(points)])
		}
		fs = short.crash(kept)
	}
}

// Proves HB-2: a journal that fails ends the part of this life for good, loudly; what was acknowledged can still be read, and the next
// life has it. A full disk is met by a refusal that says so.
func TestSolitaryJournalFails(t *testing.T) {
	fs := vfs.NewCrashableMem()
	h := startHermit(t, fs, 1, fsm.GroupSpec{})
	h.mustPut("k", "1")
	h.fail.Store("journal.sync:local/a", func() error { return &osError{syscall.EIO} })
	var unknown *UnknownOutcomeError
	if _, err := h.rep.Write(t.Context(), Transaction{Writes: []Write{{File: "f", Key: []byte("k"), Value: []byte("2")}}}); !errors.As(err, &unknown) {
		t.Fatalf("a write that is not on disk: %v", err)
	}
	h.wg.Wait()
	var fatal *FatalError
	if !errors.As(h.over, &fatal) || !strings.Contains(h.over.Error(), "restart the node") {
		t.Fatalf("it ended with %v", h.over)
	}
	if _, err := h.rep.Write(t.Context(), Transaction{Writes: []Write{{File: "f", Key: []byte("k"), Value: []byte("3")}}}); !errors.Is(err, ErrNotPrimary) {
		t.Fatalf("a write after the end: %v", err)
	}
	if image, _, err := h.rep.Read(t.Context(), "f", []byte("k"), true); err != nil || string(image.Value) != "1" {
		t.Fatalf("a read after the end: %q, %v", image.Value, err)
	}
	h = startHermit(t, h.crash(0), 2, fsm.GroupSpec{})
	h.mustGet("k", "1")
	h.mustPut("k", "3")
}

// brokenFS fails to make files of one name.
type brokenFS struct {
	vfs.FS
	name string
	err  atomic.Pointer[error]
}

func (b *brokenFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	if err := b.err.Load(); err != nil && strings.HasSuffix(name, b.name) {
		return nil, *err
	}
	return b.FS.Create(name, c)
}

// Proves HB-2: a control plane that finds no room tries again; one whose disk fails ends, and its session with it.
func TestSolitaryControlFails(t *testing.T) {
	for _, full := range []bool{true, false} {
		t.Run(fmt.Sprint("full=", full), func(t *testing.T) {
			fs := &brokenFS{FS: vfs.NewMem(), name: "control.tmp"}
			h := startHermit(t, fs, 1, fsm.GroupSpec{})
			h.mustPut("k", "1")
			h.stop()
			err := error(&osError{syscall.EIO})
			if full {
				err = &osError{syscall.ENOSPC}
			}
			h = &hermit{t: t, fs: fs}
			reached := make(chan struct{}, 1)
			h.fail.Store("replica.open:local", func() error {
				fs.err.Store(&err)
				select {
				case reached <- struct{}{}:
				default:
				}
				return nil
			})
			h = startHermitWith(t, h, 2)
			<-reached
			if !full {
				h.wg.Wait()
				var fatal *FatalError
				if !errors.As(h.over, &fatal) {
					t.Fatalf("it ended with %v", h.over)
				}
				return
			}
			h.fail.Delete("replica.open:local")
			fs.err.Store(nil)
			h.mustGet("k", "1")
			h.mustPut("k", "2")
		})
	}
}

// Proves HB-2: the control file is not guessed. Missing beside journals, damaged, or of another cluster or directory, it is an error, and
// nothing is changed.
func TestSolitaryControlFile(t *testing.T) {
	fs := vfs.NewMem()
	h := startHermit(t, fs, 1, fsm.GroupSpec{})
	h.mustPut("k", "1")
	h.stop()
	path := fs.PathJoin("data/local", solitaryFile)
	good, err := readFile(fs, path)
	if err != nil {
		t.Fatal(err)
	}
	// Each file is written from a copy: a memory file system with checks spoils the buffers that it is given.
	refused := func(what, want string, o SolitaryOptions) {
		t.Helper()
		if _, err := OpenSolitary(o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", what, err)
		}
	}
	o := h.options(2, fsm.GroupSpec{})
	for i := range good {
		bad := append([]byte(nil), good...)
		bad[i] ^= 0x20
		if i == 6 || i == 7 {
			continue // reserved
		}
		if err := replaceFile(fs, "data/local", solitaryFile, bad); err != nil {
			t.Fatal(err)
		}
		refused(fmt.Sprint("bit flipped in byte ", i), "damaged", o)
	}
	for _, n := range []int{0, 3, solitaryHeader, len(good) - 1} {
		if err := replaceFile(fs, "data/local", solitaryFile, bytes.Clone(good[:n])); err != nil {
			t.Fatal(err)
		}
		refused(fmt.Sprint("cut at ", n), "damaged", o)
	}
	if err := fs.Remove(path); err != nil {
		t.Fatal(err)
	}
	refused("missing", "is missing", o)
	if err := replaceFile(fs, "data/local", solitaryFile, bytes.Clone(good)); err != nil {
		t.Fatal(err)
	}
	other := o
	other.Cluster = "c2"
	refused("another cluster", "belongs to cluster", other)
	other = o
	other.Directory = "d-b"
	refused("another directory", "another data directory", other)
	other = o
	other.Node, other.Directory = "b", "d-b"
	refused("another node", "2 nodes", other)
	other = h.options(0, fsm.GroupSpec{})
	refused("no life", "incarnation", other)
	h = startHermit(t, fs, 2, fsm.GroupSpec{})
	h.mustGet("k", "1")
	h.stop()
	refused("an earlier life", "is over", h.options(1, fsm.GroupSpec{}))
}

// Proves HB-2: receivers go by the policy, since nobody else needs them; a new policy is taken over at the next start.
func TestSolitaryRetention(t *testing.T) {
	fs := vfs.NewMem()
	value := strings.Repeat("v", 8<<10)
	h := startHermit(t, fs, 1, fsm.GroupSpec{})
	for i := range 60 {
		h.mustPut(fmt.Sprint("k", i), value)
	}
	own, _ := h.rep.Journal("a")
	if n := len(own.Receivers()); n < 5 {
		t.Fatalf("%d receivers", n)
	}
	h.stop()
	h = startHermit(t, fs, 2, fsm.GroupSpec{KeepReceivers: 2})
	h.mustPut("more", "1")
	own, _ = h.rep.Journal("a")
	h.eventually("old receivers are deleted", func() bool { return len(own.Receivers()) == 3 })
	h.mustGet("k0", value)
}
