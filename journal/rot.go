package journal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal/entry"
)

// RotKind says what is wrong with a place on the disk.
type RotKind string

// Kinds of rot.
const (
	RotFlipped   RotKind = "flipped"   // the bytes there are no bundle any more
	RotTorn      RotKind = "torn"      // zeros stand where a bundle was, and more follows
	RotTruncated RotKind = "truncated" // nothing follows: the file, or what it holds, ends too early
	RotMissing   RotKind = "missing"   // the file is gone
	RotHeader    RotKind = "header"    // the receiver's header is not what was written
	RotForeign   RotKind = "foreign"   // whole bundles, but others than this journal's: the chain does not fit
	RotBehind    RotKind = "behind"    // the zeros behind the last bundle are not all zero: nothing is lost
	RotState     RotKind = "state"     // the state file is not what was written
)

// Rot is a place on this node's disk that does not hold what was written there.
type Rot struct {
	Journal     ident.JournalID
	Receiver    ident.ReceiverNumber // 0: the state file
	Offset      int64                // of the first bad bundle, or byte
	Good        ident.Sequence       // what is sound before it, up to this sequence
	First, Last ident.Sequence       // what cannot be read because of it; both 0: nothing
	Kind        RotKind
	Err         error
}

func (r *Rot) Error() string {
	where := fmt.Sprintf("receiver %s of journal %s at byte %d", r.Receiver, r.Journal, r.Offset)
	if r.Receiver == 0 {
		where = fmt.Sprintf("file state of journal %s", r.Journal)
	}
	what := ""
	if r.First != 0 {
		what = fmt.Sprintf(", sequences %s to %s", r.First, r.Last)
	}
	return fmt.Sprintf("%s is rotten (%s%s): %v", where, r.Kind, what, r.Err)
}

func (r *Rot) Unwrap() error { return r.Err }

// Pace is told before n bytes are read or written, and waits as long as a limited rate asks for. Nil: there is no limit.
type Pace func(ctx context.Context, n int) error

// pacedReads is a file that is read at a limited rate.
type pacedReads struct {
	vfs.File
	ctx  context.Context
	pace Pace
}

func (p pacedReads) ReadAt(b []byte, at int64) (int, error) {
	if err := p.ctx.Err(); err != nil {
		return 0, context.Cause(p.ctx)
	}
	if p.pace != nil {
		if err := p.pace(p.ctx, len(b)); err != nil {
			return 0, err
		}
	}
	return p.File.ReadAt(b, at)
}

// known is what memory says of the durable part of a receiver at one moment. It is the measure: what was appended or recovered
// was checked then, so whatever the disk says now, this is what it has to hold.
type known struct {
	receiver   *receiver // only to tell it from another one
	generation uint64
	header     ReceiverHeader
	raw        []byte
	want       tail // last and chain are those of the durable end; the rest only when whole is set
	whole      bool // everything that was appended to it is durable
	attached   bool
	size       int64 // of the file; 0: it is still to be made
	written    int64 // as receiver.written
}

// know returns what memory says of receiver n.
func (j *Journal) know(n ident.ReceiverNumber) (known, error) {
	j.mu.RLock()
	defer j.mu.RUnlock()
	if j.queue.closing {
		return known{}, ErrClosed
	}
	i := j.receiverLocked(n)
	if i < 0 {
		return known{}, ErrNotHeld
	}
	r := j.receivers[i]
	k := known{
		receiver: r, generation: j.cuts.generation, header: r.header, raw: r.raw, want: r.tail, whole: true,
		attached: i == len(j.receivers)-1, size: r.size, written: r.written,
	}
	if durable := j.view.Durable; r.last > durable {
		k.whole, k.want.last, k.want.chain = false, r.header.First-1, r.header.Chain
		if item, ok := j.ring.find(durable + 1); ok && durable >= r.header.First {
			k.want.last, k.want.chain = durable, item.bundle.Chain
		}
	}
	return k, nil
}

// still tells whether nothing happened to the receiver since k was taken but that it grew.
func (j *Journal) still(k known) bool {
	j.mu.RLock()
	defer j.mu.RUnlock()
	i := j.receiverLocked(k.header.Number)
	return i >= 0 && j.receivers[i] == k.receiver && j.cuts.generation == k.generation
}

