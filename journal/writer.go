package journal

import (
	"errors"
	"fmt"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal/entry"
)

const (
	// maxBatch bounds what one sync covers, unless it is a single bundle. Recovery relies on it: what lies farther apart was
	// not in the same sync. It may be raised by a new version of the format only.
	maxBatch = 4 << 20

	// maxQueue bounds what waits for the disk; Deposit and AppendRaw wait beyond it.
	maxQueue = 64 << 20

	// uncopied is the size from which a bundle is written with a call of its own.
	uncopied = 64 << 10

	// maxStep is how far receivers are filled with zeros ahead of the write position.
	maxStep = 1 << 20
)

// operation is what the writer does next: append a bundle, or something of its own kind. Operations are done in order.
type operation struct {
	receiver *receiver // of the bundle
	bundle   entry.Bundle
	offset   int64
	run      bool // of a row of bundles: Raw holds all of them, Header is that of the last; more are to come

	do   func(*writer) error // set: no bundle
	done chan error          // gets its result, when somebody waits
}

// queue is what waits for the writer. It is guarded by Journal.mu, but for receiving from the channel.
type queue struct {
	operations []operation
	bytes      int64 // of bundles not yet durable
	closing    bool
	expected   int           // so many operations are worth a token; see ready
	wake       chan struct{} // gets a token when there is something to do
}

func (q *queue) push(o operation) {
	q.operations = append(q.operations, o)
	q.bytes += int64(len(o.bundle.Raw))
}

// ready tells whether the writer has what it waits for.
func (q *queue) ready() bool {
	return len(q.operations) >= q.expected || q.urgent()
}

// urgent tells whether there is something to do at once.
func (q *queue) urgent() bool {
	return q.closing || len(q.operations) > 0 && q.operations[0].do != nil
}

func (q *queue) signal() {
	if !q.ready() {
		return
	}
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// take moves what is done together from the queue to batch: one operation of its own kind, or bundles of one receiver.
func (q *queue) take(batch []operation) []operation {
	n, bytes := 0, 0
	for n < len(q.operations) {
		o := &q.operations[n]
		bytes += len(o.bundle.Raw)
		if n > 0 && (o.do != nil || o.receiver != q.operations[0].receiver || bytes > maxBatch) {
			break
		}
		n++
		if o.do != nil {
			break
		}
	}
	batch = append(batch[:0], q.operations[:n]...)
	rest := copy(q.operations, q.operations[n:])
	clear(q.operations[rest:])
	q.operations = q.operations[:rest]
	return batch
}

// writer owns all files of a journal that are written. After the first error it does nothing any more.
type writer struct {
	j         *Journal
	disk      disk
	failpoint func(string) error
	onWrite   string // names of the failpoints
	onSync    string
	onAttach  string

	file    vfs.File      // of the receiver that is written; nil: none is open
	current *receiver     // nil: none is open
	zeros   int64         // up to here it was filled with zeros that are not synced yet
	took    time.Duration // the last sync
	queued  int           // how many bundles waited when it ended
	awaited int           // how many may soon
	shy     int           // so many are not waited for when nobody comes again
	alone   int           // so many more are not
	made    bool          // the directory
	state   vfs.File      // the state file; nil: not open
	marking <-chan error  // gets the result of a sync of the state file that is under way; nil: none is
	record  record
	behind  int64 // bytes synced since the state file was: what its mark on disk does not cover

	batch    []operation
	buffer   []byte
	closeErr error // valid once Journal.done is closed
}

func newWriter(j *Journal, o Options) *writer {
	j.mu.RLock()
	defer j.mu.RUnlock()
	id := j.disk.id.String()
	w := &writer{
		j: j, disk: j.disk, record: j.record,
		failpoint: o.Host.Failpoint, onWrite: "journal.write:" + id, onSync: "journal.sync:" + id, onAttach: "journal.attach:" + id,
	}
	w.record.mark = j.view.Durable
	return w
}

// run is the writer's goroutine. It ends when the journal is closing and everything was done.
func (w *writer) run() {
	j := w.j
	defer func() {
		close(j.done)
		j.waiters.wake(0, true)
	}()
	for {
		w.gather()
		j.mu.Lock()
		w.batch = j.queue.take(w.batch)
		err, closing := j.view.Err, j.queue.closing
		j.mu.Unlock()
		switch {
		case len(w.batch) == 0 && closing:
			w.close(err)
			return
		case len(w.batch) == 0:
			<-j.queue.wake
			continue
		case err != nil: // what was queued before the failure
		case w.batch[0].do != nil:
			if err = w.marked(); err == nil {
				err = w.batch[0].do(w)
			}
		default:
			err = w.write()
		}
		if err != nil {
			err = j.fail(err)
		}
		if done := w.batch[0].done; done != nil {
			done <- err
		}
		clear(w.batch)
	}
}

// fail makes err final and returns what everybody gets to see from now on.
func (j *Journal) fail(err error) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.view.Err == nil {
		j.view.Err = fmt.Errorf("journal %s: %w: %w", j.disk.id, ErrFailed, err)
		j.log.Error("journal has failed; nothing is written to it until the node is restarted",
			"group", j.disk.id.Group, "node", j.disk.id.Node, "durable", uint64(j.view.Durable), "error", err)
		j.publishLocked()
	}
	return j.view.Err
}

