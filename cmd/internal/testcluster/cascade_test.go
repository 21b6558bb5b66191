package testcluster

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/understudy-ha/understudy/client"
	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
)

// fedBy waits until everybody sees a node fed by another one.
func (c *Cluster) fedBy(target, feeder ident.NodeID) {
	c.t.Helper()
	c.Wait(fmt.Sprintf("%s feeds %s", feeder, target), 30*time.Second, func() error {
		st, err := c.Node(target).Client().Status(c.t.Context())
		if err != nil {
			return err
		}
		g, _ := st.Group("default")
		want := string(feeder)
		if g.Local.FedBy != want {
			return fmt.Errorf("%s says that %q feeds it", target, g.Local.FedBy)
		}
		if want == g.Primary {
			want = ""
		}
		for _, x := range g.Targets {
			if x.Node == string(target) && x.FedBy == want && (x.State == "fed") == (want != "") {
				return nil
			}
		}
		return fmt.Errorf("the primary %s says %+v", g.Primary, g.Targets)
	})
}

// switchTo hands the role over and waits until c knows.
func (c *Cluster) switchTo(to ident.NodeID) {
	c.t.Helper()
	c.handTo(to)
	c.until("c", string(to)+" serves", servedBy(string(to)))
}

// TestCascade: c is fed by the backup b, which the group is told while it runs; by the primary while b is dead; and by the primary
// when the role is to go to c. Writes go on, none that was acknowledged is lost, and all copies end equal. Proves RJ-3, I3, I9.
func TestCascade(t *testing.T) {
	c := Start(t, Options{Group: fsm.GroupSpec{Preferred: "a"}})
	w := c.stream("a", "k")
	w.more(20)
	var refused *client.Error
	for _, wrong := range []map[string]string{{"c": "c"}, {"c": "b", "b": "c"}, {"c": "x"}} {
		if _, err := c.Node("b").Client().ChangeGroup(t.Context(), "default", client.GroupPatch{"feeds": wrong}); !errors.As(err, &refused) {
			t.Fatalf("feeds %v: %v", wrong, err)
		}
	}
	change := c.change("b", client.GroupPatch{"feeds": map[string]string{"c": "b"}})
	if change.Spec.Feeds["c"] != "b" || len(change.Changed) != 1 {
		t.Fatalf("%+v", change)
	}
	c.fedBy("c", "b")
	fromA, fromB := c.Shipped("a", "c"), c.Shipped("b", "c")
	for i := range 20 {
		c.record(c.Node("a"), "orders", fmt.Sprint("big", i), bytes.Repeat([]byte{byte(i)}, 32<<10))
	}
	w.more(50)
	c.Wait("c has what b fed", 20*time.Second, func() error {
		_, err := c.Node("c").Client().Get(t.Context(), "orders", []byte("big19"), client.ReadOptions{Local: true})
		return err
	})
	fromA, fromB = c.Shipped("a", "c")-fromA, c.Shipped("b", "c")-fromB
	if fromB < 20*32<<10 || fromA > 32<<10 { // the primary only asks, once a second and journal
		t.Fatalf("%d bytes from a to c, %d from b to c", fromA, fromB)
	}
	t.Logf("%d bytes from a to c, %d from b to c", fromA, fromB)
	st, err := c.Node("b").Client().LocalStatus(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if g, _ := st.Group("default"); len(g.Local.Feeds) != 1 || g.Local.Feeds[0].Node != "c" {
		t.Fatalf("b tells of its feeds: %+v", g.Local.Feeds)
	}

	c.Node("b").Crash()
	c.fedBy("c", "a")
	c.until("a", "c is what is left", func(g client.GroupStatus) bool { return len(g.InSync) == 1 && g.InSync[0] == "c" })
	w.more(20)
	c.Node("b").Start()
	c.until("a", "c leaves the set for b", func(g client.GroupStatus) bool { return len(g.InSync) == 1 && g.InSync[0] == "b" })
	c.fedBy("c", "b")
	w.more(20)
	c.switchTo("b")
	c.fedBy("c", "b")
	w.more(20)
	c.switchTo("a")
	c.fedBy("c", "b")
	c.switchTo("c")
	w.more(20)
	w.end()
	w.check("c")
	c.equalDigests()
}
