package replica

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal"
)

const (
	imageRecords = 1000
	imageValue   = 256 // bytes of a record
	imageRounds  = 17
	imageTurn    = 180 * time.Millisecond
)

// imageTurns are the figures of one way to journal, over all its turns.
type imageTurns struct {
	name     string
	alone    bool
	spec     func(*fsm.GroupSpec)
	base     int // index of what it is compared with
	changes  int
	journal  int64 // bytes of bundles at the primary
	shipped  int64 // bytes on the line to the backup
	replayed int64 // bytes of bundles in the journal of replays
	rate     []float64
	many     int // changes of 16 writers, and the bundles they were in
	bundles  int
	latency  []float64 // in the middle of each turn
}

func (m *imageTurns) per(bytes int64) float64 { return float64(bytes) / float64(max(m.changes, 1)) }

// BenchmarkImages is what images and journal_replays cost for updates of existing records of 256 bytes, on a real disk: bytes for each
// change, one transaction to a bundle, and changes per second with 16 writers and the latency of one, as ratios to `images: after` in the
// same situation. The ways take short turns, in another order each round, so that a busy machine is busy for all of them.
//
//	go test ./replica -run xxx -bench Images -benchtime 1x
func BenchmarkImages(b *testing.B) {
	images := func(how string) func(*fsm.GroupSpec) {
		return func(s *fsm.GroupSpec) { s.Images, s.JournalReplays = how, false }
	}
	for b.Loop() {
		ways := []*imageTurns{
			{name: "in-sync/after", spec: images(fsm.ImagesAfter)},
			{name: "in-sync/auto", spec: images(fsm.ImagesAuto)},
			{name: "in-sync/both", spec: images(fsm.ImagesBoth)},
			{name: "in-sync/after-replays", spec: func(s *fsm.GroupSpec) { s.Images, s.JournalReplays = fsm.ImagesAfter, true }},
			{name: "alone/after", alone: true, base: 4, spec: images(fsm.ImagesAfter)},
			{name: "alone/auto", alone: true, base: 4, spec: images(fsm.ImagesAuto)},
			{name: "alone/both", alone: true, base: 4, spec: images(fsm.ImagesBoth)},
		}
		spec := fsm.GroupSpec{ReceiverBytes: 64 << 20}
		pair, single := newClusterIn(b, b.TempDir(), spec, "a", "b"), newClusterIn(b, b.TempDir(), spec, "a")
		pair.inSync("a", "b")
		for _, c := range []*cluster{pair, single} {
			for i := range imageRecords {
				c.nodes["a"].mustPut(fmt.Sprintf("k%06d", i), string(bytes.Repeat([]byte{'x'}, imageValue)))
			}
		}
		order := rand.New(rand.NewPCG(1, 1))
		for round := range imageRounds + 1 { // the first one warms up
			for _, i := range order.Perm(len(ways)) {
				m := ways[i]
				c := pair
				if m.alone {
					c = single
				}
				m.turn(c, round > 0)
			}
		}
		b.ReportMetric(0, "ns/op")
		for _, m := range ways {
			b.ReportMetric(m.per(m.journal), m.name+"-journal-B/change")
			if !m.alone {
				b.ReportMetric(m.per(m.shipped), m.name+"-shipped-B/change")
			}
			if m.replayed > 0 {
				b.ReportMetric(m.per(m.replayed), m.name+"-replays-B/change")
			}
			b.ReportMetric(float64(m.many)/float64(max(m.bundles, 1)), m.name+"-changes/bundle")
			b.ReportMetric(medianRatio(m.rate, ways[m.base].rate), m.name+"-rate-ratio")
			b.ReportMetric(medianRatio(m.latency, ways[m.base].latency), m.name+"-p50-ratio")
		}
		b.Logf("after, in sync: %.0f changes/s, p50 %.2f ms", median(ways[0].rate), 1e3*median(ways[0].latency))
	}
}

