package journal

import (
	"fmt"
	"io"
	"sort"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal/entry"
)

// Stretch is a row of whole bundles in the file of one receiver, all durable.
type Stretch struct {
	Receiver       ident.ReceiverNumber
	First, Last    ident.Sequence // of the first and of the last bundle
	After          ident.Position // history after the last bundle
	Offset, Length int64          // in File
	File           vfs.File       // only to be read from; open until the next call of the reader
}

// leastStretch is less than what is worth a stretch of its own.
const leastStretch = 128 << 10

// TryStretch returns the next bundles as a stretch of up to most bytes, if they are on disk, not in memory, and many enough. The
// reader then stands behind them. Otherwise ok is false and TryNext goes on. The bytes are not checked; and while they are read
// from the file, the end of the journal may be removed and written anew: what was read is the journal's only when Intact says so
// afterwards. Errors are those of TryNext.
func (r *Reader) TryStretch(most int64) (s Stretch, ok bool, err error) {
	if r.err != nil || most < leastStretch {
		return s, false, r.err
	}
	j := r.j
	j.mu.RLock()
	in, err := r.coldLocked()
	if err != nil || in == nil {
		j.mu.RUnlock()
		if err != nil {
			r.err = err
			r.drop()
		}
		return s, false, err
	}
	h := hopper{offset: HeaderSize, next: in.header.First, limit: in.written}
	points := in.points // appended to, never modified
	indexed := in.indexed
	j.mu.RUnlock()

	if r.scan == nil || r.number != in.header.Number {
		r.drop()
		file, err := j.disk.fs.Open(j.disk.path(fileName(in.header.Number)))
		if err != nil {
			return s, false, nil // TryNext finds out what it means
		}
		r.scan, r.number, r.at = &scanner{file: file, offset: HeaderSize}, in.header.Number, in.header.First
	}
	h.file = r.scan.file
	switch {
	case r.at == r.next:
		h.offset, h.next = r.scan.offset, r.at
	case indexed:
		i := sort.Search(len(points), func(i int) bool { return points[i].first > r.next }) - 1
		if i < 0 {
			return s, false, nil
		}
		h.offset, h.next = points[i].offset, points[i].first
	}
	if !h.skipTo(r.next) {
		return s, false, nil
	}
	s = Stretch{Receiver: in.header.Number, First: r.next, Offset: h.offset, File: h.file}
	stop := min(h.limit, h.offset+most)
	if indexed { // only the headers before the end are looked at: the history after it is wanted
		i := sort.Search(len(points), func(i int) bool { return points[i].offset > stop }) - 2
		if i >= 0 && points[i].offset > h.offset {
			h.offset, h.next = points[i].offset, points[i].first
		}
	}
	for h.step(stop) {
		s.After, s.Last = h.last.After(), h.last.Last()
	}
	s.Length = h.offset - s.Offset
	if s.Last == 0 || s.Length < leastStretch {
		return s, false, nil
	}
	r.next, r.at, r.scan.offset = s.Last+1, s.Last+1, h.offset
	return s, true, nil
}

// Cold tells whether the next bundle is on disk and not in memory. Errors are left to what reads it.
func (r *Reader) Cold() bool {
	if r.err != nil {
		return false
	}
	r.j.mu.RLock()
	defer r.j.mu.RUnlock()
	in, err := r.coldLocked()
	return err == nil && in != nil
}

// coldLocked returns the receiver that holds the next bundle if that is to be read from the disk, else nil.
func (r *Reader) coldLocked() (*receiver, error) {
	j := r.j
	if j.queue.closing {
		return nil, ErrClosed
	}
	if err := r.noticeLocked(); err != nil {
		return nil, err
	}
	i := j.indexLocked(r.next)
	if i < 0 || r.next > j.receivers[i].last {
		return nil, nil
	}
	in := j.receivers[i]
	if !r.bare && r.next == in.header.First && r.header != in.header.Number {
		return nil, nil // its header comes first
	}
	if _, held := j.ring.find(r.next); held {
		return nil, nil
	}
	return in, nil
}

// Intact tells, by nil, that the bytes of the last stretch stayed what they were until now. ErrRewound, ErrNotHeld: they were
// removed, and what was read meanwhile may be anything.
func (r *Reader) Intact() error {
	if r.err != nil {
		return r.err
	}
	r.j.mu.RLock()
	err := r.noticeLocked()
	if err == nil && r.number != 0 && r.j.receiverLocked(r.number) < 0 {
		err = ErrNotHeld
	}
	r.j.mu.RUnlock()
	if err != nil {
		r.err = err
		r.drop()
	}
	return err
}

// hopper goes from bundle to bundle in a file by their headers alone.
type hopper struct {
	file   vfs.File
	offset int64          // of the next bundle
	next   ident.Sequence // its first
	limit  int64          // nothing at or beyond it is read
	last   entry.Header   // of the bundle behind which it stands

	buffer []byte
	start  int64 // offset of buffer[0]
}

// How much a hopper reads: little where bundles are large, more where they are small.
const (
	shortHop = 4 << 10
	longHop  = 64 << 10
)

// step goes behind the next bundle if that ends at or before stop. Whatever is no header where one is due ends the way, too.
func (h *hopper) step(stop int64) bool {
	b, err := h.window()
	if err != nil {
		return false
	}
	head, err := entry.DecodeHeader(b)
	if err != nil || head.First != h.next || h.offset+int64(head.Length) > min(stop, h.limit) {
		return false
	}
	h.offset, h.next, h.last = h.offset+int64(head.Length), head.Last()+1, head
	return true
}

// skipTo goes on until the next bundle begins with seq.
func (h *hopper) skipTo(seq ident.Sequence) bool {
	for h.next < seq && h.step(h.limit) {
	}
	return h.next == seq
}

// window returns the bytes of a bundle header at the present offset.
func (h *hopper) window() ([]byte, error) {
	if h.offset < h.start || h.offset+entry.HeaderSize > h.start+int64(len(h.buffer)) {
		size := int64(shortHop)
		if h.last.Length > 0 && h.last.Length < shortHop {
			size = longHop
		}
		if int64(cap(h.buffer)) < size {
			h.buffer = make([]byte, size)
		}
		h.buffer = h.buffer[:min(size, max(0, h.limit-h.offset))]
		n, err := h.file.ReadAt(h.buffer, h.offset)
		if err != nil && err != io.EOF {
			return nil, fmt.Errorf("read: %w", err)
		}
		h.buffer, h.start = h.buffer[:n], h.offset
		if n < entry.HeaderSize {
			return nil, io.EOF
		}
	}
	at := h.offset - h.start
	return h.buffer[at : at+entry.HeaderSize], nil
}
