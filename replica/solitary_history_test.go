package replica

import (
	"errors"
	"fmt"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/replica/core"
)

func (h *hermit) rows() ident.HistoryTable {
	a, _ := h.plane.Assignment()
	return a.Group.History
}

// Proves HB-2: the history of a copy that one node has for itself is as long as what it keeps of its journal, however often it starts: all of
// what recovery needs is there after power cuts, too. What is older is not told as if it were known.
func TestSolitaryHistoryIsBounded(t *testing.T) {
	var fs vfs.FS = vfs.NewCrashableMem()
	const lives, kept = 25, 2
	longest, early := 0, ident.Position{}
	for life := ident.Incarnation(1); life <= lives; life++ {
		h := startHermit(t, fs, life, fsm.GroupSpec{KeepReceivers: kept})
		if life > 1 {
			h.mustGet(fmt.Sprint("k", uint64(life-1)), fmt.Sprint(uint64(life-1)))
			h.mustGet("k1", "1")
		}
		h.mustPut(fmt.Sprint("k", uint64(life)), fmt.Sprint(uint64(life)))
		if life == 1 {
			early = h.rep.Position()
			if s, err := h.rep.Settle(t.Context(), early, patience); err != nil || s.Outcome != core.Done {
				t.Fatalf("the first write: %+v, %v", s, err)
			}
		}
		own, _ := h.rep.Journal("a")
		h.eventually("old receivers are deleted", func() bool { return len(own.Receivers()) <= kept+1 })
		longest = max(longest, len(h.rows()))
		if life == lives {
			for _, run := range func() []ident.Epoch {
				view, _ := own.View()
				var all []ident.Epoch
				for _, r := range view.Runs {
					all = append(all, r.Epoch)
				}
				return all
			}() {
				if _, ok := h.rows().Row(run); !ok {
					t.Errorf("facts of epoch %s are held, and it has no row", run)
				}
			}
			if _, err := h.rep.Settle(t.Context(), early, patience); !errors.Is(err, ErrForgotten) {
				t.Errorf("a write of an epoch that is forgotten: %v", err)
			}
			if s, err := h.rep.Settle(t.Context(), h.rep.Position(), patience); err != nil || s.Outcome != core.Done {
				t.Errorf("a write of now: %+v, %v", s, err)
			}
			var gone *GoneError
			f := h.rep.FollowHistory(early)
			if _, _, err := f.TryNext(); !errors.As(err, &gone) || gone.Oldest.IsZero() {
				t.Errorf("facts after one of a forgotten epoch: %v", err)
			}
			f.Close()
			f = h.rep.FollowHistory(gone.Oldest)
			if facts, ok, err := f.TryNext(); err != nil || !ok || facts.After != gone.Oldest {
				t.Errorf("facts after the oldest one: %+v, %v, %v", facts.After, ok, err)
			}
			f.Close()
		}
		if life%3 == 0 {
			fs = h.crash([]int{0, 50, 100}[int(life/3)%3])
		} else {
			h.stop()
		}
	}
	if longest > 2*(kept+3) {
		t.Errorf("the history had %d rows in %d lives", longest, lives)
	}
}
