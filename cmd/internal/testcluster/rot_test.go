package testcluster

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/understudy-ha/understudy/client"
	"github.com/understudy-ha/understudy/cmd/internal/node"
	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
)

// receiverFile is the path of a receiver on a node's disk.
func receiverFile(holder, author ident.NodeID, number uint32) string {
	return fmt.Sprintf("/%s/journals/default/%s/%06d.rcv", holder, author, number)
}

func (n *Node) fileOf(path string) []byte {
	n.cluster.t.Helper()
	f, err := n.fs.Open(path)
	if err != nil {
		n.cluster.t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		n.cluster.t.Fatal(err)
	}
	b := make([]byte, info.Size())
	if _, err := f.ReadAt(b, 0); err != nil {
		n.cluster.t.Fatal(err)
	}
	return b
}

// flip turns bits of a file on the node's disk over, past the node.
func (n *Node) flip(path string, at int64, bits ...byte) {
	n.cluster.t.Helper()
	f, err := n.fs.OpenReadWrite(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		n.cluster.t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, len(bits))
	if _, err := f.ReadAt(b, at); err != nil {
		n.cluster.t.Fatal(err)
	}
	for i := range b {
		b[i] ^= bits[i]
	}
	if _, err := f.WriteAt(b, at); err != nil {
		n.cluster.t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		n.cluster.t.Fatal(err)
	}
}

func (n *Node) remove(path string) {
	n.cluster.t.Helper()
	if err := n.fs.Remove(path); err != nil {
		n.cluster.t.Fatal(err)
	}
}

// sound fails unless the node's check finds nothing rotten in its copy of the journal, and its files are the other's to the byte, as
// far as both reach.
func (c *Cluster) soundAs(holder, other *Node, author ident.NodeID) {
	c.t.Helper()
	r, err := holder.client.Repair(c.t.Context(), "default", string(author), time.Minute)
	if err != nil || !r.OK || len(r.Rot) > 0 {
		c.t.Fatalf("journal %s on %s: %+v, %v\n%s", author, holder.ID, r, err, c.tail())
	}
	list, err := holder.client.Receivers(c.t.Context(), "default", string(author))
	if err != nil {
		c.t.Fatal(err)
	}
	far, err := other.client.Receivers(c.t.Context(), "default", string(author))
	if err != nil || len(far) != len(list) {
		c.t.Fatalf("%d receivers on %s, %d on %s, %v", len(list), holder.ID, len(far), other.ID, err)
	}
	for _, x := range list[:len(list)-1] {
		here, there := holder.fileOf(receiverFile(holder.ID, author, x.Number)), other.fileOf(receiverFile(other.ID, author, x.Number))
		if !bytes.Equal(bytes.TrimRight(here, "\x00"), bytes.TrimRight(there, "\x00")) { // how many zeros follow depends on who made the file
			c.t.Errorf("receiver %d of %s is not the same on %s and %s", x.Number, author, holder.ID, other.ID)
		}
	}
}

// kinds counts the node's events by kind.
func (n *Node) kinds() map[string]int {
	out := map[string]int{}
	all, err := n.client.Events(n.cluster.t.Context(), 0, 0)
	if err != nil {
		n.cluster.t.Fatal(err)
	}
	for _, e := range all {
		out[e.Kind]++
	}
	return out
}

type rotTest struct {
	*Cluster
	n int
}

// fill writes records of 4 kB.
func (c *rotTest) fill(by *Node, count int) {
	c.t.Helper()
	for range count {
		c.n++
		c.record(by, "file", fmt.Sprintf("key%05d", c.n), []byte(strings.Repeat(fmt.Sprint(c.n%10), 4000)))
	}
}

// right reads every record that was written.
func (c *rotTest) right(by *Node) {
	c.t.Helper()
	for i := 1; i <= c.n; i++ {
		r, err := by.client.Get(c.t.Context(), "file", fmt.Appendf(nil, "key%05d", i), client.ReadOptions{})
		if err != nil || string(r.Value) != strings.Repeat(fmt.Sprint(i%10), 4000) {
			c.t.Fatalf("record %d: %v, %d bytes", i, err, len(r.Value))
		}
	}
}

