package testcluster

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/understudy-ha/understudy/archive"
	"github.com/understudy-ha/understudy/archive/fakestore"
	"github.com/understudy-ha/understudy/client"
	"github.com/understudy-ha/understudy/cmd/internal/node"
	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/replica/restore"
)

// counted reads a metric without labels but the node's.
func (n *Node) counted(name string) (float64, error) {
	text, err := n.metrics()
	if err != nil {
		return 0, err
	}
	m := regexp.MustCompile(`(?m)^` + name + `\{[^}]*\} (\S+)$`).FindStringSubmatch(text)
	if m == nil {
		return 0, fmt.Errorf("no metric %s", name)
	}
	return strconv.ParseFloat(m[1], 64)
}

// listed holds what a node lists of its archive against what it says of it in its status, in pages of any size.
func (c *Cluster) listed(n *Node) {
	t := c.t
	t.Helper()
	g, err := n.client.Group(t.Context(), "default")
	if s := g.Archive; err != nil || s == nil || s.Failure != "" || s.Succeeded.IsZero() || s.Pending != 0 {
		t.Fatalf("status: %+v, %v", g.Archive, err)
	}
	all, err := n.client.Archived(t.Context(), "default", client.ArchiveQuery{Node: string(n.ID)})
	if err != nil || len(all.Items) < 3 || all.Next != "" || all.URL != g.Archive.URL {
		t.Fatalf("%+v, %v", all, err)
	}
	last := client.ArchivedReceiver{Start: "", End: "default@0.0"}
	for i, r := range all.Items {
		if r.Journal != "default/"+string(n.ID) || r.Receiver != uint32(i+1) || r.First != last.Last+1 || r.Last < r.First || r.Bytes == 0 || r.Written.IsZero() || r.End == "" || r.Damaged != "" || i > 0 && r.Start != last.End {
			t.Fatalf("%+v after %+v", r, last)
		}
		last = r
	}
	if newest := g.Archive.Newest[last.Journal]; newest != last.Receiver {
		t.Errorf("the newest one is %d, in the status %d", last.Receiver, newest)
	}
	for _, limit := range []int{1, 2, len(all.Items)} {
		var got []client.ArchivedReceiver
		for q := (client.ArchiveQuery{Node: string(n.ID), Limit: limit}); ; {
			p, err := n.client.Archived(t.Context(), "default", q)
			if err != nil || len(p.Items) > limit {
				t.Fatalf("%+v, %v", p, err)
			}
			got = append(got, p.Items...)
			if q.After = p.Next; q.After == "" {
				break
			}
		}
		if len(got) != len(all.Items) || got[0].Name != all.Items[0].Name || got[len(got)-1].Name != last.Name {
			t.Errorf("in pages of %d: %d instead of %d", limit, len(got), len(all.Items))
		}
	}
	if _, err := n.client.Archived(t.Context(), "default", client.ArchiveQuery{After: "nothing"}); client.CodeOf(err) != client.CodeInvalid {
		t.Errorf("after nothing: %v", err)
	}
	if _, err := n.client.Archived(t.Context(), "other", client.ArchiveQuery{}); client.CodeOf(err) != client.CodeUnknownGroup {
		t.Errorf("of no group: %v", err)
	}
}

