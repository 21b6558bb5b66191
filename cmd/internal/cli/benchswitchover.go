package cli

import (
	"context"
	"fmt"
	"io"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/understudy-ha/understudy/client"
	"github.com/understudy-ha/understudy/cmd/internal/switchload"
)

// switchTries is how often a switch-over is asked for that never began since Raft's leader changed.
const switchTries = 3

type switchBenchOptions struct {
	rounds, restarts int
	connections      int
	writers          int
	think, warm      time.Duration
	keep             bool
}

func newBenchSwitchover(a *app) *cobra.Command {
	var o switchBenchOptions
	cmd := &cobra.Command{
		Use:   "switchover",
		Short: "Measure switch-overs and rolling restarts under load, on three real processes",
		Long: `Starts three nodes on this machine, loads them with Redis connections and HTTP writers, of which each waits for the answer
to its last write, and moves the primary role round the nodes. Of each switch-over it measures the longest time in which nobody's write was
answered (gap), and the longest time that any one write took (longest). After each round the load rests, every client reads back what it
knows to be there, and all nodes' data is compared. With --restarts every node is stopped (SIGTERM) and started again in turn, under the
same load; clients whose connection a stopping node closes go on at another one.

Needs some 1 GB in the directory for temporary files, which is removed. Exit code 1 when a request failed, or a write was lost or done twice.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.runSwitchBench(cmd.Context(), o) },
	}
	f := cmd.Flags()
	f.IntVar(&o.rounds, "rounds", 100, "switch-overs")
	f.IntVar(&o.restarts, "restarts", 0, "rolling restarts of all nodes, after the switch-overs")
	f.IntVar(&o.connections, "connections", 64, "Redis connections, spread over the nodes")
	f.IntVar(&o.writers, "writers", 16, "HTTP writers, spread over the nodes")
	f.DurationVar(&o.think, "think", 0, "how long each client rests between two writes; 0: as much load as the machine bears")
	f.DurationVar(&o.warm, "warm", 200*time.Millisecond, "how long load runs before each switch-over")
	f.BoolVar(&o.keep, "keep", false, "keep the directory; it is always kept after a failure")
	return cmd
}

// switchRound is one switch-over as clients saw it.
type switchRound struct {
	From   string            `json:"from"`
	To     string            `json:"to"`
	Pause  switchload.Pause  `json:"pause"`
	Before switchload.Pause  `json:"before"` // the same load without a switch-over, directly before
	Held   time.Duration     `json:"held_ns"`
	Steps  []client.Step     `json:"steps"`
	Detail *client.Operation `json:"-"`
	Ready  *client.Readiness `json:"-"`
}

// restartRound is the restart of one node as clients saw it.
type restartRound struct {
	Node  string           `json:"node"`
	Pause switchload.Pause `json:"pause"`
	Down  time.Duration    `json:"down_ns"`  // from the signal to the end of the process
	Level time.Duration    `json:"level_ns"` // from the start until it was level
}

// switchBench is the result.
type switchBench struct {
	Rounds   []switchRound    `json:"rounds"`
	Restarts []restartRound   `json:"restarts,omitempty"`
	Gap      pauseFigures     `json:"gap"`
	Longest  pauseFigures     `json:"longest"`
	Held     pauseFigures     `json:"held"`
	Before   pauseFigures     `json:"before_longest"`
	Quiet    pauseFigures     `json:"before_gap"`
	Tally    switchload.Tally `json:"tally"`
}

// pauseFigures sum pauses up.
type pauseFigures struct {
	P50 time.Duration `json:"p50_ns"`
	P99 time.Duration `json:"p99_ns"`
	Max time.Duration `json:"max_ns"`
}

func figuresOf(all []time.Duration) pauseFigures {
	return pauseFigures{P50: switchload.Quantile(all, 0.5), P99: switchload.Quantile(all, 0.99), Max: switchload.Quantile(all, 1)}
}

func (p pauseFigures) String() string {
	return fmt.Sprintf("p50 %s, p99 %s, max %s", humanDuration(p.P50), humanDuration(p.P99), humanDuration(p.Max))
}

func (a *app) runSwitchBench(ctx context.Context, o switchBenchOptions) error {
	if o.rounds < 0 || o.restarts < 0 || o.rounds+o.restarts == 0 || o.connections < 0 || o.connections > 1000 || o.writers < 0 || o.writers > 1000 || o.connections+o.writers == 0 {
		return usagef("--rounds %d --restarts %d --connections %d --writers %d: see --help", o.rounds, o.restarts, o.connections, o.writers)
	}
	return a.onThreeNodes(ctx, "bench", o.keep, false, func(d *demo) error { return a.benchSwitchovers(ctx, d, o) })
}

func (a *app) benchSwitchovers(ctx context.Context, d *demo, o switchBenchOptions) error {
	b := &switchBencher{app: a, o: o, d: d}
	result, err := b.run(ctx)
	if err != nil {
		return err
	}
	if err := a.show(result, result.write); err != nil {
		return err
	}
	if result.Tally.Wrong() || o.restarts == 0 && result.Tally.Moved > 0 {
		return &exitError{exitFailure, errReported}
	}
	return nil
}

type switchBencher struct {
	app  *app
	o    switchBenchOptions
	d    *demo
	load *switchload.Load
}

func (b *switchBencher) start(moves bool) {
	o := switchload.Options{Redis: b.o.connections, Writers: b.o.writers, Think: b.o.think, Moves: moves}
	for _, n := range b.d.cluster.nodes {
		l := n.config.Listen
		o.Nodes = append(o.Nodes, switchload.Endpoint{Node: n.name, HTTP: l.HTTP, Redis: l.Redis})
	}
	b.load = switchload.New(o)
}

func (b *switchBencher) line(format string, args ...any) {
	if b.app.output != "json" {
		fmt.Fprintf(b.app.out, format+"\n", args...)
	}
}

func (b *switchBencher) run(ctx context.Context) (switchBench, error) {
	var out switchBench
	b.start(b.o.restarts > 0)
	defer func() { b.load.Close() }()
	for i := range b.o.rounds {
		r, err := b.switchOnce(ctx)
		if err != nil {
			return out, fmt.Errorf("round %d: %w; %s", i+1, err, b.load.Tally())
		}
		b.line("%3d  %s  gap %8s  longest %8s  held %8s  (before: %s, %s; %d writes)\n     %s", i+1, fromTo(r.From, r.To), humanDuration(r.Pause.Gap), humanDuration(r.Pause.Longest),
			humanDuration(r.Held), humanDuration(r.Before.Gap), humanDuration(r.Before.Longest), r.Before.Writes, stepsLine(*r.Detail))
		out.Rounds = append(out.Rounds, r)
	}
	for i := range b.o.restarts {
		for _, n := range b.d.cluster.nodes {
			r, err := b.restartOnce(ctx, n)
			if err != nil {
				return out, fmt.Errorf("restart %d of node %s: %w; %s", i+1, n.name, err, b.load.Tally())
			}
			b.line("%3d  restart %s  gap %8s  longest %8s  down after %s, level after %s", i+1, n.name, humanDuration(r.Pause.Gap), humanDuration(r.Pause.Longest), humanDuration(r.Down), humanDuration(r.Level))
			out.Restarts = append(out.Restarts, r)
		}
	}
	var gap, longest, held, before, quiet []time.Duration
	for _, r := range out.Rounds {
		gap, longest, held = append(gap, r.Pause.Gap), append(longest, r.Pause.Longest), append(held, r.Held)
		before, quiet = append(before, r.Before.Longest), append(quiet, r.Before.Gap)
	}
	out.Gap, out.Longest, out.Held, out.Before, out.Quiet = figuresOf(gap), figuresOf(longest), figuresOf(held), figuresOf(before), figuresOf(quiet)
	out.Tally = b.load.Tally()
	return out, nil
}

// switchOnce moves the role to the next node under load, then lets the load rest and compares everything.
func (b *switchBencher) switchOnce(ctx context.Context) (r switchRound, err error) {
	if err := b.d.whole(ctx); err != nil {
		return r, err
	}
	g, err := b.d.group(ctx)
	if err != nil {
		return r, err
	}
	r.From, r.To = g.Primary, b.after(g.Primary)
	b.load.Resume()
	w := b.load.Watch()
	select {
	case <-time.After(b.o.warm):
	case <-ctx.Done():
		return r, context.Cause(ctx)
	}
	if r.Before, err = w.End(ctx); err != nil {
		return r, err
	}
	w = b.load.Watch()
	op, err := switcher{b.d.client, seekSwitch}.run(ctx, demoGroup, client.SwitchoverRequest{To: r.To}, switchLimit)
	for range switchTries - 1 {
		if client.OutcomeOf(err) != client.OutcomeUndecided || ctx.Err() != nil { // else Raft lost what was asked for
			break
		}
		op, err = switcher{b.d.client, seekSwitch}.run(ctx, demoGroup, client.SwitchoverRequest{To: r.To}, switchLimit)
	}
	if err != nil {
		return r, fmt.Errorf("switch over to %s: %w", r.To, err)
	}
	if op.State != client.OperationDone {
		return r, fmt.Errorf("switch-over %d to %s is %s: %s", op.ID, r.To, op.State, op.Error)
	}
	if r.Pause, err = w.End(ctx); err != nil {
		return r, err
	}
	r.Detail, r.Steps = &op, op.Steps
	r.Held, _ = op.Held()
	return r, b.compare(ctx)
}

// after returns the node after the given one.
func (b *switchBencher) after(name string) string {
	nodes := b.d.cluster.nodes
	for i, n := range nodes {
		if n.name == name {
			return nodes[(i+1)%len(nodes)].name
		}
	}
	return nodes[0].name
}

// compare lets the load rest, has the clients read back what they wrote, and compares the data of all nodes.
func (b *switchBencher) compare(ctx context.Context) error {
	b.load.Rest()
	if err := b.load.Check(ctx); err != nil {
		return err
	}
	_, err := compareDigests(ctx, b.d.cluster, demoGroup)
	return err
}

// restartOnce stops a node in good order and starts it again, under load.
func (b *switchBencher) restartOnce(ctx context.Context, n *devNode) (r restartRound, err error) {
	if err := b.d.whole(ctx); err != nil {
		return r, err
	}
	r.Node = n.name
	b.load.Resume()
	w := b.load.Watch()
	began := time.Now()
	n.process.tell(syscall.SIGTERM)
	select {
	case <-n.process.done:
	case <-time.After(stopGrace):
		return r, fmt.Errorf("node %s has not stopped within %s", n.name, stopGrace)
	}
	r.Down = time.Since(began)
	if n.process.err != nil {
		return r, n.ended()
	}
	began = time.Now()
	if err := b.d.cluster.startNode(n); err != nil {
		return r, err
	}
	if _, err := b.d.level(ctx, n); err != nil {
		return r, err
	}
	r.Level = time.Since(began)
	if r.Pause, err = w.End(ctx); err != nil {
		return r, err
	}
	return r, b.compare(ctx)
}

func (s switchBench) write(w io.Writer) {
	if len(s.Rounds) > 0 {
		fmt.Fprintf(w, "%s\n", plural(len(s.Rounds), "planned switch-over", "planned switch-overs"))
		fmt.Fprintf(w, "  nobody was answered for    %s\n    without a switch-over    %s\n", s.Gap, s.Quiet)
		fmt.Fprintf(w, "  longest write              %s\n    without a switch-over    %s\n", s.Longest, s.Before)
		fmt.Fprintf(w, "  writes were held for       %s, by the operations\n", s.Held)
	}
	if len(s.Restarts) > 0 {
		fmt.Fprintf(w, "%s; connections closed between two answers: %d\n", plural(len(s.Restarts), "node restarted", "nodes restarted"), s.Tally.Moved)
	}
	fmt.Fprintf(w, "%s\n", s.Tally)
	for _, e := range s.Tally.Examples {
		fmt.Fprintf(w, "  %s\n", e)
	}
}
