package node

import (
	"context"
	"fmt"
	"time"

	"github.com/understudy-ha/understudy/client"
	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
)

// farthestSchedule is how far ahead a switch-over may be scheduled: a year that is wrong is a mistake.
const farthestSchedule = 30 * 24 * time.Hour

// schedulable refuses a time that no switch-over can be scheduled for.
func schedulable(at, now time.Time) error {
	switch {
	case !at.After(now):
		return &client.Error{Code: client.CodeInvalid, Detail: fmt.Sprintf("at %s is over: it is %s here", at.Format(time.RFC3339), now.Format(time.RFC3339)),
			Remedy: "name a later time, or leave at out to begin now"}
	case at.Sub(now) > farthestSchedule:
		return &client.Error{Code: client.CodeInvalid, Detail: fmt.Sprintf("at %s is more than %d days ahead", at.Format(time.RFC3339), farthestSchedule/(24*time.Hour)),
			Remedy: "name an earlier time"}
	}
	return nil
}

// schedule lets a switch-over begin later. Its target is named now, so that everybody sees what is going to happen; whether it can
// be done is looked at when its time has come.
func (r roles) schedule(ctx context.Context, name string, q client.SwitchoverRequest) (client.Operation, error) {
	st, g, err := r.n.group(name)
	if err != nil {
		return client.Operation{}, err
	}
	to := ident.NodeID(q.To)
	if q.To == "" {
		var ok bool
		a, _ := st.Assign(g.Spec.Name, r.n.config.Node, r.n.directory.life)
		if to, ok = switchTarget(a); !ok {
			return client.Operation{}, &client.Error{Code: client.CodePrecondition, Detail: fmt.Sprintf("group %s has no in-sync secondary now that a switch-over could be scheduled to", name),
				Remedy: "name the node with \"to\""}
		}
	}
	if x := st.Nodes[to]; x == nil || x.Kind != fsm.KindData {
		return client.Operation{}, &client.Error{Code: client.CodeUnknownNode, Detail: fmt.Sprintf("%q is not a registered data node", to), Remedy: dataNodes(st)}
	}
	pause := time.Duration(q.MaxPause)
	if pause <= 0 {
		pause = defaultMaxPause
	}
	res, err := r.n.propose(ctx, fsm.Command{ScheduleSwitch: &fsm.ScheduleSwitch{Group: g.Spec.Name, To: to, At: q.At.UTC(), MaxPause: pause, Reason: "operator", By: q.By}})
	if res.Refused == fsm.RefusedBusy {
		return client.Operation{}, &client.Error{Code: client.CodeBusy, Detail: res.Detail, Remedy: "cancel it first (DELETE /v1/groups/" + string(g.Spec.Name) + "/switchover)"}
	}
	if err != nil {
		return client.Operation{}, err
	}
	return r.Operation(ctx, res.Operation, 0)
}

// cancelTries is how often a cancellation looks again because what it meant to cancel went on to something else.
const cancelTries = 5

// CancelSwitchover calls the scheduled switch-over off and rolls the running one back. One that is just beginning is not missed
// between the two, nor one that this node has yet to hear of.
func (r roles) CancelSwitchover(ctx context.Context, name string) error {
	canceled, upToDate := false, false
	for range cancelTries {
		_, g, err := r.n.group(name)
		if err != nil {
			return err
		}
		running := g.Operation
		if running != nil && running.Kind != fsm.OperationSwitchover {
			running = nil
		}
		var cmd fsm.Command
		switch {
		case g.Scheduled != nil:
			cmd.CancelSchedule = &fsm.CancelSchedule{Group: g.Spec.Name, Operation: g.Scheduled.ID, Outcome: fsm.ScheduleCanceled, Reason: "canceled by the operator"}
		case running != nil && (!canceled || !running.Committed):
			cmd.AbortSwitch = &fsm.AbortSwitch{Group: g.Spec.Name, Operation: running.ID, Reason: "canceled by the operator"}
		case canceled:
			return nil
		case !upToDate: // no operation has this id: the refusal shows this node all that was applied before
			cmd.CancelSchedule = &fsm.CancelSchedule{Group: g.Spec.Name, Operation: 0, Outcome: fsm.ScheduleCanceled, Reason: "nothing"}
			upToDate = true
		default:
			return &client.Error{Code: client.CodePrecondition, Detail: fmt.Sprintf("no switch-over of group %s is running or scheduled", name), Remedy: "there is nothing to cancel; GET /v1/operations shows what ran"}
		}
		res, err := r.n.propose(ctx, cmd)
		switch {
		case err == nil:
			canceled = true
		case res.Refused != fsm.RefusedOperation || running != nil && running.Committed:
			return err
		}
	}
	return &client.Error{Code: client.CodeBusy, Detail: fmt.Sprintf("the switch-overs of group %s change all the time", name), Remedy: "look at the status and ask again"}
}