// Proves BX-8, BX-7, I9: a node that was down while its disk rotted starts as damaged, or finds it in the background; it is made
// whole from the others, whatever rotted: a detached receiver, the newest one, a missing file, the state file, its own journal. The
// others go on writing meanwhile, no answer is wrong, and at the end all copies are the same.
func TestRotOfAStoppedNode(t *testing.T) {
	c := rotTest{Cluster: Start(t, Options{Group: fsm.GroupSpec{ReceiverBytes: 64 << 10, KeepReceivers: -1}, Scrub: node.Scrub{Rate: 256 << 20, Every: 200 * time.Millisecond}})}
	a, b := c.Node("a"), c.Node("b")
	c.fill(a, 120)
	c.Wait("all are level", 20*time.Second, c.settled)
	for _, x := range []struct {
		name   string
		damage func(list []client.Receiver)
		closed bool // the group does not open before it is repaired
	}{
		{"a bundle of a detached receiver", func(l []client.Receiver) { b.flip(receiverFile("b", "a", l[2].Number), 9000, 1) }, false},
		{"a header", func(l []client.Receiver) { b.flip(receiverFile("b", "a", l[3].Number), 30, 0x80) }, true},
		{"two files are gone", func(l []client.Receiver) {
			b.remove(receiverFile("b", "a", l[4].Number))
			b.remove(receiverFile("b", "a", l[5].Number))
		}, true},
		{"the newest receiver", func(l []client.Receiver) { b.flip(receiverFile("b", "a", l[len(l)-1].Number), 4096+10, 1, 2, 3) }, true},
		{"the state file", func([]client.Receiver) { b.flip("/b/journals/default/a/state", 20, 4) }, true},
	} {
		list, err := b.client.Receivers(t.Context(), "default", "a")
		if err != nil || len(list) < 8 {
			t.Fatalf("%d receivers, %v", len(list), err)
		}
		b.Stop()
		x.damage(list)
		c.fill(a, 10)
		b.Start()
		c.fill(a, 10)
		c.Wait(x.name+": b is whole and level", 30*time.Second, func() error {
			if err := c.settled(); err != nil {
				return err
			}
			if k := b.kinds(); k["ROT_FOUND"] == 0 || k["ROT_REPAIRED"] == 0 {
				return fmt.Errorf("events %v", k)
			}
			return b.ready()
		})
		all, err := b.client.Events(t.Context(), 0, 0)
		if err != nil {
			t.Fatal(err)
		}
		if closed := slices.ContainsFunc(all, func(e client.Event) bool {
			return e.Kind == "ROT_FOUND" && strings.Contains(e.Message, "not opened") && e.Time.After(b.started())
		}); closed != x.closed {
			t.Errorf("%s: the group was closed: %t, want %t", x.name, closed, x.closed)
		}
		c.soundAs(b, a, "a")
		c.right(b)
	}
	c.equalDigests()
}

// Proves BX-8, BX-7, I9: a node whose disk rots while it runs finds it in the background, or when it reads there, and repairs it: as
// primary in its own journal, attached receiver included, as backup in a copy. Writes go on, and nothing wrong is answered.
func TestRotOfARunningNode(t *testing.T) {
	c := rotTest{Cluster: Start(t, Options{Group: fsm.GroupSpec{ReceiverBytes: 64 << 10, KeepReceivers: -1}, Scrub: node.Scrub{Rate: 256 << 20, Every: 100 * time.Millisecond}})}
	a, b := c.Node("a"), c.Node("b")
	c.fill(a, 100)
	c.Wait("all are level", 20*time.Second, c.settled)
	repaired := func(n *Node) uint64 {
		st, err := n.client.LocalStatus(t.Context())
		if err != nil || st.Scrub == nil {
			t.Fatalf("status of %s: %v", n.ID, err)
		}
		return st.Scrub.Repaired
	}
	for _, n := range []*Node{a, b} {
		list, err := n.client.Receivers(t.Context(), "default", "a")
		if err != nil {
			t.Fatal(err)
		}
		for _, x := range []struct {
			name   string
			damage func()
		}{
			{"bundle", func() { n.flip(receiverFile(n.ID, "a", list[1].Number), 20000, 16) }},
			{"zeros", func() {
				n.flip(receiverFile(n.ID, "a", list[1].Number), int64(len(n.fileOf(receiverFile(n.ID, "a", list[1].Number))))-1, 1)
			}},
			{"header", func() { n.flip(receiverFile(n.ID, "a", list[2].Number), 700, 1) }},
			{"file", func() { n.remove(receiverFile(n.ID, "a", list[3].Number)) }},
			{"attached receiver", func() { n.flip(receiverFile(n.ID, "a", list[len(list)-1].Number), 4096+50, 1) }},
			{"state file", func() { n.flip(fmt.Sprintf("/%s/journals/default/a/state", n.ID), 100, 1) }},
		} {
			before := repaired(n)
			x.damage()
			c.fill(a, 5)
			c.Wait(fmt.Sprintf("the %s of %s is repaired", x.name, n.ID), 20*time.Second, func() error {
				if repaired(n) == before {
					return fmt.Errorf("repaired %d", before)
				}
				return nil
			})
		}
		if g, err := a.client.Group(t.Context(), "default"); err != nil || g.Primary != "a" {
			t.Errorf("primary %s, %v", g.Primary, err)
		}
	}
	c.fill(a, 20)
	c.Wait("all are level", 20*time.Second, c.settled)
	c.soundAs(a, b, "a")
	c.soundAs(b, a, "a")
	c.right(a)
	c.equalDigests()
	metrics, err := b.metrics()
	if err != nil || !strings.Contains(metrics, "understudy_scrub_repaired_total{node=\"b\"}") {
		t.Errorf("metrics: %v", err)
	}
}