// Proves HB-6, TR-4, I7: an archive with the interface of S3 that nobody answers for, or that gives other bytes back; other faults are tested with
// the archive alone. Each time ARCHIVE_FAILED is told, and it is tried again; nothing counts as archived, and no receiver goes. When the storage is
// back all is archived by itself, the receivers go, and the node that was away is fed from there.
func TestArchiveFails(t *testing.T) {
	const secret = "not-a-secret"
	store, keep := fakestore.Start(t), 0
	c := Start(t, Options{Group: fsm.GroupSpec{ReceiverBytes: 64 << 10}, Archive: node.Archive{URL: store.URL("nodes"), KeepLocal: &keep}})
	a, away := c.Node("a"), c.Node("c")
	n := 0
	fill := func(count int) {
		t.Helper()
		for range count {
			n++
			value := bytes.Repeat([]byte{byte(n), byte(n >> 8), byte(n * 7)}, 1300)
			c.record(a, "file", fmt.Sprintf("key%05d", n%50), value)
		}
	}
	away.Stop()
	c.Wait("a secondary is in sync", 20*time.Second, c.settled)
	first := func() uint32 {
		t.Helper()
		list, err := a.client.Receivers(t.Context(), "default", "a")
		if err != nil {
			t.Fatal(err)
		}
		return list[0].Number
	}
	archived := func() (out float64) {
		t.Helper()
		for _, name := range []string{"understudy_archive_receivers_total", "understudy_archive_receivers_found_total"} {
			have, err := a.counted(name)
			if err != nil {
				t.Fatal(err)
			}
			out += have
		}
		return out
	}
	for _, f := range []struct { // few, and each met once: attempts come ever later, and the driver repeats each by itself
		name  string
		fault fakestore.Fault
		is    func(told string) bool
	}{
		{"refused", fakestore.Refused, func(told string) bool { return strings.Contains(told, "connection refused") }},
		{"altered", fakestore.Altered, func(told string) bool {
			return strings.Contains(told, "is damaged") || strings.Contains(told, "CRC check failed")
		}},
	} {
		store.Break(f.fault)
		fill(40)
		c.Wait(f.name+" is told", 60*time.Second, func() error {
			all := a.toldOf("ARCHIVE_FAILED")
			if !slices.ContainsFunc(all, func(e client.Event) bool { return f.is(e.Message) }) {
				return fmt.Errorf("told %v", all)
			}
			return nil
		})
		if now := archived(); now != 0 {
			t.Errorf("%s: %g receivers are archived", f.name, now)
		}
		if k := first(); k != 1 {
			t.Fatalf("%s: the journal begins with receiver %d: others are gone", f.name, k)
		}
	}
	for _, e := range a.toldOf("ARCHIVE_FAILED") {
		if e.Severity != client.SeverityWarning || !strings.HasPrefix(e.Fields["archive"], "s3://receivers/nodes?") || strings.Contains(fmt.Sprint(e), secret) {
			t.Errorf("event %+v", e)
		}
	}
	g, err := a.client.Group(t.Context(), "default")
	if s := g.Archive; err != nil || s == nil || s.Failure == "" || s.Failed.IsZero() || s.Failures < 2 || s.Pending == 0 || len(s.Newest) != 0 || !strings.HasPrefix(s.URL, "s3://receivers/nodes?") {
		t.Errorf("status: %+v, %v", g.Archive, err)
	}
	store.Break(fakestore.Well)
	c.Wait("all is archived, and leaves the disk", 90*time.Second, func() error {
		if pending, err := a.counted("understudy_archive_receivers_pending"); err != nil || pending != 0 {
			return fmt.Errorf("%g receivers are not archived, %v", pending, err)
		}
		if first() == 1 {
			return errors.New("the first receiver is here")
		}
		return nil
	})
	c.listed(a)
	away.Start()
	c.Wait("the one that was away is level", 60*time.Second, c.settled)
	c.says("a", `\bARCHIVED\b.*\bRECALLED\b`)
	fill(5)
	c.equalDigests()
	then, err := a.client.Digest(t.Context(), "default")
	if err != nil {
		t.Fatal(err)
	}
	from, err := archive.Open(t.Context(), store.URL("nodes"), archive.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	_, at, err := ident.ParsePosition(then.Position)
	if err != nil {
		t.Fatal(err)
	}
	r, err := restore.Run(t.Context(), restore.Options{Group: "default", Archive: from, FS: a.fs, Data: []string{"/a"}, Out: "/restored", To: restore.Target{Position: at}, Uncommitted: true})
	if err != nil || r.Position != then.Position || r.Digest != then.Sum {
		t.Errorf("restored %+v (%v), want %+v", r, err, then)
	}
	store.Break(fakestore.Refused)
	var e *client.Error
	if _, err := a.client.Archived(t.Context(), "default", client.ArchiveQuery{Wait: 30 * time.Second}); !errors.As(err, &e) || e.Code != client.CodeUnavailable || e.Remedy == "" {
		t.Errorf("listed without a storage: %v", err)
	}
}
