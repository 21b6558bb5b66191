package testcluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/understudy-ha/understudy/client"
	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
)

// primaries waits until every group has the wanted primary, is open, and has a secondary.
func (c *Cluster) primaries(at ident.NodeID, want map[string]string) {
	c.t.Helper()
	c.Wait(fmt.Sprintf("the primaries are %v", want), 60*time.Second, func() error {
		ctx, cancel := context.WithTimeout(c.t.Context(), 5*time.Second)
		defer cancel()
		st, err := c.Node(at).Client().Status(ctx)
		if err != nil {
			return err
		}
		for name, primary := range want {
			if g, ok := st.Group(name); !ok || g.Phase != "opened" || g.Primary != primary || g.Stale || len(g.InSync) == 0 {
				return fmt.Errorf("group %s: there %v, %s, primary %q, stale %v, in sync %v", name, ok, g.Phase, g.Primary, g.Stale, g.InSync)
			}
		}
		return nil
	})
}

// eventually repeats f while it says that surely nothing was done.
func (c *Cluster) eventually(what string, f func() error) {
	c.t.Helper()
	c.Wait(what, 60*time.Second, f)
}

// acknowledged are the writes of a test that were answered, by file and key.
type acknowledged struct {
	mu sync.Mutex
	of map[string]string
}

func (a *acknowledged) add(key, value string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.of[key] = value
}

// keys returns the acknowledged keys in order.
func (a *acknowledged) keys() (all []string) {
	for k := range a.of {
		all = append(all, k)
	}
	slices.Sort(all)
	return all
}

// expectAll compares the whole file with what was acknowledged, listed through a node in pages.
func (c *Cluster) expectAll(at ident.NodeID, file string, want *acknowledged, o client.ListOptions) {
	c.t.Helper()
	c.eventually(fmt.Sprintf("%s lists all of %s", at, file), func() error {
		ctx, cancel := context.WithTimeout(c.t.Context(), 20*time.Second)
		defer cancel()
		var got []string
		for r, err := range c.Node(at).Client().All(ctx, file, o) {
			if err != nil {
				return err
			}
			if want.of[r.Text] != string(r.Value) {
				return fmt.Errorf("%s is %q, want %q", r.Text, r.Value, want.of[r.Text])
			}
			got = append(got, r.Text)
		}
		if !slices.Equal(got, want.keys()) {
			return fmt.Errorf("%d records, want %d: %q", len(got), len(want.of), got)
		}
		return nil
	})
}

