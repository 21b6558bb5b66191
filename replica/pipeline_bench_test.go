package replica

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/journal/entry"
)

// BenchmarkPipelines is 50 clients that send 16 programs at a time, each of which puts one of 100 000 records of 100 bytes, to a primary with
// one in-sync secondary, on a real disk.
func BenchmarkPipelines(b *testing.B) {
	const clients, depth, space = 50, 16, 100_000
	c := newClusterIn(b, b.TempDir(), fsm.GroupSpec{ReceiverBytes: 64 << 20}, "a", "b")
	c.inSync("a", "b")
	rep := c.nodes["a"].rep
	value := bytes.Repeat([]byte("x"), 100)
	load := func(n int, seed uint64) {
		var all sync.WaitGroup
		for client := range clients {
			all.Go(func() {
				random := rand.New(rand.NewPCG(seed, uint64(client)))
				batch := make([]Transaction, depth)
				for range (n + clients*depth - 1) / (clients * depth) {
					for i := range batch {
						key := fmt.Appendf(nil, "%d", random.IntN(space))
						batch[i].Program = func(v *View) error { return v.Put("key", key, entry.Image{Value: value}) }
					}
					for _, w := range rep.WriteAll(context.Background(), batch) {
						if w.Err != nil {
							b.Error(w.Err)
							return
						}
					}
				}
			})
		}
		all.Wait()
	}
	load(space, 1)
	b.ResetTimer()
	load(b.N, 2)
}
