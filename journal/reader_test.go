package journal

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal/entry"
)

// follow reads until the bundle that ends at last and checks that nothing is missing or comes twice, headers included.
func follow(ctx context.Context, r *Reader, from, last ident.Sequence, lag func()) error {
	next, chain, header := from, ident.Chain(0), false
	for next <= last {
		i, err := r.Next(ctx)
		if err != nil {
			return err
		}
		if i.ReceiverHeader != nil {
			h, err := DecodeReceiverHeader(i.ReceiverHeader)
			if err != nil {
				return err
			}
			if h.First != next || header {
				return fmt.Errorf("header of receiver %s at sequence %s", h.Number, next)
			}
			header = true
			continue
		}
		b, err := entry.Decode(i.Raw)
		if err != nil {
			return err
		}
		if b.Header != i.Header || b.First != next {
			return fmt.Errorf("bundle %+v, want sequence %s", i.Header, next)
		}
		if next != from && b.Chain != chain {
			return fmt.Errorf("chain is broken at %s", next)
		}
		if b.Holds(entry.Journal, entry.Previous) != header {
			return fmt.Errorf("J PR without header at %s", next)
		}
		next, chain, header = b.Last()+1, entry.NextChain(b.Chain, b.Raw), false
		if lag != nil {
			lag()
		}
	}
	return nil
}

// Readers that keep up, lag behind the ring, start late or in the middle all get everything once, also while receivers change.
// The ring is so small that slow readers go to the disk and come back.
func TestReadersFollowTheTail(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	o := options(vfs.NewMem())
	o.RingBytes = 4 << 10
	j := active(t, o)
	const bundles = 2000
	last := make(chan ident.Sequence)
	var group sync.WaitGroup
	start := func(name string, from ident.Sequence, lag func()) {
		r, err := j.Reader(from)
		must(t, err)
		if from == 0 {
			from = 1
		}
		group.Go(func() {
			defer r.Close()
			first := r.next
			if err := follow(ctx, r, first, <-last, lag); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		})
	}
	var end ident.Sequence
	done := make(chan struct{})
	start("from the start", 0, nil)
	start("slow", 0, func() {
		if rand.N(50) == 0 {
			time.Sleep(time.Millisecond)
		}
	})
	go func() {
		defer close(done)
		for i := range bundles {
			end = deposit(t, j, 1, 1+i%3, rand.N(300)).Last()
			if i%400 == 399 {
				if _, err := j.ChangeReceiver(1); err != nil {
					t.Error(err)
				}
				v, _ := j.View()
				end = v.Last
			}
		}
	}()
	for {
		if v, changed := j.View(); v.Last < 1000 {
			<-changed
			continue
		}
		break
	}
	start("in the middle", 500, nil)
	v, _ := j.View()
	start("at the tail", v.Last+1, nil)
	<-done
	for range 4 { // readers
		last <- end
	}
	group.Wait()
	must(t, j.Verify(ctx))
}

// A bundle is given to readers as soon as it is appended, and a reader that has not kept up never sees less than one that has,
// whatever the disk does.
func TestReaderGetsWhatIsNotDurable(t *testing.T) {
	o := options(vfs.NewMem())
	o.RingBytes = 1
	hold := make(chan struct{})
	o.Host.Failpoint = func(name string) error {
		if name == "journal.sync:orders/a" {
			<-hold
		}
		return nil
	}
	j := active(t, o)
	for range 20 {
		deposit(t, j, 1, 1, 1000)
	}
	v, _ := j.View()
	if v.Durable != 0 || v.Last != 21 {
		t.Fatalf("%+v", v)
	}
	r, err := j.Reader(0)
	must(t, err)
	defer r.Close()
	if err := follow(context.Background(), r, 1, 21, nil); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := j.WaitDurable(ctx, 21); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if ends, err := j.EndsBelow(99, 99); err != nil || len(ends) != 22 {
		t.Fatalf("%d ends, %v", len(ends), err)
	}
	if seq, ok, err := j.FindHistory(pos(1, 7)); err != nil || !ok || seq != 8 {
		t.Fatal(seq, ok, err)
	}
	close(hold)
	flush(t, j)
	if n := len(j.ring.items) - j.ring.head; n != 0 {
		t.Errorf("%d bundles in a ring of 1 byte", n)
	}
	if err := follow(context.Background(), mustReader(t, j, 5), 5, 21, nil); err != nil {
		t.Fatal(err)
	}
}

