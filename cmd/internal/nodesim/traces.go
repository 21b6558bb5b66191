package nodesim

import (
	"fmt"
	"sync"
	"time"

	"github.com/understudy-ha/understudy/internal/ident"
)

// traces checks the safety events of all nodes on one clock as they happen.
type traces struct {
	mu       sync.Mutex
	serving  map[ident.Epoch]ident.NodeID // who held a lease or acknowledged in an epoch
	newest   ident.Epoch                  // highest epoch with a valid lease check
	since    time.Time                    // of its first one
	promised map[ident.NodeID]ident.Epoch
	acks     int
	checks   int
	problems []string
}

func newTraces() *traces {
	return &traces{serving: map[ident.Epoch]ident.NodeID{}, promised: map[ident.NodeID]ident.Epoch{}}
}

func (w *world) trace(l *life, event string, fields []any) {
	if l.dead.Load() {
		return // nobody hears it
	}
	if ok := w.traces.see(l.machine.id, event, fields); ok && event == "lease.check" { // whoever checks a lease holds no mutex
		l.faults.checked()
	}
}

// see takes in one event; false for a check that failed.
func (t *traces) see(n ident.NodeID, event string, fields []any) (ok bool) {
	var epoch ident.Epoch
	ok = true
	for i := 0; i+1 < len(fields); i += 2 {
		switch fields[i] {
		case "epoch":
			epoch, _ = fields[i+1].(ident.Epoch)
		case "ok":
			ok, _ = fields[i+1].(bool)
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	switch event {
	case "lease.check":
		if !ok {
			return false
		}
		t.checks++
		t.oneServer(n, epoch, event)
		switch {
		case epoch > t.newest:
			t.newest, t.since = epoch, now
		case epoch < t.newest && now.After(t.since): // at the same instant, the order of goroutines says nothing
			t.problem("S6: %s holds a lease on epoch %s at %s, but epoch %s was served since %s", n, epoch, now, t.newest, t.since)
		}
	case "ack":
		t.acks++
		t.oneServer(n, epoch, event)
	case "promise":
		if have := t.promised[n]; epoch <= have {
			t.problem("S7: %s promises epoch %s after %s", n, epoch, have)
		}
		t.promised[n] = max(t.promised[n], epoch)
	}
	return ok
}

func (t *traces) oneServer(n ident.NodeID, e ident.Epoch, event string) {
	if have, known := t.serving[e]; known && have != n {
		t.problem("S1: %s on epoch %s at %s, which %s serves", event, e, n, have)
		return
	}
	t.serving[e] = n
}

func (t *traces) problem(format string, args ...any) {
	if len(t.problems) < 10 {
		t.problems = append(t.problems, fmt.Sprintf(format, args...))
	}
}
