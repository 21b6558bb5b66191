package watchdog

import (
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// stuckFS hangs in every call that changes the disk while gate is open; reads go on.
type stuckFS struct {
	vfs.FS
	gate chan struct{}
}

func (f stuckFS) Rename(old, name string) error { <-f.gate; return f.FS.Rename(old, name) }
func (f stuckFS) Remove(name string) error      { <-f.gate; return f.FS.Remove(name) }
func (f stuckFS) MkdirAll(dir string, mode os.FileMode) error {
	<-f.gate
	return f.FS.MkdirAll(dir, mode)
}
func (f stuckFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	<-f.gate
	return f.FS.Create(name, c)
}
func (f stuckFS) OpenReadWrite(name string, c vfs.DiskWriteCategory, o ...vfs.OpenOption) (vfs.File, error) {
	file, err := f.FS.OpenReadWrite(name, c, o...)
	return stuckFile{file, f.gate}, err
}
func (f stuckFS) OpenDir(name string) (vfs.File, error) {
	file, err := f.FS.OpenDir(name)
	return stuckFile{file, f.gate}, err
}

type stuckFile struct {
	vfs.File
	gate chan struct{}
}

func (f stuckFile) Write(p []byte) (int, error)              { <-f.gate; return f.File.Write(p) }
func (f stuckFile) WriteAt(p []byte, off int64) (int, error) { <-f.gate; return f.File.WriteAt(p, off) }
func (f stuckFile) Sync() error                              { <-f.gate; return f.File.Sync() }
func (f stuckFile) SyncData() error                          { <-f.gate; return f.File.SyncData() }

// Proves the row "hung disk": every kind of call that changes the disk and does not return is told within the limit and a
// quarter, once, with its name; one that returns in time is not.
func TestHangingCallIsTold(t *testing.T) {
	open := func(t *testing.T, fs vfs.FS, dir bool) vfs.File {
		file, err := fs.OpenReadWrite("f", vfs.WriteCategoryUnspecified)
		if dir {
			file, err = fs.OpenDir("")
		}
		if err != nil {
			t.Fatal(err)
		}
		return file
	}
	for name, call := range map[string]func(t *testing.T, fs vfs.FS) error{
		"write f":            func(t *testing.T, fs vfs.FS) error { _, err := open(t, fs, false).Write([]byte("x")); return err },
		"write f at":         func(t *testing.T, fs vfs.FS) error { _, err := open(t, fs, false).WriteAt([]byte("x"), 0); return err },
		"sync f":             func(t *testing.T, fs vfs.FS) error { return open(t, fs, false).Sync() },
		"sync f data":        func(t *testing.T, fs vfs.FS) error { return open(t, fs, false).SyncData() },
		"sync directory":     func(t *testing.T, fs vfs.FS) error { return open(t, fs, true).Sync() },
		"rename g":           func(_ *testing.T, fs vfs.FS) error { return fs.Rename("f", "g") },
		"remove f":           func(_ *testing.T, fs vfs.FS) error { return fs.Remove("f") },
		"create directory d": func(_ *testing.T, fs vfs.FS) error { return fs.MkdirAll("d", 0o755) },
		"create h": func(_ *testing.T, fs vfs.FS) error {
			_, err := fs.Create("h", vfs.WriteCategoryUnspecified)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				mem := vfs.NewMem()
				f, err := mem.Create("f", vfs.WriteCategoryUnspecified)
				if err := errors.Join(err, f.Close()); err != nil {
					t.Fatal(err)
				}
				gate := make(chan struct{})
				told := make(chan error, 10)
				w := New("data disk", 5*time.Second, func(err error) { told <- err })
				fs := w.FS(stuckFS{mem, gate})
				began := time.Now()
				ended := make(chan error, 1)
				go func() { ended <- call(t, fs) }()
				var hang *HangError
				if err := <-told; !errors.As(err, &hang) {
					t.Fatal(err)
				}
				if after := time.Since(began); after <= 5*time.Second || after > 6250*time.Millisecond {
					t.Errorf("told after %s", after)
				}
				want := strings.TrimSuffix(strings.TrimSuffix(name, " at"), " data")
				if !strings.HasPrefix(hang.Call, want) || hang.Disk != "data disk" || !strings.Contains(hang.Error(), "check the disk") {
					t.Errorf("told %q: %v", hang.Call, hang)
				}
				close(gate)
				if err := <-ended; err != nil {
					t.Error(err)
				}
				if err := w.Close(); err != nil || len(told) > 0 {
					t.Errorf("%v, told %d times more", err, len(told))
				}
			})
		})
	}
}

// Calls that return are not told, however many there are, nor is a hanging read.
func TestSlowDiskIsNotHanging(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := New("data disk", time.Second, func(err error) { t.Error(err) })
		for range 100 {
			leave := w.Enter("sync")
			time.Sleep(900 * time.Millisecond)
			leave()
		}
		if err := errors.Join(w.Close(), w.Close()); err != nil {
			t.Error(err)
		}
	})
	var none *Watchdog
	none.Enter("x")()
	if fs := vfs.NewMem(); none.FS(fs) != vfs.FS(fs) || none.Close() != nil {
		t.Error("no watchdog must watch nothing")
	}
}

// A process that was stopped looks late but only once: what it was doing is not taken for hanging when it goes on.
func TestStoppedProcessIsNotHanging(t *testing.T) {
	w := &Watchdog{disk: "data disk", limit: time.Second, running: map[uint64]*call{}}
	leave := w.Enter("sync")
	now := time.Now()
	for i := range looks - 1 {
		if err := w.look(now.Add(time.Hour + time.Duration(i)*time.Millisecond)); err != nil {
			t.Fatalf("look %d: %v", i, err)
		}
	}
	if err := w.look(now.Add(time.Hour)); err == nil {
		t.Fatal("a call seen often enough is not told")
	}
	leave()
	if err := w.look(now.Add(2 * time.Hour)); err != nil {
		t.Fatal(err)
	}
}

// What is written through the watched file system is what is read.
func TestWatchedFileSystemPassesEverything(t *testing.T) {
	w := New("data disk", time.Minute, func(err error) { t.Error(err) })
	defer w.Close()
	mem := vfs.NewMem()
	fs := w.FS(mem)
	f, err := fs.Create("a", vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	_, err = f.SyncTo(5)
	if err := errors.Join(err, f.Preallocate(0, 5), f.Close(), fs.Link("a", "l"), fs.Rename("a", "b"), fs.RemoveAll("l")); err != nil {
		t.Fatal(err)
	}
	f, err = fs.ReuseForWrite("b", "c", vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write([]byte("w")); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	f, err = mem.Open("c")
	if err != nil {
		t.Fatal(err)
	}
	if raw, err := io.ReadAll(f); err != nil || !strings.HasPrefix(string(raw), "w") || fs.Unwrap() != vfs.FS(mem) {
		t.Errorf("read %q, %v", raw, err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}
