package journal

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal/entry"
)

// Twin is another node's copy of the same journal. Nothing it says is believed: every byte is checked against what is known here.
type Twin interface {
	// Name is for people.
	Name() string
	// Numbers lists the receivers it holds, ascending.
	Numbers(ctx context.Context) ([]ident.ReceiverNumber, error)
	// Receiver opens one of them. ErrNotHeld: it has none of that number.
	Receiver(ctx context.Context, n ident.ReceiverNumber) (TwinContent, error)
}

// TwinContent is what a twin has of one receiver: header and bundles, as in the file. ReadAt is called by one goroutine, in
// pieces of at most the size of a bundle or 256 KiB.
type TwinContent interface {
	io.ReaderAt
	io.Closer
	Size() int64
}

// part is one copy of a receiver from which bundles are taken. The offset of a bundle is the same in every copy.
type part interface {
	// at returns the bundle that stands at offset, checked by itself; io.EOF: zeros or nothing stand there.
	at(offset int64) (entry.Bundle, error)
}

// splice completes r, which may be empty, from the parts: each bundle comes from the first part that has one that continues r to
// the letter, checksums, sequence, chain and history. Since the chain covers every byte before, the result is the only one that
// can stand before whatever follows it. It ends with nil when r ends at until, and else where no part continues r, with why each
// of them does not. take is told of each bundle before r has it. enough, if set, is asked before the second part is: true ends
// the splice there with nil.
func splice(r *receiver, until ident.Sequence, parts []part, enough func(first error) bool, take func(b entry.Bundle, from int) error) error {
	for r.last < until {
		var found bool
		var why []error
		for i, p := range parts {
			if i == 1 && enough != nil && enough(why[0]) {
				return nil
			}
			b, err := p.at(r.end)
			if err == nil && b.First != r.last+1 {
				err = fmt.Errorf("%w: sequence %s follows %s", errStructure, b.First, r.last)
			}
			if err == nil {
				err = r.accepts(b)
			}
			if err != nil {
				why = append(why, err)
				continue
			}
			if err := take(b, i); err != nil {
				return err
			}
			r.add(b)
			found = true
			break
		}
		if !found {
			return &spliceError{at: r.end, after: r.last, why: errors.Join(why...)}
		}
	}
	return nil
}

// spliceError says where no copy continues a receiver.
type spliceError struct {
	at    int64
	after ident.Sequence
	why   error
}

func (e *spliceError) Error() string {
	return fmt.Sprintf("no copy continues the receiver at byte %d, after sequence %s: %v", e.at, e.after, e.why)
}

func (e *spliceError) Unwrap() error { return e.why }

// bytesPart takes bundles from an opened copy.
type bytesPart struct{ s scanner }

func newBytesPart(ctx context.Context, pace Pace, from io.ReaderAt, size int64) *bytesPart {
	file, ok := from.(vfs.File)
	if !ok {
		file = readerFile{at: from}
	}
	return &bytesPart{scanner{file: pacedReads{File: file, ctx: ctx, pace: pace}, limit: size}}
}

func (p *bytesPart) at(offset int64) (entry.Bundle, error) {
	p.s.offset = offset
	if offset >= p.s.limit {
		return entry.Bundle{}, io.EOF
	}
	return p.s.next()
}

// readerFile is a file that can be read and nothing else.
type readerFile struct {
	vfs.File
	at io.ReaderAt
}

func (f readerFile) ReadAt(b []byte, at int64) (int, error) { return f.at.ReadAt(b, at) }

// twinPart takes bundles from a twin, which is asked only when the first one is needed.
type twinPart struct {
	ctx     context.Context
	pace    Pace
	twin    Twin
	number  ident.ReceiverNumber
	content TwinContent
	part    *bytesPart
	failed  error
	taken   int64 // bytes
}

func (p *twinPart) open() error {
	if p.content != nil || p.failed != nil {
		return p.failed
	}
	if p.content, p.failed = p.twin.Receiver(p.ctx, p.number); p.failed != nil {
		p.content, p.failed = nil, fmt.Errorf("ask %s: %w", p.twin.Name(), p.failed)
		return p.failed
	}
	p.part = newBytesPart(p.ctx, p.pace, p.content, p.content.Size())
	return nil
}

func (p *twinPart) at(offset int64) (entry.Bundle, error) {
	if err := p.open(); err != nil {
		return entry.Bundle{}, err
	}
	b, err := p.part.at(offset)
	if err != nil {
		return entry.Bundle{}, fmt.Errorf("%s: %w", p.twin.Name(), err)
	}
	return b, nil
}

// header returns the twin's receiver header.
func (p *twinPart) header() ([]byte, error) {
	if err := p.open(); err != nil {
		return nil, err
	}
	raw := make([]byte, HeaderSize)
	if n, err := p.part.s.file.ReadAt(raw, 0); err != nil && !(err == io.EOF && n == len(raw)) {
		return nil, fmt.Errorf("read the header of %s: %w", p.twin.Name(), err)
	}
	return raw, nil
}

func (p *twinPart) close() {
	if p.content != nil {
		p.content.Close() // only read from
	}
}

// menu lists which twins are tried together: each one alone, since one that stands on another branch must not spoil the work of
// one that does not; then all, which may complete each other.
func menu(n int) [][]int {
	var out [][]int
	all := []int{}
	for i := range n {
		out = append(out, []int{i})
		all = append(all, i)
	}
	if n > 1 {
		out = append(out, all)
	}
	return out
}
