package journal

import (
	"errors"
	"fmt"
)

// Clear removes everything that a copy holds: then it is empty, and begins with whatever receiver comes next. After a crash the copy is
// whole, empty, or holds the header of its oldest receiver alone, which BeginReceiver takes for empty. A journal that was written
// here is not cleared, since it would give its sequences out again: ErrAuthored.
func (j *Journal) Clear() error {
	j.mu.RLock()
	authored, first := j.record.authored, j.view.First
	j.mu.RUnlock()
	switch {
	case authored:
		return fmt.Errorf("clear journal %s: %w", j.disk.id, ErrAuthored)
	case first == 0:
		return j.usable()
	}
	if err := j.Rewind(first - 1); err != nil {
		return err
	}
	j.appending.Lock()
	defer j.appending.Unlock()
	if err := j.usable(); err != nil {
		return err
	}
	if !j.bare() {
		return fmt.Errorf("clear journal %s: %w", j.disk.id, errMoved)
	}
	return j.dropBare()
}

// ErrAuthored: the journal was written on this node.
var ErrAuthored = errors.New("it was written on this node")

// bare tells whether the journal is a copy with nothing but the header of one receiver. The caller holds appending.
func (j *Journal) bare() bool {
	j.mu.RLock()
	defer j.mu.RUnlock()
	return len(j.receivers) == 1 && j.receivers[0].empty() && !j.record.authored
}

// dropBare removes the only receiver of a bare journal. The caller holds appending.
func (j *Journal) dropBare() error {
	j.mu.Lock()
	old := j.receivers[0]
	j.receivers = nil
	j.view.Bytes -= old.size
	j.cutLocked(old.last, old.header.Number-1)
	j.tailLocked()
	j.lowerMarksLocked(0)
	j.freedLocked()
	j.publishLocked()
	j.mu.Unlock()
	defer j.stock.retryNow()
	return j.do(func(w *writer) error {
		if err := w.closeReceiver(); err != nil {
			return err
		}
		w.record.mark = 0 // before the file goes, or Open would miss what the mark covers
		if err := errors.Join(w.saveRecord()); err != nil {
			return err
		}
		return w.disk.remove(old)
	})
}
