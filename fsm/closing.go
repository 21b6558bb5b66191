package fsm

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/understudy-ha/understudy/internal/ident"
)

// Closing says that a group is to be deleted. From the moment it is in the state the group's primary takes no write any more, looks
// into its store at its epoch, and answers. An epoch that is taken meanwhile ends it.
type Closing struct {
	ID uint64    `json:"id"`           // of this closing, never used again, nor for a plan
	By string    `json:"by,omitempty"` // who asked for it
	At time.Time `json:"at"`           // by the proposer's clock; the manager gives up what nobody answers
}

// Retired is the name of a deleted group. It is never used again, so whatever is left of it anywhere may go at any time.
type Retired struct {
	Name  ident.GroupName `json:"name"`
	Epoch ident.Epoch     `json:"epoch"` // the last one
	At    time.Time       `json:"at"`    // by the proposer's clock
}

// MaxRetired bounds the names of deleted groups, which are remembered for ever.
const MaxRetired = 10_000

// AnswerTime is how long a plan, or a closing, is waited for by whoever asked for it.
const AnswerTime = 10 * time.Second

// CloseGroup begins the deletion of a group.
type CloseGroup struct {
	Group ident.GroupName `json:"group"`
	Epoch ident.Epoch     `json:"epoch"`
	By    string          `json:"by,omitempty"`
}

// AnswerClosing says what the serving primary of a closing group found in its store, after it had refused, and seen the end of, all its
// writes, and had stopped to answer reads. When it found nothing the group is deleted and its name retired.
type AnswerClosing struct {
	Closing uint64          `json:"closing"`
	Group   ident.GroupName `json:"group"`
	Epoch   ident.Epoch     `json:"epoch"` // in which its primary looked
	Node    ident.NodeID    `json:"node"`  // that primary
	Holds   string          `json:"holds"` // what it holds, for people; "": nothing
}

// DropClosing lets a group that nobody answers for go on as before.
type DropClosing struct {
	Closing uint64          `json:"closing"`
	Group   ident.GroupName `json:"group"`
	Reason  string          `json:"reason"`
}

// Retirement returns what is remembered of a deleted group.
func (s *State) Retirement(name ident.GroupName) (Retired, bool) {
	i, ok := slices.BinarySearchFunc(s.Retired, name, compareRetired)
	if !ok {
		return Retired{}, false
	}
	return s.Retired[i], true
}

func compareRetired(r Retired, name ident.GroupName) int { return cmp.Compare(r.Name, name) }

// unused refuses the name of a group that was deleted.
func (s *State) unused(name ident.GroupName) refusal {
	if r, ok := s.Retirement(name); ok {
		return refused(RefusedRetired, "group %s was deleted at %s, and the name of a deleted group is not used again", name, r.At.Format(time.RFC3339))
	}
	return nil
}

// Blocker is a reason for which a group cannot be deleted now.
type Blocker struct {
	Refused string // one of the Refused constants
	Text    string // for people, with what helps
}

// Blockers lists all that keeps a group from being deleted, but its records, of which only its primary knows. Nodes that are away do not.
func (s *State) Blockers(g *Group) (all []Blocker) {
	name := g.Spec.Name
	add := func(refused, format string, args ...any) {
		all = append(all, Blocker{refused, fmt.Sprintf(format, args...)})
	}
	if name == systemGroup {
		add(RefusedInUse, "%s is the group that starts before all others by its name, which could never be used again: it stays", name)
	}
	others := 0
	for other, x := range s.Groups {
		if other != name && x.Closing == nil {
			others++
		}
	}
	if others == 0 {
		add(RefusedInUse, "it is the last group of the cluster: create another one first")
	}
	if len(s.Retired) >= MaxRetired {
		add(RefusedInUse, "%d groups were deleted, and no more of their names can be remembered: delete its records and leave the group empty", len(s.Retired))
	}
	switch {
	case g.Phase != PhaseOpened:
		add(RefusedEpoch, "it has no primary that serves: it is %s at epoch %s; wait until it has one", g.Phase, g.Epoch)
	case !s.Nodes[g.Primary].Lives(g.Incarnation):
		add(RefusedIncarnation, "its primary %s has ended: wait until it has another one", g.Primary)
	}
	if g.Closing != nil {
		add(RefusedBusy, "it is being deleted already: wait for the answer of its primary %s", g.Primary)
	}
	if op := g.Operation; op != nil {
		add(RefusedBusy, "%s %d runs: wait until it is finished, or cancel it", op.Kind, op.ID)
	}
	if op := g.Scheduled; op != nil {
		add(RefusedBusy, "switch-over %d to %s is scheduled: cancel it", op.ID, op.To)
	}
	for i := range g.Consumers {
		add(RefusedInUse, "consumer %s holds its journals until %s: end the consumer and remove its hold", g.Consumers[i].Name, g.Consumers[i].Until.Format(time.RFC3339))
	}
	for i := range s.Planned {
		if p := &s.Planned[i]; slices.Contains(p.Ask, name) {
			add(RefusedBusy, "its primary is asked for planned group %s: wait until that is created or given up", p.Spec.Name)
		}
	}
	return all
}

