package journal

import (
	"errors"
	"strings"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/understudy-ha/understudy/journal/entry"
)

// spares returns the files that wait to be receivers.
func (j *Journal) spares() []blank {
	j.mu.RLock()
	defer j.mu.RUnlock()
	return append([]blank(nil), j.stock.ready...)
}

// used is a journal with an attached receiver of which only so many bytes behind its end are certain to have space. Nothing is made ahead.
func used(t *testing.T, o Options, certain int64) (*Journal, *receiver) {
	t.Helper()
	o.SpareBytes = -1
	j := active(t, o)
	deposit(t, j, 1, 1, 100)
	flush(t, j)
	r := j.attached()
	j.mu.Lock()
	r.allotted = r.end + certain
	j.mu.Unlock()
	return j, r
}

// heldOnDisk returns the bytes of all receivers and spares in the journal's directory.
func heldOnDisk(t *testing.T, fs vfs.FS) (sum int64) {
	t.Helper()
	for _, name := range list(t, fs, "") {
		if strings.HasSuffix(name, ".rcv") || strings.Contains(name, spareSuffix) {
			info, err := fs.Stat(testDir + "/" + name)
			must(t, err)
			sum += info.Size()
		}
	}
	return sum
}

// settled fails unless what the journal counts is what it has.
func settled(t *testing.T, j *Journal, fs vfs.FS, after string) {
	t.Helper()
	j.mu.RLock()
	granted, making, held := j.stock.granted, j.stock.making, j.heldLocked()
	j.mu.RUnlock()
	if disk := heldOnDisk(t, fs); granted != 0 || making != 0 || held != disk {
		t.Errorf("after %s: %d bytes are granted, %d in the making; %d count as held, %d are on disk", after, granted, making, held, disk)
	}
}

// Proves TR-5: whatever size a demand has, who was told that it fits finds space for it, for J NR behind it, and for what leaves the
// journal in order: in the receiver, or in a file for the next one. What fits already costs nothing.
func TestFitLeavesARest(t *testing.T) {
	const certain = 8 << 10
	for _, control := range []bool{false, true} {
		for _, spare := range []bool{false, true} {
			for size := int64(certain - 5000); size < certain+600; size += 61 {
				fs := vfs.NewMem()
				j, r := used(t, options(fs), certain)
				if spare {
					b, err := j.makeBlank(demand{})
					must(t, err)
					j.putBack(b)
				}
				before, had := j.Space(), len(j.spares())
				d := demand{size, control}
				must(t, j.fit(r, d))
				if rest := r.allotted - r.end - size; rest < nextBytes {
					t.Fatalf("control %v, spare %v, %d bytes: %d are left behind it", control, spare, size, rest)
				} else if !control && rest < nextBytes+j.limits.reserve() && len(j.spares()) == 0 {
					t.Fatalf("spare %v, %d bytes: %d are left behind it, and there is no file for the next receiver", spare, size, rest)
				}
				reserve := j.limits.reserve()
				if control || spare {
					reserve = 0
				}
				if fits := size+nextBytes+reserve <= certain; fits && (j.Space() != before || len(j.spares()) != had) {
					t.Fatalf("control %v, spare %v, %d bytes: it fitted, and yet %+v became %+v", control, spare, size, before, j.Space())
				}
				must(t, j.Close())
			}
		}
	}
}

// Proves TR-5: on a disk known to be full facts are refused without trying it again, which the stock does now and then; what leaves
// the journal in order is tried every time, and that it found space does not say that facts would. The maximum is looked at every time.
func TestWhoTriesAFullDisk(t *testing.T) {
	disk := newSmallDisk(1 << 30)
	j, r := used(t, options(disk), 1<<10)
	fact, control := demand{2 << 10, false}, demand{1500, true}
	full := func(reason string) *FullError {
		j.mu.Lock()
		defer j.mu.Unlock()
		j.stock.full = &FullError{Journal: j.disk.id, Reason: reason, Err: syscall.ENOSPC}
		return j.stock.full
	}
	said := full(FullDisk)
	before := heldOnDisk(t, disk)
	if err := j.fit(r, fact); err != error(said) {
		t.Errorf("a fact on a full disk: %v", err)
	}
	if _, err := j.makeBlank(fact); err != error(said) {
		t.Errorf("a receiver for a fact on a full disk: %v", err)
	}
	if now := heldOnDisk(t, disk); now != before || disk.refusals() != 0 {
		t.Errorf("the disk was tried: %d bytes, were %d", now, before)
	}
	if err := j.fit(r, control); err != nil || r.allotted < r.end+control.size+nextBytes {
		t.Errorf("what leaves the journal in order was not tried: %v", err)
	}
	b, err := j.makeBlank(demand{control: true})
	must(t, err)
	j.putBack(b)
	if j.Space().Full != said {
		t.Error("space for what leaves the journal in order counts as space for facts")
	}
	settled(t, j, disk, "control entries")

	for what, try := range map[string]func() error{
		"grow": func() error {
			j.mu.Lock()
			r.allotted = r.end + 1<<10
			j.stock.ready = nil
			j.mu.Unlock()
			return j.fit(r, fact)
		},
		"blank": func() error { b, err := j.makeBlank(fact); j.putBack(b); return err },
	} {
		full(FullMaximum)
		_, changed := j.View()
		if err := try(); err != nil {
			t.Errorf("%s: the maximum may have been raised since: %v", what, err)
		}
		if j.Space().Full != nil {
			t.Errorf("%s: it found space and is still said to be full", what)
		}
		select {
		case <-changed:
		default:
			t.Errorf("%s: nobody was told", what)
		}
		_, changed = j.View()
		must(t, try())
		select {
		case <-changed:
			t.Errorf("%s: told although nothing changed", what)
		default:
		}
	}
}

