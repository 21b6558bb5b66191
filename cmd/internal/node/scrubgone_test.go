package node

import (
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/understudy-ha/understudy/internal/host"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal"
)

// A check that is under way when its group is deleted says nothing of it any more: nobody could repair it, and it would be shown as rotten
// until the node ends. Proves TR-7, BX-7.
func TestScrubOfDeletedGroup(t *testing.T) {
	fs := vfs.NewMem()
	n := &Node{config: DefaultConfig(), events: testEvents()}
	s := newScrubber(n)
	j, err := journal.Open(journal.Options{FS: fs, Dir: "j", ID: ident.JournalID{Group: "orders", Node: "a"}, Cluster: "c", ReceiverBytes: 64 << 10, Host: host.Real()})
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	if err := j.SetState(journal.Active); err != nil {
		t.Fatal(err)
	}
	if err := fs.Remove("j/state"); err != nil {
		t.Fatal(err)
	}
	if rot, err := j.InspectState(); err != nil || rot == nil {
		t.Fatalf("not rotten: %v, %v", rot, err)
	}
	s.forget("orders")
	if p, err := s.check(t.Context(), j, 0, nil); p != nil || err != nil {
		t.Errorf("%+v, %v", p, err)
	}
	if now := s.now(); now.Found != 0 || len(now.Rot) != 0 {
		t.Errorf("%+v", now)
	}
}
