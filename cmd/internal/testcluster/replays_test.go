package testcluster

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/understudy-ha/understudy/client"
	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
)

// records lists the record entries of a journal as held by one node: position and key, in order.
func (c *Cluster) records(at, author ident.NodeID) (out []string) {
	c.t.Helper()
	for from := uint64(0); ; {
		page, err := c.Node(at).Client().Entries(c.t.Context(), "default", string(author), client.EntryFilter{From: from, Code: "R", Limit: 1000})
		if err != nil {
			c.t.Fatal(err)
		}
		for _, e := range page {
			out = append(out, e.Position+" "+string(e.Key.Bytes()))
			from = e.Sequence + 1
		}
		if len(page) < 1000 {
			return out
		}
	}
}

// TestBackupsRecordWhatTheyReplay: with journal_replays a backup repeats every fact it replays in a journal of its own, once and in
// order, across the crash of its machine and a turn as primary. Nobody else gets to see it. Proves RJ-7.
func TestBackupsRecordWhatTheyReplay(t *testing.T) {
	c := Start(t, Options{Group: fsm.GroupSpec{Preferred: "a", JournalReplays: true}})
	recorded := func(by, of ident.NodeID, skip int) {
		t.Helper()
		c.Wait(fmt.Sprintf("%s has recorded what %s wrote", by, of), 20*time.Second, func() error {
			want, have := c.records(of, of), c.records(by, "replays")
			want = want[min(skip, len(want)):]
			if len(have) < len(want) {
				return fmt.Errorf("%d of %d", len(have), len(want))
			}
			have = have[len(have)-len(want):]
			for i := range want {
				if want[i] != have[i] {
					return fmt.Errorf("entry %d is %q, want %q", i, have[i], want[i])
				}
			}
			return nil
		})
	}
	c.put("a", "one", 20)
	recorded("b", "a", 0)
	recorded("c", "a", 0)
	for round := range 3 {
		w := c.write(2)
		c.Wait("writes go on", 20*time.Second, func() error {
			if w.count() < 40 {
				return errors.New("not yet")
			}
			return nil
		})
		c.Node("b").Crash()
		c.put("a", fmt.Sprintf("away%d-", round), 5)
		c.Node("b").Start()
		w.finish()
		c.Wait("all are level", 30*time.Second, c.settled)
		recorded("b", "a", 0)
	}
	if want, have := c.records("a", "a"), c.records("b", "replays"); len(want) != len(have) {
		t.Fatalf("b recorded %d facts, a wrote %d", len(have), len(want))
	}

	// b's turn: its journal holds nothing but its own facts, and a records them.
	before := len(c.records("b", "b"))
	if before != 0 {
		t.Fatalf("b's own journal holds %d facts before its turn", before)
	}
	if op, err := c.Node("a").Client().Switchover(t.Context(), "default", client.SwitchoverRequest{To: "b"}, 20*time.Second); err != nil || op.State != client.OperationDone {
		t.Fatalf("%+v %v", op, err)
	}
	c.put("b", "two", 20)
	c.Wait("all are level", 30*time.Second, c.settled)
	recorded("a", "b", before)
	c.equalDigests()
	c.Node("b").Crash()
	c.until("c", "somebody takes over", func(g client.GroupStatus) bool { return g.Primary != "b" && servedBy(g.Primary)(g) })
	c.put("c", "three", 10)
	c.Node("b").Start()
	c.Wait("all are level", 30*time.Second, c.settled)
	c.equalDigests()
}
