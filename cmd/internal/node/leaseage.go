package node

import (
	"sync"
	"time"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
)

// leaseAges remembers until when this life's lease on each group was seen valid. Without a valid lease the primary's copy
// may be older than another node's, and it ages from then on.
type leaseAges struct {
	boot func() time.Duration

	mu    sync.Mutex
	valid map[ident.GroupName]time.Duration
}

func newLeaseAges(boot func() time.Duration) *leaseAges {
	return &leaseAges{boot: boot, valid: map[ident.GroupName]time.Duration{}}
}

// look notes a lease as it is now and returns for how many seconds there has been none: 0 while it is valid, -1 when it
// never was.
func (l *leaseAges) look(g ident.GroupName, lease error) float64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.boot()
	if lease == nil {
		l.valid[g] = now
		return 0
	}
	seen, ok := l.valid[g]
	if !ok {
		return -1
	}
	return (now - seen).Seconds()
}

// lookAtLeases notes all leases. It is called at each change of the replicated state, so at each renewal.
func (n *Node) lookAtLeases(st *fsm.State) {
	for name, g := range st.Groups {
		if g.Primary == n.config.Node {
			n.leases.look(name, n.cluster.CheckLease(name, g.Epoch))
		}
	}
}
