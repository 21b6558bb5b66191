package journal

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/understudy-ha/understudy/internal/ident"
)

// Proves RJ-5 and TR-5 for receivers made ahead: they are whole and of zeros, a change takes one, another is made, a restart finds
// them again, and lower limits let them go.
func TestSparesAreMadeAhead(t *testing.T) {
	fs := vfs.NewMem()
	o := options(fs)
	o.SpareBytes = 2 * o.ReceiverBytes
	j := active(t, o)
	full := func(s Space) bool { return s.Spare == o.SpareBytes }
	until(t, j, "two spares", full)
	deposit(t, j, 1, 1, 10)
	until(t, j, "two spares again", full)
	flush(t, j) // the one that was taken has its name by then
	spares := list(t, fs, spareSuffix)
	if len(spares) != 2 {
		t.Fatalf("%v", spares)
	}
	for _, name := range spares {
		if b := readFile(t, fs, testDir+"/"+name); int64(len(b)) != o.ReceiverBytes || !allZero(b) {
			t.Errorf("spare %s has %d bytes, zeros %v", name, len(b), allZero(b))
		}
	}
	for range 3 {
		_, err := j.ChangeReceiver(1)
		must(t, err)
		deposit(t, j, 1, 1, 5000)
	}
	flush(t, j)
	s := until(t, j, "two spares after changes", full)
	r := j.Receivers()
	if last := r[len(r)-1]; last.Bytes != o.ReceiverBytes {
		t.Errorf("the attached receiver has %d bytes", last.Bytes)
	}
	v, _ := j.View()
	if s.Held != v.Bytes+s.Spare || s.Unused <= s.Spare || s.Unused >= s.Spare+o.ReceiverBytes || s.Full != nil {
		t.Errorf("%+v, receivers have %d bytes", s, v.Bytes)
	}
	must(t, j.Verify(context.Background()))
	must(t, j.Close())

	// Of the spares on disk one holds what a crash left of a header.
	spares = list(t, fs, spareSuffix)
	overwrite(t, fs, testDir+"/"+spares[0], 100, []byte{1})
	overwrite(t, fs, testDir+"/"+spareName(99)+tempSuffix, 0, []byte{0})
	j = open(t, o)
	until(t, j, "two spares after a restart", full)
	after := list(t, fs, spareSuffix)
	if strings.Contains(strings.Join(after, " "), spares[0]) || !strings.Contains(strings.Join(after, " "), spares[1]) || len(after) != 2 {
		t.Errorf("spares %v after the restart, before it %v of which the first was bad", after, spares)
	}
	if temp := list(t, fs, spareSuffix+tempSuffix); len(temp) != 0 {
		t.Errorf("%v", temp)
	}
	j.SetLimits(Limits{ReceiverBytes: o.ReceiverBytes, SpareBytes: -1})
	until(t, j, "no spare", func(s Space) bool { return s.Spare == 0 })
	must(t, j.Close())
	if left := list(t, fs, spareSuffix); len(left) != 0 {
		t.Errorf("%v", left)
	}
}

// By default a journal that is deposited here has one spare once it is in use, and a copy has none.
func TestSparesByDefault(t *testing.T) {
	j := active(t, options(vfs.NewMem()))
	deposit(t, j, 1, 1, 10)
	flush(t, j)
	if s := j.Space(); s.Spare != 0 {
		t.Errorf("a journal that is hardly used: %+v", s)
	}
	deposit(t, j, 1, 1, 10_000)
	until(t, j, "a spare", func(s Space) bool { return s.Spare == 1<<16 })
	c := copyOf(t, j, options(vfs.NewMem()))
	flush(t, c)
	if s := c.Space(); s.Spare != 0 || s.Unused == 0 {
		t.Errorf("a copy: %+v", s)
	}
}

// Every other error of the disk while a spare is made is final, as everywhere.
func TestSpareThatCannotBeWritten(t *testing.T) {
	broken := errors.New("input/output error")
	inject := errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind == errorfs.OpFileSyncData && strings.Contains(op.Path, spareSuffix) {
			return broken
		}
		return nil
	})
	o := options(errorfs.Wrap(vfs.NewMem(), inject))
	o.SpareBytes = o.ReceiverBytes
	j := active(t, o)
	for {
		v, changed := j.View()
		if v.Err != nil {
			break
		}
		<-changed
	}
	if err := j.Close(); !errors.Is(err, broken) || !errors.Is(err, ErrFailed) {
		t.Error(err)
	}
}

// On a real disk the space for a receiver is set aside in an instant, and given back when it is detached.
func TestDetachedReceiverIsTrimmed(t *testing.T) {
	o := options(vfs.Default)
	o.Dir = t.TempDir() + "/j"
	o.ReceiverBytes = 4 << 20
	o.SpareBytes = -1
	j := active(t, o)
	for i := range 4 {
		if i == 2 {
			o.SpareBytes = o.ReceiverBytes
			j = reopen(t, j, o)
			until(t, j, "a spare", func(s Space) bool { return s.Spare == o.ReceiverBytes })
		}
		deposit(t, j, 1, 3, 1000)
		if s := j.Space(); s.Unused < o.ReceiverBytes/2 {
			t.Errorf("%+v", s)
		}
		_, err := j.ChangeReceiver(1)
		must(t, err)
	}
	deposit(t, j, 1, 1, 10)
	flush(t, j)
	for _, r := range j.Receivers() {
		info, err := vfs.Default.Stat(o.Dir + "/" + fileName(r.Number))
		must(t, err)
		if info.Size() != r.Bytes || !r.Attached && r.Bytes > 4*HeaderSize {
			t.Errorf("%+v, the file has %d bytes", r, info.Size())
		}
	}
	must(t, j.Verify(context.Background()))
	last := j.Receivers()[1].Last
	must(t, j.Rewind(last-1)) // J NR goes: a trimmed receiver is attached again
	for range 100 {
		deposit(t, j, 1, 1, 5000)
	}
	flush(t, j)
	must(t, j.Verify(context.Background()))
	j = reopen(t, j, o)
	must(t, j.Verify(context.Background()))
}

// Proves RJ-9 for a removal that ends in a receiver made ahead: zeros follow the end again, and a copy of it is equal.
func TestRewindIntoASpare(t *testing.T) {
	fs := vfs.NewMem()
	o := options(fs)
	o.SpareBytes = o.ReceiverBytes
	j := active(t, o)
	deposit(t, j, 1, 1, 10)
	until(t, j, "a spare", func(s Space) bool { return s.Spare == o.SpareBytes })
	_, err := j.ChangeReceiver(1)
	must(t, err)
	keep := deposit(t, j, 1, 1, 100).Last()
	for range 30 {
		deposit(t, j, 1, 1, 6000)
	}
	flush(t, j)
	must(t, j.Rewind(keep))
	end := contentSize(t, j, 2)
	b := readFile(t, fs, receiverPath(2))
	if int64(len(b)) != o.ReceiverBytes || !allZero(b[end:]) {
		t.Errorf("%d bytes, zeros behind %d: %v", len(b), end, allZero(b[end:]))
	}
	deposit(t, j, 2, 1, 100)
	v := flush(t, j)
	j = reopen(t, j, o)
	if again, _ := j.View(); again.Last != v.Last || again.Torn {
		t.Errorf("%+v", again)
	}
	c := copyOf(t, j, options(vfs.NewMem()))
	must(t, c.Close())
	if got := readFile(t, c.disk.fs, receiverPath(ident.ReceiverNumber(2))); !bytes.Equal(got[:end], readFile(t, fs, receiverPath(2))[:end]) {
		t.Error("the copy differs")
	}
}
