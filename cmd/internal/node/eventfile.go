package node

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/understudy-ha/understudy/client"
)

// The event file is <data>/events/events.jsonl, a JSON object a line, oldest first. At eventFileBytes it becomes
// events.1.jsonl, which replaces the one before. A line that a crash cut short is skipped when it is read.
const (
	eventFile       = "events.jsonl"
	eventFileBefore = "events.1.jsonl"
	eventFileBytes  = 1 << 20
	eventFileRetry  = 10 * time.Second       // after a failed write; a new file is begun then
	eventFileGather = 100 * time.Millisecond // events come in flocks, at moments when others wait for the disk
)

// eventFileWriter copies events to the disk. It is the only one that writes there.
type eventFileWriter struct {
	events *events
	fs     vfs.FS
	dir    string
	stop   chan struct{} // closed by close
	once   sync.Once
	work   sync.WaitGroup

	file    vfs.File // nil: none is open
	size    int64
	written uint64    // id of the newest event on disk
	failed  time.Time // of the last failure
}

// keep reads the events that earlier lives kept under dir, and keeps what follows there until close.
func (e *events) keep(fs vfs.FS, dir string) (*eventFileWriter, error) {
	w := &eventFileWriter{events: e, fs: fs, dir: dir, stop: make(chan struct{})}
	if err := fs.MkdirAll(dir, 0o750); err != nil {
		return nil, fmt.Errorf("create event directory: %w", err)
	}
	if err := syncDirectory(fs, fs.PathDir(dir)); err != nil {
		return nil, fmt.Errorf("make event directory durable: %w", err)
	}
	var past []client.Event
	for _, name := range []string{eventFileBefore, eventFile} {
		raw, err := readFile(fs, fs.PathJoin(dir, name))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("read event file: %w", err)
		}
		found, bad := parseEvents(raw)
		if bad > 0 {
			e.log.Warn("event file has lines that cannot be read", "file", name, "lines", bad)
		}
		past = append(past, found...)
	}
	if len(past) > 0 {
		w.written = past[len(past)-1].ID
	}
	e.recall(past)
	w.work.Go(w.run)
	return w, nil
}

// parseEvents reads lines; what is not an event with an id above those before is counted and skipped.
func parseEvents(raw []byte) (out []client.Event, bad int) {
	last := uint64(0)
	for line := range bytes.SplitSeq(raw, []byte("\n")) {
		if len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		var e client.Event
		if err := json.Unmarshal(line, &e); err != nil || e.ID <= last {
			bad++
			continue
		}
		last = e.ID
		out = append(out, e)
	}
	return out, bad
}

// run writes what is new until close, and then the rest.
func (w *eventFileWriter) run() {
	for over := false; ; {
		fresh, changed := w.events.since(w.written)
		if len(fresh) > 0 && (over || time.Since(w.failed) >= eventFileRetry) {
			if err := w.write(fresh); err != nil {
				w.failed = time.Now()
				w.events.log.Error("events are not written to disk: free space or check the disk of the data directory", "error", err)
				w.abandon()
			}
		}
		if over {
			w.abandon()
			return
		}
		select {
		case <-changed:
			select {
			case <-time.After(eventFileGather):
			case <-w.stop:
				over = true
			}
		case <-w.stop:
			over = true
		}
	}
}

// write appends events and syncs them.
func (w *eventFileWriter) write(fresh []client.Event) error {
	var lines []byte
	for _, e := range fresh {
		line, err := json.Marshal(e)
		if err != nil {
			return err
		}
		lines = append(append(lines, line...), '\n')
	}
	if err := w.room(int64(len(lines))); err != nil {
		return err
	}
	if _, err := w.file.WriteAt(lines, w.size); err != nil {
		return fmt.Errorf("write event file: %w", err)
	}
	w.size += int64(len(lines))
	if err := w.file.SyncData(); err != nil {
		return fmt.Errorf("sync event file: %w", err)
	}
	w.written = fresh[len(fresh)-1].ID
	return nil
}

// room opens the file, or begins a new one when n bytes more are too many for it.
func (w *eventFileWriter) room(n int64) error {
	path := w.fs.PathJoin(w.dir, eventFile)
	if w.file == nil {
		file, err := w.fs.OpenReadWrite(path, vfs.WriteCategoryUnspecified)
		if err != nil {
			return fmt.Errorf("open event file: %w", err)
		}
		w.file = file
		info, err := file.Stat()
		if err != nil {
			return fmt.Errorf("look at event file: %w", err)
		}
		if w.size = info.Size(); w.size > 0 { // what a crash cut short ends here
			if _, err := w.file.WriteAt([]byte("\n"), w.size); err != nil {
				return fmt.Errorf("write event file: %w", err)
			}
			w.size++
		}
		if err := syncDirectory(w.fs, w.dir); err != nil {
			return err
		}
	}
	if w.size == 0 || w.size+n <= eventFileBytes {
		return nil
	}
	w.abandon()
	if err := w.fs.Rename(path, w.fs.PathJoin(w.dir, eventFileBefore)); err != nil {
		return fmt.Errorf("rotate event file: %w", err)
	}
	return w.room(n)
}

// abandon closes the file; what was to be kept was synced.
func (w *eventFileWriter) abandon() {
	if w.file == nil {
		return
	}
	if err := w.file.Close(); err != nil {
		w.events.log.Warn("event file did not close well", "error", err)
	}
	w.file = nil
}

// close writes what is missing and ends the writer.
func (w *eventFileWriter) close() error {
	w.once.Do(func() { close(w.stop) })
	w.work.Wait()
	return nil
}
