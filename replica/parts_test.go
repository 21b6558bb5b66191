package replica

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal/entry"
)

func TestGateExcludes(t *testing.T) {
	var g gate
	leave, err := g.enter(1)
	if err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := g.exclusive(short, func() error { return nil }); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("alone beside somebody: %v", err)
	}
	again, err := g.enter(1) // the attempt was given up
	if err != nil {
		t.Fatal(err)
	}
	again()
	promised := make(chan error)
	go func() {
		promised <- g.exclusive(context.Background(), func() error { g.promised.Store(2); return nil })
	}()
	select {
	case <-promised:
		t.Fatal("promised in the middle of an append")
	case <-time.After(10 * time.Millisecond):
	}
	leave()
	leave() // twice is once
	if err := <-promised; err != nil {
		t.Fatal(err)
	}
	var fenced *FencedError
	if _, err := g.enter(1); !errors.As(err, &fenced) || fenced.Have != 2 || fenced.Want != 1 {
		t.Fatalf("an older epoch got in: %v", err)
	}
	if leave, err = g.enter(2); err != nil {
		t.Fatal(err)
	}
	leave()
}

func TestPromiseFile(t *testing.T) {
	fs := vfs.NewCrashableMem()
	p := promiseFile{fs: fs, dir: "data/promises", name: "orders"}
	if e, err := p.read(); e != 0 || err != nil {
		t.Fatalf("no file: %s %v", e, err)
	}
	for e := ident.Epoch(1); e < 4; e++ {
		if err := p.write(e); err != nil {
			t.Fatal(err)
		}
		after := promiseFile{fs: fs.CrashClone(vfs.CrashCloneCfg{}), dir: p.dir, name: p.name}
		if got, err := after.read(); got != e || err != nil {
			t.Fatalf("after a power cut the promise of %s is %s, %v", e, got, err)
		}
	}
	f, err := fs.OpenReadWrite("data/promises/orders", fileCategory)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte{9}, 8); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := p.read(); err == nil {
		t.Fatal("a damaged promise was read")
	}
}

// A sector that has lost what was promised in it is noticed where that can be.
func TestPromiseSectorLost(t *testing.T) {
	for sector := range int64(2) {
		fs := vfs.NewMem()
		p := promiseFile{fs: fs, dir: "data/promises", name: "orders"}
		for e := ident.Epoch(1); e < 5; e++ { // the second sector has the last one
			if err := p.write(e); err != nil {
				t.Fatal(err)
			}
		}
		f, err := fs.OpenReadWrite("data/promises/orders", fileCategory)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt(make([]byte, promiseSector), sector*promiseSector); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		if e, err := p.load(); err == nil {
			t.Fatalf("sector %d was lost, and %s taken for what was promised", sector, e)
		}
	}
}

// A process that dies between the write of a promise and its sync, or whose sync fails, leaves it in the page cache. The next life reads it
// from there and acts on it, so it has to be on disk by then.
func TestPromiseReadIsOnDisk(t *testing.T) {
	for before := ident.Epoch(0); before < 4; before++ {
		fs := vfs.NewCrashableMem()
		p := promiseFile{fs: fs, dir: "data/promises", name: "orders"}
		for e := ident.Epoch(1); e <= before; e++ {
			if err := p.write(e); err != nil {
				t.Fatal(err)
			}
		}
		dies := p
		dies.fs = errorfs.Wrap(fs, errorfs.InjectorFunc(func(op errorfs.Op) error {
			if op.Kind == errorfs.OpFileSyncData || op.Kind == errorfs.OpFileSync && before == 0 && op.Path == p.dir {
				return errorfs.ErrInjected
			}
			return nil
		}))
		if err := dies.write(before + 1); err == nil {
			t.Fatalf("promised %s without a sync", before+1)
		}
		e, err := p.load()
		if err != nil || e < before {
			t.Fatalf("the next life reads %s, %v, after %s", e, err, before)
		}
		after := promiseFile{fs: fs.CrashClone(vfs.CrashCloneCfg{}), dir: p.dir, name: p.name}
		if got, err := after.read(); got != e || err != nil {
			t.Fatalf("a life acted on the promise of %s; after a power cut it is %s, %v", e, got, err)
		}
	}
}

func TestQueueBounds(t *testing.T) {
	q := &queue{max: 100}
	if err := q.push(t.Context(), newRequest(101)); !errors.Is(err, ErrQueueFull) {
		t.Fatalf("larger than the queue: %v", err)
	}
	a, b := newRequest(60), newRequest(30)
	for _, r := range []*request{a, b} {
		if err := q.push(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	short, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := q.push(short, newRequest(20)); !errors.Is(err, ErrNotSequenced) {
		t.Fatalf("a full queue: %v", err)
	}
	if got := q.take(50, 10); len(got) != 1 || got[0] != a {
		t.Fatalf("took %d requests", len(got))
	}
	if q.withdraw(a) || !q.withdraw(b) {
		t.Fatal("what was taken is taken, what waits can be withdrawn")
	}
	done, cancel := context.WithCancel(t.Context())
	cancel()
	a.position = pos(1, 7)
	close(a.sequenced)
	var unknown *UnknownOutcomeError
	if _, err := q.await(done, a); !errors.As(err, &unknown) || unknown.Position != a.position {
		t.Fatalf("gave up after it was sequenced: %v", err)
	}
	c := newRequest(30)
	if err := q.push(t.Context(), c); err != nil { // b's bytes are free, a's are not
		t.Fatal(err)
	}
	if _, err := q.await(done, c); !errors.Is(err, ErrNotSequenced) {
		t.Fatalf("gave up while waiting: %v", err)
	}
	d := newRequest(10)
	if err := q.push(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	q.close(ErrNotPrimary)
	if _, err := q.await(t.Context(), d); !errors.Is(err, ErrNotPrimary) {
		t.Fatalf("closed: %v", err)
	}
	if err := q.push(t.Context(), newRequest(1)); !errors.Is(err, ErrNotPrimary) {
		t.Fatalf("after close: %v", err)
	}
}

func TestOverlay(t *testing.T) {
	var o overlay
	k := recordKey{"f", "k"}
	first, second := &entry.Image{Value: []byte("1")}, &entry.Image{Value: []byte("2")}
	o.put(k, first, pos(1, 1))
	o.put(k, second, pos(1, 2))
	o.release([]touch{{k, pos(1, 1)}})
	if got, ok := o.get(k); !ok || got != second {
		t.Fatal("the newest write in flight is what counts")
	}
	o.put(k, nil, pos(1, 3))
	if got, ok := o.get(k); !ok || got != nil {
		t.Fatal("a delete in flight is known")
	}
	o.release([]touch{{k, pos(1, 3)}})
	if _, ok := o.get(k); ok || len(o.pending) != 0 {
		t.Fatal("what landed is in the store")
	}
}

func pos(e ident.Epoch, h ident.History) ident.Position { return ident.Position{Epoch: e, History: h} }
