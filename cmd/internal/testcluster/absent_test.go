package testcluster

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/understudy-ha/understudy/client"
	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
)

// Proves TR-7: a group that would have a node that is down for its first primary is not created and not planned, with the reason: its records
// would wait for that node. Another one may be preferred, and the node itself once it is back.
func TestGroupThatPrefersANodeThatIsDown(t *testing.T) {
	c := Start(t, Options{Group: fsm.GroupSpec{Preferred: "a"}})
	ctx := t.Context()
	create := func(name, preferred string) error {
		ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
		defer cancel()
		return c.Node("a").Client().CreateGroup(ctx, client.GroupSpec{Name: name, Files: []string{name + "*"}, Preferred: preferred})
	}
	c.Node("c").Crash()
	c.Wait("a knows that c is down", 60*time.Second, func() error {
		st, err := c.Node("a").Client().Status(ctx)
		for i := range st.Nodes {
			if n := &st.Nodes[i]; n.ID == "c" && n.Lease == "held" {
				return errors.New("its lease is held")
			}
		}
		return err
	})
	err := create("orders", "c")
	if !errors.Is(err, client.ErrPrecondition) || !strings.Contains(err.Error(), "node c") {
		t.Fatalf("a group that prefers a node that is down: %v", err)
	}
	var e *client.Error
	if !errors.As(err, &e) || !strings.Contains(e.Remedy, "start node c") {
		t.Errorf("the remedy: %+v", e)
	}
	if st, err := c.Node("a").Client().Status(ctx); err != nil || len(st.Planned) != 0 || len(st.Groups) != 1 {
		t.Errorf("it was planned or created: %+v, %v", st.Planned, err)
	}
	if w, err := c.Node("a").Client().Put(ctx, "orders", []byte("k"), []byte("v"), client.WriteOptions{}); err != nil || !strings.HasPrefix(w.Position, "default@") {
		t.Errorf("its records wait: %+v, %v", w, err)
	}
	if err := create("stock", "b"); err != nil {
		t.Errorf("a group that prefers another node: %v", err)
	}
	c.Node("c").Start()
	c.eventually("the group is created when its node is back", func() error {
		err := create("bills", "c")
		if err != nil && !errors.Is(err, client.ErrPrecondition) && !errors.Is(err, client.ErrUnavailable) && !errors.Is(err, client.ErrBusy) {
			t.Errorf("%v", err)
		}
		return err
	})
	c.primaries("a", map[string]string{"bills": "c", "stock": "b"})
}

// Proves HB-2: a node that restarts alone does not say that a file is local, for a group may have come to select it while the node was down:
// here one has. What it keeps is read by its name all the same. A group that it cannot know of gets none of its records.
func TestLocalFilesAfterARestartAlone(t *testing.T) {
	c := localCluster(t)
	ctx := t.Context()
	b := c.Node("b")
	before, err := b.Client().Put(ctx, "notes", []byte("k"), []byte("1"), client.WriteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	b.Crash()
	if err := c.Node("a").Client().CreateGroup(ctx, client.GroupSpec{Name: "notes", Files: []string{"notes*"}, Preferred: "a"}); err != nil {
		t.Fatal(err)
	}
	b.open() // still cut off
	c.Wait("b serves what it keeps, asked for by name", 60*time.Second, func() error {
		r, err := b.Client().Get(ctx, "notes", []byte("k"), client.ReadOptions{Group: client.LocalGroup, Wait: time.Second})
		if err == nil && (string(r.Value) != "1" || r.Position != before.Position) {
			t.Errorf("it is %q at %s", r.Value, r.Position)
		}
		return err
	})
	for _, file := range []string{"notes", "memos"} {
		_, err := b.Client().Put(ctx, file, []byte("k"), []byte("2"), client.WriteOptions{Wait: time.Second})
		if !errors.Is(err, client.ErrUnavailable) || !strings.Contains(err.Error(), "restarted") {
			t.Errorf("a write of %s, of which the node cannot know whose it is: %v", file, err)
		}
	}
	for _, other := range []ident.NodeID{"a", "c"} {
		c.Cut("b", other, false)
	}
	c.Wait("b knows the group", 60*time.Second, func() error {
		w, err := b.Client().Put(ctx, "notes", []byte("k"), []byte("2"), client.WriteOptions{Wait: time.Second})
		if err == nil && w.Local != "" {
			t.Fatalf("it was local: %+v", w)
		}
		return err
	})
	c.Wait("b keeps other files for itself again", 60*time.Second, func() error {
		w, err := b.Client().Put(ctx, "memos", []byte("k"), []byte("2"), client.WriteOptions{Wait: time.Second})
		if err == nil && w.Local != "b" {
			err = fmt.Errorf("%+v", w)
		}
		return err
	})
	// A position of b's local files decides nothing at c, whatever c has at the same numbers.
	other := c.Node("c").Client()
	mine, err := other.Put(ctx, "memos", []byte("k"), []byte("3"), client.WriteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	forged := strings.Replace(mine.Position, "local/c@", "local/b@", 1)
	if _, err := other.Put(ctx, "memos", []byte("k"), []byte("4"), client.WriteOptions{IfPosition: forged}); !errors.Is(err, client.ErrInvalid) || !strings.Contains(err.Error(), "node b") {
		t.Errorf("a condition with a position of b's at c: %v", err)
	}
	if _, err := other.Put(ctx, "memos", []byte("k"), []byte("4"), client.WriteOptions{IfPosition: mine.Position}); err != nil {
		t.Errorf("a condition with c's own position: %v", err)
	}
	if r, err := other.Receipt(ctx, mine.Position, time.Second); err != nil || r.Outcome != client.OutcomeDone || r.Position != mine.Position {
		t.Errorf("a receipt: %+v, %v", r, err)
	}
	if _, err := other.Receipt(ctx, forged, time.Second); !errors.Is(err, client.ErrInvalid) {
		t.Errorf("a receipt for a position of b's at c: %v", err)
	}
}
