package fsm

import (
	"errors"
	"fmt"
	"io"
	"sync/atomic"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// Machine lets hashicorp/raft drive a State. The zero Machine holds the empty state; the exported fields are set before
// Raft gets it. Raft calls Apply, Snapshot and Restore from one goroutine; State may be called from any.
type Machine struct {
	// Observe is called after each command, on Raft's goroutine, in order, replayed commands included. It must not block.
	Observe func(index uint64, c Command, r Result, snapshot *State)
	// Restored is called when a snapshot replaced the state.
	Restored func(snapshot *State)
	Logger   hclog.Logger // nil: silent

	state    State                 // owned by Raft's goroutine
	snapshot atomic.Pointer[State] // of state, for everybody
}

var _ raft.FSM = (*Machine)(nil)

// State returns an immutable snapshot of the present state.
func (m *Machine) State() *State {
	if s := m.snapshot.Load(); s != nil {
		return s
	}
	return new(State)
}

// Apply executes a command of the Raft log and returns its Result. A command that cannot be read is refused and alarmed: it
// is the same for every node.
func (m *Machine) Apply(l *raft.Log) any {
	c, err := DecodeCommand(l.Data)
	if err != nil {
		c = Command{}
	}
	r := m.state.Apply(c)
	if err != nil {
		r = refuse(RefusedInvalid, "%v", err)
	}
	if (err != nil || r.Refused == RefusedVersion) && m.Logger != nil {
		m.Logger.Error("skipped a command that this program does not understand: are all nodes of the same version?",
			"index", l.Index, "command", c.ID, "version", c.Version, "detail", r.Detail)
	}
	snapshot := m.state.Snapshot()
	m.snapshot.Store(snapshot)
	if m.Observe != nil {
		m.Observe(l.Index, c, r, snapshot)
	}
	return r
}

// Snapshot hands out the present state, which later commands do not touch.
func (m *Machine) Snapshot() (raft.FSMSnapshot, error) { return persister{m.state.Snapshot()}, nil }

// Restore replaces the state by a snapshot's.
func (m *Machine) Restore(rc io.ReadCloser) error {
	s, err := Decode(rc)
	if err = errors.Join(err, rc.Close()); err != nil {
		return fmt.Errorf("restore role state: %w", err)
	}
	m.state = *s
	snapshot := m.state.Snapshot()
	m.snapshot.Store(snapshot)
	if m.Restored != nil {
		m.Restored(snapshot)
	}
	return nil
}

type persister struct{ state *State }

func (p persister) Persist(sink raft.SnapshotSink) error {
	if err := p.state.Encode(sink); err != nil {
		return errors.Join(err, sink.Cancel())
	}
	return sink.Close()
}

func (persister) Release() {}
