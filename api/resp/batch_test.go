package resp

import (
	"context"
	"errors"
	"net"
	"testing"
)

// Proves BX-5: replies that do not fit beside those before them wait, and so does everything after them, however often programs are run.
func TestRepliesWaitForRoom(t *testing.T) {
	w := newWorld(t, 1, func(o *Options) { o.Limits.Reply = 5 << 19 })
	near, far := net.Pipe()
	defer func() { _, _ = near.Close(), far.Close() }()
	s := newSession(context.Background(), w.nodes[0].server, far)
	var jobs []*job
	for _, size := range []int{1 << 20, 1 << 20, 1 << 20, 1} {
		jobs = append(jobs, &job{step: func(*tx) reply { return make(bulk, size) }})
	}
	attempts, batch := s.attempts(jobs)
	for range 3 {
		for i, p := range batch {
			if err := p.Run(&fakeView{}); errors.Is(err, errFull) != (i >= 2) {
				t.Errorf("program %d: %v", i, err)
			}
		}
	}
	if held := s.held.Load(); held < 4<<20 || held > 5<<20 {
		t.Errorf("%d bytes are taken for two replies", held)
	}
	for i, a := range attempts {
		if r, charged, full := a.close(); (r == nil) != (i >= 2) || full != (i >= 2) || (charged > 0) != (i < 2) {
			t.Errorf("program %d: charged %d, full %v", i, charged, full)
		}
	}
	if err := batch[0].Run(&fakeView{}); !errors.Is(err, errAbandoned) {
		t.Errorf("a program after its end: %v", err)
	}
	s.give(s.held.Load())
}
