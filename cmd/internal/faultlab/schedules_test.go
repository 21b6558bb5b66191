package faultlab

import (
	"flag"
	"fmt"
	"sync"
	"testing"
	"time"
)

var (
	schedulesFlag = flag.Int("faultlab.schedules", 3, "schedules of TestRealSchedules")
	seedFlag      = flag.Uint64("faultlab.seed", 1, "seed of the first one; the others follow")
	parallelFlag  = flag.Int("faultlab.parallel", 2, "schedules at the same time")
)

// TestRealSchedules: whatever a seed makes go wrong, no acknowledged write is lost, no read is stale, no copy differs, and no two nodes
// acknowledge at once.
//
// Proves S3, S4, S5, S6, S10, S24 and BX-2 with real processes.
func TestRealSchedules(t *testing.T) {
	if testing.Short() {
		t.Skip("real processes take a while")
	}
	program, err := product.once()
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var sum Tally
	var active, failed int
	var epochs uint64
	began := time.Now()
	seeds := make(chan uint64)
	var running sync.WaitGroup
	for range *parallelFlag {
		running.Go(func() {
			for seed := range seeds {
				p := NewPlan(seed)
				start := time.Now()
				r, err := Run(t.Context(), program, *keepFlag, p)
				mu.Lock()
				sum.add(r.Tally)
				active += r.Active
				epochs += r.Epochs
				if err != nil {
					failed++
					t.Errorf("%s\n%v\nkept in %s\nreplay: %s", p, err, r.Dir, Replay(seed))
				} else {
					t.Logf("%s\n  in %.1fs: %s; %d faults active, epoch %d", p, time.Since(start).Seconds(), r.Tally, r.Active, r.Epochs)
				}
				mu.Unlock()
			}
		})
	}
	for i := range *schedulesFlag {
		seeds <- *seedFlag + uint64(i)
	}
	close(seeds)
	running.Wait()
	fmt.Printf("faultlab: %d real-process schedules in %s, %d failed; %d faults active, %d epochs; %s\n",
		*schedulesFlag, time.Since(began).Round(time.Second), failed, active, epochs, sum)
}
