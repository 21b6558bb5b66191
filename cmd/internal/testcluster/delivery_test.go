package testcluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/understudy-ha/understudy/client"
	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
)

// writing is a client that writes ever new records through one node, and knows which were acknowledged.
type writing struct {
	c    *Cluster
	stop context.CancelFunc
	work sync.WaitGroup

	mu    sync.Mutex
	acked []string
}

// stream begins to write through a node, until the test ends or stop is called.
func (c *Cluster) stream(through ident.NodeID, prefix string) *writing {
	ctx, stop := context.WithCancel(context.Background())
	w := &writing{c: c, stop: stop}
	cl := c.Node(through).Client()
	w.work.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			key := fmt.Sprintf("%s%d", prefix, i)
			if _, err := cl.Put(ctx, "orders", []byte(key), []byte("x"), client.WriteOptions{Wait: 5 * time.Second}); err == nil {
				w.mu.Lock()
				w.acked = append(w.acked, key)
				w.mu.Unlock()
			}
		}
	})
	c.t.Cleanup(w.end)
	return w
}

func (w *writing) end() {
	w.stop()
	w.work.Wait()
}

func (w *writing) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.acked)
}

// more waits until so many more writes were acknowledged.
func (w *writing) more(n int) {
	w.c.t.Helper()
	from := w.count()
	w.c.Wait(fmt.Sprintf("%d more writes are acknowledged", n), 30*time.Second, func() error {
		if have := w.count() - from; have < n {
			return fmt.Errorf("%d are", have)
		}
		return nil
	})
}

// check reads everything that was acknowledged.
func (w *writing) check(at ident.NodeID) {
	w.c.t.Helper()
	for _, key := range w.acked {
		if _, err := w.c.Node(at).Client().Get(w.c.t.Context(), "orders", []byte(key), client.ReadOptions{}); err != nil {
			w.c.t.Fatalf("acknowledged %s (%d of them): %v", key, len(w.acked), err)
		}
	}
}

// change changes keys of the group through a node.
func (c *Cluster) change(through ident.NodeID, p client.GroupPatch) client.GroupChange {
	c.t.Helper()
	var out client.GroupChange
	c.Wait(fmt.Sprintf("the group takes %v", p), 20*time.Second, func() (err error) {
		out, err = c.Node(through).Client().ChangeGroup(c.t.Context(), "default", p)
		return err
	})
	return out
}

// TestDeliveryOnline: the delivery goes from async to sync, back and again to sync while writes go on. A crash of the primary
// after the change to sync loses nothing that was ever acknowledged. Proves RJ-3, I3, I8.
func TestDeliveryOnline(t *testing.T) {
	c := Start(t, Options{Group: fsm.GroupSpec{Preferred: "a", Delivery: fsm.DeliveryAsync}})
	w := c.stream("b", "k")
	w.more(20)
	inSync := func(n int) func(client.GroupStatus) bool {
		return func(g client.GroupStatus) bool { return servedBy("a")(g) && len(g.InSync) == n }
	}
	before := c.until("a", "a is alone in the set", inSync(0))
	sync := c.change("c", client.GroupPatch{"delivery": "sync"}) // forwarded to the primary
	if !slices.Equal(sync.Changed, []string{"delivery"}) || sync.Version != 1 || sync.Spec.Delivery != "sync" {
		t.Fatalf("%+v", sync)
	}
	c.until("a", "a shadow joined", inSync(1))
	w.more(20)
	if async := c.change("b", client.GroupPatch{"delivery": "async", client.PatchIfVersion: 1}); async.Version != 2 {
		t.Fatalf("%+v", async)
	}
	c.until("a", "the set is the primary alone", inSync(0))
	w.more(20)
	var moved *client.Error
	if _, err := c.Node("a").Client().ChangeGroup(t.Context(), "default", client.GroupPatch{"secondaries": 2, client.PatchIfVersion: 1}); !errors.As(err, &moved) || moved.Code != client.CodePrecondition {
		t.Fatalf("a change of another version: %v", err)
	}
	if _, err := c.Node("a").Client().ChangeGroup(t.Context(), "default", client.GroupPatch{"files": []string{"x"}}); !errors.As(err, &moved) || moved.Code != client.CodeInvalid || moved.Reason == "" {
		t.Fatalf("a key that does not change: %v", err)
	}
	c.change("b", client.GroupPatch{"delivery": "sync"})
	if g := c.until("a", "a shadow joined again", inSync(1)); g.Epoch != before.Epoch {
		t.Fatalf("the role moved: epoch %d after %d", g.Epoch, before.Epoch)
	}
	w.more(20)
	c.Node("a").Crash()
	after := c.until("b", "the shadow takes over", func(g client.GroupStatus) bool { return g.Primary != "a" && servedBy(g.Primary)(g) })
	// On a busy machine the set may have changed since it was looked at: the certificate has the one in which a died.
	if cert := c.certificate("b"); cert.To != after.Primary || len(cert.InSync) != 2 || !slices.Contains(cert.InSync, after.Primary) || cert.Loss != "none" {
		t.Fatalf("certificate %+v", cert)
	}
	w.more(5)
	w.end()
	w.check("b")
}

