package replica

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"maps"
	"sync"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/host"
	"github.com/understudy-ha/understudy/internal/ident"
)

// Solitary is the control plane of a group that one node has for itself: records that are shipped to nobody. It always says that
// this life of this node is primary, alone in the in-sync set, with asynchronous delivery. Each life takes an epoch of its own.
// Its state is an fsm.State of one node and one group, changed by the commands and rules of every other control plane; but the
// log is a file of this node, and each change is on disk before anybody sees it. So it needs no majority.
//
// The exclusive lock of the data directory, which whoever opens it holds, is its lease: no other life can write there.
type Solitary struct {
	o    SolitaryOptions
	path string

	mu      sync.Mutex
	state   *fsm.State // never modified once it is here
	changed chan struct{}
	yielded ident.Epoch
	failed  error         // what is on disk is not known any more: nothing is changed in this life
	broken  chan struct{} // closed with failed
}

// SolitaryOptions are what a solitary control plane needs.
type SolitaryOptions struct {
	FS        vfs.FS
	Dir       string // Options.Dir of the replica, which no other group uses
	Cluster   ident.ClusterID
	Node      ident.NodeID
	Directory ident.DirectoryID
	Life      ident.Incarnation // later ones are higher
	Group     ident.GroupName
	Spec      fsm.GroupSpec // name, preferred node, delivery and files are set here
	Clock     host.Clock
}

// The file of a solitary control plane, <dir>/control. Part of the format, little endian:
//
//	0  magic "USSO"    4  version u16, now 1    6  reserved, zero    8  length of the state u32    12 CRC32C of the state
//	16 the state, as fsm.State.Encode writes it
const (
	solitaryFile    = "control"
	solitaryMagic   = "USSO"
	solitaryVersion = 1
	solitaryHeader  = 16
)

// OpenSolitary reads what earlier lives left, or begins anew where there is nothing at all, and takes this life in. A damaged file, or
// journals without one, are an error: the history of those journals would be unknown.
func OpenSolitary(o SolitaryOptions) (*Solitary, error) {
	s := &Solitary{o: o, path: o.FS.PathJoin(o.Dir, solitaryFile), changed: make(chan struct{}), broken: make(chan struct{})}
	state, err := s.read()
	if err != nil {
		return nil, err
	}
	if state == nil {
		if err := s.mustBeNew(); err != nil {
			return nil, err
		}
		state = &fsm.State{}
	}
	next := state.Snapshot()
	if state.Cluster == "" {
		err = apply(next, o.Clock, fsm.Command{CreateCluster: &fsm.CreateCluster{Cluster: o.Cluster, Name: string(o.Cluster)}})
	} else if state.Cluster != o.Cluster {
		err = fmt.Errorf("it belongs to cluster %s, this node to %s", state.Cluster, o.Cluster)
	}
	spec := o.spec()
	err = errors.Join(err,
		apply(next, o.Clock, fsm.Command{RegisterNode: &fsm.RegisterNode{ID: o.Node, Directory: o.Directory, Kind: fsm.KindData}}),
		apply(next, o.Clock, fsm.Command{Renew: &fsm.Renew{Node: o.Node, Directory: o.Directory, Incarnation: o.Life}}))
	if g := next.Groups[o.Group]; err == nil && g == nil {
		err = apply(next, o.Clock, fsm.Command{CreateGroup: &fsm.CreateGroup{Spec: spec, Incarnation: o.Life}})
	} else if err == nil {
		err = apply(next, o.Clock, fsm.Command{ChangeSpec: &fsm.ChangeSpec{Group: o.Group, Version: g.SpecVersion, Spec: spec}})
	}
	if err != nil {
		return nil, fmt.Errorf("control file %s: %w", s.path, err)
	}
	if len(next.Nodes) != 1 || len(next.Groups) != 1 {
		return nil, fmt.Errorf("control file %s: it has %d nodes and %d groups, not one of each", s.path, len(next.Nodes), len(next.Groups))
	}
	if err := s.write(next); err != nil {
		return nil, err
	}
	s.state = next
	return s, nil
}

func (o SolitaryOptions) spec() fsm.GroupSpec {
	s := o.Spec
	s.Name, s.Preferred, s.Delivery, s.Files, s.Feeds = o.Group, o.Node, fsm.DeliveryAsync, nil, nil
	return s.Normalize()
}

