package fsm

import (
	"cmp"
	"slices"
	"strings"

	"github.com/understudy-ha/understudy/internal/ident"
)

// Plan is a group that will be created. From the moment it is in the state its selection owns records as if the group were
// there, and nobody takes writes of them, until every group in Ask has said that it holds none: so no record is ever left behind
// in a group that is not asked for it any more.
type Plan struct {
	ID   uint64            `json:"id"` // of this plan, never used again
	Spec GroupSpec         `json:"spec"`
	Ask  []ident.GroupName `json:"ask,omitempty"` // whose primaries have yet to answer, sorted; empty: the group may be created
}

// Declined is a plan, or the closing of a group, that was given up.
type Declined struct {
	Plan   uint64          `json:"plan"`
	Group  ident.GroupName `json:"group"`
	Reason string          `json:"reason"`
}

// Bounds of plans.
const (
	maxPlanned  = 64  // plans at a time
	maxDeclined = 32  // that are remembered
	maxPatterns = 64  // of a group
	maxPattern  = 256 // bytes of one

	maxPatternBytes = 4 << 10 // of all patterns of a group: those of two groups are compared piece by piece while a command is applied
)

// PlanGroups plans groups. Several at once are possible before there is any group, as they stand in a configuration: then nobody has
// to be asked. A plan that is there already with the same selection is kept, with the rest of the spec as it is said now.
type PlanGroups struct {
	Specs []GroupSpec `json:"specs"` // normalized, Preferred set
}

// AnswerPlan says what the serving primary of a group found in its store after it had refused, and seen the end of, all writes
// that belong to the planned group.
type AnswerPlan struct {
	Plan  uint64          `json:"plan"`
	Group ident.GroupName `json:"group"` // that was asked
	Epoch ident.Epoch     `json:"epoch"` // in which its primary looked
	Node  ident.NodeID    `json:"node"`  // that primary
	Holds string          `json:"holds"` // what it holds of the planned group's, for people; "": nothing
}

// DropPlan gives a plan up.
type DropPlan struct {
	Plan   uint64 `json:"plan"`
	Reason string `json:"reason"`
}

// Plan returns what is planned under a name.
func (s *State) Plan(name ident.GroupName) (Plan, bool) {
	i, ok := s.planOf(name)
	if !ok {
		return Plan{}, false
	}
	return s.Planned[i], true
}

func (s *State) planOf(name ident.GroupName) (int, bool) {
	return slices.BinarySearchFunc(s.Planned, name, func(p Plan, n ident.GroupName) int { return cmp.Compare(p.Spec.Name, n) })
}

// WhyDeclined returns the reason for which a plan or a closing was given up; "" when that is not known.
func (s *State) WhyDeclined(plan uint64) string {
	for _, d := range s.Declined {
		if d.Plan == plan {
			return d.Reason
		}
	}
	return ""
}

func (s *State) planGroups(c *PlanGroups) Result {
	if len(c.Specs) == 0 || len(c.Specs)+len(s.Planned) > maxPlanned {
		return refuse(RefusedInvalid, "%d groups are planned and %d more asked for: want at least one, and at most %d", len(s.Planned), len(c.Specs), maxPlanned)
	}
	next := *s
	for i := range c.Specs {
		if r := next.planGroup(c.Specs[i].Normalize(), s.Applied*maxPlanned+uint64(i), len(s.Groups) > 0 || len(s.Planned) > 0); r != nil {
			return *r
		}
	}
	s.Planned = next.Planned
	return Result{}
}

func (s *State) planGroup(spec GroupSpec, id uint64, ask bool) refusal {
	if err := spec.Validate(); err != nil {
		return refused(RefusedInvalid, "group %q: %v", spec.Name, err)
	}
	if len(spec.Files) > maxPatterns || slices.ContainsFunc(spec.Files, func(p string) bool { return len(p) > maxPattern }) {
		return refused(RefusedInvalid, "group %q: files: at most %d patterns of %d bytes each", spec.Name, maxPatterns, maxPattern)
	}
	if n := len(strings.Join(spec.Files, "")); n > maxPatternBytes {
		return refused(RefusedInvalid, "group %q: files: the patterns have %d bytes together, at most %d are possible", spec.Name, n, maxPatternBytes)
	}
	if g, ok := s.Groups[spec.Name]; ok {
		if sameSpec(g.Spec, spec) {
			return nil
		}
		return refused(RefusedExists, "group %s exists with another spec", spec.Name)
	}
	if r := s.unused(spec.Name); r != nil {
		return r
	}
	at, planned := s.planOf(spec.Name)
	if planned && !sameSelection(&s.Planned[at].Spec, &spec) {
		return refused(RefusedExists, "group %s is planned with other files, keys or order: %v, %s, %d", spec.Name, s.Planned[at].Spec.Files, s.Planned[at].Spec.Keys, s.Planned[at].Spec.Order)
	}
	p := Plan{ID: id, Spec: spec}
	if planned {
		p.ID, p.Ask = s.Planned[at].ID, s.Planned[at].Ask
	} else if r := s.mayPlan(&spec); r != nil {
		return r
	} else if ask {
		p.Ask = s.sortedGroups(func(g *Group) bool { _, may := Meet(&g.Spec, &spec); return may })
	}
	s.Planned = slices.Clone(s.Planned)
	if planned {
		s.Planned[at] = p
	} else {
		s.Planned = slices.Insert(s.Planned, at, p)
	}
	return nil
}

