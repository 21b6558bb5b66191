package testcluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/understudy-ha/understudy/client"
	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
)

// The published scenario: systems a and b, local journals PJ1 (on a) and PJ2 (on b), BJ1 the copy of PJ1 on b, BJ2 the copy
// of PJ2 on a. The sequence numbers are those of the publication.
const (
	firstConfirmed = 12  // PJ1
	lastConfirmed  = 19  // PJ1
	lastDeposited  = 25  // PJ1
	beforeSwitch   = 137 // last entry of PJ2 before a fails: J NR is 138, J PR is 139
	firstReplayed  = 140 // PJ2
	switchEntry    = 146 // PJ2
	lastAlone      = 200 // PJ2
	lastResync     = 300 // PJ2
)

// jkl drives the scenario and keeps what was acknowledged.
type jkl struct {
	*Cluster
	t     *testing.T
	ctx   context.Context
	acked map[string]string // key to value
	count int
}

// Proves RJ-12, and with its checks RJ-4, RJ-6, RJ-8, RJ-10 and RJ-11.
func TestScenarioJKL(t *testing.T) {
	t.Run("sync", func(t *testing.T) { newJKL(t, fsm.DeliverySync).sync() })
	t.Run("async", func(t *testing.T) { newJKL(t, fsm.DeliveryAsync).async() })
}

func newJKL(t *testing.T, d fsm.Delivery) *jkl {
	s := &jkl{Cluster: Start(t, Options{Group: fsm.GroupSpec{Images: "both", Delivery: d, AutoFailover: "lossless"}}), t: t, ctx: t.Context(), acked: map[string]string{}}
	s.step("set up: b works for a while, so that PJ2 ends at %d; then a is primary and PJ1 holds %d-%d, confirmed and replayed", beforeSwitch, firstConfirmed, lastConfirmed)
	s.switchover("a", "b")
	// The switch back to a leaves J NR and J PR at the end of PJ2.
	s.fill("b", beforeSwitch-2)
	s.switchover("b", "a")
	s.expect("a", "a", firstConfirmed-1, func(last uint64) { s.fill("a", firstConfirmed-1) })
	s.fill("a", lastConfirmed)
	s.Wait("b has replayed 12-19", 10*time.Second, func() error {
		bj1 := s.journal("b", "a")
		if bj1.Confirmed != lastConfirmed || bj1.Applied != lastConfirmed {
			return fmt.Errorf("BJ1 %+v", bj1)
		}
		if pj2 := s.journal("b", "b"); pj2.Last != beforeSwitch || pj2.State != client.JournalStandby {
			return fmt.Errorf("PJ2 %+v", pj2)
		}
		return nil
	})
	s.show("12-19 are confirmed in BJ1 and replayed", "b")
	return s
}

