package simulation

import (
	"slices"
	"time"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/replica/core"
)

// A receiver counts as one MiB, so that caps of a few MiB are reached within a schedule.
const (
	receiverBytes = fsm.BlockBytes
	bundleBytes   = receiverBytes / receiverBundles
	dropAfter     = 250 * ms
)

// bytes is what the journal takes.
func (j *journal) bytes() int64 { return int64(len(j.list)) * bundleBytes }

// full tells whether the journal has no room for another bundle with facts.
func (j *journal) full(spec fsm.GroupSpec) bool {
	limit := core.Cap(spec, j.author == j.c.n.id)
	return limit > 0 && j.bytes()+bundleBytes > limit
}

// detached lists the sizes of the detached receivers, oldest first.
func (j *journal) detached() []int64 {
	return slices.Repeat([]int64{receiverBytes}, max(0, len(j.list)/receiverBundles-1))
}

// retain deletes receivers that nobody needs.
func (c *copied) retain(a fsm.Assignment) {
	g, w := a.Group, c.n.w
	if g.Phase != fsm.PhaseOpened || g.IsDropped(a.Self) || g.Spec.KeepReceivers < 0 && g.Spec.MaximumBlocks == 0 {
		return
	}
	c.flushUndo(g)
	flushed, ok := core.LowestFlushed(a, c.flushed)
	settled := !c.undo.Settle(g.History, c.flushed)
	for _, j := range c.journals {
		if j == nil {
			continue
		}
		end := core.LowestCopy(a, j.author)
		n, surplus := 0, core.Surplus(g.Spec, j.detached(), j.bytes())
		for n < surplus {
			first, last := j.list[n*receiverBundles].First, j.list[(n+1)*receiverBundles-1].Last()
			if last > end || last > j.durable || !settled {
				break
			}
			if !ok || !core.Unneeded(g.History, flushed, j.spans(), first, last) {
				if c.heldOnly(a, j, first, last) {
					w.stats.KeptForHolds++
				}
				break
			}
			n++
		}
		if n == 0 {
			continue
		}
		count := n * receiverBundles
		w.oracle.deletes(c, j, count)
		w.stats.Deleted += uint64(n)
		b := j.list[count-1]
		c.note("deletes", uint64(j.list[0].First), uint64(b.Last()), uint64(j.author[0]))
		j.base, j.baseAt, j.baseChain = b.Last(), b.After(), b.chain
		j.list, j.fresh = j.list[count:], false
	}
}

// heldOnly tells whether nothing but a consumer's hold keeps a receiver.
func (c *copied) heldOnly(a fsm.Assignment, j *journal, first, last ident.Sequence) bool {
	if len(a.Group.Consumers) == 0 {
		return false
	}
	free := *a.Group
	free.Consumers = nil
	a.Group = &free
	flushed, ok := core.LowestFlushed(a, c.flushed)
	return ok && core.Unneeded(free.History, flushed, j.spans(), first, last)
}

// squeeze drops the absent node that the oldest receiver of a full journal is kept for.
func (p *primary) squeeze(a fsm.Assignment) {
	c, j := p.c, p.c.own()
	if p.proposing || !p.serving || !j.full(a.Group.Spec) && !p.crowded() || len(j.detached()) == 0 {
		return
	}
	node, _ := core.DecideDrop(a, core.OldestReceiver{
		Author: c.n.id, First: j.list[0].First, Last: j.list[receiverBundles-1].Last(), Runs: j.spans(), Flushed: c.flushed,
	}, func(n ident.NodeID) bool {
		return !p.roster.IsGrowing(n) && p.roster.Absent(n, c.n.boot()) >= dropAfter
	})
	if node == "" {
		return
	}
	c.note("drops", uint64(node[0]), uint64(p.epoch), 0)
	p.propose(fsm.Command{Drop: &fsm.Drop{Group: c.group, Epoch: p.epoch, Node: node, Reason: "full"}}, func(fsm.Result, error) {})
}

// crowded tells whether a copy of the own journal takes nothing for want of room.
func (p *primary) crowded() bool {
	return slices.ContainsFunc(p.ways, func(s *source) bool { return s.full && s.j == p.c.own() })
}

// readmit asks the primary to take a drop back. It refuses when the node's copies, by what it told last, do not connect any more.
func (w *world) readmit(name ident.GroupName) {
	g := w.raft.truth.Groups[name]
	if len(g.Dropped) == 0 {
		return
	}
	id := g.Dropped[w.rng.IntN(len(g.Dropped))].Node
	n := w.byID(g.Primary)
	c := n.copyOf(name)
	if c == nil || n.paused() || c.primary == nil || !c.primary.serving {
		return
	}
	a := c.state()
	if !a.Group.IsDropped(id) || a.Group.Phase != fsm.PhaseOpened || a.Group.Primary != n.id {
		return
	}
	if !c.connects(a, id) {
		w.stats.ReadmitsRefused++
		c.note("refuses to readmit", uint64(id[0]), 0, 0)
		return
	}
	n.propose(fsm.Command{Readmit: &fsm.Readmit{Group: name, Epoch: a.Group.Epoch, Node: id, By: "asked"}}, func(fsm.Result, error) {})
}

