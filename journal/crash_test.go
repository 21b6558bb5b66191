package journal

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal/entry"
)

var crashRounds = flag.Uint64("crash.rounds", 1, "how often TestCrashAnywhere crashes everywhere")

// branch is what a journal held between two removals.
type branch struct {
	bundles []entry.Bundle // from sequence 1 on, also what was deleted with its receiver
}

// image is what a disk may look like after a crash.
type image struct {
	name    string
	fs      *vfs.MemFS
	percent int            // of what was written but not synced
	branch  int            // that was being written
	from    int            // during a removal: the branch before, else the same
	durable ident.Sequence // published as durable before the crash
	active  bool           // SetState had returned
}

// crasher takes images of a disk before every operation that changes it.
type crasher struct {
	fs       *vfs.MemFS
	rng      *rand.Rand
	percents []int

	mu       sync.Mutex
	journal  *Journal // nil: Open has not returned
	current  image    // what is known at present
	branches []branch
	images   []image
}

func (c *crasher) MaybeError(op errorfs.Op) error {
	if op.Kind.ReadOrWrite() == errorfs.OpIsRead {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.current
	if c.journal != nil {
		now.durable = c.journal.published.Load().view.Durable
	}
	for _, percent := range c.percents {
		now.name = fmt.Sprintf("%d: %d%% before %v of %s at %d", len(c.images), percent, op.Kind, op.Path, op.Offset)
		now.percent = percent
		now.fs = c.fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: c.rng})
		c.images = append(c.images, now)
	}
	return nil
}

// taken returns the images so far; what goes on in the background may add some.
func (c *crasher) taken() []image {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.images)
}

func (c *crasher) String() string { return "crasher" }

func (c *crasher) set(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f()
}

// learn notes what was appended to the present branch.
func (c *crasher) learn(t testing.TB, j *Journal) {
	v, _ := j.View()
	b := &c.branches[len(c.branches)-1]
	next := ident.Sequence(1)
	if n := len(b.bundles); n > 0 {
		next = b.bundles[n-1].Last() + 1
	}
	for next <= v.Last {
		bundle, err := j.BundleAt(next)
		must(t, err)
		c.set(func() { b.bundles = append(b.bundles, bundle) })
		next = bundle.Last() + 1
	}
}

// rewind removes the end of the journal. From the start of the call both branches are possible, at its end only the new one.
func (c *crasher) rewind(t testing.TB, j *Journal, last ident.Sequence) {
	c.learn(t, j)
	c.set(func() {
		var kept branch
		for _, b := range c.branches[len(c.branches)-1].bundles {
			if b.Last() <= last {
				kept.bundles = append(kept.bundles, b)
			}
		}
		c.branches = append(c.branches, kept)
		c.current.branch++
	})
	must(t, j.Rewind(last))
	c.set(func() { c.current.from = c.current.branch })
}

// work is a journal's life: batches of many bundles, changes of receivers, removals, deletion of receivers, restarts.
func work(t testing.TB, c *crasher, o Options) {
	var gate sync.RWMutex // held while bundles gather for one batch
	o.Host.Failpoint = func(string) error {
		gate.RLock()
		defer gate.RUnlock()
		return nil
	}
	var j *Journal
	restart := func() {
		if j != nil {
			c.learn(t, j)
			must(t, j.Close())
		}
		c.set(func() { c.journal = nil })
		next, err := Open(o)
		must(t, err)
		j = next
		c.set(func() { c.journal = j; c.current.durable = 0 })
	}
	batch := func(e uint64, n, size int, before ...ident.Position) {
		gate.Lock()
		for i := range n {
			deposit(t, j, e, 1+i%2, size, before...)
			before = nil
		}
		c.learn(t, j)
		gate.Unlock()
		flush(t, j)
	}
	restart()
	must(t, j.SetState(Active))
	c.set(func() { c.current.active = true })
	spared := func() { // so many that changes find them
		if o.SpareBytes > 0 {
			until(t, j, "spares", func(s Space) bool { return s.Spare >= o.SpareBytes })
		}
	}
	batch(1, 8, 1500)
	spared()
	batch(1, 3, 9000)
	_, err := j.ChangeReceiver(1)
	must(t, err)
	batch(1, 6, 700)
	end := c.branches[0].bundles[14]
	c.rewind(t, j, end.Last()) // within the second receiver, or the first
	batch(2, 5, 2000)
	batch(2, 12, 6000) // receivers change by size
	c.learn(t, j)
	bundles := c.branches[1].bundles
	c.rewind(t, j, bundles[4].Last()) // receivers go
	batch(3, 1, 10, bundles[3].After())
	spared()
	_, err = j.ChangeReceiver(3)
	must(t, err)
	batch(3, 4, 10)
	restart()
	spared()
	must(t, j.DeleteReceivers(1))
	batch(3, 4, 5000)
	restart()
	batch(4, 2, 10)
	if o.SpareBytes > 0 { // they go
		j.SetLimits(Limits{ReceiverBytes: o.ReceiverBytes, SpareBytes: -1})
		until(t, j, "no spares", func(s Space) bool { return s.Spare == 0 })
	}
	c.learn(t, j)
	must(t, j.Close())
}

