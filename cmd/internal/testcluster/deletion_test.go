package testcluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/understudy-ha/understudy/client"
	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
)

// orders creates the group orders for the files of that name, with b as its primary.
func (c *Cluster) ordersGroup() {
	c.t.Helper()
	c.eventually("the group is created", func() error { // b may have no lease yet
		return c.Node("a").Client().CreateGroup(c.t.Context(), client.GroupSpec{Name: "orders", Files: []string{"orders*"}, Preferred: "b"})
	})
	c.primaries("a", map[string]string{"default": "a", "orders": "b"})
}

// forgotten waits until nothing of a group is left in a node's data directory.
func (c *Cluster) forgotten(n *Node, group string) {
	c.t.Helper()
	c.Wait(fmt.Sprintf("node %s has nothing of %s", n.ID, group), 60*time.Second, func() error {
		for _, dir := range []string{"journals", "promises", "backouts", "replays", "recall", "deleted"} {
			path := n.fs.PathJoin("/", string(n.ID), dir, group)
			if _, err := n.fs.Stat(path); !errors.Is(err, os.ErrNotExist) {
				return fmt.Errorf("%s: %v", path, err)
			}
		}
		return nil
	})
}

// Proves TR-7, IC-1: a group is deleted once it holds no records, not before, with the record named; then what it selected is the wider
// group's, its name is never used again, and every node removes what it has of it: one that was away does when it is back, and after a
// restart of all everything is as before. Redis clients are told that there is no such master any more.
func TestDeletedGroup(t *testing.T) {
	c := Start(t, Options{Group: fsm.GroupSpec{Preferred: "a"}})
	ctx := t.Context()
	c.ordersGroup()
	put := func(at ident.NodeID, key string) string {
		w, err := c.Node(at).Client().Put(ctx, "orders", []byte(key), []byte("apples"), client.WriteOptions{Wait: 30 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		return w.Position
	}
	put("c", "1")
	told := c.sentinelOf("a").PSubscribe(ctx, "-monitor")
	defer told.Close()
	if _, err := told.Receive(ctx); err != nil {
		t.Fatal(err)
	}
	if dry, err := c.Node("c").Client().DryRunDelete(ctx, "orders"); err != nil || dry.Records != 1 || dry.File != "orders" || dry.Key != "1" || len(dry.Blockers) != 1 {
		t.Errorf("dry run: %+v, %v", dry, err)
	}
	if _, err := c.Node("c").Client().DeleteGroup(ctx, "orders"); !errors.Is(err, client.ErrExists) || !strings.Contains(err.Error(), `key "1" of file "orders"`) {
		t.Fatalf("deleted with a record in it: %v", err)
	}
	if dry, err := c.Node("a").Client().DryRunDelete(ctx, "default"); err != nil || len(dry.Blockers) != 0 {
		t.Errorf("dry run of the wider group: %+v, %v", dry, err)
	}
	c.Wait("all hold the group", 30*time.Second, func() error {
		for _, id := range []ident.NodeID{"a", "b", "c"} {
			if names, err := c.Node(id).fs.List("/" + string(id) + "/journals/orders"); err != nil || len(names) == 0 {
				return fmt.Errorf("%s: %v, %v", id, names, err)
			}
		}
		return nil
	})
	c.Node("c").Stop()
	if _, err := c.Node("a").Client().Delete(ctx, "orders", []byte("1"), client.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	d, err := c.Node("a").Client().DeleteGroup(ctx, "orders")
	if err != nil || !d.Deleted || d.At.IsZero() || !strings.Contains(d.Note, "group default") {
		t.Fatalf("%+v, %v", d, err)
	}
	if at := put("b", "2"); !strings.HasPrefix(at, "default@") {
		t.Errorf("written at %s", at)
	}
	hears, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	if m, err := told.ReceiveMessage(hears); err != nil || !strings.HasPrefix(m.Payload, "master orders ") {
		t.Errorf("told %v, %v", m, err)
	}
	if addr, err := c.sentinelOf("b").GetMasterAddrByName(ctx, "orders").Result(); err == nil {
		t.Errorf("the master is at %v", addr)
	}
	if err := c.Node("b").Client().CreateGroup(ctx, client.GroupSpec{Name: "orders", Files: []string{"x"}, Preferred: "b"}); !errors.Is(err, client.ErrExists) || !strings.Contains(err.Error(), "deleted") {
		t.Errorf("created again: %v", err)
	}
	if _, err := c.Node("b").Client().DeleteGroup(ctx, "orders"); !errors.Is(err, client.ErrUnknownGroup) || !strings.Contains(err.Error(), "was deleted at") {
		t.Errorf("deleted twice: %v", err)
	}
	for _, id := range []ident.NodeID{"a", "b"} {
		c.forgotten(c.Node(id), "orders")
	}
	if _, err := c.Node("c").fs.Stat("/c/journals/orders"); err != nil {
		t.Errorf("what is away has nothing to lose: %v", err)
	}
	away := c.Node("c")
	away.Disk().Pause("node.discard:orders")
	away.Start()
	c.Wait("c has noted that it removes the group", 60*time.Second, func() error {
		_, err := away.fs.Stat("/c/deleted/orders")
		return err
	})
	away.Crash() // in the middle
	if _, err := away.fs.Stat("/c/deleted/orders"); err != nil {
		t.Errorf("what it began is forgotten: %v", err)
	}
	away.Start()
	c.forgotten(away, "orders")
	for _, id := range []ident.NodeID{"a", "b", "c"} {
		c.Node(id).Stop()
	}
	var opening sync.WaitGroup // none is open before a majority is
	for _, id := range []ident.NodeID{"a", "b", "c"} {
		opening.Go(c.Node(id).open)
	}
	opening.Wait()
	for _, id := range []ident.NodeID{"a", "b", "c"} {
		c.forgotten(c.Node(id), "orders")
		c.eventually("the record is read at "+string(id), func() error {
			r, err := c.Node(id).Client().Get(ctx, "orders", []byte("2"), client.ReadOptions{Wait: 30 * time.Second})
			if err == nil && string(r.Value) != "apples" {
				t.Errorf("%s: %+v", id, r)
			}
			return err
		})
	}
	if err := c.Node("b").Client().CreateGroup(ctx, client.GroupSpec{Name: "orders", Files: []string{"x"}, Preferred: "b"}); !errors.Is(err, client.ErrExists) {
		t.Errorf("created again after the restart: %v", err)
	}
	if _, err := c.Node("b").Client().DeleteGroup(ctx, "default"); !errors.Is(err, client.ErrExists) || !strings.Contains(err.Error(), "last group") {
		t.Errorf("the last group: %v", err)
	}
}

// Proves I8: the primary dies in the middle of a deletion, before it has said what it holds. The deletion is over with its epoch, and the group
// goes on with everything in it.
func TestPrimaryDiesWhileItsGroupIsDeleted(t *testing.T) {
	c := Start(t, Options{Group: fsm.GroupSpec{Preferred: "a"}, Watchdog: time.Minute})
	ctx := t.Context()
	c.ordersGroup()
	b := c.Node("b")
	b.Disk().Pause("replica.seal:orders") // so that it cannot see the end of what was before
	asked, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan error, 1)
	go func() {
		_, err := c.Node("a").Client().DeleteGroup(asked, "orders")
		done <- err
	}()
	c.Wait("the group is closing", 30*time.Second, func() error {
		st, _ := c.Node("a").running.State()
		if g := st.Groups["orders"]; g == nil || g.Closing == nil {
			return errors.New("not yet")
		}
		return nil
	})
	b.Crash()
	if err := <-done; err == nil {
		t.Error("it was deleted")
	}
	c.Wait("another primary", 60*time.Second, func() error {
		st, _ := c.Node("a").running.State()
		if g := st.Groups["orders"]; g == nil || g.Phase != fsm.PhaseOpened || g.Primary == "b" || g.Closing != nil {
			return fmt.Errorf("%+v", g)
		}
		return nil
	})
	if w, err := c.Node("a").Client().Put(ctx, "orders", []byte("k"), []byte("v"), client.WriteOptions{Wait: 30 * time.Second}); err != nil || !strings.HasPrefix(w.Position, "orders@") {
		t.Errorf("%+v, %v", w, err)
	}
	b.Start()
	c.primaries("a", map[string]string{"default": "a"})
}

// Proves TR-7, I8: a write that waits at the primary when its group is to be deleted is not taken there any more; it becomes one of the group
// that owns its record afterwards. Nothing is lost, and nothing is done twice.
func TestWriteWhileItsGroupIsDeleted(t *testing.T) {
	c := Start(t, Options{Group: fsm.GroupSpec{Preferred: "a"}, Watchdog: time.Minute})
	ctx := t.Context()
	c.ordersGroup()
	b := c.Node("b")
	waiting := func(n int) {
		t.Helper()
		c.Wait(fmt.Sprintf("%d requests wait at b", n), 30*time.Second, func() error {
			if g, err := b.Client().Group(ctx, "orders"); err != nil || g.Held != n {
				return fmt.Errorf("%d, %v", g.Held, err)
			}
			return nil
		})
	}
	b.Disk().Pause("replica.seal:orders")
	wrote := make(chan string, 1)
	go func() {
		w, err := b.Client().Put(ctx, "orders", []byte("k"), []byte("v"), client.WriteOptions{Wait: 30 * time.Second, IfAbsent: true})
		if err != nil {
			t.Errorf("the write: %v", err)
		}
		wrote <- w.Position
	}()
	waiting(1)
	deleted := make(chan error, 1)
	go func() {
		_, err := c.Node("c").Client().DeleteGroup(ctx, "orders")
		deleted <- err
	}()
	waiting(2) // what proves that nothing is on its way comes behind the write
	b.Disk().Resume("replica.seal:orders")
	if err := <-deleted; err != nil {
		t.Errorf("the group was not deleted: %v", err)
	}
	if at := <-wrote; !strings.HasPrefix(at, "default@") {
		t.Errorf("written at %s", at)
	}
	if r, err := c.Node("c").Client().Get(ctx, "orders", []byte("k"), client.ReadOptions{Wait: 30 * time.Second}); err != nil || string(r.Value) != "v" {
		t.Errorf("%+v, %v", r, err)
	}
	c.forgotten(b, "orders")
}
