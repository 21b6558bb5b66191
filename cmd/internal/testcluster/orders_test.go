package testcluster

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/understudy-ha/understudy/client"
	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
)

// put writes records k1..kn to file "orders" through a node.
func (c *Cluster) put(at ident.NodeID, prefix string, n int) {
	c.t.Helper()
	for i := 1; i <= n; i++ {
		c.record(c.Node(at), "orders", fmt.Sprint(prefix, i), []byte("x"))
	}
}

// record writes a record through a node, again when a busy machine cost the primary its lease: then there may be two entries.
func (c *Cluster) record(through *Node, file, key string, value []byte) {
	c.t.Helper()
	c.Wait(fmt.Sprintf("%s is written through %s", key, through.ID), 40*time.Second, func() error {
		_, err := through.client.Put(c.t.Context(), file, []byte(key), value, client.WriteOptions{Wait: 10 * time.Second})
		return err
	})
}

// until waits until a node's view of the group meets the condition, and returns it.
func (c *Cluster) until(at ident.NodeID, what string, meets func(client.GroupStatus) bool) (g client.GroupStatus) {
	c.t.Helper()
	c.Wait(what, 30*time.Second, func() (err error) {
		ctx, cancel := context.WithTimeout(c.t.Context(), 2*time.Second)
		defer cancel()
		if g, err = c.Node(at).Client().Group(ctx, "default"); err == nil && !meets(g) {
			err = fmt.Errorf("primary %q, %s at epoch %d, in sync %v, operation %+v", g.Primary, g.Phase, g.Epoch, g.InSync, g.Operation)
		}
		return err
	})
	return g
}

func servedBy(id string) func(client.GroupStatus) bool {
	return func(g client.GroupStatus) bool {
		return g.Primary == id && g.Phase == "opened" && !g.Stale && g.Operation == nil
	}
}

// leaseOver waits until every other node, the Raft leader too, counts the lease of a dead one as over.
func (c *Cluster) leaseOver(of ident.NodeID) {
	c.t.Helper()
	c.Wait("the lease of "+string(of)+" is over for everybody", 20*time.Second, func() error {
		for _, id := range c.options.Nodes {
			if n := c.Node(id); n.running != nil {
				st, err := n.Client().LocalStatus(c.t.Context())
				if err != nil {
					return err
				}
				if st.RaftLeader == "" || st.RaftLeader == string(of) {
					return errors.New("no new Raft leader yet")
				}
				for _, x := range st.Nodes {
					if x.ID == string(of) && x.Lease == "held" {
						return fmt.Errorf("%s counts it as held", id)
					}
				}
			}
		}
		return nil
	})
}

func (c *Cluster) certificate(at ident.NodeID) client.Certificate {
	c.t.Helper()
	all, err := c.Node(at).Client().History(c.t.Context(), "default")
	if err != nil || len(all) == 0 {
		c.t.Fatalf("history: %v %v", all, err)
	}
	return all[len(all)-1]
}

// says waits until the kinds of a node's events match: an event log tells a moment later what a status shows.
func (c *Cluster) says(at ident.NodeID, pattern string) {
	c.t.Helper()
	wanted := regexp.MustCompile(pattern)
	c.Wait(fmt.Sprintf("the events of %s are %s", at, pattern), 20*time.Second, func() error {
		all, err := c.Node(at).Client().Events(c.t.Context(), 0, 0)
		if err != nil {
			return err
		}
		var kinds []string
		for _, e := range all {
			kinds = append(kinds, e.Kind)
		}
		if got := strings.Join(kinds, " "); !wanted.MatchString(got) {
			return errors.New(got)
		}
		return nil
	})
}

