package fsm

import (
	"github.com/understudy-ha/understudy/internal/ident"
)

// Lives tells whether life is the present life of the node, as far as the state knows.
func (n *Node) Lives(life ident.Incarnation) bool {
	return n != nil && life != 0 && n.Incarnation == life && !n.Released
}

func (s *State) registerNode(c *RegisterNode) Result {
	if err := checkName(string(c.ID)); err != nil {
		return refuse(RefusedInvalid, "node name: %v", err)
	}
	if c.Directory == "" {
		return refuse(RefusedInvalid, "node %s has no directory id", c.ID)
	}
	if c.Kind != KindData && c.Kind != KindWitness {
		return refuse(RefusedInvalid, "node %s has the kind %q: want %s or %s", c.ID, c.Kind, KindData, KindWitness)
	}
	if owner := s.directoryOwner(c.Directory); owner != "" && owner != c.ID {
		return refuse(RefusedDirectory, "this data directory belongs to node %s, not to %s", owner, c.ID)
	}
	n := &Node{ID: c.ID, Directory: c.Directory, Kind: c.Kind}
	if o, ok := s.Nodes[c.ID]; ok {
		if o.Directory != c.Directory {
			return refuse(RefusedDirectory, "node %s is registered with another data directory: an empty or foreign directory has no vote, lease or promise", c.ID)
		}
		if o.Kind != c.Kind {
			return refuse(RefusedExists, "node %s is registered as %s", c.ID, o.Kind)
		}
		if o.Addresses == c.Addresses && o.Priority == c.Priority {
			return Result{}
		}
		e := *o
		n = &e
	}
	n.Addresses, n.Priority = c.Addresses, c.Priority
	s.putNode(n)
	return Result{}
}

// directoryOwner returns the node that is registered with the directory. There is at most one.
func (s *State) directoryOwner(d ident.DirectoryID) ident.NodeID {
	for _, n := range s.Nodes {
		if n.Directory == d {
			return n.ID
		}
	}
	return ""
}
