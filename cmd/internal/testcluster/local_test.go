package testcluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/understudy-ha/understudy/client"
	"github.com/understudy-ha/understudy/cluster"
	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
)

// localCluster has one group that selects narrowly, and nodes that keep everything else for themselves.
func localCluster(t *testing.T, timing cluster.Timing, nodes ...ident.NodeID) *Cluster {
	t.Helper()
	c := Start(t, Options{Timing: timing, Nodes: nodes, LocalFiles: true, Group: fsm.GroupSpec{Name: "orders", Files: []string{"orders*"}, Preferred: "a"}})
	for id, n := range c.nodes {
		c.Wait("local files are served at "+string(id), 30*time.Second, func() error {
			if _, err := n.Client().Get(t.Context(), "notes", []byte("none"), client.ReadOptions{}); !errors.Is(err, client.ErrNotFound) {
				return fmt.Errorf("it answers %w", err)
			}
			return nil
		})
	}
	return c
}

// holds tells whether a file below a directory of the node's data disk holds some bytes.
func (n *Node) holds(dir string, what string) (found []string) {
	n.cluster.t.Helper()
	names, err := n.fs.List(dir)
	if err != nil {
		return nil // there is no such directory
	}
	for _, name := range names {
		path := n.fs.PathJoin(dir, name)
		info, err := n.fs.Stat(path)
		if err != nil {
			continue // deleted meanwhile
		}
		if info.IsDir() {
			found = append(found, n.holds(path, what)...)
			continue
		}
		f, err := n.fs.Open(path)
		if err != nil {
			continue
		}
		content, err := io.ReadAll(f)
		if err = errors.Join(err, f.Close()); err != nil {
			n.cluster.t.Fatal(err)
		}
		if bytes.Contains(content, []byte(what)) {
			found = append(found, path)
		}
	}
	return found
}

// Proves HB-2: what no group selects differs from node to node, is journaled with each node and shipped to none, is taken on a backup and
// without a majority, and is there after a crash. What a group selects goes on as ever.
func TestLocalFilesStayLocal(t *testing.T) {
	c := localCluster(t, unhurried())
	ctx := t.Context()
	all := []ident.NodeID{"a", "b", "c"}
	secret := func(id ident.NodeID) string { return "this is of " + string(id) + " alone" }
	for _, id := range all {
		w, err := c.Node(id).Client().Put(ctx, "notes", []byte("k"), []byte(secret(id)), client.WriteOptions{})
		if err != nil || w.Local != string(id) || w.Journal != "local/"+string(id) || !strings.HasPrefix(w.Position, "local/"+string(id)+"@1.") {
			t.Fatalf("a local write at %s: %+v, %v", id, w, err)
		}
		if w, err := c.Node(id).Client().Put(ctx, "orders", []byte(id), []byte("shipped"), client.WriteOptions{}); err != nil || w.Local != "" {
			t.Fatalf("a write of a group at %s: %+v, %v", id, w, err)
		}
	}
	for _, id := range all {
		r, err := c.Node(id).Client().Get(ctx, "notes", []byte("k"), client.ReadOptions{Local: true, MaxLag: time.Nanosecond})
		if err != nil || string(r.Value) != secret(id) || r.Local != string(id) || r.Node != string(id) {
			t.Errorf("read at %s: %+v, %v", id, r, err)
		}
		page, err := c.Node(id).Client().List(ctx, "notes", client.ListOptions{})
		if err != nil || len(page.Records) != 1 || page.Local != string(id) {
			t.Errorf("list at %s: %+v, %v", id, page, err)
		}
		for _, other := range all {
			if found := c.Node(other).holds("/"+string(other), secret(id)); (len(found) > 0) != (other == id) {
				t.Errorf("what is local to %s stands at %s in %q", id, other, found)
			}
		}
		st, err := c.Node(id).Client().Status(ctx)
		if err != nil || st.LocalFiles == nil || !st.LocalFiles.Writable || st.LocalFiles.Journal == nil || st.LocalFiles.Journal.ID != "local/"+string(id) || len(st.Groups) != 1 {
			t.Errorf("status of %s: %+v, %v", id, st, err)
		}
		entries, err := c.Node(id).Client().Entries(ctx, client.LocalGroup, "local", client.EntryFilter{File: "notes"})
		if err != nil || len(entries) != 1 || entries[0].After == nil || string(entries[0].After.Value) != secret(id) {
			t.Errorf("entries at %s: %+v, %v", id, entries, err)
		}
		if d, err := c.Node(id).Client().Digest(ctx, client.LocalGroup); err != nil || d.Node != string(id) {
			t.Errorf("digest at %s: %+v, %v", id, d, err)
		}
		if _, err := c.Node(id).Client().Verify(ctx, client.LocalGroup, "local", 10*time.Second); err != nil {
			t.Errorf("verify at %s: %v", id, err)
		}
	}
	if _, err := c.Node("a").Client().Switchover(ctx, client.LocalGroup, client.SwitchoverRequest{}, time.Second); !errors.Is(err, client.ErrUnknownGroup) || !strings.Contains(err.Error(), "not a group") {
		t.Errorf("a switch-over of local files: %v", err)
	}
	if err := c.Node("a").Client().CreateGroup(ctx, client.GroupSpec{Name: client.LocalGroup}); !errors.Is(err, client.ErrInvalid) {
		t.Errorf("a group called local: %v", err)
	}

	for _, id := range all { // everybody alone
		for _, other := range all {
			if id < other {
				c.Cut(id, other, true)
			}
		}
	}
	c.Wait("nobody takes what a group selects", 30*time.Second, func() error {
		_, err := c.Node("a").Client().Put(ctx, "orders", []byte("alone"), []byte("x"), client.WriteOptions{Wait: 100 * time.Millisecond})
		if err == nil {
			return errors.New("it was taken")
		}
		return nil
	})
	for _, id := range all {
		w, err := c.Node(id).Client().Put(ctx, "notes", []byte("alone"), []byte(secret(id)), client.WriteOptions{IfAbsent: true})
		if err != nil || w.Local != string(id) {
			t.Errorf("without a majority, at %s: %+v, %v", id, w, err)
		}
	}
	for _, id := range all {
		for _, other := range all {
			if id < other {
				c.Cut(id, other, false)
			}
		}
	}

	b := c.Node("b")
	b.Crash()
	b.Start()
	c.Wait("b has its local files after a crash", 30*time.Second, func() error {
		for _, key := range []string{"k", "alone"} {
			if r, err := b.Client().Get(ctx, "notes", []byte(key), client.ReadOptions{}); err != nil || string(r.Value) != secret("b") {
				return fmt.Errorf("%s: %q, %w", key, r.Value, err)
			}
		}
		return nil
	})
	if w, err := b.Client().Put(ctx, "notes", []byte("k"), []byte("2"), client.WriteOptions{}); err != nil || !strings.HasPrefix(w.Position, "local/b@2.") {
		t.Errorf("the next life: %+v, %v", w, err)
	}
}

