package simulation

import (
	"bytes"
	"encoding/json"
	"slices"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/replica/core"
)

// oracle sees everything, at once and from outside, and knows what must never be.
type oracle struct {
	w      *world
	groups map[ident.GroupName]*ledger
}

// ledger is what the oracle knows of one group.
type ledger struct {
	facts   map[ident.Position]*fact // by the position of a bundle's first fact
	ends    map[ident.Position]*fact // by the position after a bundle
	ops     map[uint64]ident.Position
	told    map[ident.NodeID]ident.Epoch // what each node has let others believe that it promised
	acks    []*call
	seen    []ident.Position // shown to readers
	best    ident.Position   // highest position that was shown or acknowledged
	refused map[uint64]bool  // said to be not done
	holders map[ident.Epoch]holder
	lossy   bool // an operator allowed loss: since then
	lost    []lossRange
	opened  ident.Position        // committed by the last Open or Handover
	buried  bool                  // an operator gave the role to a dropped node: what the others undo for that may be deleted
	dropped map[ident.NodeID]bool // ever; true: readmitted and not level yet
	gone    map[gone]bool         // deleted by those who had it
}

// holder is who was primary at an epoch.
type holder struct {
	node ident.NodeID
	life ident.Incarnation
}

// lossRange is what a forced failover was allowed to lose: what lies beyond a position, of older epochs.
type lossRange struct {
	beyond ident.Position
	epoch  ident.Epoch
	buried bool // the chosen node was dropped, and not level since, or had said that it cannot serve
}

// takes tells whether a position lies in the range.
func (r lossRange) takes(p ident.Position) bool { return p.Epoch < r.epoch && p.Compare(r.beyond) > 0 }

// fact is what a bundle means, whatever journal it stands in.
type fact struct {
	before, first, after ident.Position
	content              uint64
	ops                  []op
	committed            bool // ever; what an operator lost stays so
}

func newOracle(w *world) *oracle { return &oracle{w: w, groups: map[ident.GroupName]*ledger{}} }

func (o *oracle) of(g ident.GroupName) *ledger {
	l := o.groups[g]
	if l == nil {
		l = &ledger{
			facts: map[ident.Position]*fact{}, ends: map[ident.Position]*fact{}, ops: map[uint64]ident.Position{},
			told: map[ident.NodeID]ident.Epoch{}, refused: map[uint64]bool{}, holders: map[ident.Epoch]holder{}, dropped: map[ident.NodeID]bool{},
			gone: map[gone]bool{},
		}
		o.groups[g] = l
	}
	return l
}

// decided looks at every command that was committed, and what it did.
func (o *oracle) decided(old *fsm.State, cmd fsm.Command, res fsm.Result) {
	w, st := o.w, o.w.raft.truth
	if res.Refused != "" {
		return
	}
	for _, name := range w.groups {
		g, was := st.Groups[name], old.Groups[name]
		if g == nil || g == was {
			continue
		}
		l := o.of(name)
		if was != nil && g.Epoch < was.Epoch {
			w.fail("S1", "group %s goes from epoch %s to %s", name, was.Epoch, g.Epoch)
		}
		if g.Phase != fsm.PhaseFenced {
			h := holder{g.Primary, g.Incarnation}
			if have, ok := l.holders[g.Epoch]; ok && have != h {
				w.fail("S1", "epoch %s of group %s belongs to %v and to %v", g.Epoch, name, have, h)
			}
			l.holders[g.Epoch] = h
		}
		o.dropsStand(g)
	}
	o.ordered(old, cmd)
	switch {
	case cmd.Fence != nil:
		w.stats.Fences++
	case cmd.Promote != nil:
		w.stats.Promotes++
		if g := cmd.Promote.Group; !slices.Equal(old.Groups[g].InSync, st.Groups[g].InSync) {
			w.fail("S8", "Promote of %s changes the set of group %s from %v to %v", cmd.Promote.To, g, old.Groups[g].InSync, st.Groups[g].InSync)
		}
		o.promoted(old, cmd.Promote)
	case cmd.Open != nil:
		w.stats.Opens++
		o.opens(st.Groups[cmd.Open.Group])
	case cmd.Handover != nil:
		w.stats.Handovers++
		o.handed(cmd.Handover)
	case cmd.AbortSwitch != nil:
		w.stats.Aborts++
	case cmd.ChangeSet != nil && cmd.ChangeSet.Add != "":
		w.stats.Grows++
		o.grown(cmd.ChangeSet)
	case cmd.ChangeSet != nil:
		w.stats.Shrinks++
	}
}

