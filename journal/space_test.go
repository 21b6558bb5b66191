package journal

import (
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal/entry"
)

// list returns the names in the journal's directory that end so.
func list(t testing.TB, fs vfs.FS, suffix string) []string {
	t.Helper()
	names, err := fs.List(testDir)
	must(t, err)
	var found []string
	for _, name := range names {
		if strings.HasSuffix(name, suffix) {
			found = append(found, name)
		}
	}
	return found
}

// try deposits one change behind the journal's history.
func try(j *Journal, size int) (entry.Header, error) {
	v, _ := j.View()
	return j.Deposit(Draft{Entries: changes(1, size), Session: 1, FactEpoch: 1, Before: v.After})
}

// Proves S19 for the journal, and TR-5: on a full disk a deposit is refused before it is numbered and before the last receiver is
// full; what leaves the journal in order still fits; with space again deposits go on by themselves. Nothing fails for good.
func TestDepositsOnAFullDisk(t *testing.T) {
	for name, spare := range map[string]int64{"no spares": -1, "one spare": 1 << 16} {
		t.Run(name, func(t *testing.T) {
			disk := newSmallDisk(400 << 10)
			o := options(disk)
			o.SpareBytes = spare
			j := active(t, o)
			for round := range 3 {
				var err error
				n := 0
				for ; err == nil; n++ {
					_, err = try(j, 700)
				}
				var full *FullError
				if !errors.As(err, &full) || !errors.Is(err, ErrFull) || full.Reason != FullDisk || !errors.Is(err, syscall.ENOSPC) || full.Bytes == 0 {
					t.Fatalf("round %d, after %d deposits: %v", round, n, err)
				}
				if n < 10 {
					t.Errorf("round %d: only %d deposits", round, n)
				}
				v := flush(t, j)
				if v.Err != nil {
					t.Fatal(v.Err)
				}
				// A file for one more receiver may have been kept back, not for two.
				for err = nil; err == nil; v, _ = j.View() {
					_, err = j.ChangeReceiver(1)
				}
				if !errors.Is(err, ErrFull) {
					t.Errorf("change of receiver: %v", err)
				}
				if again, _ := j.View(); again.Last != v.Last {
					t.Errorf("a refused change took numbers: %s, %s", v.Last, again.Last)
				}
				// In good order all the same.
				h, err := j.Deposit(Draft{Entries: []entry.Entry{{Code: entry.User, Type: entry.Switch, Data: make([]byte, 300)}}, Session: 1, FactEpoch: 1, Before: v.After})
				if err != nil || h.First <= v.Last { // it may change receivers
					t.Errorf("U SW: %v, %+v", err, h)
				}
				if _, err := j.Deposit(Draft{Entries: []entry.Entry{{Code: entry.Journal, Type: entry.IPL}}}); err != nil {
					t.Errorf("J IN: %v", err)
				}
				must(t, j.SetState(Standby))
				must(t, j.SetState(Active))
				if s := j.Space(); s.Full == nil || s.Full.Reason != FullDisk {
					t.Errorf("%+v", s)
				}
				j = reopen(t, j, o)
				for err = nil; err == nil; _, err = try(j, 700) {
				}
				if !errors.Is(err, ErrFull) {
					t.Fatalf("after a restart: %v", err)
				}
				_, changed := j.View()
				if j.Space().Full == nil {
					t.Fatal("not full")
				}
				disk.resize(200 << 10)
				<-changed
				until(t, j, "space again", func(s Space) bool { return s.Full == nil })
				if _, err := try(j, 700); err != nil {
					t.Fatalf("round %d, with space again: %v", round, err)
				}
				flush(t, j)
			}
			must(t, j.Verify(context.Background()))
		})
	}
}

