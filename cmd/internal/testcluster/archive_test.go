package testcluster

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/understudy-ha/understudy/archive"
	"github.com/understudy-ha/understudy/client"
	"github.com/understudy-ha/understudy/cmd/internal/node"
	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/replica/restore"
)

// Proves HB-6, TR-4: a long outage of a secondary with a small disk at the primary. What the secondary lacks is kept in the
// archive and leaves the disks; when it comes back it is fed from there, receiver by receiver, and becomes level without priming.
func TestLongOutageWithSmallDisk(t *testing.T) {
	const receiver, budget = 64 << 10, 12 * (64 << 10)
	dir, keep := t.TempDir(), 0
	c := Start(t, Options{
		Group:   fsm.GroupSpec{ReceiverBytes: receiver}, // keeps all, but for what the archive has
		Archive: node.Archive{URL: "file://" + dir, KeepLocal: &keep},
	})
	a, away := c.Node("a"), c.Node("c")
	n := 0
	fill := func(count int) {
		t.Helper()
		for range count {
			n++
			value := bytes.Repeat([]byte{byte(n), byte(n >> 8), byte(n * 7)}, 1300)
			c.Wait("a write is done", 30*time.Second, func() error { // again when a busy machine cost the primary its lease
				_, err := a.client.Put(t.Context(), "file", fmt.Appendf(nil, "key%05d", n%200), value, client.WriteOptions{})
				return err
			})
		}
	}
	held := func() (bytes int64, first uint64) {
		all, err := a.client.Journals(t.Context(), "default")
		if err != nil {
			t.Fatal(err)
		}
		for _, j := range all {
			bytes += j.Bytes
			if j.Node == "a" {
				first = j.First
			}
		}
		return bytes, first
	}
	fill(20)
	away.Stop()
	c.Wait("a secondary is in sync", 20*time.Second, c.settled)
	_, before := held()
	// Far more is written than the budget; after each part the disk gets down to the budget again.
	for range 4 {
		fill(150)
		c.Wait("the primary's disk is within its budget", 30*time.Second, func() error {
			if b, _ := held(); b > budget {
				return fmt.Errorf("%d bytes of journals, budget %d", b, budget)
			}
			return nil
		})
	}
	_, after := held()
	if after <= before+100 {
		t.Fatalf("the journal began at %d and begins at %d: nothing has left", before, after)
	}
	recallDirs := func() int {
		list, err := a.fs.List("/a/recall/default/c")
		if err != nil {
			return 0
		}
		return len(list)
	}
	away.Start()
	c.Wait("the one that was away is level", 60*time.Second, c.settled)
	fill(10)
	c.equalDigests()
	if d, err := away.client.Digest(t.Context(), "default"); err != nil || d.Records != 200 {
		t.Errorf("c holds %d records (%v)", d.Records, err)
	}
	g, err := away.client.Group(t.Context(), "default")
	if err != nil || g.Local.NeedsPriming {
		t.Errorf("needs priming: %+v %v", g.Local, err)
	}
	c.says("a", `\bARCHIVED\b.*\bRECALLED\b`)
	if kinds := a.kinds(); kinds["ARCHIVE_FAILED"] != 0 {
		t.Errorf("events %v", kinds)
	}
	c.Wait("what was read back is gone", 10*time.Second, func() error {
		if k := recallDirs(); k != 0 {
			return fmt.Errorf("%d journals are left", k)
		}
		return nil
	})
	then, err := a.client.Digest(t.Context(), "default")
	if err != nil {
		t.Fatal(err)
	}
	// A node that lost journals and store is rebuilt from the beginning: everything is in the archive.
	away.Stop()
	for _, d := range []string{"/c/journals", "/c/store"} {
		if err := away.fs.RemoveAll(d); err != nil {
			t.Fatal(err)
		}
	}
	fill(30)
	const left = "/c/recall/default/b/a" // what a node that died as primary, in the middle of a feed, left behind
	if err := away.fs.MkdirAll(left, 0o755); err != nil {
		t.Fatal(err)
	}
	away.Start()
	if _, err := away.fs.Stat(left); err == nil {
		t.Error("what an earlier life had read back is still there")
	}
	c.Wait("the emptied one is level", 60*time.Second, c.settled)
	fill(5)
	c.equalDigests()
	// What is archived and what is still on a disk give the content back as it was, also after all that followed.
	from, err := archive.Open(t.Context(), "file://"+dir, archive.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	now, err := a.client.Digest(t.Context(), "default")
	if err != nil {
		t.Fatal(err)
	}
	_, at, err := ident.ParsePosition(then.Position)
	if err != nil {
		t.Fatal(err)
	}
	for want, o := range map[client.Digest]restore.Options{then: {To: restore.Target{Position: at}}, now: {Uncommitted: true}} {
		o.Group, o.Archive, o.FS, o.Data, o.Out = "default", from, a.fs, []string{"/a"}, "/restored-"+want.Position
		r, err := restore.Run(t.Context(), o)
		if err != nil || r.Position != want.Position || r.Digest != want.Sum || r.Beyond > 20 {
			t.Errorf("restored %+v (%v), want %+v", r, err, want)
		}
	}
	text, err := a.client.Metrics(t.Context())
	if err == nil && !strings.Contains(string(text), "understudy_archive_recalled_receivers_total") {
		t.Error("no metrics of the archive")
	}
}
