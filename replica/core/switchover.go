package core

import (
	"fmt"
	"slices"
	"time"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/internal/mutant"
)

// SwitchTarget returns where a switch-over that runs and can still fail leads; "" when none does.
func SwitchTarget(g *fsm.Group) ident.NodeID {
	op := g.Operation
	if op == nil || op.Kind != fsm.OperationSwitchover || op.State != fsm.OperationRunning || op.Committed {
		return ""
	}
	return op.To
}

// Switching returns the switch-over away from this node that asks for a hold, or nil.
func Switching(g *fsm.Group, self ident.NodeID) *fsm.Operation {
	op := g.Operation
	if SwitchTarget(g) == "" || op.From != self || op.Step != fsm.StepHold && op.Step != fsm.StepDrain {
		return nil
	}
	return op
}

// Draining tells whether a switch-over away from this node holds writes.
func Draining(g *fsm.Group, self ident.NodeID) bool {
	op := Switching(g, self)
	return op != nil && op.Step == fsm.StepDrain
}

// SwitchAction is what the old primary does next in a switch-over.
type SwitchAction int

// Actions.
const (
	SwitchRests     SwitchAction = iota // there is nothing to do before something changes
	SwitchGrows                         // wait for the target as for a member, while writes go on; then step again
	SwitchHolds                         // hold writes, and wait for the target as for a member; then step again
	SwitchReopens                       // the operation is over without a handover: serve again; then step again
	SwitchAborts                        // propose AbortSwitch
	SwitchAdvances                      // propose AdvanceSwitch: writes are held as soon as the own state shows it
	SwitchHandsOver                     // stop reads, then propose Handover
)

// SwitchEffect is an action with the operation it is for.
type SwitchEffect struct {
	Action    SwitchAction
	Operation *fsm.Operation
	Lacking   string // SwitchAborts: what was missing
}

// Switchover is the old primary's part of planned switch-overs: hold, drain, Handover. Everything that takes a command and can be
// done while writes go on is done before they are held: the target comes into the in-sync set, as any node does, and the step is recorded. That
// ends at the deadline of the operation, which the manager watches. What it cannot do within MaxPause from when writes are held it aborts. Writes stay held and reads stopped until the own state shows the end of the operation, whichever it is.
type Switchover struct {
	op    uint64        // that is conducted; 0: none
	held  bool          // writes are held for it
	since time.Duration // writes are held
}

// Operation is the switch-over that is conducted; 0: none.
func (s *Switchover) Operation() uint64 { return s.op }

// Step says what to do now. lacking says what is missing for a Handover, "" when nothing is; it is asked after writes were
// held.
func (s *Switchover) Step(now time.Duration, g *fsm.Group, self ident.NodeID, lacking func(*fsm.Operation) string) SwitchEffect {
	op := Switching(g, self)
	switch {
	case s.op != 0 && (op == nil || op.ID != s.op):
		s.op, s.held = 0, false
		return SwitchEffect{Action: SwitchReopens}
	case op == nil:
		return SwitchEffect{}
	case s.op == 0 && op.Step == fsm.StepHold:
		s.op = op.ID
		return SwitchEffect{Action: SwitchGrows, Operation: op}
	case !s.held && op.Step != fsm.StepHold:
		s.op, s.held, s.since = op.ID, true, now
		return SwitchEffect{Action: SwitchHolds, Operation: op}
	case mutant.On(mutant.HandoverAfterReopen) && now < s.since:
		return SwitchEffect{}
	case mutant.On(mutant.HandoverAfterReopen) && s.held && now-s.since >= op.MaxPause/2:
		s.since = now + time.Hour
		return SwitchEffect{Action: SwitchReopens}
	case s.held && now-s.since >= op.MaxPause:
		return SwitchEffect{Action: SwitchAborts, Operation: op, Lacking: lacking(op)}
	case op.Step == fsm.StepHold && g.Spec.Delivery != fsm.DeliveryAsync && !g.InSet(op.To):
		return SwitchEffect{} // it is on its way into the set
	case op.Step == fsm.StepHold:
		return SwitchEffect{Action: SwitchAdvances, Operation: op}
	case lacking(op) == "":
		return SwitchEffect{Action: SwitchHandsOver, Operation: op}
	}
	return SwitchEffect{}
}

