package store

import (
	"context"
	"errors"
	"fmt"
	"path"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/understudy-ha/understudy/internal/ident"
)

// disk is a file system whose errors the test decides on.
type disk struct {
	vfs.FS
	mem   *vfs.MemFS
	fault atomic.Pointer[func(errorfs.Op) error]
	wrote atomic.Int64 // operations that changed something
}

var errDisk = errors.New("injected disk error")

func newDisk() *disk {
	d := &disk{mem: vfs.NewCrashableMem()}
	d.FS = errorfs.Wrap(d.mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if f := d.fault.Load(); f != nil {
			if err := (*f)(op); err != nil {
				return err
			}
		}
		if op.Kind.ReadOrWrite() == errorfs.OpIsWrite && op.Kind != errorfs.OpFileClose {
			d.wrote.Add(1)
		}
		return nil
	}))
	return d
}

func (d *disk) set(f func(errorfs.Op) error) { d.fault.Store(&f) }

func syncs(op errorfs.Op) bool {
	return op.Kind == errorfs.OpFileSync || op.Kind == errorfs.OpFileSyncData || op.Kind == errorfs.OpFileSyncTo
}

func is(op errorfs.Op, what string) bool {
	base := path.Base(op.Path)
	return strings.HasSuffix(base, what) || strings.HasPrefix(base, what)
}

// failing opens a store on d that tells its failure.
func failing(t *testing.T, d *disk, stall time.Duration) (*Store, <-chan error) {
	told := make(chan error, 2)
	s, err := Open(Options{FS: d, Dir: "store", MemTableBytes: 64 << 10, Stall: stall, OnFatal: func(err error) { told <- err }})
	if err != nil {
		t.Fatal(err)
	}
	g := s.Group("g")
	apply(t, g, at(0, 0), at(1, 1), put("f", "k", "flushed", at(1, 1)))
	if err := s.Flush(context.Background()); err != nil {
		t.Fatal(err)
	}
	apply(t, g, at(1, 1), at(1, 2), put("f", "k", "not flushed", at(1, 2)))
	return s, told
}