// TestDeliveryToAsyncAndCrash: after the change to async nobody but the primary may be promoted, so what it alone
// acknowledged is not lost: its place is kept until it is back. Proves RJ-3, I3.
func TestDeliveryToAsyncAndCrash(t *testing.T) {
	long := unhurried() // a writes within its lease after it was cut off, however long that takes a busy machine
	long.Lease *= 3
	c := Start(t, Options{Group: fsm.GroupSpec{Preferred: "a"}, Timing: long})
	w := c.stream("a", "k")
	w.more(10)
	c.change("a", client.GroupPatch{"delivery": "async"})
	c.Cut("a", "b", true)
	c.Cut("a", "c", true)
	w.more(5) // a alone acknowledges them, within its lease
	w.end()
	c.Node("a").Crash()
	c.leaseOver("a")
	c.until("b", "the failover finds nobody", func(g client.GroupStatus) bool { return g.Phase == "fenced" })
	c.Node("a").Start()
	c.until("b", "a serves again", servedBy("a"))
	w.check("b")
}

// TestHoldsOverHTTP: a hold is set, moved, shown and removed, on whatever node is asked, and is over by itself. Proves RJ-5.
func TestHoldsOverHTTP(t *testing.T) {
	c := Start(t, Options{Timing: steady(), Group: fsm.GroupSpec{Preferred: "a"}})
	ctx := t.Context()
	c.put("a", "k", 5)
	cl := c.Node("c").Client()
	h, err := cl.SetHold(ctx, "default", "reader", client.HoldRequest{Position: "default@1.3"})
	if err != nil || h.Position != "default@1.3" || time.Until(h.Until) < 23*time.Hour {
		t.Fatalf("%+v %v", h, err)
	}
	if h, err = c.Node("b").Client().SetHold(ctx, "default", "reader", client.HoldRequest{Position: "default@1.4", For: client.Duration(time.Hour)}); err != nil || time.Until(h.Until) > time.Hour {
		t.Fatalf("%+v %v", h, err)
	}
	var wrong *client.Error
	if _, err := cl.SetHold(ctx, "default", "other", client.HoldRequest{Position: "default@7.4"}); !errors.As(err, &wrong) || wrong.Code != client.CodeInvalid {
		t.Fatalf("a position outside the history: %v", err)
	}
	if _, err := cl.SetHold(ctx, "default", "short", client.HoldRequest{Position: "0.0", For: client.Duration(time.Second)}); err != nil {
		t.Fatal(err)
	}
	c.Wait("the short one is over", 20*time.Second, func() error {
		all, err := cl.Holds(ctx, "default")
		if err == nil && (len(all) != 1 || all[0].Name != "reader" || all[0].Position != "default@1.4") {
			err = fmt.Errorf("%+v", all)
		}
		return err
	})
	if err := cl.RemoveHold(ctx, "default", "reader"); err != nil {
		t.Fatal(err)
	}
	if err := cl.RemoveHold(ctx, "default", "reader"); err != nil {
		t.Fatalf("removed twice: %v", err)
	}
	if all, err := cl.Holds(ctx, "default"); err != nil || len(all) != 0 {
		t.Fatalf("%+v %v", all, err)
	}
}

