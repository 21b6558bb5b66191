package faultlab

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/understudy-ha/understudy/client"
)

// Fault is one thing that goes wrong, for a while. Which node it meets is decided when it begins, by the roles at that moment.
type Fault struct {
	Name     string
	Min, Max time.Duration // how long it lasts
	begin    func(ctx context.Context, s *scene) (end func() error, err error)
}

// scene is what a fault finds when it begins.
type scene struct {
	*Lab
	rand *rand.Rand
	pick []string // primary, then a member of the set or another data node, then who is left
}

// What keeps a fault from being one.
var (
	errNoTarget  = errors.New("no node to do it to")
	errUntouched = errors.New("nothing met the condition")
)

// look finds out the roles now.
func (l *Lab) look(ctx context.Context, r *rand.Rand) *scene {
	s := &scene{Lab: l, rand: r}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	order := l.Names()
	r.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
	slices.SortStableFunc(order, func(a, b string) int { return l.rank(ctx, a) - l.rank(ctx, b) })
	s.pick = order
	return s
}

// rank is 0 for the primary, 1 for other data nodes that answer, 2 for the witness, 3 for who does not answer.
func (l *Lab) rank(ctx context.Context, name string) int {
	n := l.nodes[name]
	if !n.Answers() {
		return 3
	}
	g, err := n.local(ctx)
	switch {
	case err == nil && g.Local.Serving:
		return 0
	case name == l.options.Witness:
		return 2
	}
	return 1
}

// leaderOr is the Raft leader, or the given node when none is known.
func (s *scene) leaderOr(ctx context.Context, name string) string {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if n := s.Leader(ctx); n != nil {
		return n.Name
	}
	return name
}

// kill ends nodes; they come back with the end of the fault.
func (s *scene) kill(names ...string) (func() error, error) {
	met := 0
	for _, name := range names {
		if s.nodes[name].Running() {
			met++
		}
		s.nodes[name].Kill()
	}
	if met == 0 {
		return nil, errNoTarget
	}
	return func() error {
		var errs []error
		for _, name := range names {
			errs = append(errs, s.nodes[name].Start())
		}
		return errors.Join(errs...)
	}, nil
}

func (s *scene) pause(name string) (func() error, error) {
	n := s.nodes[name]
	if !n.Answers() {
		return nil, errNoTarget
	}
	p := n.current()
	if err := p.pause(); err != nil {
		return nil, err
	}
	return func() error {
		if p.running() {
			return p.resume()
		}
		return nil
	}, nil
}

// condition puts flows under a condition; a fault that nothing met was none.
func (s *scene) condition(c Condition, flows []Flow) (func() error, error) {
	before := s.Net.Touched(flows...)
	s.Net.Set(c, flows...)
	return func() error {
		s.Net.Set(Condition{}, flows...)
		if s.Net.Touched(flows...) == before {
			return errUntouched
		}
		return nil
	}, nil
}

func (s *scene) cut(flows []Flow) (func() error, error) {
	return s.condition(Condition{Hold: true}, flows)
}

