package faultlab

import (
	"errors"
	"flag"
	"fmt"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/understudy-ha/understudy/cmd/internal/oracle"
)

var busyFlag = flag.Duration("faultlab.busy", 0, "how long TestNoRoleChangeUnderLoad keeps all processors busy; 0 leaves it out")

// Proves the row "CPU starvation": with every processor kept busy by somebody else, and writers running, no role changes.
func TestNoRoleChangeUnderLoad(t *testing.T) {
	if *busyFlag == 0 {
		t.Skip("run with -faultlab.busy=10m")
	}
	l := start(t, Options{})
	p, err := l.Primary(t.Context(), 10*time.Second)
	must(t, err)
	g, err := p.local(t.Context())
	must(t, err)
	end, err := hogs(runtime.NumCPU())
	must(t, err)
	w := l.StartWorkload(1)
	t.Cleanup(func() { w.Stop() })
	sleep(t.Context(), *busyFlag)
	rate := float64(w.Acknowledged()) / busyFlag.Seconds()
	history := w.Stop()
	must(t, end())
	final, err := l.Settle(t.Context(), w)
	must(t, err)
	lost := 0 // leases that ran into trouble, though nobody took the role
	notRenewed := regexp.MustCompile(`lease not renewed`)
	changed := 0
	for _, name := range l.Names() {
		log := l.Node(name).Log()
		lost += len(notRenewed.FindAllString(log, -1))
		changed += strings.Count(log, "in-sync set changed")
	}
	pause := longestPause(history)
	fmt.Printf("faultlab: %s with %d processors busy: %d role changes, %d renewals missed, %d changes of the set; %.0f writes/s, longest pause %.2fs; %s\n",
		*busyFlag, runtime.NumCPU(), final.Epoch-g.Epoch, lost, changed-1, rate, pause.Seconds(), tally(history))
	if final.Epoch != g.Epoch {
		t.Errorf("the role changed: epoch %d became %d", g.Epoch, final.Epoch)
	}
	history = w.record.Operations()
	if err := errors.Join(oracle.NotEmpty(history, warmUp, oracle.Write, oracle.Read), Judge(oracle.Select(history, isSet), final.Set)); err != nil {
		t.Error(err)
	}
}

// isSet selects the part of a history that can be checked however long it is.
func isSet(o oracle.Operation) bool { return strings.HasPrefix(o.Key, setFile+"/") }

// longestPause is the longest time without an acknowledged write.
func longestPause(history []oracle.Operation) (longest time.Duration) {
	var last time.Duration
	ends := []time.Duration{}
	for _, o := range history {
		if o.Kind == oracle.Write && o.Outcome == oracle.OK {
			ends = append(ends, o.Ended)
		}
	}
	slices.Sort(ends)
	for _, at := range ends {
		longest, last = max(longest, at-last), at
	}
	return longest
}
