package journal

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/sys/unix"
)

// A bundle is numbered only when the file that takes it has space for it: set aside by the file system, or zeros that were
// written and synced. So the writer never meets a full disk in the middle of a receiver.

// blank is a file that is not a receiver yet: it holds zeros up to size and has space up to allotted.
type blank struct {
	name           string // in the journal's directory
	size, allotted int64
}

// reserve has the file system set space aside for the file from one offset to the other. False means that it cannot promise
// that: then only what was written and synced is certain.
func reserve(file vfs.File, from, to int64) (bool, error) {
	if file.Fd() == vfs.InvalidFd {
		return false, nil
	}
	err := file.Preallocate(from, to-from)
	for errors.Is(err, syscall.EINTR) {
		err = file.Preallocate(from, to-from)
	}
	switch {
	case noSpace(err):
		return false, fmt.Errorf("set space aside: %w", err)
	case err != nil:
		return false, nil // not supported here
	}
	return solid(file, to), nil
}

// solid tells whether the file has no holes below size, as far as that can be known: one that was copied may have some, and
// some file systems only say that they had set space aside.
func solid(file vfs.File, size int64) bool {
	fd := file.Fd()
	if fd == vfs.InvalidFd {
		return true
	}
	var st unix.Stat_t
	return unix.Fstat(int(fd), &st) == nil && st.Blocks*512 >= size
}

// held returns how many bytes the file system holds for the file, its end or not; 0 when that is not known.
func held(file vfs.File) int64 {
	var st unix.Stat_t
	if fd := file.Fd(); fd == vfs.InvalidFd || unix.Fstat(int(fd), &st) != nil {
		return 0
	}
	return st.Blocks * 512
}

// trim gives back the space behind size, where it can be done at once. The file holds nothing but zeros there.
func trim(file vfs.File, size int64) bool {
	fd := file.Fd()
	return fd != vfs.InvalidFd && unix.Ftruncate(int(fd), size) == nil
}

// demand is what is about to be appended.
type demand struct {
	size    int64 // of the bundle
	control bool  // it may use the reserve
}

// needLocked returns up to where a receiver must have its space to take the demand at end, with spares ready or not.
func (j *Journal) needLocked(end int64, d demand, spares int) int64 {
	need := end + d.size + nextBytes
	if !d.control && spares == 0 {
		need += j.limits.reserve()
	}
	return need
}

// relyLocked tells whether the journal can be left in order only because there is a file for the next receiver: the attached one has not
// got that space itself.
func (j *Journal) relyLocked() bool {
	n := len(j.receivers)
	return n > 0 && j.needLocked(j.receivers[n-1].end, demand{}, 0) > j.receivers[n-1].allotted
}

// fit makes sure that r has its space for the demand, and that behind it the journal can be left in order: in r, or in a file for
// the next receiver.
func (j *Journal) fit(r *receiver, d demand) error {
	j.mu.RLock()
	least := r.end + d.size + nextBytes
	need, have := j.needLocked(r.end, d, len(j.stock.ready)), r.allotted
	full := j.stock.full
	j.mu.RUnlock()
	switch {
	case need <= have:
		return nil
	case full != nil && full.Reason == FullDisk && !d.control:
		return full // the stock tries now and then
	case least > have:
		return j.grow(r, need, d)
	}
	b, err := j.makeBlank(demand{})
	if err == nil {
		j.putBack(b)
	}
	return err
}

// grow gets r the space up to need at least: a step more when there is that much.
func (j *Journal) grow(r *receiver, need int64, d demand) error {
	j.mu.Lock()
	have := r.allotted
	left := j.leftLocked() + max(0, r.size-have) // zeros that are not synced yet count already
	want := min(roundUp(need, j.limits.step()), have+left)
	if need <= want {
		j.stock.granted = max(0, want-max(have, r.size))
	}
	j.mu.Unlock()
	if need > want {
		return j.refuse(nil, need-have)
	}
	var short error
	err := j.do(func(w *writer) (err error) {
		if short, err = w.grow(r, want); short != nil && need < want {
			short, err = w.grow(r, need)
		}
		return err
	})
	j.mu.Lock()
	j.stock.granted = 0
	j.mu.Unlock()
	switch {
	case err != nil:
		return err
	case short != nil:
		return j.refuse(short, need-have)
	}
	if !d.control {
		j.relieve()
	}
	return nil
}

// leftLocked returns how much more the journal may take on the disk.
func (j *Journal) leftLocked() int64 {
	if j.limits.MaximumBytes <= 0 {
		return 1 << 62
	}
	return max(0, j.limits.MaximumBytes-j.heldLocked())
}

// relieve notes that space was found.
func (j *Journal) relieve() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.relieveLocked()
}

