package node

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/go-hclog"

	"github.com/understudy-ha/understudy/client"
	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/host"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal"
	"github.com/understudy-ha/understudy/replica"
	"github.com/understudy-ha/understudy/replica/store"
)

// Proves HB-2: local files are off unless somebody says otherwise, their journal is bounded, and no group takes their name.
func TestLocalFilesConfiguration(t *testing.T) {
	d := DefaultConfig()
	if d.LocalFiles || d.LocalJournal.KeepReceivers != 16 || len(d.LocalJournal.check()) > 0 {
		t.Errorf("default: %v %+v, %v", d.LocalFiles, d.LocalJournal, d.LocalJournal.check())
	}
	good := defaultLocalJournal()
	for want, change := range map[string]func(*LocalJournal){
		"receiver_bytes": func(l *LocalJournal) { l.ReceiverBytes = 1000 },
		"keep_receivers": func(l *LocalJournal) { l.KeepReceivers = 0 },
		"blocks":         func(l *LocalJournal) { l.MaximumBlocks = -1 },
		"receiver_age":   func(l *LocalJournal) { l.ReceiverAge = time.Millisecond },
	} {
		bad := good
		change(&bad)
		if p := bad.check(); len(p) == 0 || !strings.Contains(errors.Join(p...).Error(), want) {
			t.Errorf("%s: %v", want, p)
		}
	}
	groups := []fsm.GroupSpec{{Name: localGroup, Files: []string{"*"}}}
	c := d
	c.Node, c.Cluster, c.Data, c.Bootstrap, c.Groups = "a", "test", "/d", true, groups
	if err := c.Validate(); err == nil || !strings.Contains(err.Error(), "groups[0].name") {
		t.Errorf("a group called local: %v", err)
	}
	c.Groups = nil
	if err := c.Validate(); err != nil {
		t.Errorf("without it: %v", err)
	}
}

// Proves HB-2: nobody is sent to another node for local files, whatever fails, and nothing that is told of them speaks of a primary.
func TestLocalErrorsStayHere(t *testing.T) {
	n := &Node{config: Config{Node: "b", Kind: fsm.KindData, LocalFiles: true}}
	n.local = newLocal(n)
	full := &journal.FullError{Journal: ident.JournalID{Group: localGroup, Node: "b"}, Reason: journal.FullDisk, Err: syscall.ENOSPC}
	for want, all := range map[client.Code][]error{
		client.CodeUnavailable: {replica.ErrNotPrimary, replica.ErrNoLease, replica.ErrNotReconciled, replica.ErrClosed},
		client.CodeJournalFull: {errors.Join(replica.ErrJournalFull, full)},
		client.CodeNotFound:    {replica.ErrNotFound},
	} {
		for _, err := range all {
			var e *client.Error
			if told := n.explain(localGroup, err); !errors.As(told, &e) || e.Code != want || want == client.CodeJournalFull && !strings.Contains(e.Remedy, "local_journal") {
				t.Errorf("%v: %v", err, told)
			}
		}
	}
	unknown := &replica.UnknownOutcomeError{Position: ident.Position{Epoch: 1, History: 2}, Reason: replica.ErrNotPrimary}
	if err := n.explainWrite(localGroup, unknown); client.CodeOf(err) != client.CodeUnknownOutcome || !strings.Contains(err.Error(), "node b") {
		t.Errorf("unknown outcome: %v", err)
	}
	n.local.failed = errors.New("the disk is gone")
	if err := n.explain(localGroup, replica.ErrNotPrimary); !strings.Contains(err.Error(), "the disk is gone") {
		t.Errorf("after a failure: %v", err)
	}
	if s := n.local.status(); s == nil || s.Writable || s.Error == "" || s.Node != "b" {
		t.Errorf("status after a failure: %+v", s)
	}
	if !n.local.reads(localGroup, false) || n.local.reads("orders", false) || !n.local.reads("orders", true) {
		t.Error("after a failure local reads, and only those, are answered from the store")
	}
}

