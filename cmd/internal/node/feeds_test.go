package node

import (
	"maps"
	"testing"

	"github.com/understudy-ha/understudy/internal/ident"
)

// A patch of who feeds whom merges, and does not change what it was given.
func TestMergeFeeds(t *testing.T) {
	type feedsOf = map[ident.NodeID]ident.NodeID
	have := feedsOf{"c": "b", "d": "b"}
	for _, c := range []struct{ patch, want feedsOf }{
		{nil, nil}, {feedsOf{}, have}, {feedsOf{"e": "b"}, feedsOf{"c": "b", "d": "b", "e": "b"}}, {feedsOf{"c": ""}, feedsOf{"d": "b"}}, {feedsOf{"c": "d"}, feedsOf{"c": "d", "d": "b"}},
	} {
		if got := mergeFeeds(have, c.patch); !maps.Equal(got, c.want) {
			t.Errorf("%v: %v, want %v", c.patch, got, c.want)
		}
	}
	if len(have) != 2 || have["c"] != "b" {
		t.Errorf("what was given is now %v", have)
	}
}
