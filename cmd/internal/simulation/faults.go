package simulation

import (
	"fmt"
	"slices"
	"time"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/replica/core"
)

// pause stops a process; its clock goes on.
func (n *node) pause(d time.Duration) {
	n.w.stats.Pauses++
	n.still = max(n.still, n.w.now+d)
	n.w.note("stands still", n.id, uint64(d), 0, 0)
}

// cut takes one direction away for a while.
func (w *world) cut(from, to int, d time.Duration) {
	if from == to {
		return
	}
	w.stats.Cuts++
	l := &w.links[from][to]
	l.cut++
	w.after(d, func() { l.cut = max(0, l.cut-1) })
}

// plan makes the schedule of a world: a few faults and orders, at random times.
func (w *world) plan() {
	n := 2 + w.rng.IntN(5)
	for range n {
		at := w.between(200*ms, w.faults)
		w.after(at, w.fault)
	}
	for range w.rng.IntN(8) {
		w.after(w.between(50*ms, w.faults), []func(){w.consume, w.consume, w.patch, w.readmitAny}[w.rng.IntN(4)])
	}
	if w.chance(0.6) {
		w.after(w.between(50*ms, w.faults*2/3), w.absence)
	}
	if w.buries() {
		w.after(w.between(50*ms, w.faults/2), w.absence)
	}
	if w.swings() {
		for range 1 + w.rng.IntN(4) {
			w.after(w.between(50*ms, w.faults), w.switchOver)
		}
	}
	if w.seed%2 == 1 { // the other worlds stay what they were
		for range 1 + w.rng.IntN(2) {
			w.after(w.between(50*ms, w.faults), w.leave)
		}
	}
}

// leave has a node announce its stop; it stops a while later, in order or, for a moment of the announcement, by an accident.
func (w *world) leave() {
	n := w.dataNode()
	if !n.up {
		return
	}
	life := n.life
	w.stats.Leaves++
	var was []ident.GroupName
	for _, g := range w.groups {
		if x := w.raft.truth.Groups[g]; x.InSet(n.id) && x.Primary != n.id {
			was = append(was, g)
		}
	}
	w.order(fsm.Command{Leave: &fsm.Leave{Node: n.id, Incarnation: life}})
	w.after(w.between(0, 4*shrinkAfter), func() {
		if !n.up || n.life != life {
			return
		}
		for _, g := range was {
			if !w.raft.truth.Groups[g].InSet(n.id) {
				w.stats.Left++
			}
		}
		w.crashAndReturn(n, w.between(10*ms, lease), w.chance(0.3))
	})
}

// absence takes a node that is not the primary away for so long that it may be dropped, and readmits it when it is back.
func (w *world) absence() {
	n := w.dataNode()
	for _, g := range w.groups {
		if w.raft.truth.Groups[g].Primary == n.id {
			return
		}
	}
	d := w.between(dropAfter, 6*dropAfter)
	w.crashAndReturn(n, d, w.chance(0.5))
	for range w.rng.IntN(4) {
		w.after(d+w.between(0, 2*lease), w.readmitAny)
	}
}

// readmitAny readmits somebody who was dropped.
func (w *world) readmitAny() {
	for _, g := range w.groups {
		w.readmit(g)
	}
}

// fault does one thing that goes wrong, or that an operator asks for.
func (w *world) fault() {
	n := w.nodes[w.rng.IntN(len(w.nodes))]
	if w.chance(0.5) { // a primary is the most interesting target
		if p := w.byID(w.raft.truth.Groups[w.groups[0]].Primary); p != nil {
			n = p
		}
	}
	d := w.between(20*ms, 3*lease)
	switch w.rng.IntN(20) {
	case 0, 1, 2:
		w.crashAndReturn(n, d, w.chance(0.6))
	case 3:
		power := w.chance(0.7)
		for _, o := range w.nodes {
			w.crashAndReturn(o, w.between(10*ms, lease), power)
		}
	case 4, 5:
		n.pause(d)
	case 6, 7:
		w.note("isolated", n.id, uint64(d), 0, 0)
		for i := range w.nodes {
			w.cut(n.i, i, d)
			w.cut(i, n.i, d)
		}
	case 8:
		w.note("cut one way", n.id, uint64(d), 0, 0)
		w.cut(n.i, w.rng.IntN(len(w.nodes)), d)
	case 9:
		w.note("does not hear", n.id, uint64(d), 0, 0)
		for i := range w.nodes {
			w.cut(i, n.i, d)
		}
	case 10:
		if w.healthy(n) {
			w.lead(n)
		}
	case 11:
		w.stats.SlowDisks++
		n.hung = w.now + d
		w.note("disk hangs", n.id, uint64(d), 0, 0)
	case 12, 13, 14:
		w.switchOver()
	case 15:
		w.fence()
	case 16, 17:
		w.force()
	case 18, 19:
		w.ambush(n)
	}
	if w.chance(0.3) { // one fault seldom comes alone
		w.after(w.between(0, 100*ms), w.fault)
	}
}