// TestThreePrimariesOfOneFile: three groups own three ranges of the keys of one file, and three nodes are their primaries. Every node takes
// every write, over HTTP and Redis, and lists the whole file in order. When one node dies only its range fails over. Proves TR-7.
func TestThreePrimariesOfOneFile(t *testing.T) {
	big := func(name ident.GroupName, at ident.NodeID, from, to fsm.KeyBound) fsm.GroupSpec {
		return fsm.GroupSpec{Name: name, Files: []string{"big"}, Keys: fsm.KeyRange{From: from, To: to}, Preferred: at}
	}
	c := Start(t, Options{Group: fsm.GroupSpec{Preferred: "a"}, Others: []fsm.GroupSpec{big("low", "a", "", "h"), big("middle", "b", "h", "q"), big("high", "c", "q", "")}})
	ctx := t.Context()
	c.primaries("b", map[string]string{"default": "a", "low": "a", "middle": "b", "high": "c"})

	want := &acknowledged{of: map[string]string{}}
	var writing sync.WaitGroup
	for _, id := range c.options.Nodes {
		r := c.redisOf(id)
		writing.Go(func() {
			for i := range 12 {
				k, v := fmt.Sprintf("%c-%s", 'a'+rune(i*2), id), fmt.Sprint(id, i)
				if i%2 == 0 {
					if _, err := c.Node(id).Client().Put(ctx, "big", []byte(k), []byte(v), client.WriteOptions{Wait: 30 * time.Second}); err != nil {
						t.Errorf("%s through %s: %v", k, id, err)
						return
					}
				} else if err := r.Set(ctx, "big:"+k, v, 0).Err(); err != nil {
					t.Errorf("%s through %s: %v", k, id, err)
					return
				}
				want.add(k, v)
			}
		})
	}
	writing.Wait()
	if t.Failed() {
		return
	}
	for _, id := range c.options.Nodes {
		for key, group := range map[string]string{"a-" + string(id): "low", "k-" + string(id): "middle", "w-" + string(id): "high"} {
			r, err := c.Node(id).Client().Get(ctx, "big", []byte(key), client.ReadOptions{Wait: 30 * time.Second})
			if err != nil || !strings.HasPrefix(r.Position, group+"@") || string(r.Value) != want.of[key] {
				t.Errorf("%s through %s: %+v, %v", key, id, r, err)
			}
		}
		for _, limit := range []int{5, 1000} {
			c.expectAll(id, "big", want, client.ListOptions{Limit: limit, Wait: 30 * time.Second})
		}
		c.expectAll(id, "big", want, client.ListOptions{Limit: 7, Local: true})
	}
	page, err := c.Node("b").Client().List(ctx, "big", client.ListOptions{From: []byte("g"), Limit: 1000, Wait: 30 * time.Second})
	if err != nil || len(page.Parts) != 3 || page.Parts[0].Node != "a" || page.Parts[1].Group != "middle" || page.Parts[2].Node != "c" || page.Applied != "" || page.Age != 0 {
		t.Errorf("parts %+v, %v", page.Parts, err)
	}
	if page, err := c.Node("a").Client().List(ctx, "big", client.ListOptions{Prefix: []byte("k"), Wait: 30 * time.Second}); err != nil || len(page.Records) != 3 {
		t.Errorf("with a prefix: %+v, %v", page, err)
	}
	if page, err := c.Node("a").Client().List(ctx, "big", client.ListOptions{Group: "high", Wait: 30 * time.Second}); err != nil || len(page.Records) == 0 || page.Records[0].Text < "q" || page.Node != "c" {
		t.Errorf("of one group: %+v, %v", page, err)
	}
	c.redisScan(want)

	// One transaction, one group.
	var tx client.Transaction
	tx.Put("big", []byte("a"), []byte("1")).Put("big", []byte("z"), []byte("1"))
	_, err = c.Node("b").Client().Transact(ctx, &tx, client.WriteOptions{})
	var refused *client.Error
	if !errors.As(err, &refused) || refused.Code != client.CodeInvalid || !strings.Contains(refused.Detail, `key "a" of file "big" belongs to group low, key "z" of file "big" to group high`) {
		t.Errorf("a transaction over two groups: %v", err)
	}
	if err := c.redisOf("c").MSet(ctx, "big:a", "1", "big:z", "1").Err(); err == nil || !strings.HasPrefix(err.Error(), "CROSSSLOT") || !strings.Contains(err.Error(), "group high") {
		t.Errorf("MSET over two groups: %v", err)
	}
	if _, err := c.redisOf("c").TxPipelined(ctx, func(p redis.Pipeliner) error {
		p.Set(ctx, "big:z1", "1", 0)
		p.Set(ctx, "big:z2", "1", 0)
		return nil
	}); err != nil {
		t.Errorf("MULTI in one group: %v", err)
	}
	want.add("z1", "1")
	want.add("z2", "1")

	// A planned switch-over, then the death of a node: the other ranges stay where they are, in their epochs.
	c.eventually("middle is switched over to c", func() error {
		ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
		defer cancel()
		st, err := c.Node("a").Client().Group(ctx, "middle")
		if err != nil || st.Primary == "c" {
			return err
		}
		_, err = c.Node("a").Client().Switchover(ctx, "middle", client.SwitchoverRequest{To: "c"}, 20*time.Second)
		return errors.Join(err, errors.New("not yet"))
	})
	c.primaries("a", map[string]string{"default": "a", "low": "a", "middle": "c", "high": "c"})
	before, err := c.Node("b").Client().Status(ctx)
	if err != nil {
		t.Fatal(err)
	}
	c.expectAll("b", "big", want, client.ListOptions{Limit: 9, Wait: 30 * time.Second})
	c.Node("a").Crash()
	c.Wait("a's groups have failed over", 60*time.Second, func() error {
		st, err := c.Node("b").Client().Status(ctx)
		if err != nil {
			return err
		}
		for _, name := range []string{"default", "low"} {
			if g, _ := st.Group(name); g.Phase != "opened" || g.Primary == "a" {
				return fmt.Errorf("group %s: %s, primary %q", name, g.Phase, g.Primary)
			}
		}
		return nil
	})
	after, err := c.Node("b").Client().Status(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"middle", "high"} {
		was, _ := before.Group(name)
		is, _ := after.Group(name)
		if was.Epoch != is.Epoch || is.Primary != "c" || is.Phase != "opened" {
			t.Errorf("group %s went from epoch %d to %d, primary %q, %s", name, was.Epoch, is.Epoch, is.Primary, is.Phase)
		}
	}
	for _, id := range []ident.NodeID{"b", "c"} {
		c.expectAll(id, "big", want, client.ListOptions{Limit: 9, Wait: 30 * time.Second})
	}
	for _, k := range []string{"b-new", "k-new", "y-new"} {
		c.eventually("a write of "+k, func() error {
			_, err := c.Node("b").Client().Put(ctx, "big", []byte(k), []byte("new"), client.WriteOptions{Wait: 10 * time.Second})
			return err
		})
		want.add(k, "new")
	}
	c.expectAll("c", "big", want, client.ListOptions{Wait: 30 * time.Second})
}

