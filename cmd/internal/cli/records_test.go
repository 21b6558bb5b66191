package cli

import (
	"testing"

	"github.com/understudy-ha/understudy/client"
)

// TestListGoesOn: the key that a shortened list names is the first that was not shown, so whoever goes on there sees none twice.
func TestListGoesOn(t *testing.T) {
	page := client.RecordPage{File: "orders", Records: []client.Record{{Key: client.MakeKey([]byte("one"))}, {Key: client.MakeKey([]byte("two words"))}}}
	url := fakeNode(t, map[string]any{"GET /v1/files/orders/records": page})
	wantRun(t, url, exitDone, []string{"one", "There are more: --from 'two words', or"}, "list", "orders", "--limit", "1")
}
