package journal

import (
	"reflect"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal/entry"
)

// An echo takes numbers, and changes nothing of what the journal knows of the history. Proves RJ-7.
func TestEchoLeavesTheHistoryAlone(t *testing.T) {
	o := options(vfs.NewMem())
	j := active(t, o)
	deposit(t, j, 1, 3, 10)
	before := flush(t, j)
	if end, err := j.LastEcho(); err != nil || !end.IsZero() {
		t.Fatal(end, err)
	}
	echo := func(at ident.Position, n int) {
		t.Helper()
		if _, err := j.Deposit(Draft{Entries: changes(n, 1000), Session: 2, Before: at, FactEpoch: 2, Flags: entry.FlagEcho}); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 40 { // over several receivers
		echo(pos(2, uint64(10+3*i)), 3)
	}
	after := flush(t, j)
	if after.After != before.After || after.DurableAfter != before.DurableAfter || !reflect.DeepEqual(after.Runs, before.Runs) || after.Last < before.Last+120 || after.Attached == before.Attached {
		t.Fatalf("before %+v, after %+v", before, after)
	}
	j = reopen(t, j, o)
	v, _ := j.View()
	if v.After != before.After || !reflect.DeepEqual(v.Runs, before.Runs) {
		t.Fatalf("reopened: %+v, want %+v", v, before)
	}
	if end, err := j.LastEcho(); err != nil || end != pos(2, 10+120) {
		t.Fatal(end, err)
	}
	deposit(t, j, 2, 2, 10) // facts continue its history
	if v := flush(t, j); v.After != pos(2, uint64(before.After.History)+2) {
		t.Fatalf("%+v", v)
	}
	if end, err := j.LastEcho(); err != nil || end != pos(2, 10+120) {
		t.Fatal(end, err)
	}
}
