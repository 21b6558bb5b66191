package node

import (
	"testing"

	"github.com/understudy-ha/understudy/replica"
)

// Proves BX-5: a replica's link is up when it is through with what it had missed, whether writes wait for it or not.
func TestLinked(t *testing.T) {
	for _, tc := range []struct {
		state  replica.TargetState
		behind uint64
		want   bool
	}{
		{replica.TargetSync, 0, true}, {replica.TargetAsync, 0, true}, {replica.TargetAsync, 5000, true}, {replica.TargetFed, 0, true}, {replica.TargetFed, nearlyLevel, false},
		{replica.TargetCatchup, 0, false}, {replica.TargetConnecting, 0, false}, {replica.TargetNone, 0, false}, {"", 0, false},
	} {
		if got := linked(string(tc.state), tc.behind); got != tc.want {
			t.Errorf("%s, %d behind: %v", tc.state, tc.behind, got)
		}
	}
}
