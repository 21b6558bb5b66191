package cluster

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
)

// view is all the manager decides from: the state, and what the Raft leader has observed of its own.
type view struct {
	state  *fsm.State
	now    time.Time               // wall clock, against the deadline of a switch-over only
	dead   func(ident.NodeID) bool // gossip saw it die
	silent func(ident.NodeID) bool // by the leader's count, its lease has run out
	groups map[ident.GroupName]groupView
}

// groupView is what the leader knows of one group beside the state.
type groupView struct {
	covered bool // by the leader's count, a lease may still cover the primary
	fresh   bool // seen in this stage, or by this leader, for less than a lease: the primary may not have renewed yet
	stuck   bool // in this stage for longer than a takeover may last
	waited  bool // the reports have been waited for long enough
}

// decide returns the commands that are due, at most one for each group. It is pure. It never chooses a primary by
// itself: it fences what is proved or presumed dead, and promotes whom fsm.ChooseCandidate names among those that promised.
func decide(v view) []fsm.Command {
	groups := make([]*fsm.Group, 0, len(v.state.Groups))
	for _, g := range v.state.Groups {
		groups = append(groups, g)
	}
	slices.SortFunc(groups, func(a, b *fsm.Group) int {
		return cmp.Or(cmp.Compare(a.Spec.Order, b.Spec.Order), cmp.Compare(a.Spec.Name, b.Spec.Name))
	})
	var out []fsm.Command
	for _, g := range groups {
		if cmd, ok := v.decideGroup(g); ok {
			out = append(out, cmd)
		}
	}
	return out
}

func (v view) decideGroup(g *fsm.Group) (fsm.Command, bool) {
	if g.Phase == fsm.PhaseFenced {
		return v.promote(g)
	}
	if cmd, ok := v.fence(g); ok {
		return cmd, true
	}
	return v.abort(g)
}

// fence takes the group from a primary whose life is over, or whose lease ran out.
func (v view) fence(g *fsm.Group) (fsm.Command, bool) {
	n := v.state.Nodes[g.Primary]
	own := v.groups[g.Spec.Name]
	f := fsm.Fence{Group: g.Spec.Name, Epoch: g.Epoch}
	if n != nil {
		f.Renewal = n.Renewal
	}
	switch {
	case n == nil:
		return fsm.Command{}, false // nodes are never unregistered; nothing to decide from
	case n.Incarnation != g.Incarnation:
		f.Reason = fmt.Sprintf("%s was restarted", n.ID)
		if g.Spec.AutoFailover == fsm.FailoverOff {
			f.To = n.ID // the role may not move, but the node itself may take it up again
		}
	case n.Released:
		f.Reason = fmt.Sprintf("%s has ended", n.ID)
	case own.stuck && unserved(g) && g.Another(n.ID, v.state.Nodes, v.lives):
		f.Force = true // it lives and renews
		f.Reason = fmt.Sprintf("%s was chosen for epoch %s and does not serve it", n.ID, g.Epoch)
	case own.covered:
		return fsm.Command{}, false
	case own.fresh && !v.dead(n.ID):
		return fsm.Command{}, false
	default:
		f.Reason = fmt.Sprintf("the lease of %s ran out", n.ID)
	}
	if g.Spec.AutoFailover == fsm.FailoverOff && f.To == "" {
		return fsm.Command{}, false
	}
	return fsm.Command{Fence: &f}, true
}

// unserved tells whether the group has a primary that has yet to serve: it takes over, or was handed the role.
func unserved(g *fsm.Group) bool {
	op := g.Operation
	return g.Phase == fsm.PhasePromoted || op != nil && op.Kind == fsm.OperationSwitchover && op.Committed
}

// lives is stricter than not dead: it is a reason to act.
func (v view) lives(id ident.NodeID) bool { return !v.dead(id) && !v.silent(id) }

// promote chooses among those that promised, as soon as enough of them did.
func (v view) promote(g *fsm.Group) (fsm.Command, bool) {
	alive := func(id ident.NodeID) bool {
		n := v.state.Nodes[id]
		return n != nil && !n.Released && !v.dead(id)
	}
	to, loss, better, ok, _ := fsm.ChooseCandidate(g, v.state.Nodes, alive, v.groups[g.Spec.Name].waited)
	if !ok {
		return v.widen(g)
	}
	return fsm.Command{Promote: &fsm.Promote{
		Group: g.Spec.Name, Epoch: g.Epoch, To: to, Incarnation: v.state.Nodes[to].Incarnation, Loss: loss, Better: better,
	}}, true
}

// widen lets a failover to a named node choose freely when that node does not come. What its operator allowed to lose was
// allowed for that node only. Without automatic failover the operator has to say whom else to take.
func (v view) widen(g *fsm.Group) (fsm.Command, bool) {
	op, own := g.Operation, v.groups[g.Spec.Name]
	if op == nil || op.To == "" || !own.waited || g.Spec.AutoFailover == fsm.FailoverOff {
		return fsm.Command{}, false
	}
	n := v.state.Nodes[op.To]
	if gone := n == nil || n.Released || v.dead(op.To) || !own.fresh && v.silent(op.To); !gone && !own.stuck {
		return fsm.Command{}, false
	}
	return fsm.Command{Fence: &fsm.Fence{
		Group: g.Spec.Name, Epoch: g.Epoch, Reason: fmt.Sprintf("%s cannot take the role: whoever may is chosen", op.To),
	}}, true
}

// abort rolls a switch-over back that cannot end in time.
func (v view) abort(g *fsm.Group) (fsm.Command, bool) {
	op := g.Operation
	if op == nil || op.Kind != fsm.OperationSwitchover || op.Committed {
		return fsm.Command{}, false
	}
	a := fsm.AbortSwitch{Group: g.Spec.Name, Operation: op.ID}
	to := v.state.Nodes[op.To]
	switch {
	case v.now.After(op.Deadline):
		a.Reason = fmt.Sprintf("not handed over by %s", op.Deadline.Format(time.RFC3339))
	case to == nil || to.Released:
		a.Reason = fmt.Sprintf("%s has ended", op.To)
	case v.dead(op.To):
		a.Reason = fmt.Sprintf("%s cannot be reached", op.To)
	default:
		return fsm.Command{}, false
	}
	return fsm.Command{AbortSwitch: &a}, true
}
