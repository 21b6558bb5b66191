package replica

import (
	"context"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal"
	"github.com/understudy-ha/understudy/journal/entry"
)

// A copy is removed and begins behind a hole, again and again, while its end is told: what begins behind the hole is never told as
// held, whatever is read at which moment. Others delete receivers by that. Proves RJ-5, TR-5.
func TestEndOfACopyThatBeginsElsewhere(t *testing.T) {
	c := newCluster(t, fsm.GroupSpec{}, "a", "b")
	c.inSync("a", "b")
	b := c.nodes["b"]
	fs := vfs.NewMem()
	source, err := journal.Open(journal.Options{
		FS: fs, Dir: "z", ID: ident.JournalID{Group: orders, Node: "z"}, Cluster: testCluster, ReceiverBytes: 64 << 10,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = source.Close() }() // it is in memory
	if err := source.SetState(journal.Active); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		for range 40 { // far beyond what b's store and other journals have
			v, _ := source.View()
			_, err := source.Deposit(journal.Draft{
				Entries: []entry.Entry{{Code: entry.Record, Type: entry.Put, File: "f", Key: []byte("k"), After: &entry.Image{Value: []byte("v")}}},
				Session: 1, FactEpoch: 1, Before: v.After,
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		if _, err := source.ChangeReceiver(1); err != nil {
			t.Fatal(err)
		}
	}
	held := source.Receivers()
	reader, err := source.Reader(0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = reader.Close() }() // as above
	var parts [2][]journal.Item           // the two receivers
	for at := -1; ; {
		item, ok, err := reader.TryNext()
		if err != nil {
			t.Fatal(err)
		}
		if item.ReceiverHeader != nil {
			at++
		}
		if !ok || at == len(parts) {
			break
		}
		parts[at] = append(parts[at], item)
	}
	copied, err := b.rep.shelf.open("z")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			for _, item := range parts[i%2] {
				var err error
				if item.ReceiverHeader != nil {
					err = copied.BeginReceiver(item.ReceiverHeader)
				} else {
					_, err = copied.AppendRaw(item.Raw)
				}
				if err != nil {
					t.Error(err)
					return
				}
			}
			copied.Mark(held[i%2].Last, 0)
			if err := copied.WaitDurable(context.Background(), held[i%2].Last); err != nil {
				t.Error(err)
				return
			}
			if err := copied.Clear(); err != nil {
				t.Error(err)
				return
			}
		}
	})
	whole := 0
	for looks := 0; whole < 50 || looks < 40_000; looks++ {
		switch end := b.rep.CopyEnds()["z"]; {
		case end > held[0].Last:
			t.Fatalf("look %d: the copy is said to reach %s, what goes on from the store ends at %s", looks, end, held[0].Last)
		case end == held[0].Last:
			whole++
		}
		if t.Failed() {
			break
		}
	}
	stop()
	wg.Wait()
}
