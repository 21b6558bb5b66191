package testcluster

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/understudy-ha/understudy/fsm"
)

// TestSentinelThroughAnyNode: what only the primary knows, every node tells: WAIT counts its secondaries, after a write and without one,
// and SENTINEL FAILOVER hands its role over. Proves BX-5.
func TestSentinelThroughAnyNode(t *testing.T) {
	c := Start(t, Options{Timing: steady(), Group: fsm.GroupSpec{Preferred: "a"}})
	ctx := t.Context()
	for _, id := range c.options.Nodes {
		r := c.redisOf(id).Conn()
		if n, err := r.Do(ctx, "WAIT", 1, 0).Int(); err != nil || n < 1 {
			t.Errorf("WAIT at %s without a write: %d, %v", id, n, err)
		}
		if err := r.Set(ctx, "waited:"+string(id), 1, 0).Err(); err != nil {
			t.Errorf("SET at %s: %v", id, err)
		}
		if n, err := r.Do(ctx, "WAIT", 2, 0).Int(); err != nil || n != 2 {
			t.Errorf("WAIT at %s after a write: %d, %v", id, n, err)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
	through := c.redisOf("c")
	if g, err := c.Node("c").Client().Group(ctx, "default"); err != nil || g.Primary != "a" {
		t.Fatalf("the primary is %s, %v", g.Primary, err)
	}
	if answer, err := through.Do(ctx, "SENTINEL", "FAILOVER", "default").Text(); err != nil || answer != "OK" {
		t.Fatalf("SENTINEL FAILOVER through c: %q, %v", answer, err)
	}
	if err := through.Do(ctx, "SENTINEL", "FAILOVER", "default").Err(); err != nil && strings.Contains(err.Error(), "ERR ") {
		t.Errorf("a second one at once: %v", err)
	}
	c.Wait("another node is primary", time.Minute, func() error {
		g, err := c.Node("c").Client().Group(ctx, "default")
		if err == nil && (g.Primary == "a" || g.Phase != "opened") {
			err = fmt.Errorf("%s, %s", g.Primary, g.Phase)
		}
		return err
	})
	if err := through.Do(ctx, "SENTINEL", "FAILOVER", "nix").Err(); err == nil || !strings.Contains(err.Error(), "No such master") {
		t.Errorf("SENTINEL FAILOVER of an unknown group: %v", err)
	}
}
