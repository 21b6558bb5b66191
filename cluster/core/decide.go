package core

import (
	"fmt"
	"slices"
	"time"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
)

// View is all the manager decides from: the state, and what the Raft leader has observed of its own.
type View struct {
	State  *fsm.State
	Now    time.Time               // wall clock, against deadlines of switch-overs and of what operators ordered
	Dead   func(ident.NodeID) bool // gossip saw it die
	Silent func(ident.NodeID) bool // by the leader's count, its lease has run out
	Groups map[ident.GroupName]GroupView
}

// GroupView is what the leader knows of one group beside the state.
type GroupView struct {
	Covered bool // by the leader's count, a lease may still cover the primary
	Fresh   bool // seen in this stage, or by this leader, for less than a lease: the primary may not have renewed yet
	Stuck   bool // in this stage for longer than a takeover may last
	Waited  bool // the reports have been waited for long enough

	Evidence Evidence // against the primary; nothing is decided from it

	Steady time.Duration // the preferred node has been fit for so long to take the role back
}

// Decide returns the commands that are due, at most one for each group beside the ends of what operators ordered. It is pure. It never chooses a primary by
// itself: it fences what is proved or presumed dead, and promotes whom fsm.ChooseCandidate names among those that promised.
func Decide(v View) []fsm.Command {
	out := v.expire()
	for _, g := range v.State.InOrder() {
		if cmd, ok := v.decideGroup(g); ok {
			out = append(out, cmd)
		}
	}
	return append(append(out, v.reopen()...), v.create()...)
}

// reopen gives up the closing of groups for which nobody has answered: whoever asked has waited long enough, or is gone.
func (v View) reopen() (out []fsm.Command) {
	for _, g := range v.State.InOrder() {
		if c := g.Closing; c != nil && v.Now.Sub(c.At) > 2*fsm.AnswerTime {
			out = append(out, fsm.Command{DropClosing: &fsm.DropClosing{Closing: c.ID, Group: g.Spec.Name, Reason: fmt.Sprintf("its primary %s did not answer in time", g.Primary)}})
		}
	}
	return out
}

// create returns the commands for planned groups that nobody has to be asked about any more and whose first primary lives, in the order in
// which groups start. Whoever planned them may be gone.
func (v View) create() (out []fsm.Command) {
	planned := slices.Clone(v.State.Planned)
	slices.SortFunc(planned, func(a, b fsm.Plan) int { return fsm.BySpec(&a.Spec, &b.Spec) })
	for _, p := range planned {
		if n := v.State.Nodes[p.Spec.Preferred]; len(p.Ask) == 0 && n != nil && n.Incarnation != 0 && !n.Released && v.lives(n.ID) {
			out = append(out, fsm.Command{CreateGroup: &fsm.CreateGroup{Spec: p.Spec, Incarnation: n.Incarnation, Planned: true}})
		}
	}
	return out
}

func (v View) decideGroup(g *fsm.Group) (fsm.Command, bool) {
	if g.Phase == fsm.PhaseFenced {
		if cmd, ok := v.promote(g); ok {
			return cmd, true
		}
		return v.scheduled(g)
	}
	if cmd, ok := v.fence(g); ok {
		return cmd, true
	}
	if cmd, ok := v.abort(g); ok {
		return cmd, true
	}
	if cmd, ok := v.scheduled(g); ok {
		return cmd, true
	}
	return v.switchback(g)
}

// fence takes the group from a primary whose life is over, or whose lease ran out.
func (v View) fence(g *fsm.Group) (fsm.Command, bool) {
	n := v.State.Nodes[g.Primary]
	own := v.Groups[g.Spec.Name]
	f := fsm.Fence{Group: g.Spec.Name, Epoch: g.Epoch, Automatic: true}
	if n != nil {
		f.Renewal = n.Renewal
	}
	switch {
	case n == nil:
		return fsm.Command{}, false // nodes are never unregistered; nothing to decide from
	case n.Incarnation != g.Incarnation:
		f.Reason = fmt.Sprintf("%s was restarted", n.ID)
		if g.Spec.AutoFailover == fsm.FailoverOff || !v.State.MayFence(g, "") {
			if !g.InSet(n.ID) { // an operator gave it the role with loss allowed, and it never opened: that was said of its old life
				return fsm.Command{}, false
			}
			f.To = n.ID // the role may not move, but the node itself may take it up again
		}
	case n.Released:
		f.Reason = fmt.Sprintf("%s has ended", n.ID)
	case own.Stuck && unserved(g) && g.Another(n.ID, v.State.Nodes, v.lives):
		f.Force = true // it lives and renews
		f.Reason = fmt.Sprintf("%s was chosen for epoch %s and does not serve it", n.ID, g.Epoch)
	case own.Covered:
		return fsm.Command{}, false
	case own.Fresh && (!v.Dead(n.ID) || !v.Silent(n.ID)): // gossip alone would take the role from whom it was just given to, again and again
		return fsm.Command{}, false
	default:
		f.Reason = fmt.Sprintf("the lease of %s ran out", n.ID)
	}
	if f.To == "" && (g.Spec.AutoFailover == fsm.FailoverOff || !v.State.MayFence(g, "")) {
		return fsm.Command{}, false
	}
	if e := own.Evidence; !f.Force {
		f.LastSeen, f.Noticed, f.Evidence = e.LastSeen, e.Noticed, e.What
	}
	return fsm.Command{Fence: &f}, true
}

