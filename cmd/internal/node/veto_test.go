package node

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal"
	"github.com/understudy-ha/understudy/replica"
)

// Proves RJ-5: the program that is asked gets the receiver, its exit code decides, and it is killed with its children when it
// takes too long.
func TestVetoProgram(t *testing.T) {
	dir := t.TempDir()
	seen := filepath.Join(dir, "seen")
	doomed := replica.Doomed{Journal: ident.JournalID{Group: "orders", Node: "b"}, Receiver: journal.ReceiverInfo{Number: 7, First: 10, Last: 20, Bytes: 4096}}
	ask := func(script string, timeout time.Duration) error {
		n := &Node{config: Config{Node: "a", Hooks: Hooks{BeforeDelete: DeleteHook{Command: []string{"/bin/sh", "-c", script}, Timeout: timeout}}}}
		return n.veto()(context.Background(), doomed)
	}
	if err := ask("cat > "+seen, 0); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(seen)
	for _, part := range []string{`"node":"a"`, `"group":"orders"`, `"journal":"orders/b"`, `"number":7`, `"first":10`, `"last":20`, `"bytes":4096`} {
		if err != nil || !strings.Contains(string(raw), part) {
			t.Fatalf("the program got %s (%v), without %s", raw, err, part)
		}
	}
	if err := ask("echo not archived yet; exit 3", 0); err == nil || !strings.Contains(err.Error(), "not archived yet") || !strings.Contains(err.Error(), "exit status 3") {
		t.Fatalf("a veto: %v", err)
	}
	began := time.Now()
	if err := ask("sleep 600 & wait", 50*time.Millisecond); err == nil || !strings.Contains(err.Error(), "was killed") || time.Since(began) > 20*time.Second {
		t.Fatalf("a program that hangs: %v after %s", err, time.Since(began))
	}
	if err := ask("/nonexistent/program", 0); err == nil {
		t.Fatal("a program that cannot run allowed it")
	}
	if (&Node{}).veto() != nil {
		t.Fatal("somebody is asked although nobody is named")
	}
}

// Proves RJ-5: which timeouts are taken, and what holds without one.
func TestVetoTimeout(t *testing.T) {
	program := []string{"/x"}
	for _, c := range []struct {
		hook  DeleteHook
		limit time.Duration // 0: refused
	}{
		{DeleteHook{Command: program}, 10 * time.Second},
		{DeleteHook{Command: program, Timeout: 1}, 1},
		{DeleteHook{Command: program, Timeout: maxHookTimeout}, maxHookTimeout},
		{DeleteHook{Command: program, Timeout: maxHookTimeout + 1}, 0},
		{DeleteHook{Command: program, Timeout: -1}, 0},
		{DeleteHook{Command: []string{"relative"}}, 0},
		{DeleteHook{Timeout: time.Second}, 0},
	} {
		if p := c.hook.check(); c.limit == 0 && len(p) != 1 || c.limit != 0 && (len(p) != 0 || c.hook.limit() != c.limit) {
			t.Errorf("%+v: %v, %s", c.hook, p, c.hook.limit())
		}
	}
}
