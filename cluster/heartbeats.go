package cluster

import (
	"sync"

	"github.com/hashicorp/raft"
)

// heartbeats is Raft's transport, which can wait for the heartbeats that are being handled. The library handles them on the goroutines of the
// connections, and its Shutdown does not wait for these: one that brings a new term would meet a store that is closed, and Raft panics at a term
// that it cannot write.
type heartbeats struct {
	*raft.NetworkTransport

	handling sync.RWMutex // read-locked while a heartbeat is handled
	over     bool         // guarded by handling
}

// SetHeartbeatHandler is called by Raft once, before the first heartbeat.
func (h *heartbeats) SetHeartbeatHandler(handle func(raft.RPC)) {
	h.NetworkTransport.SetHeartbeatHandler(func(rpc raft.RPC) {
		h.handling.RLock()
		defer h.handling.RUnlock()
		if !h.over {
			handle(rpc)
		}
	})
}

// drain returns when no heartbeat is handled any more. What comes later is ignored, as by Raft itself after its end.
func (h *heartbeats) drain() {
	h.handling.Lock()
	defer h.handling.Unlock()
	h.over = true
}
