package core

import (
	"fmt"
	"strings"
	"time"

	"github.com/understudy-ha/understudy/fsm"
)

// ScheduleGrace is for how long after its time a scheduled switch-over is tried. It is not begun later than that: nobody expects
// it any more.
const ScheduleGrace = time.Minute

// schedulePrepare bounds a scheduled switch-over from its start to the commit point, beside the pause.
const schedulePrepare = 30 * time.Second

// scheduled begins a scheduled switch-over once its time has come, by this leader's clock. As long as a check fails it waits, says
// why in the state, and is given up after a grace. The command names the schedule, which it uses up: it is begun once, whoever
// leads meanwhile.
func (v View) scheduled(g *fsm.Group) (fsm.Command, bool) {
	op := g.Scheduled
	if op == nil || v.Now.Before(op.Schedule.At) {
		return fsm.Command{}, false
	}
	var found []string
	for _, o := range v.State.Obstacles(g, op.To, v.Groups[g.Spec.Name].Covered, v.lives) {
		found = append(found, fmt.Sprintf("%s: %s", o.Check, o.What))
	}
	why := bounded(strings.Join(found, "; "))
	if v.Now.Sub(op.Schedule.At) > ScheduleGrace {
		if why = op.Schedule.Waits; why == "" {
			why = "no Raft leader looked at it"
		}
		return fsm.Command{CancelSchedule: &fsm.CancelSchedule{Group: g.Spec.Name, Operation: op.ID, Outcome: fsm.ScheduleMissed,
			Reason: bounded(fmt.Sprintf("it could not begin within %s of its time: %s", ScheduleGrace, why))}}, true
	}
	if why != "" {
		return fsm.Command{DelaySchedule: &fsm.DelaySchedule{Group: g.Spec.Name, Operation: op.ID, Waits: why}}, why != op.Schedule.Waits
	}
	return fsm.Command{StartSwitch: &fsm.StartSwitch{Group: g.Spec.Name, Epoch: g.Epoch, To: op.To, MaxPause: op.MaxPause,
		Deadline: v.Now.Add(schedulePrepare + op.MaxPause), Reason: op.Reason, Schedule: op.ID}}, true
}

// bounded cuts a text to what the state takes.
func bounded(s string) string {
	const most = 300
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}
