package node

import (
	"context"
	"sync/atomic"

	"github.com/understudy-ha/understudy/cluster"
	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
)

// control is the control plane as one group's replica sees it.
type control struct {
	cluster *cluster.Cluster
	self    ident.NodeID
	life    ident.Incarnation
	group   ident.GroupName
	last    *lastSeen
}

func (c control) Assignment() (fsm.Assignment, <-chan struct{}) {
	st, changed := c.cluster.State()
	a, _ := st.Assign(c.group, c.self, c.life)
	a.Group = c.last.of(a)
	return a, changed
}

func (c control) CheckLease(e ident.Epoch) error { return c.cluster.CheckLease(c.group, e) }

func (c control) Yield(e ident.Epoch, yes bool) { c.cluster.Yield(c.group, e, yes) }

func (c control) Propose(ctx context.Context, cmd fsm.Command) (fsm.Result, error) {
	return c.cluster.Propose(ctx, cmd)
}

func (c control) Alive(n ident.NodeID) bool { return c.cluster.Alive(n) }

// lastSeen is a group as it was last, for what still goes on when it was deleted.
type lastSeen struct{ group atomic.Pointer[fsm.Group] }

func newLastSeen(g *fsm.Group) *lastSeen {
	l := new(lastSeen)
	l.group.Store(g)
	return l
}

// of returns the group of an assignment. One that was deleted is fenced for good, and this node owes it nothing: what still runs ends as
// after any other fence, and nothing of it can be acknowledged, for no lease covers it.
func (l *lastSeen) of(a fsm.Assignment) *fsm.Group {
	if a.Group != nil {
		if l.group.Load() != a.Group {
			l.group.Store(a.Group)
		}
		return a.Group
	}
	g := *l.group.Load()
	g.Epoch++
	g.Phase, g.Operation, g.Scheduled = fsm.PhaseFenced, nil, nil
	g.Closing = &fsm.Closing{} // a sequencer that was about to take something refuses it, as surely not done
	g.Reports = []fsm.Report{{Node: a.Self, Epoch: g.Epoch, Incarnation: a.Life}}
	return &g
}