// buries tells whether dropped nodes are likely in this world, and are given the role. The other worlds stay what they were.
func (w *world) buries() bool { return w.seed%8 == 2 }

// bury gives the role to a node that was dropped, when nobody has readmitted it: what the others have to undo for it may be deleted.
func (w *world) bury(name ident.GroupName, id ident.NodeID) {
	if g := w.raft.truth.Groups[name]; g.IsDropped(id) && !w.healed {
		w.stats.Buried++
		w.order(fsm.Command{Fence: &fsm.Fence{Group: name, Epoch: g.Epoch, Force: true, To: id, AllowLoss: true, Reason: "forced"}})
	}
}

// connects is what a primary knows of a node's copies.
func (c *copied) connects(a fsm.Assignment, id ident.NodeID) bool {
	n := a.Nodes[id]
	for _, j := range c.journals {
		if j != nil && j.author != id && j.base > 0 && n.Copies[c.group][j.author] < j.base {
			return false
		}
	}
	return a.Group.History.Contains(n.Flushed[c.group])
}

// consume is what a reader of the journal does: it sets a hold, moves it, or gives it up.
func (w *world) consume() {
	g := w.raft.truth.Groups[w.groups[w.rng.IntN(len(w.groups))]]
	name := []string{"x", "y"}[w.rng.IntN(2)]
	h, found := g.Hold(name)
	if found && w.chance(0.25) {
		id := w.id()
		w.released[id] = true
		w.order(fsm.Command{ID: id, RemoveHold: &fsm.RemoveHold{Group: g.Spec.Name, Name: name, Version: h.Version}})
		return
	}
	set := fsm.SetHold{Group: g.Spec.Name, Name: name, Version: h.Version, Until: w.clock(w.between(100*ms, 2*time.Second))}
	if acks := w.oracle.of(g.Spec.Name).acks; len(acks) > 0 && w.chance(0.9) {
		set.Position = acks[max(0, len(acks)-1-w.rng.IntN(40))].at
	}
	w.order(fsm.Command{SetHold: &set})
}

// clock is the time of day, d from now.
func (w *world) clock(d time.Duration) time.Time { return time.Unix(0, int64(w.now+d)) }

// patch changes one or two keys of a group.
func (w *world) patch() {
	g := w.raft.truth.Groups[w.groups[w.rng.IntN(len(w.groups))]]
	to := g.Spec
	for range 1 + w.rng.IntN(2) {
		w.vary(&to)
	}
	w.order(fsm.Command{ChangeSpec: &fsm.ChangeSpec{Group: g.Spec.Name, Version: g.SpecVersion, Spec: to, By: "asked"}})
}

// vary gives one key another value.
func (w *world) vary(s *fsm.GroupSpec) {
	switch w.rng.IntN(8) {
	case 0, 1, 2:
		if s.Delivery == fsm.DeliveryAsync {
			s.Delivery = fsm.DeliverySync
		} else {
			s.Delivery = fsm.DeliveryAsync
		}
	case 3:
		s.Secondaries = 3 - min(s.Secondaries, 2)
	case 4:
		s.OnNoSync = []string{fsm.NoSyncDegrade, fsm.NoSyncHold, fsm.NoSyncRefuse}[w.rng.IntN(3)]
	case 5:
		s.Images = []string{fsm.ImagesAuto, fsm.ImagesBoth, fsm.ImagesAfter}[w.rng.IntN(3)]
	case 6:
		w.bound(s)
	case 7:
		if s.AutoFailover == fsm.FailoverOff {
			s.AutoFailover = fsm.FailoverLossless
		} else {
			s.AutoFailover = fsm.FailoverOff
		}
	}
}

// bound gives the journals of a group a cap, or none, and says what happens there.
func (w *world) bound(s *fsm.GroupSpec) {
	s.MaximumBlocks = []int{0, 5, 6, 6, 9}[w.rng.IntN(5)]
	s.JournalFull = []string{"", fsm.JournalFullDrop, fsm.JournalFullDrop}[w.rng.IntN(3)]
}

// alone tells whether nobody but the primary takes part in a group: all others were dropped and do not connect any more.
func (w *world) alone(i int, g *fsm.Group) bool {
	return !slices.ContainsFunc(w.nodes, func(n *node) bool {
		return n.kind == fsm.KindData && n.id != g.Primary && !g.IsDropped(n.id) && !n.copies[i].stranded() && !w.crowdedOut(i, g, n.copies[i])
	})
}

// lost tells whether a group waits for an operator who primes nodes: the role was given to a dropped one, nothing was kept for that,
// and so those who would follow cannot.
func (w *world) lost() bool {
	return slices.ContainsFunc(w.groups, func(name ident.GroupName) bool {
		g := w.raft.truth.Groups[name]
		if !w.oracle.of(name).buried {
			return false
		}
		if c := w.byID(g.Primary).copyOf(name); c != nil && c.lacks != "" {
			return true
		}
		return g.Phase != fsm.PhaseOpened && !slices.ContainsFunc(g.InSync, func(id ident.NodeID) bool {
			r, told := g.ReportOf(id)
			return !told || r.Unable == ""
		})
	})
}
