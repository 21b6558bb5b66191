package node

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/go-hclog"

	"github.com/understudy-ha/understudy/client"
	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/host"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/replica"
)

func assignment(phase fsm.Phase) fsm.Assignment {
	return fsm.Assignment{Self: "a", Life: 7, Group: &fsm.Group{
		Spec: fsm.GroupSpec{Name: "g", Preferred: "a"}, Epoch: 3, Phase: phase, Primary: "a", Incarnation: 7, InSync: []ident.NodeID{"a", "b"},
	}, Nodes: map[ident.NodeID]*fsm.Node{
		"a": {ID: "a", Kind: fsm.KindData, Priority: 100}, "b": {ID: "b", Kind: fsm.KindData, Priority: 100}, "c": {ID: "c", Kind: fsm.KindData, Priority: 50}, "w": {ID: "w", Kind: fsm.KindWitness},
	}}
}

func TestRoleFor(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*fsm.Assignment)
		phase  fsm.Phase
		want   role
	}{
		{"opened and ours", func(*fsm.Assignment) {}, fsm.PhaseOpened, role{primary: true, epoch: 3}},
		{"promoted and ours", func(*fsm.Assignment) {}, fsm.PhasePromoted, role{primary: true, epoch: 3}},
		{"fenced although it was ours", func(*fsm.Assignment) {}, fsm.PhaseFenced, role{}},
		{"an earlier life of this node", func(a *fsm.Assignment) { a.Life = 8 }, fsm.PhaseOpened, role{}},
		{"somebody else", func(a *fsm.Assignment) { a.Self = "b" }, fsm.PhaseOpened, role{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := assignment(c.phase)
			c.change(&a)
			if got := roleFor(a); got != c.want {
				t.Errorf("role %+v, want %+v", got, c.want)
			}
		})
	}
}

func TestPromiseDue(t *testing.T) {
	a := assignment(fsm.PhaseFenced)
	if !promiseDue(a) {
		t.Error("a fenced group without a report needs a promise")
	}
	a.Group.Reports = []fsm.Report{{Node: "a", Epoch: 3, Incarnation: 6}}
	if !promiseDue(a) {
		t.Error("the report of an earlier life does not count")
	}
	a.Group.Reports = []fsm.Report{{Node: "a", Epoch: 3, Incarnation: 7}}
	if promiseDue(a) {
		t.Error("promised already")
	}
	if promiseDue(assignment(fsm.PhaseOpened)) {
		t.Error("an open group asks for no promise")
	}
}

func TestSwitchTarget(t *testing.T) {
	a := assignment(fsm.PhaseOpened)
	if to, ok := switchTarget(a); !ok || to != "b" {
		t.Errorf("target %q, want the only in-sync secondary", to)
	}
	a.Group.InSync = []ident.NodeID{"a", "b", "c"}
	if to, _ := switchTarget(a); to != "c" {
		t.Errorf("target %q, want the one with the lowest priority number", to)
	}
	a.Group.Spec.Preferred = "b"
	if to, _ := switchTarget(a); to != "b" {
		t.Errorf("target %q, want the preferred one", to)
	}
	a.Group.InSync = []ident.NodeID{"a"}
	if to, ok := switchTarget(a); ok {
		t.Errorf("target %q, want none", to)
	}
}

