package simulation

import (
	"flag"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

var (
	oneSeed   = flag.Int64("sim.seed", -1, "play this seed only")
	seeds     = flag.Uint64("sim.seeds", seedsPerRun, "how many seeds to play")
	survey    = flag.Bool("sim.survey", false, "go on after a broken seed, and count them by invariant")
	firstSeed = flag.Uint64("sim.first", 0, "the first seed to play")
)

// TestMain lets garbage grow: worlds are small and short-lived.
func TestMain(m *testing.M) {
	debug.SetGCPercent(400)
	m.Run()
}

// play runs seeds on all cores, in order, until one breaks an invariant or all have run. It returns how many were played, the
// first broken one, and the sum of what happened.
func play(first, n uint64) (played uint64, broken *Result, sum Stats) {
	var mu sync.Mutex
	var next, stop atomic.Uint64
	stop.Store(n)
	var workers sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			for {
				i := next.Add(1) - 1
				if i >= stop.Load() {
					return
				}
				res := Run(first + i)
				mu.Lock()
				sum.add(res.Stats)
				if res.Violation != "" && (broken == nil || res.Seed < broken.Seed) {
					broken = &res
					stop.Store(min(stop.Load(), i))
				}
				mu.Unlock()
			}
		})
	}
	workers.Wait()
	return min(next.Load(), n), broken, sum
}

func report(t *testing.T, r *Result) {
	t.Helper()
	t.Fatalf("%s\n\nseed %d, trace hash %x, the last of its trace:\n%s\n\nreplay: go test ./cmd/internal/simulation -run TestSeeds -sim.seed=%d -v",
		r.Violation, r.Seed, r.Hash, strings.Join(r.Tail, "\n"), r.Seed)
}

// Proves CL-7, RJ-9, I1-I10: the rules of the product keep every invariant in random worlds.
func TestSeeds(t *testing.T) {
	if *oneSeed >= 0 {
		res := Run(uint64(*oneSeed))
		if res.Violation != "" {
			report(t, &res)
		}
		t.Logf("seed %d: no invariant is broken; trace hash %x\n%+v", res.Seed, res.Hash, res.Stats)
		return
	}
	n := *seeds
	if *survey {
		counts := map[string]int{}
		for seed := range n {
			if res := Run(*firstSeed + seed); res.Violation != "" {
				if counts[res.Oracle]++; counts[res.Oracle] <= 4 {
					t.Logf("seed %d: %s", res.Seed, res.Violation)
				}
			}
		}
		t.Fatalf("%d seeds, broken: %v", n, counts)
	}
	if testing.Short() {
		n = min(n, 200)
	}
	played, broken, sum := play(*firstSeed, n)
	if broken != nil {
		report(t, broken)
	}
	t.Logf("%d seeds\n%s", played, sum)
	if idle := sum.idle(); played >= 2000 && len(idle) > 0 {
		t.Fatalf("these never happened in %d seeds, so they prove nothing: %s", played, strings.Join(idle, ", "))
	}
}

// TestReplay: a seed plays the same world again, byte for byte.
func TestReplay(t *testing.T) {
	for seed := range uint64(25) {
		a, b := Run(seed), Run(seed)
		if a.Hash != b.Hash || a.Stats != b.Stats || a.Violation != b.Violation {
			t.Fatalf("seed %d: %x and %x\n%+v\n%+v\n%s\n%s", seed, a.Hash, b.Hash, a.Stats, b.Stats, a.Violation, b.Violation)
		}
		if other := Run(seed + 1000); other.Hash == a.Hash {
			t.Fatalf("seeds %d and %d play the same world", seed, seed+1000)
		}
	}
}
