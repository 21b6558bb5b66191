package testcluster

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/understudy-ha/understudy/client"
	"github.com/understudy-ha/understudy/fsm"
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

// Proves HB-2: a group comes to select a file while a node is down that keeps some of it for itself. When that node is back it never takes a
// record of the file as local, from its first answer on, and a position of its local files decides nothing at another node.
func TestLocalFilesAfterARestart(t *testing.T) {
	c := localCluster(t, unhurried())
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
	b.Start()
	c.Wait("b passes the group's records on", 30*time.Second, func() error {
		w, err := b.Client().Put(ctx, "notes", []byte("k"), []byte("2"), client.WriteOptions{Wait: time.Second})
		if err == nil && w.Local != "" {
			t.Fatalf("it was local: %+v", w)
		}
		return err
	})
	if r, err := b.Client().Get(ctx, "notes", []byte("k"), client.ReadOptions{Group: client.LocalGroup}); err != nil || string(r.Value) != "1" || r.Position != before.Position {
		t.Errorf("what b keeps: %+v, %v", r, err)
	}
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
