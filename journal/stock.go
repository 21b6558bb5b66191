package journal

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
)

const spareSuffix = ".spare"

func spareName(n int) string { return strconv.Itoa(n) + spareSuffix }

// How long the stock waits before it tries again to find space.
const (
	firstRetry = 100 * time.Millisecond
	lastRetry  = 5 * time.Second
)

// fillChunk is what is filled with zeros at once, and synced. Then the disk is left alone for as long as that took, so that the
// syncs of bundles find it idle half of the time at least.
const (
	fillChunk = 1 << 20
	longPause = 200 * time.Millisecond
)

// stock makes receivers ahead, in a goroutine of its own: whole files of zeros, synced, with a durable name. Fields are guarded
// by Journal.mu, but for those of the goroutine.
type stock struct {
	j        *Journal
	stopping chan struct{} // closed when the journal is closing
	done     chan struct{} // closed when the goroutine has ended
	wake     chan struct{} // gets a token when there may be something to do

	ready   []blank // whole ones, and such as were made in a hurry, under temporary names
	making  int64   // size of the file that is being made, probed for or deleted: what is on the disk is counted until it is gone
	granted int64   // what the holder of appending is about to take
	serial  int     // of the newest name
	aside   int     // so many of ready are kept although nobody else would want them, see SetAside
	tidy    bool    // the limits have changed: there may be too many
	full    *FullError
	need    int64      // what must be free before full goes
	pending *FullError // why the last attempt to make a spare failed

	retry time.Duration
	again bool // it is time to try again

	found []string // spares found by Open; of the goroutine
}

func newStock(j *Journal, found []string) *stock {
	s := &stock{j: j, stopping: make(chan struct{}), done: make(chan struct{}), wake: make(chan struct{}, 1), found: found, retry: firstRetry}
	for _, name := range found {
		if n, err := strconv.Atoi(strings.TrimSuffix(name, spareSuffix)); err == nil {
			s.serial = max(s.serial, n)
		}
	}
	return s
}

func (s *stock) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// retryNow has the stock try again at once: something was deleted.
func (s *stock) retryNow() {
	s.j.mu.Lock()
	s.again = true
	s.j.mu.Unlock()
	s.signal()
}

// has tells whether a spare is ready.
func (s *stock) has() bool {
	s.j.mu.RLock()
	defer s.j.mu.RUnlock()
	return len(s.ready) > 0
}

func (s *stock) bytesLocked() int64 {
	var n int64
	for _, b := range s.ready {
		n += b.allotted
	}
	return n
}

// run is the stock's goroutine. It ends when the journal is closing or has failed.
func (s *stock) run() {
	defer close(s.done)
	if err := s.adopt(); err != nil {
		s.j.fail(err)
	}
	for {
		task, wait := s.next()
		if task == nil {
			if !s.sleep(wait) {
				return
			}
			continue
		}
		if err := task(); err != nil {
			s.j.fail(err)
		}
		select {
		case <-s.stopping:
			return
		default:
		}
	}
}

// sleep waits until there may be something to do; d is 0 when only a signal can bring that about. It is false when the journal
// is closing.
func (s *stock) sleep(d time.Duration) bool {
	var late <-chan time.Time
	if d > 0 {
		timer := time.NewTimer(d)
		defer timer.Stop()
		late = timer.C
	}
	select {
	case <-s.wake:
	case <-late:
		s.j.mu.Lock()
		s.again = true
		s.j.mu.Unlock()
	case <-s.stopping:
		return false
	}
	return true
}

