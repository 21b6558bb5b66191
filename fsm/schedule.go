package fsm

import (
	"fmt"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/understudy-ha/understudy/internal/ident"
)

// StepScheduled is the only step of a switch-over whose time has not come, or that never began. Part of the format.
const StepScheduled = "scheduled"

// MaxSwitchLag is how many entries a target may be behind when a switch-over is started; it must drain them within the
// pause, and at the reference rate of some 20,000 entries a second this is well below one.
const MaxSwitchLag = 10_000

// ScheduleOutcome says what became of a scheduled switch-over.
type ScheduleOutcome string

// Outcomes of scheduled switch-overs, part of the format. All but ScheduleStarted end it with nothing changed.
const (
	ScheduleStarted  ScheduleOutcome = "started"  // it began: the rest is the operation's to tell
	ScheduleCanceled ScheduleOutcome = "canceled" // an operator called it off
	ScheduleVoid     ScheduleOutcome = "void"     // somebody asked for another change of the role, or the target is primary already
	ScheduleMissed   ScheduleOutcome = "missed"   // it could not begin in time
)

// Schedule is what an operation was scheduled with. It is replaced, never changed.
type Schedule struct {
	At      time.Time       `json:"at"` // it begins then, by the clock of whoever leads Raft. Never compared in Apply
	By      string          `json:"by,omitempty"`
	Asked   time.Time       `json:"asked"`           // by the proposer's clock
	Waits   string          `json:"waits,omitempty"` // its time has come, and this stands in its way
	Outcome ScheduleOutcome `json:"outcome,omitempty"`
}

// ScheduleSwitch asks for a switch-over that begins later. A group has one at most. Whether it could be done is looked at when
// its time has come.
type ScheduleSwitch struct {
	Group    ident.GroupName `json:"group"`
	To       ident.NodeID    `json:"to"`
	At       time.Time       `json:"at"`
	MaxPause time.Duration   `json:"max_pause"`
	Reason   string          `json:"reason"`
	By       string          `json:"by,omitempty"`
}

// DelaySchedule records why a switch-over whose time has come does not begin. It is tried again.
type DelaySchedule struct {
	Group     ident.GroupName `json:"group"`
	Operation uint64          `json:"operation"`
	Waits     string          `json:"waits"`
}

// CancelSchedule ends a scheduled switch-over that has not begun.
type CancelSchedule struct {
	Group     ident.GroupName `json:"group"`
	Operation uint64          `json:"operation"`
	Outcome   ScheduleOutcome `json:"outcome"` // ScheduleCanceled or ScheduleMissed
	Reason    string          `json:"reason"`
}

func (s *State) scheduleSwitch(c *ScheduleSwitch, at time.Time) Result {
	g, r := s.editGroup(c.Group)
	if r != nil {
		return *r
	}
	if _, r := s.dataNode(c.To); r != nil {
		return *r
	}
	if r := g.whileOpen(); r != nil {
		return *r
	}
	switch {
	case g.Scheduled != nil:
		return refuse(RefusedBusy, "switch-over %d of group %s to %s is scheduled for %s already", g.Scheduled.ID, c.Group, g.Scheduled.To, g.Scheduled.Schedule.At.Format(time.RFC3339))
	case g.Phase != PhaseFenced && c.To == g.Primary:
		return refuse(RefusedInvalid, "node %s is the primary of %s already", c.To, c.Group)
	case c.MaxPause <= 0 || c.At.IsZero():
		return refuse(RefusedInvalid, "a scheduled switch-over needs a time and a longest pause")
	}
	if r := checkOrder(c.Reason, c.By); r != nil {
		return *r
	}
	g.Scheduled = &Operation{
		ID: s.NextOperation, Kind: OperationSwitchover, Group: c.Group, From: g.Primary, To: c.To, State: OperationScheduled, Reason: c.Reason, Started: at,
		MaxPause: c.MaxPause, Schedule: &Schedule{At: normal(c.At), By: c.By, Asked: at},
	}
	g.Scheduled.enter(StepScheduled, at, "", "")
	s.NextOperation++
	s.putGroup(g)
	return Result{Operation: g.Scheduled.ID}
}

// scheduled returns a group with a scheduled switch-over of that id, for changing.
func (s *State) scheduled(name ident.GroupName, id uint64) (*Group, refusal) {
	g, r := s.editGroup(name)
	if r != nil {
		return nil, r
	}
	if g.Scheduled == nil || g.Scheduled.ID != id {
		return nil, refused(RefusedOperation, "switch-over %d of group %s is not scheduled", id, name)
	}
	return g, nil
}

func (s *State) delaySchedule(c *DelaySchedule) Result {
	g, r := s.scheduled(c.Group, c.Operation)
	if r != nil {
		return *r
	}
	if r := checkWhy(c.Waits); r != nil {
		return *r
	}
	op, plan := *g.Scheduled, *g.Scheduled.Schedule
	plan.Waits = c.Waits
	op.Schedule = &plan
	g.Scheduled = &op
	s.putGroup(g)
	return Result{Operation: op.ID}
}