func (s *jkl) sync() {
	s.step("a's disk hangs; 20-25 are deposited, shipped and unconfirmed in BJ1; nobody got an acknowledgement")
	a := s.Node("a")
	a.Disk().Pause("replica.seal:default") // so that the six writes come into one bundle
	var writers sync.WaitGroup
	for i := range lastDeposited - lastConfirmed {
		key, value := s.next()
		writers.Go(func() {
			ctx, cancel := context.WithTimeout(s.ctx, time.Minute)
			defer cancel()
			if _, err := a.Client().Put(ctx, "file", []byte(key), []byte(value), client.WriteOptions{}); err == nil {
				s.t.Errorf("write %d was acknowledged although its primary never had it on disk", i)
			}
		})
	}
	s.Wait("six writes wait", 10*time.Second, func() error {
		if n := a.Waiting(); n != lastDeposited-lastConfirmed {
			return fmt.Errorf("%d wait", n)
		}
		return nil
	})
	a.Disk().Hang("journal.sync:default/a")
	a.Disk().Resume("replica.seal:default")
	s.Wait("BJ1 holds 20-25", 10*time.Second, func() error {
		if bj1 := s.journal("b", "a"); bj1.Durable != lastDeposited || bj1.Confirmed != lastConfirmed || bj1.Applied != lastConfirmed {
			return fmt.Errorf("BJ1 %+v", bj1)
		}
		return nil
	})
	s.show("20-25 are unconfirmed in BJ1 and not replayed", "b")
	if n := len(s.entries("b", "a", client.EntryFilter{From: lastConfirmed + 1})); n != 0 {
		s.t.Errorf("a reader of BJ1 sees %d unconfirmed entries without asking for them", n)
	}
	if n := len(s.entries("b", "a", client.EntryFilter{From: lastConfirmed + 1, IncludeAll: true})); n != lastDeposited-lastConfirmed {
		s.t.Errorf("a reader of BJ1 who asks for all sees %d unconfirmed entries, want 6", n)
	}
	tail := s.entries("b", "a", client.EntryFilter{From: lastConfirmed + 1, IncludeAll: true})

	s.step("RJ-8 switch-over, unplanned: a dies; its disk has PJ1 up to 19")
	a.Crash()
	writers.Wait()
	s.opened("b")
	s.step("RJ-8 (1) everything confirmed was replayed; (2) a new receiver was attached to PJ2, which is ACTIVE")
	pj2 := s.journal("b", "b")
	if pj2.State != client.JournalActive || pj2.Last != switchEntry {
		s.t.Fatalf("PJ2 %+v, want ACTIVE and last %d", pj2, switchEntry)
	}
	attached := s.attached("b", "b")
	if attached.First != firstReplayed-1 {
		s.t.Errorf("the receiver attached to PJ2 begins at %d, want J PR at %d", attached.First, firstReplayed-1)
	}
	s.step("RJ-8 (3) 20-25 were replayed into the replica and stand in PJ2 as 140-145")
	moved := s.entries("b", "b", client.EntryFilter{From: firstReplayed, To: switchEntry - 1, IncludeAll: true})
	if len(moved) != len(tail) {
		s.t.Fatalf("PJ2 holds %d entries from 140 to 145, BJ1 held %d", len(moved), len(tail))
	}
	for i := range moved {
		if moved[i].Position != tail[i].Position || moved[i].Text != tail[i].Text || moved[i].Type != tail[i].Type || string(moved[i].After.Value) != string(tail[i].After.Value) {
			s.t.Errorf("PJ2 %d is not BJ1 %d: %+v, %+v", moved[i].Sequence, tail[i].Sequence, moved[i], tail[i])
		}
		s.acked[tail[i].Text] = string(tail[i].After.Value) // they live on
	}
	s.step("RJ-8 (4) BJ1 is inactive: its unconfirmed entries are physically gone")
	s.Wait("BJ1 ends at 19", 10*time.Second, func() error {
		if bj1 := s.journal("b", "a"); bj1.Last != lastConfirmed || bj1.State != client.JournalInactive {
			return fmt.Errorf("BJ1 %+v", bj1)
		}
		return nil
	})
	s.step("RJ-8 (5) U SW at 146 carries the last sequence number known in BJ1")
	s.checkSwitchEntry(switchEntry, lastConfirmed)
	s.step("RJ-8 (6) open for applications: 147-200 while a is down")
	s.fill("b", lastAlone)
	s.show("147-200 deposited", "b")

	s.step("RJ-10 (1) a returns: IPL deposits 20 in PJ1")
	s.returns(lastConfirmed + 1)
	s.switchBack(lastConfirmed + 1)
}

