package testcluster

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/understudy-ha/understudy/client"
	"github.com/understudy-ha/understudy/cmd/internal/node"
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
	c.handTo("b")
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

// replaysOf returns what a node says of the journal in which it records what it replays.
func (n *Node) replaysOf() (client.Journal, error) {
	all, err := n.client.Journals(n.cluster.t.Context(), "default")
	if err != nil {
		return client.Journal{}, err
	}
	for _, j := range all {
		if j.Kind == client.JournalReplays {
			return j, nil
		}
	}
	return client.Journal{}, errors.New("it is not listed")
}

// Proves RJ-7, BX-8: what a backup records of what it replays is bounded by the node's own setting, whatever the group keeps; it is listed, measured
// and checked in the background, in any role and after a restart. Rot there is told, is not repaired from another node's journal of that
// name, is not given out, and goes with its receiver. Chains of such journals are not compared.
func TestReplaysAreBoundedAndChecked(t *testing.T) {
	const receiver, budget = 64 << 10, 512 << 10
	c := rotTest{Cluster: Start(t, Options{
		Group:   fsm.GroupSpec{Preferred: "a", JournalReplays: true, ReceiverBytes: receiver, KeepReceivers: -1},
		Replays: node.Replays{Bytes: budget}, Scrub: node.Scrub{Rate: 256 << 20, Every: 100 * time.Millisecond},
	})}
	a, b := c.Node("a"), c.Node("b")
	bounded := func(n *Node, recorded uint64) client.Journal {
		t.Helper()
		var j client.Journal
		c.Wait(fmt.Sprintf("%s has recorded %d entries", n.ID, recorded), 20*time.Second, func() (err error) {
			if j, err = n.replaysOf(); err == nil && j.Last < recorded {
				err = fmt.Errorf("%d", j.Last)
			}
			return err
		})
		if j.Bytes > budget || j.Limit != budget || j.Full != "" || j.Node != "replays" || j.ID != "default/replays" {
			t.Fatalf("replays of %s: %+v", n.ID, j)
		}
		return j
	}
	for range 4 {
		c.fill(b, 60)
		bounded(b, uint64(c.n))
	}
	if j := bounded(b, uint64(c.n)); j.First == 1 || j.Receivers < 3 {
		t.Errorf("replays of b: %+v", j)
	}
	if k := b.kinds(); k["REPLAYS_NOT_RECORDED"] > 0 || k["JOURNAL_FULL"] > 0 {
		t.Errorf("events %v", k)
	}
	if j, err := b.client.Receivers(t.Context(), "default", "a"); err != nil || j[0].Number != 1 {
		t.Errorf("receivers of a at b: %v", err)
	}
	if text, err := b.metrics(); err != nil || !strings.Contains(text, `understudy_journal_bytes{group="default",journal="default/replays",node="b"}`) {
		t.Errorf("metrics: %v", err)
	}

	c.Wait("all are level", 20*time.Second, c.settled)
	list, err := b.client.Receivers(t.Context(), "default", "replays")
	if err != nil {
		t.Fatal(err)
	}
	rotten := list[len(list)-2]
	path := fmt.Sprintf("/b/replays/default/%06d.rcv", rotten.Number)
	b.flip(path, 9000, 1)
	before := b.fileOf(path)
	c.Wait("b finds the rot", 20*time.Second, func() error {
		if k := b.kinds(); k["ROT_STAYS"] == 0 {
			return fmt.Errorf("events %v", k)
		}
		return nil
	})
	if !bytes.Equal(b.fileOf(path), before) {
		t.Error("another node's replays were taken for a repair")
	}
	if _, err := b.client.Entries(t.Context(), "default", "replays", client.EntryFilter{From: rotten.First, To: rotten.Last}); client.CodeOf(err) != client.CodeCorrupt {
		t.Errorf("rotten replays are given out: %v", err)
	}
	c.fill(a, 240)
	c.Wait("it went with its receiver", 20*time.Second, func() error {
		st, err := b.client.LocalStatus(t.Context())
		if err == nil && len(st.Scrub.Rot) > 0 {
			err = fmt.Errorf("%+v", st.Scrub.Rot)
		}
		return err
	})

	b.Stop()
	b.Start()
	c.Wait("all are level", 30*time.Second, c.settled)
	c.handTo("b")
	bounded(b, uint64(c.n)) // as primary, too
	c.fill(b, 20)
	c.Wait("all are level", 30*time.Second, c.settled)
	for _, n := range []*Node{a, b, c.Node("c")} {
		if k := n.kinds(); k["CHAINS_DIFFER"] > 0 {
			t.Errorf("events of %s: %v", n.ID, k)
		}
	}
	c.right(b)
	c.equalDigests()
}

// Proves RJ-7: receivers of replays go when all in them is older than the node keeps it, also when nothing more is replayed.
func TestReplaysGoByAge(t *testing.T) {
	c := rotTest{Cluster: Start(t, Options{Group: fsm.GroupSpec{JournalReplays: true, ReceiverBytes: 64 << 10}, Replays: node.Replays{Bytes: 64 << 20, Age: time.Second}})}
	b := c.Node("b")
	c.fill(b, 60)
	c.Wait("what is old is gone", 30*time.Second, func() error {
		list, err := b.client.Receivers(t.Context(), "default", "replays")
		if err == nil && (list[0].Number == 1 || len(list) > 3) {
			err = fmt.Errorf("%d receivers from %d on", len(list), list[0].Number)
		}
		return err
	})
}
