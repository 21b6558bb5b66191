package replica

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/host"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal"
	"github.com/understudy-ha/understudy/replica/core"
)

// shelf keeps the journals of one group that this node holds, by author. Journals are added, never taken away before close.
type shelf struct {
	o   *Options
	dir string // <data>/journals/<group>

	mu     host.Turn // held while a journal is opened, or bounded
	closed bool
	spec   *fsm.GroupSpec                                    // bounds the journals; nil: not known yet
	held   atomic.Pointer[map[ident.NodeID]*journal.Journal] // replaced, never modified
}

func newShelf(o *Options) *shelf {
	s := &shelf{mu: host.NewTurn(), o: o, dir: o.FS.PathJoin(o.Dir, "journals", string(o.Group))}
	s.held.Store(&map[ident.NodeID]*journal.Journal{})
	return s
}

// load opens every journal of the group found on disk.
func (s *shelf) load() error {
	names, err := s.o.FS.List(s.dir)
	if isNotExist(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list journals of group %s: %w", s.o.Group, err)
	}
	slices.Sort(names)
	for _, name := range names {
		info, err := s.o.FS.Stat(s.o.FS.PathJoin(s.dir, name))
		if err != nil {
			return fmt.Errorf("look at journal %s/%s: %w", s.o.Group, name, err)
		}
		if !info.IsDir() || strings.HasSuffix(name, ".tmp") {
			continue
		}
		if _, err := s.open(ident.NodeID(name)); err != nil {
			return err
		}
	}
	return nil
}

// open returns the journal that author wrote, and makes it when it is not held yet.
func (s *shelf) open(author ident.NodeID) (*journal.Journal, error) {
	if j, ok := s.get(author); ok {
		return j, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, ErrClosed
	}
	if j, ok := s.get(author); ok {
		return j, nil
	}
	j, err := journal.Open(journal.Options{
		FS: s.o.FS, Dir: s.o.FS.PathJoin(s.dir, string(author)), ID: ident.JournalID{Group: s.o.Group, Node: author},
		Cluster: s.o.Cluster, ReceiverBytes: s.o.ReceiverBytes, Host: s.o.Host, Logger: s.o.Logger, Rotten: s.o.Rotten,
	})
	if err != nil {
		return nil, fmt.Errorf("open journal %s/%s: %w", s.o.Group, author, err)
	}
	if s.spec != nil {
		j.SetLimits(limitsOf(*s.spec, author == s.o.Node))
	}
	next := maps.Clone(*s.held.Load())
	next[author] = j
	s.held.Store(&next)
	return j, nil
}

// limit bounds every journal from now on.
func (s *shelf) limit(spec fsm.GroupSpec) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.spec != nil && limitsOf(*s.spec, false) == limitsOf(spec, false) {
		return
	}
	s.spec = &spec
	for _, j := range s.all() {
		j.SetLimits(limitsOf(spec, j.ID().Node == s.o.Node))
	}
}

func (s *shelf) get(author ident.NodeID) (*journal.Journal, bool) {
	j, ok := (*s.held.Load())[author]
	return j, ok
}

// all returns the journals held, ordered by author.
func (s *shelf) all() []*journal.Journal {
	held := *s.held.Load()
	out := make([]*journal.Journal, 0, len(held))
	for _, author := range slices.Sorted(maps.Keys(held)) {
		out = append(out, held[author])
	}
	return out
}

// runs returns the runs of all journals held; only what is durable here when durable is set.
func (s *shelf) runs(durable bool) []core.Bough {
	var out []core.Bough
	for author, j := range *s.held.Load() {
		v, _ := j.View()
		runs := v.Runs
		if durable {
			runs = core.RunsUpTo(v.Runs, v.Durable, v.DurableAfter)
		}
		for _, run := range runs {
			out = append(out, core.Bough{Run: run, Author: author})
		}
	}
	return out
}

// failed returns the first journal failure; nil while all are well.
func (s *shelf) failed() error {
	for _, j := range s.all() {
		if v, _ := j.View(); v.Err != nil {
			return &FatalError{Part: "journal " + j.ID().String(), Err: v.Err}
		}
	}
	return nil
}

// torn tells whether a torn tail was cut in one of the journals and not compared since.
func (s *shelf) torn() bool {
	for _, j := range s.all() {
		if v, _ := j.View(); v.Torn {
			return true
		}
	}
	return false
}

// compared forgets torn tails after this node was found to hold everything that is committed.
func (s *shelf) compared() error {
	for _, j := range s.all() {
		if v, _ := j.View(); v.Torn {
			if err := j.ClearTorn(); err != nil {
				return journalFailed(j, err)
			}
		}
	}
	return nil
}

func (s *shelf) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	var errs []error
	for _, j := range s.all() {
		if err := j.Close(); err != nil {
			errs = append(errs, fmt.Errorf("close journal %s: %w", j.ID(), err))
		}
	}
	return errors.Join(errs...)
}
