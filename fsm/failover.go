package fsm

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/internal/mutant"
)

func (s *State) fence(c *Fence, at time.Time) Result {
	g, r := s.editGroup(c.Group)
	if r != nil {
		return *r
	}
	if g.Epoch != c.Epoch {
		return refuse(RefusedEpoch, "group %s is at epoch %s, not %s", c.Group, g.Epoch, c.Epoch)
	}
	if c.Automatic && !s.MayFence(g, c.To) {
		return s.pauseRefusal(g)
	}
	// A renewal can only cover the group while the promoted life goes on.
	if n := s.Nodes[g.Primary]; !c.Force && g.Phase != PhaseFenced && n.Lives(g.Incarnation) && n.Renewal != c.Renewal {
		return refuse(RefusedRenewed, "node %s renewed its lease meanwhile (renewal %d, not %d)", g.Primary, n.Renewal, c.Renewal)
	}
	g.normalSet(g.OpenNode) // the set is that of the last Open, whose primary holds what was acknowledged
	if c.To != "" {
		if _, r := s.dataNode(c.To); r != nil {
			return *r
		}
		if !g.InSet(c.To) && !c.AllowLoss {
			return refuse(RefusedCandidate, "node %s is not in the in-sync set %v: data may be lost, which has to be allowed", c.To, g.InSync)
		}
	}
	g.Epoch++
	s.reopen(g, fmt.Sprintf("epoch %s was taken meanwhile: %s", g.Epoch, c.Reason))
	g.Phase = PhaseFenced
	g.Reports = nil
	op := s.failoverOperation(g, c, at)
	op.To, op.AllowLoss, op.Epoch, op.Committed = c.To, c.AllowLoss, g.Epoch, false
	op.Accept, op.Automatic = c.Accept, op.Automatic && c.Automatic
	if !c.Automatic {
		s.void(g, at, fmt.Sprintf("failover %d was asked for meanwhile", op.ID))
	}
	s.putGroup(g)
	res := Result{Operation: op.ID, Epoch: g.Epoch}
	if mutant.On(mutant.FenceEndsCover) {
		res.Ended = []ident.GroupName{c.Group}
	}
	return res
}

// failoverOperation goes on with the running failover, or ends what runs and starts one.
func (s *State) failoverOperation(g *Group, c *Fence, at time.Time) *Operation {
	if g.Operation != nil && g.Operation.Kind == OperationFailover {
		op := g.editOperation()
		op.enter(StepFence, at, g.Primary, c.Reason)
		if !c.Automatic { // an operator takes it over
			op.Reason = c.Reason
		}
		return op
	}
	if g.Operation != nil {
		state := OperationRolledBack
		if g.Operation.Committed {
			state = OperationFailed
		}
		s.endOperation(g, state, at, "superseded by a failover: "+c.Reason)
	}
	o := Operation{Kind: OperationFailover, Group: c.Group, From: g.Primary, Reason: c.Reason, Started: at, Automatic: c.Automatic}
	seen, noticed := normal(c.LastSeen), normal(c.Noticed)
	if c.LastSeen.IsZero() || c.Noticed.IsZero() || seen.After(at) {
		return s.startOperation(g, o, StepFence, c.Reason)
	}
	o.Started = seen
	op := s.startOperation(g, o, StepDetect, "the last sign of life")
	if noticed.After(at) {
		noticed = at
	}
	op.enter(StepLease, noticed, o.From, c.Evidence)
	op.enter(StepFence, at, o.From, c.Reason)
	return op
}

// AcceptsPromise tells whether a promise of epoch e by that life of the node would be recorded: the group is fenced at e
// and the node holds data and lives. The node has to have the promise on its disk before it says so.
func (g *Group) AcceptsPromise(n *Node, life ident.Incarnation, e ident.Epoch) bool {
	return g.Phase == PhaseFenced && g.Epoch == e && n != nil && n.Kind == KindData && n.Lives(life)
}

// ReportOf returns what a node reported at the present epoch.
func (g *Group) ReportOf(node ident.NodeID) (Report, bool) {
	i, ok := slices.BinarySearchFunc(g.Reports, node, compareReport)
	if !ok {
		return Report{}, false
	}
	return g.Reports[i], true
}

func compareReport(r Report, n ident.NodeID) int { return strings.Compare(string(r.Node), string(n)) }

func (s *State) promise(c *Promise, at time.Time) Result {
	g, r := s.editGroup(c.Group)
	if r != nil {
		return *r
	}
	n, r := s.dataNode(c.Report.Node)
	if r != nil {
		return *r
	}
	if !g.AcceptsPromise(n, c.Report.Incarnation, c.Report.Epoch) {
		if !n.Lives(c.Report.Incarnation) {
			return refuse(RefusedIncarnation, "node %s does not live as %s", n.ID, c.Report.Incarnation)
		}
		return g.movedFrom(c.Report.Epoch, PhaseFenced)
	}
	i, found := slices.BinarySearchFunc(g.Reports, n.ID, compareReport)
	if found && g.Reports[i] == c.Report {
		return Result{}
	}
	reports := slices.Clone(g.Reports)
	if found {
		reports[i] = c.Report
	} else {
		reports = slices.Insert(reports, i, c.Report)
	}
	g.Reports = reports
	if g.Operation != nil && g.Operation.Step == StepFence {
		g.editOperation().enter(StepReports, at, n.ID, "")
	}
	s.putGroup(g)
	return Result{}
}

