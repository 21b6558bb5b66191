//go:build mutant

package nodesim

import (
	"flag"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/understudy-ha/understudy/internal/mutant"
)

var (
	flagMutant = flag.String("nodesim.mutant", "", "only the mutant of this name")
	flagWithin = flag.Int("nodesim.within", 1000, "how many schedules a mutant may survive")
)

// The schedules here follow the recipes: chance alone would need more of them.
//
// Proves that the schedules would notice broken rules in the whole product: each variant is caught, within a number of
// schedules, by a check of safety.
func TestMutantsAreCaught(t *testing.T) {
	for _, m := range mutant.All() {
		if *flagMutant == "" && !slices.Contains(shown(), m.Variant) || *flagMutant != "" && *flagMutant != m.Name {
			continue
		}
		t.Run(strings.ReplaceAll(m.Name, " ", "-"), func(t *testing.T) {
			defer mutant.Choose(m.Variant)()
			began := time.Now()
			var next atomic.Int64
			var caught atomic.Pointer[result]
			t.Run("run", func(t *testing.T) {
				for range 2 {
					t.Run("seeds", func(t *testing.T) {
						t.Parallel()
						for {
							seed := next.Add(1)
							if caught.Load() != nil || int(seed) > *flagWithin {
								return
							}
							if r := simulate(t, uint64(seed), aimed(uint64(seed))); r.unsafe != nil {
								caught.CompareAndSwap(nil, r)
							}
						}
					})
				}
			})
			c := caught.Load()
			if c == nil {
				t.Fatalf("%q (%s) survived %d schedules", m.Name, m.Breaks, *flagWithin)
			}
			t.Logf("%q is caught by seed %d after %s: %s", m.Name, c.seed, time.Since(began).Round(time.Millisecond), first(c.unsafe))
		})
	}
}

// shown are the variants that break what the real disk, clock and network have a part in, and that clients or the trace can
// tell. A lease that is checked before a read, not after it, is not among them: the value was the newest one when the read
// began, so no history of clients shows it; the simulator of the core does.
func shown() []mutant.Variant {
	return []mutant.Variant{mutant.AckBeforeDurable, mutant.PromiseUnsynced, mutant.DropTail, mutant.EarlyPromise, mutant.FenceEndsCover, mutant.StaleSet}
}

func first(err error) string {
	line, _, _ := strings.Cut(fmt.Sprint(err), "\n")
	return line
}