func apply(s *fsm.State, clock host.Clock, c fsm.Command) error {
	c.Version, c.At = fsm.CommandVersion, clock.Now()
	if res := s.Apply(c); res.Refused != "" {
		return fmt.Errorf("%s: %s", res.Refused, res.Detail)
	}
	return nil
}

// mustBeNew refuses a directory that holds journals, of which only a control file that is gone would say what they mean.
func (s *Solitary) mustBeNew() error {
	for _, name := range []string{"journals", "promises"} {
		dir := s.o.FS.PathJoin(s.o.Dir, name, string(s.o.Group))
		if _, err := s.o.FS.Stat(dir); err == nil {
			return fmt.Errorf("control file %s is missing, but there is %s: put the file back, or move the whole directory %s away to begin without these records",
				s.path, dir, s.o.Dir)
		} else if !isNotExist(err) {
			return fmt.Errorf("look for %s: %w", dir, err)
		}
	}
	return nil
}

// read returns nil when there is no file.
func (s *Solitary) read() (*fsm.State, error) {
	b, err := readFile(s.o.FS, s.path)
	if isNotExist(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read control file %s: %w", s.path, err)
	}
	le := binary.LittleEndian
	if len(b) < solitaryHeader || string(b[:4]) != solitaryMagic || le.Uint16(b[4:]) != solitaryVersion || int(le.Uint32(b[8:])) != len(b)-solitaryHeader ||
		le.Uint32(b[12:]) != crc32.Checksum(b[solitaryHeader:], castagnoli) {
		return nil, fmt.Errorf("control file %s is damaged: put it back from a copy, or move the whole directory %s away to begin without these records", s.path, s.o.Dir)
	}
	state, err := fsm.Decode(bytes.NewReader(b[solitaryHeader:]))
	if err != nil {
		return nil, fmt.Errorf("control file %s: %w", s.path, err)
	}
	return state, nil
}

// write replaces the file; on return it is on disk, its name too.
func (s *Solitary) write(state *fsm.State) error {
	var body bytes.Buffer
	if err := state.Encode(&body); err != nil {
		return err
	}
	var head [solitaryHeader]byte
	le := binary.LittleEndian
	copy(head[:], solitaryMagic)
	le.PutUint16(head[4:], solitaryVersion)
	le.PutUint32(head[8:], uint32(body.Len()))
	le.PutUint32(head[12:], crc32.Checksum(body.Bytes(), castagnoli))
	if err := replaceFile(s.o.FS, s.o.Dir, solitaryFile, append(head[:], body.Bytes()...)); err != nil {
		return fmt.Errorf("write control file %s: %w", s.path, err)
	}
	return nil
}

// Assignment implements Control.
func (s *Solitary) Assignment() (fsm.Assignment, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a, _ := s.state.Assign(s.o.Group, s.o.Node, s.o.Life)
	return a, s.changed
}

// CheckLease implements Control.
func (s *Solitary) CheckLease(e ident.Epoch) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if g := s.state.Groups[s.o.Group]; g.Epoch != e || s.yielded == e || !g.Holds(s.o.Node, s.o.Life) {
		return ErrNoLease
	}
	return nil
}

// Yield implements Control.
func (s *Solitary) Yield(e ident.Epoch, yes bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.yielded = 0; yes {
		s.yielded = e
	}
}

// Alive implements Control.
func (s *Solitary) Alive(n ident.NodeID) bool { return n == s.o.Node }

// Propose implements Control. A change that finds no room on the disk may be proposed again, not at once; after any other failure what
// a restart would find is not known, and nothing is changed any more.
func (s *Solitary) Propose(ctx context.Context, c fsm.Command) (fsm.Result, error) {
	res, err := s.change(c)
	if err != nil {
		_ = pause(ctx, solitarySlow) // nobody gains by asking sooner
	}
	return res, err
}

func (s *Solitary) change(c fsm.Command) (fsm.Result, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed != nil {
		return fsm.Result{}, s.failed
	}
	c.Version, c.At = fsm.CommandVersion, s.o.Clock.Now()
	next := s.state.Snapshot()
	res := next.Apply(c)
	if res.Refused != "" {
		return res, nil
	}
	if err := s.write(next); err != nil {
		if !errors.Is(err, syscall.ENOSPC) && !errors.Is(err, syscall.EDQUOT) {
			err = &FatalError{Part: "the control file", Err: err}
			s.failed = err
			close(s.broken)
		}
		return fsm.Result{}, err
	}
	s.state = next
	close(s.changed)
	s.changed = make(chan struct{})
	return res, nil
}

