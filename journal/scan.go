package journal

import (
	"errors"
	"fmt"
	"io"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal/entry"
)

// Why a receiver does not hold together although its checksums fit.
var (
	errChain     = errors.New("the checksum chain is broken")
	errStructure = errors.New("the order of bundles is broken")
	errGone      = errors.New("entries that were durable are gone")
)

// alignment of bundles in a receiver.
const alignment = 8

// chunk is how much a scanner reads at once.
const chunk = 256 << 10

// scanner reads bundles one after the other from a receiver. The bundles it returns stay valid: memory is not used again, unless
// brief says that each is done with before the next.
type scanner struct {
	file   vfs.File
	offset int64 // of the next bundle
	limit  int64 // nothing at or beyond it is read
	buffer []byte
	start  int64 // offset of buffer[0]
	brief  bool
}

// window returns n bytes at the present offset, or fewer at the limit.
func (s *scanner) window(n int64) ([]byte, error) {
	n = min(n, s.limit-s.offset)
	if s.offset >= s.start && s.offset+n <= s.start+int64(len(s.buffer)) {
		at := s.offset - s.start
		return s.buffer[at : at+n : at+n], nil
	}
	size := min(max(n, chunk), s.limit-s.offset)
	buffer := s.buffer[:0]
	if s.brief && int64(cap(buffer)) >= size {
		buffer = buffer[:size]
	} else {
		buffer = make([]byte, size)
	}
	got, err := s.file.ReadAt(buffer, s.offset)
	if err != nil && err != io.EOF {
		return nil, fmt.Errorf("read: %w", err)
	}
	s.buffer, s.start = buffer[:got], s.offset
	n = min(n, int64(got))
	return s.buffer[:n:n], nil
}

// next returns the bundle at the present offset and moves behind it. io.EOF means that the limit or zeros were reached;
// whether only zeros follow is for the caller to find out. After an error the offset has not moved.
func (s *scanner) next() (entry.Bundle, error) {
	b, err := s.window(entry.HeaderSize)
	if err != nil {
		return entry.Bundle{}, err
	}
	if allZero(b) {
		return entry.Bundle{}, io.EOF
	}
	h, err := entry.DecodeHeader(b)
	if err != nil {
		return entry.Bundle{}, err
	}
	// A forged length can not make this allocate more than the file holds.
	if b, err = s.window(int64(h.Length)); err != nil {
		return entry.Bundle{}, err
	}
	bundle, err := entry.Decode(b)
	if err != nil {
		return entry.Bundle{}, err
	}
	s.offset += int64(h.Length)
	return bundle, nil
}

// replay reads the bundles of r, which is empty, from its file into r, up to the end of the bundle that ends at last, or as
// far as they hold together. It returns nil at last, io.EOF where zeros begin, else why the bytes at r.end are no bundle that
// continues r; errors of reading the file are no CorruptionError.
func (r *receiver) replay(file vfs.File, last ident.Sequence) error {
	s := scanner{file: file, offset: HeaderSize, limit: r.size, brief: true}
	for r.last < last {
		b, err := s.next()
		if err != nil {
			return err
		}
		if b.First != r.last+1 {
			return fmt.Errorf("%w: sequence %s follows %s", errStructure, b.First, r.last)
		}
		if err := r.accepts(b); err != nil {
			return err
		}
		r.add(b)
	}
	return nil
}

// rest tells whether the file is zero from offset on, and where its last byte that is not zero stands.
func rest(file vfs.File, offset, size int64) (zero bool, end int64, err error) {
	buffer := make([]byte, chunk)
	end = offset
	for at := offset; at < size; at += chunk {
		b := buffer[:min(chunk, size-at)]
		n, err := file.ReadAt(b, at)
		if err != nil && err != io.EOF {
			return false, 0, fmt.Errorf("read: %w", err)
		}
		if b = b[:n]; allZero(b) { // it may have been trimmed meanwhile
			continue
		}
		for i := len(b) - 1; i >= 0; i-- {
			if b[i] != 0 {
				end = at + int64(i) + 1
				break
			}
		}
	}
	return end == offset, end, nil
}

// trace is what a search behind a bad place found.
type trace struct {
	end     int64          // where the last bundle behind the place ends; 0: none was found
	durable ident.Sequence // highest durable mark in such a bundle
}

// minEntry is what an entry of a plain bundle takes at least, header of its bundle not counted. In a compressed one it takes a byte, or even less, but not over a
// whole bundle.
const minEntry = 8

// gap is a place where no bundle can be read, and what is known about it.
type gap struct {
	at     int64          // in the file
	want   ident.Sequence // what stands behind it has a higher one
	after  ident.Position // the history before it
	packed bool           // compressed bundles stand before it
}

// spans tells whether the gap can be so long that h, which stands at offset, comes behind it. A bundle that was rotten may have been
// compressed, and have held nearly as many entries as bytes: then h counts when it is compressed itself, or knows that something in
// the gap was durable and goes on with the history where the gap can have left it. So what stands in a value seldom does.
func (g gap) spans(h entry.Header, offset int64) bool {
	if h.First <= g.want {
		return false
	}
	bytes, entries := offset-g.at, int64(h.First-g.want)-1
	return entries <= bytes/minEntry ||
		entries <= bytes && (h.Flags&entry.FlagCompressed != 0 || h.Durable >= g.want && (g.packed || g.leads(h.Before, entries)))
}

// leads tells whether the history can stand at position behind the gap, which holds so many entries at most, one more than stand between.
func (g gap) leads(position ident.Position, entries int64) bool {
	most := g.after.History + ident.History(entries) + 1
	return position.History <= most && (position.Epoch > g.after.Epoch || position.Epoch == g.after.Epoch && position.History >= g.after.History)
}

// search looks from offset on, behind the gap, for headers of bundles of this journal. A value may hold anything, a bundle too: one
// whose sequence is higher than the bytes between could hold is not ours.
func search(file vfs.File, g gap, offset, size int64) (trace, error) {
	var t trace
	s := scanner{file: file, offset: offset, limit: size, brief: true}
	for s.offset+entry.HeaderSize <= size {
		b, err := s.window(entry.HeaderSize)
		if err != nil {
			return t, err
		}
		if string(b[:len(entry.Magic)]) != entry.Magic {
			s.offset += alignment
			continue
		}
		if h, err := entry.DecodeHeader(b); err == nil && g.spans(h, s.offset) {
			t.end = max(t.end, min(s.offset+int64(h.Length), size))
			t.durable = max(t.durable, h.Durable)
		}
		s.offset += alignment
	}
	return t, nil
}
