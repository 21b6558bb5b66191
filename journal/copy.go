package journal

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal/entry"
)

// receive makes sure that the state file says that bundles of this journal come from another node.
func (j *Journal) receive() error {
	if err := j.usable(); err != nil {
		return err
	}
	j.mu.RLock()
	received := j.record.received
	j.mu.RUnlock()
	if received {
		return nil
	}
	return j.note(func(r *record) { r.received = true })
}

// BeginReceiver makes a copy's next receiver with exactly these HeaderSize header bytes. An empty journal takes the header of
// any receiver and begins there; else the header must continue the journal to the letter: *GapError when it begins at another
// sequence, *CorruptionError when chain or history differ. An attached receiver that holds no bundle yet may be begun again: it
// takes the new header. A copy that holds no other one, and so nothing at all, begins with any later receiver. BeginReceiver does not wait for what is queued for the disk. ErrFull: there is no space for a receiver.
func (j *Journal) BeginReceiver(header []byte) error {
	j.appending.Lock()
	defer j.appending.Unlock()
	if err := j.receive(); err != nil {
		return err
	}
	h, err := DecodeReceiverHeader(header)
	if err != nil {
		return err
	}
	if len(header) != HeaderSize {
		return fmt.Errorf("receiver header of %d bytes, want %d", len(header), HeaderSize)
	}
	if err := j.disk.owns(h); err != nil {
		return err
	}
	raw := bytes.Clone(header)
	old := j.attached()
	if old != nil && h.First > old.header.First && h.Number > old.header.Number && j.bare() {
		if err := j.dropBare(); err != nil {
			return err
		}
		old = nil
	}
	switch {
	case old == nil:
	case h.First != old.last+1:
		return &GapError{Want: old.last + 1, Have: h.First}
	case old.empty():
		if !sameButCreated(old.raw, raw) {
			return &CorruptionError{Receiver: h.Number, Err: fmt.Errorf("%w: the header does not describe the same place", errChain)}
		}
		if bytes.Equal(old.raw, raw) {
			return nil
		}
		return j.replaceHeader(old, h, raw)
	case !old.endsAt(h):
		return &CorruptionError{Receiver: h.Number, Err: fmt.Errorf("%w: the receiver does not continue receiver %s", errChain, old.header.Number)}
	}
	b, err := j.provide(demand{})
	if err != nil {
		return err
	}
	if err := j.attach(h, raw, b); err != nil {
		j.putBack(b)
		return err
	}
	return nil
}

// replaceHeader gives the empty attached receiver another header, in a new file.
func (j *Journal) replaceHeader(old *receiver, h ReceiverHeader, raw []byte) error {
	b, err := j.provide(demand{})
	if err != nil {
		return err
	}
	if err := j.replace(old, h, raw, b); err != nil {
		j.putBack(b)
		return err
	}
	return nil
}

func (j *Journal) replace(old *receiver, h ReceiverHeader, raw []byte, b blank) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.queue.closing {
		return ErrClosed
	}
	if j.view.Err != nil {
		return j.view.Err
	}
	r := newReceiver(h, raw)
	r.size, r.allotted, j.stock.granted = old.size, b.allotted, 0
	j.receivers = append(slices.Clip(j.receivers[:len(j.receivers)-1]), r)
	j.cutLocked(old.last, old.header.Number-1)
	j.queue.push(operation{do: func(w *writer) error { return w.begin(r, b) }})
	j.publishLocked()
	j.queue.signal()
	return nil
}

// AppendRaw appends a bundle of the source to a copy, and to the local journal when it comes back from a copy. It copies raw.
// The bundle must continue the journal: *GapError when it begins at another sequence, *CorruptionError when it is damaged or
// its chain differs, ErrNoReceiver when the receiver header must come first. Durable marks in it are taken over. It waits while
// too much is queued for the disk, but not for its own write. ErrFull: there is no space for the bundle; it was not appended.
func (j *Journal) AppendRaw(raw []byte) (entry.Header, error) {
	j.appending.Lock()
	defer j.appending.Unlock()
	if err := j.receive(); err != nil {
		return entry.Header{}, err
	}
	r := j.attached()
	if r == nil {
		return entry.Header{}, ErrNoReceiver
	}
	b, err := entry.Decode(bytes.Clone(raw))
	if err != nil {
		return entry.Header{}, &CorruptionError{Receiver: r.header.Number, Offset: r.end, Err: err}
	}
	if b.First != r.last+1 {
		return entry.Header{}, &GapError{Want: r.last + 1, Have: b.First}
	}
	if r.closed {
		return entry.Header{}, ErrNoReceiver
	}
	if err := r.accepts(b); err != nil {
		return entry.Header{}, &CorruptionError{Receiver: r.header.Number, Offset: r.end, Err: err}
	}
	if err := j.room(); err != nil {
		return entry.Header{}, err
	}
	if err := j.fit(r, demand{int64(b.Length), b.Facts == 0 && !b.Echo()}); err != nil {
		return entry.Header{}, err
	}
	return b.Header, j.append(b)
}

// cut is a removal of the journal's end: what lies after last went, and receivers after the given number.
type cut struct {
	generation uint64
	last       ident.Sequence
	receiver   ident.ReceiverNumber
}

// cuts remembers removals, so that readers learn of those that concern them. A cut that a later, deeper one covers is
// forgotten: last ascends.
type cuts struct {
	generation uint64 // counts all removals
	kept       []cut
}

// since returns the deepest cut after the given generation.
func (c *cuts) since(generation uint64) (cut, bool) {
	for _, k := range c.kept {
		if k.generation > generation {
			return k, true
		}
	}
	return cut{}, false
}

func (j *Journal) cutLocked(last ident.Sequence, receiver ident.ReceiverNumber) {
	c := &j.cuts
	for n := len(c.kept); n > 0 && c.kept[n-1].last >= last; n = len(c.kept) {
		receiver = min(receiver, c.kept[n-1].receiver)
		c.kept = c.kept[:n-1]
	}
	c.generation++
	c.kept = append(c.kept, cut{generation: c.generation, last: last, receiver: receiver})
}