func (s *State) cancelSchedule(c *CancelSchedule, at time.Time) Result {
	g, r := s.scheduled(c.Group, c.Operation)
	if r != nil {
		return *r
	}
	if c.Outcome != ScheduleCanceled && c.Outcome != ScheduleMissed {
		return refuse(RefusedInvalid, "a scheduled switch-over does not end as %q by a command", c.Outcome)
	}
	if r := checkWhy(c.Reason); r != nil {
		return *r
	}
	s.endSchedule(g, c.Outcome, at, c.Reason)
	s.putGroup(g)
	return Result{Operation: c.Operation}
}

func checkWhy(text string) refusal {
	if text == "" || len(text) > maxReason || !utf8.ValidString(text) {
		return refused(RefusedInvalid, "say why, in at most %d bytes of UTF-8", maxReason)
	}
	return nil
}

// due makes o the operation that was scheduled, if c names it and it may begin by itself.
func (s *State) due(g *Group, to *Node, c *StartSwitch, o *Operation) refusal {
	op := g.Scheduled
	switch {
	case op == nil || op.ID != c.Schedule:
		return refused(RefusedOperation, "switch-over %d of group %s is not scheduled", c.Schedule, c.Group)
	case op.To != c.To || op.MaxPause != c.MaxPause || c.Automatic:
		return refused(RefusedInvalid, "switch-over %d of group %s was not scheduled so", c.Schedule, c.Group)
	case s.Pause != nil:
		r := s.pauseRefusal(g)
		return &r
	case to.Maintenance != nil:
		return refused(RefusedCandidate, "node %s is in maintenance (%s)", c.To, to.Maintenance.Reason)
	}
	plan := *op.Schedule
	plan.Outcome = ScheduleStarted
	o.ID, o.Schedule = op.ID, &plan
	g.Scheduled = nil
	return nil
}

// void ends what is scheduled because of something that was done instead.
func (s *State) void(g *Group, at time.Time, why string) {
	if g.Scheduled != nil {
		s.endSchedule(g, ScheduleVoid, at, why)
	}
}

// voidIfThere ends what is scheduled when the role is where it was to go.
func (s *State) voidIfThere(g *Group, at time.Time) {
	if op := g.Scheduled; op != nil && op.To == g.Primary {
		s.void(g, at, fmt.Sprintf("%s is primary already", op.To))
	}
}

// endSchedule moves the scheduled switch-over to the past. It never began: nothing has changed.
func (s *State) endSchedule(g *Group, outcome ScheduleOutcome, at time.Time, why string) {
	op, plan := *g.Scheduled, *g.Scheduled.Schedule
	if at.Before(op.Started) {
		at = op.Started
	}
	plan.Outcome = outcome
	op.Schedule, op.State, op.Ended, op.Error = &plan, OperationRolledBack, at, why
	s.Past = appendBounded(s.Past, op, maxPast)
	g.Scheduled = nil
}

// Obstacle is a check of a planned switch-over that fails. Checks have the names that operators know from `why`.
type Obstacle struct {
	Check string
	What  string // without numbers that change all the time
}

// Obstacles lists what stands in the way of a switch-over to a node that begins by itself, for somebody who knows of lag only what
// leases tell: covered is whether the primary's lease may last, alive whether a node is there.
func (s *State) Obstacles(g *Group, to ident.NodeID, covered bool, alive func(ident.NodeID) bool) (out []Obstacle) {
	check := func(name string, ok bool, format string, args ...any) {
		if !ok {
			out = append(out, Obstacle{name, fmt.Sprintf(format, args...)})
		}
	}
	check("not_paused", s.Pause == nil, "automatic actions are paused")
	check("group_open", g.Phase == PhaseOpened, "a failover is under way")
	if op := g.Operation; op != nil {
		check("no_operation", false, "%s %d runs", op.Kind, op.ID)
	}
	check("primary_lease", covered || g.Phase != PhaseOpened, "the lease of %s has run out", g.Primary)
	n := s.Nodes[to]
	if n == nil || n.Kind != KindData || to == g.Primary {
		check("target", false, "%s is no data node beside the primary", to)
		return out
	}
	check("target_alive", alive(to) && n.Lives(n.Incarnation), "%s is not alive", to)
	check("target_maintenance", !n.InMaintenance(), "%s is in maintenance", to)
	check("target_dropped", !g.IsDropped(to), "%s was dropped from the group", to)
	check("target_lag", g.InSet(to) || s.near(g, n), "%s lacks more than %d entries, or holds no copy", to, MaxSwitchLag)
	return out
}

// near tells whether a node lacks few enough entries of the primary's journal, by what both told with their leases.
func (s *State) near(g *Group, n *Node) bool {
	p := s.Nodes[g.Primary]
	if p == nil {
		return false
	}
	have := n.Copies[g.Spec.Name][g.Primary]
	return have > 0 && p.Copies[g.Spec.Name][g.Primary] <= have+MaxSwitchLag
}

// Pending lists the operations of a group that are not over, the running one first.
func (g *Group) Pending() []*Operation {
	return slices.DeleteFunc([]*Operation{g.Operation, g.Scheduled}, func(o *Operation) bool { return o == nil })
}
