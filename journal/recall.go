package journal

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/understudy-ha/understudy/internal/ident"
)

// ErrNotBefore means that a receiver does not end where the journal begins.
var ErrNotBefore = errors.New("the receiver is not the one before the oldest that is held")

// ErrRecalling means that another receiver is being put back.
var ErrRecalling = errors.New("another receiver is being put back")

// Recall puts back the receiver before the oldest one held, whose header and bundles it reads from content: First moves down.
// Number, last sequence, chain, history and run must continue into the oldest receiver to the letter, else nothing changes:
// ErrNotBefore, or *CorruptionError when the bytes are not a whole receiver. Deposits, copies and readers go on meanwhile: only the
// renaming of the finished file waits for its turn. One at a time; ErrRecalling otherwise.
//
// A failure to write the new file is not one of the journal's, which does not know the file yet. A failed rename is: whether the
// file is there is not known then.
func (j *Journal) Recall(content io.Reader) (ReceiverInfo, error) {
	if !j.recalling.TryLock() {
		return ReceiverInfo{}, fmt.Errorf("recall receiver of journal %s: %w", j.disk.id, ErrRecalling)
	}
	defer j.recalling.Unlock()
	r, err := j.recall(content)
	if err != nil {
		return ReceiverInfo{}, fmt.Errorf("recall receiver of journal %s: %w", j.disk.id, err)
	}
	return r.info(false), nil
}

func (j *Journal) recall(content io.Reader) (*receiver, error) {
	if err := j.usable(); err != nil {
		return nil, err
	}
	s, err := NewStream(content)
	if err != nil {
		return nil, err
	}
	oldest := j.oldest()
	h := s.Header()
	switch {
	case oldest == nil:
		return nil, fmt.Errorf("%w: the journal is empty; begin it with the oldest receiver instead", ErrNotBefore)
	case h.Number+1 != oldest.header.Number || h.First >= oldest.header.First:
		return nil, fmt.Errorf("%w: receiver %s begins at %s, the oldest held is %s and begins at %s", ErrNotBefore, h.Number, h.First,
			oldest.header.Number, oldest.header.First)
	}
	if err := j.disk.owns(h); err != nil {
		return nil, err
	}
	temp := j.disk.path(fileName(h.Number) + tempSuffix)
	err = j.stage(s, temp, oldest)
	if err == nil {
		err = j.reinstate(s.r, temp, oldest)
	}
	if err != nil {
		if rerr := j.disk.fs.Remove(temp); rerr != nil && !isNotExist(rerr) {
			err = errors.Join(err, rerr) // the next Open removes it
		}
		return nil, err
	}
	return s.r, nil
}

func (j *Journal) oldest() *receiver {
	j.mu.RLock()
	defer j.mu.RUnlock()
	if len(j.receivers) == 0 {
		return nil
	}
	return j.receivers[0]
}

// stage writes the receiver under a temporary name, synced, and checks that it ends where oldest begins.
func (j *Journal) stage(s *Stream, temp string, oldest *receiver) (err error) {
	if err := j.disk.fs.Remove(temp); err != nil && !isNotExist(err) {
		return fmt.Errorf("remove %s: %w", temp, err)
	}
	file, err := j.disk.fs.OpenReadWrite(temp, category)
	if err != nil {
		return fmt.Errorf("create %s: %w", temp, err)
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	out := paced{file: file}
	if _, err := out.WriteAt(s.Raw(), 0); err != nil {
		return fmt.Errorf("write %s: %w", temp, err)
	}
	for {
		at := s.Bytes()
		b, err := s.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		if b.Last() >= oldest.header.First {
			return fmt.Errorf("%w: it goes on beyond sequence %s", ErrNotBefore, oldest.header.First-1)
		}
		if _, err := out.WriteAt(b.Raw, at); err != nil {
			return fmt.Errorf("write %s: %w", temp, err)
		}
	}
	if !s.r.endsAt(oldest.header) {
		return fmt.Errorf("%w: it ends at sequence %s with chain %s, receiver %s continues %s with chain %s", ErrNotBefore,
			s.Last(), s.Chain(), oldest.header.Number, oldest.header.First-1, oldest.header.Chain)
	}
	if err := file.Sync(); err != nil {
		return fmt.Errorf("sync %s: %w", temp, err)
	}
	return nil
}

// reinstate gives the staged file its name and publishes it, when oldest is still the oldest.
func (j *Journal) reinstate(r *receiver, temp string, oldest *receiver) error {
	j.appending.Lock()
	defer j.appending.Unlock()
	if err := j.usable(); err != nil {
		return err
	}
	if now := j.oldest(); now == nil || now.header.Number != oldest.header.Number || !bytes.Equal(now.raw, oldest.raw) {
		return fmt.Errorf("%w: receiver %s went meanwhile", ErrNotBefore, oldest.header.Number)
	}
	path := j.disk.path(fileName(r.header.Number))
	err := j.do(func(w *writer) error {
		if err := w.disk.fs.Rename(temp, path); err != nil {
			return fmt.Errorf("rename %s: %w", temp, err)
		}
		return syncDir(w.disk.fs, w.disk.dir)
	})
	if err != nil {
		return err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	r.size, r.written, r.allotted = r.end, r.end, r.end
	j.view.Bytes += r.size
	j.receivers = append([]*receiver{r}, j.receivers...)
	j.tailLocked()
	j.publishLocked()
	return nil
}

// RecallPoint is where a recalled receiver has to end: it is what the oldest receiver held begins with. ok is false for an empty
// journal.
func (j *Journal) RecallPoint() (before ident.ReceiverNumber, end End, start ident.Position, ok bool) {
	oldest := j.oldest()
	if oldest == nil {
		return 0, End{}, ident.Position{}, false
	}
	h := oldest.header
	return h.Number - 1, End{Sequence: h.First - 1, Chain: h.Chain}, h.Start, true
}
