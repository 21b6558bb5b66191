package journal

import (
	"errors"
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// counted fails when the journal counts other bytes than it holds: no call is under way, so nothing may be counted as granted, and
// what it counts is what its files have, with what the stock tries in the background.
func counted(t *testing.T, j *Journal, disk *smallDisk, after string) {
	t.Helper()
	j.mu.RLock()
	defer j.mu.RUnlock()
	if j.stock.granted != 0 {
		t.Fatalf("after %s %d bytes are counted as granted", after, j.stock.granted)
	}
	disk.mu.Lock()
	defer disk.mu.Unlock()
	var on int64
	for name, size := range disk.sizes {
		if strings.HasSuffix(name, ".rcv") || strings.HasSuffix(strings.TrimSuffix(name, tempSuffix), spareSuffix) {
			on += *size
		}
	}
	if held := j.heldLocked(); held < on || j.limits.MaximumBytes > 0 && held > j.limits.MaximumBytes {
		t.Fatalf("after %s %d bytes are counted, %d are on the disk, %d may be", after, held, on, j.limits.MaximumBytes)
	}
}

// rests waits until the stock has ended what it tried in the background, and returns what the journal holds then, and why it is full.
func rests(t *testing.T, j *Journal) (held int64, full *FullError) {
	t.Helper()
	busy := true
	until(t, j, "the stock rests", func(Space) bool {
		j.locked(func() { busy, held, full = j.stock.making != 0, j.heldLocked(), j.stock.full })
		return !busy
	})
	return held, full
}

// Proves TR-5: a file that is only there to see whether there is space again counts while it is there, as does a spare that goes: deposits
// find no room in it below the maximum.
func TestWhatIsTriedAndWhatGoesCounts(t *testing.T) {
	var j *Journal
	looks := 0
	mem := vfs.NewMem()
	fs := onDisk(mem, func(op errorfs.Op) error {
		if j == nil || !strings.Contains(op.Path, spareSuffix) || op.Kind != errorfs.OpFileSyncData && op.Kind != errorfs.OpRemove {
			return nil
		}
		looks++
		if held, disk := j.Space().Held, heldOnDisk(t, mem); held < disk {
			t.Errorf("%v of %s: %d bytes are counted, %d are on the disk", op.Kind, op.Path, held, disk)
		}
		return nil
	})
	k := idle(t, fs)
	j = k
	s := j.stock
	j.locked(func() { s.full, s.need, s.again = &FullError{Reason: FullDisk}, 8<<10, true })
	s.tend(t)
	if j.Space().Full != nil || looks != 2 {
		t.Errorf("a probe that finds space: %v, looked %d times", j.Space().Full, looks)
	}
	settled(t, j, mem, "a probe")
	b, err := j.makeBlank(demand{})
	must(t, err)
	j.putBack(b)
	looks = 0
	j.locked(func() { j.limits.MaximumBytes = j.heldLocked() - 1 })
	s.tend(t)
	if len(j.spares()) != 0 || looks != 1 {
		t.Errorf("a spare beyond the maximum: %+v, looked %d times", j.spares(), looks)
	}
	settled(t, j, mem, "a spare that went")
}

// Proves TR-5: who is refused because of what the stock tries just then may try again when that is over.
func TestRefusedBesideATry(t *testing.T) {
	for what, fails := range map[string]bool{"there is space": false, "there is none": true} {
		var j *Journal
		fs := onDisk(vfs.NewMem(), func(op errorfs.Op) error {
			if j == nil || !strings.Contains(op.Path, spareSuffix) || op.Kind != errorfs.OpFileSyncData {
				return nil
			}
			if err := j.refuse(nil, 1); !errors.Is(err, ErrFull) || j.Space().Full.Reason != FullMaximum {
				t.Errorf("%v, full: %v", err, j.Space().Full)
			}
			if fails {
				return syscall.ENOSPC
			}
			return nil
		})
		k := idle(t, fs)
		j = k
		j.locked(func() {
			j.limits.MaximumBytes = 1 << 30
			j.stock.full, j.stock.need, j.stock.again = &FullError{Reason: FullDisk}, 8<<10, true
		})
		task, _ := j.stock.next()
		if task == nil {
			t.Fatal("nothing is tried")
		}
		must(t, task())
		if full := j.Space().Full; full != nil {
			t.Errorf("%s: it stays full: %v", what, full)
		}
	}
}

// Proves TR-5: whatever is refused, by the maximum or by the disk, leaves nothing counted that is not there: else a journal would fill up
// with what it does not hold. And whoever finds space says so: the journal is not full any more.
func TestSpaceIsCountedOnce(t *testing.T) {
	for seed := range uint64(30) {
		rng := rand.New(rand.NewPCG(seed, 7))
		disk := newSmallDisk(1 << 40)
		o := options(disk)
		o.SpareBytes = -1
		o.MaximumBytes = 6<<16 + rng.Int64N(1<<16)
		j := active(t, o)
		refused := map[string]int{}
		for range 60 {
			disk.mu.Lock()
			disk.moody = nil
			if rng.IntN(2) == 0 {
				disk.moody = func() bool { return true } // a file grows no more
			}
			disk.mu.Unlock()
			what, err := "a deposit", error(nil)
			switch rng.IntN(8) {
			case 0:
				what = "a change of receiver"
				_, err = j.ChangeReceiver(1)
			case 1:
				what = "a deletion"
				if r := j.Receivers(); len(r) > 2 {
					err = j.DeleteReceivers(r[0].Number)
				}
			default:
				before, _ := rests(t, j)
				_, err = try(j, 500+rng.IntN(20000))
				if held, full := rests(t, j); err == nil && held > before && full != nil {
					t.Fatalf("seed %d: it is full although it has just found space: %+v", seed, full)
				}
			}
			var full *FullError
			switch {
			case errors.As(err, &full):
				refused[full.Reason]++
			case err != nil:
				t.Fatalf("seed %d: %s: %v", seed, what, err)
			}
			flush(t, j)
			counted(t, j, disk, what)
		}
		must(t, j.Close())
		if len(refused) == 0 {
			t.Errorf("seed %d: nothing was refused", seed)
		}
	}
}

// A spare is taken for what it has space for: the header, what comes first, and what must fit behind. One byte less, and it stays.
func TestSpareThatIsJustLargeEnough(t *testing.T) {
	o := options(vfs.NewMem())
	o.SpareBytes = -1
	j := active(t, o)
	d := demand{size: 5000}
	j.mu.RLock()
	alone, beside := j.needLocked(begin, d, 0), j.needLocked(begin, d, 1)
	control := j.needLocked(begin, demand{size: 5000, control: true}, 0)
	reserve := j.limits.reserve()
	j.mu.RUnlock()
	if alone != begin+5000+nextBytes+reserve || beside != alone-reserve || control != beside {
		t.Fatalf("needed: %d alone, %d beside a spare, %d for what may use the reserve %d", alone, beside, control, reserve)
	}
	for _, c := range []struct {
		ready []int64
		taken int // -1: none
	}{
		{[]int64{alone}, 0}, {[]int64{alone - 1}, -1}, {[]int64{beside, beside}, 0}, {[]int64{beside - 1, beside}, 1}, {[]int64{beside - 1, beside - 1}, -1},
		{[]int64{beside - 1, beside - 1, beside}, 2},
	} {
		j.mu.Lock()
		j.stock.ready = nil
		for i, size := range c.ready {
			j.stock.ready = append(j.stock.ready, blank{name: spareName(100 + i), size: size, allotted: size})
		}
		j.stock.serial, j.stock.aside = 1000, 5
		j.mu.Unlock()
		b, err := j.provide(d)
		must(t, err)
		j.mu.Lock()
		left, granted, aside := len(j.stock.ready), j.stock.granted, j.stock.aside
		j.stock.ready, j.stock.granted, j.stock.aside = nil, 0, 0
		j.mu.Unlock()
		if c.taken < 0 {
			if b.name == spareName(100) || b.name == spareName(101) || left != len(c.ready) || aside != 5 {
				t.Errorf("%+v: took %+v, left %d, aside %d", c, b, left, aside)
			}
		} else if b.name != spareName(100+c.taken) || left != len(c.ready)-1 || aside != 4 {
			t.Errorf("%+v: took %+v, left %d, aside %d", c, b, left, aside)
		}
		if granted < b.allotted {
			t.Errorf("%+v: %d bytes are counted for %+v", c, granted, b)
		}
	}
}
