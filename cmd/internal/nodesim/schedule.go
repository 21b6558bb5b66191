package nodesim

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/understudy-ha/understudy/client"
	"github.com/understudy-ha/understudy/cmd/internal/oracle"
)

// result is what is left of one schedule.
type result struct {
	seed       uint64
	steps      []step
	late       error // the cluster did not become level in time
	unsafe     error // what the checks found
	redis      error // of that, what Redis clients saw
	operations []oracle.Operation
	effects    map[string]int
	acks       int
	epochs     int
	checks     int
	recovery   time.Duration // from the last fault until all copies were level
	virtual    time.Duration
	notes, log string
	disks      map[string]*vfs.MemFS
}

// How long things may take after the last fault has ended.
const (
	firstLevel = 30 * time.Second
	levelAgain = 90 * time.Second
)

// lastTimers is what memberlist's probes, which nobody joins, need to end.
const lastTimers = 20 * time.Second

// err is everything that is wrong with the run.
func (r *result) err() error { return errors.Join(r.late, r.unsafe) }

// run runs one schedule. It is called inside a bubble.
func run(seed uint64, steps []step, adjust ...func(*world)) *result {
	w := newWorld(seed, seed%8 == 7)
	for _, f := range adjust {
		f(w)
	}
	r := &result{seed: seed, steps: steps}
	for _, m := range w.machines {
		m.start()
	}
	load := newWorkload(w)
	r.late = w.wait("the new cluster is level", firstLevel, w.settled)
	if r.late == nil {
		load.begin()
		w.disturb(r.steps)
		w.heal()
		healed := time.Now()
		time.Sleep(1500 * time.Millisecond)
		load.end()
		r.late = w.wait("all copies are level again", levelAgain, w.settled)
		r.recovery = time.Since(healed)
		w.note("level again: %v", r.late == nil)
		r.late = errors.Join(r.late, w.needless(r.steps))
		r.late = errors.Join(r.late, w.needless(r.steps))
		r.unsafe = w.judge(load, r)
	}
	load.end()
	r.operations = load.recorder.Operations()
	w.end()
	r.collect(w)
	time.Sleep(lastTimers)
	return r
}

// disturb begins and ends the faults of the schedule.
func (w *world) disturb(steps []step) {
	began := time.Now()
	var ends sync.WaitGroup
	for _, s := range steps {
		time.Sleep(time.Until(began.Add(s.at)))
		m := w.target(s)
		w.note("%s: %s", m.id, s)
		rng := rand.New(rand.NewPCG(s.pick, 30))
		if end := kinds()[s.kind](w, s, m, rng); end != nil {
			ends.Go(func() {
				time.Sleep(s.length)
				end()
				w.note("%s: %s ends", m.id, s.kind)
			})
		}
	}
	ends.Wait()
	time.Sleep(300 * time.Millisecond)
}

// heal makes everything work again that no step has healed itself.
func (w *world) heal() {
	w.note("heals")
	for _, m := range w.machines {
		if l := m.current(); l != nil {
			l.faults.heal()
		}
		m.start()
	}
}

// needless finds nodes that gave up although no disk failed or stood still.
func (w *world) needless(steps []step) error {
	for _, s := range steps {
		if strings.HasPrefix(s.kind, "disk") || s.kind == "pause" {
			return nil
		}
	}
	var errs []error
	for _, m := range w.machines {
		m.mu.Lock()
		if m.failure != nil {
			errs = append(errs, fmt.Errorf("node %s gave up although its disk was well: %w", m.id, m.failure))
		}
		m.mu.Unlock()
	}
	return errors.Join(errs...)
}

