package faultlab

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"
)

// Step is one fault of a plan.
type Step struct {
	Fault string        `json:"fault"`
	At    time.Duration `json:"at"`
	For   time.Duration `json:"for"`

	begin func(ctx context.Context, s *scene) (func() error, error)
	seed  uint64
}

// Plan is what a seed stands for: the cluster, the phase that is looked for, and the faults that meet it. Processes and networks
// are real, so two runs of one plan are alike and not the same.
type Plan struct {
	Seed    uint64 `json:"seed"`
	Witness string `json:"witness,omitempty"`
	Group   string `json:"group"`
	Phase   string `json:"phase"`
	Steps   []Step `json:"steps"`
}

// phase brings the cluster into a situation: opening faults, and when after the beginning the others may come.
type phase struct {
	name     string
	open     []string
	from, to time.Duration
}

// phases are those of the fault matrix. A failover without a release takes a lease of two seconds; what follows is over in a few
// hundred milliseconds.
func phases() []phase {
	return []phase{
		{"steady", nil, 0, 2 * time.Second},
		{"switch-over", []string{"switchover"}, 0, 500 * time.Millisecond},
		{"fence", []string{"kill-primary"}, 1800 * time.Millisecond, 2800 * time.Millisecond},
		{"fence-of-a-living", []string{"cut-primary"}, 1800 * time.Millisecond, 3 * time.Second},
		{"takeover", []string{"pause-primary"}, 2 * time.Second, 3 * time.Second},
		{"rejoin", []string{"kill-primary"}, 3 * time.Second, 5 * time.Second},
		{"resync", []string{"kill-secondary"}, time.Second, 4 * time.Second},
		{"receiver-change", []string{"change-receiver"}, 0, 300 * time.Millisecond},
	}
}

// NewPlan makes the plan of a seed.
func NewPlan(seed uint64) Plan {
	r := rand.New(rand.NewPCG(seed, 0x9e3779b97f4a7c15))
	p := Plan{Seed: seed, Group: "secondaries: 1"}
	if r.IntN(4) == 0 {
		p.Witness = "c"
	} else if r.IntN(3) == 0 {
		p.Group = "secondaries: 2"
	}
	p.Group += ", on_no_sync: " + []string{"degrade", "degrade", "hold", "refuse"}[r.IntN(4)]
	p.Group += ", images: " + []string{"auto", "both"}[r.IntN(2)]
	faults := catalogue()
	byName := map[string]Fault{}
	for _, f := range faults {
		byName[f.Name] = f
	}
	add := func(f Fault, at time.Duration) {
		length := f.Min
		if f.Max > f.Min {
			length += time.Duration(r.Int64N(int64(f.Max - f.Min)))
		}
		p.Steps = append(p.Steps, Step{Fault: f.Name, At: at.Round(time.Millisecond), For: length.Round(time.Millisecond), begin: f.begin, seed: r.Uint64()})
	}
	ph := phases()[r.IntN(len(phases()))]
	p.Phase = ph.name
	const lead = 500 * time.Millisecond // of a working cluster
	for _, name := range ph.open {
		add(byName[name], lead)
	}
	for range 1 + r.IntN(3) {
		add(faults[r.IntN(len(faults))], lead+ph.from+time.Duration(r.Int64N(int64(ph.to-ph.from))))
	}
	return p
}

func (p Plan) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "seed %d, phase %s, group {%s}", p.Seed, p.Phase, p.Group)
	if p.Witness != "" {
		b.WriteString(", witness " + p.Witness)
	}
	for _, s := range p.Steps {
		fmt.Fprintf(&b, "\n  %6s %s for %s", s.At, s.Fault, s.For)
	}
	return b.String()
}

// Inject lets the plan's faults happen and returns when all have ended, with the cluster healed and every node running. It says
// how many of them met something.
func (l *Lab) Inject(ctx context.Context, p Plan) (active int, err error) {
	var mu sync.Mutex
	var errs []error
	var running sync.WaitGroup
	note := func(s Step, err error) {
		mu.Lock()
		defer mu.Unlock()
		switch {
		case err == nil:
			active++
		case !errors.Is(err, errNoTarget) && !errors.Is(err, errUntouched):
			errs = append(errs, fmt.Errorf("%s: %w", s.Fault, err))
		}
	}
	for _, s := range p.Steps {
		running.Go(func() {
			if !sleep(ctx, s.At) {
				return
			}
			end, err := s.begin(ctx, l.look(ctx, rand.New(rand.NewPCG(s.seed, 1))))
			if err != nil {
				note(s, err)
				return
			}
			sleep(ctx, s.For)
			note(s, end())
		})
	}
	running.Wait()
	return active, errors.Join(append(errs, l.Heal())...)
}

// Heal ends everything that may still be wrong.
func (l *Lab) Heal() error {
	l.Net.Heal()
	var errs []error
	for _, n := range l.nodes {
		if n.Running() {
			errs = append(errs, n.Resume())
		} else {
			errs = append(errs, n.Start())
		}
	}
	return errors.Join(errs...)
}

func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