func (s *jkl) async() {
	s.step("a is cut off; 20-25 are deposited and acknowledged at a alone (async) and trapped there")
	a := s.Node("a")
	s.Cut("a", "b", true)
	s.Cut("a", "c", true)
	var trapped []string
	for range lastDeposited - lastConfirmed {
		key, value := s.next()
		ctx, cancel := context.WithTimeout(s.ctx, 20*time.Second)
		if _, err := a.Client().Put(ctx, "file", []byte(key), []byte(value), client.WriteOptions{}); err != nil {
			s.t.Fatalf("async write at the isolated primary: %v", err)
		}
		cancel()
		trapped = append(trapped, key)
	}
	a.Stop() // its store is flushed with them, so that coming back means to undo
	s.step("RJ-8: nobody may be promoted without loss; the operator accepts it")
	b := s.Node("b")
	s.Wait("a's lease is over and b is not primary by itself", 10*time.Second, func() error {
		g, err := b.Client().Group(s.ctx, "default")
		if err != nil {
			return err
		}
		if g.Phase == "opened" && g.Epoch == s.epoch() {
			return nil
		}
		return fmt.Errorf("phase %s epoch %d", g.Phase, g.Epoch)
	})
	var refused *client.Error
	if _, err := b.Client().Failover(s.ctx, "default", client.FailoverRequest{To: "b"}, 10*time.Second); !errors.As(err, &refused) || !errors.Is(err, client.ErrPrecondition) {
		s.t.Fatalf("failover without accepting loss: %v, want a refused precondition", err)
	}
	for try := 0; ; try++ {
		forecast, err := b.Client().ForecastFailover(s.ctx, "default", client.FailoverRequest{To: "b", AllowDataLoss: true})
		if err != nil || forecast.Exact || forecast.Loss == "none" {
			s.t.Fatalf("forecast: %+v, %v", forecast, err)
		}
		_, err = b.Client().Failover(s.ctx, "default", client.FailoverRequest{To: "b", AllowDataLoss: true, Confirm: "default",
			AcceptLossBeyond: forecast.Beyond, AcceptLossHighest: forecast.Highest}, 20*time.Second)
		if err == nil {
			break
		}
		if !errors.As(err, &refused) || refused.Forecast == nil || refused.Forecast.Epoch == forecast.Epoch || try > 0 {
			s.t.Fatalf("failover: %v", err)
		} // a's lease ran out between the two, which fences the group: the forecast is looked at again
	}
	s.opened("b")
	if pj2 := s.journal("b", "b"); pj2.State != client.JournalActive || pj2.Last != firstReplayed {
		s.t.Fatalf("PJ2 %+v, want ACTIVE and U SW at %d (there is nothing to replay)", pj2, firstReplayed)
	}
	s.checkSwitchEntry(firstReplayed, lastConfirmed)
	s.step("RJ-8: open for applications: 141-200 while a is down")
	s.fill("b", lastAlone)

	s.step("RJ-10 (1) a returns: IPL deposits 26 in PJ1; 20-25 are backed out")
	s.returns(lastDeposited + 1)
	s.step("RJ-10: the back-out report lists the trapped entries")
	reports, err := a.Client().Backouts(s.ctx, "default")
	if err != nil || len(reports) != 1 {
		s.t.Fatalf("back-out reports: %+v, %v", reports, err)
	}
	report, err := a.Client().Backout(s.ctx, "default", reports[0].ID)
	if err != nil {
		s.t.Fatal(err)
	}
	for i, e := range report.Entries {
		fmt.Printf("    backed out: %s sequence %d position %s key %s lives on: %v\n", report.Journal, e.Sequence, e.Position, e.Text, e.LivesOn)
		if e.Sequence != uint64(lastConfirmed+1+i) || e.Text != trapped[i] || e.LivesOn || !e.Undone || e.After == nil {
			s.t.Errorf("entry %d of the report is %+v, want sequence %d of key %s, undone and lost", i, e, lastConfirmed+1+i, trapped[i])
		}
	}
	if len(report.Entries) != len(trapped) || report.Lost != len(trapped) {
		s.t.Errorf("the report lists %d entries, %d lost; want %d", len(report.Entries), report.Lost, len(trapped))
	}
	s.switchBack(lastDeposited + 1)
}

// returns starts a again and follows RJ-10 to its end.
func (s *jkl) returns(ipl uint64) {
	a := s.Node("a")
	a.Start()
	s.Wait("the IPL entry is in PJ1", 10*time.Second, func() error {
		entries, err := a.Client().Entries(s.ctx, "default", "a", client.EntryFilter{From: ipl, To: ipl, IncludeAll: true, Limit: 10})
		if err == nil && (len(entries) != 1 || entries[0].Code != "J" || entries[0].Type != "IN") {
			err = fmt.Errorf("PJ1 %d is %+v, want J IN", ipl, entries)
		}
		return err
	})
	s.step("RJ-10 (2) BJ2 is filled from the recorded receiver of PJ2 while applications go on: 201-300")
	s.fill("b", lastResync)
	s.Wait("a is level", 20*time.Second, func() error {
		g, err := s.Node("b").Client().Group(s.ctx, "default")
		if err != nil {
			return err
		}
		for _, t := range g.Targets {
			if t.Node == "a" && t.Applied == lastResync {
				return nil
			}
		}
		return fmt.Errorf("targets %+v", g.Targets)
	})
	s.step("RJ-10 (3) a is level with b; data equal on all nodes")
	s.show("after the resynchronization", "a")
	bj2, pj1 := s.journal("a", "b"), s.journal("a", "a")
	if bj2.State != client.JournalActive || bj2.Last != lastResync || pj1.State != client.JournalStandby || pj1.Last < ipl {
		s.t.Errorf("BJ2 %+v, PJ1 %+v: want BJ2 ACTIVE to %d and PJ1 STANDBY", bj2, pj1, lastResync)
	}
	s.equal()
}