// A copy refuses what it has no space for, and goes on where it stopped.
func TestCopyOnAFullDisk(t *testing.T) {
	j := active(t, options(vfs.NewMem()))
	for range 60 {
		deposit(t, j, 1, 2, 4000)
	}
	flush(t, j)
	r := mustReader(t, j, 0)
	defer r.Close()
	disk := newSmallDisk(150 << 10)
	c := open(t, options(disk))
	refused := map[bool]int{}
	for _, item := range drain(t, r) {
		for {
			v, changed := c.View()
			var err error
			if item.ReceiverHeader != nil {
				err = c.BeginReceiver(item.ReceiverHeader)
			} else {
				_, err = c.AppendRaw(item.Raw)
			}
			if err == nil {
				break
			}
			if !errors.Is(err, ErrFull) {
				t.Fatal(err)
			}
			if again, _ := c.View(); again.Last != v.Last || again.Attached != v.Attached {
				t.Fatalf("refused, and yet %+v", again)
			}
			refused[item.ReceiverHeader != nil]++
			disk.resize(30 << 10)
			if c.Space().Full != nil {
				<-changed
			}
		}
	}
	want, got := flush(t, j), flush(t, c)
	if got.Chain != want.Chain || got.Err != nil || refused[false] == 0 {
		t.Errorf("%+v, want %+v; refused %v", got, want, refused)
	}
	must(t, c.Verify(context.Background()))
}

// What the state file says changes in place.
func TestStateFileNeedsNoSpace(t *testing.T) {
	disk := newSmallDisk(1 << 20)
	disk.FS = crowdedDisk{disk.FS}
	j := active(t, options(disk))
	deposit(t, j, 1, 1, 10)
	flush(t, j)
	disk.resize(0)
	before := disk.refusals()
	for _, s := range []State{Standby, Inactive, Active, Standby} {
		must(t, j.SetState(s))
	}
	if n := disk.refusals() - before; n != 0 {
		t.Errorf("%d writes were refused", n)
	}
	j = reopen(t, j, options(disk))
	if j.State() != Standby {
		t.Errorf("state %s", j.State())
	}
	// Where there is none yet it says so, and nothing has changed.
	empty := newSmallDisk(1 << 10)
	k := open(t, options(empty))
	if err := k.SetState(Active); !errors.Is(err, ErrFull) || k.State() != Inactive {
		t.Errorf("%v, state %s", err, k.State())
	}
	empty.resize(1 << 20)
	must(t, k.SetState(Active))
	if k = reopen(t, k, options(empty)); k.State() != Active {
		t.Errorf("state %s", k.State())
	}
}

// crowdedDisk belongs to somebody else, too, who takes at once whatever becomes free: nothing can be renamed over another file and
// its space be had again.
type crowdedDisk struct{ vfs.FS }

func (d crowdedDisk) Rename(from, to string) error {
	if _, err := d.Stat(to); err == nil {
		return syscall.ENOSPC
	}
	return d.FS.Rename(from, to)
}

// Proves TR-5: the maximum holds for everything on the disk, spares included; deleting receivers and raising it help at once.
func TestMaximumBytes(t *testing.T) {
	fs := vfs.NewMem()
	o := options(fs)
	o.MaximumBytes = 5 << 16
	j := active(t, o)
	fill := func() int {
		for n := 0; ; n++ {
			_, err := try(j, 3000)
			if s := j.Space(); s.Held > s.Limit || s.Limit == 0 {
				t.Fatalf("%+v", s)
			}
			var full *FullError
			if err == nil {
				continue
			}
			if !errors.As(err, &full) || full.Reason != FullMaximum || full.Limit != j.Space().Limit || full.Bytes > full.Limit {
				t.Fatal(err)
			}
			return n
		}
	}
	if n := fill(); n < 50 {
		t.Errorf("only %d deposits", n)
	}
	v, changed := j.View()
	if s := j.Space(); s.Full == nil || s.Full.Reason != FullMaximum {
		t.Errorf("%+v", s)
	}
	must(t, j.DeleteReceivers(j.Receivers()[1].Number))
	<-changed
	if s := j.Space(); s.Full != nil {
		t.Errorf("after deletion %+v", s)
	}
	if n := fill(); n < 15 {
		t.Errorf("after deletion only %d deposits", n)
	}
	j.SetLimits(Limits{ReceiverBytes: o.ReceiverBytes, MaximumBytes: 7 << 16})
	if n := fill(); n < 15 {
		t.Errorf("with a higher maximum only %d deposits", n)
	}
	if again := flush(t, j); again.Err != nil || again.Last <= v.Last {
		t.Errorf("%+v", again)
	}
	j.SetLimits(Limits{ReceiverBytes: o.ReceiverBytes})
	for range 100 {
		_, err := try(j, 3000)
		must(t, err)
	}
	must(t, j.Verify(context.Background()))
}

