package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/understudy-ha/understudy/client"
)

// Faults that can be measured.
const (
	faultKill   = "kill"   // SIGKILL; the parent says so to the others
	faultLost   = "lost"   // SIGKILL, and nobody says so: as far as the others can tell, the host is gone
	faultFreeze = "freeze" // SIGSTOP, and SIGCONT when another node serves
	faultStop   = "stop"   // SIGTERM
)

const (
	probeEvery = 10 * time.Millisecond // a new write is begun so often, whatever became of those before
	probeLimit = 2000                  // writes under way at once
)

type measureOptions struct {
	fault  string
	leader string
	rounds int
	keep   bool
}

func newMeasure(a *app) *cobra.Command {
	var o measureOptions
	cmd := &cobra.Command{
		Use:    "measure",
		Short:  "Measure failovers of a cluster of real processes: time until the first accepted write",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE:   func(cmd *cobra.Command, _ []string) error { return a.runMeasure(cmd.Context(), o) },
	}
	f := cmd.Flags()
	f.StringVar(&o.fault, "fault", faultKill, "kill (and say so), lost (kill and tell nobody), freeze, stop")
	f.StringVar(&o.leader, "leader", "any", "whether the primary leads Raft: any, same, other")
	f.IntVar(&o.rounds, "rounds", 20, "number of failovers")
	f.BoolVar(&o.keep, "keep", false, "keep the directory; it is always kept after a failure")
	return cmd
}

func (a *app) runMeasure(ctx context.Context, o measureOptions) error {
	if !slices.Contains([]string{faultKill, faultLost, faultFreeze, faultStop}, o.fault) || !slices.Contains([]string{"any", "same", "other"}, o.leader) || o.rounds < 1 {
		return usagef("--fault %s --leader %s --rounds %d: see --help", o.fault, o.leader, o.rounds)
	}
	return a.onThreeNodes(ctx, "measure", o.keep, o.fault != faultKill, func(d *demo) error { return a.measureRounds(ctx, d, o) })
}

func (a *app) measureRounds(ctx context.Context, d *demo, o measureOptions) error {
	sum := measured{Fault: o.fault, Leader: o.leader}
	var all []time.Duration
	for i := range o.rounds {
		m, err := d.measureOnce(ctx, o)
		if err != nil {
			return fmt.Errorf("round %d: %w", i+1, err)
		}
		all = append(all, m.gap)
		sum.Refused += m.Refused
		sum.Unknown += m.Unknown
		m.Round = i + 1
		err = a.showLine(m, func(w io.Writer) {
			fmt.Fprintf(w, "%3d  %s  leader %s  %8s  %4d ok %2d refused %2d unknown  %s\n", m.Round, fromTo(m.From, m.To), m.Leader, humanDuration(m.gap), m.OK, m.Refused, m.Unknown, m.Steps)
		})
		if err != nil {
			return err
		}
	}
	slices.Sort(all)
	at := func(q float64) time.Duration { return all[min(len(all)-1, int(q*float64(len(all))))] }
	sum.Rounds, sum.P50, sum.P90, sum.P99, sum.Worst = len(all), at(0.5).Seconds(), at(0.9).Seconds(), at(0.99).Seconds(), all[len(all)-1].Seconds()
	return a.showLine(sum, func(w io.Writer) {
		fmt.Fprintf(w, "%s, Raft leader %s: %d rounds, first accepted write after p50 %s, p90 %s, p99 %s, worst %s; %d refused, %d unknown\n",
			o.fault, o.leader, sum.Rounds, humanDuration(at(0.5)), humanDuration(at(0.9)), humanDuration(at(0.99)), humanDuration(all[len(all)-1]), sum.Refused, sum.Unknown)
	})
}