func mustReader(t testing.TB, j *Journal, from ident.Sequence) *Reader {
	t.Helper()
	r, err := j.Reader(from)
	must(t, err)
	t.Cleanup(func() { r.Close() })
	return r
}

func TestReaderBeginsWithTheBundleThatContains(t *testing.T) {
	j := active(t, options(vfs.NewMem()))
	deposit(t, j, 1, 4, 10) // 2..5
	deposit(t, j, 1, 4, 10) // 6..9
	for from, want := range map[ident.Sequence]ident.Sequence{2: 2, 4: 2, 5: 2, 6: 6, 9: 6} {
		i, ok, err := mustReader(t, j, from).TryNext()
		if !ok || err != nil || i.Header.First != want || i.Receiver != 1 {
			t.Errorf("from %s: %+v %v", from, i.Header, err)
		}
	}
	if _, ok, err := mustReader(t, j, 10).TryNext(); ok || err != nil {
		t.Error(ok, err)
	}
	if _, err := j.Reader(11); !errors.Is(err, ErrNotHeld) {
		t.Error(err)
	}
}

// A reader that was given removed bundles says so; one that was not goes on with what comes instead.
func TestRewindUnderReaders(t *testing.T) {
	o := options(vfs.NewMem())
	o.RingBytes = 1
	j := active(t, o)
	for range 5 {
		deposit(t, j, 1, 2, 50) // 2-3 4-5 6-7 8-9 10-11
	}
	flush(t, j)
	behind, at, beyond, tail := mustReader(t, j, 1), mustReader(t, j, 6), mustReader(t, j, 6), mustReader(t, j, 12)
	for _, n := range []struct {
		r *Reader
		n int
	}{{behind, 2}, {at, 1}, {beyond, 2}} { // at has read 6-7, beyond 8-9
		for range n.n {
			if _, ok, err := n.r.TryNext(); !ok || err != nil {
				t.Fatal(ok, err)
			}
		}
	}
	waiting := make(chan error)
	go func() {
		_, err := tail.Next(context.Background())
		waiting <- err
	}()
	must(t, j.Rewind(7))
	if err := <-waiting; !errors.Is(err, ErrRewound) {
		t.Errorf("at the tail: %v", err)
	}
	deposit(t, j, 2, 3, 70, pos(1, 6)) // 8-10, another branch
	if _, _, err := beyond.TryNext(); !errors.Is(err, ErrRewound) {
		t.Errorf("beyond: %v", err)
	}
	if _, _, err := beyond.TryNext(); !errors.Is(err, ErrRewound) {
		t.Errorf("beyond, again: %v", err)
	}
	if i, ok, err := at.TryNext(); !ok || err != nil || i.Header.First != 8 || i.Header.Fact != pos(2, 7) {
		t.Errorf("at the end: %+v %v", i.Header, err)
	}
	if err := follow(context.Background(), behind, 2, 10, nil); err != nil {
		t.Errorf("behind: %v", err)
	}
}