// next decides what is to be done. Without a task it says for how long to wait.
func (s *stock) next() (task func() error, wait time.Duration) {
	j := s.j
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.view.Err != nil || j.queue.closing {
		return nil, 0
	}
	if s.tidy || j.limits.MaximumBytes > 0 && j.heldLocked() > j.limits.MaximumBytes {
		if n := len(s.ready); n > 0 && s.tooManyLocked() {
			b := s.ready[n-1]
			s.ready, s.making = s.ready[:n-1:n-1], b.allotted
			return func() error { defer s.gone(); return s.drop(b) }, 0
		}
		s.tidy = false
	}
	size, left := int64(0), j.leftLocked()
	diskFull := s.full != nil && s.full.Reason == FullDisk
	switch {
	case diskFull:
		size = s.need
	case s.bytesLocked() < s.wantedLocked():
		size = j.limits.full()
	}
	if size == 0 || j.record.count == 0 { // the directory is made with the state file
		return nil, 0
	}
	if size > left {
		s.pending = j.fullLocked(nil)
		if diskFull {
			s.full = s.pending
			j.publishLocked()
		}
		return nil, 0 // SetLimits and DeleteReceivers give a signal
	}
	if diskFull || s.pending != nil && s.pending.Reason == FullDisk {
		if !s.again {
			return nil, s.retry
		}
		s.again, s.retry = false, min(2*s.retry, lastRetry)
	}
	s.serial++
	name := spareName(s.serial)
	s.making = size
	if diskFull {
		return func() error { return s.probe(name, size) }, 0
	}
	return func() error { return s.make(name, size) }, 0
}

// wantedLocked returns how many bytes of spares there should be.
func (s *stock) wantedLocked() int64 {
	l, j := &s.j.limits, s.j
	switch {
	case l.SpareBytes != 0:
		return max(0, l.SpareBytes)
	case j.record.state != Active || len(j.receivers) == 0:
		return 0
	}
	if r := j.receivers[len(j.receivers)-1]; r.end < l.ReceiverBytes/8 {
		return 0
	}
	return l.full()
}

// tooManyLocked tells whether the last spare is beyond the limits, and nothing depends on it.
func (s *stock) tooManyLocked() bool {
	l := &s.j.limits
	if len(s.ready) == 1 && s.j.relyLocked() {
		return false
	}
	if l.MaximumBytes > 0 && s.j.heldLocked() > l.MaximumBytes {
		return true
	}
	if len(s.ready) <= s.aside {
		return false
	}
	most := max(0, l.SpareBytes)
	if l.SpareBytes == 0 {
		most = l.full()
	}
	return s.bytesLocked()-s.ready[len(s.ready)-1].allotted >= most
}

// probe looks whether there is space for what was refused.
func (s *stock) probe(name string, size int64) error {
	b, err := s.j.disk.blank(name+tempSuffix, size, size, size)
	if err == nil {
		err = s.drop(b)
	}
	s.gone() // before anybody hears that there is space
	if noSpace(err) {
		return nil
	}
	if err == nil {
		s.retry = firstRetry
		s.j.relieve()
	}
	return err
}

// gone notes that the file that was counted as being made is not there any more. Who was refused meanwhile may try again.
func (s *stock) gone() {
	s.j.mu.Lock()
	defer s.j.mu.Unlock()
	s.making = 0
	s.j.freedLocked()
}

// make makes a spare of the given size. A full disk is no failure: it is tried again. Every other error is final.
func (s *stock) make(name string, size int64) error {
	b, err := s.fill(name, size)
	s.j.mu.Lock()
	defer s.j.mu.Unlock()
	s.making = 0
	switch {
	case err == errStopped:
		return nil
	case noSpace(err):
		if s.pending == nil || s.pending.Reason != FullDisk {
			s.j.log.Warn("no space on the disk for a spare receiver; it is tried again", "group", s.j.disk.id.Group, "node", s.j.disk.id.Node,
				"bytes", size, "error", err)
			s.retry = firstRetry
		}
		s.pending = s.j.fullLocked(err)
		return nil
	case err != nil:
		return err
	}
	s.ready = append(s.ready, b)
	s.retry, s.pending = firstRetry, nil
	s.j.relieveLocked()
	return nil
}

// errStopped: the journal closed while a file was filled.
var errStopped = errors.New("stopped")

