package cluster

import (
	"io"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// What is closed after drain is not used by a heartbeat: one that is being handled is waited for, and later ones are not handled.
func TestNoHeartbeatIsHandledAfterTheDrain(t *testing.T) {
	open := func() *raft.NetworkTransport {
		n, err := raft.NewTCPTransport("127.0.0.1:0", nil, 1, time.Minute, io.Discard)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = n.Close() })
		return n
	}
	h, leader := &heartbeats{NetworkTransport: open()}, open()
	entered, release := make(chan struct{}, 2), make(chan struct{})
	var handled atomic.Int32
	h.SetHeartbeatHandler(func(rpc raft.RPC) {
		entered <- struct{}{}
		<-release
		handled.Add(1)
		rpc.Respond(&raft.AppendEntriesResponse{Term: 1, Success: true}, nil)
	})
	beat := func() <-chan error {
		done := make(chan error, 1)
		go func() {
			q := &raft.AppendEntriesRequest{RPCHeader: raft.RPCHeader{Addr: []byte(leader.LocalAddr())}, Term: 1}
			done <- leader.AppendEntries("x", h.LocalAddr(), q, &raft.AppendEntriesResponse{})
		}()
		return done
	}
	first := beat()
	<-entered
	drained := make(chan int32, 1)
	go func() {
		h.drain()
		drained <- handled.Load()
	}()
	for h.handling.TryRLock() { // until drain waits
		h.handling.RUnlock()
		select {
		case n := <-drained:
			t.Fatalf("drained while a heartbeat was handled, and %d had been", n)
		case <-time.After(time.Millisecond):
		}
	}
	close(release)
	if n := <-drained; n != 1 {
		t.Errorf("drained when %d heartbeats had been handled, want 1", n)
	}
	if err := <-first; err != nil {
		t.Errorf("the one that was handled: %v", err)
	}
	late := beat()
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-late; err == nil || handled.Load() != 1 {
		t.Errorf("one that came later was answered: %v, %d handled", err, handled.Load())
	}
}

// Raft's store is closed after the last heartbeat.
func TestCloseDrainsTheHeartbeats(t *testing.T) {
	m := newMachine(t, "a")
	m.start(bootstrap())
	c := m.Cluster
	m.stop(true)
	if c.trans.handling.RLock(); !c.trans.over {
		t.Error("heartbeats may be handled after Close")
	}
	c.trans.handling.RUnlock()
}