// Proves HB-2: a transaction, and a command of a Redis client, is of one group or of local files, never of both; nobody else is asked for
// local files.
func TestLocalFilesDoNotMix(t *testing.T) {
	c := localCluster(t, steady(), "a", "b")
	ctx := t.Context()
	b, r := c.Node("b").Client(), c.redisOf("b")
	value := "v"
	change := func(file, key string) client.Change {
		return client.Change{File: file, Key: client.MakeKey([]byte(key)), Value: client.MakeValue([]byte(value))}
	}
	tx, err := b.Transact(ctx, &client.Transaction{Changes: []client.Change{change("notes", "1"), change("memos", "1")}}, client.WriteOptions{})
	if err != nil || tx.Local != "b" {
		t.Fatalf("a local transaction: %+v, %v", tx, err)
	}
	for _, mixed := range []client.Transaction{
		{Changes: []client.Change{change("notes", "2"), change("orders", "2")}},
		{Changes: []client.Change{change("orders", "2"), change("notes", "2")}},
		{Group: "orders", Changes: []client.Change{change("notes", "2")}},
		{Group: client.LocalGroup, Changes: []client.Change{change("orders", "2")}},
		{Changes: []client.Change{change("orders", "2")}, Conditions: []client.Condition{{File: "notes", Key: client.MakeKey([]byte("1")), IfExists: true}}},
	} {
		if _, err := b.Transact(ctx, &mixed, client.WriteOptions{}); !errors.Is(err, client.ErrInvalid) || !strings.Contains(err.Error(), "group orders") || !strings.Contains(err.Error(), "no group") {
			t.Errorf("%+v: %v", mixed, err)
		}
	}

	if err := r.Set(ctx, "notes:r", "b's", 0).Err(); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if n, err := r.Do(ctx, "WAIT", 1, 20_000).Int(); err != nil || n != 0 || time.Since(began) > 10*time.Second {
		t.Errorf("WAIT for what is local: %d, %v after %s", n, err, time.Since(began))
	}
	if err := r.MSet(ctx, "notes:x", "1", "orders:x", "1").Err(); err == nil || !strings.HasPrefix(err.Error(), "CROSSSLOT") || !strings.Contains(err.Error(), `"notes" is local`) || !strings.Contains(err.Error(), `"orders" belongs`) {
		t.Errorf("MSET of both: %v", err)
	}
	if n, err := r.Incr(ctx, "notes:n").Result(); err != nil || n != 1 {
		t.Errorf("INCR: %d, %v", n, err)
	}
	if err := c.redisOf("a").Get(ctx, "notes:r").Err(); !errors.Is(err, redis.Nil) {
		t.Errorf("b's local record, asked at a: %v", err)
	}

	// A scan at b is relayed to a for what a group selects. It must leave out a's local files, and none of b's.
	other := c.redisOf("a")
	want := []string{"memos:1", "notes:1", "notes:n", "notes:r"}
	for i := range 40 {
		name := fmt.Sprintf("orders%d:k", i)
		if err := r.Set(ctx, name, "v", 0).Err(); err != nil {
			t.Fatal(err)
		}
		want = append(want, name)
		name = fmt.Sprintf("file%d:k", i)
		if err := r.Set(ctx, name, "v", 0).Err(); err != nil {
			t.Fatal(err)
		}
		want = append(want, name)
		if err := other.Set(ctx, fmt.Sprintf("other%d:k", i), "v", 0).Err(); err != nil {
			t.Fatal(err)
		}
	}
	slices.Sort(want)
	for _, count := range []int64{1, 7, 1000} {
		var got []string
		for it := r.Scan(ctx, 0, "", count).Iterator(); ; {
			if !it.Next(ctx) {
				if it.Err() != nil {
					t.Fatal(it.Err())
				}
				break
			}
			got = append(got, it.Val())
		}
		slices.Sort(got)
		if got = slices.Compact(got); !slices.Equal(got, want) {
			t.Errorf("SCAN COUNT %d: %d names, want %d: %q", count, len(got), len(want), got)
		}
	}
	// What another node has passed on was not meant for local files.
	q, err := http.NewRequestWithContext(ctx, http.MethodPut, "http://"+c.Node("b").running.HTTP()+"/v1/files/notes/records/hop", strings.NewReader("v"))
	if err != nil {
		t.Fatal(err)
	}
	q.Header.Set("Understudy-Hops", fmt.Sprintf("1/%d", ident.CurrentProtocol))
	resp, err := http.DefaultTransport.RoundTrip(q)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusMisdirectedRequest {
		t.Errorf("a forwarded write of a local file: %s", resp.Status)
	}
	if _, err := b.Get(ctx, "notes", []byte("hop"), client.ReadOptions{}); !errors.Is(err, client.ErrNotFound) {
		t.Errorf("it was done: %v", err)
	}
}

