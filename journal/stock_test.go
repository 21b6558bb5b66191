package journal

import (
	"errors"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// live is an active journal that wants no spares.
func live(t *testing.T, fs vfs.FS) *Journal {
	t.Helper()
	o := options(fs)
	o.SpareBytes = -1
	j := active(t, o)
	deposit(t, j, 1, 1, 100)
	flush(t, j)
	return j
}

// idle is a live journal whose stock does nothing by itself: the test does what it decides.
func idle(t *testing.T, fs vfs.FS) *Journal {
	t.Helper()
	j := live(t, fs)
	close(j.stock.stopping)
	<-j.stock.done
	j.locked(func() {
		j.stock = newStock(j, []string{"100" + spareSuffix})
		close(j.stock.done)
	})
	return j
}

// tend does what the stock decides until it has nothing to do.
func (s *stock) tend(t *testing.T) {
	t.Helper()
	for range 10 {
		task, _ := s.next()
		if task == nil {
			return
		}
		must(t, task())
	}
	t.Fatal("it goes on and on")
}

// locked runs f with the journal's lock.
func (j *Journal) locked(f func()) {
	j.mu.Lock()
	defer j.mu.Unlock()
	f()
}

// Proves TR-5 for what the stock decides: it makes nothing before there is a directory, nothing after a failure, nothing beyond the maximum;
// on a full disk it tries again when it is time, less and less often, with what was refused.
func TestWhatTheStockDecides(t *testing.T) {
	j := idle(t, vfs.NewMem())
	s := j.stock
	quiet := func(what string, wait time.Duration) {
		t.Helper()
		if task, w := s.next(); task != nil || w != wait {
			t.Errorf("%s: task %v, wait %s, want %s", what, task != nil, w, wait)
		}
	}
	busy := func(what string) func() error {
		t.Helper()
		task, _ := s.next()
		if task == nil {
			t.Fatalf("%s: nothing is done", what)
		}
		return task
	}
	quiet("no spares are wanted", 0)
	size := j.limits.full()
	j.locked(func() { j.limits.SpareBytes = size })
	must(t, busy("a spare is wanted")())
	settled(t, j, j.disk.fs, "a spare")
	quiet("there is one", 0)

	j.locked(func() { j.limits.SpareBytes, j.limits.MaximumBytes = 2*size, j.heldLocked()+size-1 })
	quiet("beyond the maximum", 0)
	if p := j.Space().Pending; p == nil || p.Reason != FullMaximum {
		t.Errorf("why there is none: %v", p)
	}
	said := &FullError{Reason: FullDisk}
	j.locked(func() { s.full, s.need = said, size })
	_, changed := j.View()
	quiet("a full disk, and a maximum", 0)
	if f := j.Space().Full; f == nil || f.Reason != FullMaximum {
		t.Errorf("full for another reason now: %v", f)
	}
	select {
	case <-changed:
	default:
		t.Error("nobody was told of the other reason")
	}

	j.locked(func() { j.limits.MaximumBytes, s.full, s.need = 0, said, 5000 })
	for wait := firstRetry; ; wait = min(2*wait, lastRetry) {
		quiet("it is not time yet", wait)
		j.locked(func() { s.again = true })
		busy("it is time")
		if wait == lastRetry {
			break
		}
	}
	must(t, s.probe("9"+spareSuffix, 5000))
	if j.Space().Full != nil || s.retry != firstRetry {
		t.Errorf("space again: %v, next try after %s", j.Space().Full, s.retry)
	}
	settled(t, j, j.disk.fs, "a look for space")
	j.locked(func() { s.pending, s.again, s.retry = &FullError{Reason: FullDisk}, false, firstRetry })
	quiet("no space for a spare a moment ago", firstRetry)
	j.locked(func() { s.again = true })
	must(t, busy("time for a spare")())
	if j.Space().Pending != nil {
		t.Error("a spare was made, and yet it is said to be pending")
	}
	j.locked(func() { j.limits.SpareBytes = 9 * size })
	j.fail(errors.New("broken"))
	quiet("after a failure", 0)

	k := open(t, options(vfs.NewMem()))
	k.locked(func() { k.limits.SpareBytes = size })
	if task, _ := k.stock.next(); task != nil {
		t.Error("a spare without a directory")
	}
}

// Proves TR-5: a full disk is looked at for what was refused, not for a whole receiver.
func TestTheStockLooksForWhatWasRefused(t *testing.T) {
	disk := newSmallDisk(1 << 30)
	j := live(t, disk)
	disk.resize(20 << 10) // a whole receiver has 64 KiB
	j.refuse(syscall.ENOSPC, 10<<10)
	until(t, j, "space for what was refused", func(s Space) bool { return s.Full == nil })
	if temp := list(t, disk, tempSuffix); len(temp) != 0 {
		t.Errorf("left over: %v", temp)
	}
}

// Proves TR-5: a file that the journal needs to be left in order stays, whatever limits are set, until the attached receiver has that
// space itself; every other one beyond the limits goes.
func TestTheLastWayOutIsKept(t *testing.T) {
	for name, l := range map[string]Limits{
		"no spares":       {ReceiverBytes: 1 << 16, SpareBytes: -1, MaxAge: time.Hour},
		"a lower maximum": {ReceiverBytes: 1 << 16, SpareBytes: -1, MaximumBytes: 1 << 16},
	} {
		disk := newSmallDisk(1 << 30)
		j := idle(t, disk)
		r := j.attached()
		deposit(t, j, 1, 1, int(r.size-r.end-1<<10-(r.end-HeaderSize))) // what is left has not got the reserve: a file for the next receiver is made
		flush(t, j)
		extra, err := j.makeBlank(demand{})
		must(t, err)
		j.putBack(extra)
		if n := len(j.spares()); n != 2 {
			t.Fatalf("%s: %d files", name, n)
		}
		j.SetLimits(l)
		j.stock.tend(t)
		if n := len(j.spares()); n != 1 {
			t.Errorf("%s: %d files are left, want the one that is needed", name, n)
		}
		disk.resize(0)
		big := make([]byte, 2000) // more than the receiver has left
		if _, err := j.Deposit(controlDraft(j, big)); err != nil {
			t.Errorf("%s: the journal cannot be left in order: %v", name, err)
		}
		flush(t, j)
		j.SetLimits(Limits{ReceiverBytes: 1 << 16, SpareBytes: -1})
		b, err := j.makeBlank(demand{})
		if !errors.Is(err, ErrFull) {
			t.Errorf("%s: the disk is full: %+v, %v", name, b, err)
		}
	}
}

// Proves RJ-5: names are not used twice, in one life or by the next one; what a restart finds and does not want goes.
func TestSparesHaveNamesOfTheirOwn(t *testing.T) {
	fs := vfs.NewMem()
	o := options(fs)
	full := o.ReceiverBytes
	o.SpareBytes = 2 * full
	j := active(t, o)
	until(t, j, "two spares", func(s Space) bool { return s.Spare == 2*full })
	o.SpareBytes = 4 * full
	j = reopen(t, j, o)
	until(t, j, "four spares", func(s Space) bool { return s.Spare == 4*full })
	var names []string
	for _, b := range j.spares() {
		names = append(names, b.name)
	}
	slices.Sort(names)
	if n := len(slices.Compact(names)); n != 4 || len(list(t, fs, spareSuffix)) != 4 {
		t.Errorf("%d names for four spares: %v; on disk %v", n, names, list(t, fs, spareSuffix))
	}
	settled(t, j, fs, "a restart")
	overwrite(t, fs, testDir+"/77"+spareSuffix, 0, make([]byte, HeaderSize)) // too short to be a receiver
	o.SpareBytes = full
	j = reopen(t, j, o)
	until(t, j, "one spare", func(s Space) bool { return s.Spare == full && len(list(t, fs, spareSuffix)) == 1 })
	settled(t, j, fs, "a restart with lower limits")
}

// A file with holes is no spare: nothing was set aside for it.
func TestSpareWithHoles(t *testing.T) {
	o := options(vfs.Default)
	o.Dir = t.TempDir() + "/j"
	o.SpareBytes = 2 * o.ReceiverBytes
	j := active(t, o)
	until(t, j, "two spares", func(s Space) bool { return s.Spare == o.SpareBytes })
	must(t, j.Close())
	hollow := o.Dir + "/55" + spareSuffix
	must(t, os.WriteFile(hollow, nil, 0o644))
	must(t, os.Truncate(hollow, o.ReceiverBytes))
	d := disk{fs: vfs.Default, dir: o.Dir}
	j = open(t, o)
	s := &stock{j: &Journal{disk: d}, stopping: make(chan struct{})}
	if _, ok, err := s.inspect("55" + spareSuffix); ok && err == nil {
		t.Error("a file with a hole is taken for a spare")
	}
	until(t, j, "two spares", func(s Space) bool { return s.Spare == o.SpareBytes })
}

// Proves RJ-9: a spare that is taken over was synced in this life, since the process that wrote it may have been killed; that it cannot be
// synced or read is final.
func TestSparesThatCannotBeTakenOver(t *testing.T) {
	broken := errors.New("input/output error")
	for _, kind := range []errorfs.OpKind{errorfs.OpFileSync, errorfs.OpFileReadAt} {
		var on atomic.Bool
		fs := onDisk(vfs.NewMem(), func(op errorfs.Op) error {
			if on.Load() && op.Kind == kind && strings.HasSuffix(op.Path, spareSuffix) {
				return broken
			}
			return nil
		})
		o := options(fs)
		o.SpareBytes = o.ReceiverBytes
		j := active(t, o)
		until(t, j, "a spare", func(s Space) bool { return s.Spare == o.SpareBytes })
		must(t, j.Close())
		on.Store(true)
		j, err := Open(o)
		must(t, err)
		for v, changed := j.View(); v.Err == nil; v, changed = j.View() {
			select {
			case <-changed:
			case <-time.After(20 * time.Second):
				t.Fatalf("%v: the journal goes on: %+v", kind, j.Space())
			}
		}
		if err := j.Close(); !errors.Is(err, broken) {
			t.Error(err)
		}
	}
}

// Proves RJ-5, RJ-9: a spare is filled in pieces, each of them synced, and then counts as held already; at last it is synced with its
// inode, gets its name, and the name is synced. One that goes takes its name from the disk.
func TestOrderOfMakingASpare(t *testing.T) {
	var j *Journal
	var steps []string
	step := map[errorfs.OpKind]string{errorfs.OpFileWriteAt: "write", errorfs.OpFileSyncData: "sync data", errorfs.OpFileSync: "sync",
		errorfs.OpRename: "rename", errorfs.OpRemove: "remove"}
	least := int64(1 << 60)
	mem := vfs.NewMem()
	fs := onDisk(mem, func(op errorfs.Op) error {
		if name := step[op.Kind]; j != nil && name != "" {
			if !strings.Contains(op.Path, spareSuffix) {
				name += " directory"
			}
			steps = append(steps, name)
		}
		if j != nil && op.Kind == errorfs.OpFileWriteAt {
			least = min(least, j.Space().Held)
		}
		return nil
	})
	k := idle(t, fs)
	k.locked(func() { k.limits.SpareBytes, k.limits.ReceiverBytes = 2*fillChunk, 2*fillChunk })
	task, _ := k.stock.next()
	j = k
	must(t, task())
	want := "write, sync data, write, sync data, sync, rename, sync directory"
	if got := strings.Join(steps, ", "); got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
	if held := j.Space().Held; least != held {
		t.Errorf("%d bytes counted while it was made, %d afterwards", least, held)
	}
	steps = nil
	b := j.spares()[0]
	j.locked(func() { j.stock.ready, j.stock.full = nil, &FullError{Reason: FullMaximum} })
	must(t, j.stock.drop(b))
	if got := strings.Join(steps, ", "); got != "remove, sync directory" {
		t.Error(got)
	}
	if j.Space().Full != nil {
		t.Error("room below the maximum is not noticed")
	}
	settled(t, j, mem, "a spare that went")
}

// A full disk while a spare is filled leaves nothing behind, and nor does a journal that closes: it does not wait for the whole file.
func TestSpareThatIsNotFinished(t *testing.T) {
	const pieces = 64
	for _, stop := range []bool{false, true} {
		var j *Journal
		var writes atomic.Int64
		mem := vfs.NewMem()
		closed := make(chan error, 1)
		fs := onDisk(mem, func(op errorfs.Op) error {
			if op.Kind != errorfs.OpFileWriteAt || !strings.Contains(op.Path, spareSuffix) || j == nil {
				return nil
			}
			switch n := writes.Add(1); {
			case n == 2 && stop:
				go func() { closed <- j.Close() }()
				<-j.stock.stopping
			case n == 2:
				return syscall.ENOSPC
			}
			return nil
		})
		k := live
		if !stop {
			k = idle
		}
		j = k(t, fs)
		if stop {
			j.SetLimits(Limits{ReceiverBytes: pieces * fillChunk, SpareBytes: pieces * fillChunk})
			if err := <-closed; err != nil {
				t.Errorf("closed while a spare was filled: %v", err)
			}
			if n := writes.Load(); n >= pieces {
				t.Errorf("%d pieces were written", n)
			}
		} else {
			j.locked(func() { j.limits.SpareBytes, j.limits.ReceiverBytes = pieces*fillChunk, pieces*fillChunk })
			task, _ := j.stock.next()
			must(t, task())
			if p := j.Space().Pending; p == nil || p.Reason != FullDisk || j.glance().Err != nil {
				t.Errorf("pending %v, the journal: %v", p, j.glance().Err)
			}
			settled(t, j, mem, "a full disk")
		}
		if left := append(list(t, mem, spareSuffix), list(t, mem, spareSuffix+tempSuffix)...); len(left) != 0 {
			t.Errorf("left over: %v", left)
		}
	}
}

// A spare that became a receiver is replaced at once.
func TestATakenSpareIsReplaced(t *testing.T) {
	o := options(vfs.NewMem())
	o.SpareBytes = o.ReceiverBytes
	j := active(t, o)
	until(t, j, "a spare", func(s Space) bool { return s.Spare == o.SpareBytes })
	j.appending.Lock()
	_, err := j.provide(demand{})
	j.appending.Unlock()
	must(t, err)
	j.locked(func() { j.stock.granted = 0 })
	until(t, j, "another spare", func(s Space) bool { return s.Spare == o.SpareBytes })
}

// Proves TR-5: a disk that is still full when the stock looks is no failure; a spare that could be made shows that there is space again, and how
// often the stock tries begins anew.
func TestTheStockFindsTheDiskFullOrNot(t *testing.T) {
	disk := newSmallDisk(1 << 30)
	j := idle(t, disk)
	s, size := j.stock, j.limits.full()
	full := &FullError{Reason: FullDisk}
	j.locked(func() { s.full, s.need, s.retry = full, 5000, lastRetry })
	disk.resize(0)
	if err := s.probe("9"+spareSuffix, 5000); err != nil || j.Space().Full == nil || s.retry != lastRetry {
		t.Errorf("still full: %v, %v, next try after %s", err, j.Space().Full, s.retry)
	}
	if err := s.make("10"+spareSuffix, size); err != nil || j.Space().Pending == nil || s.retry != firstRetry {
		t.Errorf("a spare on a full disk: %v, %v, next try after %s", err, j.Space().Pending, s.retry)
	}
	j.locked(func() { s.retry = lastRetry })
	if err := s.make("11"+spareSuffix, size); err != nil || s.retry != lastRetry {
		t.Errorf("once more: %v, next try after %s", err, s.retry)
	}
	if left := append(list(t, disk, spareSuffix), list(t, disk, spareSuffix+tempSuffix)...); len(left) != 0 {
		t.Errorf("left over: %v", left)
	}
	disk.resize(1 << 30)
	if err := s.make("12"+spareSuffix, size); err != nil || j.Space().Full != nil || j.Space().Pending != nil || s.retry != firstRetry {
		t.Errorf("space again: %v, %v, %v, next try after %s", err, j.Space().Full, j.Space().Pending, s.retry)
	}
}

// Proves TR-5 for how many spares there are: as many bytes as are wanted exactly, up to the maximum exactly; those aside stay beyond what is
// wanted, but not beyond the maximum. An attached receiver that has just begun, and a journal that is not active, want none by themselves.
func TestHowManySparesThereAre(t *testing.T) {
	for _, c := range []struct {
		name   string
		spares int // there are
		aside  int
		limit  int // SpareBytes, in spares
		most   int // MaximumBytes beyond what is held, in spares; 9: none
		idle   bool
		early  bool
		want   int // there are in the end
	}{
		{"none wanted", 2, 0, -1, 9, false, false, 0},
		{"one kept aside", 2, 1, -1, 9, false, false, 1},
		{"two kept aside", 2, 2, -1, 9, false, false, 2},
		{"kept aside beyond the maximum", 2, 2, -1, -1, false, false, 1},
		{"one wanted", 3, 0, 1, 9, false, false, 1},
		{"two wanted", 0, 0, 2, 9, false, false, 2},
		{"room for one", 0, 0, 2, 1, false, false, 1},
		{"by itself", 0, 0, 0, 9, false, false, 1},
		{"by itself, not before it is due", 0, 0, 0, 9, false, true, 0},
		{"by itself, when not active", 0, 0, 0, 9, true, false, 0},
		{"by itself, one too many", 2, 0, 0, 9, false, false, 1},
	} {
		j := idle(t, vfs.NewMem())
		s, size := j.stock, int64(0)
		if c.idle {
			must(t, j.SetState(Standby))
		}
		j.locked(func() {
			r := j.receivers[len(j.receivers)-1]
			r.allotted = 1 << 40 // nothing relies on a spare
			if j.limits.ReceiverBytes = 8 * r.end; c.early {
				j.limits.ReceiverBytes += 8
			}
			size = j.limits.full()
		})
		for i := range c.spares {
			must(t, s.make(spareName(200+i), size))
		}
		j.locked(func() {
			j.limits.SpareBytes, s.aside, s.tidy = int64(c.limit)*size, c.aside, true
			if c.most != 9 {
				j.limits.MaximumBytes = j.heldLocked() + int64(c.most)*size
			}
		})
		s.tend(t)
		if n := len(j.spares()); n != c.want {
			t.Errorf("%s: there are %d, want %d", c.name, n, c.want)
		}
	}
}