// switchBack returns the role to a as RJ-11 says.
func (s *jkl) switchBack(ipl uint64) {
	s.step("RJ-11 switch-back: applications end, the rest drains, the role returns to a")
	before := s.journal("a", "a").Last
	pj2 := s.attached("b", "b")
	s.switchover("b", "a")
	pj1 := s.journal("a", "a")
	entries := s.entries("a", "a", client.EntryFilter{From: before + 1, IncludeAll: true})
	if len(entries) != 3 || entries[0].Type != "NR" || entries[1].Type != "PR" || entries[2].Type != "SW" {
		s.t.Fatalf("PJ1 after the switch-back: %+v, want J NR, J PR, U SW", entries)
	}
	if r := s.attached("a", "a"); r.First != before+2 || pj1.State != client.JournalActive {
		s.t.Errorf("PJ1 %+v with receiver %+v: want ACTIVE with a new receiver from %d", pj1, r, before+2)
	}
	s.step("RJ-11: BJ1 is active from the attached receiver, PJ2 STANDBY with a new receiver, the apply runs again")
	s.fill("a", pj1.Last+10)
	s.Wait("b replays", 20*time.Second, func() error {
		bj1, local := s.journal("b", "a"), s.journal("b", "b")
		if bj1.State != client.JournalActive || bj1.Applied != pj1.Last+10 || local.State != client.JournalStandby {
			return fmt.Errorf("BJ1 %+v, PJ2 %+v", bj1, local)
		}
		if r := s.attached("b", "b"); r.Number != pj2.Number+1 {
			return fmt.Errorf("receiver of PJ2 %+v, was %+v", r, pj2)
		}
		return nil
	})
	s.show("after the switch-back", "b")
	s.equal()
}

// equal compares the content of all nodes with each other and with what was acknowledged.
func (s *jkl) equal() {
	s.t.Helper()
	s.Wait("all nodes have equal content at equal positions", 20*time.Second, func() error {
		var first client.Digest
		for i, id := range s.options.Nodes {
			d, err := s.Node(id).Client().Digest(s.ctx, "default")
			if err != nil {
				return err
			}
			if d.Node = ""; i == 0 {
				first = d
			}
			if d != first {
				return fmt.Errorf("node %s %+v, first %+v", id, d, first)
			}
		}
		if first.Records != uint64(len(s.acked)) {
			return fmt.Errorf("%d records, %d were acknowledged", first.Records, len(s.acked))
		}
		return nil
	})
	for key, value := range s.acked {
		r, err := s.Node("c").Client().Get(s.ctx, "file", []byte(key), client.ReadOptions{Local: true})
		if err != nil || string(r.Value) != value {
			s.t.Fatalf("%s is %q on c (%v), acknowledged was %q", key, r.Value, err, value)
		}
	}
}

func (s *jkl) checkSwitchEntry(at, known uint64) {
	s.t.Helper()
	sw := s.entries("b", "b", client.EntryFilter{From: at, To: at, IncludeAll: true})
	var data struct {
		Journal string `json:"journal"`
		Last    uint64 `json:"last"`
	}
	if len(sw) != 1 || sw[0].Code != "U" || sw[0].Type != "SW" {
		s.t.Fatalf("PJ2 %d is %+v, want U SW", at, sw)
	}
	if err := json.Unmarshal(sw[0].Data, &data); err != nil || data.Journal != "default/a" || data.Last != known {
		s.t.Errorf("U SW carries %s (%v), want journal default/a and last %d", sw[0].Data, err, known)
	}
}

