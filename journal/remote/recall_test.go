package remote

import (
	"context"
	"errors"
	"testing"

	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal/remote/wire"
)

// Proves HB-6: a source whose target needs what it no longer holds asks its host for it, by the first sequence that is wanted, and
// does not refuse when the host takes over. Nothing is removed at the target.
func TestRecallIsAskedForBeforeRefusing(t *testing.T) {
	for _, c := range []struct {
		name  string
		fill  bool
		helps bool
		code  wire.Code // 0: the copy begins where the journal does
	}{
		{"behind, and the host takes over", true, true, wire.CodeRematch},
		{"behind, and the host cannot help", true, false, wire.CodePriming},
		{"empty, and the host takes over", false, true, wire.CodeRematch},
		{"empty, and the host cannot help", false, false, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			src, dst := newJournal(t), newJournal(t)
			src.deposit(5, 1, "v")
			want := ident.Sequence(1)
			if c.fill {
				dst.fill(src, src.end()-4)
				want = src.end() - 3
			}
			for range 2 {
				src.change(1)
				src.deposit(5, 1, "v")
			}
			src.durable()
			if err := src.DeleteReceivers(1); err != nil {
				t.Fatal(err)
			}
			asked := make(chan ident.Sequence, 1000)
			s := newStage(dst)
			r := ship(t, src, s.serve(t), func(o *SourceOptions) {
				o.Recall = func(_ context.Context, from ident.Sequence) error {
					asked <- from
					if c.helps {
						return nil
					}
					return errors.New("not here either")
				}
			})
			if from := <-asked; from != want {
				t.Errorf("asked from %s, want %s", from, want)
			}
			if c.code == 0 {
				r.caughtUp(t, src)
			} else {
				eventually(t, "the session ends with "+c.code.String(), func() bool { return r.state().Code == c.code.String() })
			}
			if len(s.asked) != 0 {
				t.Error("removal was asked for")
			}
		})
	}
}
