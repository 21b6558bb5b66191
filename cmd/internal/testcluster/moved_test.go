package testcluster

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal"
)

// Proves RJ-13 in part: detached receivers are saved to files and restored on another node instead of being sent, and the
// remote journal then goes on from what the target knows.
func TestReceiversMovedByFile(t *testing.T) {
	c := Start(t, Options{Group: fsm.GroupSpec{ReceiverBytes: 64 << 10, KeepReceivers: -1}})
	a, target := c.Node("a"), c.Node("c")
	target.Stop()
	c.Wait("a secondary is in sync", 20*time.Second, c.settled)
	for i := range 100 {
		c.record(a, "file", fmt.Sprintf("key%05d", i), []byte(strings.Repeat("x", 4000)))
	}
	receivers, err := a.client.Receivers(t.Context(), "default", "a")
	if err != nil || len(receivers) < 5 {
		t.Fatalf("receivers: %d, %v", len(receivers), err)
	}
	var last ident.Sequence
	for _, r := range receivers {
		if r.Attached {
			continue
		}
		name := fmt.Sprintf("journals/default/a/%06d.rcv", r.Number)
		saved, err := a.read(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := target.write(name, saved); err != nil {
			t.Fatal(err)
		}
		last = ident.Sequence(r.Last)
	}
	// What stands on the target's disk before anything is sent to it:
	j, err := journal.Open(journal.Options{FS: target.fs, Dir: target.fs.PathJoin(target.config.Data, "journals", "default", "a"),
		ID: ident.JournalID{Group: "default", Node: "a"}, Cluster: ident.ClusterID(c.clusterID())})
	if err != nil {
		t.Fatalf("the restored receivers are not taken: %v", err)
	}
	view, _ := j.View()
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if view.Last != last {
		t.Fatalf("the copy ends at %s after the restore, want %s", view.Last, last)
	}
	target.Start()
	c.Wait("the target is level", 20*time.Second, c.settled)
	c.equalDigests()
	if d, err := target.client.Digest(t.Context(), "default"); err != nil || d.Records != 100 {
		t.Errorf("the target holds %d records (%v)", d.Records, err)
	}
}

func (c *Cluster) clusterID() string {
	st, err := c.Node(c.options.Nodes[0]).client.Status(c.t.Context())
	if err != nil {
		c.t.Fatal(err)
	}
	return st.ClusterID
}

// write puts a file into the data directory of a node that is not running.
func (n *Node) write(name string, content []byte) error {
	f, err := n.fs.Create(n.fs.PathJoin(n.config.Data, name), vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	return errors.Join(err, f.Sync(), f.Close())
}
