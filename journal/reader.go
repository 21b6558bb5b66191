package journal

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sort"

	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal/entry"
)

// Item is a bundle, or the header of the receiver that begins. Its bytes stay valid and must not be modified; whoever keeps a
// small item may keep the up to 256 KiB alive with which it was read.
type Item struct {
	Header         entry.Header         // of the bundle
	Raw            []byte               // the bundle; nil when a receiver begins
	ReceiverHeader []byte               // set instead of Raw where a receiver begins
	Receiver       ident.ReceiverNumber // in which it stands
}

// Bundle returns the bundle of an item that has one.
func (i Item) Bundle() entry.Bundle { return entry.Bundle{Header: i.Header, Raw: i.Raw} }

// Reader reads a journal in order and follows it as it grows. Bundles that were appended but are not on disk yet come from
// memory; what fell out of memory is read from the disk, where it is by then. A Reader belongs to one goroutine and must be
// closed.
type Reader struct {
	j          *Journal
	bare       bool                 // no items for receiver headers
	durable    bool                 // nothing that is not on disk
	next       ident.Sequence       // first of the next bundle
	header     ident.ReceiverNumber // whose header was given last
	generation uint64               // of the cuts it has taken notice of
	err        error                // final

	scan   *scanner // nil: nothing is open
	number ident.ReceiverNumber
	at     ident.Sequence // first of the bundle at scan.offset
}

// Reader returns a reader that begins with the bundle that contains from; 0 means the oldest one held. Where that is the first
// bundle of a receiver, the receiver's header comes first. From may be the sequence after the last one. ErrNotHeld means that
// the journal begins later or ends before.
func (j *Journal) Reader(from ident.Sequence) (*Reader, error) {
	j.mu.RLock()
	v, generation := j.view, j.cuts.generation
	j.mu.RUnlock()
	if from == 0 {
		from = max(v.First, 1)
	}
	if v.First != 0 && from < v.First || from > v.Last+1 {
		return nil, fmt.Errorf("read journal %s from sequence %s: %w", j.disk.id, from, ErrNotHeld)
	}
	r := &Reader{j: j, next: from, generation: generation}
	if from <= v.Last {
		b, err := j.BundleAt(from)
		if err != nil {
			return nil, err
		}
		r.next = b.First
	}
	j.mu.RLock()
	defer j.mu.RUnlock()
	if c, ok := j.cuts.since(generation); ok && r.next > c.last+1 {
		return nil, fmt.Errorf("read journal %s from sequence %s: %w", j.disk.id, from, ErrNotHeld)
	}
	if i := j.indexLocked(r.next); i >= 0 && j.receivers[i].header.First < r.next {
		r.header = j.receivers[i].header.Number
	}
	return r, nil
}

// indexLocked returns the index of the last receiver that begins at or before seq, or -1.
func (j *Journal) indexLocked(seq ident.Sequence) int {
	return sort.Search(len(j.receivers), func(i int) bool { return j.receivers[i].header.First > seq }) - 1
}

// OnlyDurable makes the reader return bundles only once they are durable here.
func (r *Reader) OnlyDurable() { r.durable = true }

// Next returns the next item and waits for it. ErrRewound: what it returned before was removed from the journal. ErrNotHeld:
// the receiver was deleted. ErrClosed, the journal's error, and the cause of ctx end the waiting.
func (r *Reader) Next(ctx context.Context) (Item, error) {
	for {
		v, changed := r.j.watch()
		item, ok, err := r.TryNext()
		if ok || err != nil {
			return item, err
		}
		if v.Err != nil {
			return Item{}, v.Err
		}
		select {
		case <-changed:
		case <-r.j.done:
			return Item{}, ErrClosed
		case <-ctx.Done():
			return Item{}, context.Cause(ctx)
		}
	}
}

// TryNext returns the next item if there is one.
func (r *Reader) TryNext() (Item, bool, error) {
	if r.err != nil {
		return Item{}, false, r.err
	}
	item, ok, err := r.fetch()
	if err != nil {
		var broken *CorruptionError
		if errors.As(err, &broken) {
			r.j.rotten(r.j.disk.id, broken.Receiver)
		}
		r.err = err
		r.drop()
	}
	return item, ok, err
}

// Check returns ErrRewound when what TryNext returned before was removed from the journal, also where something else came in its place.
func (r *Reader) Check() error {
	if r.err == nil {
		r.j.mu.RLock()
		r.err = r.noticeLocked()
		r.j.mu.RUnlock()
	}
	if errors.Is(r.err, ErrRewound) {
		return r.err
	}
	return nil
}

// fetch takes the next bundle from memory or, when it has left it, from the disk.
func (r *Reader) fetch() (Item, bool, error) {
	for {
		item, ok, err := r.try()
		if err != errAgain {
			return item, ok, err
		}
	}
}

// errAgain: the end of the journal was removed while it was read, but the reader has lost nothing.
var errAgain = errors.New("read again")