// unserved tells whether the group has a primary that has yet to serve: it takes over, or was handed the role.
func unserved(g *fsm.Group) bool {
	op := g.Operation
	return g.Phase == fsm.PhasePromoted || op != nil && op.Kind == fsm.OperationSwitchover && op.Committed
}

// lives is stricter than not dead: it is a reason to act.
func (v View) lives(id ident.NodeID) bool { return !v.Dead(id) && !v.Silent(id) }

// promote chooses among those that promised, as soon as enough of them did.
func (v View) promote(g *fsm.Group) (fsm.Command, bool) {
	alive := func(id ident.NodeID) bool {
		n := v.State.Nodes[id]
		if n == nil || n.Released || v.Dead(id) {
			return false
		}
		return id != g.Primary || !v.Silent(id) // whose silence was the reason is not waited for
	}
	to, loss, better, ok, _ := fsm.ChooseCandidate(g, v.State.Nodes, alive, v.Groups[g.Spec.Name].Waited)
	if !ok {
		return v.widen(g)
	}
	return fsm.Command{Promote: &fsm.Promote{
		Group: g.Spec.Name, Epoch: g.Epoch, To: to, Incarnation: v.State.Nodes[to].Incarnation, Loss: loss, Better: better,
		Passed: g.PassedOver(to, v.State.Nodes), Why: choice(g, to),
	}}, true
}

// choice says in words why a node was chosen.
func choice(g *fsm.Group, to ident.NodeID) string {
	heard := 0
	for _, id := range g.InSync {
		if _, ok := g.ReportOf(id); ok {
			heard++
		}
	}
	r, _ := g.ReportOf(to)
	return fmt.Sprintf("%s has received up to %s; %d of %d in the set were heard", to, r.Received.Format(g.Spec.Name), heard, len(g.InSync))
}

// widen lets a failover to a named node choose freely when that node does not come, or would lose more than was accepted. What its operator allowed to lose was
// allowed for that node only. Without automatic failover the operator has to say whom else to take.
func (v View) widen(g *fsm.Group) (fsm.Command, bool) {
	op, own := g.Operation, v.Groups[g.Spec.Name]
	if op == nil || op.To == "" || !own.Waited {
		return fsm.Command{}, false
	}
	stays := g.Spec.AutoFailover == fsm.FailoverOff || v.State.Pause != nil
	if more := g.Exceeded(v.State.Nodes); more != "" {
		f := fsm.Fence{Group: g.Spec.Name, Epoch: g.Epoch, Automatic: true, Reason: more + ": whoever may is chosen"}
		if stays { // what was asked for is off; the role goes back where it was
			f.To, f.Reason = g.OpenNode, fmt.Sprintf("%s: %s keeps the role", more, g.OpenNode)
			if !g.InSet(f.To) || !v.State.MayFence(g, f.To) {
				return fsm.Command{}, false
			}
		}
		return fsm.Command{Fence: &f}, true
	}
	if stays {
		return fsm.Command{}, false
	}
	n := v.State.Nodes[op.To]
	if gone := n == nil || n.Released || v.Dead(op.To) || !own.Fresh && v.Silent(op.To); !gone && !own.Stuck {
		return fsm.Command{}, false
	}
	return fsm.Command{Fence: &fsm.Fence{
		Group: g.Spec.Name, Epoch: g.Epoch, Automatic: true, Reason: fmt.Sprintf("%s cannot take the role: whoever may is chosen", op.To),
	}}, true
}

// abort rolls a switch-over back that cannot end in time.
func (v View) abort(g *fsm.Group) (fsm.Command, bool) {
	op := g.Operation
	if op == nil || op.Kind != fsm.OperationSwitchover || op.Committed {
		return fsm.Command{}, false
	}
	a := fsm.AbortSwitch{Group: g.Spec.Name, Operation: op.ID}
	to := v.State.Nodes[op.To]
	switch {
	case v.Now.After(op.Deadline):
		a.Reason = fmt.Sprintf("not handed over by %s", op.Deadline.Format(time.RFC3339))
	case to == nil || to.Released:
		a.Reason = fmt.Sprintf("%s has ended", op.To)
	case v.Dead(op.To):
		a.Reason = fmt.Sprintf("%s cannot be reached", op.To)
	default:
		return fsm.Command{}, false
	}
	return fsm.Command{AbortSwitch: &a}, true
}
