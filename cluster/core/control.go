package core

import (
	"maps"
	"slices"
	"time"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/internal/mutant"
)

// Bounds of a switch-back that nobody asked for; an operator's has its own.
const (
	switchbackPause   = 5 * time.Second  // writes are held at most this long
	switchbackPrepare = 30 * time.Second // from the start to the commit point, beside the pause

	switchbackRest     = time.Minute // at least, after one that failed; twice as long each time
	switchbackRestMost = time.Hour
)

// expire ends what an operator ordered until a time that is past. The state decides whether something is paused, never a
// clock: one that is wrong ends a pause early or late, the same on all nodes.
func (v View) expire() (out []fsm.Command) {
	if p := v.State.Pause; p != nil && p.Over(v.Now) {
		out = append(out, fsm.Command{SetPause: &fsm.SetPause{Version: v.State.PauseVersion}})
	}
	for _, id := range slices.Sorted(maps.Keys(v.State.Nodes)) {
		if n := v.State.Nodes[id]; n.Maintenance.Over(v.Now) {
			out = append(out, fsm.Command{SetMaintenance: &fsm.SetMaintenance{Node: id, Version: n.MaintenanceVersion}})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(v.State.Groups)) {
		for _, h := range v.State.Groups[name].Consumers {
			if h.Over(v.Now) || mutant.On(mutant.EndHoldsEarly) {
				out = append(out, fsm.Command{RemoveHold: &fsm.RemoveHold{Group: name, Name: h.Name, Version: h.Version}})
			}
		}
	}
	return out
}

// returnLag is how many entries the preferred node may lack when the role goes back to it: it drains them within the pause.
const returnLag = 1000

// level tells whether, by their last renewals, a node holds nearly all that the primary has deposited. A standby does: the
// switch-over brings it into the set first.
func (v View) level(g *fsm.Group, n *fsm.Node) bool {
	primary := v.State.Nodes[g.Primary]
	if primary == nil {
		return false
	}
	have, all := n.Copies[g.Spec.Name][g.Primary], primary.Copies[g.Spec.Name][g.Primary]
	return have > 0 && all <= have+returnLag
}

// Returning tells whether the role of a group could go back to its preferred node by itself, were it so for long enough: the
// node is level and well, nobody put it into maintenance, nothing is paused and nothing else runs.
func (v View) Returning(g *fsm.Group) bool {
	p := v.State.Nodes[g.Spec.Preferred]
	return g.Spec.Switchback == fsm.SwitchbackAuto && v.State.Pause == nil &&
		g.Phase == fsm.PhaseOpened && g.Operation == nil && g.Primary != g.Spec.Preferred &&
		p != nil && (g.InSet(p.ID) || v.level(g, p)) && p.Kind == fsm.KindData && !p.InMaintenance() && !p.IsLeaving() && p.Lives(p.Incarnation) && v.lives(p.ID)
}

// switchbackWait is how long the preferred node has to be fit before the role goes back to it. One that failed is tried again,
// each time in a row after a longer wait: every attempt may hold writes. The past says how many failed since the role was last
// there, so that a new Raft leader knows it, too.
func (v View) switchbackWait(g *fsm.Group) time.Duration {
	wait := max(g.Spec.SwitchbackAfter, fsm.MinSwitchbackAfter)
	rest := switchbackRest
	for i := len(v.State.Past) - 1; i >= 0; i-- {
		op := &v.State.Past[i]
		switch {
		case op.Group != g.Spec.Name || op.To != g.Spec.Preferred:
		case op.State == fsm.OperationDone:
			return wait
		case op.Automatic && op.Kind == fsm.OperationSwitchover:
			wait = max(wait, rest)
			rest = min(2*rest, switchbackRestMost)
		}
	}
	return wait
}

// switchback hands the role back to the preferred node.
func (v View) switchback(g *fsm.Group) (fsm.Command, bool) {
	own := v.Groups[g.Spec.Name]
	if !own.Covered || !v.Returning(g) || own.Steady < v.switchbackWait(g) {
		return fsm.Command{}, false
	}
	return fsm.Command{StartSwitch: &fsm.StartSwitch{
		Group: g.Spec.Name, Epoch: g.Epoch, To: g.Spec.Preferred, MaxPause: switchbackPause, Deadline: v.Now.Add(switchbackPrepare + switchbackPause),
		Reason: "switch-back to the preferred node", Automatic: true,
	}}, true
}

// steady is since when, and in which life, the preferred node of a group has been fit to take the role back.
type steady struct {
	epoch ident.Epoch
	life  ident.Incarnation
	at    time.Duration
}

// Steady takes in whether the preferred node is fit now, see View.Returning, and returns for how long it has been without a
// break in one life.
func (s *Sightings) Steady(g *fsm.Group, preferred *fsm.Node, fit bool, now time.Duration) time.Duration {
	if !fit || preferred == nil {
		delete(s.fit, g.Spec.Name)
		return 0
	}
	seen := steady{epoch: g.Epoch, life: preferred.Incarnation, at: now}
	if have, ok := s.fit[g.Spec.Name]; ok && have.epoch == seen.epoch && have.life == seen.life {
		return now - have.at
	}
	s.fit[g.Spec.Name] = seen
	return 0
}
