package journal

import (
	"fmt"
	"io"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/understudy-ha/understudy/internal/ident"
)

// Content is what one receiver holds durably: its header and whole bundles, byte for byte as in the file, without the zeros
// behind them. Copies of it on other nodes are equal up to the shorter one's end. It must be closed.
type Content struct {
	Info ReceiverInfo // when it was opened
	size int64
	file vfs.File
}

// Content opens receiver n. What is appended to it later is not seen. ErrNotHeld: the receiver is not here. The end of a journal
// may be removed while its content is read: whoever keeps the bytes checks them.
func (j *Journal) Content(n ident.ReceiverNumber) (*Content, error) {
	j.mu.RLock()
	i := j.receiverLocked(n)
	if i < 0 {
		j.mu.RUnlock()
		return nil, fmt.Errorf("journal %s, receiver %s: %w", j.disk.id, n, ErrNotHeld)
	}
	r := j.receivers[i]
	j.mu.RUnlock()
	if err := j.index(r); err != nil {
		return nil, fmt.Errorf("journal %s, receiver %s: %w", j.disk.id, n, err)
	}
	j.mu.RLock()
	i = j.receiverLocked(n)
	c := &Content{size: min(r.end, r.written)}
	if i >= 0 {
		c.Info = r.info(i == len(j.receivers)-1)
	}
	j.mu.RUnlock()
	file, err := j.disk.fs.Open(j.disk.path(fileName(n)))
	if isNotExist(err) || i < 0 {
		err = ErrNotHeld // deleted meanwhile, or its file is not made yet
	}
	if err != nil {
		return nil, fmt.Errorf("open receiver %s of journal %s: %w", n, j.disk.id, err)
	}
	c.file = file
	return c, nil
}

// receiverLocked returns the index of receiver n, or -1. Numbers are without gaps.
func (j *Journal) receiverLocked(n ident.ReceiverNumber) int {
	if len(j.receivers) == 0 || n < j.receivers[0].header.Number || n > j.receivers[len(j.receivers)-1].header.Number {
		return -1
	}
	return int(n - j.receivers[0].header.Number)
}

// Size is how many bytes there are, at least HeaderSize.
func (c *Content) Size() int64 { return c.size }

// Section returns the bytes.
func (c *Content) Section() *io.SectionReader { return io.NewSectionReader(c.file, 0, c.size) }

// ReadAt is io.ReaderAt; nothing beyond Size is read.
func (c *Content) ReadAt(b []byte, at int64) (int, error) { return c.Section().ReadAt(b, at) }

// Close closes the file.
func (c *Content) Close() error { return c.file.Close() }
