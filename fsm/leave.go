package fsm

import "github.com/understudy-ha/understudy/internal/ident"

// Leave announces that a life of a node is about to end in good order. Nothing moves by it: its lease goes on, and it stays in
// the in-sync sets until their primaries take it out. It ends with that life.
type Leave struct {
	Node        ident.NodeID      `json:"node"`
	Incarnation ident.Incarnation `json:"incarnation"`
}

// IsLeaving tells whether the node has announced that its present life is about to end.
func (n *Node) IsLeaving() bool { return n != nil && n.Leaving }

// parts tells whether no role goes to the node where another may take it.
func (n *Node) parts() bool { return n.InMaintenance() || n.IsLeaving() }

func (s *State) leave(c *Leave) Result {
	n, ok := s.Nodes[c.Node]
	switch {
	case !ok:
		return refuse(RefusedUnknown, "node %q is not registered", c.Node)
	case !n.Lives(c.Incarnation):
		return refuse(RefusedIncarnation, "life %s of node %s is not the one that renewed last, or is over", c.Incarnation, c.Node)
	}
	if !n.Leaving {
		e := *n
		e.Leaving = true
		s.putNode(&e)
	}
	return Result{}
}