// TestPause: during a pause a dead primary has no successor, but the restarted one takes its role up; the end of the pause,
// by command or by itself, lets the failover begin. Proves CL-3.
func TestPause(t *testing.T) {
	c := Start(t, Options{Group: fsm.GroupSpec{Preferred: "a"}})
	ctx := t.Context()
	c.put("a", "k", 3)
	if _, err := c.Node("b").Client().Pause(ctx, client.OrderRequest{Reason: "new switches", By: "ann"}); err != nil {
		t.Fatal(err)
	}
	before := c.until("b", "the group is open", servedBy("a"))

	c.Node("a").Crash()
	c.leaseOver("a")
	st, err := c.Node("c").Client().Status(ctx)
	if err != nil || st.Pause == nil || st.Pause.Reason != "new switches" || st.Pause.By != "ann" {
		t.Fatalf("status: %+v %v", st.Pause, err)
	}
	if h, err := c.Node("c").Client().Health(ctx, "health", "", ""); err != nil || len(h.Warnings) != 1 {
		t.Fatalf("health: %+v %v", h, err)
	}
	c.Node("a").Start()
	after := c.until("b", "the restarted primary serves again", func(g client.GroupStatus) bool { return servedBy("a")(g) && g.Epoch > before.Epoch })
	if cert := c.certificate("b"); cert.To != "a" || cert.Epoch != after.Epoch || cert.Epoch != before.Epoch+1 || cert.Loss != "none" {
		t.Fatalf("certificate %+v", cert)
	}
	c.Wait("all are in sync again", 20*time.Second, c.settled)

	// Nor does a node that is stopped hand its role over: it waits for the node.
	if moved := c.Node("a").retire(); moved != 0 {
		t.Fatalf("a handed %d roles over during a pause", moved)
	}
	c.Node("a").Start()
	c.until("b", "the stopped primary serves again", func(g client.GroupStatus) bool { return servedBy("a")(g) && g.Epoch > after.Epoch })
	c.Wait("all are in sync again", 20*time.Second, c.settled)

	// Operators work on.
	op, err := c.Node("c").Client().Switchover(ctx, "default", client.SwitchoverRequest{To: "b"}, 20*time.Second)
	if err != nil || op.State != client.OperationDone {
		t.Fatalf("switch-over during a pause: %+v %v", op, err)
	}
	c.until("b", "b serves", servedBy("b"))
	c.Wait("all are in sync again", 20*time.Second, c.settled)
	c.Node("b").Crash()
	c.leaseOver("b")
	resumed := time.Now()
	if p, err := c.Node("a").Client().Resume(ctx); err != nil || p.Pause != nil {
		t.Fatalf("resume: %+v %v", p, err)
	}
	c.until("a", "somebody takes over", func(g client.GroupStatus) bool { return g.Primary != "b" && servedBy(g.Primary)(g) })
	if cert := c.certificate("a"); cert.Kind != "failover" || cert.From != "b" || cert.At.Before(resumed) {
		t.Fatalf("the failover did not wait for the end of the pause (%s): %+v", resumed, cert)
	}
	c.says("a", `\bRESUMED\b`)
	if p, err := c.Node("a").Client().Resume(ctx); err != nil || p.Pause != nil {
		t.Fatalf("resumed twice: %+v %v", p, err)
	}
}

// TestPauseKeepsTheSet: while paused nobody new is taken into the in-sync set; at the end of the pause a standby is.
func TestPauseKeepsTheSet(t *testing.T) {
	c := Start(t, Options{Group: fsm.GroupSpec{Preferred: "a"}})
	ctx := t.Context()
	c.put("a", "k", 3)
	before := c.until("a", "a has its shadow", func(g client.GroupStatus) bool { return servedBy("a")(g) && len(g.InSync) == 1 })
	shadow, spare := before.InSync[0], "b"
	if shadow == "b" {
		spare = "c"
	}
	if _, err := c.Node("a").Client().Pause(ctx, client.OrderRequest{Reason: "new switches"}); err != nil {
		t.Fatal(err)
	}
	c.Node(ident.NodeID(shadow)).Stop()
	c.until("a", "a is alone", func(g client.GroupStatus) bool { return len(g.InSync) == 0 })
	// A standby that is level is proposed as soon as it has acknowledged something new: it does so many times.
	for i := range 20 {
		c.put("a", fmt.Sprintf("alone%d-", i), 3)
		g := c.until("a", "the standby is level", func(g client.GroupStatus) bool {
			return servedBy("a")(g) && slices.ContainsFunc(g.Targets, func(t client.Target) bool { return t.Node == spare && t.Durable >= g.Sequence })
		})
		if len(g.InSync) != 0 {
			t.Fatalf("the set is %v during a pause, it was [%s]", g.InSync, shadow)
		}
	}
	if _, err := c.Node("a").Client().Resume(ctx); err != nil {
		t.Fatal(err)
	}
	c.until("a", "the standby replaces the shadow", func(g client.GroupStatus) bool { return slices.Equal(g.InSync, []string{spare}) })
}