// A receiver that holds facts is changed when it is old enough, by the next deposit or by its owner.
func TestChangeByAge(t *testing.T) {
	var now atomic.Int64
	o := options(vfs.NewMem())
	o.Host.Clock = movingClock{&now}
	o.MaxAge = time.Hour
	j := active(t, o)
	begin := time.Unix(0, 0)
	if j.Due(begin.Add(99 * time.Hour)) {
		t.Error("an empty journal is due")
	}
	_, err := j.ChangeReceiver(1)
	must(t, err)
	if j.Due(begin.Add(99 * time.Hour)) {
		t.Error("a receiver without facts is due")
	}
	deposit(t, j, 1, 1, 10)
	if j.Due(begin.Add(time.Hour)) || !j.Due(begin.Add(time.Hour+1)) {
		t.Errorf("due after an hour: %v, later: %v", j.Due(begin.Add(time.Hour)), j.Due(begin.Add(time.Hour+1)))
	}
	now.Store(int64(time.Hour))
	deposit(t, j, 1, 1, 10)
	if v, _ := j.View(); v.Attached != 1 {
		t.Errorf("changed too early: %+v", v)
	}
	now.Store(int64(time.Hour + 1))
	deposit(t, j, 1, 1, 10)
	if v, _ := j.View(); v.Attached != 2 || j.Due(begin.Add(time.Hour+2)) {
		t.Errorf("%+v", v)
	}
	j.SetLimits(Limits{ReceiverBytes: o.ReceiverBytes, MaxAge: time.Minute})
	now.Add(int64(2 * time.Minute))
	deposit(t, j, 1, 1, 10)
	v := flush(t, j)
	if v.Attached != 3 {
		t.Errorf("%+v", v)
	}
	must(t, j.Verify(context.Background()))
}

type movingClock struct{ now *atomic.Int64 }

func (c movingClock) Now() time.Time      { return time.Unix(0, c.now.Load()) }
func (c movingClock) Boot() time.Duration { return 0 }

// The disk is full now and then for everything that makes a file longer: the journal never fails, and holds what it took.
func TestNoSpaceNowAndThen(t *testing.T) {
	disk := newSmallDisk(1 << 40)
	o := options(disk)
	o.SpareBytes = o.ReceiverBytes
	j := active(t, o)
	rng := rand.New(rand.NewPCG(1, 2))
	disk.mu.Lock()
	disk.moody = func() bool { return rng.IntN(10) < 4 }
	disk.mu.Unlock()
	refused, taken := 0, 0
	for taken < 100 {
		_, changed := j.View()
		_, err := try(j, 5000)
		switch {
		case err == nil:
			taken++
		case errors.Is(err, ErrFull):
			if refused++; j.Space().Full != nil {
				<-changed
			}
		default:
			t.Fatal(err)
		}
	}
	v := flush(t, j)
	if refused == 0 {
		t.Error("nothing was refused: the test does not test")
	}
	must(t, j.Verify(context.Background()))
	must(t, j.Close())
	o.FS = disk.FS
	j = open(t, o)
	if again, _ := j.View(); again.Last != v.Last {
		t.Errorf("%+v, was %+v", again, v)
	}
}