// redisScan compares SCAN and DBSIZE at every node with what was acknowledged.
func (c *Cluster) redisScan(want *acknowledged) {
	c.t.Helper()
	for _, id := range c.options.Nodes {
		r := c.redisOf(id)
		c.eventually(fmt.Sprintf("SCAN and DBSIZE at %s", id), func() error {
			ctx, cancel := context.WithTimeout(c.t.Context(), 20*time.Second)
			defer cancel()
			var got []string
			var cursor uint64
			for {
				keys, next, err := r.Scan(ctx, cursor, "big:*", 5).Result()
				if err != nil {
					return err
				}
				for _, k := range keys {
					got = append(got, strings.TrimPrefix(k, "big:"))
				}
				if cursor = next; cursor == 0 {
					break
				}
			}
			if !slices.Equal(got, want.keys()) {
				return fmt.Errorf("%d names, want %d: %q", len(got), len(want.of), got)
			}
			if n, err := r.DBSize(ctx).Result(); err != nil || n != int64(len(want.of)) {
				return fmt.Errorf("DBSIZE %d, want %d, %v", n, len(want.of), err)
			}
			return nil
		})
	}
}

// TestGroupFromAnotherOne: a group for files that "*" of another one has selected so far is created online when that one holds none of their
// records, whoever writes them at that moment, and refused, with a place to look at, when it does. Nothing that was acknowledged gets out of
// reach. Proves HB-2, TR-7.
func TestGroupFromAnotherOne(t *testing.T) {
	c := Start(t, Options{Timing: steady(), Group: fsm.GroupSpec{Preferred: "a"}})
	ctx := t.Context()
	create := func(at ident.NodeID, spec client.GroupSpec) error {
		ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
		defer cancel()
		return c.Node(at).Client().CreateGroup(ctx, spec)
	}
	if _, err := c.Node("b").Client().Put(ctx, "orders", []byte("1"), []byte("apples"), client.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	err := create("b", client.GroupSpec{Name: "orders", Files: []string{"orders*"}, Preferred: "b"})
	if !errors.Is(err, client.ErrExists) || !strings.Contains(err.Error(), `key "1" of file "orders"`) {
		t.Fatalf("created over records of another group: %v", err)
	}
	if r, err := c.Node("c").Client().Get(ctx, "orders", []byte("1"), client.ReadOptions{}); err != nil || string(r.Value) != "apples" {
		t.Fatalf("the record is %q, %v", r.Value, err)
	}
	if err := create("c", client.GroupSpec{Name: "all", Preferred: "b"}); !errors.Is(err, client.ErrInvalid) {
		t.Fatalf("a second group that takes all: %v", err)
	}
	if err := create("c", client.GroupSpec{Name: "bad", Files: []string{"x"}, Keys: client.KeyRange{From: "hex:0"}}); !errors.Is(err, client.ErrInvalid) {
		t.Fatalf("half a byte: %v", err)
	}

	// The same range of stock is written without a pause while a group for it is created, again and again.
	stop := make(chan struct{})
	var writing sync.WaitGroup
	for i, id := range c.options.Nodes {
		writing.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				key := fmt.Sprintf("k%d-%d", i, n)
				if _, err := c.Node(id).Client().Put(ctx, "stock", []byte(key), []byte("v"), client.WriteOptions{Wait: 30 * time.Second}); err != nil {
					t.Errorf("%s: %v", key, err)
					return
				}
				if _, err := c.Node(id).Client().Get(ctx, "stock", []byte(key), client.ReadOptions{Wait: 30 * time.Second}); err != nil {
					t.Errorf("%s was acknowledged: %v", key, err)
				}
				if _, err := c.Node(id).Client().Delete(ctx, "stock", []byte(key), client.WriteOptions{Wait: 30 * time.Second}); err != nil {
					t.Errorf("%s is not there to be deleted: %v", key, err)
				}
				for range 20 { // most of the time there is none
					if _, err := c.Node(id).Client().Get(ctx, "stock", []byte(key), client.ReadOptions{Wait: 30 * time.Second}); !errors.Is(err, client.ErrNotFound) {
						t.Errorf("%s was deleted: %v", key, err)
					}
				}
			}
		})
	}
	created := 0
	for i := range 20 {
		if err := create("b", client.GroupSpec{Name: "stock", Files: []string{"stock"}, Preferred: "b"}); err == nil {
			created = i + 1
			break
		} else if !errors.Is(err, client.ErrExists) {
			t.Errorf("try %d: %v", i, err)
		}
	}
	t.Logf("created at try %d under load", created)
	close(stop)
	writing.Wait()
	c.eventually("the group stock", func() error {
		return create("a", client.GroupSpec{Name: "stock", Files: []string{"stock"}, Preferred: "b"})
	})
	c.primaries("c", map[string]string{"default": "a", "stock": "b"})
	w, err := c.Node("a").Client().Put(ctx, "stock", []byte("x"), []byte("y"), client.WriteOptions{Wait: 30 * time.Second})
	if err != nil || !strings.HasPrefix(w.Position, "stock@") {
		t.Errorf("%+v, %v", w, err)
	}
	if st, err := c.Node("a").Client().Status(ctx); err != nil || len(st.Planned) != 0 || len(st.Groups) != 2 {
		t.Errorf("%d groups, planned %+v, %v", len(st.Groups), st.Planned, err)
	}
	if _, err := c.Node("a").Client().Get(ctx, "system.x", []byte("k"), client.ReadOptions{Wait: time.Second}); err == nil {
		t.Error("a file that nobody selects is read")
	}
}