// catalogue lists all faults that a schedule may choose.
func catalogue() []Fault {
	type begin = func(ctx context.Context, s *scene) (func() error, error)
	const (
		short = 300 * time.Millisecond
		long  = 3200 * time.Millisecond // longer than a lease with everything that is added to it
	)
	// of cuts flows between the primary and all others.
	of := func(flows func(primary, others []string) []Flow) begin {
		return func(_ context.Context, s *scene) (func() error, error) { return s.cut(flows(s.pick[:1], s.pick[1:])) }
	}
	all := []Fault{
		{"kill-primary", 0, 3 * time.Second, func(_ context.Context, s *scene) (func() error, error) { return s.kill(s.pick[0]) }},
		{"kill-secondary", 0, 3 * time.Second, func(_ context.Context, s *scene) (func() error, error) { return s.kill(s.pick[1]) }},
		{"kill-leader", 0, 3 * time.Second, func(ctx context.Context, s *scene) (func() error, error) {
			return s.kill(s.leaderOr(ctx, s.pick[2]))
		}},
		{"kill-two", 0, 2 * time.Second, func(_ context.Context, s *scene) (func() error, error) {
			return s.kill(s.pick[0], s.pick[1+s.rand.IntN(2)])
		}},
		{"kill-all", 0, time.Second, func(_ context.Context, s *scene) (func() error, error) { return s.kill(s.names...) }},
		{"pause-primary-short", short, 1500 * time.Millisecond, func(_ context.Context, s *scene) (func() error, error) { return s.pause(s.pick[0]) }},
		{"pause-primary", long, 5 * time.Second, func(_ context.Context, s *scene) (func() error, error) { return s.pause(s.pick[0]) }},
		{"pause-secondary", short, 4 * time.Second, func(_ context.Context, s *scene) (func() error, error) { return s.pause(s.pick[1]) }},
		{"pause-leader", short, 4 * time.Second, func(ctx context.Context, s *scene) (func() error, error) {
			return s.pause(s.leaderOr(ctx, s.pick[2]))
		}},
		{"cut-primary", short, 5 * time.Second, of(func(p, o []string) []Flow { return Both(p, o) })},
		{"cut-primary-out", short, 4 * time.Second, of(func(p, o []string) []Flow { return Flows(p, o) })},
		{"cut-primary-in", short, 4 * time.Second, of(func(p, o []string) []Flow { return Flows(o, p) })},
		{"cut-primary-raft", short, 5 * time.Second, of(func(p, o []string) []Flow { return Both(p, o, Raft) })},
		{"cut-primary-ship", short, 4 * time.Second, of(func(p, o []string) []Flow { return Both(p, o, Ship) })},
		{"cut-primary-ship-one-way", short, 4 * time.Second, of(func(p, o []string) []Flow { return Flows(o, p, Ship) })},
		{"cut-primary-gossip", short, 5 * time.Second, of(func(p, o []string) []Flow { return Both(p, o, Gossip) })},
		{"cut-pair", short, 5 * time.Second, func(_ context.Context, s *scene) (func() error, error) {
			i := s.rand.IntN(3)
			return s.cut(Both(s.pick[i:i+1], []string{s.pick[(i+1)%3]}))
		}},
		{"cut-leader", short, 4 * time.Second, func(ctx context.Context, s *scene) (func() error, error) {
			name := s.leaderOr(ctx, s.pick[2])
			return s.cut(Both([]string{name}, s.Others(name)))
		}},
		{"delay-200ms", time.Second, 4 * time.Second, func(_ context.Context, s *scene) (func() error, error) {
			return s.condition(Condition{Delay: 200 * time.Millisecond}, Both(s.pick[:1], s.pick[1:]))
		}},
		{"reset", 0, 0, func(_ context.Context, s *scene) (func() error, error) {
			if s.Net.Reset(Both(s.pick[:1], s.pick[1:])...) == 0 {
				return nil, errNoTarget
			}
			return func() error { return nil }, nil
		}},
		{"switchover", 0, 0, func(ctx context.Context, s *scene) (func() error, error) {
			ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
			defer cancel()
			// What comes of it is the schedule's to find out: it may be refused, or be rolled back by the next fault.
			_, err := s.nodes[s.pick[1]].Client.Switchover(ctx, group, client.SwitchoverRequest{}, 0)
			if client.CodeOf(err) == client.CodeInvalid {
				return nil, err
			}
			return func() error { return nil }, nil
		}},
		{"change-receiver", 0, 0, func(ctx context.Context, s *scene) (func() error, error) {
			ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
			defer cancel()
			if _, err := s.nodes[s.pick[0]].Client.ChangeReceiver(ctx, group); client.CodeOf(err) == client.CodeInvalid {
				return nil, err
			}
			return func() error { return nil }, nil
		}},
		{"hogs", time.Second, 4 * time.Second, func(context.Context, *scene) (func() error, error) { return hogs(2) }},
	}
	for _, p := range killPoints() {
		all = append(all, Fault{"kill-point-" + p, time.Second, 4 * time.Second, func(_ context.Context, s *scene) (func() error, error) {
			return s.armed(s.pick[s.rand.IntN(2)], p, 1+s.rand.IntN(4))
		}})
	}
	return all
}

// killPoints are points at which a process may end. NODE stands for the node's own name.
func killPoints() []string {
	return []string{
		"replica.promise:" + group, "replica.takeover:" + group, "replica.open:" + group, "replica.undo:" + group,
		"journal.attach:" + group + "/NODE", "journal.sync:" + group + "/NODE", "replica.seal:" + group, "cluster.propose",
	}
}

// armed restarts a node so that it ends by itself at a point. It is started again when the fault ends, whether it came there or not.
func (s *scene) armed(name, point string, hit int) (func() error, error) {
	n := s.nodes[name]
	n.Kill()
	if err := n.Start(Failpoint(name, point, "exit", hit)); err != nil {
		return nil, err
	}
	return func() error {
		n.Kill() // the point may still lie ahead
		return n.Start()
	}, nil
}

// hogs keeps processors busy.
func hogs(count int) (func() error, error) {
	var running []*process
	for range count {
		p, err := startProcess("/dev/null", nil, "sh", "-c", "while :; do :; done")
		if err != nil {
			for _, q := range running {
				q.kill()
			}
			return nil, err
		}
		running = append(running, p)
	}
	return func() error {
		for _, p := range running {
			p.kill()
		}
		return nil
	}, nil
}