// Bounds of the pause after a session that ended by itself.
const (
	solitaryPause = 50 * time.Millisecond
	solitarySlow  = time.Second
)

// Run plays the primary until ctx ends, and returns nil then. A *FatalError says why this life cannot go on: what is in the store may
// still be read. After any other end of a session the next one begins with an epoch of its own; ended is told of it.
func (s *Solitary) Run(ctx context.Context, r *Replica, ended func(error)) error {
	ctx, cancel := context.WithCancel(ctx)
	var watch sync.WaitGroup
	defer watch.Wait()
	defer cancel()
	watch.Go(func() {
		select {
		case <-s.broken: // a session that waits for a change would wait for good
			cancel()
		case <-ctx.Done():
		}
	})
	wait := solitaryPause
	for ctx.Err() == nil {
		began := time.Now()
		s.forget(r.oldestEpoch())
		err := s.lead(ctx)
		if err == nil {
			err = s.choose(ctx, r)
		}
		if err == nil {
			err = r.RunPrimary(ctx, s)
		}
		var fatal *FatalError
		if broken := s.brokenBy(); broken != nil {
			return broken
		}
		if errors.As(err, &fatal) {
			return err
		}
		if err == nil || ctx.Err() != nil {
			continue
		}
		if time.Since(began) > solitarySlow {
			wait = solitaryPause
		}
		ended(err)
		_ = pause(ctx, wait) // ctx is looked at above
		wait = min(2*wait, solitarySlow)
	}
	return s.brokenBy()
}

// brokenBy returns why nothing can be changed any more, nil when it can.
func (s *Solitary) brokenBy() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failed
}

// forget drops the rows of the history that are older than what this node still has of an epoch: each life adds one. The file has them
// until the next change is written.
func (s *Solitary) forget(oldest ident.Epoch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	g := *s.state.Groups[s.o.Group]
	kept := g.History.Since(oldest)
	if len(kept) == len(g.History) {
		return
	}
	g.History = kept
	next := s.state.Snapshot()
	next.Groups = maps.Clone(next.Groups)
	next.Groups[s.o.Group] = &g
	s.state = next
}

// oldestEpoch returns the lowest epoch of which this node still has something: facts in its journals, where these begin, or where a crash can
// take the store back to. Zero: nothing is known of that.
func (r *Replica) oldestEpoch() ident.Epoch {
	oldest := min(r.data.Position().Epoch, r.data.Flushed().Epoch)
	for _, j := range r.shelf.all() {
		view, _ := j.View()
		for _, run := range view.Runs {
			oldest = min(oldest, run.Epoch, run.Before.Epoch)
		}
		if held := j.Receivers(); len(held) > 0 {
			oldest = min(oldest, held[0].Start.Epoch)
		}
	}
	return oldest
}

// lead takes the next epoch where the present one belongs to an earlier life.
func (s *Solitary) lead(ctx context.Context) error {
	a, _ := s.Assignment()
	if g := a.Group; g.Phase != fsm.PhaseFenced && g.Incarnation != a.Life {
		return s.propose(ctx, fsm.Command{Fence: &fsm.Fence{Group: s.o.Group, Epoch: g.Epoch, Force: true, Reason: "another life of the node"}})
	}
	return nil
}

// choose gives a fenced group this node as primary, once it has promised the epoch.
func (s *Solitary) choose(ctx context.Context, r *Replica) error {
	a, _ := s.Assignment()
	if a.Group.Phase != fsm.PhaseFenced {
		return nil
	}
	r.Attach(s)
	e := a.Group.Epoch
	report, err := r.Promise(ctx, e)
	if err != nil {
		return err
	}
	report.Node, report.Incarnation, report.Epoch = a.Self, a.Life, e
	if err := s.propose(ctx, fsm.Command{Promise: &fsm.Promise{Group: s.o.Group, Report: report}}); err != nil {
		return err
	}
	return s.propose(ctx, fsm.Command{Promote: &fsm.Promote{Group: s.o.Group, Epoch: e, To: a.Self, Incarnation: a.Life}})
}

// propose is Propose where a refusal is an error.
func (s *Solitary) propose(ctx context.Context, c fsm.Command) error {
	res, err := s.Propose(ctx, c)
	if err == nil && res.Refused != "" {
		err = fmt.Errorf("%s: %s", res.Refused, res.Detail)
	}
	return err
}