// TestPauseEndsByItself: nobody has to remember a pause that has an end, and it outlives the Raft leader. Proves CL-3.
func TestPauseEndsByItself(t *testing.T) {
	c := Start(t, Options{Group: fsm.GroupSpec{Preferred: "a"}})
	c.put("a", "k", 3)
	p, err := c.Node("b").Client().Pause(t.Context(), client.OrderRequest{Reason: "new switches", For: client.Duration(6 * time.Second)})
	if err != nil || p.Pause == nil || p.Pause.Until.IsZero() {
		t.Fatalf("%+v %v", p, err)
	}
	c.Node("a").Crash() // it leads Raft, too
	c.until("b", "somebody takes over", func(g client.GroupStatus) bool { return g.Primary != "a" && servedBy(g.Primary)(g) })
	if cert := c.certificate("b"); cert.At.Before(p.Pause.Until) {
		t.Fatalf("the failover began before the end of the pause, %s: %+v", p.Pause.Until, cert)
	}
	c.says("c", `\bPAUSED\b.*\bRESUMED\b`)
}

// TestMaintenance: a node in maintenance keeps its role, is replaced as shadow before it is stopped, and is passed over by a
// failover. Proves CL-3, TR-1.
func TestMaintenance(t *testing.T) {
	c := Start(t, Options{Group: fsm.GroupSpec{Preferred: "a"}})
	ctx := t.Context()
	c.put("a", "k", 3)
	var unknown *client.Error
	if _, err := c.Node("a").Client().Maintain(ctx, "x", client.OrderRequest{Reason: "disk"}); !errors.As(err, &unknown) || unknown.Code != client.CodeUnknownNode {
		t.Fatalf("an unknown node: %v", err)
	}
	g := c.until("c", "the group is open", servedBy("a"))
	shadow, spare := ident.NodeID(g.InSync[0]), ident.NodeID("c")
	if shadow == "c" {
		spare = "b"
	}
	m, err := c.Node(spare).Client().Maintain(ctx, "a", client.OrderRequest{Reason: "disk", By: "ann"})
	if err != nil || len(m.Primary) != 1 || !strings.Contains(m.Note, "Hand the role over") {
		t.Fatalf("the primary: %+v %v", m, err)
	}
	if why, err := c.Node("a").Client().Why(ctx, "default", ""); err != nil || len(why.Notes) == 0 || !strings.Contains(why.Notes[0], "a, the primary, is in maintenance (disk, by ann)") {
		t.Fatalf("why: %+v %v", why.Notes, err)
	}
	if after := c.until("a", "a goes on", servedBy("a")); after.Epoch != g.Epoch {
		t.Fatalf("maintenance moved the role: %+v", after)
	}
	if m, err = c.Node("a").Client().EndMaintenance(ctx, "a"); err != nil || m.Maintenance != nil {
		t.Fatalf("%+v %v", m, err)
	}

	if m, err = c.Node("a").Client().Maintain(ctx, string(shadow), client.OrderRequest{Reason: "disk"}); err != nil || m.Maintenance == nil {
		t.Fatalf("%+v %v", m, err)
	}
	c.until("a", "the spare takes the shadow's place", func(g client.GroupStatus) bool { return strings.Contains(strings.Join(g.InSync, " "), string(spare)) })
	c.put("a", "l", 3)
	var refused *client.Error
	if _, err := c.Node("a").Client().Switchover(ctx, "default", client.SwitchoverRequest{To: string(shadow)}, time.Second); !errors.As(err, &refused) || refused.Code != client.CodePrecondition {
		t.Fatalf("a switch-over to a node in maintenance: %v", err)
	}
	c.Node("a").Crash()
	c.until(spare, "the spare takes over, not the node in maintenance", func(g client.GroupStatus) bool { return g.Primary != "a" && servedBy(g.Primary)(g) })
	if cert := c.certificate(spare); cert.To != string(spare) || cert.Loss != "none" {
		t.Fatalf("certificate %+v", cert)
	}
	c.says(spare, `MAINTENANCE_OVER .*\bMAINTENANCE\b`) // copies tell theirs in between
	// Alone, the new primary takes the node in maintenance as its shadow: nobody else is there.
	c.until(spare, "the node in maintenance is its shadow", func(g client.GroupStatus) bool { return len(g.InSync) == 1 && g.InSync[0] == string(shadow) })
}

