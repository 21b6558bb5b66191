package simulation

import (
	"slices"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/replica/core"
)

// This file is what the oracle knows of dropped nodes, holds and changed specs.

// dropsStand: who was dropped is in no set, so that it neither counts for a commit nor is chosen (S8).
func (o *oracle) dropsStand(g *fsm.Group) {
	for _, d := range g.Dropped {
		if g.InSet(d.Node) {
			o.w.fail("S8", "%s was dropped from group %s and is in the set %v", d.Node, g.Spec.Name, g.InSync)
		}
	}
}

// ordered looks at what was asked of a group, and done.
func (o *oracle) ordered(old *fsm.State, cmd fsm.Command) {
	switch {
	case cmd.Drop != nil:
		o.drops(old, cmd.Drop)
	case cmd.Readmit != nil:
		o.w.stats.Readmits++
		g := o.w.raft.truth.Groups[cmd.Readmit.Group]
		if g.InSet(cmd.Readmit.Node) {
			o.w.fail("S9", "%s is in the set %v by its readmission", cmd.Readmit.Node, g.InSync)
		}
		o.of(cmd.Readmit.Group).dropped[cmd.Readmit.Node] = true
	case cmd.SetHold != nil:
		if cmd.SetHold.Version > 0 {
			o.w.stats.HoldsMoved++
		} else {
			o.w.stats.HoldsSet++
		}
	case cmd.RemoveHold != nil:
		o.unheld(old, cmd)
	case cmd.ChangeSpec != nil:
		o.respec(old.Groups[cmd.ChangeSpec.Group], o.w.raft.truth.Groups[cmd.ChangeSpec.Group])
	}
}

// drops: nobody is dropped who counts, or where the policy is another (S14: what others need is deleted by policy only).
func (o *oracle) drops(old *fsm.State, c *fsm.Drop) {
	g := old.Groups[c.Group]
	if g.IsDropped(c.Node) {
		return
	}
	o.w.stats.Drops++
	o.of(c.Group).dropped[c.Node] = false
	if g.Spec.JournalFull != fsm.JournalFullDrop || c.Node == g.Primary || g.InSet(c.Node) || g.Operation != nil {
		o.w.fail("S14", "%s is dropped from group %s, whose set is %v", c.Node, c.Group, g.InSync)
	}
	p := old.Nodes[g.Primary]
	n := old.Nodes[c.Node]
	behind := n.Flushed[c.Group].History < p.Flushed[c.Group].History
	for author, end := range p.Copies[c.Group] {
		behind = behind || author != c.Node && n.Copies[c.Group][author] < end
	}
	if !behind {
		o.w.fail("S14", "%s is dropped from group %s, although it needs nothing that the primary does not need itself", c.Node, c.Group)
	}
}

// wasDropped tells whether a copy was ever dropped.
func (o *oracle) wasDropped(c *copied) bool {
	_, ok := o.of(c.group).dropped[c.n.id]
	return ok
}

// unfounded tells whether a copy may lack the bundle that ends at p, which it has to undo: an operator gave the role to a node that was dropped, or
// had said that it cannot serve, at an end below what the copy's store has, and the copy deleted that bundle before. It waits to be primed.
func (o *oracle) unfounded(c *copied, p ident.Position) bool {
	l := o.of(c.group)
	if !l.gone[gone{c.n.id, p}] || !slices.ContainsFunc(l.lost, func(r lossRange) bool { return r.buried && r.takes(c.at) }) {
		return false
	}
	if _, known := l.dropped[c.n.id]; !known {
		l.dropped[c.n.id] = false
	}
	return true
}

// gone is a bundle that a node deleted.
type gone struct {
	node ident.NodeID
	end  ident.Position
}

// stranded tells whether the copy was readmitted and does not connect any more: it waits to be primed.
func (c *copied) stranded() bool { return c.lacks != "" && c.n.w.oracle.wasDropped(c) }

// unheld: a hold ends when its reader says so, or when it is over (S14).
func (o *oracle) unheld(old *fsm.State, cmd fsm.Command) {
	w, c := o.w, cmd.RemoveHold
	if w.released[cmd.ID] {
		w.stats.HoldsReleased++
		return
	}
	w.stats.HoldsExpired++
	if h, _ := old.Groups[c.Group].Hold(c.Name); h.Until.After(w.clock(0)) {
		w.fail("S14", "the hold %s of group %s is removed before it is over", c.Name, c.Group)
	}
}

// keepsHeld: no fact beyond a consumer's position is deleted by a node that knows of its hold (S14).
func (o *oracle) keepsHeld(c *copied, g *fsm.Group, list []*bundle) {
	for _, h := range g.Consumers {
		at := o.fork(c.group, g.History, h.Position)
		for _, b := range list {
			if b.Facts > 0 && g.History.Contains(b.After()) && b.After().History > at.History {
				o.w.fail("S14", "%s deletes %s, which %s holds from %s on", c, b.After(), h.Name, at)
			}
		}
	}
}

// respec: with the delivery the set becomes the primary alone, and no growth proposed before is ever applied (S2, S8).
func (o *oracle) respec(was, g *fsm.Group) {
	w := o.w
	if was.SpecVersion == g.SpecVersion {
		w.stats.RespecsRefused++ // it changed nothing
		return
	}
	w.stats.Respecs++
	if was.Spec.Delivery == g.Spec.Delivery {
		if !slices.Equal(was.InSync, g.InSync) {
			w.fail("S8", "a changed spec changes the set of group %s from %v to %v", g.Spec.Name, was.InSync, g.InSync)
		}
		return
	}
	if g.Spec.Delivery == fsm.DeliveryAsync {
		w.stats.ToAsync++
	} else {
		w.stats.ToSync++
	}
	if !slices.Equal(g.InSync, []ident.NodeID{g.Primary}) || g.SetVersion == was.SetVersion || g.Phase != fsm.PhaseOpened {
		w.fail("S2", "the delivery of group %s becomes %s with the set %v at version %d after %d", g.Spec.Name, g.Spec.Delivery, g.InSync, g.SetVersion, was.SetVersion)
	}
}

// delivered: a commit has the copies that the mode demands which the primary knows to be in force, whatever the mode was when the
// bundle was sealed (S2).
func (o *oracle) delivered(p *primary, b *bundle) {
	c, w := p.c, o.w
	g := c.state().Group
	if g.Epoch != p.epoch || g.Phase != fsm.PhaseOpened || g.Spec.Delivery == fsm.DeliveryAsync || b.After().Compare(o.of(c.group).opened) <= 0 {
		return
	}
	for _, id := range g.InSync {
		if !o.holds(w.byID(id), c.group, b.After()) {
			w.fail("S2", "%s commits %s under sync delivery, which %s in the set %v that it knows does not hold", c, b.After(), id, g.InSync)
		}
	}
	if core.Protects(g) && len(g.InSync) < 2 {
		w.fail("S2", "%s commits %s alone, which the group does not allow", c, b.After())
	}
}

// returned counts who is level again after a readmission, at the end.
func (o *oracle) returned() {
	for i, name := range o.w.groups {
		g := o.w.raft.truth.Groups[name]
		for id, back := range o.of(name).dropped {
			if back && !g.IsDropped(id) && !o.w.byID(id).copies[i].stranded() {
				o.w.stats.Returns++
			}
		}
	}
}