// do has the writer do f after everything queued before, and waits for it. An error of f is final for the journal.
func (j *Journal) do(f func(*writer) error) error {
	done := make(chan error, 1)
	if err := j.queueUp(operation{do: f, done: done}); err != nil {
		return err
	}
	return <-done
}

func (j *Journal) queueUp(o operation) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.queue.closing {
		return ErrClosed
	}
	if j.view.Err != nil {
		return j.view.Err
	}
	j.queue.push(o)
	j.queue.signal()
	return nil
}

// put writes the bundles of the batch, and returns where they end. Small neighbours are written with one call, large ones without
// being copied.
func (w *writer) put() (end int64, err error) {
	at := w.batch[0].offset
	w.buffer = w.buffer[:0]
	out := func(b []byte) error {
		if len(b) == 0 {
			return nil
		}
		_, err := w.file.WriteAt(b, at)
		if len(b) >= sentAhead {
			sendAhead(w.file, at, int64(len(b)))
		}
		at += int64(len(b))
		return err
	}
	for i := range w.batch {
		raw := w.batch[i].bundle.Raw
		if len(raw) < uncopied && len(w.batch) > 1 {
			w.buffer = append(w.buffer, raw...)
			continue
		}
		if err := out(w.buffer); err != nil {
			return 0, err
		}
		w.buffer = w.buffer[:0]
		if err := out(raw); err != nil {
			return 0, err
		}
	}
	err = out(w.buffer)
	return at, err
}

// write appends the batch to its receiver and syncs it once.
func (w *writer) write() error {
	first, last := &w.batch[0], &w.batch[len(w.batch)-1]
	r := first.receiver
	if err := w.open(r); err != nil {
		return err
	}
	if err := w.failpoint(w.onWrite); err != nil {
		return err
	}
	end, err := w.put()
	if err != nil {
		return fmt.Errorf("write receiver %s: %w", r.header.Number, err)
	}
	if err := w.failpoint(w.onSync); err != nil {
		return err
	}
	if err := w.marked(); err != nil { // of the batch before: one at a time
		return err
	}
	began := time.Now()
	if err := w.file.SyncData(); err != nil {
		return fmt.Errorf("sync receiver %s: %w", r.header.Number, err)
	}
	w.took = time.Since(began)
	done := synced{receiver: r, end: end, bytes: end - first.offset, zeros: w.zeros, last: last.bundle.Header}
	if last.run {
		return w.markBehind(done) // without zeros: a backlog is written once, not twice
	}
	if err := w.setMark(done.last.Last(), done.bytes); err != nil {
		return err
	}
	j := w.j
	j.mu.Lock()
	w.queued = len(j.queue.operations)
	w.awaited = w.queued + len(w.batch)
	j.tellLocked(done)
	from, to := r.size, w.aheadLocked(r)
	j.mu.Unlock()
	if to <= from {
		return nil
	}

	// The zeros are synced with the next batch; nobody waits for them.
	err = writeZeros(w.file, from, to)
	j.mu.Lock()
	defer j.mu.Unlock()
	switch {
	case noSpace(err):
		r.allotted = max(r.end, min(r.allotted, from)) // what is needed will be looked for before it is written
		return nil
	case err != nil:
		return err
	}
	w.zeros = to
	w.resizeLocked(r, to)
	return nil
}

