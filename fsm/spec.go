package fsm

import (
	"maps"
	"slices"

	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/internal/mutant"
)

// ChangeSpec gives a group another spec. Its name, order, files and keys stay; its delivery changes only while it is open and
// nothing runs.
type ChangeSpec struct {
	Group   ident.GroupName `json:"group"`
	Version uint64          `json:"version"` // Group.SpecVersion
	Spec    GroupSpec       `json:"spec"`    // whole, normalized
	By      string          `json:"by,omitempty"`
}

// changeSpec replaces the spec. From sync to async the set becomes {primary} with it: from there on the primary, as soon as its
// own state shows this, acknowledges what nobody else is known to hold, and nobody else may be promoted. From async to sync the
// set is {primary} and stays so until members have grown into it. Either way the version of the set moves, so that no growth
// that was proposed under the other delivery is ever applied.
func (s *State) changeSpec(c *ChangeSpec) Result {
	g, r := s.editGroup(c.Group)
	if r != nil {
		return *r
	}
	if r := g.whileOpen(); r != nil {
		return *r
	}
	spec := c.Spec.Normalize()
	if err := spec.Validate(); err != nil {
		return refuse(RefusedInvalid, "group %q: %v", c.Group, err)
	}
	switch {
	case g.SpecVersion != c.Version:
		return refuse(RefusedControl, "the spec of group %s is at version %d, not %d", c.Group, g.SpecVersion, c.Version)
	case spec.Name != c.Group || spec.Order != g.Spec.Order || !slices.Equal(spec.Files, g.Spec.Files) || spec.Keys != g.Spec.Keys:
		return refuse(RefusedInvalid, "name, order, files and keys of group %s: %v", c.Group, errKeep)
	case sameSpec(spec, g.Spec):
		return Result{}
	case len(c.By) > maxBy:
		return refuse(RefusedInvalid, "the name of who changes a group has at most %d bytes", maxBy)
	}
	if _, r := s.dataNode(spec.Preferred); r != nil {
		return *r
	}
	if !maps.Equal(spec.Feeds, g.Spec.Feeds) {
		if r := s.withFeeders(spec, true); r != nil {
			return *r
		}
	}
	if spec.Delivery != g.Spec.Delivery {
		if g.Phase != PhaseOpened {
			return refuse(RefusedEpoch, "group %s is %s: its delivery changes while it is %s only", c.Group, g.Phase, PhaseOpened)
		}
		if g.Operation != nil {
			return refuse(RefusedBusy, "%s %d of group %s runs", g.Operation.Kind, g.Operation.ID, c.Group)
		}
		if !mutant.On(mutant.KeepSetAcrossDelivery) {
			g.InSync = []ident.NodeID{g.Primary}
		}
		g.SetVersion++
		g.Deliveries++
	}
	g.Spec = spec
	g.SpecVersion++
	s.putGroup(g)
	return Result{}
}
