package testcluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/understudy-ha/understudy/client"
	"github.com/understudy-ha/understudy/internal/ident"
)

// writer writes numbered records without a break, each once, and remembers what the cluster said of each.
type writer struct {
	client  *client.Client
	mu      sync.Mutex
	acked   map[string]string
	unknown map[string]string
	refused int   // surely not done
	last    error // of a write that was not acknowledged
	stop    chan struct{}
	done    sync.WaitGroup
}

// write starts n writers that follow the primary through any node.
func (c *Cluster) write(n int) *writer {
	var addresses []string
	for _, id := range c.options.Nodes {
		addresses = append(addresses, c.Node(id).config.Listen.HTTP)
	}
	w := &writer{client: client.NewWith(client.Options{Addresses: addresses, Retry: -1}), acked: map[string]string{}, unknown: map[string]string{}, stop: make(chan struct{})}
	for i := range n {
		w.done.Go(func() {
			for k := 0; ; k++ {
				select {
				case <-w.stop:
					return
				default:
				}
				key, value := fmt.Sprintf("w%d/%06d", i, k), fmt.Sprintf("value %d of writer %d", k, i)
				ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
				_, err := w.client.Put(ctx, "load", []byte(key), []byte(value), client.WriteOptions{Wait: 20 * time.Second})
				cancel()
				w.mu.Lock()
				var refused *client.Error
				switch {
				case err == nil:
					w.acked[key] = value
				case errors.As(err, &refused) && refused.Code.NotDone():
					w.refused++
				default:
					w.unknown[key] = value
				}
				if err != nil {
					w.last = err
				}
				w.mu.Unlock()
			}
		})
	}
	return w
}

func (w *writer) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.acked)
}

func (w *writer) finish() {
	close(w.stop)
	w.done.Wait()
	w.client.Close()
}

// primary waits until one of the running nodes serves, and returns it.
func (c *Cluster) primary() *Node {
	c.t.Helper()
	var found *Node
	c.Wait("somebody serves", 20*time.Second, func() error {
		for _, id := range c.options.Nodes {
			n := c.Node(id)
			if n.running == nil {
				continue
			}
			g, err := n.client.Group(c.t.Context(), string(c.options.Group.Name))
			if err == nil && g.Local.Serving {
				found = n
				return nil
			}
		}
		return errors.New("nobody does")
	})
	return found
}

// Proves BX-2 (first version), RJ-9 and CL-3: machines die under load, one after the other, the primary each time, and keep
// only what they had synced. No acknowledged write is lost, and each machine comes back by itself.
func TestPrimaryDiesAgainAndAgain(t *testing.T) {
	c := Start(t, Options{})
	w := c.write(4)
	for round := range 4 {
		before := w.count()
		c.Wait("writes go on", 20*time.Second, func() error {
			if n := w.count(); n < before+50 {
				return fmt.Errorf("%d acknowledged since", n-before)
			}
			return nil
		})
		p := c.primary()
		p.Crash()
		next := c.primary()
		if next == p {
			t.Fatalf("round %d: the dead node serves", round)
		}
		p.Start()
		c.Wait("the cluster is settled again", 30*time.Second, func() error {
			c.relax(w)
			return c.settled()
		})
	}
	w.finish()
	if len(w.acked) < 200 {
		t.Fatalf("only %d writes were acknowledged: the test proves nothing", len(w.acked))
	}
	c.verify(w)
}

