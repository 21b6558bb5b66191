package resp

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// Proves BX-5: go-redis, in both protocols, at the primary and at a node that relays: commands, pipelines, transactions, WATCH, scans, hashes.
func TestGoRedis(t *testing.T) {
	ctx := context.Background()
	for _, protocol := range []int{2, 3} {
		w := newWorld(t, 2)
		for _, n := range w.nodes {
			t.Run(fmt.Sprintf("protocol %d node %s", protocol, n.id), func(t *testing.T) {
				c := redis.NewClient(&redis.Options{Addr: n.address, Protocol: protocol, ClientName: "test"})
				defer func() { _ = c.Close() }()
				must := func(err error) {
					t.Helper()
					if err != nil {
						t.Fatal(err)
					}
				}
				must(c.Set(ctx, "k", "v", time.Minute).Err())
				if v, err := c.Get(ctx, "k").Result(); v != "v" || err != nil {
					t.Fatal(v, err)
				}
				if d, err := c.PTTL(ctx, "k").Result(); err != nil || d < 59*time.Second || d > time.Minute {
					t.Fatal(d, err)
				}
				if err := c.Get(ctx, "none").Err(); !errors.Is(err, redis.Nil) {
					t.Fatal(err)
				}
				pairs := make([]any, 0, 2000)
				for i := range 1000 {
					pairs = append(pairs, fmt.Sprintf("many:%d", i)[5:], i)
				}
				must(c.MSet(ctx, pairs...).Err())
				must(c.HSet(ctx, "h", "a", 1, "b", 2).Err())
				if m, err := c.HGetAll(ctx, "h").Result(); err != nil || m["a"] != "1" || m["b"] != "2" {
					t.Fatal(m, err)
				}
				names, iter := 0, c.Scan(ctx, 0, "*", 50).Iterator()
				for iter.Next(ctx) {
					names++
				}
				if must(iter.Err()); names != 1002 {
					t.Fatal(names)
				}
				p := c.Pipeline()
				var incr []*redis.IntCmd
				for range 100 {
					incr = append(incr, p.Incr(ctx, "n"))
				}
				_, err := p.Exec(ctx)
				must(err)
				if incr[99].Val() != 100 {
					t.Fatal(incr[99])
				}
				tp := c.TxPipeline()
				got := tp.Get(ctx, "n")
				tp.Decr(ctx, "n")
				_, err = tp.Exec(ctx)
				must(err)
				if got.Val() != "100" {
					t.Fatal(got)
				}
				var all sync.WaitGroup
				for range 4 { // each adds 5, by reading and writing under WATCH
					all.Go(func() {
						for done := 0; done < 5; {
							err := c.Watch(ctx, func(tx *redis.Tx) error {
								n, err := tx.Get(ctx, "n").Int()
								if err != nil {
									return err
								}
								_, err = tx.TxPipelined(ctx, func(p redis.Pipeliner) error { return p.Set(ctx, "n", n+1, 0).Err() })
								return err
							}, "n")
							switch {
							case err == nil:
								done++
							case !errors.Is(err, redis.TxFailedErr):
								t.Error(err)
								return
							}
						}
					})
				}
				all.Wait()
				if n, err := c.Get(ctx, "n").Int(); n != 119 || err != nil {
					t.Fatal(n, err)
				}
				if n, err := c.Wait(ctx, 1, time.Second).Result(); n != 1 || err != nil {
					t.Fatal(n, err)
				}
				if commands, err := c.Command(ctx).Result(); err != nil || commands["set"] == nil || commands["mset"].StepCount != 2 {
					t.Fatal(commands["mset"], err)
				}
				if _, err := c.Info(ctx, "replication").Result(); err != nil {
					t.Fatal(err)
				}
				must(c.Del(ctx, "n").Err())
			})
		}
	}
}

// Proves BX-5: go-redis's client for Sentinel finds the primary at any node, and follows it through a switch-over.
func TestGoRedisFollowsThePrimary(t *testing.T) {
	ctx := context.Background()
	w := newWorld(t, 3, func(o *Options) { o.OnRoleChange = Close })
	var sentinels []string
	for _, n := range w.nodes {
		sentinels = append(sentinels, n.address)
	}
	c := redis.NewFailoverClient(&redis.FailoverOptions{MasterName: "default", SentinelAddrs: sentinels})
	defer func() { _ = c.Close() }()
	at := func() string { // the node that answers; INFO is not relayed
		s, err := c.Info(ctx, "server").Result()
		if err != nil {
			return err.Error()
		}
		for _, n := range w.nodes {
			if fmt.Sprintf("understudy_node:%s\r\n", n.id) == line1(s, "understudy_node:") {
				return n.id
			}
		}
		return s
	}
	if n := at(); n != "a" {
		t.Fatalf("the client speaks to %s", n)
	}
	for _, next := range []string{"b", "c", "a"} {
		if err := c.Set(ctx, "k", next, 0).Err(); err != nil {
			t.Fatal(err)
		}
		s := redis.NewSentinelClient(&redis.Options{Addr: w.nodes[2].address})
		if err := s.Failover(ctx, "default").Err(); err != nil {
			t.Fatal(err)
		}
		_ = s.Close()
		soon(t, "the client follows to "+next, func() bool { return at() == next })
		if v, err := c.Get(ctx, "k").Result(); v != next || err != nil {
			t.Fatal(v, err)
		}
	}
	s := redis.NewSentinelClient(&redis.Options{Addr: w.nodes[1].address})
	defer func() { _ = s.Close() }()
	if m, err := s.Master(ctx, "default").Result(); err != nil || m["num-slaves"] != "2" {
		t.Fatal(m, err)
	}
	if r, err := s.Replicas(ctx, "default").Result(); err != nil || len(r) != 2 || r[0]["flags"] != "slave" {
		t.Fatal(r, err)
	}
	if r, err := s.Sentinels(ctx, "default").Result(); err != nil || len(r) != 2 {
		t.Fatal(r, err)
	}
	if _, err := s.CkQuorum(ctx, "default").Result(); err != nil {
		t.Fatal(err)
	}
}

// line1 returns the line of a text that begins with name.
func line1(s, name string) string {
	for i := 0; i < len(s); {
		end := i
		for end < len(s) && s[end] != '\n' {
			end++
		}
		end = min(end+1, len(s))
		if l := s[i:end]; len(l) >= len(name) && l[:len(name)] == name {
			return l
		}
		i = end
	}
	return ""
}