// scheduleOf translates what an operation was scheduled with; nil when it was not.
func scheduleOf(o *fsm.Operation) *client.Schedule {
	s := o.Schedule
	if s == nil {
		return nil
	}
	return &client.Schedule{At: s.At, By: s.By, Asked: s.Asked, Waits: s.Waits, Outcome: string(s.Outcome)}
}

// scheduledText says what is scheduled.
func scheduledText(o *fsm.Operation) string {
	text := fmt.Sprintf("switch-over %d to %s is scheduled for %s", o.ID, o.To, o.Schedule.At.Format(time.RFC3339))
	if o.Schedule.By != "" {
		text += ", asked for by " + o.Schedule.By
	}
	return text
}

// scheduleNotes says what is scheduled for a group, and what any other change of its roles does to that.
func scheduleNotes(g *fsm.Group) []string {
	if g.Scheduled == nil {
		return nil
	}
	text := scheduledText(g.Scheduled) + "; another switch-over or failover that somebody asks for makes it void"
	if why := g.Scheduled.Schedule.Waits; why != "" {
		text = scheduledText(g.Scheduled) + " and waits: " + why
	}
	return []string{text}
}

// scheduleChanges compares what is scheduled and was, by group. What ends without having begun is told with the past operations.
type scheduleChanges map[ident.GroupName]*fsm.Operation

func (c scheduleChanges) see(n *Node, st *fsm.State, first bool) {
	for name, g := range st.Groups {
		was, is := c[name], g.Scheduled
		c[name] = is
		if first || was == is {
			continue
		}
		add := func(severity, kind, text string, op *fsm.Operation) {
			n.events.add(severity, string(name), kind, text, scheduleFields(op))
		}
		if is != nil && (was == nil || was.ID != is.ID) {
			add("info", "SWITCHOVER_SCHEDULED", scheduledText(is), is)
		}
		if is != nil && is.Schedule.Waits != "" && (was == nil || was.ID != is.ID || was.Schedule.Waits != is.Schedule.Waits) {
			add("warning", "SWITCHOVER_WAITS", fmt.Sprintf("the time of switch-over %d to %s has come, and it cannot begin yet: %s", is.ID, is.To, is.Schedule.Waits), is)
		}
		if op := g.Operation; was != nil && is == nil && op != nil && op.ID == was.ID {
			add("info", "SWITCHOVER", fmt.Sprintf("scheduled switch-over %d to %s started", op.ID, op.To), op)
		}
	}
}

func scheduleFields(op *fsm.Operation) map[string]string {
	return map[string]string{"operation": fmt.Sprint(op.ID), "peer": string(op.To), "at": op.Schedule.At.Format(time.RFC3339), "by": op.Schedule.By}
}

// neverBegan tells of a scheduled switch-over that ended without having begun; it returns false for all others.
func (n *Node) neverBegan(op *fsm.Operation) bool {
	if op.Schedule == nil || op.Schedule.Outcome == fsm.ScheduleStarted {
		return false
	}
	severity, kind := "info", "SWITCHOVER_CANCELED"
	switch op.Schedule.Outcome {
	case fsm.ScheduleVoid:
		severity, kind = "warning", "SWITCHOVER_VOID"
	case fsm.ScheduleMissed:
		severity, kind = "error", "SWITCHOVER_MISSED"
	}
	n.events.add(severity, string(op.Group), kind, fmt.Sprintf("switch-over %d to %s, scheduled for %s, did not begin: %s", op.ID, op.To, op.Schedule.At.Format(time.RFC3339), op.Error), scheduleFields(op))
	return true
}