// mayPlan refuses a selection of which it would not be clear what it owns, or that has to wait for another plan.
func (s *State) mayPlan(spec *GroupSpec) refusal {
	for _, other := range s.Selecting() {
		if why, is := Ambiguous(other, spec); is {
			return refused(RefusedSelection, "group %s and group %s would own the same records: %s", other.Name, spec.Name, why)
		}
	}
	for _, g := range s.InOrder() {
		if why, may := Meet(&g.Spec, spec); may && g.Closing != nil {
			return refused(RefusedBusy, "group %s is being deleted: %s", g.Spec.Name, why)
		}
	}
	for i := range s.Planned {
		if p := &s.Planned[i]; len(p.Ask) > 0 {
			if why, may := Meet(&p.Spec, spec); may {
				return refused(RefusedBusy, "group %s is being created: %s", p.Spec.Name, why)
			}
		}
	}
	return nil
}

func (s *State) answerPlan(c *AnswerPlan) Result {
	at := slices.IndexFunc(s.Planned, func(p Plan) bool { return p.ID == c.Plan })
	if at < 0 || !slices.Contains(s.Planned[at].Ask, c.Group) {
		return refuse(RefusedOperation, "group %s is not asked for plan %d any more", c.Group, c.Plan)
	}
	g := s.Groups[c.Group]
	if g.Phase != PhaseOpened || g.Epoch != c.Epoch {
		return g.movedFrom(c.Epoch, PhaseOpened)
	}
	if g.Primary != c.Node {
		return refuse(RefusedEpoch, "%s is not the primary of group %s", c.Node, c.Group)
	}
	if c.Holds != "" {
		s.decline(at, c.Holds)
		return Result{}
	}
	p := s.Planned[at]
	p.Ask = slices.DeleteFunc(slices.Clone(p.Ask), func(n ident.GroupName) bool { return n == c.Group })
	if len(p.Ask) == 0 {
		p.Ask = nil // as it is read back
	}
	s.Planned = slices.Clone(s.Planned)
	s.Planned[at] = p
	return Result{}
}

func (s *State) dropPlan(c *DropPlan) Result {
	at := slices.IndexFunc(s.Planned, func(p Plan) bool { return p.ID == c.Plan })
	if at < 0 {
		return refuse(RefusedOperation, "there is no plan %d", c.Plan)
	}
	if len(s.Planned[at].Ask) == 0 {
		return refuse(RefusedBusy, "group %s is about to be created", s.Planned[at].Spec.Name)
	}
	s.decline(at, c.Reason)
	return Result{}
}

// decline forgets a plan: its records are those of other groups again.
func (s *State) decline(at int, reason string) {
	if len(reason) > maxReason {
		reason = reason[:maxReason]
	}
	p := s.Planned[at]
	s.Declined = appendBounded(s.Declined, Declined{Plan: p.ID, Group: p.Spec.Name, Reason: reason}, maxDeclined)
	s.unplan(p.Spec.Name)
}

func (s *State) unplan(name ident.GroupName) {
	s.Planned = slices.DeleteFunc(slices.Clone(s.Planned), func(p Plan) bool { return p.Spec.Name == name })
	if len(s.Planned) == 0 {
		s.Planned = nil
	}
}

// asPlanned refuses to create what is not planned so, or is not free yet.
func (s *State) asPlanned(spec *GroupSpec) refusal {
	p, ok := s.Plan(spec.Name)
	switch {
	case !ok:
		return refused(RefusedSelection, "group %s is not planned, so others may take its records", spec.Name)
	case !sameSelection(&p.Spec, spec):
		return refused(RefusedExists, "group %s is planned with other files, keys or order", spec.Name)
	case len(p.Ask) > 0:
		return refused(RefusedBusy, "group %s waits for an answer of %v", spec.Name, p.Ask)
	}
	return nil
}