// holds tells whether a node's disk has everything up to a position, by the history as the log has it now.
func (o *oracle) holds(n *node, g ident.GroupName, p ident.Position) bool {
	for _, c := range n.copies {
		if c.group == g {
			return core.NewGrove(o.w.raft.truth.Groups[g].History, c.flushed, c.boughs(true)...).Connects(p)
		}
	}
	return false
}

// promoted: whoever is promoted has everything that was ever acknowledged (S8), unless an operator allowed loss.
func (o *oracle) promoted(old *fsm.State, p *fsm.Promote) {
	l, n, w := o.of(p.Group), o.w.byID(p.To), o.w
	g := w.raft.truth.Groups[p.Group]
	if old.Groups[p.Group].IsDropped(p.To) {
		if was := old.Groups[p.Group].Operation; was == nil || !was.AllowLoss || was.To != p.To {
			w.fail("S8", "%s is promoted for epoch %s, although it was dropped and nobody named it", p.To, p.Epoch)
		}
		w.stats.DroppedForced++
		l.buried = true
	}
	if p.Loss != fsm.LossNone || g.Operation != nil && g.Operation.AllowLoss {
		r, _ := g.ReportOf(p.To)
		l.lost = append(l.lost, lossRange{r.Received, p.Epoch, old.Groups[p.Group].IsDropped(p.To) || l.dropped[p.To] || r.Unable != ""})
		l.lossy = true
		w.stats.Loses++
		return
	}
	if !n.up || n.life != p.Incarnation || l.lossy {
		return
	}
	if !l.best.IsZero() && !o.holdsNow(n, p.Group, l.best) {
		w.fail("S8", "%s is promoted for epoch %s without %s, which was acknowledged or shown", p.To, p.Epoch, l.best)
	}
}

// holdsNow is holds for a running process: what it has written counts, too.
func (o *oracle) holdsNow(n *node, g ident.GroupName, p ident.Position) bool {
	for _, c := range n.copies {
		if c.group == g {
			return core.NewGrove(o.w.raft.truth.Groups[g].History, c.at, c.boughs(false)...).Connects(p)
		}
	}
	return false
}

// opens: Open commits everything up to its SW, and everybody it names holds that.
func (o *oracle) opens(g *fsm.Group) {
	l, w := o.of(g.Spec.Name), o.w
	row := g.History.Last()
	sw := ident.Position{Epoch: row.Epoch, History: row.SW}
	for _, id := range g.InSync {
		if !o.holds(w.byID(id), g.Spec.Name, sw) {
			w.fail("S2", "Open of epoch %s names %s, which does not hold SW %s on its disk", g.Epoch, id, sw)
		}
	}
	o.forgive(g)
	l.settle(sw)
	l.opened = sw
}

// forgive takes what a forced failover lost out of what has to be there, if it may be lost (S27).
func (o *oracle) forgive(g *fsm.Group) {
	l, w := o.of(g.Spec.Name), o.w
	if !l.lossy {
		return
	}
	kept := l.acks[:0]
	for _, a := range l.acks {
		if core.Live(g.History, a.at) {
			kept = append(kept, a)
			continue
		}
		if !l.mayLose(a.at) {
			w.fail("S27", "%s was acknowledged and is lost, although no loss of it was reported", a.at)
		}
	}
	l.acks = kept
	seen := l.seen[:0]
	for _, p := range l.seen {
		if core.Live(g.History, p) {
			seen = append(seen, p)
		}
	}
	l.seen = seen
	if !core.Live(g.History, l.best) {
		l.best = ident.Position{}
		for _, a := range l.acks {
			if a.at.History > l.best.History {
				l.best = a.at
			}
		}
	}
	l.lossy = false
}

// mayLose tells whether a forced failover has said that it may lose a position.
func (l *ledger) mayLose(p ident.Position) bool {
	return slices.ContainsFunc(l.lost, func(r lossRange) bool { return r.takes(p) })
}

// handed: the target of a Handover has everything (S22).
func (o *oracle) handed(h *fsm.Handover) {
	l, w := o.of(h.Group), o.w
	for _, id := range h.InSync {
		if !l.best.IsZero() && !o.holds(w.byID(id), h.Group, h.Last) {
			w.fail("S22", "epoch %s is handed over after %s with %s in the set, which does not hold that on its disk", h.Epoch+1, h.Last, id)
		}
	}
	if !l.best.IsZero() && l.best.Compare(h.Last) > 0 {
		w.fail("S22", "handed over after %s, but %s was acknowledged or shown", h.Last, l.best)
	}
	l.settle(h.Last)
	l.opened = h.Last
}

