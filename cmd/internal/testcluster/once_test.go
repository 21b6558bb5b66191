package testcluster

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/understudy-ha/understudy/client"
	"github.com/understudy-ha/understudy/fsm"
)

// One key is on its way through two nodes at once, again and again, while the role moves: the entry is deposited once, and both hear of
// the same one. Proves TR-3.
func TestOneKeyOnTwoNodesAtOnce(t *testing.T) {
	c := Start(t, Options{Timing: steady(), Group: fsm.GroupSpec{Preferred: "a"}})
	const rounds = 60
	half := make(chan struct{})
	var moving sync.WaitGroup
	moving.Go(func() {
		<-half
		c.switchTo("b")
	})
	replayed := 0
	for i := range rounds {
		if i == rounds/2 {
			close(half)
		}
		o := client.WriteOptions{Wait: 20 * time.Second, IdempotencyKey: fmt.Sprint("deposit ", i)}
		var results [2]client.WriteResult
		var failed [2]error
		var both sync.WaitGroup
		for k, n := range []*Node{c.Node("b"), c.Node("c")} {
			both.Go(func() {
				results[k], failed[k] = n.Client().DepositEntryWith(t.Context(), "default", client.DepositRequest{Type: "M1", Text: fmt.Sprint(i)}, o)
			})
		}
		both.Wait()
		if err := errors.Join(failed[:]...); err != nil || results[0].Position != results[1].Position || results[0].Replayed == results[1].Replayed {
			t.Fatalf("round %d: %+v, %v", i, results, err)
		}
		if results[0].Replayed {
			replayed++
		}
	}
	moving.Wait()
	t.Logf("the first of the two nodes was the later one %d times of %d", replayed, rounds)
	c.equalDigests() // so that c has heard of all of them
	page, err := c.Node("c").Client().Facts(t.Context(), "default", "", client.EntryFilter{Code: "U", Type: "M1", Limit: 1000})
	if err != nil || len(page.Items) != rounds {
		t.Errorf("%d entries were deposited, want %d: %v", len(page.Items), rounds, err)
	}
}

// After its time a key is forgotten: a request with it is a new one, through any node, also where the primary is another one than that
// which knew the key. Proves TR-3.
func TestKeyExpires(t *testing.T) {
	c := Start(t, Options{KeepKeys: 4 * time.Second, Group: fsm.GroupSpec{Preferred: "a"}})
	put := func(ctx context.Context, n *Node, value string) (client.WriteResult, error) {
		return n.Client().Put(ctx, "orders", []byte("1"), []byte(value), client.WriteOptions{Wait: 20 * time.Second, IdempotencyKey: "key"})
	}
	first, err := put(t.Context(), c.Node("b"), "first")
	if err != nil || first.Replayed {
		t.Fatal(first, err)
	}
	switch again, err := put(t.Context(), c.Node("c"), "first"); {
	case err != nil, again.Replayed && again.Position != first.Position:
		t.Errorf("again: %+v, %v", again, err)
	case !again.Replayed:
		t.Log("the machine is so busy that the key is forgotten already")
	}
	c.switchTo("b")
	c.Wait("the key is forgotten", 3*time.Minute, func() error {
		w, err := put(t.Context(), c.Node("a"), "another")
		if err == nil && w.Replayed {
			t.Error("an answer that was never given")
		}
		return err
	})
	c.equalDigests()
}