func (s *State) closeGroup(c *CloseGroup, at time.Time) Result {
	g, r := s.editGroup(c.Group)
	if r != nil {
		return *r
	}
	if len(c.By) > maxBy {
		return refuse(RefusedInvalid, "the name of who deletes a group has at most %d bytes", maxBy)
	}
	if g.Epoch != c.Epoch {
		return g.movedFrom(c.Epoch, PhaseOpened)
	}
	if all := s.Blockers(g); len(all) > 0 {
		texts := make([]string, len(all))
		for i, b := range all {
			texts[i] = b.Text
		}
		return refuse(all[0].Refused, "group %s cannot be deleted: %s", c.Group, strings.Join(texts, "; "))
	}
	g.Closing = &Closing{ID: s.Applied * maxPlanned, By: c.By, At: at}
	s.putGroup(g)
	return Result{Epoch: g.Epoch, Operation: g.Closing.ID}
}

// closing returns a group in that closing, for changing.
func (s *State) closing(name ident.GroupName, id uint64) (*Group, refusal) {
	g, r := s.editGroup(name)
	if r != nil {
		return nil, r
	}
	if g.Closing == nil || g.Closing.ID != id {
		return nil, refused(RefusedOperation, "closing %d of group %s is over", id, name)
	}
	return g, nil
}

func (s *State) answerClosing(c *AnswerClosing, at time.Time) Result {
	g, r := s.closing(c.Group, c.Closing)
	if r != nil {
		return *r
	}
	if g.Phase != PhaseOpened || g.Epoch != c.Epoch {
		return g.movedFrom(c.Epoch, PhaseOpened)
	}
	if g.Primary != c.Node {
		return refuse(RefusedEpoch, "%s is not the primary of group %s", c.Node, c.Group)
	}
	if c.Holds != "" {
		s.reopen(g, c.Holds)
		s.putGroup(g)
		return Result{}
	}
	s.retire(g, at)
	return Result{Ended: []ident.GroupName{c.Group}}
}

func (s *State) dropClosing(c *DropClosing) Result {
	g, r := s.closing(c.Group, c.Closing)
	if r != nil {
		return *r
	}
	s.reopen(g, c.Reason)
	s.putGroup(g)
	return Result{}
}

// reopen ends the closing of a group, if there is one: the group stays. g must be a copy.
func (s *State) reopen(g *Group, reason string) {
	if g.Closing == nil {
		return
	}
	if len(reason) > maxReason {
		reason = reason[:maxReason]
	}
	s.Declined = appendBounded(s.Declined, Declined{Plan: g.Closing.ID, Group: g.Spec.Name, Reason: reason}, maxDeclined)
	g.Closing = nil
}

// retire deletes a group. What it selected is from now on the records of whoever selects them, too, or of nobody.
func (s *State) retire(g *Group, at time.Time) {
	groups := make(map[ident.GroupName]*Group, len(s.Groups))
	for name, other := range s.Groups {
		if name != g.Spec.Name {
			groups[name] = other
		}
	}
	s.Groups = groups
	i, _ := slices.BinarySearchFunc(s.Retired, g.Spec.Name, compareRetired)
	s.Retired = slices.Insert(slices.Clone(s.Retired), i, Retired{Name: g.Spec.Name, Epoch: g.Epoch, At: at})
}

// whileOpen refuses what does not go together with the deletion of the group.
func (g *Group) whileOpen() refusal {
	if g.Closing == nil {
		return nil
	}
	return refused(RefusedBusy, "group %s is being deleted", g.Spec.Name)
}