// Proves CL-5: what a dry run reports is what the start of a switch-over is judged by.
func TestReadiness(t *testing.T) {
	ready := func() facts {
		return facts{assignment: assignment(fsm.PhaseOpened), to: "b", leader: "c", lag: map[ident.NodeID]int64{"b": 0}, alive: func(ident.NodeID) bool { return true }}
	}
	joins := func(r client.Readiness) string {
		for _, c := range r.Checks {
			if c.Name == "target_in_sync" && c.OK {
				return c.Value
			}
		}
		return "no such check"
	}
	r := readiness(ready())
	if !r.Ready || joins(r) != "in the set" {
		t.Fatalf("not ready: %+v", r.Checks)
	}
	outside := ready()
	outside.assignment.Group.InSync = []ident.NodeID{"a", "c"}
	if r := readiness(outside); !r.Ready || joins(r) != "joins the set first" {
		t.Errorf("a target outside the set: %+v", r.Checks)
	}
	for _, c := range []struct {
		fails  string
		change func(*facts)
	}{
		{"group_open", func(f *facts) { f.assignment.Group.Phase = fsm.PhaseFenced }},
		{"no_operation", func(f *facts) { f.assignment.Group.Operation = &fsm.Operation{ID: 4, Kind: fsm.OperationSwitchover} }},
		{"raft_leader", func(f *facts) { f.leader = "" }},
		{"primary_lease", func(f *facts) { f.lease = errors.New("expired") }},
		{"target", func(f *facts) { f.to = "nobody" }},
		{"target", func(f *facts) { f.to = "w" }},
		{"target", func(f *facts) { f.to = "a" }},
		{"target_alive", func(f *facts) { f.alive = func(ident.NodeID) bool { return false } }},
		{"target_maintenance", func(f *facts) { f.assignment.Nodes["b"].Maintenance = &fsm.Order{Reason: "disk"} }},
		{"target_lag", func(f *facts) { f.lag["b"] = maxSwitchLag + 1 }},
		{"target_lag", func(f *facts) { delete(f.lag, "b") }},
	} {
		t.Run(c.fails, func(t *testing.T) {
			f := ready()
			c.change(&f)
			r := readiness(f)
			var failed []string
			for _, x := range r.Checks {
				if !x.OK {
					failed = append(failed, x.Name)
					if x.Detail == "" {
						t.Errorf("check %s fails without saying what to do", x.Name)
					}
				}
			}
			if r.Ready || len(failed) != 1 || failed[0] != c.fails {
				t.Errorf("ready %v, failed %v, want only %s", r.Ready, failed, c.fails)
			}
		})
	}
}

// pastClock is a wall clock that was set back.
type pastClock struct{ host.Clock }

func (c pastClock) Now() time.Time { return c.Clock.Now().Add(-time.Hour) }

func TestDirectoryRefusesOthers(t *testing.T) {
	fs := vfs.NewMem()
	h := host.Real()
	d, err := openDirectory(fs, "/data", "a", "prod", false, h)
	if err != nil {
		t.Fatal(err)
	}
	first := d.life
	if _, err := openDirectory(fs, "/data", "a", "prod", false, h); err == nil || !strings.Contains(err.Error(), "in use by another process") {
		t.Errorf("a second process on the same directory: %v", err)
	}
	if err := d.SetClusterID("one"); err != nil {
		t.Fatal(err)
	}
	if err := d.SetClusterID("two"); err == nil {
		t.Error("a directory changed its cluster")
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	for name, open := range map[string]func() (*directory, error){
		"belongs to node":    func() (*directory, error) { return openDirectory(fs, "/data", "b", "prod", false, h) },
		"belongs to cluster": func() (*directory, error) { return openDirectory(fs, "/data", "a", "test", false, h) },
	} {
		if _, err := open(); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("want an error with %q, have %v", name, err)
		}
	}
	h.Clock = pastClock{h.Clock} // lives are in order although the wall clock is not
	again, err := openDirectory(fs, "/data", "a", "prod", false, h)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if again.ClusterID() != "one" || again.life <= first || again.id.Directory != d.id.Directory {
		t.Errorf("reopened: cluster %s, life %s (was %s), directory %s (was %s)", again.ClusterID(), again.life, first, again.id.Directory, d.id.Directory)
	}
}

func TestEventsWaitForTheNext(t *testing.T) {
	e := newEvents(hclog.NewNullLogger(), "a", time.Now)
	e.add("info", "g", "ONE", "first", nil)
	got := make(chan []client.Event, 1)
	go func() {
		list, err := e.after(t.Context(), 1, 10*time.Second)
		if err != nil {
			t.Error(err)
		}
		got <- list
	}()
	e.add("info", "g", "TWO", "second", nil)
	if list := <-got; len(list) != 1 || list[0].ID != 2 || list[0].Node != "a" {
		t.Errorf("waited for %+v", list)
	}
	for range keptEvents + 10 {
		e.add("info", "g", "MORE", "more", nil)
	}
	if list, _ := e.after(t.Context(), 0, 0); len(list) != keptEvents || list[len(list)-1].ID != keptEvents+12 {
		t.Errorf("%d events are kept, the last is %d", len(list), list[len(list)-1].ID)
	}
}