// turn writes for a while in one way, first alone, then beside others.
func (m *imageTurns) turn(c *cluster, counts bool) {
	c.t.Helper()
	g := c.plane.group()
	next := g.Spec
	m.spec(&next)
	if !reflect.DeepEqual(next, g.Spec) {
		c.must(fsm.Command{ChangeSpec: &fsm.ChangeSpec{Group: orders, Version: g.SpecVersion, Spec: next}})
	}
	a, b := c.nodes["a"], c.nodes["b"]
	if b != nil {
		c.inSync("a", "b")
		c.eventually("the backup knows", func() bool {
			a, _ := b.link.Assignment()
			return reflect.DeepEqual(a.Group.Spec, next) && b.rep.Status().Applied == c.nodes["a"].rep.Status().Applied
		})
	}
	level := func() {
		if b != nil {
			c.eventually("the backup is level", func() bool { return b.rep.Status().Applied == a.rep.Status().Applied })
		}
	}
	m.update(c, 1, imageTurn/5) // the change has arrived
	level()
	own, _ := a.rep.Journal("a")
	at, shipped, echoed := last(own), c.wires.shipped.Load(), ident.Sequence(0)
	if b != nil && b.rep.replays.Load() != nil {
		echoed = last(b.rep.replays.Load())
	}
	took := m.update(c, 1, imageTurn)
	level()
	if counts {
		m.changes += len(took)
		size, _ := bundlesAfter(c.t, own, at)
		m.journal += size
		m.shipped += c.wires.shipped.Load() - shipped
		if b != nil && b.rep.replays.Load() != nil {
			size, _ := bundlesAfter(c.t, b.rep.replays.Load(), echoed)
			m.replayed += size
		}
		slices.Sort(took)
		m.latency = append(m.latency, took[len(took)/2].Seconds())
	}
	at = last(own)
	began := time.Now()
	took = m.update(c, 16, imageTurn)
	if counts {
		m.rate = append(m.rate, float64(len(took))/time.Since(began).Seconds())
		m.many += len(took)
		_, n := bundlesAfter(c.t, own, at)
		m.bundles += n
	}
}

// update has so many writers update records one after the other for some time, and returns how long each update took.
func (m *imageTurns) update(c *cluster, writers int, length time.Duration) (all []time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	end := time.Now().Add(length)
	var mu sync.Mutex
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			var took []time.Duration
			value := make([]byte, imageValue)
			for i := w; time.Now().Before(end); i += writers {
				value[i%imageValue]++
				began := time.Now()
				if _, err := c.nodes["a"].rep.Write(ctx, Transaction{
					Writes: []Write{{File: "f", Key: fmt.Appendf(nil, "k%06d", i%imageRecords), Value: value}},
				}); err != nil {
					c.t.Error(err)
					return
				}
				took = append(took, time.Since(began))
			}
			mu.Lock()
			defer mu.Unlock()
			all = append(all, took...)
		})
	}
	wg.Wait()
	return all
}

func last(j *journal.Journal) ident.Sequence {
	v, _ := j.View()
	return v.Last
}

// bundlesAfter adds up the bundles after a sequence.
func bundlesAfter(t testing.TB, j *journal.Journal, after ident.Sequence) (size int64, n int) {
	for seq, end := after+1, last(j); seq <= end; {
		b, err := j.BundleAt(seq)
		if err != nil {
			t.Fatal(err)
		}
		size += int64(len(b.Raw))
		n++
		seq = b.Last() + 1
	}
	return size, n
}

func median(of []float64) float64 {
	of = slices.Sorted(slices.Values(of))
	if len(of) == 0 {
		return 0
	}
	return of[len(of)/2]
}

// medianRatio is the ratio of each turn to the turn of the same round, in the middle.
func medianRatio(of, to []float64) float64 {
	var ratios []float64
	for i := range min(len(of), len(to)) {
		ratios = append(ratios, of[i]/to[i])
	}
	return median(ratios)
}
