package remote

import (
	"testing"

	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal"
	"github.com/understudy-ha/understudy/journal/entry"
	"github.com/understudy-ha/understudy/journal/remote/wire"
)

// The wire carries what the journal writes: neither constant compiles as an index unless both sides agree.
var (
	_ = [1]struct{}{}[wire.MaxBundle-entry.MaxBundle]
	_ = [1]struct{}{}[wire.ReceiverHeaderSize-journal.HeaderSize]
)

// Whatever was dropped from the trail, the answer is the one the journal itself gives.
func TestTrail(t *testing.T) {
	j := newJournal(t)
	j.deposit(trailLength+1000, 1, "v")
	j.durable()
	trail := trail{journal: j.Journal}
	if end, after, ok := trail.at(0); !ok || end != 0 || !after.IsZero() {
		t.Errorf("at the base: %d %s %v", end, after, ok)
	}
	r, err := j.Reader(1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for {
		item, ok, err := r.TryNext()
		if err != nil {
			t.Fatal(err)
		}
		if !ok {
			break
		}
		if item.ReceiverHeader == nil {
			trail.push(item.Header.Last(), item.Header.After())
		}
	}
	if len(trail.steps) > trailLength {
		t.Errorf("%d steps are kept, at most %d", len(trail.steps), trailLength)
	}
	for _, committed := range []ident.Sequence{1, 2, 3, 4, 1000, 1001, 6000, 6001, 6001, 8888, j.end() - 1, j.end()} {
		end, after, ok := trail.at(committed)
		b, err := j.BundleAt(committed)
		if err != nil {
			t.Fatal(err)
		}
		want, wantAfter := b.Last(), b.After()
		if want > committed {
			want, wantAfter = b.First-1, b.Before
		}
		if !ok || end != want || after != wantAfter {
			t.Errorf("at %d: %d %s %v, want %d %s", committed, end, after, ok, want, wantAfter)
		}
	}
	if len(trail.steps) != 1 {
		t.Errorf("%d steps are kept when all is committed", len(trail.steps))
	}
}

// Where the bundle itself is gone, the receiver that begins after it still knows.
func TestTrailAtDeletedReceiver(t *testing.T) {
	j := newJournal(t)
	j.deposit(5, 1, "v")
	j.change(1)
	view, _ := j.View()
	j.deposit(5, 1, "v")
	j.durable()
	if err := j.DeleteReceivers(1); err != nil {
		t.Fatal(err)
	}
	first, _ := j.View()
	trail := trail{journal: j.Journal}
	if end, after, ok := trail.at(first.First - 1); !ok || end != first.First-1 || after != view.After {
		t.Errorf("%d %s %v, want %d %s", end, after, ok, first.First-1, view.After)
	}
	if _, _, ok := trail.at(3); ok {
		t.Error("the position of a deleted bundle was made up")
	}
}
