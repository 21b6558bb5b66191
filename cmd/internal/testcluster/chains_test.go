package testcluster

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/understudy-ha/understudy/client"
	"github.com/understudy-ha/understudy/cmd/internal/node"
	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal"
	"github.com/understudy-ha/understudy/journal/entry"
)

// rewritten returns the receiver with other values in all records, whole by every checksum in it, and the chain at its end. It begins with a
// chain as after other receivers.
func (c *Cluster) rewritten(raw []byte, chain ident.Chain) ([]byte, ident.Chain) {
	c.t.Helper()
	head := slices.Clone(raw[:journal.HeaderSize])
	binary.LittleEndian.PutUint64(head[40:], uint64(chain))
	crc := journal.HeaderSize - 4
	binary.LittleEndian.PutUint32(head[crc:], crc32.Checksum(head[:crc], crc32.MakeTable(crc32.Castagnoli)))
	if h, err := journal.DecodeReceiverHeader(head); err != nil || h.Chain != chain {
		c.t.Fatalf("header %+v: %v", h, err)
	}
	out, rest := head, raw[journal.HeaderSize:]
	for len(rest) > 0 && rest[0] != 0 {
		h, err := entry.DecodeHeader(rest)
		if err != nil {
			c.t.Fatal(err)
		}
		b, err := entry.Decode(rest[:h.Length])
		if err != nil {
			c.t.Fatal(err)
		}
		all, err := b.All()
		if err != nil {
			c.t.Fatal(err)
		}
		for i := range all {
			if e := &all[i]; e.Code == entry.Record && e.After != nil {
				after := *e.After
				after.Value = []byte(strings.Repeat("x", len(after.Value)))
				e.After = &after
			}
		}
		before := len(out)
		b.Chain = chain
		if out, _, err = entry.Seal(out, b.Header, all); err != nil || len(out)-before != int(h.Length) {
			c.t.Fatalf("%d bytes instead of %d: %v", len(out)-before, h.Length, err)
		}
		chain = entry.NextChain(chain, out[before:])
		rest = rest[h.Length:]
	}
	return append(out, rest...), chain
}

// toldOf returns the node's events of a kind.
func (n *Node) toldOf(kind string) (out []client.Event) {
	n.cluster.t.Helper()
	all, err := n.client.Events(n.cluster.t.Context(), 0, 0)
	if err != nil {
		n.cluster.t.Fatal(err)
	}
	for _, e := range all {
		if e.Kind == kind {
			out = append(out, e)
		}
	}
	return out
}

// Proves BX-7: a copy with a receiver that is whole by every checksum in it, but begins with another chain than everywhere else, is noticed when
// the nodes see each other, is named by all of them, and is neither served nor repaired blindly; the copy takes no part. What else it holds is
// served. Its own check is off: only the comparison finds it. Without the file it is made whole at the next start.
func TestChainsThatDifferInTheMiddle(t *testing.T) {
	c := rotTest{Cluster: Start(t, Options{Group: fsm.GroupSpec{ReceiverBytes: 64 << 10, KeepReceivers: -1}, Scrub: node.Scrub{Every: time.Hour}})}
	a, other := c.Node("a"), c.Node("c")
	c.fill(a, 100)
	c.Wait("all are level", 20*time.Second, c.settled)
	other.Stop()
	const number = 3
	path := receiverFile("c", "a", number)
	raw, _ := c.rewritten(other.fileOf(path), 4711)
	if err := other.write(strings.TrimPrefix(path, "/c/"), raw); err != nil {
		t.Fatal(err)
	}
	other.Start()
	for _, x := range []struct {
		by   *Node
		peer string
	}{{other, "a"}, {other, "b"}, {a, "c"}, {c.Node("b"), "c"}} {
		c.differs(x.by, "default/a", number, x.peer, client.SeverityWarning)
	}
	list, err := other.client.Receivers(t.Context(), "default", "a")
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range list[:len(list)-1] {
		f := client.EntryFilter{From: r.First, To: r.Last, Code: "R"}
		have, err := other.client.Entries(t.Context(), "default", "a", f)
		if r.Number == number || r.Number == number-1 { // which of the two it is cannot be told here
			if client.CodeOf(err) != client.CodeCorrupt || len(have) > 0 {
				t.Errorf("receiver %d is served: %d entries, %v", r.Number, len(have), err)
			}
			continue
		}
		want, werr := a.client.Entries(t.Context(), "default", "a", f)
		if err != nil || werr != nil || !reflect.DeepEqual(have, want) {
			t.Errorf("receiver %d: %d entries (%v), want %d (%v)", r.Number, len(have), err, len(want), werr)
		}
	}
	st, err := other.client.LocalStatus(t.Context())
	if err != nil || !slices.ContainsFunc(st.Scrub.Rot, func(p client.RotPlace) bool { return p.Receiver == number && !p.Repaired }) {
		t.Errorf("status: %+v, %v", st.Scrub, err)
	}
	if g, err := a.client.Group(t.Context(), "default"); err != nil || slices.Contains(g.InSync, "c") {
		t.Errorf("c is in sync: %+v, %v", g.InSync, err)
	}
	c.right(other) // its records are right
	for e, err := range other.client.FollowHistory(t.Context(), "default", client.FollowOptions{EntryFilter: client.EntryFilter{Code: "R"}, Patience: time.Second}) {
		if err != nil {
			if client.CodeOf(err) != client.CodeCorrupt {
				t.Errorf("a stream ends with %v", err)
			}
			break
		}
		if e.Sequence >= list[number-2].First {
			t.Fatalf("entry %d is given out by a stream", e.Sequence)
		}
	}
	other.Stop()
	other.remove(path)
	other.Start()
	c.Wait("all are level", 30*time.Second, c.settled)
	c.soundAs(other, a, "a")
	c.equalDigests()
}

