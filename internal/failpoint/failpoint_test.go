package failpoint

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/understudy-ha/understudy/internal/host"
)

// TestActions: each action happens at its hit, and at no other point.
func TestActions(t *testing.T) {
	var out bytes.Buffer
	ended := 0
	s, err := parse(" journal.sync:orders/a=exit@3, cluster.propose=error@2,replica.seal:x=delay:20ms ,", &out, func() { ended++ })
	if err != nil {
		t.Fatal(err)
	}
	h := s.Host(host.Real())
	for hit := 1; hit <= 4; hit++ {
		if err := h.Failpoint("journal.sync:orders/a"); err != nil {
			t.Errorf("hit %d: %v", hit, err)
		}
		if want := min(max(hit-2, 0), 1); ended != want {
			t.Errorf("after hit %d the process ended %d times, want %d", hit, ended, want)
		}
		if err := h.Failpoint("cluster.propose"); (err != nil) != (hit == 2) {
			t.Errorf("hit %d: %v", hit, err)
		}
	}
	if err := h.Failpoint("journal.sync:orders/b"); err != nil || ended != 1 {
		t.Errorf("another point acts: %v, ended %d times", err, ended)
	}
	began := time.Now()
	if err := h.Failpoint("replica.seal:x"); err != nil || time.Since(began) < 20*time.Millisecond {
		t.Errorf("delay: %v after %s", err, time.Since(began))
	}
	if said := out.String(); strings.Count(said, "\n") != 3 || !strings.Contains(said, "journal.sync:orders/a: active at hit 3") {
		t.Errorf("said %q", said)
	}
}

// TestRefused: a fault that cannot be understood is never left out silently.
func TestRefused(t *testing.T) {
	for _, text := range []string{"a", "=exit", "a=", "a=stop", "a=exit@0", "a=exit@x", "a=delay", "a=delay:-1s", "a=exit,b"} {
		if _, err := parse(text, nil, nil); err == nil {
			t.Errorf("%q is taken", text)
		}
	}
	if s, err := parse("", nil, nil); err != nil || s.Hit("anything") != nil {
		t.Errorf("an empty set: %v", err)
	}
}
