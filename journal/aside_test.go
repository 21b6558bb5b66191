package journal

import (
	"errors"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// Files set aside are kept, whatever the limits on spares say, and are the next receivers. Proves RJ-5.
func TestSetAside(t *testing.T) {
	fs := vfs.NewMem()
	j := active(t, options(fs))
	deposit(t, j, 1, 1, 10)
	flush(t, j)
	must(t, j.SetAside(2))
	must(t, j.SetAside(2)) // there are enough
	spares := func() int { j.mu.RLock(); defer j.mu.RUnlock(); return len(j.stock.ready) }
	if n := spares(); n != 2 {
		t.Fatalf("%d set aside", n)
	}
	j.SetLimits(Limits{ReceiverBytes: 2 * j.limits.ReceiverBytes}) // has the stock tidy
	for want := 1; want >= 0; want-- {
		_, err := j.ChangeReceiver(1)
		must(t, err)
		flush(t, j)
		if n := spares(); n > want+1 { // the stock may have made one of its own
			t.Fatalf("%d set aside after a change, want %d", n, want)
		}
		deposit(t, j, 1, 1, 10)
	}
	flush(t, j)
	j = reopen(t, j, options(fs))
	must(t, j.Verify(t.Context()))
}

// A full disk while a file is set aside costs nothing: nothing was to be written there yet.
func TestSetAsideOnAFullDisk(t *testing.T) {
	var full atomic.Bool
	fs := errorfs.Wrap(vfs.Default, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if full.Load() && (op.Kind == errorfs.OpFileWriteAt || op.Kind == errorfs.OpFileSync) && strings.Contains(op.Path, spareSuffix) {
			return syscall.ENOSPC
		}
		return nil
	}))
	o := options(fs)
	o.Dir = t.TempDir() + "/" + o.Dir
	j := active(t, o)
	deposit(t, j, 1, 1, 10)
	flush(t, j)
	full.Store(true)
	if err := j.SetAside(1); !errors.Is(err, ErrFull) {
		t.Fatalf("on a full disk: %v", err)
	}
	full.Store(false)
	if v, _ := j.View(); v.Err != nil {
		t.Fatalf("the journal has failed: %v", v.Err)
	}
	names, err := fs.List(o.Dir)
	must(t, err)
	for _, name := range names {
		if strings.Contains(name, spareSuffix) {
			t.Errorf("left over: %s", name)
		}
	}
	deposit(t, j, 1, 1, 10)
	flush(t, j)
	must(t, j.SetAside(1))
}
