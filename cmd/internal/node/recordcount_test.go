package node

import (
	"context"
	"errors"
	"testing"

	"github.com/understudy-ha/understudy/internal/ident"
)

// fakeCopy is a copy of a group whose records are counted.
type fakeCopy struct {
	at       ident.Position
	n        int64
	asked    int
	err      error
	meantime func() // what happens while it counts
}

func (f *fakeCopy) Position() ident.Position { return f.at }

func (f *fakeCopy) Count(context.Context) (int64, error) {
	f.asked++
	n := f.n
	if f.meantime != nil {
		f.meantime()
	}
	return n, f.err
}

// Proves BX-5: DBSIZE of a group that rests reads nothing, and is exact after every change.
func TestRecordCounts(t *testing.T) {
	var c recordCounts
	rep := &fakeCopy{at: ident.Position{Epoch: 1, History: 5}, n: 3}
	expect := func(what string, want int64, asked int) {
		t.Helper()
		n, err := c.count(t.Context(), "g", rep)
		if err != nil || n != want || rep.asked != asked {
			t.Errorf("%s: %d after %d countings, %v; want %d after %d", what, n, rep.asked, err, want, asked)
		}
	}
	expect("first", 3, 1)
	expect("at rest", 3, 1)
	rep.n, rep.at.History = 4, 6
	expect("changed", 4, 2)
	expect("at rest again", 4, 2)
	rep.n, rep.at.History, rep.at.Epoch = 3, 5, 2
	expect("undone, under another epoch", 3, 3)
	rep.at.History, rep.meantime = 7, func() { rep.at.History, rep.n, rep.meantime = 8, 9, nil }
	expect("changed while it was counted", 3, 4)
	expect("which is not remembered", 9, 5)
	again := &fakeCopy{at: rep.at, n: 1}
	rep = again
	expect("another copy at the same position", 1, 1)
	rep.at.History, rep.err = 9, errors.New("broken")
	if _, err := c.count(t.Context(), "g", rep); !errors.Is(err, rep.err) {
		t.Errorf("an error is told: %v", err)
	}
	rep.err = nil
	expect("after an error", 1, 3)
}
