package faultlab

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/understudy-ha/understudy/client"
	"github.com/understudy-ha/understudy/cmd/internal/oracle"
)

var allFlag = flag.Bool("faultlab.all", false, "also the directed tests that plain `go test` leaves out for their time")

// lease is the validity of a node lease in the lab, which is the product's default.
const lease = 2 * time.Second

// story is a directed test: a cluster with a workload, to which something happens.
type story struct {
	*Lab
	t        *testing.T
	workload *Workload
	primary  *Node // at the beginning
}

// tell begins a story with a working cluster. rare ones are left out by plain `go test`.
func tell(t *testing.T, rare bool, o Options) *story {
	t.Helper()
	if testing.Short() {
		t.Skip("real processes take a while")
	}
	if rare && !*allFlag {
		t.Skip("run with -faultlab.all")
	}
	t.Parallel()
	s := &story{Lab: start(t, o), t: t}
	var err error
	s.primary, err = s.Primary(t.Context(), time.Minute)
	must(t, err)
	s.workload = s.StartWorkload(1)
	t.Cleanup(func() { s.workload.Stop() })
	s.goesOn()
	return s
}

// goesOn waits until writes are acknowledged.
func (s *story) goesOn() {
	s.t.Helper()
	must(s.t, s.workload.AwaitAcknowledged(s.t.Context(), 30, 90*time.Second))
}

// next waits until another node than those serves.
func (s *story) next(but ...string) *Node {
	s.t.Helper()
	n, err := s.Primary(s.t.Context(), time.Minute, but...)
	must(s.t, err)
	return n
}

// epoch is that of the group at the serving node.
func (s *story) epoch() uint64 {
	s.t.Helper()
	n := s.next()
	g, err := n.local(s.t.Context())
	must(s.t, err)
	return g.Epoch
}

// end heals everything, lets writes go on, and judges the whole history.
func (s *story) end() []oracle.Operation {
	s.t.Helper()
	must(s.t, s.Heal())
	s.goesOn()
	s.workload.Stop()
	final, err := s.Settle(s.t.Context(), s.workload)
	history := s.workload.record.Operations()
	must(s.t, err)
	s.t.Logf("%s; epoch %d", tally(history), final.Epoch)
	if err := errors.Join(oracle.NotEmpty(history, warmUp, oracle.Write, oracle.Read), Judge(history, final.Set)); err != nil {
		s.t.Error(err)
		must(s.t, leave(s.options.Dir, Plan{Phase: s.t.Name()}, history, err))
	}
	return history
}

// touched fails the test when nothing met a condition of the network.
func (s *story) touched(flows []Flow) {
	s.t.Helper()
	if s.Net.Touched(flows...) == 0 {
		s.t.Errorf("the fault was not active: nothing met the condition of %v", flows)
	}
}

