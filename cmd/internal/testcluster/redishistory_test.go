package testcluster

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"os"
	"testing"
	"time"

	"github.com/understudy-ha/understudy/client"
	"github.com/understudy-ha/understudy/cmd/internal/oracle"
	"github.com/understudy-ha/understudy/cmd/internal/redisload"
)

// What Redis clients at all nodes saw through planned switch-overs, the death of a primary and one that is cut off is linearizable: strings,
// numbers, hashes, transactions and watched keys. Proves BX-5, CL-7 and TR-3.
func TestRedisHistoriesAreLinearizable(t *testing.T) {
	c := Start(t, Options{})
	began := time.Now()
	recorder := oracle.NewRecorder(func() time.Duration { return time.Since(began) })
	load := redisload.Start(redisload.Options{
		Recorder: recorder, Seed: 1, Clients: 6, Spaces: 3, Pace: 10 * time.Millisecond, Patience: 20 * time.Second,
		Dial: func(ctx context.Context, r *rand.Rand) (net.Conn, string, error) {
			id := c.options.Nodes[r.IntN(len(c.options.Nodes))]
			conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "tcp", c.Node(id).config.Listen.Redis)
			return conn, string(id), err
		},
	})
	defer load.Stop()
	goesOn := func() {
		t.Helper()
		before := load.Acknowledged()
		c.Wait("Redis clients go on", time.Minute, func() error {
			if load.Acknowledged() < before+100 {
				return errors.New("too few replies")
			}
			return nil
		})
	}
	ready := func(but *Node) { // to do without but
		t.Helper()
		c.Wait("somebody may take over", time.Minute, func() error {
			g, err := but.client.Group(t.Context(), "default")
			if err == nil && len(g.InSync) == 0 {
				err = errors.New("nobody is in sync")
			}
			return err
		})
	}
	goesOn()
	for range 2 {
		c.Wait("the role moves", time.Minute, func() error {
			op, err := c.primary().client.Switchover(t.Context(), "default", client.SwitchoverRequest{}, 20*time.Second)
			if err == nil && op.State != client.OperationDone {
				err = errors.New(op.Reason)
			}
			return err
		})
		goesOn()
	}
	p := c.primary()
	ready(p)
	p.Crash()
	goesOn()
	p.Start()
	goesOn()
	p = c.primary()
	ready(p)
	for _, n := range c.all() {
		if n != p {
			c.Cut(p.ID, n.ID, true)
		}
	}
	c.Wait("another one serves", time.Minute, func() error {
		for _, n := range c.all() {
			if g, err := n.client.Group(t.Context(), "default"); n != p && err == nil && g.Local.Serving {
				return nil
			}
		}
		return errors.New("nobody does")
	})
	goesOn()
	for _, n := range c.all() {
		if n != p {
			c.Cut(p.ID, n.ID, false)
		}
	}
	goesOn()
	load.Stop()
	history := recorder.Operations()
	count := map[oracle.Outcome]int{}
	for _, o := range history {
		count[o.Outcome]++
	}
	t.Logf("%d operations: %v", len(history), count)
	err := errors.Join(oracle.RedisLinearizable(history, time.Minute),
		oracle.RedisMix(history, 500, "get", "set", "setnx", "incrby", "del", "mget", "mset", "hset", "hget", "hincrby", "hdel", "exists", "getdel", oracle.Watched))
	if err != nil {
		t.Error(err)
		if f, err := os.CreateTemp("", "understudy-redis-*.jsonl"); err == nil {
			t.Logf("the history is kept in %s: %v", f.Name(), errors.Join(oracle.Save(f, history), f.Close()))
		}
	}
	c.Wait("all have all", time.Minute, c.settled)
	c.equalDigests()
}
