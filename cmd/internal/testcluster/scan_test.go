package testcluster

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
)

// scanned goes through all names once.
func scanned(t *testing.T, r *redis.Client, match string) map[string]bool {
	t.Helper()
	names := map[string]bool{}
	for it := r.Scan(t.Context(), 0, match, 7).Iterator(); ; {
		if !it.Next(t.Context()) {
			if err := it.Err(); err != nil {
				t.Errorf("SCAN: %v", err)
			}
			return names
		}
		names[it.Val()] = true
	}
}

// TestScanOfSeveralPrimaries: a scan finds, at every node, what was acknowledged before it began, also in files that were made a moment ago at
// another primary: no copy is asked that may be behind. Proves BX-5, TR-7.
func TestScanOfSeveralPrimaries(t *testing.T) {
	c := Start(t, Options{Timing: steady(), Group: fsm.GroupSpec{Preferred: "a"}, Others: []fsm.GroupSpec{{Name: "odd", Files: []string{"odd*"}, Preferred: "b"}}})
	c.primaries("c", map[string]string{"default": "a", "odd": "b"})
	for _, id := range c.options.Nodes {
		r := c.redisOf(id)
		var want []string
		for i := range 25 {
			for _, file := range []string{"odd", "even"} {
				name := fmt.Sprintf("%s-%s-%d:k", file, id, i)
				if err := r.Set(t.Context(), name, "v", 0).Err(); err != nil {
					t.Fatal(err)
				}
				want = append(want, name)
			}
			seen := scanned(t, r, "*")
			for _, name := range want {
				if !seen[name] {
					t.Fatalf("node %s: %s was acknowledged, and is not among %d names", id, name, len(seen))
				}
			}
		}
	}
}

// sentinelOf is a client of one node as a Sentinel.
func (c *Cluster) sentinelOf(id ident.NodeID) *redis.SentinelClient {
	s := redis.NewSentinelClient(&redis.Options{Addr: c.Node(id).config.Listen.Redis, MaxRetries: -1, DisableIdentity: true})
	c.t.Cleanup(func() { _ = s.Close() })
	return s
}

// links compares what a Sentinel says of the replicas' links.
func (c *Cluster) links(at *redis.SentinelClient, want map[ident.NodeID]string) error {
	all, err := at.Replicas(c.t.Context(), "default").Result()
	if err != nil {
		return err
	}
	got := map[string]string{}
	for _, r := range all {
		got[r["name"]] = r["master-link-status"]
		if strings.Contains(r["flags"], "s_down") {
			got[r["name"]] = "down"
		}
	}
	if len(got) != len(want) {
		return fmt.Errorf("it says %v", got)
	}
	for id, link := range want {
		if got[c.Node(id).config.Listen.Redis] != link {
			return fmt.Errorf("of %s: %q, want %q", id, got[c.Node(id).config.Listen.Redis], link)
		}
	}
	return nil
}

// TestStandbyLooksUsable: a standby that is level is a usable replica, for the Sentinel of every node; one that is gone is none. Proves BX-5.
func TestStandbyLooksUsable(t *testing.T) {
	c := Start(t, Options{Group: fsm.GroupSpec{Preferred: "a"}})
	if g, err := c.Node("a").Client().Group(t.Context(), "default"); err != nil || len(g.InSync) != 1 {
		t.Fatalf("one of two is to be a standby: %v, %v", g.InSync, err)
	}
	for _, id := range c.options.Nodes {
		sentinel, client := c.sentinelOf(id), c.redisOf(id)
		c.Wait(fmt.Sprintf("both replicas look linked at %s", id), time.Minute, func() error {
			return c.links(sentinel, map[ident.NodeID]string{"b": "ok", "c": "ok"})
		})
		c.Wait(fmt.Sprintf("%s looks connected by itself", id), time.Minute, func() error {
			if role, err := client.Do(t.Context(), "ROLE").Slice(); err != nil || id != "a" && fmt.Sprint(role[3]) != "connected" {
				g, _ := c.Node(id).Client().Group(t.Context(), "default")
				return fmt.Errorf("ROLE: %v, %v: %+v", role, err, g.Local)
			}
			return nil
		})
	}
	c.Node("c").Crash()
	for _, id := range []ident.NodeID{"a", "b"} {
		sentinel := c.sentinelOf(id)
		c.Wait(fmt.Sprintf("%s knows that c is gone", id), time.Minute, func() error {
			return c.links(sentinel, map[ident.NodeID]string{"b": "ok", "c": "down"})
		})
	}
}