// Proves TR-5: a receiver grows up to the maximum and not beyond it. The zeros that stand behind its space already, not synced
// yet, count as held, also where a lower maximum was set since.
func TestGrowthAndTheMaximum(t *testing.T) {
	fs := vfs.NewMem()
	j, r := used(t, options(fs), 1<<10)
	limit := func(more int64) {
		j.mu.Lock()
		j.limits.MaximumBytes = j.heldLocked() + more
		j.mu.Unlock()
	}
	for _, more := range []int64{0, -10_000} {
		j.mu.Lock()
		r.allotted = r.end + 1<<10
		j.mu.Unlock()
		limit(more)
		if err := j.fit(r, demand{3 << 10, false}); err != nil || r.allotted < r.end+3<<10+nextBytes {
			t.Errorf("%d bytes below the maximum, within the zeros: %v", more, err)
		}
	}
	j.mu.Lock()
	r.allotted = r.size
	beyond := r.size - r.end + 3<<10
	j.mu.Unlock()
	limit(20 << 10) // less than a step
	must(t, j.fit(r, demand{beyond, false}))
	if s := j.Space(); s.Held > s.Limit || r.allotted < r.end+beyond+nextBytes {
		t.Errorf("%+v", s)
	}
	settled(t, j, fs, "a growth up to the maximum")
	var full *FullError
	if err := j.fit(r, demand{beyond + 20<<10, false}); !errors.As(err, &full) || full.Reason != FullMaximum {
		t.Errorf("beyond the maximum: %v", err)
	}
	b, err := j.makeBlank(demand{control: true})
	if !errors.As(err, &full) {
		t.Errorf("a file beyond the maximum: %+v, %v", b, err)
	}
	limit(2*HeaderSize + j.limits.reserve()) // less than a file of zeros has
	b, err = j.makeBlank(demand{})
	must(t, err)
	j.putBack(b)
	if s := j.Space(); s.Held > s.Limit {
		t.Errorf("a small file: %+v", s)
	}
	settled(t, j, fs, "a small file")
}

// Proves TR-5: on a nearly full disk what is needed is taken where a whole step is not to be had; what is not taken leaves nothing behind.
func TestNeedOnANearlyFullDisk(t *testing.T) {
	disk := newSmallDisk(1 << 30)
	j, r := used(t, options(disk), 1<<10)
	j.mu.Lock()
	r.allotted = r.size
	size := r.size - r.end + 3<<10
	j.mu.Unlock()
	disk.resize(10 << 10)
	if err := j.fit(r, demand{size, true}); err != nil || disk.refusals() == 0 {
		t.Errorf("growth: %v, %d refusals", err, disk.refusals())
	}
	settled(t, j, disk, "a growth by what is needed")
	disk.resize(2*HeaderSize + j.limits.reserve())
	refused := disk.refusals()
	b, err := j.makeBlank(demand{})
	if err != nil || disk.refusals() == refused {
		t.Fatalf("a file: %v, %d refusals", err, disk.refusals())
	}
	j.putBack(b)
	settled(t, j, disk, "a file of what is needed")
	disk.resize(1 << 10)
	for what, try := range map[string]func() error{
		"a growth that was refused": func() error { return j.fit(r, demand{r.allotted - r.end + 8<<10, true}) },
		"a file that was refused":   func() error { _, err := j.makeBlank(demand{control: true}); return err },
	} {
		if err := try(); !errors.Is(err, ErrFull) || j.glance().Err != nil {
			t.Errorf("%s: %v, the journal: %v", what, err, j.glance().Err)
		}
		settled(t, j, disk, what)
	}
	if temp := list(t, disk, tempSuffix); len(temp) != 1 { // the one that was put back
		t.Errorf("left over: %v", temp)
	}
}