// Drain is what the old primary knows when it asks whether it may hand over.
type Drain struct {
	Serving   bool
	Committed bool // everything that was sequenced is durable, committed and in the store
	Owed      bool // a reply waits for the lease
	Growing   []ident.NodeID
	Known     bool // the target is registered
	// Holds tells whether the target holds everything; fresh asks for acknowledgements that count for a set that it is not in.
	Holds func(fresh bool) bool
}

// Lacking says what is missing for a Handover; "" when nothing is: everything that was sequenced is committed, in the store,
// answered, and held by the target.
func (d Drain) Lacking(g *fsm.Group, to ident.NodeID) string {
	member := g.InSet(to)
	switch {
	case !d.Serving:
		return "the primary does not serve yet"
	case !d.Committed:
		return "entries are not committed yet"
	case d.Owed:
		return "replies wait for the lease"
	case !member && g.Spec.Delivery != fsm.DeliveryAsync:
		return fmt.Sprintf("node %s is not in the in-sync set", to)
	case slices.ContainsFunc(d.Growing, func(n ident.NodeID) bool { return n != to }):
		return "a node is joining the in-sync set"
	case !mutant.On(mutant.HandoverUnheld) && !d.Holds(!member):
		return fmt.Sprintf("node %s does not hold everything yet", to)
	case !d.Known:
		return fmt.Sprintf("node %s is not known", to)
	}
	return ""
}

// HandoverSet is the set that a Handover records: the target, the old primary, and members that hold everything, no more
// than the operator wants to wait for.
func HandoverSet(g *fsm.Group, self, to ident.NodeID, holds func(ident.NodeID) bool) []ident.NodeID {
	set := []ident.NodeID{to}
	if g.Spec.Delivery != fsm.DeliveryAsync {
		set = append(set, self)
		for _, n := range g.InSync {
			if len(set) > g.Spec.Secondaries {
				break
			}
			if n != self && n != to && holds(n) {
				set = append(set, n)
			}
		}
	}
	slices.Sort(set)
	return set
}

// PreparesSwitch tells whether this node, as the target, has still to prepare the switch-over.
func PreparesSwitch(g *fsm.Group, self ident.NodeID) bool {
	return SwitchTarget(g) == self && g.Operation.Step == fsm.StepPrepare
}

// HandedOn tells whether a node that was primary of epoch e has handed the role over to another.
func HandedOn(g *fsm.Group, e ident.Epoch, self ident.NodeID) bool {
	if g == nil || g.Phase != fsm.PhaseOpened || g.Epoch != e+1 || g.Primary == self {
		return false
	}
	handed, err := HandedOver(g, g.Epoch)
	return handed && err == nil
}

// BringsAhead tells whether a caller is the target of a switch-over that is being prepared, who brings this node, the primary, the end of its own
// journal. What stands there it wrote as a primary of earlier epochs, or says when it changed receivers.
func BringsAhead(g *fsm.Group, self ident.NodeID, c Caller) bool {
	return g.Phase == fsm.PhaseOpened && g.OpenEpoch == g.Epoch && g.Primary == self && c.Author == c.From && PreparesSwitch(g, c.From)
}

// FinishesSwitch tells whether this node, serving at epoch e, has to report that a switch-over led to it.
func FinishesSwitch(g *fsm.Group, self ident.NodeID, e ident.Epoch) bool {
	op := g.Operation
	return op != nil && op.Kind == fsm.OperationSwitchover && op.Committed && op.To == self && op.Epoch == e
}