// measured sums all rounds up. Times are seconds until the first accepted write.
type measured struct {
	Fault   string  `json:"fault"`
	Leader  string  `json:"leader"`
	Rounds  int     `json:"rounds"`
	P50     float64 `json:"p50_seconds"`
	P90     float64 `json:"p90_seconds"`
	P99     float64 `json:"p99_seconds"`
	Worst   float64 `json:"worst_seconds"`
	Refused int     `json:"refused"`
	Unknown int     `json:"unknown"`
}

// measurement is one round.
type measurement struct {
	Round   int     `json:"round"`
	From    string  `json:"from"`
	To      string  `json:"to"`
	Leader  string  `json:"leader"`
	Gap     float64 `json:"gap_seconds"`
	OK      int     `json:"ok"`
	Refused int     `json:"refused"`
	Unknown int     `json:"unknown"`
	Steps   string  `json:"steps"`

	gap time.Duration // from the fault to the first accepted write that was begun after it
}

func (d *demo) measureOnce(ctx context.Context, o measureOptions) (m measurement, err error) {
	if err := d.whole(ctx); err != nil {
		return m, err
	}
	if err := d.arrange(ctx, o.leader); err != nil {
		return m, err
	}
	st, err := d.client.Status(ctx)
	if err != nil {
		return m, err
	}
	g, _ := st.Group(demoGroup)
	m.From, m.Leader = g.Primary, st.RaftLeader
	before := g.Epoch
	victim := d.cluster.node(g.Primary)
	var others []string
	for _, n := range d.cluster.nodes {
		if n != victim {
			others = append(others, n.config.Listen.HTTP)
		}
	}
	p := startProber(others)
	defer p.stop()
	time.Sleep(time.Duration(300+rand.IntN(700)) * time.Millisecond) // so that faults fall on all phases of renewals and heartbeats
	fault := time.Now()
	switch o.fault {
	case faultFreeze:
		err = victim.process.cmd.Process.Signal(syscall.SIGSTOP)
	case faultStop:
		victim.process.tell(syscall.SIGTERM)
	default:
		err = victim.process.cmd.Process.Kill()
	}
	if err != nil {
		return m, err
	}
	back, err := p.firstAfter(ctx, fault)
	if err != nil {
		return m, err
	}
	m.gap = back.Sub(fault)
	m.Gap = m.gap.Seconds()
	time.Sleep(200 * time.Millisecond)
	if o.fault == faultFreeze {
		if err := victim.process.cmd.Process.Signal(syscall.SIGCONT); err != nil {
			return m, err
		}
	} else {
		<-victim.process.done
	}
	m.OK, m.Refused, m.Unknown = p.stop()
	near := client.New(others...)
	defer near.Close()
	if g, err = near.Group(ctx, demoGroup); err != nil {
		return m, err
	}
	m.To = g.Primary
	if g.Epoch == before {
		return m, errors.New("the epoch is the same: nothing failed over")
	}
	ops, err := near.Operations(ctx)
	if err != nil {
		return m, err
	}
	m.Steps = stepsLine(ops[0])
	if err := d.cluster.startNode(victim); err != nil {
		return m, err
	}
	_, err = d.level(ctx, victim)
	return m, err
}

// stepsLine says how long each step of an operation took.
func stepsLine(o client.Operation) string {
	parts := []string{o.Kind}
	for _, s := range o.Steps {
		parts = append(parts, s.Name+" "+humanDuration(time.Duration(s.Took)))
	}
	return strings.Join(parts, ", ")
}