// check opens the disk after a crash. The journal must hold a beginning of the branch that was written, with everything that
// was durable, or during a removal what was there before, and must go on from there.
func check(t testing.TB, branches []branch, i image, o Options) {
	j, err := Open(o)
	if err != nil {
		t.Errorf("%s: %v", i.name, err)
		return
	}
	defer j.Close()
	v, _ := j.View()
	fail := func(format string, args ...any) {
		t.Helper()
		t.Errorf("%s (branch %d, durable %s): %s\n%+v", i.name, i.branch, i.durable, fmt.Sprintf(format, args...), v)
	}
	if v.Torn && (i.percent == 0 || i.percent == 100) {
		fail("torn, although all or nothing of the unsynced bytes is there")
	}
	if i.active && j.State() != Active {
		fail("state %s", j.State())
	}
	err = errors.New("no branch")
	for b := i.from; b <= i.branch && err != nil; b++ {
		err = isBeginning(j, branches[b].bundles, i.durable)
	}
	if err != nil {
		fail("%v", err)
		return
	}
	if j.State() != Active {
		must(t, j.SetState(Active))
	}
	deposit(t, j, 9, 1, 10)
	deposit(t, j, 9, 2, 3000)
	want := flush(t, j)
	must(t, j.Close())
	j, err = Open(o)
	if err != nil {
		fail("reopened: %v", err)
		return
	}
	defer j.Close()
	if v, _ = j.View(); v.Last != want.Last || v.Chain != want.Chain || v.Durable != want.Last {
		fail("reopened, want %+v", want)
	}
	if err := j.Verify(context.Background()); err != nil {
		fail("%v", err)
	}
	if o.SpareBytes <= 0 {
		return
	}
	// What the crash left of spares was found, and is whole.
	s := until(t, j, "spares", func(s Space) bool { return s.Spare >= o.SpareBytes })
	must(t, j.Close())
	var bytes int64
	for _, name := range list(t, o.FS, spareSuffix) {
		b := readFile(t, o.FS, testDir+"/"+name)
		if bytes += int64(len(b)); !allZero(b) {
			fail("spare %s does not hold zeros", name)
		}
	}
	if bytes < s.Spare { // what is too much goes later
		fail("spares of %d bytes on disk, %d known", bytes, s.Spare)
	}
}

func isBeginning(j *Journal, bundles []entry.Bundle, durable ident.Sequence) error {
	v, _ := j.View()
	if v.Last < durable {
		return fmt.Errorf("ends at %s", v.Last)
	}
	for _, b := range bundles {
		if b.First < v.First || b.First > v.Last {
			continue
		}
		got, err := j.BundleAt(b.First)
		if err != nil {
			return err
		}
		if !bytes.Equal(got.Raw, b.Raw) {
			return fmt.Errorf("another bundle at %s", b.First)
		}
	}
	if n := len(bundles); n > 0 && v.Last > bundles[n-1].Last() {
		return fmt.Errorf("more than was appended: %s", v.Last)
	}
	return nil
}

// Proves RJ-9 for the journal. A crash before any operation that changes the disk, with any part of the unsynced bytes, leaves
// everything that was published as durable and nothing that was never written. So does a crash while Open mends the first one.
// With receivers made ahead that holds for every point of making, taking and deleting one.
func TestCrashAnywhere(t *testing.T) {
	t.Run("no spares", func(t *testing.T) { crashAnywhere(t, -1) })
	t.Run("spares", func(t *testing.T) { crashAnywhere(t, 1) })
}