// TestForecastOfLoss: what a failover may lose is named before, nothing more than that is lost, and the certificate and the
// back-out report keep it. Proves BX-4, BX-3.
func TestForecastOfLoss(t *testing.T) {
	c := Start(t, Options{Group: fsm.GroupSpec{Preferred: "a", Delivery: fsm.DeliveryAsync}})
	ctx := t.Context()
	c.put("a", "k", 5)
	c.Wait("all are level", 20*time.Second, c.settled)
	c.Cut("a", "c", true)
	c.put("a", "risk", 3)
	cl := c.Node("b").Client() // somebody who is asked from outside
	ask := client.FailoverRequest{To: "c", AllowDataLoss: true}
	f, err := cl.ForecastFailover(ctx, "default", ask)
	if err != nil {
		t.Fatal(err)
	}
	if f.Entries != 3 || f.Exact || f.Warning == "" || len(f.First) != 3 || f.First[0].File != "orders" || string(f.First[0].Key.Bytes()) != "risk1" || f.First[0].Position == "" {
		t.Fatalf("forecast %+v", f)
	}
	if g := c.until("b", "nothing has changed", servedBy("a")); g.Epoch != f.Epoch {
		t.Fatalf("the forecast changed something: %+v", g)
	}

	// More is written: what was shown is not what would be lost.
	c.put("a", "more", 2)
	ask.Confirm, ask.AcceptLossBeyond, ask.AcceptLossHighest, ask.By = "default", f.Beyond, f.Highest, "ann"
	var refused *client.Error
	if _, err = cl.Failover(ctx, "default", ask, time.Second); !errors.As(err, &refused) || refused.Code != client.CodePrecondition || refused.Forecast == nil || refused.Forecast.Entries != 5 {
		t.Fatalf("more would be lost: %v, %+v", err, refused)
	}
	if g := c.until("b", "nothing has changed", servedBy("a")); g.Epoch != f.Epoch {
		t.Fatalf("a refused failover changed something: %+v", g)
	}
	ask.AcceptLossHighest, ask.AcceptEpoch = "", f.Epoch+1
	if _, err = cl.Failover(ctx, "default", ask, time.Second); !errors.As(err, &refused) || refused.Code != client.CodePrecondition || refused.Forecast == nil || refused.Forecast.Epoch != f.Epoch {
		t.Fatalf("the forecast was of another epoch: %v, %+v", err, refused)
	}
	ask.AcceptLossBeyond, ask.AcceptEpoch = "1.9999", 0
	if _, err = cl.Failover(ctx, "default", ask, time.Second); !errors.As(err, &refused) || refused.Code != client.CodePrecondition || refused.Forecast == nil {
		t.Fatalf("the target ends below what was accepted: %v", err)
	}

	c.Wait("a's lease tells what it holds", 10*time.Second, func() error {
		if st, _ := c.Node("b").running.State(); st.Nodes["a"].Copies["default"]["a"] == 0 {
			return errors.New("not yet")
		}
		return nil
	})
	// The primary dies, and nobody may follow it by itself. b holds everything it shipped, c does not.
	c.Node("a").Crash()
	c.leaseOver("a")
	c.Wait("c is heard again", 20*time.Second, func() error {
		f, err = cl.ForecastFailover(ctx, "default", client.FailoverRequest{To: "c", AllowDataLoss: true})
		if err == nil && (f.Entries < 5 || f.Primary != "" || f.Warning != "" || f.Exact) {
			err = fmt.Errorf("forecast %+v", f)
		}
		return err
	})
	for _, n := range f.Nodes {
		if n.Node == "a" && (n.Answered || !strings.Contains(n.Told, "default/a up to ")) || n.Node == "b" && n.Beyond != 5 {
			t.Errorf("forecast of %+v", n)
		}
	}
	ask.AcceptLossBeyond, ask.AcceptLossHighest = f.Beyond, f.Highest
	op, err := cl.Failover(ctx, "default", ask, 20*time.Second)
	if err != nil || op.State != client.OperationDone || op.To != "c" {
		t.Fatalf("failover: %+v %v", op, err)
	}
	cert := c.certificate("b")
	if a := cert.Accepted; a == nil || a.Beyond != ask.AcceptLossBeyond || a.Highest != ask.AcceptLossHighest || a.Entries != f.Entries || a.By != "ann" {
		t.Fatalf("accepted: %+v", cert.Accepted)
	}
	if len(cert.PassedOver) != 2 || cert.PassedOver[0].Node != "b" || cert.PassedOver[1].Node != "a" || cert.Loss == "none" || cert.Reason != "operator" || cert.Started.IsZero() || cert.Opened.Before(cert.At) {
		t.Fatalf("certificate %+v", cert)
	}
	c.Node("a").Start()
	c.Wait("a lists what it undid", 30*time.Second, func() error {
		reports, err := c.Node("a").Client().Backouts(ctx, "default")
		if err == nil && (len(reports) != 1 || reports[0].Lost < 5) {
			err = fmt.Errorf("%+v", reports)
		}
		return err
	})
}