// TestJournalFull: at the cap a write is answered with journal_full, surely not done; the status says why; with the shadow back
// writes go on; with drop it is dropped, shown, and told everywhere. Proves TR-5.
func TestJournalFull(t *testing.T) {
	c := Start(t, Options{Nodes: []ident.NodeID{"a", "b", "w"}, Witnesses: []ident.NodeID{"w"},
		Group: fsm.GroupSpec{Preferred: "a", MaximumBlocks: 1, ReceiverBytes: 64 << 10}})
	ctx := t.Context()
	c.put("a", "k", 3)
	c.Wait("all are level", 20*time.Second, c.settled)
	c.Node("b").Stop()
	value := []byte(strings.Repeat("x", 16<<10))
	put := func(key string) error {
		_, err := c.Node("w").Client().Put(ctx, "orders", []byte(key), value, client.WriteOptions{Wait: 10 * time.Second})
		return err
	}
	var full *client.Error
	for i := 0; full == nil; i++ {
		if err := put(fmt.Sprint("f", i%10)); err != nil && (!errors.As(err, &full) || i == 500) {
			t.Fatal(err)
		}
	}
	if full.Code != client.CodeJournalFull || full.Status != 507 || client.OutcomeOf(full) != client.OutcomeNotDone || !strings.Contains(full.Reason, "default/a") || full.Remedy == "" {
		t.Fatalf("%+v", full)
	}
	g := c.until("w", "the status says why", func(g client.GroupStatus) bool { return servedBy("a")(g) && strings.Contains(g.Full, "maximum_blocks") })
	if why, err := c.Node("a").Client().Why(ctx, "default", ""); err != nil || !strings.Contains(strings.Join(why.Notes, " "), "is full") {
		t.Fatalf("why: %+v %v", why.Notes, err)
	}
	if r, err := c.Node("w").Client().Get(ctx, "orders", []byte("k1"), client.ReadOptions{}); err != nil || string(r.Value) != "x" {
		t.Fatalf("a read: %v", err)
	}
	c.says("a", `\bJOURNAL_FULL\b`)
	if raw, err := c.Node("a").Client().Metrics(ctx); err != nil || !strings.Contains(string(raw), `understudy_journal_full{group="default",journal="default/a",node="a"} 1`) {
		t.Fatalf("metrics: %v", err)
	}
	c.Node("b").Start()
	c.Wait("writes go on", 30*time.Second, func() error { return put("after") })
	if after := c.until("w", "a serves", servedBy("a")); after.Epoch != g.Epoch {
		t.Fatal("the role moved")
	}
	c.Wait("all are level", 30*time.Second, c.settled)

	c.change("w", client.GroupPatch{"journal_full": "drop"})
	c.Node("b").Stop()
	for i := range 150 {
		c.Wait("writes go on", 40*time.Second, func() error { return put(fmt.Sprint("d", i%10)) })
	}
	g = c.until("w", "b was dropped", func(g client.GroupStatus) bool { return len(g.Dropped) == 1 })
	if d := g.Dropped[0]; d.Node != "b" || !d.LastCopy || g.Roles["b"] != client.RoleDropped {
		t.Fatalf("%+v, roles %v", d, g.Roles)
	}
	c.says("w", `\bNODE_DROPPED\b`)
	c.Node("b").Start()
	c.Wait("b knows", 20*time.Second, func() error {
		h, err := c.Node("b").Client().Health(ctx, "health", "", "")
		if err == nil && (h.Holds || !strings.Contains(h.Reason, "priming")) {
			err = fmt.Errorf("%+v", h)
		}
		return err
	})
	var refused *client.Error
	if _, err := c.Node("b").Client().Readmit(ctx, "default", "b"); !errors.As(err, &refused) || refused.Code != client.CodePrecondition || !strings.Contains(refused.Detail, "does not connect") {
		t.Fatalf("readmission: %v", err)
	}
	if err := put("last"); err != nil {
		t.Fatal(err)
	}
}
