package fsm

import "github.com/understudy-ha/understudy/internal/ident"

// Assign returns what node self, in that life, sees of a group; false when there is no such group. Call it on a Snapshot.
func (s *State) Assign(group ident.GroupName, self ident.NodeID, life ident.Incarnation) (Assignment, bool) {
	g, ok := s.Groups[group]
	return Assignment{Self: self, Life: life, Group: g, Nodes: s.Nodes, Pause: s.Pause}, ok
}

// IsPrimary tells whether this life of this node is the group's primary, promoted or opened.
func (a Assignment) IsPrimary() bool { return a.Group.Holds(a.Self, a.Life) }

// Role returns the node's role in the group; a witness for a node that is not registered.
func (a Assignment) Role() string {
	n, ok := a.Nodes[a.Self]
	if !ok {
		return RoleWitness
	}
	return Role(a.Group, n)
}

// PromiseDue tells whether the node owes the group a promise: it is fenced and this life has not reported. When the promise
// may be given is for the node's own count of the old cover to say.
func (a Assignment) PromiseDue() bool {
	if !a.Group.AcceptsPromise(a.Nodes[a.Self], a.Life, a.Group.Epoch) {
		return false
	}
	r, ok := a.Group.ReportOf(a.Self)
	return !ok || r.Incarnation != a.Life
}
