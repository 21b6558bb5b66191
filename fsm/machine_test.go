package fsm

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/understudy-ha/understudy/internal/ident"
)

// sink is a raft.SnapshotSink that can fail.
type sink struct {
	bytes.Buffer
	fail             error
	closed, canceled bool
}

func (s *sink) Write(p []byte) (int, error) {
	if s.fail != nil {
		return 0, s.fail
	}
	return s.Buffer.Write(p)
}
func (s *sink) ID() string    { return "1" }
func (s *sink) Close() error  { s.closed = true; return nil }
func (s *sink) Cancel() error { s.canceled = true; return nil }

func logged(t *testing.T, index uint64, c Command) *raft.Log {
	t.Helper()
	b, err := EncodeCommand(c)
	if err != nil {
		t.Fatal(err)
	}
	return &raft.Log{Index: index, Data: b}
}

func TestMachine(t *testing.T) {
	var seen []uint64
	var restored *State
	m := &Machine{
		Observe: func(index uint64, c Command, r Result, s *State) {
			if s.Applied != uint64(len(seen))+1 {
				t.Errorf("observed %d commands, the snapshot has %d", len(seen), s.Applied)
			}
			seen = append(seen, index)
		},
		Restored: func(s *State) { restored = s },
	}
	if m.State().Applied != 0 {
		t.Fatal("a new machine is empty")
	}
	commands := []Command{
		{CreateCluster: &CreateCluster{Cluster: "id", Name: "demo"}},
		register("a", KindData),
		{Renew: &Renew{Node: "a", Directory: "dir-a", Incarnation: lifeA, Flushed: map[ident.GroupName]ident.Position{"g": position(1, 2)}}},
		{CreateGroup: &CreateGroup{Spec: spec("g", "a"), Incarnation: lifeA}},
	}
	for i, c := range commands {
		if r := m.Apply(logged(t, uint64(10+i), c)).(Result); r.Refused != "" {
			t.Fatalf("%+v", r)
		}
	}
	if r := m.Apply(&raft.Log{Index: 14, Data: []byte("{")}).(Result); r.Refused != RefusedInvalid {
		t.Fatalf("rubbish: %+v", r)
	}
	if len(seen) != 5 || seen[0] != 10 || seen[4] != 14 {
		t.Fatalf("observed %v", seen)
	}

	before := m.State()
	snap, err := m.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	// Commands applied while Raft writes the snapshot do not show in it.
	m.Apply(logged(t, 15, Command{Open: &Open{Group: "g", Epoch: 1, Node: "a", Incarnation: lifeA, Rows: []ident.HistoryRow{row(1, "a", 1)}, InSync: []ident.NodeID{"a"}}}))
	if before.Groups["g"].Phase != PhasePromoted || m.State().Groups["g"].Phase != PhaseOpened {
		t.Fatal("a snapshot changed")
	}
	var out sink
	if err := snap.Persist(&out); err != nil || !out.closed {
		t.Fatal(err)
	}
	snap.Release()
	full := sink{fail: errors.New("disk full")}
	if err := snap.Persist(&full); !errors.Is(err, full.fail) || !full.canceled || full.closed {
		t.Fatalf("persist on a full disk: %v", err)
	}

	text := out.String()
	if err := m.Restore(io.NopCloser(strings.NewReader(text))); err != nil {
		t.Fatal(err)
	}
	if restored == nil || restored != m.State() || restored.Groups["g"].Phase != PhasePromoted || restored.Nodes["a"].Flushed["g"] != position(1, 2) {
		t.Fatalf("restored %+v", restored)
	}
	for _, bad := range []string{"", "{}", `{"version":2,"state":{}}`, `{"version":1}`, `{"version":1,"state":{"groups":{"g":null}}}`,
		`{"version":1,"state":{"nodes":{"a":{"id":"b"}}}}`, text[:len(text)/2]} {
		if err := m.Restore(io.NopCloser(strings.NewReader(bad))); err == nil {
			t.Errorf("restored %.40q", bad)
		}
	}
	if m.State() != restored {
		t.Error("a failed restore changed the state")
	}
}
