package testcluster

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/understudy-ha/understudy/client"
	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
)

// redisOf is a client of one node that repeats nothing by itself: what it hears is what the node said.
func (c *Cluster) redisOf(id ident.NodeID) *redis.Client {
	r := redis.NewClient(&redis.Options{Addr: c.Node(id).config.Listen.Redis, MaxRetries: -1, ReadTimeout: 30 * time.Second, DisableIdentity: true})
	c.t.Cleanup(func() { _ = r.Close() })
	return r
}

// sentinels are the Redis listeners of all nodes.
func (c *Cluster) sentinels() (all []string) {
	for _, id := range c.options.Nodes {
		all = append(all, c.Node(id).config.Listen.Redis)
	}
	return all
}

// TestRedisAndHTTPShareRecords: what a Redis client writes through any node is a record like any other: over HTTP, on the backups, with
// its kind and its expiry. Proves BX-5.
func TestRedisAndHTTPShareRecords(t *testing.T) {
	c := Start(t, Options{Timing: steady(), Group: fsm.GroupSpec{Preferred: "a"}})
	ctx := t.Context()
	a, b := c.redisOf("a"), c.redisOf("b")
	if err := b.Set(ctx, "orders:1", "apples", time.Hour).Err(); err != nil {
		t.Fatal(err)
	}
	rec, err := c.Node("c").Client().Get(ctx, "orders", []byte("1"), client.ReadOptions{})
	if err != nil || string(rec.Value) != "apples" || rec.Expiry.IsZero() || rec.Kind != client.KindBytes {
		t.Errorf("over HTTP: %+v, %v", rec, err)
	}
	if ttl, err := a.TTL(ctx, "orders:1").Result(); err != nil || ttl <= 50*time.Minute || ttl > time.Hour {
		t.Errorf("time to live %s, %v", ttl, err)
	}
	if _, err := c.Node("b").Client().Put(ctx, "default", []byte("plain"), []byte("41"), client.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	if n, err := b.Incr(ctx, "plain").Result(); err != nil || n != 42 {
		t.Errorf("INCR of what HTTP wrote: %d, %v", n, err)
	}
	if err := b.HSet(ctx, "orders:h", "x", "1", "y", "2").Err(); err != nil {
		t.Fatal(err)
	}
	if rec, err := c.Node("a").Client().Get(ctx, "orders", []byte("h"), client.ReadOptions{}); err != nil || rec.Kind != client.KindHash {
		t.Errorf("a hash over HTTP: %+v, %v", rec, err)
	}
	if m, err := a.HGetAll(ctx, "orders:h").Result(); err != nil || !maps.Equal(m, map[string]string{"x": "1", "y": "2"}) {
		t.Errorf("the hash: %v, %v", m, err)
	}
	if err := a.Get(ctx, "orders:h").Err(); err == nil || !strings.HasPrefix(err.Error(), "WRONGTYPE") {
		t.Errorf("a hash taken for a string: %v", err)
	}

	for n, want := range map[int]string{255: "", 256: "ERR "} { // what surely is not done is not said to be unknown
		switch err := b.Set(ctx, strings.Repeat("f", n)+":k", "v", 0).Err(); {
		case want == "" && err != nil, want != "" && (err == nil || !strings.HasPrefix(err.Error(), want)):
			t.Errorf("a file name of %d bytes: %v", n, err)
		}
	}
	if err := b.Del(ctx, strings.Repeat("f", 255)+":k").Err(); err != nil {
		t.Error(err)
	}

	// One pipeline is one deposit, and reads in it see its writes.
	before := c.Node("a").sequence(t)
	pipe := a.Pipeline()
	var all []redis.Cmder
	for i := range 50 {
		all = append(all, pipe.Set(ctx, fmt.Sprint("p:", i), i, 0))
	}
	last := pipe.Get(ctx, "p:49")
	if _, err := pipe.Exec(ctx); err != nil || last.Val() != "49" || len(all) != 50 {
		t.Errorf("pipeline: %v, %q", err, last.Val())
	}
	if after := c.Node("a").sequence(t); after < before+50 {
		t.Errorf("50 writes made %d entries", after-before)
	}

	// A transaction sees its own changes; WATCH refuses what came too late, through another node too.
	if _, err := b.TxPipelined(ctx, func(p redis.Pipeliner) error {
		p.Incr(ctx, "plain")
		p.Incr(ctx, "plain")
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	err = b.Watch(ctx, func(tx *redis.Tx) error {
		if err := a.Set(ctx, "plain", "0", 0).Err(); err != nil {
			return err
		}
		_, err := tx.TxPipelined(ctx, func(p redis.Pipeliner) error { return p.Set(ctx, "plain", "1", 0).Err() })
		return err
	}, "plain")
	if !errors.Is(err, redis.TxFailedErr) {
		t.Errorf("a watched key was changed: %v", err)
	}
	if v, err := b.Get(ctx, "plain").Result(); err != nil || v != "0" {
		t.Errorf("plain is %q, %v", v, err)
	}

	if n, err := a.DBSize(ctx).Result(); err != nil || n != 53 {
		t.Errorf("DBSIZE %d, %v", n, err)
	}
	seen := map[string]bool{}
	scan := b.Scan(ctx, 0, "p:*", 7).Iterator()
	for scan.Next(ctx) {
		seen[scan.Val()] = true
	}
	if scan.Err() != nil || len(seen) != 50 {
		t.Errorf("SCAN finds %d: %v", len(seen), scan.Err())
	}
	if err := a.PExpire(ctx, "p:1", time.Millisecond).Err(); err != nil {
		t.Fatal(err)
	}
	c.Wait("what has expired is gone at the primary and on the backups", time.Minute, func() error {
		if n, err := b.Exists(ctx, "p:1").Result(); err != nil || n != 0 {
			return fmt.Errorf("%d, %v", n, err)
		}
		_, err := c.Node("b").Client().Get(ctx, "p", []byte("1"), client.ReadOptions{Local: true})
		if !errors.Is(err, client.ErrNotFound) {
			return fmt.Errorf("on b: %v", err)
		}
		return nil
	})
	if n, err := a.Do(ctx, "WAIT", 1, 1000).Int(); err != nil || n < 1 {
		t.Errorf("WAIT: %d, %v", n, err)
	}
	c.equalDigests()
}

// sequence is the last sequence of the node's own journal.
func (n *Node) sequence(t *testing.T) uint64 {
	g, err := n.Client().Group(t.Context(), "default")
	if err != nil {
		t.Fatal(err)
	}
	return g.Sequence
}

// TestRedisThroughSwitchovers: no Redis client and no HTTP client hears of a planned switch-over, whichever node it speaks to, and each
// increment counts once. Clients that ask Sentinel find the new primary. Proves BX-1, BX-5 and TR-3.
func TestRedisThroughSwitchovers(t *testing.T) {
	c := Start(t, Options{Timing: steady(), Group: fsm.GroupSpec{Preferred: "a"}})
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var work sync.WaitGroup
	var counts [9]atomic.Int64
	over := make(chan struct{})
	repeat := func(i int, f func() error) {
		work.Go(func() {
			for {
				select {
				case <-over:
					return
				default:
				}
				if err := f(); err != nil {
					t.Errorf("client %d: %v", i, err)
					return
				}
				counts[i].Add(1)
			}
		})
	}
	for i := range 6 {
		r := c.redisOf(c.options.Nodes[i%3])
		repeat(i, func() error { return r.Incr(ctx, fmt.Sprint("counters:", i)).Err() })
	}
	failover := redis.NewFailoverClient(&redis.FailoverOptions{MasterName: "default", SentinelAddrs: c.sentinels(), MaxRetries: -1, ReadTimeout: 30 * time.Second})
	defer func() { _ = failover.Close() }()
	if err := failover.Set(ctx, "counters:6", 0, 0).Err(); err != nil {
		t.Fatal(err)
	}
	for i := 7; i < 9; i++ {
		at := c.Node(c.options.Nodes[i%3]).Client()
		n := 0
		repeat(i, func() error {
			n++
			_, err := at.Put(ctx, "counters", []byte(fmt.Sprint(i)), []byte(fmt.Sprint(n)), client.WriteOptions{Wait: 20 * time.Second})
			return err
		})
	}
	for _, to := range []ident.NodeID{"b", "a", "b", "c", "a"} {
		c.switchTo(to)
		c.Wait("the client that asks Sentinel writes at "+string(to), time.Minute, func() error {
			if addr, err := c.redisOf("c").Do(ctx, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", "default").StringSlice(); err != nil || strings.Join(addr, ":") != c.Node(to).config.Listen.Redis {
				return fmt.Errorf("the master is %v, %v", addr, err)
			}
			err := failover.Incr(ctx, "counters:6").Err()
			counts[6].Add(1) // at most: see below
			return err
		})
	}
	close(over)
	work.Wait()
	r := c.redisOf("b")
	for i := range counts {
		v, err := r.Get(ctx, fmt.Sprint("counters:", i)).Int64()
		if want := counts[i].Load(); err != nil || v != want && (i != 6 || v > want) {
			t.Errorf("counter %d is %d, %v; %d were acknowledged", i, v, err, want)
		}
	}
	c.Wait("all have all", time.Minute, c.settled)
	c.equalDigests()
}

// TestRedisThroughAKill: when the primary dies a Redis client at another node hears that an outcome is unknown, or nothing at all;
// what was acknowledged is there. Proves BX-5.
func TestRedisThroughAKill(t *testing.T) {
	c := Start(t, Options{Group: fsm.GroupSpec{Preferred: "a"}})
	ctx := t.Context()
	r := c.redisOf("b")
	var acknowledged, unknown int64
	begun, over := make(chan struct{}), make(chan struct{})
	var once sync.Once
	var work sync.WaitGroup
	work.Go(func() {
		for {
			select {
			case <-over:
				return
			default:
			}
			err := r.Incr(ctx, "counter").Err()
			switch {
			case err == nil:
				acknowledged++
				once.Do(func() { close(begun) })
			case strings.HasPrefix(err.Error(), "UNKNOWNOUTCOME"):
				unknown++
			case strings.HasPrefix(err.Error(), "TRYAGAIN"): // surely not done
			default:
				t.Errorf("INCR: %v", err)
				return
			}
		}
	})
	<-begun
	c.Node("a").Crash()
	c.until("b", "somebody has taken over", func(g client.GroupStatus) bool { return servedBy("b")(g) || servedBy("c")(g) })
	if err := c.redisOf("c").Set(ctx, "after", "1", 0).Err(); err != nil {
		t.Errorf("after the takeover, through c: %v", err)
	}
	c.Node("a").Start()
	c.Wait("all are level", time.Minute, c.settled)
	close(over)
	work.Wait()
	v, err := c.redisOf("c").Get(ctx, "counter").Int64()
	if err != nil || v < acknowledged || v > acknowledged+unknown {
		t.Errorf("the counter is %d, %v: %d were acknowledged, of %d nobody knows", v, err, acknowledged, unknown)
	}
	c.equalDigests()
}
