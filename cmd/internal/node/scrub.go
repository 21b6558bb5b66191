package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/understudy-ha/understudy/client"
	"github.com/understudy-ha/understudy/internal/host"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal"
	"github.com/understudy-ha/understudy/replica"
)

// Bounds of the check in the background.
const (
	maxRotPlaces = 100              // remembered; what is beyond is found again
	retryRot     = 10 * time.Second // what could not be repaired is tried again after it, at the earliest
	busyRest     = 20 * time.Millisecond
	busyMost     = time.Second // a disk that is always busy is read all the same, a piece each time
	maxSuspects  = 64
)

// scrubber reads all journals of this node at a limited rate, repairs from other nodes' copies what is rotten, and compares
// chains with the nodes that come into view. One goroutine reads, another does what does not wait for it.
type scrubber struct {
	n        *Node
	rate     int64
	every    time.Duration
	suspects chan suspect  // what readers met
	wake     chan struct{} // chains are to be compared

	mu       sync.Mutex
	status   client.Scrub
	found    uint64
	repaired uint64
	rot      map[suspect]client.RotPlace // what is rotten now
	gone     map[ident.GroupName]bool    // deleted: nothing of theirs is remembered or repaired any more

	turn host.Turn // held by whoever repairs: of the pass, of attend and of requests one at a time
	next time.Time // when the next piece may be read; of the pass
}

// suspect is a receiver that a reader could not read, or that a check found rotten; with number 0 it is the state file of a journal.
type suspect struct {
	id     ident.JournalID
	number ident.ReceiverNumber
}

func newScrubber(n *Node) *scrubber {
	return &scrubber{n: n, rate: int64(n.config.Scrub.Rate), every: n.config.Scrub.Every, suspects: make(chan suspect, maxSuspects),
		wake: make(chan struct{}, 1), turn: host.NewTurn(), rot: map[suspect]client.RotPlace{}, gone: map[ident.GroupName]bool{}, status: client.Scrub{Rate: int64(n.config.Scrub.Rate)}}
}

// suspect is told of a receiver that could not be read. It never waits: what is lost here is met again.
func (s *scrubber) suspect(id ident.JournalID, number ident.ReceiverNumber) {
	select {
	case s.suspects <- suspect{id, number}:
	default:
	}
}

// forget forgets what is rotten in the journals of a group that was deleted, for good: a check that is under way may be about to say it.
func (s *scrubber) forget(group ident.GroupName) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gone[group] = true
	for at := range s.rot {
		if at.id.Group == group {
			delete(s.rot, at)
		}
	}
}

func (s *scrubber) count(what *uint64, n uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	*what += n
}

// run checks in passes, begun every so often, until ctx ends.
func (s *scrubber) run(ctx context.Context) error {
	if s.rate == 0 {
		<-ctx.Done()
		return nil
	}
	for ctx.Err() == nil {
		due := s.n.host.Clock.Now().Add(s.every)
		if err := s.pass(ctx); err != nil && ctx.Err() == nil {
			s.n.log.Warn("check of the journals ended early", "error", err)
		}
		_ = sleep(ctx, max(busyRest, due.Sub(s.n.host.Clock.Now()))) // ctx is looked at above
	}
	return nil
}

// attend does what does not wait for a pass, until ctx ends: suspects, nodes that came into view, and what stays rotten.
func (s *scrubber) attend(ctx context.Context) error {
	again := time.NewTicker(retryRot)
	defer again.Stop()
	for {
		select {
		case x := <-s.suspects:
			s.doubt(ctx, x)
		case <-s.wake:
			s.n.chains.compare(ctx, s)
		case <-again.C:
			s.retry(ctx)
		case <-ctx.Done():
			return nil
		}
	}
}

// doubt checks one receiver at once.
func (s *scrubber) doubt(ctx context.Context, x suspect) {
	rep := s.n.replicas.get(x.id.Group)
	if rep == nil {
		return
	}
	if j, ok := rep.Journal(x.id.Node); ok {
		_, _ = s.check(ctx, j, x.number, nil) // what it found is remembered
	}
}

// retry tries again to repair what stays rotten.
func (s *scrubber) retry(ctx context.Context) {
	s.mu.Lock()
	places := make([]suspect, 0, len(s.rot))
	for p := range s.rot {
		places = append(places, p)
	}
	s.mu.Unlock()
	for _, p := range places {
		s.doubt(ctx, p)
	}
}