// TestSwitchback: the role returns to the preferred node by itself once it is well again. Proves CL-5.
func TestSwitchback(t *testing.T) {
	c := Start(t, Options{Group: fsm.GroupSpec{Preferred: "a", Switchback: fsm.SwitchbackAuto, SwitchbackAfter: time.Second}})
	c.put("a", "k", 3)
	c.Node("a").Crash()
	g := c.until("b", "another takes over", func(g client.GroupStatus) bool { return g.Primary != "a" && servedBy(g.Primary)(g) })
	other := ident.NodeID(g.Primary)
	c.put(other, "l", 3)
	c.Node("a").Start() // a standby at first: another has taken its place in the set
	c.until("a", "the role is back", servedBy("a"))
	if cert := c.certificate("a"); cert.Kind != "switchover" || cert.To != "a" || cert.Reason != "switch-back to the preferred node" {
		t.Fatalf("certificate %+v", cert)
	}
	c.put("a", "m", 3)
}

// TestWitness: two nodes with data and one that only votes go on without either of the two. Proves CL-3, CL-4, CL-7.
func TestWitness(t *testing.T) {
	c := Start(t, Options{Nodes: []ident.NodeID{"a", "b", "w"}, Witnesses: []ident.NodeID{"w"}, Group: fsm.GroupSpec{Preferred: "a"}})
	ctx := t.Context()
	c.put("w", "k", 5) // it passes writes on
	g := c.until("w", "the group is open", servedBy("a"))
	if g.Roles["w"] != client.RoleWitness || len(g.Targets) != 1 || strings.Join(g.InSync, " ") != "b" || g.Local.Role != client.RoleWitness {
		t.Fatalf("status at the witness: %+v", g)
	}
	for path, want := range map[string]int{"/primary": 503, "/secondary": 503, "/standby": 503, "/replica": 503, "/health": 200, "/readyz": 200, "/livez": 200} {
		resp, err := http.Get("http://" + c.Node("w").running.HTTP() + path)
		if err != nil {
			t.Fatal(err)
		}
		if resp.Body.Close(); resp.StatusCode != want {
			t.Errorf("%s at the witness: %d, want %d", path, resp.StatusCode, want)
		}
	}
	if why, err := c.Node("a").Client().Why(ctx, "default", "w"); err != nil || why.Ready {
		t.Fatalf("a switch-over to the witness: %+v %v", why, err)
	}
	var refused *client.Error
	if _, err := c.Node("a").Client().Failover(ctx, "default", client.FailoverRequest{To: "w"}, time.Second); !errors.As(err, &refused) || refused.Code != client.CodeUnknownNode {
		t.Fatalf("a failover to the witness: %v", err)
	}
	if _, err := c.Node("a").Client().ForecastFailover(ctx, "default", client.FailoverRequest{To: "w", AllowDataLoss: true}); !errors.As(err, &refused) || refused.Code != client.CodeUnknownNode {
		t.Fatalf("a forecast of it: %v", err)
	}

	c.Node("a").Crash()
	c.until("w", "b takes over", servedBy("b"))
	if cert := c.certificate("w"); cert.To != "b" || cert.Loss != "none" || strings.Join(cert.InSync, " ") != "a b" {
		t.Fatalf("certificate %+v", cert)
	}
	c.put("w", "l", 5)
	c.Node("w").Stop() // b alone is no majority: it loses its lease
	c.Wait("b does not serve without a majority", 20*time.Second, func() error {
		h, err := c.Node("b").Client().Health(ctx, "primary", "", "")
		if err == nil && h.Holds {
			err = errors.New("it does")
		}
		return err
	})
	c.Node("w").Start()
	c.until("w", "b serves again", servedBy("b"))
	c.put("w", "m", 5)
	c.Node("a").Start()
	c.until("w", "a is in sync again", func(g client.GroupStatus) bool { return strings.Join(g.InSync, " ") == "a" })
	c.Node("b").Crash()
	c.until("w", "a takes over", servedBy("a"))
	for _, key := range []string{"k1", "l5", "m5"} {
		if r, err := c.Node("w").Client().Get(ctx, "orders", []byte(key), client.ReadOptions{}); err != nil || string(r.Value) != "x" {
			t.Errorf("%s: %+v %v", key, r, err)
		}
	}
}