// grown: a new member has everything that was acknowledged (S9).
func (o *oracle) grown(c *fsm.ChangeSet) {
	l := o.of(c.Group)
	if _, was := l.dropped[c.Add]; was {
		o.w.stats.ReturnedIn++
	}
	if !l.best.IsZero() && !l.lossy && !o.holds(o.w.byID(c.Add), c.Group, l.best) {
		o.w.fail("S9", "%s joins the set of group %s without %s, which was acknowledged or shown", c.Add, c.Group, l.best)
	}
}

// means: a position means the same everywhere and for ever (S10), and every entry stands at one position (S4).
func (o *oracle) means(g ident.GroupName, b *bundle) {
	if b.Facts == 0 {
		return
	}
	l := o.of(g)
	f, ok := l.facts[b.Fact]
	if ok {
		if f.content != b.content() {
			o.w.fail("S10", "position %s of group %s means two things", b.Fact, g)
		}
		return
	}
	f = &fact{before: b.Before, first: b.Fact, after: b.After(), content: b.content(), ops: b.ops}
	l.facts[b.Fact], l.ends[f.after] = f, f
	for i, x := range b.ops {
		at := ident.Position{Epoch: b.Fact.Epoch, History: b.Fact.History + ident.History(i)}
		if have, twice := l.ops[x.id]; twice {
			o.w.fail("S4", "write %d stands at %s and at %s", x.id, have, at)
		}
		l.ops[x.id] = at
	}
}

// fork walks down from a position to where its branch left the history.
func (o *oracle) fork(g ident.GroupName, t ident.HistoryTable, p ident.Position) ident.Position {
	for !t.Contains(p) {
		f := o.of(g).around(p)
		if f == nil {
			return ident.Position{}
		}
		p = f.before
	}
	return p
}

// around returns the bundle that a position lies in; nil: none.
func (l *ledger) around(p ident.Position) *fact {
	for end := p; end.History < p.History+maxFacts; end.History++ {
		if f := l.ends[end]; f != nil {
			if f.first.Epoch == p.Epoch && f.first.History <= p.History {
				return f
			}
			return nil
		}
	}
	return nil
}

// promises: from now on others rely on it.
func (o *oracle) promises(c *copied, e ident.Epoch) {
	if g := o.w.raft.truth.Groups[c.group]; e > g.Epoch {
		o.w.fail("S1", "%s promises epoch %s, the log is at %s", c, e, g.Epoch)
	}
	l := o.of(c.group)
	l.told[c.n.id] = max(l.told[c.n.id], e)
}

// writes: nothing of an older epoch than promised is appended or removed (S7).
func (o *oracle) writes(c *copied, e ident.Epoch, what string) {
	if told := o.of(c.group).told[c.n.id]; e < told {
		o.w.fail("S7", "%s promised epoch %s, and something of epoch %s was %s", c, told, e, what)
	}
}

// takesOver: everything that the node had received without a hole lives on (S11, S16).
func (o *oracle) takesOver(p *primary, g *fsm.Group, best ident.Position) {
	c := p.c
	held := map[ident.Position]bool{}
	for _, j := range c.journals {
		if j == nil {
			continue
		}
		for _, b := range j.list {
			if b.Facts > 0 && b.Last() <= j.durable {
				held[b.After()] = true
			}
		}
	}
	l := o.of(c.group)
	var lost ident.Position
	for end := range held {
		if end.Compare(best) <= 0 || !core.Live(g.History, end) {
			continue
		}
		whole, fork := true, c.at
		for q := end; whole && !q.IsZero() && !(g.History.Contains(q) && g.History.Contains(c.at) && q.History <= c.at.History); {
			f := l.ends[q]
			if whole = f != nil && held[q] && core.Live(g.History, f.first); whole {
				q = f.before
			}
			fork = q
		}
		for x := c.at; whole && x.History > fork.History && g.History.Contains(c.at); { // nobody follows what the store cannot be taken back for
			f := l.ends[x]
			if whole = f != nil && held[x]; whole {
				x = f.before
			}
		}
		if whole && end.Compare(lost) > 0 {
			lost = end
		}
	}
	if !lost.IsZero() {
		o.w.fail("S11", "%s takes over at epoch %s after %s, although it has received up to %s", c, p.epoch, best, lost)
	}
	if !l.best.IsZero() && !l.lossy && o.w.raft.truth.Groups[c.group].Epoch == p.epoch && !c.grove(g.History, true).Connects(l.best) && !core.LossAllowed(g) {
		o.w.fail("S16", "%s takes over at epoch %s without %s, which was acknowledged or shown", c, p.epoch, l.best)
	}
}