// A start that is refused before the node has found its cluster leaves a directory that another node may use.
func TestRefusedStartLeavesNoIdentity(t *testing.T) {
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = busy.Close() }()
	fs := vfs.NewMem()
	c := DefaultConfig()
	c.Node, c.Cluster, c.Data = "a", "prod", "/data"
	c.Listen = Addresses{HTTP: busy.Addr().String(), Gossip: "127.0.0.1:0", Raft: "127.0.0.1:0", Ship: "127.0.0.1:0"}
	_, err = Open(t.Context(), Options{Config: c, FS: fs, RaftDir: t.TempDir(), Host: host.Real(), Logger: hclog.NewNullLogger()})
	var refused *PreconditionError
	if !errors.As(err, &refused) || !strings.Contains(err.Error(), "stop what uses that port") {
		t.Errorf("port in use: %v", err)
	}
	h := host.Real()
	d, err := openDirectory(fs, "/data", "a", "prod", false, h) // as far as a start gets that the cluster refuses
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if d, err = openDirectory(fs, "/data", "b", "prod", false, h); err != nil {
		t.Fatalf("another node id is refused: %v", err)
	}
	defer d.Close()
}

// A primary without a lease says for how long, so that a bound on the age holds; one that never had a lease has no age.
func TestAgeWithoutLease(t *testing.T) {
	now := time.Hour
	l := newLeaseAges(func() time.Duration { return now })
	gone := errors.New("expired")
	s := replica.Status{Group: "g", Role: replica.RolePrimary, Serving: true}
	if age := l.copyLag(s, gone); age != -1 || tooOld(age, time.Second) == nil || tooOld(age, 0) != nil {
		t.Errorf("never had one: %v", age)
	}
	if age := l.copyLag(s, nil); age != 0 || tooOld(age, time.Second) != nil {
		t.Errorf("with a lease: %v", age)
	}
	now += 3 * time.Second
	if age := l.copyLag(s, gone); age != 3 || tooOld(age, 5*time.Second) != nil || !errors.Is(tooOld(age, time.Second), client.ErrStale) {
		t.Errorf("3 s without: %v", age)
	}
	if age := l.copyLag(replica.Status{Group: "g", Role: replica.RoleBackup, LagSeconds: 0.5}, gone); age != 0.5 {
		t.Errorf("a backup has no lease: %v", age)
	}
	if age := l.copyLag(replica.Status{Group: "g", Role: replica.RolePrimary, LagSeconds: 7}, nil); age != 7 {
		t.Errorf("a lease makes the copy of a primary that still recovers no younger: %v", age)
	}
}

// What was read is as old as the copy was before, and older by the time until the answer, also when the copy has become level meanwhile.
// Proves HB-3.
func TestAgeOfWhatWasRead(t *testing.T) {
	for _, tc := range []struct{ before, after, want float64 }{{0.5, 0, 1.5}, {0.5, 1.5, 1.5}, {0.5, 4, 4}, {0, 0, 1}, {-1, 0, -1}, {0, -1, -1}} {
		if got := aged(tc.before, tc.after, time.Second); got != tc.want {
			t.Errorf("%v before, %v after a second: %v, want %v", tc.before, tc.after, got, tc.want)
		}
	}
}

// A server says in its data directory which process it is, for as long as it runs.
func TestRunWritesPid(t *testing.T) {
	c := DefaultConfig()
	c.Node, c.Cluster, c.Data, c.Bootstrap = "a", "prod", t.TempDir(), true
	c.Listen = Addresses{HTTP: "127.0.0.1:0", Gossip: "127.0.0.1:0", Raft: "127.0.0.1:0", Ship: "127.0.0.1:0"}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- Run(ctx, c, hclog.NewNullLogger()) }()
	path := filepath.Join(c.Data, "pid")
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if raw, err := os.ReadFile(path); err == nil && strings.TrimSpace(string(raw)) == strconv.Itoa(os.Getpid()) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("there is no pid file")
		}
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("after a clean stop: %v", err)
	}
}