// fill writes single records at node until its journal ends at last.
func (s *jkl) fill(id ident.NodeID, last uint64) {
	s.t.Helper()
	for {
		key, value := s.next()
		ctx, cancel := context.WithTimeout(s.ctx, 10*time.Second)
		w, err := s.Node(id).Client().Put(ctx, "file", []byte(key), []byte(value), client.WriteOptions{})
		cancel()
		if err != nil {
			s.t.Fatalf("write at %s: %v\n%s", id, err, s.tail())
		}
		s.acked[key] = value
		if w.Journal != "default/"+string(id) || w.Sequence > last {
			s.t.Fatalf("write at %s came to %s %d, beyond %d", id, w.Journal, w.Sequence, last)
		}
		if w.Sequence == last {
			return
		}
	}
}

// expect calls f while the journal ends before last.
func (s *jkl) expect(at, of ident.NodeID, last uint64, f func(uint64)) {
	s.t.Helper()
	if have := s.journal(at, of).Last; have < last {
		f(have)
	}
}

func (s *jkl) next() (key, value string) {
	s.count++
	return fmt.Sprintf("key%03d", s.count%80), fmt.Sprintf("value %d", s.count)
}

func (s *jkl) epoch() uint64 {
	g, err := s.Node("b").Client().Group(s.ctx, "default")
	if err != nil {
		s.t.Fatal(err)
	}
	return g.Epoch
}

func (s *jkl) switchover(from, to ident.NodeID) {
	s.t.Helper()
	s.Wait("the cluster is settled", 20*time.Second, s.settled)
	op, err := s.Node(from).Client().Switchover(s.ctx, "default", client.SwitchoverRequest{To: string(to)}, 20*time.Second)
	if err != nil || op.State != client.OperationDone {
		s.t.Fatalf("switch-over from %s to %s: %+v, %v\n%s", from, to, op, err, s.tail())
	}
	s.opened(to)
}

// opened waits until id serves and every running node knows.
func (s *jkl) opened(id ident.NodeID) {
	s.t.Helper()
	s.Wait(fmt.Sprintf("%s serves", id), 20*time.Second, func() error {
		g, err := s.Node(id).Client().Group(s.ctx, "default")
		if err != nil {
			return err
		}
		if g.Primary != string(id) || !g.Local.Serving {
			return fmt.Errorf("primary %s, phase %s, local %+v", g.Primary, g.Phase, g.Local)
		}
		return nil
	})
}

func (s *jkl) journal(at, of ident.NodeID) client.Journal {
	s.t.Helper()
	list, err := s.Node(at).Client().Journals(s.ctx, "default")
	if err != nil {
		s.t.Fatal(err)
	}
	for _, j := range list {
		if j.Node == string(of) {
			return j
		}
	}
	return client.Journal{}
}

func (s *jkl) attached(at, of ident.NodeID) client.Receiver {
	s.t.Helper()
	list, err := s.Node(at).Client().Receivers(s.ctx, "default", string(of))
	if err != nil || len(list) == 0 || !list[len(list)-1].Attached {
		s.t.Fatalf("receivers of %s on %s: %+v, %v", of, at, list, err)
	}
	return list[len(list)-1]
}

func (s *jkl) entries(at, of ident.NodeID, f client.EntryFilter) []client.Entry {
	s.t.Helper()
	if f.Limit == 0 {
		f.Limit = 1000
	}
	list, err := s.Node(at).Client().Entries(s.ctx, "default", string(of), f)
	if err != nil {
		s.t.Fatalf("entries of %s on %s: %v", of, at, err)
	}
	return list
}

func (s *jkl) step(format string, args ...any) { fmt.Printf("JKL "+format+"\n", args...) }

func (s *jkl) show(what string, at ident.NodeID) {
	s.t.Helper()
	list, err := s.Node(at).Client().Journals(s.ctx, "default")
	if err != nil {
		s.t.Fatal(err)
	}
	for _, j := range list {
		fmt.Printf("    %-40s on %s: journal %s %-8s last %d confirmed %d applied %d receiver %06d\n", what, at, j.ID, j.State, j.Last, j.Confirmed, j.Applied, j.Attached)
	}
}