// failed checks that a failed store says so, once, everywhere, does not hang, writes nothing, and left a prefix behind.
func failed(t *testing.T, d *disk, s *Store, told <-chan error, cause error) {
	t.Helper()
	select {
	case err := <-told:
		var f *FailedError
		if !errors.As(err, &f) || cause != nil && !errors.Is(err, cause) && !strings.Contains(err.Error(), cause.Error()) {
			t.Fatalf("told %v", err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("nobody was told of the failure")
	}
	d.fault.Store(nil) // the disk recovers; the store must not
	wrote := d.wrote.Load()
	g := s.Group("g")
	for name, err := range map[string]error{
		"apply": g.Apply(g.Position(), at(9, 9), nil), "flush": s.Flush(context.Background()), "get": second(g.Get("f", []byte("k"))),
		"scan": second(g.Scan("f", nil, nil, 1)), "files": second(g.Files()), "digest": second(g.Digest(context.Background())), "err": s.Err(),
	} {
		var f *FailedError
		if !errors.As(err, &f) {
			t.Errorf("%s on a failed store: %v", name, err)
		}
	}
	<-s.Failed()
	ended := make(chan error)
	go func() { ended <- errors.Join(s.Close(), s.Close()) }()
	select {
	case err := <-ended:
		if err == nil {
			t.Error("Close hides the failure")
		}
	case <-time.After(20 * time.Second):
		t.Fatal("Close hangs")
	}
	if n := d.wrote.Load(); n != wrote {
		t.Errorf("%d writes after the failure", n-wrote)
	}
	if len(told) > 0 {
		t.Error("told twice")
	}
	s = open(t, Options{FS: d.mem.CrashClone(vfs.CrashCloneCfg{})})
	want := map[ident.Position]string{at(1, 1): "flushed", at(1, 2): "not flushed"}[s.Group("g").Position()]
	if r, err := s.Group("g").Get("f", []byte("k")); err != nil || want == "" || string(r.Value) != want {
		t.Errorf("after the crash: %s with %q, %v", s.Group("g").Position(), r.Value, err)
	}
}

// TestFailingFlush: Pebble repeats a failing flush for ever; the store gives up. Nothing is acknowledged after it.
func TestFailingFlush(t *testing.T) {
	for name, fault := range map[string]func(errorfs.Op) bool{
		"create table": func(op errorfs.Op) bool { return op.Kind == errorfs.OpCreate && is(op, ".sst") },
		"write table":  func(op errorfs.Op) bool { return op.Kind == errorfs.OpFileWrite && is(op, ".sst") },
		"sync table":   func(op errorfs.Op) bool { return syncs(op) && is(op, ".sst") },
		"all writes":   func(op errorfs.Op) bool { return op.Kind.ReadOrWrite() == errorfs.OpIsWrite },
	} {
		t.Run(name, func(t *testing.T) {
			d := newDisk()
			s, told := failing(t, d, 0)
			d.set(func(op errorfs.Op) error {
				if fault(op) {
					return errDisk
				}
				return nil
			})
			if err := s.Flush(context.Background()); !errors.Is(err, errDisk) {
				t.Fatalf("flush: %v", err)
			}
			failed(t, d, s, told, errDisk)
		})
	}
}

// TestPassingError: a few failed flushes are forgiven.
func TestPassingError(t *testing.T) {
	d := newDisk()
	s, told := failing(t, d, 0)
	var n atomic.Int64
	d.set(func(op errorfs.Op) error {
		if op.Kind == errorfs.OpCreate && is(op, ".sst") && n.Add(1) < maxBackgroundErrors/2 {
			return errDisk
		}
		return nil
	})
	if err := s.Flush(context.Background()); err != nil || s.Group("g").Flushed() != at(1, 2) {
		t.Fatalf("flush: %v", err)
	}
	if err := s.Close(); err != nil || len(told) > 0 || n.Load() == 0 {
		t.Fatalf("close: %v", err)
	}
}

// TestManifestFailure: Pebble calls Fatalf, which must not return to it.
func TestManifestFailure(t *testing.T) {
	d := newDisk()
	s, told := failing(t, d, 0)
	d.set(func(op errorfs.Op) error {
		if syncs(op) && is(op, "MANIFEST") {
			return errDisk
		}
		return nil
	})
	if err := s.Flush(context.Background()); err == nil || !strings.Contains(err.Error(), "MANIFEST") {
		t.Fatalf("flush: %v", err)
	}
	failed(t, d, s, told, errDisk)
}

// TestFailureAtClose: the last flush fails.
func TestFailureAtClose(t *testing.T) {
	d := newDisk()
	s, told := failing(t, d, 0)
	d.set(func(op errorfs.Op) error {
		if syncs(op) {
			return errDisk
		}
		return nil
	})
	if err := s.Close(); !errors.Is(err, s.Err()) || s.Err() == nil {
		t.Fatalf("close: %v", err)
	}
	failed(t, d, s, told, nil)
}

// TestHungDisk: the disk answers nothing, neither yes nor no.
func TestHungDisk(t *testing.T) {
	d := newDisk()
	s, told := failing(t, d, 300*time.Millisecond)
	release := make(chan struct{})
	defer close(release)
	d.set(func(op errorfs.Op) error {
		if syncs(op) {
			<-release
		}
		return nil
	})
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if err := s.Flush(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("flush: %v", err)
	}
	// Applies go on in memory until there is no room; then they must not hang.
	g := s.Group("g")
	value := string(make([]byte, 4<<10))
	for h := ident.History(2); ; h++ {
		err := g.Apply(at(1, h), at(1, h+1), []Change{put("other", fmt.Sprint(h), value, at(1, h+1))})
		if err != nil {
			if !strings.Contains(err.Error(), "apply did not end") {
				t.Fatalf("apply: %v", err)
			}
			break
		}
	}
	failed(t, d, s, told, nil)
}

// TestOpenFails: nothing is left behind, and nothing hangs.
func TestOpenFails(t *testing.T) {
	d := newDisk()
	for i, fault := range []func(errorfs.Op) bool{
		func(op errorfs.Op) bool { return op.Kind == errorfs.OpLock },
		func(op errorfs.Op) bool { return op.Kind == errorfs.OpCreate && is(op, "MANIFEST") },
		func(op errorfs.Op) bool { return op.Kind == errorfs.OpMkdirAll },
		func(op errorfs.Op) bool { return syncs(op) && is(op, "MANIFEST") }, // Fatalf while opening
	} {
		d.set(func(op errorfs.Op) error {
			if fault(op) {
				return errDisk
			}
			return nil
		})
		if _, err := Open(Options{FS: d, Dir: "store"}); err == nil || !strings.Contains(err.Error(), errDisk.Error()) {
			t.Errorf("open %d: %v", i, err)
		}
		d.fault.Store(nil)
	}
}

// TestCorruption: a damaged table is found before its records are served, and fails the store.
func TestCorruption(t *testing.T) {
	mem := vfs.NewMem()
	t.Run("write", func(t *testing.T) {
		g := open(t, Options{FS: mem}).Group("g")
		for h := range ident.History(200) {
			apply(t, g, g.Position(), at(1, h+1), put("f", fmt.Sprint(h), strings.Repeat("value", 100), at(1, h+1)))
		}
	})
	names, err := mem.List("store")
	if err != nil {
		t.Fatal(err)
	}
	damaged := 0
	for _, name := range names {
		if !strings.HasSuffix(name, ".sst") {
			continue
		}
		f, err := mem.OpenReadWrite(path.Join("store", name), vfs.WriteCategoryUnspecified)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt([]byte("damage"), 100); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		damaged++
	}
	if damaged == 0 {
		t.Fatal("no table to damage")
	}
	told := make(chan error, 1)
	s, err := Open(Options{FS: mem, Dir: "store", OnFatal: func(err error) { told <- err }})
	if err != nil {
		return // found at once
	}
	if _, err := s.Group("g").Digest(context.Background()); err == nil {
		t.Fatal("damaged records were read")
	}
	<-told
	if err := s.Close(); err == nil {
		t.Fatal("Close hides the failure")
	}
}
