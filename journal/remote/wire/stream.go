package wire

import (
	"bufio"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/understudy-ha/understudy/internal/ident"
)

// step is how much room a Reader makes for a payload before any of it has arrived. It is the largest bundle of a normal
// group commit, so only giants are copied while they grow.
const step = 1 << 20

// Frame is a frame as it was read.
type Frame struct {
	Epoch   ident.Epoch
	Message Message // a value of one of the message types, never a pointer
}

// Reader reads frames from a stream. It is used by one goroutine.
type Reader struct {
	r     *bufio.Reader
	limit int
	head  [HeaderSize]byte
	buf   []byte // of the payloads; at most step is kept from one frame to the next
	raw   uint32 // bytes that a Range announced and Raw has not read yet
}

// NewReader returns a Reader that accepts frames of up to limit bytes, header included.
func NewReader(r io.Reader, limit int) *Reader {
	return &Reader{r: bufio.NewReaderSize(r, 64<<10), limit: limit}
}

// SetLimit changes the longest frame accepted from now on.
func (r *Reader) SetLimit(limit int) { r.limit = limit }

// Next reads the next frame. It returns io.EOF when the stream ended between two frames, io.ErrUnexpectedEOF when it
// ended within one, *FormatError or *VersionError for bytes that are no frame of ours, else what the stream returned.
// The bytes of a Receiver or Bundle are valid until the next call. After a Range the caller takes its bytes by Raw first.
func (r *Reader) Next() (Frame, error) {
	if r.raw > 0 {
		return Frame{}, &FormatError{Type: TypeRange, Reason: fmt.Sprintf("%d of its bytes were not taken", r.raw)}
	}
	if _, err := io.ReadFull(r.r, r.head[:]); err != nil {
		return Frame{}, err
	}
	h, err := DecodeHeader(r.head[:])
	if err != nil {
		return Frame{}, err
	}
	if int64(h.Length)+HeaderSize > int64(r.limit) {
		return Frame{}, &FormatError{Type: h.Type, Reason: fmt.Sprintf("%d bytes, at most %d now", int64(h.Length)+HeaderSize, r.limit)}
	}
	b, err := r.payload(h)
	if err != nil {
		return Frame{}, err
	}
	m, err := DecodePayload(h, b)
	if err != nil {
		return Frame{}, err
	}
	if m, ok := m.(Range); ok {
		r.raw = m.Length
	}
	return Frame{Epoch: h.Epoch, Message: m}, nil
}

// Raw fills b with the next bytes of the Range that Next returned last; b is not longer than what is left of it. It fails as Next
// does when the stream ends or breaks.
func (r *Reader) Raw(b []byte) error {
	if uint64(len(b)) > uint64(r.raw) {
		return &FormatError{Type: TypeRange, Reason: fmt.Sprintf("%d bytes wanted, %d are left", len(b), r.raw)}
	}
	n, err := io.ReadFull(r.r, b)
	r.raw -= uint32(n)
	if err == io.EOF && len(b) > 0 {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// payload reads the payload of h, making room as the bytes come.
func (r *Reader) payload(h Header) ([]byte, error) {
	n := int(h.Length)
	b := r.buf
	if cap(b) < min(n, step) {
		b = make([]byte, min(n, step))
		r.buf = b
	}
	b = b[:min(n, cap(b))]
	if err := r.fill(b); err != nil {
		return nil, err
	}
	for len(b) < n {
		grown := make([]byte, min(n, 2*len(b)))
		if err := r.fill(grown[copy(grown, b):]); err != nil {
			return nil, err
		}
		b = grown
	}
	return b, nil
}

func (r *Reader) fill(b []byte) error {
	_, err := io.ReadFull(r.r, b)
	if err == io.EOF && len(b) > 0 {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// Writer writes frames of one session to a stream. It buffers; nothing is sure to be sent before Flush. It is used by one
// goroutine. The first error is final.
type Writer struct {
	w     *bufio.Writer
	epoch ident.Epoch
	small []byte
}

// NewWriter returns a Writer of frames that carry epoch.
func NewWriter(w io.Writer, epoch ident.Epoch) *Writer {
	return &Writer{w: bufio.NewWriterSize(w, 64<<10), epoch: epoch}
}

// Write appends one frame to the buffer. Bytes of a long bundle go to the stream without a copy; none are kept.
func (w *Writer) Write(m Message) error {
	switch m := m.(type) {
	case Bundle:
		return w.raw(TypeBundle, m.Raw)
	case Receiver:
		return w.raw(TypeReceiver, m.Header)
	}
	var err error
	if w.small, err = AppendFrame(w.small[:0], w.epoch, m); err != nil {
		return err
	}
	_, err = w.w.Write(w.small)
	return err
}

func (w *Writer) raw(t Type, b []byte) error {
	if err := checkLength(t, len(b)); err != nil {
		return err
	}
	w.small = appendHeader(w.small[:0], Header{
		Length: uint32(len(b)), Type: t, Version: Version, Epoch: w.epoch, Sum: crc32.Checksum(b, castagnoli()),
	})
	if _, err := w.w.Write(w.small); err != nil {
		return err
	}
	_, err := w.w.Write(b)
	return err
}

// Buffered returns how many bytes wait for Flush.
func (w *Writer) Buffered() int { return w.w.Buffered() }

// Flush sends what is buffered.
func (w *Writer) Flush() error { return w.w.Flush() }