func crashAnywhere(t *testing.T, spares int64) {
	images, torn := 0, 0
	for seed := range *crashRounds {
		c := &crasher{fs: vfs.NewCrashableMem(), rng: rand.New(rand.NewPCG(seed, 7)), percents: []int{0, 30, 60, 90, 100}, branches: make([]branch, 1)}
		o := options(errorfs.Wrap(c.fs, c))
		o.SpareBytes = spares * o.ReceiverBytes
		work(t, c, o)
		images += len(c.images)
		for _, i := range c.images {
			again := &crasher{fs: i.fs, rng: c.rng, percents: []int{0, 60}, current: i}
			o.FS = errorfs.Wrap(i.fs, again)
			j, err := Open(o)
			if err != nil {
				t.Fatalf("seed %d, %s: %v", seed, i.name, err)
			}
			if v, _ := j.View(); v.Torn {
				torn++
			}
			for _, second := range again.taken() {
				second.name = i.name + ", and " + second.name
				if i.percent != 0 && i.percent != 100 {
					second.percent = 50 // may be torn by the first crash
				}
				o.FS = second.fs
				check(t, c.branches, second, o)
			}
			must(t, j.Close())
			o.FS = i.fs
			check(t, c.branches, i, o)
			if t.Failed() {
				t.Fatalf("seed %d", seed)
			}
		}
	}
	t.Logf("%d images, %d torn", images, torn)
	if torn == 0 {
		t.Error("no tail was torn: the test does not test")
	}
}

// Proves reliability rule S18: after any failed write or sync nothing more is acknowledged, and what was is there after a
// restart.
func TestEveryWriteFailsOnce(t *testing.T) {
	failed := 0
	for index := int32(0); ; index++ {
		fs := vfs.NewMem()
		injector := errorfs.OnIndex(index)
		writes := errorfs.InjectorFunc(func(op errorfs.Op) error {
			if op.Kind.ReadOrWrite() == errorfs.OpIsRead || op.Kind == errorfs.OpFileClose {
				return nil
			}
			return injector.MaybeError(op)
		})
		o := options(errorfs.Wrap(fs, writes))
		o.SpareBytes = int64(index%2) * o.ReceiverBytes
		durable, err := hurry(t, o)
		if err == nil {
			break
		}
		failed++
		if !errors.Is(err, errorfs.ErrInjected) {
			t.Fatalf("write %d: %v", index, err)
		}
		j, err := Open(options(fs))
		if err != nil {
			t.Fatalf("write %d, restart: %v", index, err)
		}
		for _, b := range durable {
			if got, err := j.BundleAt(b.First); err != nil || !bytes.Equal(got.Raw, b.Raw) {
				t.Fatalf("write %d: bundle at %s after the restart: %v", index, b.First, err)
			}
		}
		must(t, j.Verify(context.Background()))
		must(t, j.Close())
	}
	if failed < 40 {
		t.Errorf("only %d writes", failed)
	}
}

// hurry works with a journal until something fails. It returns what was durable, and the error.
func hurry(t *testing.T, o Options) (durable []entry.Bundle, err error) {
	j, err := Open(o)
	if err != nil {
		return nil, err
	}
	defer func() {
		closed := j.Close()
		if err == nil {
			err = closed
		}
		if v, _ := j.View(); v.Err != nil && !errors.Is(closed, ErrFailed) {
			t.Errorf("closed with %v after %v", closed, v.Err)
		}
	}()
	if err := j.SetState(Active); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	for i := range 24 {
		v, _ := j.View()
		h, err := j.Deposit(Draft{Entries: changes(1, 4000), Session: 1, Before: v.After, FactEpoch: 1})
		if err == nil {
			err = j.WaitDurable(ctx, h.Last())
		}
		if err == nil {
			var b entry.Bundle
			if b, err = j.BundleAt(h.First); err == nil {
				durable = append(durable, b)
			}
		}
		if err == nil && i == 12 {
			_, err = j.ChangeReceiver(1)
		}
		if err == nil && i == 20 {
			last := durable[len(durable)-4].Last()
			durable = durable[:len(durable)-3]
			err = j.Rewind(last)
		}
		if err != nil {
			if _, again := j.Deposit(Draft{Entries: changes(1, 1), FactEpoch: 1}); !errors.Is(again, ErrFailed) {
				t.Errorf("after %v a deposit says %v", err, again)
			}
			if v, _ := j.View(); !errors.Is(v.Err, ErrFailed) {
				t.Errorf("after %v the view says %v", err, v.Err)
			}
			r, err2 := j.Reader(0)
			for ; err2 == nil; _, err2 = r.Next(ctx) {
			}
			if !errors.Is(err2, ErrFailed) {
				t.Errorf("a reader says %v", err2)
			}
			if r != nil {
				r.Close()
			}
			return durable, err
		}
	}
	if err := j.DeleteReceivers(1); err != nil {
		return nil, err
	}
	return nil, j.SetState(Standby)
}

