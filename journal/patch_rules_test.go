package journal

import (
	"bytes"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/understudy-ha/understudy/internal/ident"
)

// Proves BX-8, I9: what was written to the attached receiver after it was made anew is added before it is put in place, however long the file has
// become, and nothing else is put in place. Space that was set aside in the old file only does not count.
func TestInstallTakesWhatWasWrittenSince(t *testing.T) {
	for _, c := range []struct {
		name   string
		bytes  []int // of the bundles written since
		rotten bool  // the last of them
	}{
		{"nothing", nil, false},
		{"a bundle", []int{500}, false},
		{"more than there were zeros", []int{500, 600 << 10, 600 << 10}, false},
		{"a bundle that is rotten", []int{500, 500}, true},
	} {
		fs := vfs.NewMem()
		o := options(fs)
		o.ReceiverBytes, o.RingBytes, o.SpareBytes = 8<<20, 1, -1
		j := active(t, o)
		deposit(t, j, 1, 2, 500)
		deposit(t, j, 1, 2, 500)
		flush(t, j)
		k, err := j.know(1)
		must(t, err)
		p, err := j.disk.newPatch(t.Context(), nil, k.header, k.raw, nil)
		must(t, err)
		must(t, p.fill(k.want.last, nil))
		must(t, p.finish(p.r.end, k.size))
		for _, n := range c.bytes {
			deposit(t, j, 1, 1, n)
			flush(t, j)
		}
		r, v := j.attached(), j.glance()
		if grown := r.size > k.size; grown != (len(c.bytes) > 2) {
			t.Fatalf("%s: %d bytes, %d before", c.name, r.size, k.size)
		}
		if c.rotten {
			overwrite(t, fs, receiverPath(1), r.end-100, []byte{1, 2, 3})
		}
		before := readFile(t, fs, receiverPath(1))
		j.locked(func() { r.allotted = r.size + 1<<20 })
		if _, err = j.install(p, k); (err == nil) == c.rotten {
			t.Errorf("%s: %v", c.name, err)
		}
		p.discard()
		if have := readFile(t, fs, receiverPath(1)); !bytes.Equal(have, before) {
			t.Errorf("%s: the file is another one", c.name)
		}
		var allotted int64
		j.locked(func() { allotted = r.allotted })
		if !c.rotten && allotted != r.size {
			t.Errorf("%s: %d bytes count as set aside, the file has %d", c.name, allotted, r.size)
		}
		deposit(t, j, 1, 1, 100) // it goes on
		flush(t, j)
		if c.rotten {
			continue
		}
		must(t, j.Verify(t.Context()))
		j = reopen(t, j, o)
		if w := j.glance(); w.Last != v.Last+1 {
			t.Errorf("%s: it ends at %s after a restart, want %s", c.name, w.Last, v.Last+1)
		}
	}
}

// Proves BX-8: what is known in memory is written anew without asking anybody.
func TestRepairThatNeedsNobody(t *testing.T) {
	p := newPair(t)
	overwrite(t, p.fs, receiverPath(4), 20, []byte{1, 2, 3})
	rot := inspected(t, p.j)
	if len(rot) != 1 || rot[0].Kind != RotHeader {
		t.Fatal(rot)
	}
	for _, twins := range [][]Twin{{silent{}}, nil} {
		if _, err := p.j.Repair(t.Context(), rot[0], twins, nil); err != nil {
			t.Errorf("%d twins: %v", len(twins), err)
		}
		p.sound(t)
		overwrite(t, p.fs, receiverPath(ident.ReceiverNumber(4)), 20, []byte{1, 2, 3})
	}
}