// fill makes a file of zeros under a temporary name, syncs it and gives it its name. In case of an error there is no file.
func (s *stock) fill(name string, size int64) (_ blank, err error) {
	d := &s.j.disk
	path, temp := d.path(name), d.path(name+tempSuffix)
	file, err := d.fs.OpenReadWrite(temp, category)
	if err != nil {
		return blank{}, fmt.Errorf("create %s: %w", temp, err)
	}
	_, err = reserve(file, 0, size)
	zeros := make([]byte, min(size, fillChunk))
	for from := int64(0); from < size && err == nil; {
		began := time.Now()
		n := min(size-from, fillChunk)
		if _, err = file.WriteAt(zeros[:n], from); err == nil {
			err = file.SyncData()
		}
		from += n
		if err == nil && from < size {
			err = s.pause(min(time.Since(began), longPause))
		}
	}
	if err == nil {
		err = file.Sync()
	}
	if err := errors.Join(err, file.Close()); err != nil {
		if noSpace(err) || errors.Is(err, errStopped) {
			if gone := d.fs.Remove(temp); gone != nil {
				return blank{}, fmt.Errorf("remove %s: %w", temp, gone)
			}
			if errors.Is(err, errStopped) {
				return blank{}, errStopped
			}
		}
		return blank{}, fmt.Errorf("make spare receiver %s: %w", path, err)
	}
	if err := d.fs.Rename(temp, path); err != nil {
		return blank{}, fmt.Errorf("rename %s: %w", temp, err)
	}
	return blank{name: name, size: size, allotted: size}, syncDir(d.fs, d.dir)
}

// pause leaves the disk to others for d.
func (s *stock) pause(d time.Duration) error {
	if d <= 0 {
		d = 1 // a disk in memory; look whether the journal closes all the same
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-s.stopping:
		return errStopped
	}
}

// drop deletes a file that is no receiver.
func (s *stock) drop(b blank) error {
	d := &s.j.disk
	if err := d.fs.Remove(d.path(b.name)); err != nil {
		return fmt.Errorf("delete spare receiver: %w", err)
	}
	s.j.mu.Lock()
	s.j.freedLocked()
	s.j.mu.Unlock()
	return syncDir(d.fs, d.dir)
}

// adopt takes over the spares that an earlier life has left: those that are whole and hold nothing but zeros. One into which a
// header was written before a crash is deleted.
func (s *stock) adopt() error {
	slices.Sort(s.found)
	for _, name := range s.found {
		select {
		case <-s.stopping:
			return nil
		default:
		}
		b, ok, err := s.inspect(name)
		switch {
		case errors.Is(err, errStopped):
			return nil
		case err != nil:
			return err
		case !ok:
			if err := s.drop(blank{name: name}); err != nil {
				return err
			}
			continue
		}
		s.j.mu.Lock()
		s.ready = append(s.ready, b)
		s.tidy = true
		s.j.relieveLocked()
		s.j.mu.Unlock()
	}
	return nil
}

// inspect tells whether a file is a spare.
func (s *stock) inspect(name string) (b blank, ok bool, err error) {
	d := &s.j.disk
	file, err := d.fs.OpenReadWrite(d.path(name), category)
	if err != nil {
		return blank{}, false, fmt.Errorf("open spare receiver: %w", err)
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	info, err := file.Stat()
	if err != nil {
		return blank{}, false, fmt.Errorf("look at spare receiver: %w", err)
	}
	size := info.Size()
	if size < 2*HeaderSize || !solid(file, size) {
		return blank{}, false, nil
	}
	buffer := make([]byte, chunk)
	for at := int64(0); at < size; at += chunk {
		select {
		case <-s.stopping:
			return blank{}, false, errStopped
		default:
		}
		n, err := file.ReadAt(buffer[:min(chunk, size-at)], at)
		if err != nil && err != io.EOF {
			return blank{}, false, fmt.Errorf("read spare receiver: %w", err)
		}
		if !allZero(buffer[:n]) {
			return blank{}, false, nil
		}
	}
	if err := file.Sync(); err != nil { // of a process that was killed
		return blank{}, false, fmt.Errorf("sync spare receiver: %w", err)
	}
	return blank{name: name, size: size, allotted: size}, true, nil
}
