package replica

import (
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal"
)

// Proves TR-4: a copy's receiver has its name in the archive as soon as the bundles that followed it say that it is on its author's disk,
// with no other word of the author; one beyond that has none.
func TestArchiveNameOfACopy(t *testing.T) {
	options := func() journal.Options {
		return journal.Options{FS: vfs.NewMem(), Dir: "j", ID: ident.JournalID{Group: "g", Node: "a"}, Cluster: "c", ReceiverBytes: 64 << 10}
	}
	author, err := journal.Open(options())
	if err != nil {
		t.Fatal(err)
	}
	defer author.Close()
	if err := author.SetState(journal.Active); err != nil {
		t.Fatal(err)
	}
	for range 5 {
		if _, err := author.ChangeReceiver(1); err != nil {
			t.Fatal(err)
		}
		v, _ := author.View()
		if err := author.WaitDurable(t.Context(), v.Last); err != nil {
			t.Fatal(err)
		}
	}
	reader, err := author.Reader(0)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	held, err := journal.Open(options())
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	var said ident.Sequence // durable at the author
	for {
		item, ok, err := reader.TryNext()
		if err != nil {
			t.Fatal(err)
		}
		if !ok {
			break
		}
		if item.ReceiverHeader != nil {
			if err := held.BeginReceiver(item.ReceiverHeader); err != nil {
				t.Fatal(err)
			}
			continue
		}
		h, err := held.AppendRaw(item.Raw)
		if err != nil {
			t.Fatal(err)
		}
		said = max(said, h.Durable)
	}
	v, _ := held.View()
	if err := held.WaitDurable(t.Context(), v.Last); err != nil {
		t.Fatal(err)
	}
	r := &Replica{o: Options{Cluster: "c"}}
	names := 0
	for _, i := range held.Receivers() {
		_, ok := r.ArchiveName(held, i)
		if want := !i.Attached && i.Last <= said; ok != want {
			t.Errorf("receiver %s ends at %s, its author has said %s: named %v", i.Number, i.Last, said, ok)
		}
		if ok {
			names++
		}
	}
	if names == 0 || said >= v.Last {
		t.Errorf("%d names; the author has said %s of %s", names, said, v.Last)
	}
}