func (j *Journal) relieveLocked() {
	if j.stock.full != nil {
		j.log.Info("journal has space again", "group", j.disk.id.Group, "node", j.disk.id.Node)
		j.stock.full = nil
		j.publishLocked()
	}
}

// provide returns a file for the next receiver, which will begin with the demand behind a J PR: a spare, or one that is made now.
func (j *Journal) provide(d demand) (blank, error) {
	j.mu.Lock()
	for i, b := range j.stock.ready {
		if j.needLocked(begin, d, len(j.stock.ready)-1) <= b.allotted {
			j.stock.ready = append(j.stock.ready[:i:i], j.stock.ready[i+1:]...)
			j.stock.granted = b.allotted
			j.stock.aside = max(0, j.stock.aside-1)
			j.stock.signal()
			j.mu.Unlock()
			return b, nil
		}
	}
	j.mu.Unlock()
	return j.makeBlank(d)
}

// begin is where a receiver's second bundle stands, at most.
const begin = HeaderSize + nextBytes

// makeBlank makes a file for the next receiver, which will begin with the demand behind a J PR.
func (j *Journal) makeBlank(d demand) (blank, error) {
	j.mu.Lock()
	need := j.needLocked(begin, d, 0)
	want, least, left := max(j.limits.full()+j.limits.reserve(), roundUp(need, HeaderSize)), roundUp(need, j.limits.step()), j.leftLocked()
	full := j.stock.full
	if full != nil && full.Reason == FullDisk && !d.control {
		j.mu.Unlock()
		return blank{}, full
	}
	if need > left {
		j.mu.Unlock()
		return blank{}, j.refuse(nil, need)
	}
	j.stock.serial++
	name := spareName(j.stock.serial) + tempSuffix
	j.stock.granted = min(want, left)
	j.mu.Unlock()
	b, err := j.disk.blank(name, min(want, left), min(least, left), need)
	if err != nil {
		j.mu.Lock()
		j.stock.granted = 0
		j.mu.Unlock()
	}
	switch {
	case noSpace(err):
		return blank{}, j.refuse(err, need)
	case err != nil:
		return blank{}, j.fail(err)
	}
	if !d.control {
		j.relieve()
	}
	return b, nil
}

// blank makes a file with space for want bytes, set aside in an instant, or where that cannot be done for least bytes. On a
// disk that is nearly full need must do.
func (d disk) blank(name string, want, least, need int64) (blank, error) {
	path := d.path(name)
	file, err := d.fs.OpenReadWrite(path, category)
	if err != nil {
		return blank{}, fmt.Errorf("create %s: %w", path, err)
	}
	b := blank{name: name}
	err = func() error {
		for _, size := range []int64{want, least, need} {
			ok, err := reserve(file, 0, size)
			if ok {
				b.allotted = size
				return nil
			}
			if !noSpace(err) {
				break
			}
		}
		var err error
		for _, size := range []int64{least, need} {
			if err = writeZeros(file, b.size, size); err == nil {
				err = file.SyncData()
			}
			if err == nil {
				b.size, b.allotted = size, size
				return nil
			}
			if !noSpace(err) {
				return fmt.Errorf("make %s: %w", path, err)
			}
		}
		return fmt.Errorf("make %s: %w", path, err)
	}()
	if err := errors.Join(err, file.Close()); err != nil {
		if noSpace(err) { // what it took already is wanted elsewhere
			if gone := d.fs.Remove(path); gone != nil {
				return blank{}, fmt.Errorf("remove %s: %w", path, gone)
			}
		}
		return blank{}, err
	}
	return b, nil
}

// putBack puts a file that was provided, and is not used yet, among the spares.
func (j *Journal) putBack(b blank) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.stock.granted = 0
	j.stock.ready = append(j.stock.ready, b)
}

// grow gets the receiver its space up to want. Short says that there is no space; err is final.
func (w *writer) grow(r *receiver, want int64) (short, err error) {
	if err := w.open(r); err != nil {
		return nil, err
	}
	w.j.mu.RLock()
	size := r.size
	from := max(min(size, r.allotted), r.end) // everything up to r.end is on disk
	w.j.mu.RUnlock()
	ok, err := reserve(w.file, from, want)
	if err != nil {
		return err, nil
	}
	if !ok {
		if err := writeZeros(w.file, from, want); noSpace(err) {
			return err, nil
		} else if err != nil {
			return nil, err
		}
		if err := w.file.SyncData(); err != nil {
			return nil, fmt.Errorf("sync receiver %s: %w", r.header.Number, err)
		}
		size = max(size, want)
	}
	w.j.mu.Lock()
	defer w.j.mu.Unlock()
	w.resizeLocked(r, size)
	r.allotted = max(r.allotted, want)
	return nil, nil
}
