package core

import (
	"fmt"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/internal/mutant"
	"github.com/understudy-ha/understudy/journal/entry"
)

// Mine tells whether the group belongs to the session of this life of this node as primary of epoch e.
func Mine(g *fsm.Group, e ident.Epoch, self ident.NodeID, life ident.Incarnation) bool {
	if g == nil || g.Epoch != e || g.Primary != self || g.Phase == fsm.PhaseFenced {
		return false
	}
	return g.Incarnation == life || mutant.On(mutant.SecondLifeServes)
}

// Beginning is how a primary session comes to its epoch's SW.
type Beginning int

// Beginnings.
const (
	Resumes    Beginning = iota // SW stands in the local journal already
	HandedRole                  // a Handover says after what SW stands
	TakesOver                   // step 5 of a failover
)

// BeginningOf tells how the session begins; deposited says that this epoch's SW stands in the local journal.
func BeginningOf(g *fsm.Group, deposited bool) Beginning {
	switch {
	case deposited:
		return Resumes
	case g.Phase == fsm.PhaseOpened:
		return HandedRole
	}
	return TakesOver
}

// SequencesAhead tells whether writes may be sequenced before SW is committed. Where they are held or refused without a secondary, who
// looks for one comes first.
func SequencesAhead(g *fsm.Group) bool {
	return g.Spec.Delivery == fsm.DeliveryAsync || g.Spec.OnNoSync != fsm.NoSyncHold && g.Spec.OnNoSync != fsm.NoSyncRefuse
}

// HandedOver tells whether epoch e began with a Handover: then its SW is committed by the normal rule only. The operation
// that did it may be over, so the certificate is asked.
func HandedOver(g *fsm.Group, e ident.Epoch) (bool, error) {
	for i := len(g.Switches) - 1; i >= 0; i-- {
		if g.Switches[i].Epoch == e {
			return g.Switches[i].Kind == fsm.CertificateSwitchover, nil
		}
	}
	return false, fmt.Errorf("no certificate of epoch %s", e)
}

// Needed returns what a branch must reach for a takeover to open on it: what every member of the set has. That is everything
// before the last row's SW, and that SW itself when its epoch began with Open, which commits it.
func Needed(g *fsm.Group) (ident.Position, error) {
	last := g.History.Last()
	if last.Epoch == 0 {
		return ident.Position{}, nil
	}
	handed, err := HandedOver(g, last.Epoch)
	if err != nil {
		return ident.Position{}, err
	}
	if handed {
		return BeforeRow(g.History), nil
	}
	return ident.Position{Epoch: last.Epoch, History: last.SW}, nil
}

// LossAllowed tells whether an operator has said that the running failover may lose something.
func LossAllowed(g *fsm.Group) bool { return g.Operation != nil && g.Operation.AllowLoss }

// MayServe tells whether the state shows the epoch opened: before that nothing is read or answered.
func MayServe(g *fsm.Group, e ident.Epoch) bool {
	if mutant.On(mutant.ServeBeforeOpen) && g.Phase == fsm.PhasePromoted {
		return g.Epoch == e
	}
	return g.Phase == fsm.PhaseOpened && g.OpenEpoch == e
}

// TakeoverEnd returns the branch that a takeover goes on from: the best one held, whether it is known to be committed or
// not, since it may have been acknowledged.
func TakeoverEnd(grove *Grove) ident.Position {
	if mutant.On(mutant.DropTail) {
		if before := BeforeRow(grove.floor.table); before.History > grove.floor.fork.History && grove.Connects(before) {
			return before
		}
		return grove.floor.fork
	}
	return grove.Best()
}

// ConfirmedEnd returns up to where a branch need not be deposited again by a takeover: before the last row's SW, in the
// store, confirmed by whoever wrote it, or in the local journal anyway. Each of sure is a part of some branch; on this one
// they hold as far as they lie on it. What the store has beyond where the way to best leaves it is taken back, so the way begins there.
// ok is false when the grove has no way to best.
func ConfirmedEnd(grove *Grove, sure []Bough, best ident.Position) (at ident.Position, ok bool) {
	path, ok := grove.Path(best)
	if !ok {
		return ident.Position{}, false
	}
	at = grove.floor.fork // in the store
	if len(path) > 0 {
		at = path[0].Before
	}
	sure = append(settled(grove.floor.table), sure...)
	for _, b := range path {
		for at.History < b.To {
			next := ident.Position{Epoch: b.Epoch, History: max(at.History, b.From-1) + 1}
			s, ok := covering(sure, next)
			if !ok {
				return at, true
			}
			at = ident.Position{Epoch: b.Epoch, History: min(s.To, b.To)}
		}
	}
	return at, true
}

// settled returns what the table says is committed: of each epoch what stands before the SW of the next row.
func settled(t ident.HistoryTable) []Bough {
	var out []Bough
	for i := 1; i < len(t); i++ {
		out = append(out, Bough{Run: entry.Run{Epoch: t[i-1].Epoch, From: t[i-1].SW, To: t[i].SW - 1}})
	}
	return out
}

// covering returns the bough that contains p and reaches up furthest.
func covering(boughs []Bough, p ident.Position) (best Bough, found bool) {
	for _, b := range boughs {
		if b.Epoch == p.Epoch && b.From <= p.History && p.History <= b.To && (!found || b.To > best.To) {
			best, found = b, true
		}
	}
	return best, found
}

// AllHold tells whether Open need not wait any longer: every member of the set that lives holds SW.
func AllHold(g *fsm.Group, self ident.NodeID, alive, holds func(ident.NodeID) bool) bool {
	if g.Spec.Delivery == fsm.DeliveryAsync {
		return true
	}
	for _, n := range g.InSync {
		if n != self && alive(n) && !holds(n) {
			return false
		}
	}
	return true
}

// CommitFloor returns what a new primary's epoch has committed before anything is acknowledged: Open commits SW too, a
// Handover only what stands before it.
func CommitFloor(g *fsm.Group, e ident.Epoch, beforeSwitch, afterSwitch ident.Position) (ident.Position, error) {
	handed, err := HandedOver(g, e)
	if handed && !mutant.On(mutant.CommitAboveFloor) {
		return beforeSwitch, err
	}
	return afterSwitch, err
}
