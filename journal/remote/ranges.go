package remote

import (
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/understudy-ha/understudy/journal"
	"github.com/understudy-ha/understudy/journal/entry"
	"github.com/understudy-ha/understudy/journal/remote/wire"
)

const (
	rangePiece = 4 << 20 // longest range a source sends: what a target's disk writer takes with one sync
	takePiece  = 1 << 20 // bytes of a range that a target appends at once, but for longer bundles
)

// shipRange sends what lies on disk as one range of up to room bytes. It returns the bytes sent: zero when the next bundles are to
// be sent one by one.
func (p *shipment) shipRange(reader *journal.Reader, room int64) (int, error) {
	s, ok, err := reader.TryStretch(min(room, rangePiece))
	if err != nil || !ok {
		return 0, p.unread(err)
	}
	announced := wire.Range{Receiver: s.Receiver, Length: uint32(s.Length), Offset: uint64(s.Offset), First: s.First}
	if err := p.send(announced); err != nil {
		return 0, err
	}
	p.torn = true // from here to the last byte no frame may go out
	p.ranged += s.Length
	if err := p.sendFile(s); err != nil {
		return 0, fmt.Errorf("send %d bytes of receiver %s: %w", s.Length, s.Receiver, heard(err, p.s.o.Target, p.s.o.Timeout))
	}
	p.torn = false
	// The file may have been written anew while it was sent. The target takes only what continues its copy; but what this side says
	// of bundles up to s.Last would be about others.
	if err := reader.Intact(); err != nil {
		return 0, p.unread(err)
	}
	p.sent = s.Last
	p.s.state.Sent = p.sent
	p.trail.pushRange(s.First, s.Last, s.After)
	p.paid += s.Length
	return int(s.Length), nil
}

// sendFile sends the bytes of s, by the kernel alone where file and connection are its own.
func (p *shipment) sendFile(s journal.Stretch) error {
	if file, ok := fileOf(s); ok {
		defer file.Close() // only read from
		return p.link.sendFile(file, s.Length, p.piece)
	}
	for from, end := s.Offset, s.Offset+s.Length; from < end; {
		b := p.piece()[:min(end-from, writePiece)]
		if n, err := s.File.ReadAt(b, from); n < len(b) {
			return err
		}
		if _, err := p.link.Write(b); err != nil {
			return err
		}
		from += int64(len(b))
	}
	return nil
}

// piece returns room for bytes of a file on their way to a connection that cannot take the file itself.
func (p *shipment) piece() []byte {
	if p.room == nil {
		p.room = make([]byte, writePiece)
	}
	return p.room
}

// fileOf returns a file of the machine that stands at the beginning of s; ok is false when s.File is none.
func fileOf(s journal.Stretch) (file *os.File, ok bool) {
	fd := s.File.Fd()
	if int(fd) < 0 { // vfs.InvalidFd
		return nil, false
	}
	own, err := unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, false
	}
	file = os.NewFile(uintptr(own), "receiver")
	if _, err := file.Seek(s.Offset, io.SeekStart); err != nil {
		_ = file.Close() // only read from
		return nil, false
	}
	return file, true
}

// takeRange reads the bytes that m announced and appends them piece by piece. They are read outside of the gate: a source may take
// its time.
func (in *inbound) takeRange(m wire.Range) error {
	if err := in.mayTake(m); err != nil {
		return err
	}
	offset, left := int64(m.Offset), int(m.Length)
	var cut []byte // the bundle that the piece before did not hold whole
	for left > 0 {
		piece := make([]byte, min(len(cut)+left, max(takePiece, 2*len(cut))))
		n := copy(piece, cut)
		if err := in.r.Raw(piece[n:]); err != nil {
			return heard(err, in.hello.From, in.server.o.Timeouts.Silent)
		}
		left -= len(piece) - n
		used, err := in.appendPiece(m, offset, piece)
		if err != nil {
			return err
		}
		offset, cut = offset+int64(used), piece[used:]
		if len(cut) >= entry.HeaderSize {
			if h, err := entry.DecodeHeader(cut); err == nil && int(h.Length) > len(cut)+left {
				return &wire.FormatError{Type: wire.TypeRange, Reason: "a bundle that goes beyond its end"}
			}
		}
	}
	if len(cut) > 0 {
		return &wire.FormatError{Type: wire.TypeRange, Reason: fmt.Sprintf("%d bytes at its end are no bundle", len(cut))}
	}
	return nil
}

// mayTake judges a range before any byte of it is read.
func (in *inbound) mayTake(m wire.Range) error {
	leave, err := in.gate.Enter()
	if err != nil {
		return err
	}
	defer leave()
	view, _ := in.copy.View()
	switch {
	case !in.ranges:
		return &wire.FormatError{Type: wire.TypeRange, Reason: "to a target that did not say that it takes any"}
	case in.idle:
		return &wire.FormatError{Type: wire.TypeRange, Reason: "data in an idle session"}
	case !in.debt.fits(int64(m.Length)):
		return &wire.FormatError{Type: wire.TypeRange, Reason: fmt.Sprintf("%d bytes beyond the credit", m.Length)}
	case m.First != view.Last+1:
		return &journal.GapError{Want: view.Last + 1, Have: m.First}
	}
	return nil
}

// appendPiece appends the whole bundles of a piece within the gate.
func (in *inbound) appendPiece(m wire.Range, offset int64, piece []byte) (int, error) {
	leave, err := in.gate.Enter()
	if err != nil {
		return 0, err
	}
	defer leave()
	used, last, err := in.copy.AppendPiece(m.Receiver, offset, piece)
	if used > 0 {
		in.debt.add(last, used)
	}
	if err != nil {
		return used, fmt.Errorf("append a range: %w", err)
	}
	return used, nil
}