// Proves HB-2: who is off, or a witness, has no local files and says so; a state that is older than this life decides nothing.
func TestLocalFilesAreNotGuessed(t *testing.T) {
	state := &fsm.State{Groups: map[ident.GroupName]*fsm.Group{"orders": {Spec: fsm.GroupSpec{Name: "orders", Files: []string{"orders*"}}}},
		Nodes: map[ident.NodeID]*fsm.Node{"b": {ID: "b", Incarnation: 6}}}
	ask := func(kind fsm.NodeKind, on bool, life ident.Incarnation, st *fsm.State) error {
		n := &Node{config: Config{Node: "b", Kind: kind, LocalFiles: on}, directory: &directory{life: life}}
		n.local = newLocal(n)
		n.local.rep = &replica.Replica{}
		_, err := data{n}.noOwner(t.Context(), newSelection(st), "notes")
		return err
	}
	if err := ask(fsm.KindData, true, 6, state); err != nil {
		t.Errorf("a node that knows its groups: %v", err)
	}
	for _, c := range []struct {
		kind fsm.NodeKind
		on   bool
		life ident.Incarnation
		st   *fsm.State
		code client.Code
		text string
	}{
		{fsm.KindData, false, 6, state, client.CodeUnknownGroup, "local_files"},
		{fsm.KindWitness, true, 6, state, client.CodeUnknownGroup, "witness"},
		{fsm.KindData, true, 7, state, client.CodeUnavailable, "restarted"},
		{fsm.KindData, true, 6, &fsm.State{}, client.CodeUnavailable, "no group yet"},
	} {
		if err := ask(c.kind, c.on, c.life, c.st); client.CodeOf(err) != c.code || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%+v: %v", c, err)
		}
	}
	if kinds := []string{owner("orders"), owner(localGroup)}; !slices.Equal(kinds, []string{"group orders", "no group, so that it is local to a node"}) {
		t.Errorf("%q", kinds)
	}

	// A key outside the ranges of a file that groups share is a mistake, not a local record.
	part := &fsm.State{Nodes: state.Nodes, Groups: map[ident.GroupName]*fsm.Group{
		"early": {Spec: fsm.GroupSpec{Name: "early", Files: []string{"notes"}, Keys: fsm.KeyRange{To: "m"}}},
	}}
	if err := ask(fsm.KindData, true, 6, part); client.CodeOf(err) != client.CodeUnknownGroup || !strings.Contains(err.Error(), "other keys") || strings.Contains(err.Error(), "local_files") {
		t.Errorf("a file some of whose keys a group selects: %v", err)
	}
}

// Proves HB-2: a node that has restarted lists no local files, to other nodes neither, before it knows which of them a group has come to select.
func TestLocalFilesAreNotListedTooEarly(t *testing.T) {
	n := &Node{config: Config{Node: "b", Kind: fsm.KindData, LocalFiles: true}, directory: &directory{life: 2}}
	n.local = newLocal(n)
	n.local.rep = new(replica.Replica) // which cannot be asked
	st := stateOf(fsm.GroupSpec{Name: "orders", Files: []string{"orders"}})
	st.Nodes = map[ident.NodeID]*fsm.Node{"b": {ID: "b", Incarnation: 1}}
	if files, err := n.local.files(newSelection(st)); err != nil || files != nil {
		t.Errorf("by the state of an earlier life: %q, %v", files, err)
	}
}

