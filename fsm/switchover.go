package fsm

import (
	"fmt"
	"time"

	"github.com/understudy-ha/understudy/internal/ident"
)

func (s *State) startSwitch(c *StartSwitch, at time.Time) Result {
	g, r := s.editGroup(c.Group)
	if r != nil {
		return *r
	}
	n, r := s.dataNode(c.To)
	if r != nil {
		return *r
	}
	if r := g.whileOpen(); r != nil {
		return *r
	}
	switch {
	case g.Phase != PhaseOpened || g.Epoch != c.Epoch:
		return g.movedFrom(c.Epoch, PhaseOpened)
	case g.Operation != nil:
		return refuse(RefusedBusy, "%s %d of group %s runs", g.Operation.Kind, g.Operation.ID, c.Group)
	case c.To == g.Primary:
		return refuse(RefusedInvalid, "node %s is the primary of %s already", c.To, c.Group)
	case g.IsDropped(c.To):
		return g.droppedRefusal(c.To)
	case !n.Lives(n.Incarnation):
		return refuse(RefusedCandidate, "node %s is not alive", c.To)
	case n.Leaving:
		return refuse(RefusedCandidate, "node %s is being stopped", c.To)
	case c.Automatic && s.Pause != nil:
		return s.pauseRefusal(g)
	case c.Automatic && n.Maintenance != nil:
		return refuse(RefusedCandidate, "node %s is in maintenance (%s): no role goes there by itself", c.To, n.Maintenance.Reason)
	case c.MaxPause <= 0 || c.Deadline.IsZero():
		return refuse(RefusedInvalid, "a switch-over needs a longest pause and a deadline")
	}
	o := Operation{
		Kind: OperationSwitchover, Group: c.Group, From: g.Primary, To: c.To, Reason: c.Reason, Started: at,
		MaxPause: c.MaxPause, Deadline: normal(c.Deadline), Automatic: c.Automatic,
	}
	if c.Schedule != 0 {
		if r := s.due(g, n, c, &o); r != nil {
			return *r
		}
	}
	op := s.startOperation(g, o, StepPrepare, "")
	if c.Schedule == 0 && !c.Automatic {
		s.void(g, at, fmt.Sprintf("switch-over %d to %s was asked for meanwhile", op.ID, op.To))
	}
	s.putGroup(g)
	return Result{Operation: op.ID}
}

// switchover returns the running switch-over with that id.
func (g *Group) switchover(id uint64) (*Operation, refusal) {
	op := g.Operation
	if op == nil || op.Kind != OperationSwitchover || op.ID != id {
		return nil, refused(RefusedOperation, "switch-over %d of group %s is not running", id, g.Spec.Name)
	}
	return op, nil
}

func (s *State) advanceSwitch(c *AdvanceSwitch, at time.Time) Result {
	g, r := s.editGroup(c.Group)
	if r != nil {
		return *r
	}
	op, r := g.switchover(c.Operation)
	if r != nil {
		return *r
	}
	if op.Step != c.From {
		return refuse(RefusedOperation, "switch-over %d of group %s is at step %s, not %s", op.ID, c.Group, op.Step, c.From)
	}
	var next string
	switch c.From {
	case StepPrepare:
		next = StepHold
	case StepHold:
		next = StepDrain
	default:
		return refuse(RefusedOperation, "step %s of a switch-over does not end this way", c.From)
	}
	edit, detail := g.editOperation(), c.Detail
	if c.From == StepPrepare { // what was prepared; what a drain begins with is told of the drain
		edit.tell(c.Detail)
		detail = ""
	}
	edit.enter(next, at, c.Node, detail)
	s.putGroup(g)
	return Result{Operation: op.ID}
}