// judge checks everything that can be said at the end, when all copies are level.
func (w *world) judge(l *workload, r *result) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var errs []error
	l.ctx = ctx
	for i := range 4 { // the final values belong to the history
		l.get(w.operator, 99, registers, fmt.Sprint("r", i), false)
	}
	l.view(w.operator, "the end", false)
	var final []oracle.Element
	readable := true
	for rec, err := range w.operator.All(ctx, elements, client.ListOptions{Limit: 1000}) {
		if err != nil {
			r.late = errors.Join(r.late, fmt.Errorf("final read: %w", err))
			readable = false
			break
		}
		final = append(final, oracle.Element{Key: elements + "/" + rec.Key.Text, Value: string(rec.Value), Position: rec.Position})
	}
	of := func(file string) []oracle.Operation {
		return oracle.Select(l.recorder.Operations(), func(o oracle.Operation) bool { return len(o.Key) > len(file) && o.Key[:len(file)] == file })
	}
	redis := oracle.Select(l.recorder.Operations(), func(o oracle.Operation) bool { return o.Kind == oracle.Redis })
	r.redis = oracle.RedisLinearizable(redis, 20*time.Second)
	l.mu.Lock()
	defer l.mu.Unlock()
	if readable {
		errs = append(errs, oracle.Set(of(elements), final))
	}
	errs = append(errs,
		oracle.Linearizable(of(registers), 20*time.Second),
		r.redis,
		oracle.RedisMix(redis, 5),
		oracle.Bank(l.balances, accountCount*balance, accountCount),
		oracle.Monotonic(l.samples),
		oracle.NotEmpty(of(elements), 5, oracle.Write),
		oracle.NotEmpty(of(registers), 5, oracle.Write, oracle.Read),
		w.compare(ctx, r),
	)
	if l.moved == 0 || len(l.balances) == 0 {
		errs = append(errs, fmt.Errorf("nothing was tested: %d transfers, %d views of the bank", l.moved, len(l.balances)))
	}
	w.traces.mu.Lock()
	defer w.traces.mu.Unlock()
	for _, p := range w.traces.problems {
		errs = append(errs, errors.New(p))
	}
	r.acks, r.epochs, r.checks = w.traces.acks, len(w.traces.serving), w.traces.checks
	if r.acks == 0 || r.checks == 0 {
		errs = append(errs, errors.New("nothing was traced"))
	}
	return errors.Join(errs...)
}

// compare compares what the nodes hold: content at equal positions, journals entry by entry.
func (w *world) compare(ctx context.Context, r *result) error {
	var errs []error
	var digests []oracle.Digest
	apart := w.wait("all copies stand at one position", 20*time.Second, func() (err error) { // a write nobody waits for any more may still come
		digests, err = w.digests(ctx)
		return err
	})
	if apart != nil {
		r.late = errors.Join(r.late, apart)
	}
	errs = append(errs, oracle.SameDigests(digests, 0))
	var journals []oracle.Journal
	for _, m := range w.data() {
		list, err := m.client.Journals(ctx, string(group))
		if err != nil {
			r.late = errors.Join(r.late, fmt.Errorf("journals of %s: %w", m.id, err))
		}
		for _, j := range list {
			copied, err := readJournal(ctx, m, j)
			errs = append(errs, err)
			journals = append(journals, copied)
		}
	}
	errs = append(errs, oracle.SameJournals(journals))
	return errors.Join(errs...)
}

// digests returns the digests of all copies, and an error while they do not stand at one position.
func (w *world) digests(ctx context.Context) (out []oracle.Digest, err error) {
	for _, m := range w.data() {
		d, err := m.client.Digest(ctx, string(group))
		if err != nil {
			return out, fmt.Errorf("digest of %s: %w", m.id, err)
		}
		out = append(out, oracle.Digest{Node: d.Node, Position: d.Position, Records: d.Records, Sum: d.Sum})
	}
	for _, d := range out {
		if d.Position != out[0].Position {
			return out, fmt.Errorf("%s stands at %s, %s at %s", out[0].Node, out[0].Position, d.Node, d.Position)
		}
	}
	return out, nil
}

func readJournal(ctx context.Context, m *machine, j client.Journal) (oracle.Journal, error) {
	out := oracle.Journal{Node: string(m.id), Name: j.ID}
	for from := j.First; from <= j.Last && j.Last > 0; {
		page, err := m.client.Entries(ctx, string(group), j.Node, client.EntryFilter{From: from, Limit: 1000, IncludeAll: true})
		if err != nil {
			return out, fmt.Errorf("journal %s at %s from %d of %d to %d: %w", j.ID, m.id, from, j.First, j.Last, err)
		}
		if len(page) == 0 {
			break
		}
		for _, e := range page {
			x := oracle.Entry{Sequence: e.Sequence, Position: e.Position}
			x.Content = fmt.Sprintf("%s%s %s/%s", e.Code, e.Type, e.File, e.Key.Text)
			if e.After != nil {
				x.Content += " " + string(e.After.Value)
			}
			out.Entries = append(out.Entries, x)
		}
		from = page[len(page)-1].Sequence + 1
	}
	return out, nil
}

// collect keeps what a failure is explained with.
func (r *result) collect(w *world) {
	r.virtual = time.Since(w.began)
	r.notes, r.log = w.history(), w.logs.String()
	r.disks = map[string]*vfs.MemFS{}
	for _, m := range w.machines {
		m.mu.Lock()
		r.disks[string(m.id)] = m.data
		m.mu.Unlock()
	}
	w.effects.mu.Lock()
	defer w.effects.mu.Unlock()
	r.effects = w.effects.count
}
