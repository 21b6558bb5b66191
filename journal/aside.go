package journal

import (
	"errors"
	"fmt"
)

// SetAside makes the files for the next n receivers now, as far as there are no spares: their zeros written, their inodes synced. Whoever
// waits for such a receiver then waits for its header and its name only. It does nothing where the room would be missed. ErrFull: there is
// no space for them.
func (j *Journal) SetAside(n int) error {
	j.appending.Lock()
	defer j.appending.Unlock()
	if err := j.usable(); err != nil {
		return err
	}
	for {
		j.mu.Lock()
		made := j.record.count > 0 // the directory is made with the state file
		enough := len(j.stock.ready) >= n || j.leftLocked() < asideRoom*j.limits.full()
		j.stock.aside = n
		j.mu.Unlock()
		if !made || enough {
			return nil
		}
		if err := j.setOneAside(); err != nil {
			return err
		}
	}
}

// asideRoom is how many receivers there must be room for before one is set aside.
const asideRoom = 4

func (j *Journal) setOneAside() error {
	b, err := j.makeBlank(demand{})
	if err != nil {
		return err
	}
	j.mu.RLock()
	want := min(zeroedTo(HeaderSize, j.limits.step()), b.allotted)
	j.mu.RUnlock()
	err = j.disk.fillBlank(&b, want)
	if noSpace(err) { // nothing was to be written there yet
		gone := j.stock.drop(b)
		j.mu.Lock()
		j.stock.granted = 0
		full := j.fullLocked(err)
		j.mu.Unlock()
		if gone != nil {
			return j.fail(gone)
		}
		return full
	}
	j.putBack(b)
	if err != nil {
		return j.fail(err)
	}
	return nil
}

// fillBlank fills a blank with zeros up to want and syncs it with its size.
func (d disk) fillBlank(b *blank, want int64) error {
	path := d.path(b.name)
	file, err := d.fs.OpenReadWrite(path, category)
	if err != nil {
		return fmt.Errorf("make %s: %w", path, err)
	}
	if want > b.size {
		err = writeZeros(file, b.size, want)
	}
	if err == nil {
		err = file.Sync()
	}
	if err := errors.Join(err, file.Close()); err != nil {
		return fmt.Errorf("make %s: %w", path, err)
	}
	b.size = max(b.size, want)
	return nil
}