// TestWriteOnTheWayToAnotherGroup: a write that was routed to a group before another one was planned for it is not taken there any more once
// that group has answered, and one that it had taken before keeps its records where they are. Proves TR-7, HB-2, I8.
func TestWriteOnTheWayToAnotherGroup(t *testing.T) {
	c := Start(t, Options{Timing: steady(), Group: fsm.GroupSpec{Preferred: "a"}, Watchdog: time.Minute})
	ctx := t.Context()
	a := c.Node("a")
	put := func(file string) <-chan string {
		done := make(chan string, 1)
		go func() {
			w, err := a.Client().Put(ctx, file, []byte("k"), []byte("v"), client.WriteOptions{Wait: 30 * time.Second})
			if err != nil {
				t.Errorf("write to %s: %v", file, err)
			}
			done <- w.Position
		}()
		return done
	}
	create := func(file string) <-chan error {
		done := make(chan error, 1)
		go func() {
			done <- c.Node("b").Client().CreateGroup(ctx, client.GroupSpec{Name: file, Files: []string{file}, Preferred: "b"})
		}()
		return done
	}
	waiting := func(n int) {
		t.Helper()
		c.Wait(fmt.Sprintf("%d requests wait at a", n), 30*time.Second, func() error {
			if have := a.Waiting(); have != n {
				return fmt.Errorf("%d", have)
			}
			return nil
		})
	}

	a.Disk().Pause("replica.seal:default")
	wrote := put("stock")
	waiting(1)
	created := create("stock")
	waiting(2) // what proves that nothing is on its way comes behind the write
	a.Disk().Resume("replica.seal:default")
	if err := <-created; err != nil {
		t.Errorf("the group was not created: %v", err)
	}
	if at := <-wrote; !strings.HasPrefix(at, "stock@") {
		t.Errorf("written at %s", at)
	}

	last := a.sequence(t)
	a.Disk().Stall()
	wrote = put("late")
	c.Wait("the write is sequenced", 30*time.Second, func() error {
		if a.sequence(t) == last {
			return errors.New("not yet")
		}
		return nil
	})
	created = create("late")
	waiting(1)
	a.Disk().release()
	if err := <-created; !errors.Is(err, client.ErrExists) {
		t.Errorf("created over a record that was sequenced before: %v", err)
	}
	if at := <-wrote; !strings.HasPrefix(at, "default@") {
		t.Errorf("written at %s", at)
	}
	for _, file := range []string{"stock", "late"} {
		if r, err := c.Node("c").Client().Get(ctx, file, []byte("k"), client.ReadOptions{Wait: 30 * time.Second}); err != nil || string(r.Value) != "v" {
			t.Errorf("%s: %+v, %v", file, r, err)
		}
	}
}
