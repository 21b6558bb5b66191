package node

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/replica/core"
)

const (
	announceLimit = 2 * time.Second        // a node that is being stopped tells it within this, or stops without
	leaveTick     = 100 * time.Millisecond // how often it looks who lives; changes of the state wake it
)

// Leave prepares a stop in good order, until ctx ends: it announces the stop, hands this node's primary roles over, and waits
// until their primaries have taken it out of the in-sync sets, so that no write waits for it when it has gone. It returns how
// many roles were handed over. The node must be closed afterwards: this life is in no set any more.
func (n *Node) Leave(ctx context.Context) (moved int) {
	told := n.announceStop(ctx)
	moved = n.HandOver(ctx)
	if told {
		moved += n.depart(ctx)
	}
	return moved
}

// announceStop tells the others that this life is about to end. Where nobody is there to hear it, it is not told.
func (n *Node) announceStop(ctx context.Context) bool {
	st, _ := n.cluster.State()
	if n.config.Kind != fsm.KindData || !slices.ContainsFunc(n.others(st), func(x *fsm.Node) bool { return n.cluster.Alive(x.ID) }) {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, announceLimit)
	defer cancel()
	if _, err := n.propose(ctx, fsm.Command{Leave: &fsm.Leave{Node: n.config.Node, Incarnation: n.directory.life}}); err != nil {
		n.log.Warn("the stop is not announced: writes may wait until the others miss this node", "error", err)
		return false
	}
	return true
}

// allStop tells whether the whole cluster is being stopped: every other data node announced the end of its last life.
func (n *Node) allStop() bool {
	st, _ := n.cluster.State()
	others := n.others(st)
	return len(others) > 0 && !slices.ContainsFunc(others, func(x *fsm.Node) bool { return !x.IsLeaving() })
}

// others are the other data nodes.
func (n *Node) others(st *fsm.State) []*fsm.Node {
	var out []*fsm.Node
	for id, x := range st.Nodes {
		if id != n.config.Node && x.Kind == fsm.KindData {
			out = append(out, x)
		}
	}
	return out
}

// depart waits until this node is in no in-sync set whose primary could still take it out. A role that came meanwhile is handed
// over, once.
func (n *Node) depart(ctx context.Context) (moved int) {
	tried := map[ident.GroupName]ident.Epoch{}
	for _, g := range n.ownGroups() {
		tried[g] = n.epochOf(g) // HandOver has said why it stays
	}
	tick := time.NewTicker(leaveTick)
	defer tick.Stop()
	for {
		st, changed := n.cluster.State()
		came := slices.ContainsFunc(n.ownGroups(), func(g ident.GroupName) bool { return st.Groups[g] != nil && tried[g] != st.Groups[g].Epoch })
		if came {
			for _, g := range n.ownGroups() {
				tried[g] = n.epochOf(g)
			}
			moved += n.HandOver(ctx)
			continue
		}
		p := partings(st, n.config.Node, func(id ident.NodeID) bool { return n.cluster.Alive(id) || n.cluster.LeaseHeld(id) }) // gossip may be wrong
		if len(p.wait) == 0 {
			n.tellParting(st, p, false)
			return moved
		}
		select {
		case <-changed:
		case <-tick.C:
		case <-ctx.Done():
			n.tellParting(st, p, true)
			return moved
		}
	}
}

func (n *Node) epochOf(g ident.GroupName) ident.Epoch {
	st, _ := n.cluster.State()
	if st.Groups[g] == nil {
		return 0
	}
	return st.Groups[g].Epoch
}

// parting says how a node that is being stopped stands to the groups of others, each list in order of their names.
type parting struct {
	wait  []ident.GroupName // its primary is still going to take it out of the set
	last  []ident.GroupName // it is the last secondary and nobody can take its place: under hold and refuse it stays in the set
	alone []ident.GroupName // it is out, and the primary has no secondary left
}

// partings judges all groups. alive is what the failure detector says of other nodes.
func partings(st *fsm.State, self ident.NodeID, alive func(ident.NodeID) bool) parting {
	var p parting
	for name, g := range st.Groups {
		switch {
		case g.Primary == self && g.Phase != fsm.PhaseFenced || g.Spec.Delivery == fsm.DeliveryAsync:
		case g.Phase == fsm.PhaseOpened && !(st.Nodes[g.Primary].Lives(g.Incarnation) && alive(g.Primary)): // nobody is there to take it out
		case !g.InSet(self):
			if g.Phase == fsm.PhaseOpened && len(g.InSync) == 1 {
				p.alone = append(p.alone, name)
			}
		case core.Protects(g) && !replaceable(st, g, self, alive):
			p.last = append(p.last, name)
		default:
			p.wait = append(p.wait, name)
		}
	}
	for _, list := range [][]ident.GroupName{p.wait, p.last, p.alone} {
		slices.SortFunc(list, func(a, b ident.GroupName) int { return cmp.Compare(a, b) })
	}
	return p
}

// replaceable tells whether another node is in the set beside the primary, or may come into it.
func replaceable(st *fsm.State, g *fsm.Group, self ident.NodeID, alive func(ident.NodeID) bool) bool {
	for id, x := range st.Nodes {
		switch {
		case id == self || id == g.Primary || x.Kind != fsm.KindData || !alive(id):
		case g.InSet(id):
			return true
		case !x.IsLeaving() && !x.InMaintenance() && !g.IsDropped(id) && st.Pause.MayJoin(g, id):
			return true
		}
	}
	return false
}

// tellParting warns of what the stop of this node leaves behind.
func (n *Node) tellParting(st *fsm.State, p parting, late bool) {
	severity := "warning"
	if n.allStop() {
		severity = "info"
	}
	warn := func(groups []ident.GroupName, kind, format string) {
		for _, g := range groups {
			n.events.add(severity, string(g), kind, fmt.Sprintf(format, n.config.Node, g), map[string]string{"on_no_sync": st.Groups[g].Spec.OnNoSync})
		}
	}
	if late {
		warn(p.wait, "STILL_IN_SYNC", "%s stops while it is in the in-sync set of group %s: writes wait until its primary has taken it out, or, under on_no_sync hold and refuse, until a secondary is back")
	}
	warn(p.last, "LAST_SECONDARY_STOPS", "%s stops as the last in-sync secondary of group %s, and no other node can take its place: writes are held or refused until one is back, as on_no_sync asks")
	warn(p.alone, "LAST_SECONDARY_STOPS", "%s stops, and no other node is an in-sync secondary of group %s: its primary goes on alone, as on_no_sync allows")
}
