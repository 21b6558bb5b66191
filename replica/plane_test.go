package replica

import (
	"context"
	"sync"
	"time"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
)

// plane is the control plane: one fsm.State behind a mutex.
type plane struct {
	mu      sync.Mutex
	state   *fsm.State
	changed chan struct{}
	leases  map[ident.NodeID]bool        // granted; only counts for the primary, epoch and life of the group
	given   map[ident.NodeID]ident.Epoch // yielded
	alive   map[ident.NodeID]bool
	away    map[ident.NodeID]*fsm.State   // cannot reach the others: its state stands still
	looks   map[ident.NodeID]int          // how often each node looked at its state
	fixed   ident.Epoch                   // changes of the set are lost in this epoch
	veto    func(fsm.Command) (drop bool) // an outcome that gets lost: applied or not, the proposer hears an error
}

func newPlane() *plane {
	s := &fsm.State{Nodes: map[ident.NodeID]*fsm.Node{}, Groups: map[ident.GroupName]*fsm.Group{}, NextOperation: 1}
	p := &plane{state: s, changed: make(chan struct{}), leases: map[ident.NodeID]bool{}, given: map[ident.NodeID]ident.Epoch{}, alive: map[ident.NodeID]bool{}, away: map[ident.NodeID]*fsm.State{}, looks: map[ident.NodeID]int{}}
	p.apply(fsm.Command{CreateCluster: &fsm.CreateCluster{Cluster: testCluster, Name: "test"}})
	return p
}

func (p *plane) apply(c fsm.Command) fsm.Result {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.applyLocked(c)
}

func (p *plane) applyLocked(c fsm.Command) fsm.Result {
	c.Version, c.At = fsm.CommandVersion, time.Now()
	res := p.state.Apply(c)
	close(p.changed)
	p.changed = make(chan struct{})
	return res
}

func (p *plane) group() *fsm.Group {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.state.Snapshot().Groups[orders]
}

// operation returns what became of an operation.
func (p *plane) operation(id uint64) (fsm.Operation, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.state.Snapshot().Operation(id)
}

// lease gives a node a valid lease or takes it away. Who cannot reach the others gets none.
func (p *plane) lease(n ident.NodeID, on bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.leases[n] = on && p.away[n] == nil
}

// covered tells whether some node may still serve an older epoch by what it knows.
func (p *plane) covered(e ident.Epoch) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for n, s := range p.away {
		if g := s.Groups[orders]; p.leases[n] && p.alive[n] && g != nil && g.Primary == n && g.Epoch < e {
			return true
		}
	}
	return false
}

// isolate takes the control plane away from a node, or gives it back.
func (p *plane) isolate(n ident.NodeID, on bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if on {
		p.away[n] = p.state.Snapshot()
	} else {
		delete(p.away, n)
	}
	close(p.changed)
	p.changed = make(chan struct{})
}

// link is one node's Control.
type link struct {
	p    *plane
	self ident.NodeID
	life ident.Incarnation
}

func (l link) Assignment() (fsm.Assignment, <-chan struct{}) {
	l.p.mu.Lock()
	defer l.p.mu.Unlock()
	l.p.looks[l.self]++
	s := l.p.away[l.self]
	if s == nil {
		s = l.p.state.Snapshot()
	}
	a, _ := s.Assign(orders, l.self, l.life)
	return a, l.p.changed
}

func (l link) CheckLease(e ident.Epoch) error {
	l.p.mu.Lock()
	defer l.p.mu.Unlock()
	g := l.p.state.Groups[orders]
	if s := l.p.away[l.self]; s != nil {
		g = s.Groups[orders]
	}
	if l.p.given[l.self] == e || !l.p.leases[l.self] || g == nil || g.Epoch != e || !g.Holds(l.self, l.life) {
		return ErrNoLease
	}
	return nil
}

func (l link) Yield(e ident.Epoch, yes bool) {
	l.p.mu.Lock()
	defer l.p.mu.Unlock()
	if delete(l.p.given, l.self); yes {
		l.p.given[l.self] = e
	}
}

func (l link) Propose(ctx context.Context, c fsm.Command) (fsm.Result, error) {
	l.p.mu.Lock()
	defer l.p.mu.Unlock()
	if l.p.away[l.self] != nil {
		return fsm.Result{}, errNoQuorum
	}
	if l.p.veto != nil && l.p.veto(c) || c.ChangeSet != nil && c.ChangeSet.Epoch == l.p.fixed {
		return fsm.Result{}, errNoQuorum
	}
	return l.p.applyLocked(c), nil
}

func (l link) Alive(n ident.NodeID) bool {
	l.p.mu.Lock()
	defer l.p.mu.Unlock()
	return l.p.alive[n]
}
