package journal

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/understudy-ha/understudy/internal/ident"
)

// BenchmarkDeposit deposits bundles of 100 changes of 100 bytes; durable waits for each of them, stream only for the last.
func BenchmarkDeposit(b *testing.B) {
	for _, disk := range []string{"memory", "disk"} {
		for _, mode := range []string{"durable", "stream"} {
			b.Run(fmt.Sprintf("%s/%s", disk, mode), func(b *testing.B) {
				o := options(vfs.NewMem())
				if disk == "disk" {
					o.FS, o.Dir = vfs.Default, b.TempDir()
				}
				o.ReceiverBytes = DefaultReceiverBytes
				j := active(b, o)
				d := Draft{Entries: changes(100, 100), Session: 1, FactEpoch: 1}
				ctx := context.Background()
				var last ident.Sequence
				b.ReportAllocs()
				for b.Loop() {
					h, err := j.Deposit(d)
					if err != nil {
						b.Fatal(err)
					}
					d.Before, last = h.After(), h.Last()
					b.SetBytes(int64(h.Length))
					if mode == "durable" {
						if err := j.WaitDurable(ctx, last); err != nil {
							b.Fatal(err)
						}
					}
				}
				if err := j.WaitDurable(ctx, last); err != nil {
					b.Fatal(err)
				}
			})
		}
	}
}

// BenchmarkFollow has three readers follow the tail.
func BenchmarkFollow(b *testing.B) {
	o := options(vfs.NewMem())
	o.ReceiverBytes = DefaultReceiverBytes
	j := active(b, o)
	d := Draft{Entries: changes(10, 100), Session: 1, FactEpoch: 1}
	var group sync.WaitGroup
	for range 3 {
		r := mustReader(b, j, 1)
		group.Go(func() {
			for {
				i, err := r.Next(context.Background())
				if err != nil || i.Header.Facts == 1 { // the last one
					if err != nil {
						b.Error(err)
					}
					return
				}
			}
		})
	}
	b.ReportAllocs()
	for b.Loop() {
		h, err := j.Deposit(d)
		if err != nil {
			b.Fatal(err)
		}
		d.Before = h.After()
	}
	deposit(b, j, 1, 1, 1)
	group.Wait()
}
