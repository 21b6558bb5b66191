package core

import (
	"time"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
)

// Sightings is the memory of a Raft leader: when it first saw what it waits for, by its own clock. A new leader begins
// with none.
type Sightings struct {
	stages  map[ident.GroupName]sighting // the present stage: an epoch, before or after somebody was chosen for it
	reports map[ident.GroupName]sighting // the first report of the present fence
	fit     map[ident.GroupName]steady   // the preferred node could take the role back

	evidence map[ident.GroupName]against // against the present primary
}

type sighting struct {
	epoch  ident.Epoch
	chosen bool
	at     time.Duration
}

// Patience says how long the manager waits for what.
type Patience struct {
	Lease    time.Duration // for a primary to renew in a new stage
	Reports  time.Duration // for the other members of the set, after the first report
	Takeover time.Duration // for a chosen primary to serve
}

// NewSightings returns the memory of a leader that has seen nothing yet.
func NewSightings() *Sightings {
	return &Sightings{stages: map[ident.GroupName]sighting{}, reports: map[ident.GroupName]sighting{}, fit: map[ident.GroupName]steady{},
		evidence: map[ident.GroupName]against{}}
}

// Look takes in a group as it stands now and returns what the leader knows of it; cover is what its leases say.
func (s *Sightings) Look(g *fsm.Group, now time.Duration, p Patience, cover time.Duration) GroupView {
	age := s.stage(g, now)
	v := GroupView{Covered: cover > 0, Fresh: age < p.Lease, Stuck: age >= p.Takeover}
	if g.Phase == fsm.PhaseFenced && len(g.Reports) > 0 {
		first := s.reports[g.Spec.Name]
		if first.epoch != g.Epoch {
			first = sighting{epoch: g.Epoch, at: now}
			s.reports[g.Spec.Name] = first
		}
		v.Waited = now-first.at >= p.Reports
	}
	return v
}

// stage returns for how long the group has been in its present stage. A promotion begins a new one: covers have ended by
// then, and whom it chose had no reason yet to renew for this group.
func (s *Sightings) stage(g *fsm.Group, now time.Duration) time.Duration {
	seen := sighting{epoch: g.Epoch, chosen: g.Phase != fsm.PhaseFenced, at: now}
	if have, ok := s.stages[g.Spec.Name]; ok && have.epoch == seen.epoch && have.chosen == seen.chosen {
		return now - have.at
	}
	s.stages[g.Spec.Name] = seen
	return 0
}