// controlDraft is a U SW with so much data, which may use the reserve.
func controlDraft(j *Journal, data []byte) Draft {
	return Draft{Entries: []entry.Entry{{Code: entry.User, Type: entry.Switch, Data: data}}, Session: 1, FactEpoch: 1, Before: j.glance().After}
}

// onDisk calls see for each operation on the files of the journal, and fails what it says.
func onDisk(fs vfs.FS, see func(op errorfs.Op) error) vfs.FS {
	return errorfs.Wrap(fs, errorfs.InjectorFunc(see))
}

// Proves TR-5: what a growth or a new file is about to take counts from the moment on at which it is decided, so that the stock does not
// take it beside.
func TestWhatIsTakenCountsBefore(t *testing.T) {
	var j *Journal
	var least int64
	mem := vfs.NewMem()
	fs := onDisk(mem, func(op errorfs.Op) error {
		if j != nil && op.Kind == errorfs.OpFileWriteAt {
			least = min(least, j.Space().Held)
		}
		return nil
	})
	k, r := used(t, options(fs), 1<<10)
	k.mu.Lock()
	r.allotted = r.size
	k.mu.Unlock()
	j = k
	for what, try := range map[string]func(){
		"growth": func() { must(t, j.fit(r, demand{r.allotted - r.end + 3<<10, false})) },
		"file": func() {
			b, err := j.makeBlank(demand{})
			must(t, err)
			j.putBack(b)
		},
	} {
		least = 1 << 60
		try()
		if held := j.Space().Held; least < held || least > held+j.limits.full() {
			t.Errorf("%s: %d bytes counted while it was made, %d afterwards", what, least, held)
		}
		settled(t, j, mem, what)
	}
	held := j.Space().Held
	must(t, j.SetAside(1))
	j.mu.Lock()
	j.stock.aside = 1
	j.mu.Unlock()
	b, err := j.provide(demand{})
	must(t, err)
	if now := j.Space().Held; now != held {
		t.Errorf("a file on its way to be a receiver does not count: %d, were %d", now, held)
	}
	if j.mu.RLock(); j.stock.aside != 0 {
		t.Errorf("%d are still to be kept aside", j.stock.aside)
	}
	j.mu.RUnlock()
	j.putBack(b)
	settled(t, j, mem, "putting it back")
}

// Proves S18 and TR-5: space that was written as zeros is certain once they are synced. A sync that says that there is none makes no
// spare; every other error is final, and nothing smaller is tried after it.
func TestZerosAreSpaceOnceTheyAreSynced(t *testing.T) {
	broken := errors.New("input/output error")
	for _, c := range []struct {
		name  string
		kind  errorfs.OpKind
		err   error
		final bool
	}{
		{"no space at the sync", errorfs.OpFileSyncData, syscall.ENOSPC, false},
		{"a sync that fails", errorfs.OpFileSyncData, broken, true},
		{"a write that fails", errorfs.OpFileWriteAt, broken, true},
	} {
		times := 0
		var fails error
		mem := vfs.NewMem()
		fs := onDisk(mem, func(op errorfs.Op) error {
			if op.Kind == c.kind && strings.Contains(op.Path, spareSuffix) && fails != nil {
				times++
				return fails
			}
			return nil
		})
		j, _ := used(t, options(fs), 1<<10)
		fails = c.err
		_, err := j.makeBlank(demand{})
		fails = nil
		if final := j.glance().Err != nil; err == nil || final != c.final || errors.Is(err, ErrFull) == c.final || c.final && times != 1 {
			t.Errorf("%s: %v after %d attempts; the journal: %v", c.name, err, times, j.glance().Err)
		}
		if temp := list(t, mem, tempSuffix); !c.final && len(temp) != 0 {
			t.Errorf("%s: left over: %v", c.name, temp)
		}
		if !c.final {
			settled(t, j, mem, c.name)
		}
	}
	once := false
	fs := onDisk(vfs.NewMem(), func(op errorfs.Op) error {
		if once && op.Kind == errorfs.OpFileSyncData {
			once = false
			return broken
		}
		return nil
	})
	j, r := used(t, options(fs), 1<<10)
	j.mu.Lock()
	r.allotted = r.size
	j.mu.Unlock()
	once = true
	if err := j.fit(r, demand{r.allotted - r.end + 3<<10, false}); !errors.Is(err, broken) || j.glance().Err == nil {
		t.Errorf("the sync of a growth failed: %v, the journal: %v", err, j.glance().Err)
	}
}
