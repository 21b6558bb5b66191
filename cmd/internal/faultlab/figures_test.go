package faultlab

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/understudy-ha/understudy/client"
)

var (
	roundsFlag = flag.Int("faultlab.rounds", 0, "rounds of each kind in TestFailoverFigures; 0 leaves it out")
	kindFlag   = flag.String("faultlab.kind", "", "only kinds of failovers whose name contains this")
)

// failover is one way in which a primary goes.
type failover struct {
	name      string
	supervise bool
	leads     bool // the primary leads Raft as well; otherwise another node does
	fault     func(l *Lab, p *Node) error
	p50, p99  time.Duration // what is wanted
}

func failovers() []failover {
	kill := func(_ *Lab, p *Node) error { p.Kill(); return nil }
	cut := func(l *Lab, p *Node) error {
		l.Net.Set(Condition{Hold: true}, Both([]string{p.Name}, l.Others(p.Name))...)
		return nil
	}
	stop := func(_ *Lab, p *Node) error { return p.Pause() }
	crash := func(_ *Lab, p *Node) error { return p.Crash() }
	const soon, late, quick, second = 2500 * time.Millisecond, 4 * time.Second, 300 * time.Millisecond, time.Second
	return []failover{
		{"process death with crash release", true, false, crash, quick, second},
		{"process death with crash release, Raft leader too", true, true, crash, quick, second},
		{"SIGKILL without parent", false, false, kill, soon, late},
		{"SIGKILL without parent, Raft leader too", false, true, kill, soon, late},
		{"network cut", false, false, cut, soon, late},
		{"network cut, Raft leader too", false, true, cut, soon, late},
		{"SIGSTOP", false, false, stop, soon, late},
		{"SIGSTOP, Raft leader too", false, true, stop, soon, late},
	}
}

// TestFailoverFigures measures, for each way in which a primary goes, the time from the fault to the first write that is accepted
// again, by writers that ask the other nodes without a break. It prints p50 and p99 and fails when they are beyond what is wanted.
func TestFailoverFigures(t *testing.T) {
	if *roundsFlag == 0 {
		t.Skip("run with -faultlab.rounds=20")
	}
	for _, f := range failovers() {
		if !strings.Contains(f.name, *kindFlag) {
			continue
		}
		t.Run(f.name, func(t *testing.T) {
			l := start(t, Options{Supervise: f.supervise})
			var took []time.Duration
			for round := range *roundsFlag {
				d, err := f.measure(t.Context(), l)
				if err != nil {
					t.Fatalf("round %d: %v", round, err)
				}
				took = append(took, d)
				l.Net.Heal()
				must(t, l.Heal())
				must(t, l.AwaitSync(t.Context()))
			}
			slices.Sort(took)
			p50, p99 := quantile(took, 0.5), quantile(took, 0.99)
			fmt.Printf("faultlab: %-52s p50 %5.2fs  p99 %5.2fs  least %5.2fs  most %5.2fs  (%d rounds; wanted p50 %s, p99 %s)\n",
				f.name, p50.Seconds(), p99.Seconds(), took[0].Seconds(), took[len(took)-1].Seconds(), len(took), f.p50, f.p99)
			if p50 > f.p50 || p99 > f.p99 {
				t.Errorf("p50 %s, p99 %s: wanted %s and %s; all: %v", p50, p99, f.p50, f.p99, took)
			}
		})
	}
}

// quantile takes the smallest value that at least q of the sorted values do not exceed.
func quantile(sorted []time.Duration, q float64) time.Duration {
	i := int(q*float64(len(sorted))+0.999999) - 1
	return sorted[max(0, min(i, len(sorted)-1))]
}

// askEvery is how often a new writer comes to each of the other nodes. Those who came before the failover may wait for a primary that
// is gone until their own time is over; whoever comes afterwards must be served.
const askEvery = 25 * time.Millisecond

// measure brings the roles where they are wanted, writes, lets the fault happen and returns when a write was accepted that was sent
// after it.
func (f failover) measure(ctx context.Context, l *Lab) (time.Duration, error) {
	p, err := f.arrange(ctx, l)
	if err != nil {
		return 0, err
	}
	ask, stop := context.WithCancel(ctx)
	var writing sync.WaitGroup
	defer writing.Wait()
	defer stop()
	var mu sync.Mutex
	var fault time.Time // zero: not yet
	before := 0
	again := make(chan time.Time, 1)
	write := func(n *Node, key string) {
		sent := time.Now()
		_, err := n.Client.Put(ask, "figures", []byte(key), []byte("x"), client.WriteOptions{Wait: 5 * time.Second})
		mu.Lock()
		defer mu.Unlock()
		switch {
		case err != nil:
		case fault.IsZero():
			before++
		case sent.After(fault):
			select {
			case again <- time.Now():
			default:
			}
		}
	}
	for _, name := range l.Others(p.Name) {
		n := l.Node(name)
		writing.Go(func() {
			for j := 0; sleep(ask, askEvery); j++ {
				writing.Go(func() { write(n, fmt.Sprintf("%s.%d", n.Name, j%100)) })
			}
		})
	}
	err = Await(ctx, "writes are accepted", 10*time.Second, func(context.Context) error {
		mu.Lock()
		defer mu.Unlock()
		if before < 20 {
			return fmt.Errorf("%d were", before)
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	began := time.Now() // counts, but only writes that were sent when the fault was there
	if err := f.fault(l, p); err != nil {
		return 0, err
	}
	mu.Lock()
	fault = time.Now()
	mu.Unlock()
	select {
	case at := <-again:
		return at.Sub(began), nil
	case <-time.After(30 * time.Second):
		return 0, errors.New("no write was accepted within 30 s")
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// arrange moves the primary role until it is with, or not with, the Raft leader, and waits until a whole lease was renewed.
func (f failover) arrange(ctx context.Context, l *Lab) (*Node, error) {
	var found *Node
	err := Await(ctx, "the roles are where they are wanted", 60*time.Second, func(ctx context.Context) error {
		p, err := l.Primary(ctx, time.Second)
		if err != nil {
			return err
		}
		leader := l.Leader(ctx)
		if leader == nil {
			return errors.New("nobody leads Raft")
		}
		if (leader == p) == f.leads {
			found = p
			return l.inSync(ctx)
		}
		to := leader.Name
		if !f.leads {
			to = l.Others(leader.Name)[0]
		}
		_, err = p.Client.Switchover(ctx, group, client.SwitchoverRequest{To: to}, time.Second)
		return errors.Join(fmt.Errorf("primary %s, Raft leader %s", p.Name, leader.Name), err)
	})
	if err != nil {
		return nil, err
	}
	if !sleep(ctx, time.Second) { // the renewals of a new primary fall into step
		return nil, ctx.Err()
	}
	return found, nil
}