// aheadLocked returns up to where a receiver that was not made ahead is to be filled with zeros now. Where bundles queue up
// already zeros would only be in their way.
func (w *writer) aheadLocked(r *receiver) int64 {
	if r.end > r.size {
		return 0
	}
	l := &w.j.limits
	want := min(zeroedTo(r.end, l.step()), max(r.size, roundUp(l.ReceiverBytes, l.step())))
	if more := want - r.allotted; more > 0 && more > w.j.leftLocked() {
		return 0
	}
	return want
}

// zeroed returns how long the file of a receiver is whose bundles end at end.
func (w *writer) zeroed(end int64) int64 {
	w.j.mu.RLock()
	defer w.j.mu.RUnlock()
	return zeroedTo(end, w.j.limits.step())
}

// zeroedTo: zeros stand at least half a step ahead.
func zeroedTo(end, step int64) int64 { return roundUp(end+step/2, step) }

func (w *writer) resizeLocked(r *receiver, size int64) {
	w.j.view.Bytes += size - r.size
	r.size = size
}

// open makes r the receiver that is written.
func (w *writer) open(r *receiver) error {
	if w.file != nil && w.current == r {
		return nil
	}
	if err := w.closeReceiver(); err != nil {
		return err
	}
	file, err := w.disk.fs.OpenReadWrite(w.disk.path(fileName(r.header.Number)), category)
	if err != nil {
		return fmt.Errorf("open receiver %s: %w", r.header.Number, err)
	}
	w.file, w.current, w.zeros = file, r, 0
	return nil
}

func (w *writer) closeReceiver() error {
	if w.file == nil {
		return nil
	}
	err := w.file.Close()
	w.file, w.current = nil, nil
	if err != nil {
		return fmt.Errorf("close receiver: %w", err)
	}
	return nil
}

// begin makes the blank the file of a new receiver. All bundles of the receiver before are durable already.
func (w *writer) begin(r *receiver, b blank) error {
	if err := w.detach(); err != nil {
		return err
	}
	if err := w.ensureDir(); err != nil {
		return err
	}
	if err := w.failpoint(w.onAttach); err != nil {
		return err
	}
	d := &w.disk
	path := d.path(fileName(r.header.Number))
	file, err := d.fs.OpenReadWrite(d.path(b.name), category)
	if err != nil {
		return fmt.Errorf("begin receiver %s: %w", r.header.Number, err)
	}
	size := b.size
	err = func() error {
		if _, err := file.WriteAt(r.raw, 0); err != nil {
			return err
		}
		if want := min(w.zeroed(HeaderSize), b.allotted); want > size {
			if err := writeZeros(file, max(size, HeaderSize), want); err != nil {
				return err
			}
			size = want
		}
		sync := file.Sync
		if size == b.size { // its size is on disk
			sync = file.SyncData
		}
		if err := sync(); err != nil {
			return err
		}
		if err := d.fs.Rename(d.path(b.name), path); err != nil {
			return err
		}
		return syncDir(d.fs, d.dir)
	}()
	if err != nil {
		return fmt.Errorf("begin receiver %s: %w", r.header.Number, errors.Join(err, file.Close()))
	}
	w.file, w.current, w.zeros = file, r, 0
	w.j.mu.Lock()
	defer w.j.mu.Unlock()
	w.resizeLocked(r, size)
	w.j.publishLocked()
	return nil
}

