package cluster

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
)

// Raft's complaints about a node that is down do not drown the log: each stands there once, about each peer, and from time to
// time again with their number. Nothing else is dropped.
func TestRepeatedComplaintsAreDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		q := newQuiet(hclog.New(&hclog.LoggerOptions{Output: &out}), func() bool { return false })
		for range 100 {
			q.Error("failed to heartbeat to", "peer", "b", "backoff time", time.Second, "error", errors.New("refused"))
			q.Error("failed to heartbeat to", "peer", "c", "error", errors.New("refused"))
			q.Warn("failed to contact", "server-id", "b", "time", time.Second)
			q.Info("said every time")
			time.Sleep(250 * time.Millisecond)
		}
		if got := strings.Count(out.String(), "failed to"); got != 3 {
			t.Errorf("%d complaints in 25 s, want 3:\n%s", got, &out)
		}
		if got := strings.Count(out.String(), "said every time"); got != 100 {
			t.Errorf("%d other messages, want 100", got)
		}
		time.Sleep(repeatAfter)
		out.Reset()
		q.Error("failed to heartbeat to", "peer", "b", "error", errors.New("refused"))
		if !strings.Contains(out.String(), "repeated=99") {
			t.Errorf("it does not say how often: %s", &out)
		}
		for i := range 2 * maxRepeated {
			q.Warn("failed to contact", "server-id", i)
		}
		if len(q.said) > maxRepeated {
			t.Errorf("%d messages are remembered", len(q.said))
		}
	})
}
