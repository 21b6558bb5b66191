package fsm

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/understudy-ha/understudy/internal/ident"
)

// Bounds of what the state remembers.
const (
	maxPast     = 200  // finished operations
	maxSwitches = 1000 // certificates per group
)

// Apply executes one command and returns its outcome. It is the only mutator of a State. A refused command changes nothing
// but Applied. Snapshots taken earlier are not affected.
func (s *State) Apply(c Command) Result {
	s.Applied++
	switch {
	case c.Version > CommandVersion:
		return refuse(RefusedVersion, "command of version %d, this program knows up to %d: update this node", c.Version, CommandVersion)
	case c.Version < 1:
		return refuse(RefusedVersion, "command without a version: make it with EncodeCommand")
	}
	switch c.count() {
	case 0:
		return refuse(RefusedVersion, "command of a kind that this program does not know: update this node")
	case 1:
	default:
		return refuse(RefusedInvalid, "more than one command in one")
	}
	if c.CreateCluster != nil {
		return s.createCluster(c.CreateCluster)
	}
	if s.Cluster == "" {
		return refuse(RefusedUnknown, "there is no cluster yet: the first command has to create it")
	}
	at := normal(c.At)
	switch {
	case c.RegisterNode != nil:
		return s.registerNode(c.RegisterNode)
	case c.CreateGroup != nil:
		return s.createGroup(c.CreateGroup, at)
	case c.Renew != nil:
		return s.renew(c.Renew)
	case c.Release != nil:
		return s.release(c.Release)
	case c.Leave != nil:
		return s.leave(c.Leave)
	case c.Fence != nil:
		return s.fence(c.Fence, at)
	case c.Promise != nil:
		return s.promise(c.Promise, at)
	case c.Promote != nil:
		return s.promote(c.Promote, at)
	case c.Open != nil:
		return s.open(c.Open, at)
	case c.ChangeSet != nil:
		return s.changeSet(c.ChangeSet)
	case c.SetPause != nil:
		return s.pause(c.SetPause, at)
	case c.SetMaintenance != nil:
		return s.maintenance(c.SetMaintenance, at)
	case c.ChangeSpec != nil:
		return s.changeSpec(c.ChangeSpec)
	case c.SetHold != nil:
		return s.setHold(c.SetHold, at)
	case c.RemoveHold != nil:
		return s.removeHold(c.RemoveHold)
	case c.Drop != nil:
		return s.drop(c.Drop, at)
	case c.Readmit != nil:
		return s.readmit(c.Readmit, at)
	case c.PlanGroups != nil:
		return s.planGroups(c.PlanGroups)
	case c.AnswerPlan != nil:
		return s.answerPlan(c.AnswerPlan)
	case c.DropPlan != nil:
		return s.dropPlan(c.DropPlan)
	case c.CloseGroup != nil:
		return s.closeGroup(c.CloseGroup, at)
	case c.AnswerClosing != nil:
		return s.answerClosing(c.AnswerClosing, at)
	case c.DropClosing != nil:
		return s.dropClosing(c.DropClosing)
	case c.ScheduleSwitch != nil:
		return s.scheduleSwitch(c.ScheduleSwitch, at)
	case c.DelaySchedule != nil:
		return s.delaySchedule(c.DelaySchedule)
	case c.CancelSchedule != nil:
		return s.cancelSchedule(c.CancelSchedule, at)
	case c.StartSwitch != nil:
		return s.startSwitch(c.StartSwitch, at)
	case c.AdvanceSwitch != nil:
		return s.advanceSwitch(c.AdvanceSwitch, at)
	case c.Handover != nil:
		return s.handover(c.Handover, at)
	case c.AbortSwitch != nil:
		return s.abortSwitch(c.AbortSwitch, at)
	default:
		return s.finishSwitch(c.FinishSwitch, at)
	}
}

