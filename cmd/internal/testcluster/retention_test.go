package testcluster

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
)

// Proves RJ-5, TR-4: receivers change by size; a detached one is kept as long as any data node has not flushed what it
// holds, an absent node too, and deleted by policy once all have; the absent node catches up from what was kept.
func TestReceiversAreKeptForTheAbsent(t *testing.T) {
	const keep = 2
	c := Start(t, Options{Group: fsm.GroupSpec{ReceiverBytes: 64 << 10, KeepReceivers: keep}})
	a, absent := c.Node("a"), c.Node("c")
	if g, err := a.client.Group(t.Context(), "default"); err != nil || g.Primary != "a" {
		t.Fatalf("primary %s, %v", g.Primary, err)
	}
	detached := func() int {
		list, err := a.client.Receivers(t.Context(), "default", "a")
		if err != nil {
			t.Fatal(err)
		}
		return len(list) - 1
	}
	n := 0
	fill := func(count int) {
		t.Helper()
		for range count {
			n++
			c.record(a, "file", fmt.Sprintf("key%05d", n), []byte(strings.Repeat("x", 4000)))
		}
	}
	absent.Stop()
	c.Wait("a secondary is in sync", 20*time.Second, c.settled)
	fill(300)
	if d := detached(); d < 15 {
		t.Fatalf("%d detached receivers after 300 writes of 4 kB into receivers of 64 KiB", d)
	}
	// The two that are there have everything flushed; only the absent one keeps the receivers.
	c.Wait("both have flushed", 20*time.Second, func() error {
		st, _ := a.running.State()
		for _, id := range []ident.NodeID{"a", "b"} {
			if at := st.Nodes[id].Flushed["default"]; at.History < 250 {
				return fmt.Errorf("%s has flushed up to %s", id, at)
			}
		}
		return nil
	})
	if d := detached(); d < 15 {
		t.Fatalf("only %d detached receivers are left although c needs them", d)
	}
	absent.Start()
	c.Wait("c is level, and the receivers are gone but for those to keep", 30*time.Second, func() error {
		if err := c.settled(); err != nil {
			return err
		}
		if d := detached(); d > keep+1 {
			return fmt.Errorf("%d detached receivers", d)
		}
		return nil
	})
	fill(20)
	c.equalDigests()
	if d, err := absent.client.Digest(t.Context(), "default"); err != nil || d.Records != uint64(n) {
		t.Errorf("c holds %d records (%v), %d were written", d.Records, err, n)
	}
}
