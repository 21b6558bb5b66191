package fsm

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/internal/mutant"
)

// ChooseCandidate decides whom to promote in a fenced group. It is pure: alive is the caller's opinion of who can still
// be heard, and waited says that it has waited long enough for those who are alive but have not reported.
//
// Members of the in-sync set are chosen from, among those that reported at the present epoch in their present life: the one
// that received most. A commit needs every member's acknowledgement, so each of them holds all that was ever acknowledged;
// waiting for the others only keeps more of what was not. A node in maintenance is taken only if nobody else may be. A member that cut a torn tail at start counts only if it is the
// whole set, or if another member reported and is not ahead of it. Nobody counts who is below an end that somebody knows
// to be committed, nor who says that it is unable to serve. Equal ends: the old primary if it was restarted, the others by
// priority, then id; an old primary that was fenced alive comes last.
//
// A failover to a named node considers that node only, able or not. What such a choice, or any choice outside these rules, may lose is
// stated in loss, with positions; better names who received more. Without a candidate ok is false and why says what is
// missing.
func ChooseCandidate(g *Group, nodes map[ident.NodeID]*Node, alive func(ident.NodeID) bool, waited bool) (to ident.NodeID, loss string, better []ident.NodeID, ok bool, why string) {
	if g.Phase != PhaseFenced {
		return "", "", nil, false, fmt.Sprintf("group %s is %s, not fenced", g.Spec.Name, g.Phase)
	}
	var forced ident.NodeID
	var allow bool
	if g.Operation != nil {
		forced, allow = g.Operation.To, g.Operation.AllowLoss
	}
	reports := g.validReports(nodes)
	if !waited {
		heard := g.InSync
		if allow { // what may be lost is said by everybody who holds more
			heard = dataNodes(nodes)
		}
		for _, id := range heard {
			if alive(id) && !reported(reports, id) {
				return "", "", nil, false, fmt.Sprintf("waiting for the report of %s", id)
			}
		}
	}
	g.rank(reports, nodes)
	var pick *Report
	var unfit []string
	for i := range reports {
		r := &reports[i]
		if forced != "" && r.Node != forced {
			continue
		}
		reason := g.unfit(*r, nodes)
		switch {
		case reason != "":
			unfit = append(unfit, reason)
		case pick == nil || nodes[pick.Node].parts() && !nodes[r.Node].parts():
			pick, loss = r, LossNone
		}
	}
	if pick == nil && allow && (waited || forced != "") {
		for i := range reports {
			if forced == "" && (!g.IsDropped(reports[i].Node) || mutant.On(mutant.PromoteDropped)) || reports[i].Node == forced {
				if more := g.exceeds(reports[i], reports); more != "" {
					return "", "", nil, false, more
				}
				pick = &reports[i]
				loss = g.loss(*pick, reports)
				break
			}
		}
	}
	if pick == nil {
		return "", "", nil, false, g.noCandidate(forced, reports, unfit)
	}
	for _, r := range reports {
		if r.Received.Compare(pick.Received) > 0 {
			better = append(better, r.Node)
		}
	}
	return pick.Node, loss, better, true, ""
}

// report returns what the node reported at the present epoch in its present life.
func (g *Group) report(n *Node) (Report, bool) {
	r, ok := g.ReportOf(n.ID)
	return r, ok && r.Epoch == g.Epoch && n.Kind == KindData && n.Lives(r.Incarnation)
}

func (g *Group) validReports(nodes map[ident.NodeID]*Node) []Report {
	var out []Report
	for _, r := range g.Reports {
		if n := nodes[r.Node]; n != nil {
			if _, ok := g.report(n); ok {
				out = append(out, r)
			}
		}
	}
	return out
}

// dataNodes returns the nodes that hold data, by id.
func dataNodes(nodes map[ident.NodeID]*Node) (out []ident.NodeID) {
	for id, n := range nodes {
		if n.Kind == KindData {
			out = append(out, id)
		}
	}
	slices.Sort(out)
	return out
}