// commits: what is committed is held by the set in force, on disk (S2, S9).
func (o *oracle) commits(p *primary, b *bundle) {
	c, w := p.c, o.w
	g := w.raft.truth.Groups[c.group]
	l := o.of(c.group)
	if c.own().durable < b.Last() {
		w.fail("S2", "%s commits %s, which is not on its own disk", c, b.After())
	}
	if g.Epoch == p.epoch && g.Phase == fsm.PhaseOpened && b.After().Compare(l.opened) > 0 && g.Spec.Delivery != fsm.DeliveryAsync {
		for _, id := range g.InSync {
			if !o.holds(w.byID(id), c.group, b.After()) {
				w.fail("S2", "%s commits %s at epoch %s, which %s in the set %v does not hold on its disk", c, b.After(), p.epoch, id, g.InSync)
			}
			if told := l.told[id]; told < p.epoch { // it would still acknowledge to the primary before
				w.fail("S7", "%s commits %s at epoch %s with %s in the set %v, which has promised %s only", c, b.After(), p.epoch, id, g.InSync, told)
			}
		}
	}
	o.delivered(p, b)
	l.settle(b.After())
}

// settle notes that everything up to a position is committed.
func (l *ledger) settle(p ident.Position) {
	for f := l.ends[p]; f != nil && !f.committed; f = l.ends[f.before] {
		f.committed = true
	}
}

// applies: a backup applies nothing that was not committed (I5), nor what is not in the history as far as its node knows it. A node that
// stood still may apply what an operator lost meanwhile: it was committed, and is undone like what was applied before the loss.
func (o *oracle) applies(c *copied) {
	if f := o.of(c.group).ends[c.at]; f == nil || !f.committed {
		o.w.fail("S5", "%s applies %s, which nobody has committed", c, c.at)
	}
	if t := c.state().Group.History; !core.Live(t, c.at) {
		o.w.fail("S5", "%s applies %s, which its node knows is not in the history", c, c.at)
	}
}

// floor is what a request that begins now has to see.
func (o *oracle) floor(g ident.GroupName) ident.Position { return o.of(g).best }

// acked: a client hears that its write is done.
func (o *oracle) acked(p *primary, r *call) {
	w, l := o.w, o.of(r.group)
	w.stats.Acked++
	o.covered(p)
	p.c.noteAt("acks", r.at, r.op.id)
	l.acks = append(l.acks, r)
	o.shown(l, r, "written")
	if l.best.Compare(r.at) < 0 {
		l.best = r.at
	}
}

// covered: who answers has a lease at that instant, and the state shows its epoch opened (S6).
func (o *oracle) covered(p *primary) {
	n, g := p.c.n, p.c.state().Group
	if !n.leases.Holds(n.boot(), p.c.group, p.epoch) || g.Phase != fsm.PhaseOpened || g.Epoch != p.epoch {
		o.w.fail("S6", "%s answers at epoch %s without a lease on it, or before it is opened", p.c, p.epoch)
	}
}

// shown: what is answered is not older than what was answered before it was asked for (S5).
func (o *oracle) shown(l *ledger, r *call, what string) {
	if r.at.History < r.floor.History && !l.lossy {
		o.w.fail("S5", "%s of group %s at %s, but %s was answered before it was asked", what, r.group, r.at, r.floor)
	}
}

// unknown: a client hears that its write may have been done.
func (o *oracle) unknown(*call) { o.w.stats.Unknown++ }

// notDone: a client hears that its write was not done.
func (o *oracle) notDone(r *call) {
	o.w.stats.Refused++
	o.of(r.group).refused[r.op.id] = true
}

// read: the primary has answered a read.
func (o *oracle) read(p *primary, r *call) {
	w, l := o.w, o.of(r.group)
	o.covered(p)
	w.stats.Reads++
	p.c.noteAt("reads", r.at, 0)
	o.shown(l, r, "read")
	l.seen = append(l.seen, r.at)
	if l.best.Compare(r.at) < 0 {
		l.best = r.at
	}
}

// readLocal: a backup has answered; what it shows may be old, but it stays.
func (o *oracle) readLocal(c *copied, r *call) {
	o.w.stats.LocalReads++
	l := o.of(r.group)
	l.seen = append(l.seen, r.at)
}

