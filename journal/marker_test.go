package journal

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/understudy-ha/understudy/internal/ident"
)

// heldMarks is a file system whose state file is synced when the test says so: the syncs of marks, that is.
type heldMarks struct {
	vfs.FS
	marks  chan chan error // gets a channel for the result of each
	writes chan int        // gets the length of what is written to receivers
	syncs  chan struct{}   // gets the syncs of receivers
	over   chan struct{}   // closed when the test is over: nothing is held up any more
}

func (h *heldMarks) OpenReadWrite(name string, category vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	f, err := h.FS.OpenReadWrite(name, category, opts...)
	if err != nil {
		return nil, err
	}
	return &heldFile{File: f, fs: h, state: strings.HasPrefix(h.PathBase(name), stateName)}, nil
}

type heldFile struct {
	vfs.File
	fs    *heldMarks
	state bool
}

func (f *heldFile) WriteAt(b []byte, at int64) (int, error) {
	n, err := f.File.WriteAt(b, at)
	if !f.state {
		f.fs.writes <- n
	}
	return n, err
}

func (f *heldFile) SyncData() error {
	if !f.state {
		f.fs.syncs <- struct{}{}
		return f.File.SyncData()
	}
	done := make(chan error)
	select {
	case f.fs.marks <- done:
	case <-f.fs.over:
		return f.File.SyncData()
	}
	select {
	case err := <-done:
		if err != nil {
			return err
		}
	case <-f.fs.over:
	}
	return f.File.SyncData()
}

// A part of a backlog is durable for others when its mark is on disk. Meanwhile the next part is written, and not synced. When the
// mark cannot be synced the journal has failed. Proves RJ-3.
func TestMarkOfABacklogComesFirst(t *testing.T) {
	for _, broken := range []error{nil, errors.New("broken")} {
		o := options(vfs.NewMem())
		o.ReceiverBytes, o.RingBytes = 4<<20, 1
		src := active(t, o)
		for range 300 {
			deposit(t, src, 1, 1, 4<<10)
		}
		flush(t, src)
		h := &heldMarks{FS: vfs.NewMem(), marks: make(chan chan error), writes: make(chan int, 100), syncs: make(chan struct{}, 100), over: make(chan struct{})}
		to := options(h)
		to.ReceiverBytes = o.ReceiverBytes
		c := open(t, to)
		t.Cleanup(func() { close(h.over) })
		r := mustReader(t, src, 1)
		item, _, err := r.TryNext()
		must(t, err)
		must(t, c.BeginReceiver(item.ReceiverHeader))
		feed := func() ident.Sequence {
			s, ok, err := r.TryStretch(300 << 10)
			if err != nil || !ok {
				t.Fatal(ok, err)
			}
			_, last, err := c.AppendPiece(s.Receiver, s.Offset, readStretch(t, s))
			must(t, err)
			return last
		}
		must(t, c.do(func(*writer) error { return nil })) // the receiver is there
		for len(h.writes)+len(h.syncs) > 0 {
			select {
			case <-h.writes:
			case <-h.syncs:
			}
		}
		first := feed()
		<-h.writes
		<-h.syncs
		done := <-h.marks
		second := feed()
		<-h.writes
		if v, _ := c.View(); v.Durable >= first || len(h.syncs) > 0 {
			t.Fatalf("durable up to %s, %d more syncs, before the mark of %s was on disk", v.Durable, len(h.syncs), first)
		}
		done <- broken
		if broken != nil {
			err := c.WaitDurable(context.Background(), first)
			if v, _ := c.View(); !errors.Is(err, ErrFailed) || !errors.Is(err, broken) || v.Durable >= first {
				t.Fatalf("durable up to %s, %v", v.Durable, err)
			}
			_ = c.Close() // says so again
			continue
		}
		must(t, c.WaitDurable(context.Background(), first))
		<-h.syncs
		done = <-h.marks
		done <- nil
		must(t, c.WaitDurable(context.Background(), second))
		if d, _ := c.View(); d.Durable != second {
			t.Fatalf("durable up to %s, want %s", d.Durable, second)
		}
	}
}
