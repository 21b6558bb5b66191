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
	bundles, bad := bundlesOf(piece)
	switch {
	case len(bundles) == 0 && bad == nil:
		return 0, 0, nil
	case len(bundles) > 0 && bundles[0].First != r.last+1:
		return 0, 0, &GapError{Want: r.last + 1, Have: bundles[0].First}
	case n != r.header.Number || offset != r.end:
		return 0, 0, &CorruptionError{Receiver: r.header.Number, Offset: r.end, Err: fmt.Errorf(
			"%w: what should follow here stands at byte %d of receiver %s at the source", errStructure, offset, n)}
	}
	if err := j.room(); err != nil {
		return 0, 0, err
	}
	d := demand{control: true}
	for _, b := range bundles {
		d.size += int64(b.Length)
		d.control = d.control && b.Facts == 0 && !b.Echo()
	}
	if err := j.fit(r, d); err != nil {
		return 0, 0, err
	}
	used, last, err = j.appendAll(r, bundles)
	if err == nil && bad != nil {
		err = &CorruptionError{Receiver: n, Offset: offset + int64(used), Err: bad}
	}
	return used, last, err
}

// bundlesOf returns the whole bundles at the start of piece, and why what follows them is none; nil when it may become one.
func bundlesOf(piece []byte) (bundles []entry.Bundle, err error) {
	for len(piece) >= entry.HeaderSize {
		h, err := entry.DecodeHeader(piece)
		if err != nil {
			return bundles, err
		}
		n := int(h.Length)
		if n > len(piece) {
			return bundles, nil
		}
		b, err := entry.Decode(piece[:n:n])
		if err != nil {
			return bundles, err
		}
		bundles, piece = append(bundles, b), piece[n:]
	}
	return bundles, nil
}

// appendAll appends what continues r, and says why the rest does not.
func (j *Journal) appendAll(r *receiver, bundles []entry.Bundle) (used int, last ident.Sequence, err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.queue.closing {
		return 0, 0, ErrClosed
	}
	if j.view.Err != nil {
		return 0, 0, j.view.Err
	}
	for _, b := range bundles {
		if b.First != r.last+1 {
			err = &GapError{Want: r.last + 1, Have: b.First}
			break
		}
		if err = r.accepts(b); err != nil {
			err = &CorruptionError{Receiver: r.header.Number, Offset: r.end, Err: err}
			break
		}
		j.appendLocked(r, b)
		j.raiseMarksLocked(b.Durable, b.Committed)
		used, last = used+int(b.Length), b.Last()
	}
	if used > 0 {
		j.publishLocked()
		j.queue.signal()
	}
	return used, last, err
}
