package fsm

import (
	"slices"
	"time"
	"unicode/utf8"

	"github.com/understudy-ha/understudy/internal/ident"
)

// Bounds of what operators write into the state.
const (
	maxReason = 500 // bytes
	maxBy     = 200
)

// Order is what an operator ordered for a while: who, why, since when and until when.
type Order struct {
	Reason string    `json:"reason"`
	By     string    `json:"by,omitempty"`
	Since  time.Time `json:"since"`          // by the proposer's clock
	Until  time.Time `json:"until,omitzero"` // the manager ends it then; zero: only an operator does. Never compared in Apply
}

// Over tells whether an order has an end that is past at the given time.
func (o *Order) Over(now time.Time) bool {
	return o != nil && !o.Until.IsZero() && !now.Before(o.Until)
}

// Pause keeps automatic actions from beginning. What has begun goes on: a group in the middle of a failover has no primary.
type Pause struct {
	Order
	Members map[ident.GroupName][]ident.NodeID `json:"members"` // the in-sync sets when the pause began: who may return to them
}

// InMaintenance tells whether an operator has put the node into maintenance.
func (n *Node) InMaintenance() bool { return n != nil && n.Maintenance != nil }

// MayFence tells whether an automatic fence of the group may begin: nobody has paused; or it goes on with a failover that
// has begun; or no role moves, because the primary itself takes it up again, restarted or after its session failed.
func (s *State) MayFence(g *Group, to ident.NodeID) bool {
	return s.Pause == nil || to == g.Primary || g.Operation != nil && g.Operation.Kind == OperationFailover
}

// MayJoin tells whether the primary may begin to take a node into the in-sync set: during a pause only who was a member when
// it began, and the target of a switch-over. The primary asks before it begins to wait for the node; what it has proposed
// then is applied, pause or not: it could not tell otherwise when to stop waiting.
func (p *Pause) MayJoin(g *Group, n ident.NodeID) bool {
	if p == nil {
		return true
	}
	members, known := p.Members[g.Spec.Name]
	if !known || slices.Contains(members, n) {
		return true
	}
	op := g.Operation
	return op != nil && op.Kind == OperationSwitchover && op.To == n
}

func (s *State) pauseRefusal(g *Group) Result {
	return refuse(RefusedPaused, "automatic actions are paused (%s): group %s stays as it is", s.Pause.Reason, g.Spec.Name)
}

// checkOrder checks what an operator wrote.
func checkOrder(reason, by string) refusal {
	switch {
	case reason == "":
		return refused(RefusedInvalid, "a reason is missing: say why, for whoever looks at the status")
	case len(reason) > maxReason || len(by) > maxBy:
		return refused(RefusedInvalid, "the reason has at most %d bytes, the name at most %d", maxReason, maxBy)
	case !utf8.ValidString(reason) || !utf8.ValidString(by):
		return refused(RefusedInvalid, "reason and name have to be valid UTF-8")
	}
	return nil
}

func (s *State) pause(c *SetPause, at time.Time) Result {
	if s.PauseVersion != c.Version {
		return refuse(RefusedControl, "the pause is at version %d, not %d", s.PauseVersion, c.Version)
	}
	if !c.On {
		if s.Pause == nil {
			return refuse(RefusedInvalid, "nothing is paused")
		}
		s.Pause = nil
		s.PauseVersion++
		return Result{}
	}
	if r := checkOrder(c.Reason, c.By); r != nil {
		return *r
	}
	p := &Pause{Order: Order{Reason: c.Reason, By: c.By, Since: at, Until: normal(c.Until)}, Members: map[ident.GroupName][]ident.NodeID{}}
	if s.Pause != nil { // another reason or end; it goes on
		p.Since, p.Members = s.Pause.Since, s.Pause.Members
	} else {
		for name, g := range s.Groups {
			p.Members[name] = g.InSync
		}
	}
	s.Pause = p
	s.PauseVersion++
	return Result{}
}

func (s *State) maintenance(c *SetMaintenance, at time.Time) Result {
	n, ok := s.Nodes[c.Node]
	switch {
	case !ok:
		return refuse(RefusedUnknown, "node %q is not registered", c.Node)
	case n.MaintenanceVersion != c.Version:
		return refuse(RefusedControl, "the maintenance of node %s is at version %d, not %d", c.Node, n.MaintenanceVersion, c.Version)
	case !c.On && n.Maintenance == nil:
		return refuse(RefusedInvalid, "node %s is not in maintenance", c.Node)
	}
	e := *n
	e.Maintenance = nil
	if c.On {
		if r := checkOrder(c.Reason, c.By); r != nil {
			return *r
		}
		e.Maintenance = &Order{Reason: c.Reason, By: c.By, Since: at, Until: normal(c.Until)}
		if n.Maintenance != nil {
			e.Maintenance.Since = n.Maintenance.Since
		}
	}
	e.MaintenanceVersion++
	s.putNode(&e)
	return Result{}
}
