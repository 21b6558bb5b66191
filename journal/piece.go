package journal

import (
	"fmt"

	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal/entry"
)

// AppendPiece is AppendRaw for a row of bundles that stand from offset on in the file of receiver n at the source: as many whole
// ones as piece begins with, under one lock and with one change of the view. It keeps piece. Used is how many bytes it took, last
// the last sequence in them; both count what was appended before an error, too. A bundle that is cut off at the end of piece is
// no error: the caller hands it in again when it has the rest. A place that is not where the copy ends is a *GapError or a
// *CorruptionError. ErrFull: there is no space for all of them; none was appended.
func (j *Journal) AppendPiece(n ident.ReceiverNumber, offset int64, piece []byte) (used int, last ident.Sequence, err error) {
	j.appending.Lock()
	defer j.appending.Unlock()
	if err := j.receive(); err != nil {
		return 0, 0, err
	}
	r := j.attached()
	if r == nil || r.closed {
		return 0, 0, ErrNoReceiver
	}
	if len(piece) >= entry.HeaderSize { // the place first: what stands elsewhere need not be checked
		h, err := entry.DecodeHeader(piece)
		switch {
		case err != nil:
			return 0, 0, &CorruptionError{Receiver: n, Offset: offset, Err: err}
		case int(h.Length) > len(piece):
			return 0, 0, nil
		case h.First != r.last+1:
			return 0, 0, &GapError{Want: r.last + 1, Have: h.First}
		case n != r.header.Number || offset != r.end:
			return 0, 0, &CorruptionError{Receiver: r.header.Number, Offset: r.end, Err: fmt.Errorf(
				"%w: what should follow here stands at byte %d of receiver %s at the source", errStructure, offset, n)}
		}
	}
	w := newRow(r, piece)
	bad := w.read(piece)
	if len(w.links) == 0 {
		return 0, 0, bad
	}
	if err := j.room(); err != nil {
		return 0, 0, err
	}
	if err := j.fit(r, demand{w.size, w.control}); err != nil {
		return 0, 0, err
	}
	if err := j.appendRow(r, piece, w.links); err != nil {
		return 0, 0, err
	}
	return int(w.size), w.at.last, bad
}

// row are bundles that follow each other, checked before anything of them is appended: without the lock that readers wait for.
type row struct {
	at      receiver // what the next bundle must continue
	links   []link
	size    int64
	control bool // it may use the reserve
}

// link is a bundle of a row, and the chain after it.
type link struct {
	bundle entry.Bundle
	next   ident.Chain
}

// newRow returns an empty row behind r, whose end does not change meanwhile.
func newRow(r *receiver, piece []byte) *row {
	w := &row{at: receiver{header: r.header, tail: r.tail, closed: r.closed, end: r.end}, control: true}
	if h, err := entry.DecodeHeader(piece); err == nil {
		w.links = make([]link, 0, len(piece)/int(h.Length)+1) // neighbours are alike
	}
	return w
}

// read takes the whole bundles at the start of piece. It says why what follows them is none that may stand there; nil when it may
// become one.
func (w *row) read(piece []byte) error {
	for len(piece) >= entry.HeaderSize {
		h, err := entry.DecodeHeader(piece)
		if err != nil {
			return w.corrupt(err)
		}
		n := int(h.Length)
		if n > len(piece) {
			return nil
		}
		b, err := entry.Decode(piece[:n:n])
		switch {
		case err != nil:
			return w.corrupt(err)
		case b.First != w.at.last+1:
			return &GapError{Want: w.at.last + 1, Have: b.First}
		}
		if err := w.at.accepts(b); err != nil {
			return w.corrupt(err)
		}
		next := entry.NextChain(b.Chain, b.Raw)
		w.at.tail.add(b.Header, next)
		w.at.closed = b.Holds(entry.Journal, entry.Next)
		w.at.end += int64(n)
		w.links = append(w.links, link{b, next})
		w.size += int64(n)
		w.control = w.control && b.Facts == 0 && !b.Echo()
		piece = piece[n:]
	}
	return nil
}

func (w *row) corrupt(err error) error {
	return &CorruptionError{Receiver: w.at.header.Number, Offset: w.at.end, Err: err}
}

// runBytes bounds what of a row is handed to the writer at once, unless it is a single bundle: four fill a batch.
const runBytes = maxBatch / 4

// appendRow appends what was checked. Piece begins with it. Readers get bundles, the writer the bytes of many.
func (j *Journal) appendRow(r *receiver, piece []byte, links []link) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.queue.closing {
		return ErrClosed
	}
	if j.view.Err != nil {
		return j.view.Err
	}
	offset, from, to := r.end, 0, 0
	for i, l := range links {
		n := len(l.bundle.Raw)
		j.showLocked(r, l.bundle, l.next)
		j.raiseMarksLocked(l.bundle.Durable, l.bundle.Committed)
		to += n
		if i+1 == len(links) || to-from+len(links[i+1].bundle.Raw) > runBytes {
			run := entry.Bundle{Header: l.bundle.Header, Raw: piece[from:to:to]}
			j.queue.push(operation{receiver: r, bundle: run, offset: offset + int64(from), run: true})
			from = to
		}
	}
	j.publishLocked()
	j.queue.signal()
	return nil
}