// servedLocal is the part of a node that keeps local files, with nothing else of it.
func servedLocal(t *testing.T) *local {
	t.Helper()
	fs, machine := vfs.NewMem(), host.Real()
	data, err := store.Open(store.Options{FS: fs, Dir: "store", Logger: hclog.NewNullLogger()})
	if err != nil {
		t.Fatal(err)
	}
	n := &Node{config: Config{Node: "b", Kind: fsm.KindData, LocalFiles: true}, directory: &directory{life: 1}, log: hclog.NewNullLogger(),
		events: newEvents(hclog.NewNullLogger(), "b", machine.Clock.Now)}
	l := newLocal(n)
	n.local = l
	if l.plane, err = replica.OpenSolitary(replica.SolitaryOptions{FS: fs, Dir: "local", Cluster: "c1", Node: "b", Directory: "d-b", Life: 1, Group: localGroup,
		Spec: defaultLocalJournal().spec(), Clock: machine.Clock}); err != nil {
		t.Fatal(err)
	}
	if l.rep, err = replica.Open(replica.Options{Cluster: "c1", Node: "b", Group: localGroup, Life: 1, FS: fs, Dir: "local", Store: data, Host: machine, ReceiverBytes: 1 << 20}); err != nil {
		t.Fatal(err)
	}
	l.rep.Attach(l.plane)
	ctx, cancel := context.WithCancel(context.Background())
	var runs sync.WaitGroup
	runs.Go(func() {
		if err := l.plane.Run(ctx, l.rep, func(err error) { t.Log(err) }); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		cancel()
		runs.Wait()
		if err := errors.Join(l.rep.Close(), data.Close()); err != nil {
			t.Error(err)
		}
	})
	if err := l.rep.Wait(t.Context(), func(s replica.Status) bool { return s.Serving }); err != nil {
		t.Fatal(err)
	}
	return l
}

// Proves HB-2: what a group will hide is told when it is planned, since its requests wait from then on; told once, and again after the
// plan was dropped and made anew.
func TestLocalFilesHiddenByAPlan(t *testing.T) {
	l := servedLocal(t)
	if _, err := l.rep.Write(t.Context(), replica.Transaction{Writes: []replica.Write{{File: "notes", Key: []byte("k"), Value: []byte("v")}}}); err != nil {
		t.Fatal(err)
	}
	orders := fsm.GroupSpec{Name: "orders", Files: []string{"orders*"}}
	notes := fsm.GroupSpec{Name: "notes", Files: []string{"notes*"}}
	without, with := stateOf(orders), stateOf(orders, notes)
	planned := stateOf(orders)
	planned.Planned = []fsm.Plan{{ID: 1, Spec: notes}}
	kept := hiders(without)
	if maps.Equal(kept, hiders(planned)) || maps.Equal(hiders(planned), hiders(with)) {
		t.Error("a plan, or its end, is no reason to look again")
	}
	restarted := stateOf(orders) // of the life before
	restarted.Nodes = map[ident.NodeID]*fsm.Node{"b": {ID: "b"}}
	if _, err := (data{l.n}).noOwner(t.Context(), newSelection(restarted), "notes"); client.CodeOf(err) != client.CodeUnavailable || !strings.Contains(err.Error(), "group=local") {
		t.Errorf("by the state of an earlier life: %v", err)
	}
	if group, rep, err := (data{l.n}).ownerOf(t.Context(), "notes", []byte("k"), client.LocalGroup); group != localGroup || rep != l.rep || err != nil {
		t.Errorf("asked for by name, whatever the state: %s, %v", group, err)
	}
	told, events := map[string]bool{}, 0
	for _, c := range []struct {
		what    string
		st      *fsm.State
		hidden  bool
		planned bool
		news    bool
	}{
		{"nobody selects it", without, false, false, false},
		{"planned", planned, true, true, true},
		{"planned still", planned, true, true, false},
		{"the plan was dropped", without, false, false, false},
		{"planned anew", planned, true, true, true},
		{"created", with, true, false, false},
	} {
		hidden, err := l.look(t.Context(), newSelection(c.st))
		if err != nil {
			t.Fatal(err)
		}
		l.tell(hidden, told)
		if c.hidden != (len(hidden) == 1) || c.hidden && (hidden[0].Group != "notes" || hidden[0].Records != 1 || hidden[0].Planned != c.planned) {
			t.Errorf("%s: %+v", c.what, hidden)
		}
		if c.hidden && strings.Contains(hiddenText("b", hidden[0]), "planned") != c.planned {
			t.Errorf("%s: %s", c.what, hiddenText("b", hidden[0]))
		}
		if c.news {
			events++
		}
		if got := len(eventsOf(l.n, "LOCAL_HIDDEN")); got != events {
			t.Errorf("%s: %d events, want %d", c.what, got, events)
		}
	}
}

func eventsOf(n *Node, kind string) (out []client.Event) {
	all, _ := n.events.since(0)
	for _, e := range all {
		if e.Kind == kind {
			out = append(out, e)
		}
	}
	return out
}