// Proves TR-5: a removal needs no space, on a disk that is full to the last byte and where others take at once what becomes free. As often
// as it is wanted, and for the start that finishes one after a crash at any point of it.
func TestRewindOnAFullDisk(t *testing.T) {
	mem := vfs.NewCrashableMem()
	disk := newSmallDisk(10 << 20)
	c := &crasher{fs: mem, rng: rand.New(rand.NewPCG(1, 2)), percents: []int{0, 50, 100}, branches: make([]branch, 1)}
	disk.FS = crowdedDisk{errorfs.Wrap(mem, c)}
	o := options(disk)
	o.SpareBytes = -1
	j := active(t, o)
	for range 60 {
		deposit(t, j, 1, 1, 3000)
	}
	flush(t, j)
	must(t, j.SetState(Standby))
	c.set(func() { c.journal, c.images = j, nil })
	v, _ := j.View()
	var wanted []ident.Sequence
	for last := v.Last - 2; last > 10; last -= 7 {
		if b, err := j.BundleAt(last); err != nil || b.Last() != last {
			t.Fatal(b.Last(), err)
		}
		disk.resize(0)
		before := disk.refusals()
		must(t, j.Rewind(last))
		wanted = append(wanted, last)
		if n := disk.refusals() - before; n != 0 {
			t.Fatalf("%d writes were refused", n)
		}
	}
	if v, _ := j.View(); v.Attached > 2 || len(wanted) < 5 {
		t.Fatalf("no receiver went, or too few removals: %d, %+v", len(wanted), v)
	}
	c.set(func() { c.journal = nil })
	ends := map[ident.Sequence]bool{v.Last: true}
	for _, last := range wanted {
		ends[last] = true
	}
	for _, i := range c.taken() {
		full := newSmallDisk(0)
		full.FS = crowdedDisk{i.fs}
		for _, name := range list(t, i.fs, "") {
			full.sizes[testDir+"/"+name] = new(int64)
			*full.sizes[testDir+"/"+name] = int64(len(readFile(t, i.fs, testDir+"/"+name)))
		}
		full.resize(0)
		o.FS = full
		k, err := Open(o)
		if err != nil {
			t.Fatalf("%s: %v", i.name, err)
		}
		end, _ := k.View()
		if !ends[end.Last] || end.Torn || k.State() != Standby {
			t.Fatalf("%s: %+v", i.name, end)
		}
		if b := wanted[0]; end.Last > b {
			must(t, k.Rewind(b))
		}
		must(t, k.Verify(context.Background()))
		must(t, k.Close())
	}
}

// Proves TR-5 and BX-8: the file that a repair puts in the place of a rotten one has the space that the old one had set aside, in
// a journal that is open and in one that does not open.
func TestRepairReservesAgain(t *testing.T) {
	o := options(vfs.Default)
	o.Dir = t.TempDir() + "/j"
	o.ReceiverBytes = 4 << 20
	o.SpareBytes = -1
	j := active(t, o)
	first := deposit(t, j, 1, 3, 1000)
	deposit(t, j, 1, 3, 1000)
	flush(t, j)
	path := o.Dir + "/" + fileName(1)
	space := func() int64 {
		f, err := vfs.Default.Open(path)
		must(t, err)
		defer f.Close()
		return held(f)
	}
	before := j.Space()
	if space() < o.ReceiverBytes {
		t.Skip("the file system sets no space aside")
	}
	c := options(vfs.NewMem())
	c.ReceiverBytes = o.ReceiverBytes
	twin := journalTwin{copyOf(t, j, c)}
	flush(t, twin.j) // a copy whose files are not made yet is not asked
	damage := func() { overwrite(t, vfs.Default, path, HeaderSize+600, []byte{0xff, 0xff, 0xff}) }
	damage()
	rot, err := j.Inspect(t.Context(), 1, nil)
	if err != nil || rot == nil {
		t.Fatal(rot, err)
	}
	_, err = j.Repair(t.Context(), rot, []Twin{twin}, nil)
	must(t, err)
	if after := j.Space(); after.Held != before.Held || after.Unused != before.Unused || space() < o.ReceiverBytes {
		t.Errorf("before %+v, repaired %+v; the file has %d bytes", before, after, space())
	}
	must(t, j.Close())
	damage()
	_, err = Mend(t.Context(), o, true, []Twin{twin}, nil)
	must(t, err)
	if space() < o.ReceiverBytes {
		t.Errorf("repaired while it was closed the file has %d bytes", space())
	}
	j = open(t, o)
	if b, err := j.BundleAt(first.First); err != nil || b.Last() != first.Last() {
		t.Error(b.Last(), err)
	}
	must(t, j.Verify(context.Background()))
}