// deletes: what is deleted is on every store's disk (S14).
func (o *oracle) deletes(c *copied, j *journal, n int) {
	g, own := o.w.raft.truth.Groups[c.group], c.state().Group
	o.keepsHeld(c, own, j.list[:n])
	for _, b := range j.list[:n] {
		if b.Facts == 0 {
			continue
		}
		inside := g.History.Contains(b.After()) // else this node has yet to hear of the branch that leaves it out
		o.of(c.group).gone[gone{c.n.id, b.After()}] = true
		for _, m := range o.w.nodes {
			dropped := own.IsDropped(m.id) // nothing is kept for it, as far as this node knows
			for _, other := range m.copies {
				if other.group != c.group {
					continue
				}
				if !dropped && inside && o.fork(c.group, g.History, other.flushed).History < b.After().History {
					o.w.fail("S14", "%s deletes %s, but the store of %s can fall back to %s", c, b.After(), m.id, other.flushed)
				}
			}
		}
	}
}

// cuts: no copy is cut below what both ends count as confirmed, since receivers are deleted by that (S24).
func (o *oracle) cuts(c *copied, j *journal, end ident.Sequence, source *journal) {
	if sure := min(core.CopyEnd(j.durable, j.confirmed), core.CopyEnd(source.durable, source.confirmed)); end < sure {
		o.w.fail("S24", "%s cuts its copy of journal %s after %s, %s was confirmed", c, j.author, end, sure)
	}
}

// look is done after every event: nobody answers beside somebody else (S6, S20).
func (o *oracle) look() {
	w := o.w
	for i, g := range w.groups {
		var holder *node
		for _, n := range w.nodes {
			if !n.up || n.kind != fsm.KindData {
				continue
			}
			group := n.state.Groups[g]
			if group == nil || group.Primary != n.id || !n.leases.Holds(n.boot(), g, group.Epoch) {
				continue
			}
			p := n.copies[i].primary
			if p != nil && (p.stopped || p.epoch != group.Epoch) {
				continue
			}
			if holder != nil {
				name := "S20"
				if q := holder.copies[i].primary; p != nil && p.serving && q != nil && q.serving {
					name = "S6"
				}
				w.fail(name, "%s at epoch %s and %s at epoch %s hold group %s at the same time", holder.id, holder.state.Groups[g].Epoch, n.id, group.Epoch, g)
			}
			holder = n
		}
	}
}

// final looks at the whole when everybody is level.
func (o *oracle) final() {
	w := o.w
	o.returned()
	for i, name := range w.groups {
		g, l := w.raft.truth.Groups[name], o.of(name)
		there := map[uint64]bool{}
		first := w.byID(g.Primary).copies[i]
		end := first.at
		if l.buried && first.lacks != "" && (first.primary == nil || !first.primary.serving) && !g.History.Contains(end) {
			continue // it cannot undo what it has, serves nobody, and waits to be primed
		}
		for p := end; !p.IsZero(); {
			f := l.ends[p]
			if f == nil || !g.History.Contains(p) {
				w.fail("S10", "the history of group %s ends in nothing at %s", name, p)
			}
			for _, x := range f.ops {
				there[x.id] = true
			}
			p = f.before
		}
		for _, a := range l.acks {
			if !there[a.op.id] || !g.History.Contains(a.at) || a.at.History > end.History {
				w.fail("S3", "write %d of group %s was acknowledged at %s and is lost: the history is %v up to %s", a.op.id, name, a.at, g.History, end)
			}
		}
		for _, p := range l.seen {
			if (!g.History.Contains(p) || p.History > end.History) && !l.mayLose(p) {
				w.fail("S3", "%s of group %s was shown to a reader and is lost: the history is %v up to %s", p, name, g.History, end)
			}
		}
		for id := range l.refused {
			if there[id] {
				w.fail("S4", "write %d of group %s was said to be not done and is there", id, name)
			}
		}
	}
	want, err := json.Marshal(w.raft.truth)
	if err != nil {
		w.fail("S28", "%v", err)
	}
	restored := new(fsm.State)
	if err := json.Unmarshal(want, restored); err != nil {
		w.fail("S28", "%v", err)
	}
	again, err := json.Marshal(restored)
	if err != nil || !bytes.Equal(want, again) {
		w.fail("S28", "a restored snapshot is another state")
	}
	for _, n := range w.nodes {
		if got, err := json.Marshal(n.state); err != nil || !bytes.Equal(want, got) {
			w.fail("S28", "%s has another state after %d commands", n.id, n.applied)
		}
	}
	for _, n := range w.nodes {
		w.note("ends", n.id, uint64(n.applied), uint64(n.life), 0)
	}
}