// Proves HB-2: a group that comes to select a file hides what nodes had kept of it for themselves. They say so, and it can be read and
// deleted by name.
func TestLocalFilesHiddenByAGroup(t *testing.T) {
	c := localCluster(t, steady(), "a", "b")
	ctx := t.Context()
	b := c.Node("b").Client()
	for _, key := range []string{"1", "2"} {
		if _, err := b.Put(ctx, "notes", []byte(key), []byte("before"), client.WriteOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := b.Put(ctx, "mine", []byte("1"), []byte("stays"), client.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	through := c.redisOf("b")
	counts := func(when string, want int64) {
		t.Helper()
		c.Wait(fmt.Sprintf("DBSIZE %s is %d", when, want), 30*time.Second, func() error { // of what b's copy of the group has
			n, err := through.DBSize(ctx).Result()
			if err == nil && n != want {
				err = fmt.Errorf("it is %d", n)
			}
			return err
		})
	}
	counts("of local files", 3)
	if err := c.Node("a").Client().CreateGroup(ctx, client.GroupSpec{Name: "notes", Files: []string{"notes*"}, Preferred: "b"}); err != nil {
		t.Fatal(err)
	}
	hidden := func(want uint64) {
		t.Helper()
		c.Wait(fmt.Sprint("b says that ", want, " records are hidden"), 30*time.Second, func() error {
			st, err := b.Status(ctx)
			if err != nil {
				return err
			}
			var n uint64
			for _, h := range st.LocalFiles.Hidden {
				if h.Group == "notes" && h.First == "notes" {
					n += h.Records
				}
			}
			if n != want {
				return fmt.Errorf("%+v", st.LocalFiles.Hidden)
			}
			return nil
		})
	}
	hidden(2)
	c.Wait("the group takes the file", 30*time.Second, func() error {
		w, err := b.Put(ctx, "notes", []byte("1"), []byte("after"), client.WriteOptions{Wait: time.Second})
		if err == nil && w.Local != "" {
			err = errors.New("it is local")
		}
		return err
	})
	if r, err := b.Get(ctx, "notes", []byte("1"), client.ReadOptions{}); err != nil || string(r.Value) != "after" || r.Local != "" {
		t.Errorf("the record of the group: %+v, %v", r, err)
	}
	counts("without what the group hides", 2)
	if r, err := b.Get(ctx, "notes", []byte("1"), client.ReadOptions{Group: client.LocalGroup}); err != nil || string(r.Value) != "before" || r.Local != "b" {
		t.Errorf("the hidden record: %+v, %v", r, err)
	}
	if page, err := b.List(ctx, "notes", client.ListOptions{Group: client.LocalGroup}); err != nil || len(page.Records) != 2 {
		t.Errorf("the hidden records: %+v, %v", page, err)
	}
	why, err := b.Why(ctx, "notes", "")
	if err != nil || !slices.ContainsFunc(why.Notes, func(n string) bool { return strings.Contains(n, "records: 2") && strings.Contains(n, "group=local") }) {
		t.Errorf("why: %+v, %v", why, err)
	}
	for _, key := range []string{"1", "2"} {
		if _, err := b.Delete(ctx, "notes", []byte(key), client.WriteOptions{Group: client.LocalGroup}); err != nil {
			t.Fatal(err)
		}
	}
	hidden(0)
	if r, err := b.Get(ctx, "notes", []byte("1"), client.ReadOptions{}); err != nil || string(r.Value) != "after" {
		t.Errorf("the record of the group after that: %+v, %v", r, err)
	}
}

// Proves HB-2: a failing local journal ends the writes to local files, loudly, and nothing else: the node goes on as primary and as backup.
func TestLocalJournalFailsAlone(t *testing.T) {
	c := localCluster(t, steady(), "a", "b")
	ctx := t.Context()
	a := c.Node("a")
	if _, err := a.Client().Put(ctx, "notes", []byte("k"), []byte("1"), client.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	before, err := a.Client().Group(ctx, "orders")
	if err != nil {
		t.Fatal(err)
	}
	a.Disk().Hang("journal.sync:local/a")
	done := make(chan error, 1)
	go func() {
		_, err := a.Client().Put(context.Background(), "notes", []byte("k"), []byte("2"), client.WriteOptions{Wait: 10 * time.Second})
		done <- err
	}()
	c.Wait("the sync of the local journal hangs", 20*time.Second, func() error {
		if !a.Disk().waits("journal.sync:local/a") {
			return errors.New("not yet")
		}
		return nil
	})
	a.Disk().release() // and fails
	if err := <-done; client.OutcomeOf(err) != client.OutcomeUndecided {
		t.Errorf("the write that is not on disk: %v", err)
	}
	c.Wait("a says that local files are over", 20*time.Second, func() error {
		st, err := a.Client().Status(ctx)
		if err == nil && (st.LocalFiles.Writable || !strings.Contains(st.LocalFiles.Error, "restart")) {
			err = fmt.Errorf("%+v", st.LocalFiles)
		}
		return err
	})
	if _, err := a.Client().Put(ctx, "notes", []byte("k"), []byte("3"), client.WriteOptions{}); !errors.Is(err, client.ErrUnavailable) || client.OutcomeOf(err) != client.OutcomeNotDone {
		t.Errorf("a write after that: %v", err)
	}
	if r, err := a.Client().Get(ctx, "notes", []byte("k"), client.ReadOptions{}); err != nil || string(r.Value) != "1" {
		t.Errorf("a read after that: %+v, %v", r, err)
	}
	if _, err := a.Client().Put(ctx, "orders", []byte("k"), []byte("v"), client.WriteOptions{}); err != nil {
		t.Errorf("a write of the group: %v", err)
	}
	if after, err := a.Client().Group(ctx, "orders"); err != nil || after.Primary != "a" || after.Epoch != before.Epoch {
		t.Errorf("the group's roles moved: %+v, %v", after, err)
	}
}

// Proves HB-3: the backup works while the primary writes: reads that are no older than was asked for, pages, filtered entries of the
// journal, a digest, and writes of its own local files, all at the same time.
func TestBackupIsNotIdle(t *testing.T) {
	c := localCluster(t, steady(), "a", "b")
	ctx := t.Context()
	a, b := c.Node("a").Client(), c.Node("b").Client()
	if _, err := a.Put(ctx, "orders", []byte("n"), []byte("0"), client.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	stop, stopped := make(chan struct{}), make(chan int, 1)
	go func() {
		n := 0
		defer func() { stopped <- n }()
		for {
			select {
			case <-stop:
				return
			default:
			}
			n++
			if _, err := a.Put(ctx, "orders", []byte("n"), []byte(fmt.Sprint(n)), client.WriteOptions{}); err != nil {
				t.Errorf("write %d: %v", n, err)
				return
			}
			if _, err := a.Put(ctx, "orders", fmt.Appendf(nil, "k%d", n%50), []byte(fmt.Sprint(n)), client.WriteOptions{}); err != nil {
				t.Errorf("write %d: %v", n, err)
				return
			}
		}
	}()
	last, changed := -1, 0
	for i := 0; changed < 20; i++ {
		if i == 20_000 {
			t.Fatalf("the copy of b changed %d times only", changed)
		}
		var n int
		r, err := b.Get(ctx, "orders", []byte("n"), client.ReadOptions{Local: true, MaxLag: 5 * time.Second})
		if errors.Is(err, client.ErrStale) {
			continue // a machine that is so busy; the next one is asked for
		}
		if err != nil || r.Node != "b" || r.Local != "" || r.Age > 5 {
			t.Fatalf("read %d at the backup: %+v, %v", i, r, err)
		}
		if _, err := fmt.Sscan(string(r.Value), &n); err != nil || n < last {
			t.Fatalf("read %d went back from %d to %d, %v", i, last, n, err)
		}
		if n > last {
			last, changed = n, changed+1
		}
		if w, err := b.Put(ctx, "report", fmt.Appendf(nil, "line%d", i), r.Value, client.WriteOptions{}); err != nil || w.Local != "b" {
			t.Fatalf("a report at the backup: %+v, %v", w, err)
		}
	}
	page, err := b.List(ctx, "orders", client.ListOptions{Local: true, Prefix: []byte("k"), Limit: 10})
	if err != nil || len(page.Records) == 0 || page.Node != "b" {
		t.Errorf("a page at the backup: %+v, %v", page, err)
	}
	if _, err := b.List(ctx, "orders", client.ListOptions{Local: true, MaxLag: time.Nanosecond}); !errors.Is(err, client.ErrStale) {
		t.Errorf("a page that may not be older than a nanosecond: %v", err)
	}
	var none *client.Error // that there is nothing is said with its age, too
	switch _, err := b.Get(ctx, "orders", []byte("none"), client.ReadOptions{Local: true}); {
	case !errors.As(err, &none) || none.Code != client.CodeNotFound || none.Age == 0 || none.Node != "b":
		t.Errorf("a record that the backup does not have: %+v, %v", none, err)
	default:
		if _, _, err := ident.ParsePosition(none.Applied); err != nil {
			t.Errorf("it is missing at %q: %v", none.Applied, err)
		}
	}
	entries, err := b.Entries(ctx, "orders", "a", client.EntryFilter{Key: []byte("n"), Type: "UP", Limit: 5})
	if err != nil || len(entries) == 0 {
		t.Errorf("entries at the backup: %d, %v", len(entries), err)
	}
	for _, e := range entries {
		if string(e.Key.Bytes()) != "n" || !e.Confirmed {
			t.Errorf("entry: %+v", e)
		}
	}
	if _, err := b.Digest(ctx, "orders"); err != nil {
		t.Errorf("a digest at the backup: %v", err)
	}
	if _, err := b.Verify(ctx, "orders", "a", 30*time.Second); err != nil {
		t.Errorf("verify at the backup: %v", err)
	}
	close(stop)
	<-stopped
	c.Wait("contents are equal", 30*time.Second, func() error {
		one, err := a.Digest(ctx, "orders")
		if err != nil {
			return err
		}
		other, err := b.Digest(ctx, "orders")
		if err == nil && (one.Sum != other.Sum || one.Position != other.Position) {
			err = fmt.Errorf("%+v, %+v", one, other)
		}
		return err
	})
	if _, err := a.Get(ctx, "report", []byte("line0"), client.ReadOptions{}); !errors.Is(err, client.ErrNotFound) {
		t.Errorf("b's report, asked at a: %v", err)
	}
}
