package fsm

import (
	"slices"
	"strings"
	"time"

	"github.com/understudy-ha/understudy/internal/ident"
)

// maxHolds bounds the holds of one group.
const maxHolds = 64

// Hold keeps receivers for a consumer of the journal: those with facts beyond Position stay on every data node until the hold
// moves, is removed, or is over. What was deleted before it was set does not come back.
type Hold struct {
	Name     string         `json:"name"`
	Position ident.Position `json:"position"` // the consumer has everything up to here; zero: nothing
	Until    time.Time      `json:"until"`    // the manager removes it then, by its clock. Never compared in Apply
	Moved    time.Time      `json:"moved"`    // set last, by the proposer's clock
	Since    time.Time      `json:"since"`    // set first
	By       string         `json:"by,omitempty"`
	Version  uint64         `json:"version"`
}

// Over tells whether the hold is past its end at the given time.
func (h *Hold) Over(now time.Time) bool { return !now.Before(h.Until) }

// SetHold sets or moves a hold.
type SetHold struct {
	Group    ident.GroupName `json:"group"`
	Name     string          `json:"name"`
	Version  uint64          `json:"version"` // of the hold; 0: there is none
	Position ident.Position  `json:"position"`
	Until    time.Time       `json:"until"`
	By       string          `json:"by,omitempty"`
}

// RemoveHold removes a hold. The end of one that is over is proposed by the manager when its clock says so.
type RemoveHold struct {
	Group   ident.GroupName `json:"group"`
	Name    string          `json:"name"`
	Version uint64          `json:"version"`
}

// Hold returns a hold by its name.
func (g *Group) Hold(name string) (Hold, bool) {
	i, ok := slices.BinarySearchFunc(g.Consumers, name, compareHold)
	if !ok {
		return Hold{}, false
	}
	return g.Consumers[i], true
}

func compareHold(h Hold, name string) int { return strings.Compare(h.Name, name) }

func (s *State) setHold(c *SetHold, at time.Time) Result {
	g, r := s.editGroup(c.Group)
	if r != nil {
		return *r
	}
	if r := g.whileOpen(); r != nil {
		return *r
	}
	i, found := slices.BinarySearchFunc(g.Consumers, c.Name, compareHold)
	h := Hold{Name: c.Name, Since: at}
	if found {
		h = g.Consumers[i]
	}
	if err := checkName(c.Name); err != nil {
		return refuse(RefusedInvalid, "hold: %v", err)
	}
	switch {
	case h.Version != c.Version:
		return refuse(RefusedControl, "hold %s of group %s is at version %d, not %d", c.Name, c.Group, h.Version, c.Version)
	case c.Until.IsZero():
		return refuse(RefusedInvalid, "hold %s needs an end: a reader that is forgotten must not fill the disks", c.Name)
	case len(c.By) > maxBy:
		return refuse(RefusedInvalid, "the name of who sets a hold has at most %d bytes", maxBy)
	case !g.History.Contains(c.Position):
		return refuse(RefusedInvalid, "%s is not in the history of group %s: read on from %s", c.Position.Format(c.Group), c.Group, g.History.Fork(c.Position).Format(c.Group))
	case !found && len(g.Consumers) >= maxHolds:
		return refuse(RefusedInvalid, "group %s has %d holds already, which is the most: remove one", c.Group, maxHolds)
	}
	g.HoldVersion++
	h.Position, h.Until, h.Moved, h.By, h.Version = c.Position, normal(c.Until), at, c.By, g.HoldVersion
	holds := slices.Clone(g.Consumers)
	if found {
		holds[i] = h
	} else {
		holds = slices.Insert(holds, i, h)
	}
	g.Consumers = holds
	s.putGroup(g)
	return Result{}
}

func (s *State) removeHold(c *RemoveHold) Result {
	g, r := s.editGroup(c.Group)
	if r != nil {
		return *r
	}
	i, found := slices.BinarySearchFunc(g.Consumers, c.Name, compareHold)
	switch {
	case !found:
		return refuse(RefusedInvalid, "group %s has no hold %q", c.Group, c.Name)
	case g.Consumers[i].Version != c.Version:
		return refuse(RefusedControl, "hold %s of group %s is at version %d, not %d", c.Name, c.Group, g.Consumers[i].Version, c.Version)
	}
	g.HoldVersion++
	g.Consumers = slices.Delete(slices.Clone(g.Consumers), i, i+1)
	if len(g.Consumers) == 0 {
		g.Consumers = nil
	}
	s.putGroup(g)
	return Result{}
}
