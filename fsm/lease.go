package fsm

import (
	"maps"

	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/internal/mutant"
)

func (s *State) renew(c *Renew) Result {
	n, ok := s.Nodes[c.Node]
	switch {
	case !ok:
		return refuse(RefusedUnknown, "node %q is not registered", c.Node)
	case n.Directory != c.Directory:
		return refuse(RefusedDirectory, "node %s is registered with another data directory", c.Node)
	case c.Incarnation == 0:
		return refuse(RefusedInvalid, "node %s renews without an incarnation", c.Node)
	case n.Incarnation == c.Incarnation && n.Released:
		return refuse(RefusedIncarnation, "life %s of node %s was released", c.Incarnation, c.Node)
	case c.Incarnation < n.Incarnation && !mutant.On(mutant.LateLifeRenews):
		return refuse(RefusedIncarnation, "life %s of node %s is over, %s followed it", c.Incarnation, c.Node, n.Incarnation)
	}
	e := *n
	var res Result
	if n.Incarnation != c.Incarnation {
		res.Ended = s.sortedGroups(func(g *Group) bool { return g.Primary == c.Node && g.Incarnation != c.Incarnation })
		e.Incarnation, e.Released, e.Leaving = c.Incarnation, false, false
	}
	// A renewal that was passed on its way is counted all the same, as by programs that do not know of numbers: what a fence is
	// compared with must be equal on all nodes.
	e.Renewal++
	if n.Incarnation == c.Incarnation && c.Number != 0 && c.Number <= n.Number {
		s.putNode(&e)
		return Result{Passed: true}
	}
	if n.Incarnation != c.Incarnation || c.Number != 0 {
		e.Number = c.Number
	}
	e.Flushed, e.Copies = maps.Clone(c.Flushed), maps.Clone(c.Copies)
	s.putNode(&e)
	res.Covers = s.sortedGroups(func(g *Group) bool { return g.Holds(c.Node, c.Incarnation) })
	return res
}

func (s *State) release(c *Release) Result {
	n, ok := s.Nodes[c.Node]
	switch {
	case !ok:
		return refuse(RefusedUnknown, "node %q is not registered", c.Node)
	case !mutant.On(mutant.ReleaseAnyLife) && (c.Incarnation == 0 || n.Incarnation != c.Incarnation):
		return refuse(RefusedIncarnation, "life %s of node %s is not the one that renewed last", c.Incarnation, c.Node)
	}
	if !n.Released {
		e := *n
		e.Released = true
		s.putNode(&e)
	}
	return Result{Ended: s.sortedGroups(func(g *Group) bool { return g.Primary == c.Node && g.Incarnation == c.Incarnation })}
}

// Holds tells whether that life of that node is the group's primary, promoted or opened. Whether it may serve is another
// question: PhaseOpened, a valid lease, and its store.
func (g *Group) Holds(node ident.NodeID, life ident.Incarnation) bool {
	if mutant.On(mutant.SecondLifeServes) {
		return g.Phase != PhaseFenced && g.Primary == node
	}
	return g.Phase != PhaseFenced && g.Primary == node && g.Incarnation == life
}
