package replica

import (
	"context"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/go-hclog"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/host"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal"
)

// nowhere is a network on which nobody answers; it counts who calls.
type nowhere struct {
	host.Network
	calls atomic.Int64
}

func (n *nowhere) Dial(ctx context.Context, _ string) (net.Conn, error) {
	n.calls.Add(1)
	defer n.calls.Add(-1)
	<-ctx.Done()
	return nil, ctx.Err()
}

// Proves BX-1 for what the target brings ahead: it has arrived when all of it is on the primary's disk, to the last sequence, in the operation that
// runs; it is waited for until the patience ends. One session ships at a time, and none any more when that is over.
func TestWhatIsBroughtAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		calls := &nowhere{}
		own, err := journal.Open(journal.Options{
			FS: vfs.NewMem(), Dir: "j", ID: ident.JournalID{Group: orders, Node: "b"}, Cluster: testCluster, ReceiverBytes: 1 << 16, SpareBytes: -1, Host: host.Real(),
		})
		if err != nil {
			t.Fatal(err)
		}
		defer own.Close()
		if err := own.SetState(journal.Active); err != nil {
			t.Fatal(err)
		}
		if _, err := own.ChangeReceiver(1); err != nil {
			t.Fatal(err)
		}
		view, _ := own.View()
		a := func(op uint64) fsm.Assignment {
			return fsm.Assignment{
				Self: "b", Group: &fsm.Group{Primary: "a", Epoch: 1, Operation: &fsm.Operation{ID: op}},
				Nodes: map[ident.NodeID]*fsm.Node{"a": {Addresses: fsm.Addresses{Ship: "a"}}},
			}
		}
		r := &Replica{o: Options{Cluster: testCluster, Node: "b", Network: calls, Timing: Timing{Heartbeat: time.Second, Timeout: time.Minute}}, log: hclog.NewNullLogger()}
		s := &ahead{r: r, control: still{a(1)}}
		shipping := func(what string, want int64) {
			t.Helper()
			if synctest.Wait(); calls.calls.Load() != want {
				t.Errorf("%s: %d ship, want %d", what, calls.calls.Load(), want)
			}
		}
		asks := func(what string, op uint64, durable ident.Sequence, want bool) {
			t.Helper()
			if durable > 0 {
				s.durable.Store(uint64(durable))
			}
			if s.reached(t.Context(), a(op), own) != want {
				t.Errorf("%s: it has arrived: %v", what, !want)
			}
		}
		asks("at first", 1, 0, false)
		shipping("at first", 1)
		asks("all but the last", 1, view.Last-1, false)
		asks("another operation", 2, 0, false)
		shipping("another operation", 1)
		asks("all", 2, view.Last, true)
		if n := calls.calls.Load(); n != 0 {
			t.Errorf("%d ship when all has arrived", n)
		}
		asks("what another operation brought", 3, 0, false)
		shipping("a third operation", 1)
		time.Sleep(aheadPatience - 1)
		asks("almost too late", 3, 0, false)
		time.Sleep(1)
		asks("too late", 3, 0, true)
		if n := calls.calls.Load(); n != 0 {
			t.Errorf("%d ship when it is too late", n)
		}
	})
}
