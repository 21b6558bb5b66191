package testcluster

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/understudy-ha/understudy/client"
)

// Proves TR-2 (receipts) and S4 on whole nodes: a primary is cut off under writers who still reach it. Every write that it
// answers as unknown is settled after the failover, by whichever node is asked, and agrees with what can be read; what was
// acknowledged is done, what was said to be not done is not there.
func TestReceiptsSettleUnknownOutcomes(t *testing.T) {
	c := Start(t, Options{})
	p := c.primary()
	var mu sync.Mutex
	acked, unknown, refused := map[string]string{}, map[string]string{}, []string{} // key to position
	stop := make(chan struct{})
	var writers sync.WaitGroup
	for w := range 8 {
		writers.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				key := fmt.Sprintf("w%d-%d", w, i)
				ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
				r, err := p.Client().Put(ctx, "f", []byte(key), []byte("v"), client.WriteOptions{Wait: 3 * time.Second})
				cancel()
				mu.Lock()
				var e *client.Error
				switch {
				case err == nil:
					acked[key] = r.Position
				case client.OutcomeOf(err) == client.OutcomeNotDone:
					refused = append(refused, key)
				case errors.As(err, &e) && e.Position != "":
					unknown[key] = e.Position
				default:
					t.Errorf("%s: an unknown outcome without a position: %v", key, err)
				}
				mu.Unlock()
			}
		})
	}
	count := func(m map[string]string) int { mu.Lock(); defer mu.Unlock(); return len(m) }
	c.Wait("writes go on", 20*time.Second, func() error {
		if n := count(acked); n < 200 {
			return fmt.Errorf("%d", n)
		}
		return nil
	})
	for _, n := range c.nodes {
		if n != p {
			c.Cut(p.ID, n.ID, true)
		}
	}
	c.Wait("somebody else is primary", 20*time.Second, func() error {
		for _, n := range c.nodes {
			if n == p {
				continue
			}
			if g, err := n.Client().Group(t.Context(), "default"); err == nil && g.Local.Serving {
				return nil
			}
		}
		return errors.New("nobody is")
	})
	c.Wait("outcomes are unknown", 20*time.Second, func() error {
		if count(unknown) == 0 {
			return errors.New("none is")
		}
		return nil
	})
	for _, n := range c.nodes {
		if n != p {
			c.Cut(p.ID, n.ID, false)
		}
	}
	close(stop)
	writers.Wait()
	c.Wait("the cluster is settled", 30*time.Second, c.settled)

	outcomes := map[string]int{}
	settle := func(key, position string, want ...string) {
		t.Helper()
		for _, n := range c.nodes {
			r, err := n.Client().Receipt(t.Context(), position, 5*time.Second)
			if err != nil || r.Position != position {
				t.Fatalf("receipt of %s at %s: %+v, %v", position, n.ID, r, err)
			}
			_, read := n.Client().Get(t.Context(), "f", []byte(key), client.ReadOptions{})
			switch {
			case r.Outcome == client.OutcomeDone && read == nil:
			case r.Outcome == client.OutcomeNotDone && errors.Is(read, client.ErrNotFound):
			default:
				t.Fatalf("%s at %s is %s by %s, reading it at %s: %v", key, position, r.Outcome, r.Node, n.ID, read)
			}
			if len(want) > 0 && r.Outcome != want[0] {
				t.Fatalf("%s at %s is %s, want %s", key, position, r.Outcome, want[0])
			}
			outcomes[r.Outcome]++
		}
	}
	for key, position := range unknown {
		settle(key, position)
	}
	t.Logf("unknown: %d, settled at three nodes as %v; %d acknowledged, %d refused", len(unknown), outcomes, len(acked), len(refused))
	some := 0
	for key, position := range acked {
		if some++; some > 50 {
			break
		}
		settle(key, position, client.OutcomeDone)
	}
	for _, key := range refused {
		if _, err := p.Client().Get(t.Context(), "f", []byte(key), client.ReadOptions{}); !errors.Is(err, client.ErrNotFound) {
			t.Errorf("%s was said to be not done; reading it: %v", key, err)
		}
	}
	var e *client.Error
	if _, err := p.Client().Receipt(t.Context(), "nothing", 0); !errors.As(err, &e) || e.Code != client.CodeInvalid {
		t.Errorf("a position that is none: %v", err)
	}
	if _, err := p.Client().Receipt(t.Context(), "other@1.1", 0); !errors.Is(err, client.ErrUnknownGroup) {
		t.Errorf("a group that is none: %v", err)
	}
}
