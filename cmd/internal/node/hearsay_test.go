package node

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/understudy-ha/understudy/client"
)

// Proves BX-5: however many clients ask for replicas, the primary is asked once in a moment, and what it says later is heard.
func TestHearsay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := map[string]int{}
		h := newHearsay(func(_ context.Context, addr string) *client.Status {
			asked[addr]++
			if addr == "silent" {
				return nil
			}
			return &client.Status{Node: addr}
		})
		everybody := func() {
			var all sync.WaitGroup
			for range 50 {
				all.Go(func() {
					if s := h.of(t.Context(), "a"); s == nil || s.Node != "a" {
						t.Errorf("a said %+v", s)
					}
					if s := h.of(t.Context(), "silent"); s != nil {
						t.Errorf("nobody said %+v", s)
					}
				})
			}
			all.Wait()
		}
		everybody()
		if asked["a"] != 1 || asked["silent"] != 1 {
			t.Errorf("asked %v times", asked)
		}
		time.Sleep(hearsayKept) // of the bubble
		everybody()
		if asked["a"] != 2 || asked["silent"] != 2 {
			t.Errorf("asked %v times", asked)
		}
	})
}

// Who had no time to wait says nothing about the node.
func TestHearsayOfOneWithoutTime(t *testing.T) {
	h := newHearsay(func(ctx context.Context, addr string) *client.Status {
		if ctx.Err() != nil {
			return nil
		}
		return &client.Status{Node: addr}
	})
	over, cancel := context.WithCancel(t.Context())
	cancel()
	_ = h.of(over, "a")
	if s := h.of(t.Context(), "a"); s == nil {
		t.Error("the next one heard nothing")
	}
}