// Inspect reads receiver n as far as it is durable and compares it with what this journal knows in memory: header, checksums,
// order, chain, history, the end, and the zeros behind it. It returns the first rot, nil when there is none. It holds no lock
// and reads in large pieces. What the machine keeps in its page cache is read from there: rot below it is found once the cache
// has let go of it. ErrNotHeld: there is no such receiver.
func (j *Journal) Inspect(ctx context.Context, n ident.ReceiverNumber, pace Pace) (*Rot, error) {
	for {
		k, err := j.know(n)
		if err != nil {
			return nil, fmt.Errorf("inspect receiver %s of journal %s: %w", n, j.disk.id, err)
		}
		rot, err := j.inspect(ctx, k, pace)
		if !j.still(k) {
			continue // its end was removed, it was repaired, or deleted
		}
		if err != nil {
			return nil, fmt.Errorf("inspect receiver %s of journal %s: %w", n, j.disk.id, err)
		}
		return rot, nil
	}
}

func (j *Journal) inspect(ctx context.Context, k known, pace Pace) (*Rot, error) {
	if k.size == 0 {
		return nil, nil
	}
	first, last := k.header.First, k.want.last
	if last < first {
		first, last = 0, 0
	}
	rot := &Rot{Journal: j.disk.id, Receiver: k.header.Number, Good: k.header.First - 1, First: first, Last: last}
	opened, err := j.disk.fs.Open(j.disk.path(fileName(k.header.Number)))
	if isNotExist(err) {
		rot.Kind, rot.Err = RotMissing, fmt.Errorf("%w: the file is missing", errGone)
		return rot, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open receiver: %w", err)
	}
	defer opened.Close() // only read from
	file := pacedReads{File: opened, ctx: ctx, pace: pace}
	info, err := opened.Stat()
	if err != nil {
		return nil, fmt.Errorf("look at receiver: %w", err)
	}
	raw := make([]byte, HeaderSize)
	if _, err := file.ReadAt(raw, 0); err != nil && err != io.EOF {
		return nil, fmt.Errorf("read receiver header: %w", err)
	}
	if !bytes.Equal(raw, k.raw) {
		rot.Kind, rot.First, rot.Last, rot.Err = RotHeader, 0, 0, errHeaderChecksum // it is in memory, and nobody reads it from here
		return rot, nil
	}
	found := newReceiver(k.header, k.raw)
	found.size = min(info.Size(), max(k.size, k.written))
	if err := found.replay(file, k.want.last); err != nil {
		return diagnose(file, found, k, rot, err)
	}
	switch {
	case found.last != k.want.last, found.chain != k.want.chain, k.whole && found.tail != k.want:
		rot.Kind, rot.Offset, rot.Err = RotForeign, HeaderSize, fmt.Errorf("%w: it ends at sequence %s with chain %s, want %s with %s", errChain, found.last, found.chain, k.want.last, k.want.chain)
		return rot, nil
	case !k.whole:
		return nil, nil // more is being written behind
	case info.Size() < k.size && info.Size() < j.sizeOf(k.receiver): // it may have been trimmed just now
		rot.Kind, rot.First, rot.Last, rot.Good, rot.Offset = RotTruncated, 0, 0, found.last, info.Size()
		rot.Err = fmt.Errorf("the file has %d bytes, want %d", info.Size(), k.size)
		return rot, nil
	}
	return j.behind(file, found, k, rot)
}

// diagnose says what is known about the place where found could not be read on.
func diagnose(file vfs.File, found *receiver, k known, rot *Rot, why error) (*Rot, error) {
	var broken *entry.CorruptionError
	rot.Offset, rot.Good, rot.First, rot.Last, rot.Err = found.end, found.last, found.last+1, k.want.last, why
	switch {
	case why == io.EOF:
		rot.Kind, rot.Err = RotTruncated, errGone
		zero, _, err := rest(file, found.end, found.size)
		if err != nil {
			return nil, err
		}
		if !zero {
			rot.Kind = RotTorn
		}
	case errors.Is(why, io.ErrUnexpectedEOF):
		rot.Kind = RotTruncated
	case errors.As(why, &broken):
		rot.Kind = RotFlipped
	case errors.Is(why, errChain), errors.Is(why, errStructure):
		rot.Kind = RotForeign
	default:
		return nil, why
	}
	next, err := following(file, found.end+alignment, found.size, found.last+1, k.want.last)
	if err != nil {
		return nil, err
	}
	if next > 0 {
		rot.Last = next - 1
	}
	return rot, nil
}

// following returns the first sequence of the next bundle from offset on that looks like one with a sequence in (after, last];
// 0 when there is none. It is only for saying how much is affected.
func following(file vfs.File, offset, size int64, after, last ident.Sequence) (ident.Sequence, error) {
	s := scanner{file: file, offset: offset, limit: size}
	for s.offset+entry.HeaderSize <= size {
		b, err := s.window(entry.HeaderSize)
		if err != nil {
			return 0, err
		}
		if len(b) < entry.HeaderSize {
			return 0, nil
		}
		if string(b[:len(entry.Magic)]) == entry.Magic {
			if h, err := entry.DecodeHeader(b); err == nil && h.First > after && h.First <= last {
				return h.First, nil
			}
		}
		s.offset += alignment
	}
	return 0, nil
}