func reported(reports []Report, id ident.NodeID) bool {
	return slices.ContainsFunc(reports, func(r Report) bool { return r.Node == id })
}

// Another tells whether a failover could choose somebody else than a node: a living member of the set, which has not shown
// in a report of the present epoch that it may not be promoted. It is a reason to take the role from a node that lives but
// does not serve; without it that would only begin the same again.
func (g *Group) Another(than ident.NodeID, nodes map[ident.NodeID]*Node, alive func(ident.NodeID) bool) bool {
	return slices.ContainsFunc(g.InSync, func(id ident.NodeID) bool {
		n := nodes[id]
		if id == than || n == nil || n.Kind != KindData || !n.Lives(n.Incarnation) || !alive(id) {
			return false
		}
		r, ok := g.report(n)
		return !ok || g.unfit(r, nodes) == ""
	})
}

// rank sorts reports, the best first. Where loss is allowed the first is taken, so who is unable comes last.
func (g *Group) rank(reports []Report, nodes map[ident.NodeID]*Node) {
	slices.SortFunc(reports, func(a, b Report) int {
		x, y := nodes[a.Node], nodes[b.Node]
		return cmp.Or(
			first(a.Unable == "", b.Unable == ""),
			b.Received.Compare(a.Received),
			first(!x.parts(), !y.parts()),
			cmp.Compare(g.preference(x), g.preference(y)),
			cmp.Compare(x.Priority, y.Priority),
			strings.Compare(string(a.Node), string(b.Node)),
		)
	})
}

func first(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return -1
	}
	return 1
}

// preference orders nodes with equal ends.
func (g *Group) preference(n *Node) int {
	switch {
	case n.ID != g.Primary:
		return 1
	case n.Incarnation != g.Incarnation:
		return 0 // a restarted primary: no role has to move
	}
	return 2 // it lives, and was fenced all the same
}

// unfit says why a reporter may not be promoted without allowing loss; "" when it may.
func (g *Group) unfit(r Report, nodes map[ident.NodeID]*Node) string {
	if !g.InSet(r.Node) && !mutant.On(mutant.PromoteNonMember) {
		return fmt.Sprintf("%s is not in the in-sync set %v", r.Node, g.InSync)
	}
	if r.Unable != "" && (g.Operation == nil || g.Operation.To != r.Node) {
		return fmt.Sprintf("%s is unable to serve: %s", r.Node, r.Unable)
	}
	compared := len(g.InSync) == 1
	for _, o := range g.validReports(nodes) {
		if o.Committed.Compare(r.Received) > 0 && !mutant.On(mutant.IgnoreCommitted) {
			return fmt.Sprintf("%s ends at %s, below %s, which %s knows to be committed", r.Node, r.Received, o.Committed, o.Node)
		}
		if o.Node != r.Node && g.InSet(o.Node) && o.Received.Compare(r.Received) <= 0 {
			compared = true
		}
	}
	if r.Torn && !compared {
		return fmt.Sprintf("%s cut a torn tail at its start and no other member of %v has shown to be no further", r.Node, g.InSync)
	}
	return ""
}

// loss states what the choice of r may lose.
func (g *Group) loss(r Report, reports []Report) string {
	name := g.Spec.Name
	parts := []string{fmt.Sprintf("what lies beyond %s, the end of %s", r.Received.Format(name), r.Node)}
	if r.Unable != "" {
		parts = append(parts, fmt.Sprintf("%s said that it is unable to serve: %s", r.Node, r.Unable))
	}
	for _, o := range reports {
		if o.Received.Compare(r.Received) > 0 {
			parts = append(parts, fmt.Sprintf("%s has received up to %s", o.Node, o.Received.Format(name)))
		}
		if o.Committed.Compare(r.Received) > 0 {
			parts = append(parts, fmt.Sprintf("%s knows %s to be committed", o.Node, o.Committed.Format(name)))
		}
	}
	if missing := g.missing(reports); len(missing) > 0 {
		parts = append(parts, "not heard: "+strings.Join(missing, ", "))
	}
	return strings.Join(parts, "; ")
}

