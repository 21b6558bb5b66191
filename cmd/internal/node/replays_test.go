package node

import (
	"testing"
	"time"

	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/replica"
)

// Proves RJ-7: the journal of replays is bounded by default, and by what makes sense.
func TestReplaysConfiguration(t *testing.T) {
	if d := DefaultConfig().Replays; d.Bytes != 1<<30 || len(d.check()) > 0 {
		t.Errorf("default %+v: %v", d, d.check())
	}
	for want, all := range map[int][]Replays{
		0: {{Bytes: 64 << 20}, {Bytes: 1 << 40, Age: time.Minute}},
		1: {{}, {Bytes: 64<<20 - 1}, {Bytes: 1 << 30, Age: time.Second}, {Bytes: 1 << 30, Age: -time.Hour}},
		2: {{Bytes: 1, Age: 1}},
	} {
		for _, r := range all {
			if p := r.check(); len(p) != want {
				t.Errorf("%+v: %v", r, p)
			}
		}
	}
}

// Nobody's copy repairs what this node recorded for itself, although others have journals of that name.
func TestReplaysHaveNoTwins(t *testing.T) {
	if all := (&Node{}).twins(ident.JournalID{Group: "default", Node: replica.Replays}); len(all) != 0 {
		t.Errorf("%v", all)
	}
}