// While a reader reads a bundle from the disk, what it returned before is removed, and bundles of another branch take the very
// same place. The reader must not go on with those.
func TestRewindDuringARead(t *testing.T) {
	var hook atomic.Pointer[func()]
	fs := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind == errorfs.OpFileReadAt {
			if f := hook.Swap(nil); f != nil {
				(*f)()
			}
		}
		return nil
	}))
	o := options(fs)
	o.ReceiverBytes, o.RingBytes = 64<<20, 1
	j := active(t, o)
	for range 4 {
		deposit(t, j, 1, 2, chunk) // 2-3 4-5 6-7 8-9, each more than is read at once
	}
	flush(t, j)
	rewound, unharmed := mustReader(t, j, 4), mustReader(t, j, 2)
	for _, r := range []*Reader{rewound, unharmed} {
		if _, ok, err := r.TryNext(); !ok || err != nil {
			t.Fatal(ok, err)
		}
	}
	for _, c := range []struct {
		r     *Reader
		epoch uint64
		want  error
	}{{rewound, 2, ErrRewound}, {unharmed, 3, nil}} {
		f := func() {
			must(t, j.Rewind(3))
			deposit(t, j, c.epoch, 2, chunk, pos(1, 2))
			deposit(t, j, c.epoch, 2, chunk)
			flush(t, j)
		}
		hook.Store(&f)
		i, _, err := c.r.TryNext()
		if !errors.Is(err, c.want) || err == nil && i.Header.Fact != pos(c.epoch, 3) {
			t.Errorf("epoch %d: %+v %v", c.epoch, i.Header, err)
		}
		if hook.Load() != nil {
			t.Error("nothing was read")
		}
	}
}

// Rewinds, appends and readers together: a reader sees nothing that does not chain, and ErrRewound only when it must.
func TestRewindsUnderBusyReaders(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	o := options(vfs.NewMem())
	o.RingBytes = 2 << 10
	j := active(t, o)
	stop := make(chan struct{})
	var group sync.WaitGroup
	for range 3 {
		group.Go(func() {
			rewound := 0
			for {
				v, _ := j.View()
				from := v.First + ident.Sequence(rand.N(uint64(v.Last-v.First+1)+1))
				r, err := j.Reader(from)
				if errors.Is(err, ErrNotHeld) {
					continue
				}
				if err != nil {
					t.Error(err)
					return
				}
				next, chain := ident.Sequence(0), ident.Chain(0)
				for range 200 {
					select {
					case <-stop:
						r.Close()
						return
					default:
					}
					i, ok, err := r.TryNext()
					if errors.Is(err, ErrRewound) {
						rewound++
						break
					}
					if err != nil {
						t.Errorf("reader: %v", err)
						break
					}
					if !ok || i.ReceiverHeader != nil {
						continue
					}
					if next != 0 && (i.Header.First != next || i.Header.Chain != chain) {
						t.Errorf("sequence %s with chain %s, want %s with %s", i.Header.First, i.Header.Chain, next, chain)
					}
					next, chain = i.Header.Last()+1, entry.NextChain(i.Header.Chain, i.Raw)
				}
				r.Close()
			}
		})
	}
	group.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			v, _ := j.View()
			if len(v.Runs) > 0 {
				run := v.Runs[rand.N(len(v.Runs))]
				p := ident.Position{Epoch: run.Epoch, History: run.From + ident.History(rand.N(uint64(run.To-run.From)+1))}
				if _, _, err := j.FindHistory(p); err != nil {
					t.Errorf("find %s: %v", p, err)
				}
			}
			if _, err := j.EndsBelow(v.Last, 20); err != nil {
				t.Errorf("ends: %v", err)
			}
			if err := j.Verify(ctx); err != nil {
				t.Errorf("verify: %v", err)
			}
		}
	})
	for i := range 150 {
		for range rand.N(12) {
			deposit(t, j, uint64(1+i/10), 1+rand.N(3), rand.N(2000))
		}
		v, _ := j.View()
		ends, err := j.EndsBelow(v.Last, 1+rand.N(10))
		must(t, err)
		must(t, j.Rewind(ends[len(ends)-1].Sequence))
		if ctx.Err() != nil {
			t.Fatal("too slow")
		}
	}
	close(stop)
	group.Wait()
}