func (r *Reader) try() (Item, bool, error) {
	j := r.j
	j.mu.RLock()
	if j.queue.closing {
		j.mu.RUnlock()
		return Item{}, false, ErrClosed
	}
	if err := r.noticeLocked(); err != nil {
		j.mu.RUnlock()
		return Item{}, false, err
	}
	i := j.indexLocked(r.next)
	if i < 0 {
		gone := len(j.receivers) > 0
		j.mu.RUnlock()
		if gone {
			return Item{}, false, ErrNotHeld
		}
		return Item{}, false, nil // an empty journal
	}
	in := j.receivers[i]
	number := in.header.Number
	if !r.bare && r.next == in.header.First && r.header != number {
		j.mu.RUnlock()
		r.header = number
		return Item{ReceiverHeader: in.raw, Receiver: number}, true, nil
	}
	if r.next > in.last || r.durable && r.next > j.view.Durable {
		j.mu.RUnlock()
		return Item{}, false, nil
	}
	if held, ok := j.ring.find(r.next); ok {
		j.mu.RUnlock()
		r.next = held.bundle.Last() + 1
		return Item{Header: held.bundle.Header, Raw: held.bundle.Raw, Receiver: held.receiver}, true, nil
	}
	indexed, limit := in.indexed, in.written
	var from point
	if indexed {
		from = in.pointBelow(r.next)
	}
	j.mu.RUnlock()

	b, err := r.read(in, indexed, from, limit)
	if err := r.explain(number, err); err != nil {
		return Item{}, false, err
	}
	r.next = b.Last() + 1
	return Item{Header: b.Header, Raw: b.Raw, Receiver: number}, true, nil
}

// noticeLocked takes notice of removals since the last call.
func (r *Reader) noticeLocked() error {
	c, ok := r.j.cuts.since(r.generation)
	if !ok {
		return nil
	}
	if r.next > c.last+1 || r.header > c.receiver && !r.bare {
		return ErrRewound
	}
	r.generation = r.j.cuts.generation
	r.drop() // it may have read ahead what is gone
	return nil
}

// explain returns what is to be made of a bundle read from a receiver without the lock, or of an error met there. If the end of
// the journal was removed meanwhile, either may be due to that: even a whole bundle may belong to what came instead.
func (r *Reader) explain(number ident.ReceiverNumber, err error) error {
	j := r.j
	j.mu.RLock()
	defer j.mu.RUnlock()
	if r.generation != j.cuts.generation {
		if err := r.noticeLocked(); err != nil {
			return err
		}
		return errAgain
	}
	if i := j.indexLocked(r.next); err != nil && (i < 0 || j.receivers[i].header.Number != number) {
		return ErrNotHeld
	}
	return err
}

// read returns the bundle that begins at r.next from the receiver's file.
func (r *Reader) read(in *receiver, indexed bool, from point, limit int64) (entry.Bundle, error) {
	number := in.header.Number
	if r.scan == nil || r.number != number {
		r.drop()
		file, err := r.j.disk.fs.Open(r.j.disk.path(fileName(number)))
		if isNotExist(err) {
			return entry.Bundle{}, &CorruptionError{Receiver: number, Err: fmt.Errorf("%w: the file is missing", errGone)}
		}
		if err != nil {
			return entry.Bundle{}, fmt.Errorf("open receiver %s: %w", number, err)
		}
		r.scan, r.number, r.at = &scanner{file: file, offset: HeaderSize}, number, in.header.First
	}
	if indexed && (from.first > r.at || r.at > r.next) {
		r.scan.offset, r.at = from.offset, from.first
	} else if r.at > r.next {
		r.scan.offset, r.at = HeaderSize, in.header.First
	}
	r.scan.limit = limit
	for {
		offset := r.scan.offset
		b, err := r.scan.next()
		if err == nil && b.First != r.at {
			err = fmt.Errorf("%w: found sequence %s, want %s", errStructure, b.First, r.at)
		}
		var broken *entry.CorruptionError
		switch {
		case err == io.EOF:
			return b, &CorruptionError{Receiver: number, Offset: offset, Err: errGone}
		case errors.As(err, &broken), errors.Is(err, errStructure):
			return b, &CorruptionError{Receiver: number, Offset: offset, Err: err}
		case err != nil:
			return b, fmt.Errorf("receiver %s: %w", number, err)
		}
		r.at = b.Last() + 1
		if b.First == r.next {
			return b, nil
		}
		if b.First > r.next || b.Last() >= r.next {
			return b, &CorruptionError{Receiver: number, Offset: offset, Err: fmt.Errorf("%w: no bundle begins at sequence %s", errStructure, r.next)}
		}
	}
}

// drop closes the file and forgets what was read ahead.
func (r *Reader) drop() {
	if r.scan != nil {
		r.scan.file.Close() // only read from
		r.scan, r.number = nil, 0
	}
}

// Close releases the reader's file. Close is for the goroutine that reads.
func (r *Reader) Close() error {
	r.drop()
	if r.err == nil {
		r.err = ErrClosed
	}
	return nil
}