// crashAndReturn ends a process, and begins another one later. Who saw it die may release its lease, at any later time.
func (w *world) crashAndReturn(n *node, d time.Duration, power bool) {
	if !n.up {
		return
	}
	life := n.life
	n.crash(power)
	w.after(d, func() {
		if !n.up {
			w.stats.Restarts++
			if w.chance(0.2) || w.belated() { // in between there was a life so short that all that is left of it is a renewal on its way
				w.stats.LateLives++
				late := n.renewal(ident.Incarnation(w.id()))
				if w.belated() {
					n.late = &late
				} else {
					w.after(w.between(0, 3*lease), func() { w.order(late) })
				}
			}
			n.start()
		}
	})
	if w.chance(0.5) {
		w.after(w.between(ms, 2*lease), func() {
			w.stats.Releases++
			w.order(fsm.Command{Release: &fsm.Release{Node: n.id, Incarnation: life}})
		})
	}
}

// belated tells whether renewals of earlier lives come when the present one has a role, in this world: that is when they could do most.
func (w *world) belated() bool { return w.seed%4 == 1 }

// order gives a command from outside to Raft: an operator's, or a supervisor's.
func (w *world) order(cmd fsm.Command) {
	if w.raft.leader >= 0 && w.healthy(w.nodes[w.raft.leader]) {
		w.raft.append(w, cmd)
		w.nodes[w.raft.leader].apply(len(w.raft.log))
		w.spread()
	}
}

// switchOver asks for a planned switch-over.
func (w *world) switchOver() {
	g := w.raft.truth.Groups[w.groups[w.rng.IntN(len(w.groups))]]
	w.order(fsm.Command{StartSwitch: &fsm.StartSwitch{
		Group: g.Spec.Name, Epoch: g.Epoch, To: w.dataNode().id, MaxPause: maxPause, Deadline: time.Unix(0, int64(w.now+2*time.Second)), Reason: "asked",
	}})
}

// fence asks against a primary that may live.
func (w *world) fence() {
	g := w.raft.truth.Groups[w.groups[w.rng.IntN(len(w.groups))]]
	f := fsm.Fence{Group: g.Spec.Name, Epoch: g.Epoch, Force: true, Reason: "asked"}
	if g.Spec.AutoFailover == fsm.FailoverOff {
		f.To = g.Primary
	}
	w.order(fsm.Command{Fence: &f})
}

// force asks for a failover that may lose something. It is seldom, since what it may lose nothing can be said about.
func (w *world) force() {
	g := w.raft.truth.Groups[w.groups[w.rng.IntN(len(w.groups))]]
	w.stats.Forced++
	f := fsm.Fence{Group: g.Spec.Name, Epoch: g.Epoch, Force: true, To: w.dataNode().id, AllowLoss: true, Reason: "forced"}
	switch {
	case len(g.Dropped) > 0 && w.chance(0.2):
		f.To = g.Dropped[0].Node
	case w.chance(0.2):
		f.To = "" // whoever has received most
	}
	w.order(fsm.Command{Fence: &f})
}

// ambush cuts a primary off while its lease lasts, starts another node anew, and has the group fenced right then.
func (w *world) ambush(n *node) {
	d := w.between(lease/4, 2*lease)
	for i := range w.nodes {
		if w.nodes[i].kind == fsm.KindWitness || w.chance(0.7) {
			w.cut(n.i, i, d)
			w.cut(i, n.i, d)
		}
	}
	for _, o := range w.nodes {
		if o != n && w.chance(0.4) {
			w.crashAndReturn(o, w.between(ms, 20*ms), true)
		}
	}
	w.after(w.between(0, lease/2), w.fence)
}

// swings tells whether the role goes to and fro in this world.
func (w *world) swings() bool { return w.seed%4 == 2 }

// isolate cuts off a node that was just given a role, whose lease may rest on nothing newer, and has the group fenced at once.
func (w *world) isolate(n *node) {
	for i := range w.nodes {
		w.cut(n.i, i, lease)
		w.cut(i, n.i, lease)
	}
	for range 2 {
		w.after(w.between(0, lease/8), w.fence)
	}
}

// heal ends all faults.
func (w *world) heal() {
	w.healed = true
	w.loss, w.forged = 0, 0
	for i := range w.links {
		for k := range w.links[i] {
			w.links[i][k].cut = 0
		}
	}
	for _, n := range w.nodes {
		n.hung = 0
		if !n.up {
			n.start()
		}
	}
	w.note("healed", "", 0, 0, 0)
}