// pass reads everything once.
func (s *scrubber) pass(ctx context.Context) error {
	all := s.journals()
	s.mu.Lock()
	s.status.Running, s.status.Checked, s.status.Total = true, 0, 0
	for _, j := range all {
		v, _ := j.View()
		s.status.Total += v.Bytes
	}
	s.mu.Unlock()
	var errs []error
	for _, j := range all {
		for _, r := range append(j.Receivers(), journal.ReceiverInfo{}) { // the last one stands for the state file
			s.mu.Lock()
			s.status.Journal, s.status.Receiver = j.ID().String(), uint32(r.Number)
			s.mu.Unlock()
			if _, err := s.check(ctx, j, r.Number, s.pace); err != nil {
				errs = append(errs, err)
			}
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status.Running, s.status.Journal, s.status.Receiver, s.status.Checked, s.status.Total = false, "", 0, 0, 0
	s.status.Passes++
	s.status.Finished = s.n.host.Clock.Now()
	return errors.Join(errs...)
}

// journals returns all journals of all groups, and those of what was replayed here, in a fixed order.
func (s *scrubber) journals() []*journal.Journal {
	var out []*journal.Journal
	for _, rep := range s.n.replicas.all() {
		out = append(out, rep.Journals()...)
		if j, ok := rep.Journal(replica.Replays); ok {
			out = append(out, j)
		}
	}
	slices.SortFunc(out, func(a, b *journal.Journal) int { return cmp.Compare(a.ID().String(), b.ID().String()) })
	return out
}

// pace waits until n bytes may be read: at the limited rate, and not while a journal waits for the disk.
func (s *scrubber) pace(ctx context.Context, n int) error {
	s.mu.Lock()
	s.status.Bytes += uint64(n)
	s.status.Checked = min(s.status.Checked+int64(n), s.status.Total)
	s.mu.Unlock()
	now := time.Now()
	if s.next.Before(now) {
		s.next = now
	}
	wait := s.next.Sub(now)
	s.next = s.next.Add(time.Duration(float64(n) / float64(s.rate) * float64(time.Second)))
	if err := sleep(ctx, wait); err != nil {
		return err
	}
	for rested := time.Duration(0); rested < busyMost && s.busy(ctx); rested += busyRest {
		if err := sleep(ctx, busyRest); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// busy tells whether a journal waits for the disk for longer than a sync should take.
func (s *scrubber) busy(ctx context.Context) bool {
	waiting := map[*journal.Journal]ident.Sequence{}
	for _, j := range s.journals() {
		if v, _ := j.View(); v.Last > v.Durable && v.Err == nil {
			waiting[j] = v.Durable
		}
	}
	if len(waiting) == 0 || sleep(ctx, busyRest/2) != nil {
		return false
	}
	for j, durable := range waiting {
		if v, _ := j.View(); v.Durable == durable && v.Last > v.Durable {
			return true
		}
	}
	return false
}

func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// check reads a receiver, or with number 0 the state file, and repairs it. It returns what it found; nil: it is sound.
func (s *scrubber) check(ctx context.Context, j *journal.Journal, number ident.ReceiverNumber, pace journal.Pace) (*client.RotPlace, error) {
	look := func() (*journal.Rot, error) {
		if number == 0 {
			return j.InspectState()
		}
		return j.Inspect(ctx, number, pace)
	}
	at := suspect{j.ID(), number}
	rot, err := look()
	if err == nil && rot != nil {
		s.turn.Lock()
		defer s.turn.Unlock()
		pace = nil
		rot, err = look() // somebody may have repaired it meanwhile
	}
	if err != nil || rot == nil {
		if err == nil || errors.Is(err, journal.ErrNotHeld) {
			s.mu.Lock()
			delete(s.rot, at)
			s.mu.Unlock()
		}
		if errors.Is(err, journal.ErrNotHeld) {
			err = nil // deleted meanwhile
		}
		return nil, err
	}
	out := client.RotPlace{Journal: rot.Journal.String(), Receiver: uint32(rot.Receiver), Offset: rot.Offset, Kind: string(rot.Kind), First: uint64(rot.First), Last: uint64(rot.Last), Detail: rot.Err.Error()}
	s.mu.Lock()
	if s.gone[at.id.Group] {
		s.mu.Unlock()
		return nil, nil
	}
	before, known := s.rot[at]
	if !known {
		s.found++
	}
	if known || len(s.rot) < maxRotPlaces {
		s.rot[at] = out
	}
	s.mu.Unlock()
	fields := map[string]string{"journal": out.Journal, "receiver": rot.Receiver.String(), "offset": fmt.Sprint(rot.Offset), "kind": out.Kind}
	if rot.First != 0 {
		fields["first"], fields["last"] = rot.First.String(), rot.Last.String()
	}
	if !known {
		s.n.events.add(client.SeverityWarning, string(rot.Journal.Group), "ROT_FOUND", rot.Error(), fields)
	}
	done, err := j.Repair(ctx, rot, s.n.twins(rot.Journal), nil)
	for tries := 0; err == nil && tries < 8; tries++ { // there may be more than one place
		if rot, err = look(); err != nil || rot == nil {
			break
		}
		var more journal.Repaired
		more, err = j.Repair(ctx, rot, s.n.twins(rot.Journal), nil)
		done.Bytes, done.From = done.Bytes+more.Bytes, append(done.From, more.From...)
	}
	if err != nil {
		out.Detail += "; not repaired: " + err.Error()
		s.mu.Lock()
		if _, ok := s.rot[at]; ok {
			s.rot[at] = out
		}
		s.mu.Unlock()
		if ctx.Err() == nil && !strings.Contains(before.Detail, "; not repaired: ") {
			fields["error"] = err.Error()
			s.n.events.add(client.SeverityError, string(at.id.Group), "ROT_STAYS", fmt.Sprintf("receiver %s of journal %s stays rotten: %s", at.number, at.id, remedyOfRot(at.id)), fields)
		}
		return &out, nil
	}
	slices.Sort(done.From)
	out.Repaired, out.From = true, strings.Join(slices.Compact(done.From), ",")
	s.mu.Lock()
	delete(s.rot, at)
	s.repaired++
	s.mu.Unlock()
	s.n.repairedEvent(done, "was repaired")
	return &out, nil
}

// now returns what the status shows.
func (s *scrubber) now() *client.Scrub {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := s.status
	out.Found, out.Repaired, out.Rot = s.found, s.repaired, []client.RotPlace{}
	for _, p := range s.rot {
		out.Rot = append(out.Rot, p)
	}
	for _, p := range s.n.damages.all() {
		out.Rot = append(out.Rot, p)
	}
	slices.SortFunc(out.Rot, func(a, b client.RotPlace) int {
		return cmp.Or(cmp.Compare(a.Journal, b.Journal), cmp.Compare(a.Receiver, b.Receiver))
	})
	return &out
}

// Describe is part of prometheus.Collector.
func (s *scrubber) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(s, ch) }

// Collect is part of prometheus.Collector.
func (s *scrubber) Collect(ch chan<- prometheus.Metric) {
	x := s.now()
	for _, m := range []struct {
		name, help string
		kind       prometheus.ValueType
		value      float64
	}{
		{"bytes_total", "Bytes of journals that the check in the background has read.", prometheus.CounterValue, float64(x.Bytes)},
		{"passes_total", "Passes over all journals that the check in the background has finished.", prometheus.CounterValue, float64(x.Passes)},
		{"found_total", "Rotten places found in journals on this node's disk.", prometheus.CounterValue, float64(x.Found)},
		{"repaired_total", "Rotten places repaired from another node's copy.", prometheus.CounterValue, float64(x.Repaired)},
		{"rotten", "Places known to be rotten and not repaired yet; groups that are closed for it included.", prometheus.GaugeValue, float64(len(x.Rot))},
		{"pass_timestamp_seconds", "When the last pass was finished; 0: none yet.", prometheus.GaugeValue, passTime(x.Finished)},
	} {
		desc := prometheus.NewDesc("understudy_scrub_"+m.name, m.help, nil, prometheus.Labels{"node": string(s.n.config.Node)})
		ch <- prometheus.MustNewConstMetric(desc, m.kind, m.value)
	}
}

func passTime(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.Unix())
}
