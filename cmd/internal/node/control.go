package node

import (
	"context"

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
}

func (c control) Assignment() (fsm.Assignment, <-chan struct{}) {
	st, changed := c.cluster.State()
	a, _ := st.Assign(c.group, c.self, c.life)
	return a, changed
}

func (c control) CheckLease(e ident.Epoch) error { return c.cluster.CheckLease(c.group, e) }

func (c control) Yield(e ident.Epoch, yes bool) { c.cluster.Yield(c.group, e, yes) }

func (c control) Propose(ctx context.Context, cmd fsm.Command) (fsm.Result, error) {
	return c.cluster.Propose(ctx, cmd)
}

func (c control) Alive(n ident.NodeID) bool { return c.cluster.Alive(n) }