// relax lets the writers rest until "no lag" can be seen, or for a moment, and then while the caller looks.
func (c *Cluster) relax(w *writer) {
	w.mu.Lock()
	for range 20 {
		if c.settled() == nil {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	time.AfterFunc(500*time.Millisecond, w.mu.Unlock)
}

// verify reads back every acknowledged write on every node and compares the digests.
func (c *Cluster) verify(w *writer) {
	c.t.Helper()
	c.equalDigests()
	for _, id := range c.options.Nodes {
		found := map[string]string{}
		for r, err := range c.Node(id).client.All(c.t.Context(), "load", client.ListOptions{Local: true}) {
			if err != nil {
				c.t.Fatalf("list on %s: %v", id, err)
			}
			found[r.Text] = string(r.Value)
		}
		for key, value := range w.acked {
			if found[key] != value {
				c.t.Errorf("%s: acknowledged write %s is %q, want %q", id, key, found[key], value)
			}
		}
		for key, value := range found {
			if w.acked[key] != value && w.unknown[key] != value {
				c.t.Errorf("%s: record %s = %q was never acknowledged nor left unknown", id, key, value)
			}
		}
	}
}

func (c *Cluster) equalDigests() {
	c.t.Helper()
	c.Wait("all nodes have equal content at equal positions", 20*time.Second, func() error {
		var first client.Digest
		for i, id := range c.options.Nodes {
			d, err := c.Node(id).client.Digest(c.t.Context(), string(c.options.Group.Name))
			if err != nil {
				return err
			}
			if d.Node = ""; i == 0 {
				first = d
			}
			if d != first {
				return fmt.Errorf("node %s %+v, first %+v", id, d, first)
			}
		}
		return nil
	})
}

// Proves RJ-2, CL-5 and BX-1 (first version): the role moves round the cluster under load, no request fails, and then every
// copy of every journal is identical to its source, receiver by receiver, byte by byte.
func TestSwitchoversUnderLoad(t *testing.T) {
	c := Start(t, Options{Timing: steady()})
	w := c.write(4)
	for _, to := range []ident.NodeID{"b", "c", "a", "c", "b", "a"} {
		before := w.count()
		op, err := c.primary().client.Switchover(t.Context(), "default", client.SwitchoverRequest{To: string(to), MaxPause: client.Duration(20 * time.Second)}, time.Minute)
		if err != nil || op.State != client.OperationDone {
			var refused *client.Error
			if errors.As(err, &refused) {
				t.Logf("checks: %+v", refused.Checks)
			}
			t.Fatalf("switch-over to %s: %+v, %v\n%s", to, op, err, c.tail())
		}
		c.Wait("writes go on", 20*time.Second, func() error {
			if n := w.count(); n < before+30 {
				return fmt.Errorf("%d acknowledged since", n-before)
			}
			return nil
		})
	}
	w.finish()
	if len(w.unknown) != 0 {
		t.Errorf("%d writes failed in planned switch-overs, want none", len(w.unknown))
	}
	c.verify(w)
	compared := 0
	for _, author := range c.options.Nodes {
		receivers, err := c.Node(author).client.Receivers(t.Context(), "default", string(author))
		if err != nil {
			t.Fatal(err)
		}
		for _, id := range c.options.Nodes {
			for _, r := range receivers {
				name := fmt.Sprintf("journals/default/%s/%06d.rcv", author, r.Number)
				source, err := c.Node(author).read(name)
				if err != nil {
					t.Fatal(err)
				}
				held, err := c.Node(id).client.Receivers(t.Context(), "default", string(author))
				if err != nil || id == author {
					continue
				}
				for _, h := range held {
					if h.Number != r.Number || h.Last != r.Last {
						continue // its author closed it in STANDBY, which is not shipped before its next turn
					}
					twin, err := c.Node(id).read(name)
					if err != nil {
						t.Fatal(err)
					}
					if !bytes.Equal(bytes.TrimRight(source, "\x00"), bytes.TrimRight(twin, "\x00")) {
						t.Errorf("%s differs between %s and %s", name, author, id)
					}
					compared++
				}
			}
		}
	}
	if compared < 6 {
		t.Errorf("only %d receivers were compared", compared)
	}
}

// read returns a file of the node's data directory.
func (n *Node) read(name string) ([]byte, error) {
	f, err := n.fs.Open(n.fs.PathJoin(n.config.Data, name))
	if err != nil {
		return nil, err
	}
	raw, err := io.ReadAll(f)
	return raw, errors.Join(err, f.Close())
}

// Proves CL-5: a dry run changes nothing, and a switch-over that cannot go on is rolled back when it is canceled.
func TestDryRunAndCancel(t *testing.T) {
	c := Start(t, Options{Timing: steady()})
	p := c.primary()
	before, err := p.client.Group(t.Context(), "default")
	if err != nil {
		t.Fatal(err)
	}
	ready, err := p.client.DryRun(t.Context(), "default", client.SwitchoverRequest{To: before.InSync[0]})
	if err != nil || !ready.Ready {
		t.Fatalf("dry run: %+v, %v", ready, err)
	}
	operations, err := p.client.Operations(t.Context())
	after, err2 := p.client.Group(t.Context(), "default")
	if err != nil || err2 != nil || len(operations) != 0 || after.Epoch != before.Epoch || after.Primary != before.Primary {
		t.Fatalf("after the dry run: epoch %d, primary %s, operations %+v (%v, %v)", after.Epoch, after.Primary, operations, err, err2)
	}
	var target *Node // the one outside the set: with its disk hanging it cannot join, so the switch-over stays where it is
	for _, id := range c.options.Nodes {
		if n := c.Node(id); n != p && string(id) != before.InSync[0] {
			target = n
		}
	}
	target.Disk().Pause("journal.sync:default/" + string(p.ID))
	if _, err := p.client.Put(t.Context(), "file", []byte("key"), []byte("value"), client.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	op, err := p.client.Switchover(t.Context(), "default", client.SwitchoverRequest{To: string(target.ID), MaxPause: client.Duration(20 * time.Second)}, time.Millisecond)
	if err != nil || op.Finished() {
		t.Fatalf("switch-over to a node whose disk hangs: %+v, %v", op, err)
	}
	if err := p.client.CancelSwitchover(t.Context(), "default"); err != nil {
		t.Fatalf("cancel: %v", err)
	}
	if op, err = p.client.Operation(t.Context(), op.ID, time.Minute); err != nil || op.State != client.OperationRolledBack {
		t.Fatalf("after the cancel: %+v, %v", op, err)
	}
	if now := c.primary(); now != p {
		t.Errorf("%s serves after a canceled switch-over, want %s", now.ID, p.ID)
	}
	if _, err := p.client.Put(t.Context(), "file", []byte("key"), []byte("again"), client.WriteOptions{}); err != nil {
		t.Errorf("write after the cancel: %v", err)
	}
}
