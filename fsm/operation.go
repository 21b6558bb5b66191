package fsm

import (
	"slices"
	"time"

	"github.com/understudy-ha/understudy/internal/ident"
)

// Kinds of certificates, part of the format.
const (
	CertificateCreate     = "create"
	CertificateSwitchover = string(OperationSwitchover)
	CertificateFailover   = string(OperationFailover)
)

// LossNone is the statement of a promotion that loses nothing.
const LossNone = "none"

// editOperation makes the group's operation a copy of its own. The group must be one.
func (g *Group) editOperation() *Operation {
	op := *g.Operation
	g.Operation = &op
	return &op
}

// enter moves the operation to a step. Steps are dated by the clocks of several nodes, which may differ a little: time does
// not go back along an operation.
func (o *Operation) enter(step string, at time.Time, node ident.NodeID, detail string) {
	o.Step = step
	if last := len(o.Steps) - 1; last >= 0 && at.Before(o.Steps[last].At) {
		at = o.Steps[last].At
	}
	o.Steps = append(slices.Clip(slices.Clone(o.Steps)), Step{Name: step, At: at, Node: string(node), Detail: detail})
}

// tell gives the last step, which ends, its detail.
func (o *Operation) tell(detail string) {
	if last := len(o.Steps) - 1; last >= 0 && detail != "" {
		o.Steps = slices.Clone(o.Steps)
		o.Steps[last].Detail = detail
	}
}

// date moves the beginning of the last step, if it has that name, to a later time that its node told afterwards.
func (o *Operation) date(step string, began, latest time.Time) {
	last := len(o.Steps) - 1
	if last < 0 || o.Steps[last].Name != step || began.IsZero() || began.Before(o.Steps[last].At) {
		return
	}
	if latest.Before(o.Steps[last].At) {
		return
	}
	o.Steps = slices.Clone(o.Steps)
	o.Steps[last].At = within(began, latest)
}

// within returns t, or latest when t is later or not known.
func within(t, latest time.Time) time.Time {
	if t.IsZero() || t.After(latest) {
		return latest
	}
	return t
}

// Took returns how long the i-th step lasted: until the next one was entered, or the operation ended; 0 while it runs. So
// the steps of a finished operation add up to its length.
func (o *Operation) Took(i int) time.Duration {
	end := o.Ended
	if i+1 < len(o.Steps) {
		end = o.Steps[i+1].At
	}
	if end.IsZero() {
		return 0
	}
	return end.Sub(o.Steps[i].At)
}

// startOperation gives the group a new operation at its first step, with a new id unless it has one.
func (s *State) startOperation(g *Group, o Operation, step, detail string) *Operation {
	if o.ID == 0 { // a scheduled one has its id already
		o.ID = s.NextOperation
		s.NextOperation++
	}
	o.State = OperationRunning
	o.enter(step, o.Started, o.From, detail)
	g.Operation = &o
	return g.Operation
}

// endOperation moves the group's operation to the past.
func (s *State) endOperation(g *Group, state OperationState, at time.Time, why string) {
	o := *g.Operation
	if last := len(o.Steps) - 1; last >= 0 && at.Before(o.Steps[last].At) {
		at = o.Steps[last].At
	}
	o.State, o.Ended, o.Error = state, at, why
	s.Past = appendBounded(s.Past, o, maxPast)
	g.Operation = nil
}

// certify adds a certificate.
func (g *Group) certify(c Certificate) {
	g.Switches = appendBounded(g.Switches, c, maxSwitches)
}

// amendCertificate changes the certificate of an epoch, if it is still remembered.
func (g *Group) amendCertificate(e ident.Epoch, f func(*Certificate)) {
	for i := len(g.Switches) - 1; i >= 0; i-- {
		if g.Switches[i].Epoch == e {
			g.Switches = slices.Clone(g.Switches)
			f(&g.Switches[i])
			return
		}
	}
}

// Operation returns an operation, running, scheduled or past, by its id.
func (s *State) Operation(id uint64) (Operation, bool) {
	for _, g := range s.Groups {
		if g.Operation != nil && g.Operation.ID == id {
			return *g.Operation, true
		}
		if g.Scheduled != nil && g.Scheduled.ID == id {
			return *g.Scheduled, true
		}
	}
	for i := len(s.Past) - 1; i >= 0; i-- {
		if s.Past[i].ID == id {
			return s.Past[i], true
		}
	}
	return Operation{}, false
}