// Proves S6 and the row "SIGSTOP old primary > D, SIGCONT": while a primary is stopped another one takes over. When it goes on it
// acknowledges nothing itself, and answers no read from its old copy, not even those that arrived while it was stopped.
func TestStoppedPrimaryAnswersNothing(t *testing.T) {
	s := tell(t, false, Options{})
	ctx := t.Context()
	old := s.primary
	if _, err := old.Client.Put(ctx, "stop", []byte("k"), []byte("before"), client.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	must(t, old.Pause())
	type answer struct {
		value, journal string
		err            error
	}
	const each = 8
	answers := make(chan answer, 2*each)
	wait, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	patient := client.NewWith(client.Options{Addresses: []string{old.place.listen[HTTP]}, Retry: -1, Timeout: 30 * time.Second})
	defer patient.Close()
	for i := range each { // they wait in the sockets of the stopped process
		go func() {
			r, err := patient.Get(wait, "stop", []byte("k"), client.ReadOptions{Wait: 10 * time.Second})
			answers <- answer{value: string(r.Value), err: err}
		}()
		go func() {
			r, err := patient.Put(wait, "stop", fmt.Appendf(nil, "late%d", i), []byte("x"), client.WriteOptions{Wait: 10 * time.Second})
			answers <- answer{value: "after", journal: r.Journal, err: err}
		}()
	}
	next := s.next(old.Name)
	if _, err := next.Client.Put(ctx, "stop", []byte("k"), []byte("after"), client.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	if paused := 2 * lease; !sleep(ctx, paused) { // far beyond what the old one may believe in
		t.Fatal(ctx.Err())
	}
	if n := len(answers); n > 0 {
		t.Fatalf("%d requests to a stopped node were answered, or ended", n)
	}
	must(t, old.Resume())
	answered := 0
	for range 2 * each {
		a := <-answers
		switch {
		case a.err != nil:
		case a.value != "after":
			t.Errorf("the resumed node read %q; %q had been acknowledged by %s", a.value, "after", next.Name)
		case strings.HasSuffix(a.journal, "/"+old.Name):
			t.Errorf("the resumed node acknowledged a write in its own journal")
		default:
			answered++
		}
	}
	t.Logf("%d of %d requests that waited in the stopped node were answered", answered, 2*each)
	s.end()
}

// Proves the row "power loss all nodes" as far as processes go: all are killed at once under load, everything acknowledged is
// there afterwards, one primary, no operator needed.
func TestAllKilledAtOnce(t *testing.T) {
	s := tell(t, false, Options{Group: "secondaries: 2"})
	for range 2 {
		for _, name := range s.Names() {
			s.Node(name).Kill()
		}
		must(t, s.Heal())
		s.goesOn()
	}
	s.end()
}

// Proves the row "asymmetric: primary reaches backups, not Raft": it stops at the end of its lease although its backups would
// acknowledge, another one is chosen, and the old one is fenced by their promises.
func TestPrimaryCutFromRaft(t *testing.T) {
	s := tell(t, false, Options{})
	flows := Both([]string{s.primary.Name}, s.Others(s.primary.Name), Raft)
	s.Net.Set(Condition{Hold: true}, flows...)
	s.next(s.primary.Name)
	began := time.Now()
	err := Await(t.Context(), "the old primary has stopped", time.Minute, func(ctx context.Context) error { // a busy machine may answer late
		g, err := s.primary.local(ctx)
		if err == nil && g.Local.Serving {
			if err = errors.New("it serves"); time.Since(began) > lease+time.Second {
				t.Fatal(err)
			}
		}
		return err
	})
	must(t, err)
	s.goesOn()
	s.touched(flows)
	s.end()
}

// Proves the row "asymmetric: primary reaches Raft, not backup": the set shrinks by Raft, writes go on, the role does not move, and
// nothing flaps. The set grows again when the cut is over.
func TestPrimaryCutFromBackups(t *testing.T) {
	const lease = 3 * lease // nobody loses it for a busy machine
	s := tell(t, false, Options{Lease: lease})
	epoch := s.epoch()
	flows := Both([]string{s.primary.Name}, s.Others(s.primary.Name), Ship)
	s.Net.Set(Condition{Hold: true}, flows...)
	alone := func(ctx context.Context) error {
		g, err := s.primary.Client.Group(ctx, group)
		if err == nil && len(g.InSync) > 0 {
			err = fmt.Errorf("in sync: %v", g.InSync)
		}
		return err
	}
	must(t, Await(t.Context(), "the primary is alone", time.Minute, alone))
	s.goesOn()
	if !sleep(t.Context(), 2*lease) {
		t.Fatal(t.Context().Err())
	}
	must(t, alone(t.Context()))
	s.goesOn()
	s.touched(flows)
	s.end()
	if now := s.epoch(); now != epoch {
		t.Errorf("the role moved: epoch %d became %d", epoch, now)
	}
	if changes := strings.Count(s.primary.Log(), "in-sync set changed"); changes > 6 {
		t.Errorf("the set changed %d times: it flaps", changes)
	}
}

// Proves the row "lose Raft quorum": the primary serves until its lease ends, then neither writes nor reads are answered; when the
// quorum is back it goes on.
func TestQuorumLoss(t *testing.T) {
	s := tell(t, true, Options{})
	for _, name := range s.Others(s.primary.Name) {
		s.Node(name).Kill()
	}
	ctx := t.Context()
	refuses := func(ctx context.Context) error {
		_, err := s.primary.Client.Get(ctx, setFile, []byte("x"), client.ReadOptions{Wait: 100 * time.Millisecond})
		if code := client.CodeOf(err); code != client.CodeNoQuorum && code != client.CodeNoPrimary {
			return fmt.Errorf("a read says %v", err)
		}
		return nil
	}
	must(t, Await(ctx, "reads are refused", lease+3*time.Second, refuses))
	if !sleep(ctx, lease) {
		t.Fatal(ctx.Err())
	}
	must(t, refuses(ctx))
	if _, err := s.primary.Client.Put(ctx, "q", []byte("k"), []byte("v"), client.WriteOptions{Wait: 100 * time.Millisecond}); err == nil {
		t.Error("a write was acknowledged without quorum")
	}
	s.end()
}

// Proves S21 in part: gossip that takes a living primary for dead changes nothing, since its lease is renewed.
func TestGossipTakesPrimaryForDead(t *testing.T) {
	s := tell(t, true, Options{})
	epoch := s.epoch()
	others := s.Others(s.primary.Name)
	flows := Both([]string{s.primary.Name}, others, Gossip)
	s.Net.Set(Condition{Hold: true}, flows...)
	must(t, Await(t.Context(), "the others take it for dead", 20*time.Second, func(ctx context.Context) error {
		for _, name := range others {
			st, err := s.Node(name).Client.LocalStatus(ctx)
			if err != nil {
				return err
			}
			for _, n := range st.Nodes {
				if n.ID == s.primary.Name && n.State == "alive" {
					return errors.New(name + " does not")
				}
			}
		}
		return nil
	}))
	s.goesOn()
	if now := s.epoch(); now != epoch {
		t.Errorf("the role moved: epoch %d became %d", epoch, now)
	}
	s.end()
}

// Proves the row "delay 200 ms": a slow network costs time and no role.
func TestSlowNetwork(t *testing.T) {
	s := tell(t, true, Options{})
	epoch := s.epoch()
	flows := Both(s.Names(), s.Names())
	s.Net.Set(Condition{Delay: 200 * time.Millisecond}, flows...)
	if !sleep(t.Context(), 5*lease) {
		t.Fatal(t.Context().Err())
	}
	s.goesOn()
	s.touched(flows)
	s.end()
	if now := s.epoch(); now != epoch {
		t.Errorf("the role moved: epoch %d became %d", epoch, now)
	}
}

// Proves the row "one-way loss, half-open TCP" for the primary: whichever direction is lost, at most one node acknowledges.
func TestOneWayLoss(t *testing.T) {
	for _, direction := range []string{"out", "in"} {
		t.Run(direction, func(t *testing.T) {
			s := tell(t, true, Options{})
			flows := Flows([]string{s.primary.Name}, s.Others(s.primary.Name))
			if direction == "in" {
				flows = Flows(s.Others(s.primary.Name), []string{s.primary.Name})
			}
			s.Net.Set(Condition{Hold: true}, flows...)
			s.next(s.primary.Name)
			s.goesOn()
			s.touched(flows)
			s.end()
		})
	}
}

// Proves the row "asymmetric" for a witness: two data nodes that cannot see each other, with a witness that sees both, have one
// primary at a time.
func TestWitnessSeesBoth(t *testing.T) {
	s := tell(t, true, Options{Witness: "c"})
	flows := Both([]string{"a"}, []string{"b"})
	s.Net.Set(Condition{Hold: true}, flows...)
	s.goesOn()
	if !sleep(t.Context(), 2*lease) {
		t.Fatal(t.Context().Err())
	}
	s.goesOn()
	s.touched(flows)
	s.end()
}
