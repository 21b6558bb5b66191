package journal

import (
	"errors"
	"fmt"

	"github.com/understudy-ha/understudy/internal/ident"
)

// holding returns the index of the receiver that keeps the journal's end when everything after last goes: the last one that
// begins at or before last, or the oldest when nothing remains but its header.
func holding(receivers []*receiver, last ident.Sequence) (int, bool) {
	for i := len(receivers) - 1; i >= 0; i-- {
		if receivers[i].header.First <= last {
			return i, true
		}
	}
	return 0, len(receivers) > 0 && receivers[0].header.First == last+1
}

// Rewind physically removes all entries after last, which must be the end of a bundle or the sequence before the first one
// held. Marks beyond last are lowered to it. Readers that were given a removed bundle get ErrRewound.
//
// Before anything is touched the intention is put on disk, so a crash leaves a journal that is whole or, after the next Open,
// ends at last.
func (j *Journal) Rewind(last ident.Sequence) error {
	j.appending.Lock()
	defer j.appending.Unlock()
	if err := j.usable(); err != nil {
		return err
	}
	if err := j.do(func(*writer) error { return nil }); err != nil { // everything appended is on disk now
		return err
	}
	j.mu.RLock()
	end, receivers := j.view.Last, j.receivers
	j.mu.RUnlock()
	if last == end {
		j.mu.Lock()
		j.lowerMarksLocked(last)
		j.publishLocked()
		j.mu.Unlock()
		return nil
	}
	index, ok := holding(receivers, last)
	if !ok || last > end {
		return fmt.Errorf("rewind journal %s to sequence %s: %w", j.disk.id, last, ErrNotHeld)
	}
	kept, err := j.reread(receivers[index], last)
	if err != nil {
		return fmt.Errorf("rewind journal %s to sequence %s: %w", j.disk.id, last, err)
	}

	j.mu.Lock()
	zeros := receivers[index].size // up to where bytes must go
	if receivers[index].indexed {
		zeros = receivers[index].end
	}
	j.receivers = append(receivers[:index:index], kept)
	removed := receivers[index+1:]
	for _, r := range removed {
		j.view.Bytes -= r.size
	}
	j.ring.cut(last)
	j.cutLocked(last, kept.header.Number)
	j.tailLocked()
	j.lowerMarksLocked(last)
	j.freedLocked()
	j.publishLocked()
	j.mu.Unlock()
	defer j.stock.retryNow()

	j.log.Info("removing entries from journal", "group", j.disk.id.Group, "node", j.disk.id.Node, "after", uint64(last), "to", uint64(end))
	return j.do(func(w *writer) error { return w.rewind(last, kept, zeros, removed) })
}

// reread returns a receiver that ends at last, read anew from the file.
func (j *Journal) reread(old *receiver, last ident.Sequence) (*receiver, error) {
	file, err := j.disk.fs.Open(j.disk.path(fileName(old.header.Number)))
	if err != nil {
		return nil, err
	}
	r := newReceiver(old.header, old.raw)
	j.mu.RLock()
	r.size, r.allotted = old.size, max(old.size, old.allotted)
	j.mu.RUnlock()
	err = r.replay(file, last)
	if !solid(file, r.size) {
		r.allotted = r.end // a copy of the directory may have left its holes out
	}
	if err := errors.Join(err, file.Close()); err != nil {
		return nil, r.at(err)
	}
	if r.last != last {
		return nil, fmt.Errorf("%w: no bundle ends there", ErrNotHeld)
	}
	r.written = r.end
	return r, nil
}

// rewind does the work of Rewind on disk.
func (w *writer) rewind(last ident.Sequence, kept *receiver, end int64, removed []*receiver) error {
	if err := w.closeReceiver(); err != nil {
		return err
	}
	w.record.rewinding, w.record.rewind, w.record.mark = true, last, last
	if err := errors.Join(w.saveRecord()); err != nil {
		return err
	}
	if err := w.disk.removeAfter(kept, end, removed); err != nil {
		return err
	}
	w.record.rewinding = false
	return errors.Join(w.saveRecord())
}

// finishRewind repeats a removal that a crash interrupted.
func (d disk) finishRewind(receivers []*receiver, last ident.Sequence) ([]*receiver, error) {
	index, ok := holding(receivers, last)
	if !ok {
		return nil, fmt.Errorf("finish the removal of entries after sequence %s: %w", last, ErrNotHeld)
	}
	old := receivers[index]
	file, err := d.fs.Open(d.path(fileName(old.header.Number)))
	if err != nil {
		return nil, fmt.Errorf("open receiver: %w", err)
	}
	kept := newReceiver(old.header, old.raw)
	kept.size, kept.allotted = old.size, old.allotted
	if err := errors.Join(kept.replay(file, last), file.Close()); err != nil {
		return nil, kept.at(err)
	}
	if err := d.removeAfter(kept, kept.size, receivers[index+1:]); err != nil {
		return nil, err
	}
	return receivers[:index+1], nil
}

// removeAfter deletes the later receivers, newest first, and fills kept with zeros from its end to end. The order keeps the
// chain of receivers whole at every moment.
func (d disk) removeAfter(kept *receiver, end int64, later []*receiver) error {
	for i := len(later) - 1; i >= 0; i-- {
		if err := d.remove(later[i]); err != nil {
			return err
		}
	}
	file, err := d.fs.OpenReadWrite(d.path(fileName(kept.header.Number)), category)
	if err != nil {
		return fmt.Errorf("open receiver: %w", err)
	}
	err = writeZeros(file, kept.end, end)
	if err == nil {
		err = file.Sync()
	}
	if err := errors.Join(err, file.Close()); err != nil {
		return fmt.Errorf("remove entries: %w", err)
	}
	return nil
}

// remove deletes a receiver's file for good.
func (d disk) remove(r *receiver) error {
	if err := d.fs.Remove(d.path(fileName(r.header.Number))); err != nil {
		return fmt.Errorf("delete receiver: %w", err)
	}
	return syncDir(d.fs, d.dir)
}
