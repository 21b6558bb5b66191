package replica

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"

	"github.com/understudy-ha/understudy/archive"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal"
)

// stacks is an archive in memory. It counts what it gave out and was not closed.
type stacks struct {
	mu      sync.Mutex
	content map[archive.Name][]byte
	unread  bool                                                   // nothing counts as read back
	listing error                                                  // List fails with it
	closing error                                                  // closing a receiver fails with it
	fetched func(archive.Name) error                               // called first
	read    func(n archive.Name, at int64, p []byte) (error, bool) // called before each read; true: this is its answer
	open    int
}

func newStacks() *stacks { return &stacks{content: map[archive.Name][]byte{}} }

func (s *stacks) Holds(n archive.Name) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.content[n]
	return ok && !s.unread
}

func (s *stacks) List(_ context.Context, id ident.JournalID) (names []archive.Name, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for n := range s.content {
		if n.Journal == id {
			names = append(names, n)
		}
	}
	return names, s.listing
}

func (s *stacks) Fetch(_ context.Context, n archive.Name) (io.ReadCloser, error) {
	if s.fetched != nil {
		if err := s.fetched(n); err != nil {
			return nil, err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	b, ok := s.content[n]
	if !ok {
		return nil, fmt.Errorf("%s: %w", n, io.ErrUnexpectedEOF)
	}
	s.open++
	return &taken{s: s, n: n, b: b}, nil
}

// save puts the detached receivers of a journal in, all that it can.
func (s *stacks) save(t testing.TB, j *journal.Journal) (names []archive.Name) {
	t.Helper()
	for _, i := range j.Receivers() {
		if i.Attached {
			continue
		}
		n, ok := nameOf(testCluster, j, i)
		c, err := j.Content(i.Number)
		if err != nil || !ok {
			t.Fatal(ok, err)
		}
		b, err := io.ReadAll(c.Section())
		if err := errors.Join(err, c.Close()); err != nil {
			t.Fatal(err)
		}
		s.put(n, b)
		names = append(names, n)
	}
	return names
}

func (s *stacks) put(n archive.Name, b []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.content[n] = b
}

// taken is one receiver that is read: its header first, the rest in small pieces.
type taken struct {
	s  *stacks
	n  archive.Name
	b  []byte
	at int64
}

func (r *taken) Read(p []byte) (int, error) {
	if r.s.read != nil {
		if err, ok := r.s.read(r.n, r.at, r.b[r.at:]); ok {
			return 0, err
		}
	}
	if r.at == int64(len(r.b)) {
		return 0, io.EOF
	}
	n := copy(p[:min(len(p), journal.HeaderSize)], r.b[r.at:])
	r.at += int64(n)
	return n, nil
}

func (r *taken) Close() error {
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	r.s.open--
	return r.s.closing
}
