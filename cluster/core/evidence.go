package core

import (
	"time"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
)

// Evidence is the first thing that spoke against the primary of a group, for people: what is done about it follows from
// leases alone.
type Evidence struct {
	LastSeen time.Time // the last renewal that covered the group was applied here; zero: none was seen
	Noticed  time.Time // zero: nothing speaks against it
	What     string
}

// against is what the leader remembers of it, by its own clock.
type against struct {
	epoch ident.Epoch
	at    time.Duration
	what  string
}

// Against looks for evidence against the primary of g. It remembers the first and forgets it when nothing speaks against the
// primary any more. cover is what the leases say, dead what gossip says; now and wall are the same instant; seen is when the
// last renewal for the group was applied, 0 for never.
func (s *Sightings) Against(g *fsm.Group, n *fsm.Node, dead bool, cover, seen, now time.Duration, wall time.Time) (e Evidence) {
	what := ""
	switch {
	case n == nil || g.Phase == fsm.PhaseFenced:
	case n.Incarnation != g.Incarnation:
		what = string(n.ID) + " was started again"
	case n.Released:
		what = "the process of " + string(n.ID) + " has ended: its lease was released"
	case dead:
		what = "gossip does not reach " + string(n.ID) + " any more"
	case cover <= 0:
		what = string(n.ID) + " does not renew its lease"
	}
	have, ok := s.evidence[g.Spec.Name]
	switch {
	case what == "":
		delete(s.evidence, g.Spec.Name)
	case !ok || have.epoch != g.Epoch:
		have = against{epoch: g.Epoch, at: now, what: what}
		s.evidence[g.Spec.Name] = have
	}
	if seen > 0 {
		e.LastSeen = wall.Add(seen - now)
	}
	if what != "" {
		e.Noticed, e.What = wall.Add(have.at-now), have.what
	}
	return e
}