// detach closes the receiver that was written, and gives back what it does not need of its space. Where that cannot be done
// zeros stay behind its last bundle.
func (w *writer) detach() error {
	r := w.current
	if r == nil {
		return nil
	}
	w.j.mu.RLock()
	end := roundUp(r.end, HeaderSize)
	excess, size := r.closed && r.end == r.written && end < max(r.size, r.allotted), r.size
	w.j.mu.RUnlock()
	if !excess {
		return w.closeReceiver()
	}
	resize := func(to int64) { // first, so that whoever looks at the file does not miss anything
		w.j.mu.Lock()
		defer w.j.mu.Unlock()
		w.resizeLocked(r, to)
	}
	resize(min(size, end))
	if !trim(w.file, end) {
		resize(size)
		return w.closeReceiver()
	}
	w.j.mu.Lock()
	w.resizeLocked(r, end)
	r.allotted = end
	w.j.freedLocked()
	w.j.mu.Unlock()
	return w.closeReceiver()
}

// ensureDir makes the journal's directory, once.
func (w *writer) ensureDir() error {
	if w.made {
		return nil
	}
	err := ensureDir(w.disk.fs, w.disk.dir)
	w.made = err == nil
	return err
}

// saveRecord writes the state file. Short says that there is no space, and nothing has changed; err is final.
func (w *writer) saveRecord() (short, err error) {
	if err := w.ensureDir(); err != nil {
		return nil, err
	}
	if old := w.state; old != nil { // its name may lead to another file by now, or to none
		w.state = nil
		if err := old.Close(); err != nil {
			return nil, fmt.Errorf("close state file: %w", err)
		}
	}
	file, err := w.disk.saveRecord(&w.record)
	var room *noRoomError
	if errors.As(err, &room) {
		return room, nil
	}
	w.state = file
	return nil, err
}

// maxBehind bounds how far the mark on disk lies behind what was synced. Rot within that distance from the end looks like a
// torn tail after a loss of power.
const maxBehind = 256 << 10

// setMark notes in the state file that everything up to last was synced, n bytes more than before. The note itself is synced
// now and then only: it holds after a crash of the process, and after a loss of power but for the last maxBehind bytes.
func (w *writer) setMark(last ident.Sequence, n int64) error {
	due, err := w.writeMark(last, n)
	if err != nil || !due {
		return err
	}
	if err := w.state.SyncData(); err != nil {
		return fmt.Errorf("sync durable mark: %w", err)
	}
	return nil
}

// writeMark is setMark but for the sync; due tells that it must follow.
func (w *writer) writeMark(last ident.Sequence, n int64) (due bool, err error) {
	w.record.mark = last
	if w.state == nil {
		file, err := w.disk.fs.OpenReadWrite(w.disk.path(stateName), category)
		if err != nil {
			return false, fmt.Errorf("open state file: %w", err)
		}
		w.state = file
	}
	w.record.count++
	b, at := w.record.slot()
	if _, err := w.state.WriteAt(b, at); err != nil {
		return false, fmt.Errorf("write durable mark: %w", err)
	}
	if w.behind += n; w.behind < maxBehind {
		return false, nil
	}
	w.behind = 0
	return true, nil
}

// close closes the files. err is the error the journal had.
func (w *writer) close(err error) {
	if failed := w.marked(); err == nil {
		err = failed
	}
	if err == nil && w.state != nil {
		err = w.state.Sync()
	}
	err = errors.Join(err, w.closeReceiver())
	if w.state != nil {
		err = errors.Join(err, w.state.Close())
	}
	w.closeErr = err
}