// behind looks at the zeros behind the last bundle. In the attached receiver the writer is at work there: only it can tell.
func (j *Journal) behind(file vfs.File, found *receiver, k known, rot *Rot) (*Rot, error) {
	at, err := nonzero(file, found.end, k.size)
	if err != nil || at < 0 {
		return nil, err
	}
	if k.attached {
		if at, err = j.strayByte(k.receiver, false); err != nil || at < 0 {
			return nil, err
		}
	}
	rot.Kind, rot.Offset, rot.Good, rot.First, rot.Last = RotBehind, at, found.last, 0, 0
	rot.Err = fmt.Errorf("%w: bytes beyond the last bundle", errStructure)
	return rot, nil
}

// nonzero returns where the first byte in [from, to) stands that is not zero, or -1.
func nonzero(file vfs.File, from, to int64) (int64, error) {
	buffer := make([]byte, min(chunk, max(to-from, 1)))
	for at := from; at < to; at += chunk {
		b := buffer[:min(chunk, to-at)]
		n, err := file.ReadAt(b, at)
		if err != nil && err != io.EOF {
			return 0, fmt.Errorf("read: %w", err)
		}
		if allZero(b[:n]) {
			continue
		}
		for i, c := range b[:n] {
			if c != 0 {
				return at + int64(i), nil
			}
		}
	}
	return -1, nil
}

// strayByte has the writer look for a byte that is not zero behind what it has written, and write zeros from there on when
// clear is set. It returns where the byte stands, -1: there is none.
func (j *Journal) strayByte(r *receiver, clear bool) (at int64, err error) {
	j.appending.Lock() // not between the two halves of a removal: memory first, then the file
	defer j.appending.Unlock()
	at = -1
	failed := j.do(func(w *writer) error {
		j.mu.RLock()
		same := len(j.receivers) > 0 && j.receivers[len(j.receivers)-1] == r
		from, size := r.written, r.size
		j.mu.RUnlock()
		if !same || size == 0 {
			return nil
		}
		if err = w.open(r); err != nil {
			return nil // what cannot be opened for a check is not the journal's failure
		}
		if at, err = nonzero(w.file, from, size); err != nil || at < 0 || !clear {
			return nil
		}
		if err := writeZeros(w.file, at, size); err != nil {
			return err
		}
		if err := w.file.Sync(); err != nil {
			return fmt.Errorf("sync receiver %s: %w", r.header.Number, err)
		}
		return nil
	})
	return at, errors.Join(failed, err)
}

// InspectState compares the state file with what the writer knows. Of the two marks the older one only has to be one.
func (j *Journal) InspectState() (*Rot, error) {
	var rot *Rot
	var reading error
	err := j.do(func(w *writer) error {
		if w.record.count == 0 {
			return nil // there is none yet
		}
		rot = &Rot{Journal: j.disk.id, Kind: RotState}
		if rot.Err, reading = w.stateDiffers(); reading != nil || rot.Err == nil {
			rot = nil
		}
		return nil
	})
	if err := errors.Join(err, reading); err != nil {
		return nil, fmt.Errorf("inspect the state of journal %s: %w", j.disk.id, err)
	}
	return rot, nil
}

// stateDiffers says what is wrong with the state file.
func (w *writer) stateDiffers() (differs, err error) {
	file, err := w.disk.fs.Open(w.disk.path(stateName))
	if isNotExist(err) {
		return fmt.Errorf("%w: it is missing", errStateFile), nil
	}
	if err != nil {
		return nil, fmt.Errorf("open state file: %w", err)
	}
	defer file.Close() // only read from
	have := make([]byte, stateSize+1)
	n, err := file.ReadAt(have, 0)
	if err != nil && err != io.EOF {
		return nil, fmt.Errorf("read state file: %w", err)
	}
	if n != stateSize {
		return fmt.Errorf("%w: it has %d bytes", errStateFile, n), nil
	}
	have = have[:n]
	want := w.record.encode()
	for _, newer := range []bool{true, false} {
		number := w.record.count
		if !newer {
			number++ // stands where the one before stands
		}
		slot := have[stateSector*(1+number%2):][:slotSize]
		r, ok := readSlot(slot, w.record)
		if ok && r.mark <= w.record.mark && (r.count == w.record.count) == newer && r.count <= w.record.count {
			copy(want[stateSector*(1+number%2):], slot)
		}
	}
	if !bytes.Equal(have, want) {
		return errStateFile, nil
	}
	return nil, nil
}

// sizeOf returns how long the file of r is to be.
func (j *Journal) sizeOf(r *receiver) int64 {
	j.mu.RLock()
	defer j.mu.RUnlock()
	return r.size
}
