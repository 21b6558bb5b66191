package nodesim

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/understudy-ha/understudy/cmd/internal/oracle"
)

var (
	flagSeed      = flag.Uint64("nodesim.seed", 0, "run this schedule only")
	flagSchedules = flag.Int("nodesim.schedules", schedules, "how many schedules to run")
	flagFirst     = flag.Uint64("nodesim.first", 1, "seed of the first schedule")
)

// hangs bounds the real time of one schedule. Virtual time stands still when a goroutine waits for a mutex whose holder
// waits for the disk or the network.
const hangs = 10 * time.Minute

// simulate runs one schedule in a bubble of its own. adjust changes the world before it begins.
func simulate(t *testing.T, seed uint64, steps []step, adjust ...func(*world)) (r *result) {
	t.Helper()
	watch := time.AfterFunc(hangs, func() {
		debug.SetTraceback("all")
		panic(fmt.Sprintf("schedule %d, %v: virtual time stands still, see the stacks", seed, steps))
	})
	defer watch.Stop()
	defer func() {
		// A database that failed is abandoned, as its process is in production: it leaves goroutines behind.
		if p := recover(); p != nil && (r == nil || r.effects["disk error"]+r.effects["disk full"] == 0 || !strings.Contains(fmt.Sprint(p), "blocked goroutines remain")) {
			panic(p)
		}
	}()
	synctest.Test(t, func(*testing.T) { r = run(seed, steps, adjust...) })
	return r
}

// keep writes what explains a failure to a directory.
func (r *result) keep(t *testing.T) string {
	dir, err := os.MkdirTemp("", fmt.Sprintf("nodesim-%d-", r.seed))
	if err != nil {
		t.Fatal(err)
	}
	var history strings.Builder
	if err := oracle.Save(&history, r.operations); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{"seed": fmt.Sprintln(r.seed), "findings": fmt.Sprintln(r.err()), "schedule": r.notes, "history.jsonl": history.String(), "log": r.log} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for id, fs := range r.disks {
		if ok, err := vfs.Clone(fs, vfs.Default, "/"+id, filepath.Join(dir, "disk-"+id)); err != nil || !ok {
			t.Logf("disk of %s not kept: %v", id, err)
		}
	}
	return dir
}

// totals adds up what many schedules did.
type totals struct {
	mu                            sync.Mutex
	schedules, acks, epochs, ops  int
	effects, begun                map[string]int
	unknown, failed, locals, good int
	virtual, longest              time.Duration
}

func (x *totals) add(r *result) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.schedules++
	x.acks += r.acks
	x.epochs += r.epochs
	x.virtual += r.virtual
	x.longest = max(x.longest, r.recovery)
	for _, s := range r.steps {
		x.begun[s.kind]++
		if r.effects[s.kind] > 0 {
			x.effects[s.kind]++
		}
	}
	for _, o := range r.operations {
		x.ops++
		switch {
		case o.Outcome == oracle.Unknown:
			x.unknown++
		case o.Outcome == oracle.Failed:
			x.failed++
		case o.Kind == oracle.Local:
			x.locals++
		default:
			x.good++
		}
	}
}

// Proves BX-2 and CL-7 on whole nodes: whatever happens to machines, disks, network and clocks, no acknowledged write is
// lost, nobody serves beside another, no read is stale or dirty, and all copies are equal in the end.
func TestSchedules(t *testing.T) {
	seeds := []uint64{*flagSeed}
	if *flagSeed == 0 {
		seeds = nil
		n := *flagSchedules
		if testing.Short() {
			n = min(n, 20)
		}
		for i := range n {
			seeds = append(seeds, *flagFirst+uint64(i))
		}
	}
	began := time.Now()
	sum := &totals{effects: map[string]int{}, begun: map[string]int{}}
	t.Run("run", func(t *testing.T) {
		for _, seed := range seeds {
			t.Run(fmt.Sprint(seed), func(t *testing.T) {
				t.Parallel()
				r := simulate(t, seed, planned(seed))
				sum.add(r)
				if err := r.err(); err != nil {
					dir := r.keep(t)
					t.Errorf("%v\n%s\nkept in %s; again: go test ./cmd/internal/nodesim -run TestSchedules -nodesim.seed=%d -v", err, r.notes, dir, seed)
				} else if *flagSeed != 0 {
					t.Logf("\n%s\n%v", r.notes, r.effects)
				}
			})
		}
	})
	t.Logf("%d schedules in %s, %s of virtual time: %d operations (%d ok, %d local, %d failed, %d unknown), %d acknowledged in %d epochs; level at most %s after the last fault",
		sum.schedules, time.Since(began).Round(time.Millisecond), sum.virtual.Round(time.Second), sum.ops, sum.good, sum.locals, sum.failed, sum.unknown, sum.acks, sum.epochs, sum.longest.Round(time.Millisecond))
	var names []string
	for k := range kinds() {
		names = append(names, k)
	}
	slices.Sort(names)
	for _, k := range names {
		t.Logf("%-16s begun %3d, with effect %3d", k, sum.begun[k], sum.effects[k])
		if sum.schedules >= 100 && sum.effects[k] == 0 {
			t.Errorf("fault %q never had an effect", k)
		}
	}
}