// whole waits until every node is alive, holds its lease, and one is in sync.
func (d *demo) whole(ctx context.Context) error {
	limit := time.Now().Add(failoverLimit)
	for {
		why := "no status"
		if st, err := d.client.Status(ctx); err == nil {
			why = ""
			for _, n := range st.Nodes {
				if n.State != "alive" || n.Lease != "held" {
					why = fmt.Sprintf("node %s is %s, lease %s", n.ID, n.State, n.Lease)
				}
			}
			if g, ok := st.Group(demoGroup); !ok || len(g.InSync) == 0 || g.Operation != nil || g.Stale || len(g.Targets) < 2 {
				why = "the group is not settled"
			}
			if st.RaftLeader == "" || why == "" && len(st.Nodes) < 3 {
				why = "a node is missing"
			}
		}
		if why == "" {
			return nil
		}
		if time.Now().After(limit) || ctx.Err() != nil {
			return fmt.Errorf("the cluster is not whole: %s", why)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// arrange moves the primary role to, or away from, the node that leads Raft.
func (d *demo) arrange(ctx context.Context, leader string) error {
	for range 5 {
		st, err := d.client.Status(ctx)
		if err != nil {
			return err
		}
		g, _ := st.Group(demoGroup)
		same := g.Primary == st.RaftLeader
		if leader == "any" || same == (leader == "same") {
			return nil
		}
		to := st.RaftLeader
		if same {
			for _, n := range d.cluster.nodes {
				if n.name != st.RaftLeader {
					to = n.name
				}
			}
		}
		if _, err := d.client.Switchover(ctx, demoGroup, client.SwitchoverRequest{To: to}, switchLimit); err != nil {
			return fmt.Errorf("switch over to %s: %w", to, err)
		}
		if err := d.whole(ctx); err != nil {
			return err
		}
	}
	return errors.New("the Raft leader changes all the time")
}

// prober begins a write every probeEvery, through each of some nodes in turn, whatever became of those before: a write that
// hangs does not hide that others are accepted.
type prober struct {
	cancel  context.CancelFunc
	wg      sync.WaitGroup
	clients []*client.Client
	once    sync.Once

	mu                   sync.Mutex
	accepted             []span // in the order of their ends
	ok, refused, unknown int
	changed              chan struct{}
}

type span struct{ begun, ended time.Time }

func startProber(addrs []string) *prober {
	ctx, cancel := context.WithCancel(context.Background())
	p := &prober{cancel: cancel, changed: make(chan struct{})}
	for _, addr := range addrs {
		p.clients = append(p.clients, client.NewWith(client.Options{Addresses: []string{addr}, Retry: -1}))
	}
	var running atomic.Int64
	p.wg.Go(func() {
		tick := time.NewTicker(probeEvery)
		defer tick.Stop()
		for i := 0; ; i++ {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
			if running.Load() >= probeLimit {
				continue
			}
			running.Add(1)
			cl := p.clients[i%len(p.clients)]
			p.wg.Go(func() {
				defer running.Add(-1)
				begun := time.Now()
				write, done := context.WithTimeout(context.Background(), 12*time.Second)
				_, err := cl.Put(write, "probe", fmt.Appendf(nil, "%d", begun.UnixNano()), []byte("probe"), client.WriteOptions{Wait: 10 * time.Second})
				done()
				p.note(span{begun, time.Now()}, err)
			})
		}
	})
	return p
}

func (p *prober) note(s span, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case err == nil:
		p.ok++
		p.accepted = append(p.accepted, s)
		close(p.changed)
		p.changed = make(chan struct{})
	case surelyNotDone(err):
		p.refused++
	default:
		p.unknown++
	}
}

// firstAfter returns when the first write that was begun after t was accepted.
func (p *prober) firstAfter(ctx context.Context, t time.Time) (time.Time, error) {
	limit := time.After(failoverLimit)
	for {
		p.mu.Lock()
		changed := p.changed
		for _, s := range p.accepted {
			if s.begun.After(t) {
				p.mu.Unlock()
				return s.ended, nil
			}
		}
		p.mu.Unlock()
		select {
		case <-changed:
		case <-limit:
			return time.Time{}, fmt.Errorf("no write was accepted for %s", failoverLimit)
		case <-ctx.Done():
			return time.Time{}, ctx.Err()
		}
	}
}

// stop ends the writes and counts them.
func (p *prober) stop() (ok, refused, unknown int) {
	p.once.Do(func() {
		p.cancel()
		p.wg.Wait()
		for _, cl := range p.clients {
			cl.Close()
		}
	})
	return p.ok, p.refused, p.unknown
}