func (s *State) handover(c *Handover, at time.Time) Result {
	g, r := s.editGroup(c.Group)
	if r != nil {
		return *r
	}
	op, r := g.switchover(c.Operation)
	if r != nil {
		return *r
	}
	to, r := s.dataNode(c.To)
	if r != nil {
		return *r
	}
	switch {
	case op.Step != StepDrain || op.Committed:
		return refuse(RefusedOperation, "switch-over %d of group %s is at step %s, not %s", op.ID, c.Group, op.Step, StepDrain)
	case g.Phase != PhaseOpened || g.Epoch != c.Epoch || g.Primary != c.From:
		return g.movedFrom(c.Epoch, PhaseOpened)
	case g.Incarnation != c.FromLife:
		return refuse(RefusedIncarnation, "epoch %s of group %s belongs to life %s of %s, not %s", g.Epoch, c.Group, g.Incarnation, g.Primary, c.FromLife)
	case op.To != c.To:
		return refuse(RefusedOperation, "switch-over %d of group %s is to %s, not to %s", op.ID, c.Group, op.To, c.To)
	case !to.Lives(c.Incarnation):
		return refuse(RefusedIncarnation, "node %s does not live as %s", c.To, c.Incarnation)
	case c.Last.Epoch != g.Epoch || !g.History.Contains(c.Last):
		return refuse(RefusedInvalid, "%s is not an end of epoch %s", c.Last, g.Epoch)
	}
	old := g.Epoch
	if g.InSync, r = s.set(c.InSync, c.To); r != nil {
		return *r
	}
	if r := g.withoutDropped(g.InSync); r != nil {
		return *r
	}
	if g.Spec.Delivery == DeliveryAsync && len(g.InSync) > 1 {
		return g.alone(g.InSync)
	}
	g.Epoch++
	sw := ident.Position{Epoch: g.Epoch, History: c.Last.History + 1}
	history, err := g.History.Opened([]ident.HistoryRow{{Epoch: sw.Epoch, Node: c.To, SW: sw.History}})
	if err != nil {
		return refuse(RefusedInvalid, "group %s: %v", c.Group, err)
	}
	g.History = history
	g.Primary, g.Incarnation = c.To, c.Incarnation
	g.OpenEpoch, g.OpenNode = g.Epoch, c.To
	g.SetVersion++
	op = g.editOperation()
	op.date(StepDrain, normal(c.Held), at)
	op.enter(StepHandover, at, c.From, "up to "+c.Last.Format(c.Group))
	op.enter(StepOpen, at, c.To, "")
	op.Committed, op.Epoch = true, g.Epoch
	g.certify(Certificate{
		Group: c.Group, Kind: CertificateSwitchover, Operation: op.ID, OldEpoch: old, Epoch: g.Epoch, From: c.From, To: c.To,
		InSync: g.InSync, SW: sw, Loss: LossNone, Started: op.Started, At: at, Reason: op.Reason,
	})
	s.voidIfThere(g, at)
	s.putGroup(g)
	return Result{Operation: op.ID, Epoch: g.Epoch, Ended: []ident.GroupName{c.Group}}
}

func (s *State) abortSwitch(c *AbortSwitch, at time.Time) Result {
	g, r := s.editGroup(c.Group)
	if r != nil {
		return *r
	}
	op, r := g.switchover(c.Operation)
	if r != nil {
		return *r
	}
	if op.Committed {
		return refuse(RefusedOperation, "switch-over %d of group %s has passed its commit point", op.ID, c.Group)
	}
	s.endOperation(g, OperationRolledBack, at, fallback(c.Reason, "aborted"))
	s.putGroup(g)
	return Result{Operation: op.ID}
}

func (s *State) finishSwitch(c *FinishSwitch, at time.Time) Result {
	g, r := s.editGroup(c.Group)
	if r != nil {
		return *r
	}
	op, r := g.switchover(c.Operation)
	if r != nil {
		return *r
	}
	if !op.Committed || op.Epoch != g.Epoch || g.Primary != c.Node {
		return refuse(RefusedOperation, "switch-over %d of group %s is not for %s to finish", op.ID, c.Group, c.Node)
	}
	g.History = g.History.WithFirst(g.Epoch, c.First)
	g.amendCertificate(g.Epoch, func(x *Certificate) { x.Opened = at })
	edit := g.editOperation()
	edit.date(StepOpen, normal(c.Began), at)
	edit.tell(c.Detail)
	s.endOperation(g, OperationDone, at, "")
	s.putGroup(g)
	return Result{Operation: op.ID}
}