// A killed process leaves bytes that were written and not synced. When they are found they count as durable, so they must be.
func TestOpenSyncsWhatItFinds(t *testing.T) {
	fs := vfs.NewCrashableMem()
	o := options(fs)
	j := active(t, o)
	flush(t, j)
	killed, deposited := errors.New("killed"), make(chan struct{})
	o.Host.Failpoint = func(name string) error {
		if name == "journal.sync:orders/a" {
			<-deposited
			return killed
		}
		return nil
	}
	j = reopen(t, j, o)
	h := deposit(t, j, 1, 3, 100)
	close(deposited)
	if err := j.Close(); !errors.Is(err, killed) {
		t.Fatal(err)
	}
	j = open(t, options(fs))
	if v, _ := j.View(); v.Durable != h.First-1 && v.Durable != h.Last() { // one batch or two
		t.Fatalf("%+v", v)
	}
	v, _ := j.View()
	after := fs.CrashClone(vfs.CrashCloneCfg{})
	j = open(t, options(after))
	if again, _ := j.View(); again.Last != v.Durable || again.Last == 0 {
		t.Fatalf("%+v, was durable to %s", again, v.Durable)
	}
}

// A read error while opening is an error, but no corruption.
func TestEveryReadFailsOnceAtOpen(t *testing.T) {
	fs := vfs.NewMem()
	j := active(t, options(fs))
	for i := range 3 {
		deposit(t, j, uint64(1+i), 3, 500)
		_, err := j.ChangeReceiver(1)
		must(t, err)
	}
	must(t, j.Close())
	for index := int32(0); ; index++ {
		injector := errorfs.OnIndex(index)
		reads := errorfs.InjectorFunc(func(op errorfs.Op) error {
			if op.Kind.ReadOrWrite() == errorfs.OpIsRead {
				return injector.MaybeError(op)
			}
			return nil
		})
		j, err := Open(options(errorfs.Wrap(fs, reads)))
		var c *CorruptionError
		if errors.As(err, &c) || err != nil && !errors.Is(err, errorfs.ErrInjected) {
			t.Fatalf("read %d: %v", index, err)
		}
		if err == nil {
			must(t, j.Close())
			if index < 10 {
				t.Errorf("only %d reads", index)
			}
			return
		}
	}
}

// A full disk gives a clear error, and everything durable is there afterwards.
func TestFullDisk(t *testing.T) {
	fs := vfs.NewMem()
	var full atomic.Bool
	inject := errorfs.InjectorFunc(func(op errorfs.Op) error {
		if full.Load() && (op.Kind == errorfs.OpFileWriteAt || op.Kind == errorfs.OpCreate) {
			return syscall.ENOSPC
		}
		return nil
	})
	j := active(t, options(errorfs.Wrap(fs, inject)))
	deposit(t, j, 1, 1, 100)
	v := flush(t, j)
	full.Store(true)
	h := deposit(t, j, 1, 1, 100)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := j.WaitDurable(ctx, h.Last()); !errors.Is(err, syscall.ENOSPC) || !errors.Is(err, ErrFailed) {
		t.Fatal(err)
	}
	if err := j.Close(); !errors.Is(err, syscall.ENOSPC) {
		t.Error(err)
	}
	j = open(t, options(fs))
	if again, _ := j.View(); again.Last != v.Last || again.Torn {
		t.Errorf("%+v", again)
	}
}