// converge waits until everybody is level, and looks at the whole.
func (w *world) converge() {
	end := w.now + healTime
	for w.now < end {
		w.runUntil(w.now + 50*ms)
		if w.level() == "" {
			w.oracle.final()
			return
		}
		if end-w.now < healTime-5*time.Second {
			w.decide()
		}
		if end-w.now < healTime/2 && w.lost() {
			return
		}
		w.readmitAny()
		for i := range w.links { // a cut that had begun before ends later
			for k := range w.links[i] {
				w.links[i][k].cut = 0
			}
		}
	}
	w.fail("S24", "%s after all faults were over: %s", healTime, w.level())
}

// decide is what an operator does for groups whose role may not move by itself: the node that the fence names cannot take
// the role, so a member that reported is named.
func (w *world) decide() {
	for _, name := range w.groups {
		g := w.raft.truth.Groups[name]
		if n := w.raft.truth.Nodes[g.Primary]; g.Spec.AutoFailover == fsm.FailoverOff && g.Phase == fsm.PhasePromoted && n.Incarnation != g.Incarnation {
			// A forced choice outside the set that did not come to open: only who forced it can force it again.
			w.order(fsm.Command{Fence: &fsm.Fence{Group: name, Epoch: g.Epoch, Force: true, To: g.Primary, AllowLoss: true, Reason: "decided"}})
			continue
		}
		if g.Phase != fsm.PhaseFenced || g.Operation.To == "" || len(g.Reports) < len(g.InSync) {
			continue
		}
		var best fsm.Report
		for _, r := range g.Reports {
			if g.InSet(r.Node) && !r.Torn && r.Received.Compare(best.Received) > 0 {
				best = r
			}
		}
		if best.Node != "" && best.Node != g.Operation.To {
			w.order(fsm.Command{Fence: &fsm.Fence{Group: name, Epoch: g.Epoch, Force: true, To: best.Node, Reason: "decided"}})
		}
	}
}

// crowdedOut tells whether a copy has no room for what follows, while a node that has to be primed keeps every receiver: until an operator
// primes or removes that one nothing is deleted, since it is connected, and only who is absent is dropped.
func (w *world) crowdedOut(i int, g *fsm.Group, c *copied) bool {
	if !slices.ContainsFunc(c.journals, func(j *journal) bool { return j != nil && j.author != c.n.id && j.full(g.Spec) }) {
		return false
	}
	return slices.ContainsFunc(w.nodes, func(n *node) bool {
		return n.kind == fsm.KindData && !g.IsDropped(n.id) && n.copies[i].stranded()
	})
}

// level says what is missing for everybody to be level; "" when nothing is.
func (w *world) level() string {
	for i, name := range w.groups {
		g := w.raft.truth.Groups[name]
		p := w.byID(g.Primary)
		if g.Phase != fsm.PhaseOpened || g.Operation != nil {
			why := ""
			if g.Phase == fsm.PhaseFenced {
				_, _, _, _, why = fsm.ChooseCandidate(g, w.raft.truth.Nodes, func(ident.NodeID) bool { return true }, true)
			}
			return fmt.Sprintf("group %s is %s at epoch %s by %s: %s", name, g.Phase, g.Epoch, g.Primary, why)
		}
		first := p.copies[i]
		if core.Protects(g) && w.alone(i, g) && g.Holds(p.id, p.life) {
			continue // everybody else was dropped: writes wait for a node that is primed anew
		}
		if first.primary == nil || !first.primary.serving || len(first.primary.flights) > 0 {
			return fmt.Sprintf("group %s is not served by %s at epoch %s", name, g.Primary, g.Epoch)
		}
		data := 0
		for _, n := range w.nodes {
			if n.kind != fsm.KindData {
				continue
			}
			c := n.copies[i]
			if g.IsDropped(n.id) || c.stranded() || w.crowdedOut(i, g, c) {
				continue
			}
			data++
			if c.at != first.at {
				return fmt.Sprintf("group %s: %s is at %s, %s at %s", name, n.id, c.at, p.id, first.at)
			}
		}
		if want := min(g.Spec.Secondaries+1, data); g.Spec.Delivery != fsm.DeliveryAsync && len(g.InSync) < want {
			return fmt.Sprintf("group %s: the set is %v, %d are wanted", name, g.InSync, want)
		}
	}
	for _, n := range w.nodes { // last: renewals go on, so this is a matter of the moment
		if n.applied != len(w.raft.log) {
			return fmt.Sprintf("%s has applied %d of %d commands", n.id, n.applied, len(w.raft.log))
		}
	}
	return ""
}
