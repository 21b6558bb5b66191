package remote

import (
	"testing"

	"github.com/understudy-ha/understudy/journal"
	"github.com/understudy-ha/understudy/journal/remote/wire"
)

// A target that has no room for the next bundle hears all the same what is confirmed of its copy: what it tells of that decides
// which receivers go, on all nodes, so without it the copy would stay full. Proves TR-5.
func TestFullTargetHearsWhatIsConfirmed(t *testing.T) {
	src, dst := newJournal(t), newJournal(t)
	src.deposit(20, 1, "v")
	src.durable()
	dst.fill(src, src.end())
	common := src.end()
	if v, _ := dst.View(); v.Confirmed >= common {
		t.Fatalf("the copy knows up to %s to be confirmed before anybody told it", v.Confirmed)
	}
	dst.SetLimits(journal.Limits{SpareBytes: -1, MaximumBytes: 1})
	for v, _ := dst.View(); ; { // more than the space that was set aside
		src.deposit(500, 1, "v")
		if w, _ := src.View(); w.Bytes > 8*max(v.Bytes, 1<<20) {
			break
		}
	}
	src.durable()
	r := ship(t, src, newStage(dst).serve(t), func(o *SourceOptions) { o.Author = true })
	eventually(t, "the copy is full", func() bool { return r.state().Code == wire.CodeFull.String() })
	eventually(t, "what both have is confirmed", func() bool { v, _ := dst.View(); return v.Confirmed >= common })
}