func (s *State) promote(c *Promote, at time.Time) Result {
	g, r := s.editGroup(c.Group)
	if r != nil {
		return *r
	}
	if g.Phase != PhaseFenced || g.Epoch != c.Epoch {
		return g.movedFrom(c.Epoch, PhaseFenced)
	}
	n, r := s.dataNode(c.To)
	if r != nil {
		return *r
	}
	if !n.Lives(c.Incarnation) {
		return refuse(RefusedIncarnation, "node %s does not live as %s", c.To, c.Incarnation)
	}
	rep, ok := g.report(n)
	if !ok {
		return refuse(RefusedCandidate, "node %s has not promised epoch %s in its present life", c.To, c.Epoch)
	}
	var allow bool
	var forced ident.NodeID
	op := g.Operation
	if op != nil {
		allow, forced = op.AllowLoss, op.To
	}
	if forced != "" && forced != c.To {
		return refuse(RefusedCandidate, "the failover is to %s, not to %s", forced, c.To)
	}
	if why := g.unfit(rep, s.Nodes); why != "" {
		if !allow {
			return refuse(RefusedCandidate, "%s", why)
		}
		if more := g.exceeds(rep, g.validReports(s.Nodes)); more != "" {
			return refuse(RefusedLoss, "%s", more)
		}
	}
	loss := fallback(c.Loss, LossNone)
	g.Phase, g.Primary, g.Incarnation = PhasePromoted, c.To, c.Incarnation
	if mutant.On(mutant.SetOfPromoted) {
		g.InSync = []ident.NodeID{c.To}
	}
	cert := Certificate{
		Group: c.Group, Kind: CertificateFailover, OldEpoch: g.OpenEpoch, Epoch: g.Epoch, From: g.OpenNode, To: c.To,
		InSync: g.InSync, Candidates: g.Reports, Loss: loss, Better: slices.Clone(c.Better), Passed: slices.Clone(c.Passed), At: at,
	}
	res := Result{Epoch: g.Epoch}
	if op != nil {
		op = g.editOperation()
		detail := "loss: " + loss
		if c.Why != "" {
			detail = c.Why + "; " + detail
		}
		op.enter(StepPromote, at, c.To, detail)
		op.enter(StepRecover, at, c.To, "")
		op.To, op.Committed = c.To, true
		cert.Operation, cert.From, cert.Reason, cert.Started, cert.Accepted = op.ID, op.From, op.Reason, op.Started, op.Accept
		res.Operation = op.ID
	}
	g.certify(cert)
	s.putGroup(g)
	return res
}

func (s *State) open(c *Open, at time.Time) Result {
	g, r := s.editGroup(c.Group)
	if r != nil {
		return *r
	}
	if g.Phase != PhasePromoted || g.Epoch != c.Epoch {
		return g.movedFrom(c.Epoch, PhasePromoted)
	}
	if g.Primary != c.Node {
		return refuse(RefusedCandidate, "epoch %s of group %s belongs to %s, not to %s", c.Epoch, c.Group, g.Primary, c.Node)
	}
	if g.Incarnation != c.Incarnation || !s.Nodes[c.Node].Lives(c.Incarnation) {
		return refuse(RefusedIncarnation, "epoch %s of group %s belongs to life %s of %s, which now lives as %s: it waits for the next fence",
			c.Epoch, c.Group, g.Incarnation, c.Node, s.Nodes[c.Node].Incarnation)
	}
	history, err := g.History.Opened(c.Rows)
	if err != nil {
		return refuse(RefusedInvalid, "group %s: %v", c.Group, err)
	}
	if last := history.Last(); last.Epoch != c.Epoch || last.Node != c.Node {
		return refuse(RefusedInvalid, "the last row is of epoch %s by %s, not of epoch %s by %s", last.Epoch, last.Node, c.Epoch, c.Node)
	}
	if g.InSync, r = s.set(c.InSync, c.Node); r != nil {
		return *r
	}
	g.undrop(c.Node) // an operator gave it the role: its copy is the history now
	if r := g.withoutDropped(g.InSync); r != nil {
		return *r
	}
	if g.Spec.Delivery == DeliveryAsync && len(g.InSync) > 1 {
		return g.alone(g.InSync)
	}
	g.Phase, g.OpenEpoch, g.OpenNode = PhaseOpened, c.Epoch, c.Node
	g.SetVersion++
	g.History = history
	g.Reports = nil
	g.amendCertificate(c.Epoch, func(x *Certificate) {
		x.SW = ident.Position{Epoch: c.Epoch, History: history.Last().SW}
		x.Opened = at
	})
	if g.Operation != nil {
		op := g.editOperation()
		op.date(StepRecover, normal(c.Began), at)
		op.enter(StepOpen, within(normal(c.Recovered), at), c.Node, "")
		s.endOperation(g, OperationDone, at, "")
	}
	s.voidIfThere(g, at)
	s.putGroup(g)
	return Result{Epoch: c.Epoch}
}