func (c *Command) count() (n int) {
	for _, set := range []bool{
		c.CreateCluster != nil, c.RegisterNode != nil, c.CreateGroup != nil, c.Renew != nil, c.Release != nil,
		c.Fence != nil, c.Promise != nil, c.Promote != nil, c.Open != nil, c.ChangeSet != nil, c.StartSwitch != nil,
		c.AdvanceSwitch != nil, c.Handover != nil, c.AbortSwitch != nil, c.FinishSwitch != nil,
		c.SetPause != nil, c.SetMaintenance != nil,
		c.ChangeSpec != nil, c.SetHold != nil, c.RemoveHold != nil, c.Drop != nil, c.Readmit != nil,
		c.PlanGroups != nil, c.AnswerPlan != nil, c.DropPlan != nil, c.Leave != nil,
		c.ScheduleSwitch != nil, c.DelaySchedule != nil, c.CancelSchedule != nil,
		c.CloseGroup != nil, c.AnswerClosing != nil, c.DropClosing != nil,
	} {
		if set {
			n++
		}
	}
	return n
}

// Snapshot returns an immutable view of the present state. It costs one small allocation.
func (s *State) Snapshot() *State {
	c := *s
	return &c
}

func refuse(code, format string, args ...any) Result {
	return Result{Refused: code, Detail: fmt.Sprintf(format, args...)}
}

// refusal is a Result that refuses, or nil.
type refusal = *Result

func refused(code, format string, args ...any) refusal {
	r := refuse(code, format, args...)
	return &r
}

// normal drops what a time loses on its way through JSON, so that a replayed state equals a restored one.
func normal(t time.Time) time.Time { return t.Round(0).UTC() }

func (s *State) createCluster(c *CreateCluster) Result {
	switch {
	case c.Cluster == "":
		return refuse(RefusedInvalid, "a cluster needs an id")
	case s.Cluster == c.Cluster && s.Name == c.Name:
		return Result{}
	case s.Cluster != "":
		return refuse(RefusedExists, "this is cluster %s (%s) already", s.Name, s.Cluster)
	}
	s.Cluster, s.Name = c.Cluster, c.Name
	s.Nodes = map[ident.NodeID]*Node{}
	s.Groups = map[ident.GroupName]*Group{}
	s.Past = []Operation{}
	s.NextOperation = 1
	return Result{}
}

// putNode replaces a node. n must be a copy that nobody else knows.
func (s *State) putNode(n *Node) {
	s.Nodes = maps.Clone(s.Nodes)
	s.Nodes[n.ID] = n
}

// putGroup replaces a group. g must be a copy that nobody else knows.
func (s *State) putGroup(g *Group) {
	s.Groups = maps.Clone(s.Groups)
	s.Groups[g.Spec.Name] = g
}

// editGroup returns a shallow copy of a group: its slices and its operation are shared and have to be replaced, not
// changed.
func (s *State) editGroup(name ident.GroupName) (*Group, refusal) {
	g, ok := s.Groups[name]
	if !ok {
		return nil, refused(RefusedUnknown, "there is no group %q", name)
	}
	c := *g
	return &c, nil
}

// dataNode returns a registered node that holds data.
func (s *State) dataNode(id ident.NodeID) (*Node, refusal) {
	n, ok := s.Nodes[id]
	if !ok {
		return nil, refused(RefusedUnknown, "node %q is not registered", id)
	}
	if n.Kind != KindData {
		return nil, refused(RefusedUnknown, "node %s is a %s and holds no data", id, n.Kind)
	}
	return n, nil
}

// set checks the members of an in-sync set and returns them sorted.
func (s *State) set(members []ident.NodeID, must ident.NodeID) ([]ident.NodeID, refusal) {
	out := slices.Compact(slices.Sorted(slices.Values(members)))
	if !slices.Contains(out, must) {
		return nil, refused(RefusedInvalid, "the in-sync set %v lacks the primary %s", out, must)
	}
	for _, id := range out {
		if _, r := s.dataNode(id); r != nil {
			return nil, r
		}
	}
	return out, nil
}

// sortedGroups returns the groups for which f holds, by name.
func (s *State) sortedGroups(f func(*Group) bool) []ident.GroupName {
	var out []ident.GroupName
	for name, g := range s.Groups {
		if f(g) {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

// appendBounded returns a new slice with v appended and at most limit elements, the oldest dropped.
func appendBounded[T any](in []T, v T, limit int) []T {
	if drop := len(in) + 1 - limit; drop > 0 {
		in = in[drop:]
	}
	return append(slices.Clip(slices.Clone(in)), v)
}
