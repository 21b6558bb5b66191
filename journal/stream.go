package journal

import (
	"bufio"
	"errors"
	"fmt"
	"io"

	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal/entry"
)

// Stream reads one receiver from wherever its bytes come and checks all of them: header, checksums, sequences, chain and the order
// of bundles. It needs no journal. What it holds is one bundle and a few numbers.
type Stream struct {
	in *bufio.Reader
	r  *receiver
}

// NewStream reads the header. An error wraps io.ErrUnexpectedEOF when it is not all there.
func NewStream(in io.Reader) (*Stream, error) {
	buffered := bufio.NewReaderSize(in, chunk)
	raw := make([]byte, HeaderSize)
	if _, err := io.ReadFull(buffered, raw); err != nil {
		return nil, fmt.Errorf("read receiver header: %w", whole(err))
	}
	h, err := DecodeReceiverHeader(raw)
	if err != nil {
		return nil, err
	}
	return &Stream{in: buffered, r: newReceiver(h, raw)}, nil
}

// whole says of an end in the middle that it is one.
func whole(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// Next returns the next bundle, whose memory is not used again. io.EOF: the receiver ends here, at the end of the bytes or where
// only zeros follow. *CorruptionError: what follows is no bundle that continues it. Other errors are those of reading.
func (s *Stream) Next() (entry.Bundle, error) {
	head, err := s.in.Peek(entry.HeaderSize)
	if err != nil && err != io.EOF {
		return entry.Bundle{}, fmt.Errorf("read receiver %s: %w", s.r.header.Number, err)
	}
	if allZero(head) {
		return entry.Bundle{}, s.zeros()
	}
	h, err := entry.DecodeHeader(head)
	if err != nil {
		return entry.Bundle{}, s.corrupt(err)
	}
	raw := make([]byte, h.Length) // a whole header was read: its checksum stands for the length
	if _, err := io.ReadFull(s.in, raw); errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return entry.Bundle{}, s.corrupt(errGone)
	} else if err != nil {
		return entry.Bundle{}, fmt.Errorf("read receiver %s: %w", s.r.header.Number, err)
	}
	b, err := entry.Decode(raw)
	if err == nil && b.First != s.r.last+1 {
		err = fmt.Errorf("%w: sequence %s follows %s", errStructure, b.First, s.r.last)
	}
	if err == nil {
		err = s.r.accepts(b)
	}
	if err != nil {
		return entry.Bundle{}, s.corrupt(err)
	}
	s.r.add(b)
	return b, nil
}

// zeros reads up to the end: nothing but zeros may follow.
func (s *Stream) zeros() error {
	buffer := make([]byte, 32<<10)
	for {
		n, err := s.in.Read(buffer)
		switch {
		case !allZero(buffer[:n]):
			return s.corrupt(fmt.Errorf("%w: bytes beyond the last bundle", errStructure))
		case err != nil:
			return err // io.EOF, mostly
		}
	}
}

func (s *Stream) corrupt(err error) error {
	return &CorruptionError{Receiver: s.r.header.Number, Offset: s.r.end, Err: err}
}

// Drain reads on to the end and returns nil there.
func (s *Stream) Drain() error {
	for {
		if _, err := s.Next(); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// Header returns what the header says.
func (s *Stream) Header() ReceiverHeader { return s.r.header }

// Raw returns the header's bytes, which must not be modified.
func (s *Stream) Raw() []byte { return s.r.raw }

// Last returns the sequence of the last entry read; First-1 before the first.
func (s *Stream) Last() ident.Sequence { return s.r.last }

// After returns the history position after what was read.
func (s *Stream) After() ident.Position { return s.r.after }

// Chain returns the chain after what was read.
func (s *Stream) Chain() ident.Chain { return s.r.chain }

// Bytes returns how many bytes header and bundles read so far take.
func (s *Stream) Bytes() int64 { return s.r.end }

// Closed tells whether the last bundle read was J NR: the receiver is detached and whole.
func (s *Stream) Closed() bool { return s.r.closed }

// Pieces returns the parts of runs read so far, in the order of their sequences.
func (s *Stream) Pieces() []Run { return s.r.pieces }
