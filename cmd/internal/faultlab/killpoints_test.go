package faultlab

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/understudy-ha/understudy/client"
	"github.com/understudy-ha/understudy/cmd/internal/oracle"
)

// secondary is the in-sync secondary that a failover would choose.
func (s *story) secondary() *Node {
	s.t.Helper()
	var found *Node
	must(s.t, Await(s.t.Context(), "somebody is in sync", 20*time.Second, func(ctx context.Context) error {
		g, err := s.next().Client.Group(ctx, group)
		if err != nil {
			return err
		}
		if len(g.InSync) == 0 {
			return fmt.Errorf("nobody of %v", g.Targets)
		}
		found = s.Node(g.InSync[0])
		return nil
	}))
	return found
}

// arm restarts a node so that it ends at a point, and waits until it is in sync again.
func (s *story) arm(n *Node, point string, hit int) {
	s.t.Helper()
	n.Kill()
	must(s.t, n.Start(Failpoint(n.Name, point, "exit", hit)))
	must(s.t, Await(s.t.Context(), "the armed node is in sync", 30*time.Second, func(ctx context.Context) error {
		if !n.Running() {
			return fmt.Errorf("node %s ended too early, %s", n.Name, n.current().how())
		}
		g, err := s.primary.Client.Group(ctx, group)
		if err != nil {
			return err
		}
		if len(g.InSync) != 2 { // both others: whichever is chosen, it is an armed one
			return fmt.Errorf("in sync: %v", g.InSync)
		}
		return nil
	}))
}

// diesAt waits until a node has ended at a point.
func (s *story) diesAt(point string, limit time.Duration, nodes ...*Node) *Node {
	s.t.Helper()
	var dead *Node
	must(s.t, Await(s.t.Context(), "a node ends at "+point, limit, func(context.Context) error {
		for _, n := range nodes {
			if !n.Running() {
				dead = n
				return nil
			}
		}
		return fmt.Errorf("none of them")
	}))
	name := strings.ReplaceAll(point, "NODE", dead.Name)
	if !strings.Contains(dead.Log(), "failpoint "+name+": active") {
		s.t.Fatalf("node %s ended (%s), but not at %s", dead.Name, dead.current().how(), name)
	}
	return dead
}

// Proves the row "kill -9 target/new primary" for fence, promise and takeover: the primary dies, and whoever takes over dies at a point
// of the way, once with its promise on disk and told to nobody, once before and once after the switch entry is durable, once at the change of its
// receiver. Another member takes over, or the same one when it is back. Nothing acknowledged is lost.
func TestKillPointsOfAFailover(t *testing.T) {
	for _, point := range []string{"replica.promise:" + group, "replica.takeover:" + group, "replica.open:" + group, "journal.attach:" + group + "/NODE"} {
		t.Run(strings.Split(point, ":")[0], func(t *testing.T) {
			s := tell(t, true, Options{Group: "secondaries: 2"})
			others := []*Node{}
			for _, name := range s.Others(s.primary.Name) {
				n := s.Node(name)
				hit := 1
				if strings.HasPrefix(point, "journal.attach") && len(n.Log()) == 0 {
					hit = 2
				}
				s.arm(n, point, hit)
				others = append(others, n)
			}
			s.primary.Kill()
			first := s.diesAt(point, 30*time.Second, others...)
			must(t, first.Start())
			must(t, s.primary.Start())
			s.goesOn()
			s.end()
		})
	}
}

// Proves S12 and the row "kill -9 old primary" in phase E: what a primary had written alone, and an operator accepted to lose, is
// undone when it comes back, although it is killed again and again in the middle of the undo. All copies are equal afterwards.
func TestKilledDuringUndo(t *testing.T) {
	s := tell(t, true, Options{Group: "images: both"})
	ctx := t.Context()
	old := s.primary
	before := oracle.Select(s.workload.record.Operations(), func(o oracle.Operation) bool { return o.Outcome == oracle.OK && strings.HasPrefix(o.Key, setFile+"/") })
	s.Net.Set(Condition{Hold: true}, Both([]string{old.Name}, s.Others(old.Name), Ship)...)
	must(t, Await(ctx, "the primary is alone", 20*time.Second, func(ctx context.Context) error {
		g, err := old.Client.Group(ctx, group)
		if err == nil && len(g.InSync) > 0 {
			err = fmt.Errorf("in sync: %v", g.InSync)
		}
		return err
	}))
	s.workload.Stop()
	const alone = 12
	for i := range alone {
		if _, err := old.Client.Put(ctx, "alone", fmt.Appendf(nil, "%d", i), []byte("lost"), client.WriteOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	must(t, old.Stop(ctx)) // in good order, so that its store has them on disk
	s.Net.Heal()
	s.loseIt(old)
	for _, hit := range []int{1, alone / 2, alone} {
		must(t, old.Start(Failpoint(old.Name, "replica.undo:"+group, "exit", hit)))
		s.diesAt("replica.undo:"+group, 30*time.Second, old)
	}
	must(t, old.Start())
	final, err := s.Settle(ctx, nil)
	must(t, err)
	reports, err := old.Client.Backouts(ctx, group)
	must(t, err)
	if len(reports) != 1 || reports[0].Undone < alone || reports[0].Lost < alone {
		t.Errorf("back-out reports: %+v", reports)
	}
	if _, err := s.next().Client.Get(ctx, "alone", []byte("0"), client.ReadOptions{}); client.CodeOf(err) != client.CodeNotFound {
		t.Errorf("a write that was given up is there: %v", err)
	}
	there := map[string]bool{}
	for _, e := range final.Set {
		there[e.Key] = true
	}
	for _, o := range before { // of what came later the operator gave up a part
		if !there[o.Key] {
			t.Errorf("%s was acknowledged by two nodes and is lost", o.Key)
		}
	}
}

// loseIt has the operator fail over to a node outside the set, accepting what the forecast says.
func (s *story) loseIt(old *Node) {
	s.t.Helper()
	to := s.Node(s.Others(old.Name)[0])
	var accepted client.LossForecast
	must(s.t, Await(s.t.Context(), "the forced failover is done", 40*time.Second, func(ctx context.Context) error {
		r := client.FailoverRequest{To: to.Name, AllowDataLoss: true}
		f, err := to.Client.ForecastFailover(ctx, group, r)
		if err != nil {
			return err
		}
		accepted = f
		r.Confirm, r.AcceptLossBeyond, r.AcceptLossHighest = group, f.Beyond, f.Highest
		op, err := to.Client.Failover(ctx, group, r, 2*time.Second)
		if err != nil {
			return err
		}
		if op.State != "done" {
			return fmt.Errorf("operation %+v", op)
		}
		return nil
	}))
	s.t.Logf("the operator accepted: %+v", accepted)
}
