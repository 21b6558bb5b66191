package nodesim

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/understudy-ha/understudy/cluster"
)

// raftDisk is Raft's disk in memory, as durable as production's: what a write returned nil for is there after a crash. A
// life that has ended goes on with a copy of its own, which nobody reads.
type raftDisk struct {
	faults *faults

	mu     sync.Mutex
	exists bool
	first  uint64
	logs   []*raft.Log // entry i has index first+i
	keys   map[string][]byte
	nums   map[string]uint64
	snaps  []*snapshot // oldest first, complete ones
}

// snapshot is one complete snapshot.
type snapshot struct {
	meta raft.SnapshotMeta
	body []byte
}

func newRaftDisk(f *faults) *raftDisk {
	return &raftDisk{faults: f, keys: map[string][]byte{}, nums: map[string]uint64{}}
}

// crash returns what the next life finds.
func (d *raftDisk) crash(f *faults) *raftDisk {
	d.mu.Lock()
	defer d.mu.Unlock()
	return &raftDisk{faults: f, exists: d.exists, first: d.first, logs: slices.Clone(d.logs), keys: maps.Clone(d.keys),
		nums: maps.Clone(d.nums), snaps: slices.Clone(d.snaps)}
}

func (d *raftDisk) String() string { return "raft disk" }

// Exists implements cluster.Disk.
func (d *raftDisk) Exists() (bool, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.exists, nil
}

// Open implements cluster.Disk.
func (d *raftDisk) Open(hclog.Logger) (cluster.DiskFiles, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.exists = true
	return cluster.DiskFiles{Log: d, Stable: d, Snapshots: snapshotStore{d}, Close: func() error { return nil }}, nil
}

// Remove implements cluster.Disk.
func (d *raftDisk) Remove() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.exists, d.first, d.logs, d.snaps = false, 0, nil, nil
	clear(d.keys)
	clear(d.nums)
	return nil
}

func (d *raftDisk) FirstIndex() (uint64, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.logs) == 0 {
		return 0, nil
	}
	return d.first, nil
}

func (d *raftDisk) LastIndex() (uint64, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.logs) == 0 {
		return 0, nil
	}
	return d.first + uint64(len(d.logs)) - 1, nil
}

func (d *raftDisk) GetLog(index uint64, l *raft.Log) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.logs) == 0 || index < d.first || index >= d.first+uint64(len(d.logs)) {
		return raft.ErrLogNotFound
	}
	*l = *d.logs[index-d.first]
	return nil
}

func (d *raftDisk) StoreLog(l *raft.Log) error { return d.StoreLogs([]*raft.Log{l}) }

func (d *raftDisk) StoreLogs(list []*raft.Log) error {
	if err := d.faults.before("raft", opSync); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, l := range list {
		own := *l
		switch {
		case len(d.logs) == 0:
			d.first = l.Index
			d.logs = append(d.logs, &own)
		case l.Index >= d.first && l.Index < d.first+uint64(len(d.logs)):
			d.logs[l.Index-d.first] = &own
		case l.Index == d.first+uint64(len(d.logs)):
			d.logs = append(d.logs, &own)
		default:
			return errors.New("a gap in Raft's log")
		}
	}
	return nil
}

func (d *raftDisk) DeleteRange(from, to uint64) error {
	if err := d.faults.before("raft", opSync); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.logs) == 0 {
		return nil
	}
	last := d.first + uint64(len(d.logs)) - 1
	switch {
	case from <= d.first && to >= last:
		d.logs = nil
	case from <= d.first && to >= d.first:
		d.logs, d.first = slices.Clone(d.logs[to+1-d.first:]), to+1
	case to >= last && from <= last:
		d.logs = slices.Clone(d.logs[:from-d.first])
	case from <= last && to >= d.first:
		return errors.New("a hole in Raft's log")
	}
	return nil
}

// A vote that is not stored ends the process in Raft itself, so errors are never injected here: only time.
func (d *raftDisk) Set(k, v []byte) error {
	_ = d.faults.before("raft", opWait)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.keys[string(k)] = slices.Clone(v)
	return nil
}

func (d *raftDisk) Get(k []byte) ([]byte, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	v, ok := d.keys[string(k)]
	if !ok {
		return nil, errors.New("not found")
	}
	return slices.Clone(v), nil
}

func (d *raftDisk) SetUint64(k []byte, v uint64) error {
	_ = d.faults.before("raft", opWait)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.nums[string(k)] = v
	return nil
}

func (d *raftDisk) GetUint64(k []byte) (uint64, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	v, ok := d.nums[string(k)]
	if !ok {
		return 0, errors.New("not found")
	}
	return v, nil
}

// Create implements raft.SnapshotStore. A snapshot counts when its sink was closed.
func (d *raftDisk) Create(v raft.SnapshotVersion, index, term uint64, c raft.Configuration, at uint64, _ raft.Transport) (raft.SnapshotSink, error) {
	if err := d.faults.before("raft", opSync); err != nil {
		return nil, err
	}
	s := &snapshot{meta: raft.SnapshotMeta{Version: v, ID: fmt.Sprintf("%d-%d", term, index), Index: index, Term: term, Configuration: c, ConfigurationIndex: at}}
	return &sink{disk: d, snapshot: s}, nil
}

// List implements raft.SnapshotStore, newest first.
func (d *raftDisk) List() ([]*raft.SnapshotMeta, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var out []*raft.SnapshotMeta
	for _, s := range slices.Backward(d.snaps) {
		m := s.meta
		out = append(out, &m)
	}
	return out, nil
}

func (d *raftDisk) open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, s := range d.snaps {
		if s.meta.ID == id {
			m := s.meta
			return &m, io.NopCloser(bytes.NewReader(s.body)), nil
		}
	}
	return nil, nil, errors.New("no such snapshot")
}

// snapshotStore is the raftDisk as raft.SnapshotStore, whose Open has another shape.
type snapshotStore struct{ *raftDisk }

func (s snapshotStore) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) { return s.open(id) }

// sink takes one snapshot.
type sink struct {
	disk     *raftDisk
	snapshot *snapshot
	buffer   bytes.Buffer
	over     bool
}

func (s *sink) Write(p []byte) (int, error) { return s.buffer.Write(p) }
func (s *sink) ID() string                  { return s.snapshot.meta.ID }

func (s *sink) Close() error {
	if s.over {
		return nil
	}
	s.over = true
	if err := s.disk.faults.before("raft", opSync); err != nil {
		return err
	}
	s.snapshot.body = s.buffer.Bytes()
	s.snapshot.meta.Size = int64(len(s.snapshot.body))
	s.disk.mu.Lock()
	defer s.disk.mu.Unlock()
	s.disk.snaps = append(s.disk.snaps, s.snapshot)
	if n := len(s.disk.snaps); n > 3 {
		s.disk.snaps = slices.Clone(s.disk.snaps[n-3:])
	}
	return nil
}

func (s *sink) Cancel() error {
	s.over = true
	return nil
}
