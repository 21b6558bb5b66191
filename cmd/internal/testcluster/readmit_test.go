package testcluster

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/understudy-ha/understudy/client"
	"github.com/understudy-ha/understudy/cmd/internal/node"
	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
)

// TestReadmission: a node that was dropped for a full journal, and whose copy still connects, is taken back: it catches up, joins the
// set, and has what was acknowledged while it was away. Proves TR-5.
func TestReadmission(t *testing.T) {
	c := Start(t, Options{
		Nodes: []ident.NodeID{"a", "b", "w"}, Witnesses: []ident.NodeID{"w"},
		Group: fsm.GroupSpec{Preferred: "a", MaximumBlocks: 1, ReceiverBytes: 64 << 10, JournalFull: fsm.JournalFullDrop},
		Hooks: node.Hooks{BeforeDelete: node.DeleteHook{Command: []string{"/bin/false"}}}, // the receivers that b needs are still there
	})
	ctx := t.Context()
	c.put("a", "k", 3)
	c.Wait("all are level", 20*time.Second, c.settled)
	cl := c.Node("a").Client()
	var refused *client.Error
	if _, err := cl.Readmit(ctx, "default", "b"); !errors.As(err, &refused) || refused.Code != client.CodePrecondition {
		t.Fatalf("readmission of a node that takes part: %v", err)
	}
	c.Node("b").Stop()
	value := []byte(strings.Repeat("x", 16<<10))
	last := ""
	put := func(key string) error {
		_, err := c.Node("w").Client().Put(ctx, "orders", []byte(key), value, client.WriteOptions{Wait: 5 * time.Second})
		return err
	}
	for i := 0; ; i++ {
		key := fmt.Sprint("away", i)
		full := false
		c.Wait("a write is answered", 40*time.Second, func() error { // a busy machine may cost the primary its lease
			err := put(key)
			if full = client.CodeOf(err) == client.CodeJournalFull; full {
				return nil
			}
			return err
		})
		if full {
			break
		}
		last = key
	}
	c.Wait("b is dropped", 60*time.Second, func() error {
		_ = put("more") // it is refused while nothing goes
		g, err := cl.Group(ctx, "default")
		if err == nil && len(g.Dropped) != 1 {
			err = fmt.Errorf("%+v", g.Dropped)
		}
		return err
	})
	c.Node("b").Start()
	c.Wait("b is readmitted", 30*time.Second, func() error {
		_, err := cl.Readmit(ctx, "default", "b")
		return err
	})
	c.until("w", "b is in the set again", func(g client.GroupStatus) bool {
		return len(g.Dropped) == 0 && slices.Contains(g.InSync, "b") && g.Roles["b"] != client.RoleDropped
	})
	c.change("w", client.GroupPatch{"maximum_blocks": 8})
	c.Wait("writes go on", 30*time.Second, func() error { return put("after") })
	c.Wait("all are level", 30*time.Second, c.settled)
	for _, key := range []string{last, "after"} {
		c.Wait(key+" is at b", 20*time.Second, func() error { // who is level has everything on its disk, and applies it
			r, err := c.Node("b").Client().Get(ctx, "orders", []byte(key), client.ReadOptions{Local: true})
			if err == nil && len(r.Value) != len(value) {
				t.Fatalf("%s at b: %d bytes", key, len(r.Value))
			}
			return err
		})
	}
	c.says("w", `\bNODE_DROPPED\b`)
}
