package journal

import (
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// A file that is whole in itself, and of another branch of the same journal, is rot: each bundle continues the one before, and the end is
// not what was written here. Nothing is repaired from a copy of that branch. Proves BX-8, I9.
func TestWholeFileOfAnotherBranchIsRot(t *testing.T) {
	fs := vfs.NewMem()
	o := options(fs)
	o.RingBytes = 1
	j := active(t, o)
	for range 5 {
		deposit(t, j, 1, 2, 500)
	}
	fork := flush(t, j).Last
	for range 5 {
		deposit(t, j, 1, 2, 500)
	}
	flush(t, j)
	there := o
	there.Dir = "twin/journals/orders/a"
	twin := journalTwin{copyOf(t, j, there)}
	flush(t, twin.j)
	must(t, j.Rewind(fork))
	for range 5 {
		deposit(t, j, 2, 2, 500)
	}
	last := flush(t, j).Last
	if v, _ := twin.j.View(); v.Last != last {
		t.Fatalf("the branches end at %s and %s", v.Last, last)
	}
	other := readFile(t, fs, there.Dir+"/"+fileName(1))
	overwrite(t, fs, receiverPath(1), HeaderSize, other[HeaderSize:j.attached().end])
	rot := inspected(t, j)
	if len(rot) != 1 || rot[0].Kind != RotForeign {
		t.Fatalf("found %v", rot)
	}
	if done, err := j.Repair(t.Context(), rot[0], []Twin{twin}, nil); err == nil {
		t.Errorf("another branch was taken: %+v", done)
	}
}
