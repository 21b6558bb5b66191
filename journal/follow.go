package journal

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal/entry"
)

// GoneError says that the entry after which somebody wants to go on is not held any more. It wraps ErrNotHeld.
type GoneError struct {
	Want  ident.Sequence
	First ident.Sequence // held
}

func (e *GoneError) Error() string {
	return fmt.Sprintf("sequence %s was deleted with its receiver; the first one still held is %s", e.Want, e.First)
}

// Is makes it an ErrNotHeld.
func (e *GoneError) Is(target error) bool { return target == ErrNotHeld }

// Step is what a Follower gives: a bundle, or the news that entries given before were removed.
type Step struct {
	Bundle  entry.Bundle   // Raw is nil in a rewind
	From    ident.Sequence // entries of the bundle below it were given before, or are not wanted
	Rewound bool
	After   ident.Sequence // of a rewind: everything beyond it that was given is gone
}

// Follower gives the entries of a journal in order, each once, as they come. It keeps one bundle at most, and holds up nobody:
// what is written goes on, and receivers are deleted under it. It belongs to one goroutine and must be closed.
type Follower struct {
	j           *Journal
	unconfirmed bool
	next        ident.Sequence // to be given
	reader      *Reader        // nil: to be opened at next
	pending     *entry.Bundle  // read, not confirmed yet
}

// Follow returns a follower that begins with the entry from; 0 means the oldest one held. From may lie beyond the end: it
// is waited for. Entries that the source has not said to be on its own disk are held back unless asked for.
func (j *Journal) Follow(from ident.Sequence, unconfirmed bool) *Follower {
	return &Follower{j: j, next: from, unconfirmed: unconfirmed}
}

// Start returns the first sequence that f can select: where to begin to follow. It reads headers and points only. ErrNotHeld: the
// receivers that f names are not here.
func (j *Journal) Start(f Filter) (ident.Sequence, error) {
	f.IncludeUnconfirmed = true
	var s span
	err := j.settle(func() (err error) {
		s, err = j.find(&f)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("journal %s: %w", j.disk.id, err)
	}
	if s.From == math.MaxInt64 { // no run reaches the positions yet
		v := j.glance()
		s.From = v.Last + 1
	}
	return s.From, nil
}

// SequenceOf returns the sequence of the fact at p in the newest bundle that holds it, and whether there is one.
func (j *Journal) SequenceOf(p ident.Position) (ident.Sequence, bool, error) {
	first, ok, err := j.FindHistory(p)
	if err != nil || !ok {
		return 0, false, err
	}
	b, err := j.BundleAt(first)
	if err != nil {
		return 0, false, err
	}
	for e, err := range b.Entries() {
		if err != nil || e.Position == p {
			return e.Sequence, err == nil, err
		}
	}
	return 0, false, nil
}

// Next returns the next step and waits for it. A *GoneError: receivers that are wanted were deleted. ErrClosed, the journal's
// error, and the cause of ctx end the waiting; after the latter the follower goes on where it was.
func (f *Follower) Next(ctx context.Context) (Step, error) {
	for {
		v, changed := f.j.watch()
		step, ok, err := f.TryNext()
		if ok || err != nil {
			return step, err
		}
		if v.Err != nil {
			return Step{}, v.Err
		}
		select {
		case <-changed:
		case <-f.j.done:
			return Step{}, ErrClosed
		case <-ctx.Done():
			return Step{}, context.Cause(ctx)
		}
	}
}

// TryNext returns the next step if there is one.
func (f *Follower) TryNext() (Step, bool, error) {
	for {
		step, ok, err := f.try()
		if err != errAgain {
			return step, ok, err
		}
	}
}

func (f *Follower) try() (Step, bool, error) {
	if ok, err := f.open(); err != nil || !ok {
		return Step{}, false, err
	}
	if f.pending == nil {
		item, ok, err := f.reader.TryNext()
		if err != nil {
			return f.failed(err)
		}
		if !ok {
			return Step{}, false, nil
		}
		b := item.Bundle()
		f.pending = &b
	} else if err := f.reader.notice(); err != nil {
		return f.failed(err)
	}
	b := *f.pending
	if v := f.j.glance(); !f.unconfirmed && b.Last() > v.Confirmed {
		return Step{}, false, nil
	}
	f.pending = nil
	from := f.next
	f.next = b.Last() + 1
	return Step{Bundle: b, From: from}, true, nil
}

// open makes a reader at next; false while the journal does not reach that far.
func (f *Follower) open() (bool, error) {
	if f.reader != nil {
		return true, nil
	}
	v := f.j.glance()
	if f.next == 0 {
		f.next = v.First // of an empty journal it stays 0
	}
	switch {
	case v.First == 0 || f.next > v.Last+1:
		return false, nil
	case f.next < v.First:
		return false, &GoneError{Want: f.next, First: v.First}
	}
	reader, err := f.j.Reader(f.next)
	switch {
	case errors.Is(err, ErrNotHeld), errors.Is(err, ErrRewound):
		if now := f.j.glance(); now.First == v.First && now.Last == v.Last {
			return false, err
		}
		return false, errAgain // it changed meanwhile
	case err != nil:
		return false, err
	}
	reader.bare = true
	f.reader = reader
	return true, nil
}

// failed makes of an error of the reader what the follower does about it.
func (f *Follower) failed(err error) (Step, bool, error) {
	generation := f.reader.generation
	f.Close()
	switch {
	case errors.Is(err, ErrNotHeld):
		return Step{}, false, errAgain // open says since when
	case !errors.Is(err, ErrRewound):
		return Step{}, false, err
	}
	f.j.mu.RLock()
	c, ok := f.j.cuts.since(generation)
	f.j.mu.RUnlock()
	if !ok || f.next <= c.last+1 {
		return Step{}, false, errAgain // nothing that was given
	}
	f.next = c.last + 1
	return Step{Rewound: true, After: c.last}, true, nil
}

// Close releases what the follower holds. It may be used again.
func (f *Follower) Close() {
	if f.reader != nil {
		_ = f.reader.Close() // only read from
	}
	f.reader, f.pending = nil, nil
}

// notice takes notice of what happened to the journal since the last call, without reading.
func (r *Reader) notice() error {
	r.j.mu.RLock()
	defer r.j.mu.RUnlock()
	if r.j.queue.closing {
		return ErrClosed
	}
	return r.noticeLocked()
}