// missing returns the members of the set that have not reported.
func (g *Group) missing(reports []Report) (out []string) {
	for _, id := range g.InSync {
		if !reported(reports, id) {
			out = append(out, string(id))
		}
	}
	return out
}

func (g *Group) noCandidate(forced ident.NodeID, reports []Report, unfit []string) string {
	if forced != "" && !reported(reports, forced) {
		return fmt.Sprintf("waiting for the report of %s", forced)
	}
	why := "no member of the in-sync set has reported"
	if len(unfit) > 0 {
		why = strings.Join(unfit, "; ")
	}
	if missing := g.missing(reports); len(missing) > 0 {
		why += "; not heard: " + strings.Join(missing, ", ")
	}
	return why + ". Start a missing member, or fail over by hand to a node that reported, allowing data loss"
}

// exceeds says why the choice of r would lose more than the operator of the failover accepted; "" when it would not.
func (g *Group) exceeds(r Report, reports []Report) string {
	if g.Operation == nil || g.Operation.Accept == nil {
		return ""
	}
	a, name := g.Operation.Accept, g.Spec.Name
	if r.Received.Compare(a.Beyond) < 0 {
		return fmt.Sprintf("%s ends at %s, below %s: more would be lost than was accepted. Look at the forecast again", r.Node, r.Received.Format(name), a.Beyond.Format(name))
	}
	for _, o := range reports {
		if a.To.IsZero() {
			continue
		}
		if o.Received.Compare(a.To) > 0 {
			return fmt.Sprintf("%s has received up to %s, beyond %s: more would be lost than was accepted. Look at the forecast again", o.Node, o.Received.Format(name), a.To.Format(name))
		}
		if o.Committed.Compare(a.To) > 0 { // nobody who holds it may have reported
			return fmt.Sprintf("%s knows %s to be committed, beyond %s: more would be lost than was accepted. Look at the forecast again", o.Node, o.Committed.Format(name), a.To.Format(name))
		}
	}
	return ""
}

// Exceeded says why the node that an operator named may not be promoted although loss was allowed: more would be lost than
// was accepted. "" when that is not so, or not known yet.
func (g *Group) Exceeded(nodes map[ident.NodeID]*Node) string {
	op := g.Operation
	if op == nil || op.Accept == nil || g.Phase != PhaseFenced {
		return ""
	}
	reports := g.validReports(nodes)
	for _, r := range reports {
		if r.Node == op.To && g.unfit(r, nodes) != "" {
			return g.exceeds(r, reports)
		}
	}
	return ""
}

// PassedOver lists who held more than the chosen node, or might have, and why somebody else is taken: for the certificate.
func (g *Group) PassedOver(to ident.NodeID, nodes map[ident.NodeID]*Node) []PassedOver {
	var out []PassedOver
	reports := g.validReports(nodes)
	var chosen Report
	for _, r := range reports {
		if r.Node == to {
			chosen = r
		}
	}
	for _, r := range reports {
		if r.Received.Compare(chosen.Received) <= 0 {
			continue
		}
		why := g.unfit(r, nodes)
		switch {
		case why != "":
		case g.Operation != nil && g.Operation.To == to:
			why = fmt.Sprintf("the failover was to %s", to)
		case nodes[r.Node].InMaintenance():
			why = fmt.Sprintf("%s is in maintenance: %s", r.Node, nodes[r.Node].Maintenance.Reason)
		case nodes[r.Node].IsLeaving():
			why = fmt.Sprintf("%s is being stopped", r.Node)
		}
		out = append(out, PassedOver{Node: r.Node, Received: r.Received, Why: why})
	}
	for _, id := range g.InSync {
		if !reported(reports, id) {
			out = append(out, PassedOver{Node: id, Why: fmt.Sprintf("%s did not report", id)})
		}
	}
	return out
}