// differs waits until a node has told that a journal here and at a peer differ from a receiver on.
func (c *Cluster) differs(by *Node, journal string, number uint32, peer string, severity string) {
	c.t.Helper()
	c.Wait(fmt.Sprintf("%s tells that %s differs at %s", by.ID, journal, peer), 30*time.Second, func() error {
		all := by.toldOf("CHAINS_DIFFER")
		for _, e := range all {
			if e.Fields["journal"] == journal && e.Fields["receiver"] == fmt.Sprintf("%06d", number) && e.Fields["peer"] == peer && e.Severity == severity {
				return nil
			}
		}
		return fmt.Errorf("events %+v", all)
	})
}

// Proves BX-7: two copies of a journal that nobody writes any more, each whole in itself, with different ends: the difference is told as an error once
// it has stayed, at both, with the receiver and the other's name.
func TestChainsThatDifferAtTheEnd(t *testing.T) {
	c := rotTest{Cluster: Start(t, Options{Nodes: []ident.NodeID{"a", "b", "w"}, Witnesses: []ident.NodeID{"w"}, Group: fsm.GroupSpec{ReceiverBytes: 64 << 10, KeepReceivers: -1}, Scrub: node.Scrub{Every: time.Hour}})}
	a, b := c.Node("a"), c.Node("b")
	for _, to := range []*Node{b, a} {
		if op, err := c.primary().Client().Switchover(t.Context(), "default", client.SwitchoverRequest{To: string(to.ID)}, 30*time.Second); err != nil {
			t.Fatalf("%+v %v", op, err)
		}
		c.fill(to, 60)
		c.Wait("all are level", 20*time.Second, c.settled)
	}
	list, err := a.client.Receivers(t.Context(), "default", "b")
	if err != nil || len(list) < 3 {
		t.Fatalf("%+v, %v", list, err)
	}
	from := list[1].Number
	b.Stop()
	c.until("a", "a is alone", func(g client.GroupStatus) bool { return len(g.InSync) == 0 && servedBy("a")(g) })
	a.Stop()
	chain, err := strconv.ParseUint(list[1].Chain, 16, 64)
	if err != nil {
		t.Fatal(err)
	}
	for end, i := ident.Chain(chain), 1; i < len(list); i++ {
		path := receiverFile("a", "b", list[i].Number)
		var raw []byte
		raw, end = c.rewritten(a.fileOf(path), end)
		if err := a.write(strings.TrimPrefix(path, "/a/"), raw); err != nil {
			t.Fatal(err)
		}
	}
	a.Start()
	c.until("a", "a is primary again", servedBy("a"))
	b.Start()
	c.differs(a, "default/b", from+1, "b", client.SeverityError)
	c.differs(b, "default/b", from+1, "a", client.SeverityError)
	have, err := b.client.Entries(t.Context(), "default", "b", client.EntryFilter{From: list[1].First, Code: "R"})
	if err != nil || len(have) == 0 || strings.HasPrefix(string(have[0].After.Value), "x") {
		t.Errorf("what b wrote, at b: %d entries, %v", len(have), err)
	}
	c.right(b)
}
