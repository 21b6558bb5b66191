package journal

import (
	"fmt"

	"github.com/understudy-ha/understudy/journal/entry"
)

// synced is a batch that is on disk: nobody has been told yet.
type synced struct {
	receiver *receiver
	end      int64 // behind its last bundle
	bytes    int64
	zeros    int64        // up to here the file was filled with zeros that the same sync covered
	last     entry.Header // of its last bundle
}

// tellLocked publishes that the batch is durable, once its mark is as safe as it has to be.
func (j *Journal) tellLocked(s synced) {
	r := s.receiver
	r.written = s.end
	j.view.Bytes += max(0, s.end-r.size)
	r.size = max(r.size, s.end)
	r.allotted = max(r.allotted, s.zeros)
	j.view.Durable, j.view.DurableAfter = s.last.Last(), s.last.After()
	j.queue.bytes -= s.bytes
	j.ring.trim(j.view.Durable)
	j.publishLocked()
}

// markBehind notes a batch of a backlog, and syncs the note while the writer goes on to the next batch: there every batch is as long
// as it may be, and so every note is due. The batch is told of when its note is on disk, as ever. What is written meanwhile is one
// batch at most, and not synced before the note is.
func (w *writer) markBehind(s synced) error {
	due, err := w.writeMark(s.last.Last(), s.bytes)
	if err != nil {
		return err
	}
	tell := func() {
		w.j.mu.Lock()
		defer w.j.mu.Unlock()
		w.j.tellLocked(s)
	}
	if !due {
		tell()
		return nil
	}
	state, done := w.state, make(chan error, 1)
	w.marking = done
	go func() {
		err := state.SyncData()
		if err == nil {
			tell()
		} else {
			err = w.j.fail(fmt.Errorf("sync durable mark: %w", err)) // the writer may be waiting for work
		}
		done <- err
	}()
	return nil
}

// marked waits until the last note of a backlog is on disk, and told of. Whatever is no batch of bundles waits for it first.
func (w *writer) marked() error {
	if w.marking == nil {
		return nil
	}
	err := <-w.marking
	w.marking = nil
	return err
}