// Proves BX-8, BX-7: with the check switched off rot is met by the one that reads: the primary ships to a node that comes back, from a
// journal of its own that rotted in several places. Nothing rotten arrives; the places are repaired from the third node, and the
// primary keeps its role.
func TestRotMetByReaders(t *testing.T) {
	c := rotTest{Cluster: Start(t, Options{Group: fsm.GroupSpec{ReceiverBytes: 64 << 10, KeepReceivers: -1}, Scrub: node.Scrub{Every: time.Hour}})}
	a, b, late := c.Node("a"), c.Node("b"), c.Node("c")
	late.Stop()
	c.Wait("a secondary is in sync", 20*time.Second, c.settled)
	c.fill(a, 3000) // more than the ring holds in memory
	list, err := a.client.Receivers(t.Context(), "default", "a")
	if err != nil || len(list) < 100 {
		t.Fatalf("%d receivers, %v", len(list), err)
	}
	a.flip(receiverFile("a", "a", list[4].Number), 30000, 1)
	a.remove(receiverFile("a", "a", list[6].Number))
	a.flip(receiverFile("a", "a", list[8].Number), 40000, 255, 255, 255)
	late.Start()
	c.Wait("c is level", 60*time.Second, c.settled)
	c.Wait("a has told of all three", 20*time.Second, func() error {
		if k := a.kinds(); k["ROT_FOUND"] < 3 || k["ROT_REPAIRED"] < 3 {
			return fmt.Errorf("events %v", k)
		}
		return nil
	})
	if g, err := a.client.Group(t.Context(), "default"); err != nil || g.Primary != "a" || g.Epoch != 1 {
		t.Errorf("primary %s, epoch %d, %v", g.Primary, g.Epoch, err)
	}
	c.soundAs(a, b, "a")
	c.soundAs(late, a, "a")
	c.right(late)
	c.equalDigests()
}

// Proves BX-8, I3: a node whose journal is damaged is closed for the group as long as nobody has what is missing. It is not in the
// set, is not chosen, answers nothing, changes nothing, and says what to do; it goes on by itself once somebody who has it is there.
func TestDamagedNodeWaitsForATwin(t *testing.T) {
	c := rotTest{Cluster: Start(t, Options{Group: fsm.GroupSpec{ReceiverBytes: 64 << 10, KeepReceivers: -1}})}
	a, b := c.Node("a"), c.Node("b")
	c.fill(a, 60)
	c.Wait("all are level", 20*time.Second, c.settled)
	for _, id := range []ident.NodeID{"c", "b", "a"} {
		c.Node(id).Stop()
	}
	path := receiverFile("b", "a", 2)
	b.flip(path, 60, 1)
	rotten := b.fileOf(path)
	w := c.Node("c")
	w.flip(receiverFile("c", "a", 2), 60, 2) // the same place
	var starting sync.WaitGroup
	for _, n := range []*Node{b, w} {
		starting.Go(n.open)
	}
	starting.Wait()
	if t.Failed() {
		t.FailNow()
	}
	c.Wait("b says that it is damaged", 20*time.Second, func() error {
		st, err := b.client.LocalStatus(t.Context())
		if err != nil {
			return err
		}
		if st.Scrub == nil || len(st.Scrub.Rot) != 1 || !strings.Contains(st.Scrub.Rot[0].Detail, "start the other data nodes") {
			return fmt.Errorf("%+v", st.Scrub)
		}
		return nil
	})
	if b.ready() == nil {
		t.Error("b calls itself ready")
	}
	if _, err := b.client.Entries(t.Context(), "default", "a", client.EntryFilter{}); err == nil {
		t.Error("b answers from a damaged journal")
	}
	if r, err := b.client.Repair(t.Context(), "default", "a", time.Second); err != nil || r.OK {
		t.Errorf("repair without a twin: %+v, %v", r, err)
	}
	if !bytes.Equal(b.fileOf(path), rotten) {
		t.Error("b changed the rotten receiver")
	}
	a.Start()
	c.Wait("all are whole and level", 60*time.Second, func() error {
		for _, n := range []*Node{a, b, w} {
			if err := n.ready(); err != nil {
				return err
			}
		}
		return c.settled()
	})
	c.soundAs(b, a, "a")
	c.soundAs(w, a, "a")
	c.right(b)
	c.equalDigests()
}

// ready asks the node whether it takes part.
func (n *Node) ready() error {
	h, err := n.client.Health(n.cluster.t.Context(), "readyz", "", "")
	if err != nil {
		return err
	}
	if !h.Holds {
		return fmt.Errorf("not ready: %s", h.Reason)
	}
	return nil
}

func (n *Node) started() time.Time {
	st, err := n.client.Status(n.cluster.t.Context())
	if err != nil {
		n.cluster.t.Fatal(err)
	}
	return st.Started
}

func (n *Node) metrics() (string, error) {
	resp, err := http.Get("http://" + n.running.HTTP() + "/metrics")
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return string(b), err
}
