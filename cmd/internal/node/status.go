package node

import (
	"context"
	"slices"
	"sort"
	"time"

	"github.com/understudy-ha/understudy/client"
	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/replica"
)

// askPrimary bounds how long a status waits for what only the primary knows.
const askPrimary = time.Second

// leaseReleased is the lease of a node whose life is over.
const leaseReleased = "released"

func (r roles) Status(ctx context.Context, local bool) (client.Status, error) {
	n := r.n
	st, _ := n.cluster.State()
	out := client.Status{Node: string(n.config.Node), Cluster: n.config.Cluster, ClusterID: string(n.cluster.ID()), RaftLeader: string(n.cluster.Leader()),
		Version: version(), Protocol: uint8(n.protocol), Knocking: n.knocking(), Started: n.started, Nodes: n.nodes(st), Groups: []client.GroupStatus{}, Planned: plannedGroups(st), Pause: pauseOf(st)}
	if n.config.Kind == fsm.KindData {
		out.Scrub = n.scrub.now()
	}
	out.LocalFiles = n.local.status()
	asked := map[string]*client.Status{} // by address: one question per primary
	ask := func(ctx context.Context, addr string) *client.Status {
		far, ok := asked[addr]
		if !ok && !local {
			far = n.ask(ctx, addr)
			asked[addr] = far
		}
		return far
	}
	for _, g := range st.InOrder() {
		out.Groups = append(out.Groups, n.completeStatus(ctx, st, g, ask))
	}
	n.doubt(st, out.Nodes, out.Groups)
	return out, nil
}

// completeStatus is a group as this node knows it, with what only the primary knows when ask, which may return nil, gets its answer.
func (n *Node) completeStatus(ctx context.Context, st *fsm.State, g *fsm.Group, ask func(ctx context.Context, addr string) *client.Status) client.GroupStatus {
	s := n.groupStatus(st, g)
	if p := st.Nodes[g.Primary]; s.Stale && p != nil && g.Phase == fsm.PhaseOpened && n.cluster.Alive(g.Primary) {
		s = complete(s, ask(ctx, p.Addresses.HTTP))
	}
	return s
}

// ask fetches the status another node can give by itself; nil when it does not answer.
func (n *Node) ask(ctx context.Context, addr string) *client.Status {
	ctx, cancel := context.WithTimeout(ctx, askPrimary)
	defer cancel()
	st, err := n.peers.at(addr).LocalStatus(ctx)
	if err != nil {
		n.log.Debug("primary did not answer for its status", "address", addr, "error", err)
		return nil
	}
	return &st
}

// complete takes what only the primary knows from its own answer.
func complete(s client.GroupStatus, far *client.Status) client.GroupStatus {
	if far == nil {
		return s
	}
	p, ok := far.Group(s.Name)
	if !ok || p.Epoch < s.Epoch || p.Stale {
		return s
	}
	p.Local, p.Archive, p.Replays, p.Scheduled = s.Local, s.Archive, s.Replays, s.Scheduled
	return p
}

func (r roles) Group(ctx context.Context, name string) (client.GroupStatus, error) {
	if _, _, err := r.n.group(name); err != nil {
		return client.GroupStatus{}, err
	}
	st, err := r.Status(ctx, false)
	if err != nil {
		return client.GroupStatus{}, err
	}
	g, _ := st.Group(name)
	return g, nil
}

func (r roles) Resync(ctx context.Context, name string) (client.Resync, error) {
	g, err := r.Group(ctx, name)
	if err != nil {
		return client.Resync{}, err
	}
	if rep := r.n.replicas.get(ident.GroupName(name)); rep != nil {
		if own := ownResync(rep.Status()); own != nil {
			return *own, nil
		}
	}
	if g.Resync != nil {
		return *g.Resync, nil
	}
	return client.Resync{Node: string(r.n.config.Node), Phase: client.ResyncInSync, From: g.Position, To: g.Position, At: g.Position, Percent: 100}, nil
}

func (n *Node) nodes(st *fsm.State) []client.NodeStatus {
	seen := map[ident.NodeID]struct {
		state   string
		contact time.Time
	}{}
	for _, m := range n.cluster.Members() {
		seen[m.Node] = struct {
			state   string
			contact time.Time
		}{string(m.State), m.LastContact}
	}
	out := make([]client.NodeStatus, 0, len(st.Nodes))
	for _, x := range st.Nodes {
		m := seen[x.ID]
		if m.state == "" {
			m.state = "dead"
		}
		lease := "held"
		switch {
		case x.Renewal == 0:
			lease = "none"
		case x.Released:
			lease = leaseReleased
		case !n.cluster.LeaseHeld(x.ID):
			lease = "expired"
		}
		out = append(out, client.NodeStatus{ID: string(x.ID), Kind: string(x.Kind), State: m.state, Lease: lease, Priority: x.Priority, Maintenance: orderOf(x.Maintenance), Leaving: x.Leaving && !x.Released,
			Incarnation: x.Incarnation.String(), LastContact: m.contact, HTTP: x.Addresses.HTTP, Gossip: x.Addresses.Gossip, Raft: x.Addresses.Raft, Ship: x.Addresses.Ship, Redis: x.Addresses.Redis})
	}
	sort.Slice(out, func(i, j int) bool { return out[i].ID < out[j].ID })
	return out
}

// groupStatus is a group as this node knows it. Stale is set when it is not the serving primary.
func (n *Node) groupStatus(st *fsm.State, g *fsm.Group) client.GroupStatus {
	out := client.GroupStatus{Name: string(g.Spec.Name), Spec: spec(g.Spec), Phase: string(g.Phase), Primary: string(g.Primary), Epoch: uint64(g.Epoch),
		InSync: []string{}, Roles: map[string]string{}, Targets: []client.Target{}, Stale: true}
	for _, m := range g.InSync {
		if m != g.Primary {
			out.InSync = append(out.InSync, string(m))
		}
	}
	for _, x := range st.Nodes {
		out.Roles[string(x.ID)] = fsm.Role(g, x)
	}
	if g.Operation != nil {
		op := operation(g.Operation)
		out.Operation = &op
	}
	if g.Scheduled != nil {
		op := operation(g.Scheduled)
		out.Scheduled = &op
	}
	out.SpecVersion, out.Dropped, out.Holds = g.SpecVersion, droppedNodes(g), holds(g)
	out.Closing = g.Closing != nil
	out.Archive, out.Replays = n.archiver.ofGroup(g.Spec.Name), n.replaysOf(g.Spec.Name)
	if g.Phase == fsm.PhaseFenced {
		out.Primary = ""
	}
	rep := n.replicas.get(g.Spec.Name)
	if rep == nil {
		if n.config.Kind == fsm.KindWitness {
			out.Local.Role = client.RoleWitness
		}
		if p, damaged := n.damages.of(g.Spec.Name); damaged {
			out.Local.Error = "closed, since a journal is damaged: " + p.Detail
		}
		return out
	}
	s := rep.Status()
	lease := n.cluster.CheckLease(g.Spec.Name, g.Epoch)
	out.Local = localCopy(g, s, out.Roles[string(n.config.Node)], lease, n.leases.copyLag(s, lease))
	out.Sequence, out.Confirmed, out.Committed, out.Applied = uint64(s.Sequence), uint64(s.ConfirmedSequence), uint64(s.CommittedSequence), uint64(s.AppliedSequence)
	out.Position = s.Applied.Format(g.Spec.Name)
	if s.Role != replica.RolePrimary {
		return out
	}
	out.Stale = false
	out.Held, out.Writes = s.HeldWrites, string(s.Writes)
	out.Full, out.Runway = s.Full(true), ownRunway(s)
	for _, t := range s.Targets {
		out.Targets = append(out.Targets, target(g.Spec.Name, t))
	}
	out.Resync = n.resyncs.follow(g, s)
	return out
}

func localCopy(g *fsm.Group, s replica.Status, role string, lease error, age float64) client.Copy {
	c := client.Copy{FedBy: string(s.FedBy), Role: role, Serving: s.Serving && lease == nil, Readable: s.Reconciled && !s.NeedsPriming, NeedsPriming: s.NeedsPriming || g.IsDropped(s.Node),
		Priming: s.Priming, Position: s.Applied.Format(g.Spec.Name), LagSeconds: age, Error: s.Error}
	for _, j := range s.Journals {
		if j.ID == s.Journal {
			c.Received = j.View.DurableAfter.Format(g.Spec.Name)
		}
	}
	for _, t := range s.Feeds {
		c.Feeds = append(c.Feeds, target(g.Spec.Name, t))
	}
	if s.Committed.History > s.Applied.History {
		c.LagEntries = uint64(s.Committed.History - s.Applied.History)
	}
	return c
}

// copyLag tells how old a copy may be, in seconds; -1 when that is not known. At the primary it is the time since its lease
// was last valid: another one may have taken over since. A primary whose takeover is not finished is as old as it was as backup.
func (l *leaseAges) copyLag(s replica.Status, lease error) float64 {
	if s.Role == replica.RolePrimary && s.Serving {
		return l.look(s.Group, lease)
	}
	return s.LagSeconds
}

// ownResync is what a backup says of its own way back; nil when it is level.
func ownResync(s replica.Status) *client.Resync {
	if s.Resync == nil || s.Role != replica.RoleBackup || s.Resync.Phase == replica.ResyncInSync {
		return nil
	}
	q := s.Resync
	return &client.Resync{Node: string(s.Node), Phase: string(q.Phase), From: q.From.Format(s.Group), To: q.To.Format(s.Group), At: q.At.Format(s.Group),
		Percent: q.Percent, Rate: q.Rate, ETA: q.ETA.Seconds(), Started: q.Started}
}

func spec(s fsm.GroupSpec) client.GroupSpec {
	return client.GroupSpec{Name: string(s.Name), Order: s.Order, Files: slices.Clone(s.Files), Preferred: string(s.Preferred), Delivery: string(s.Delivery), Secondaries: s.Secondaries,
		OnNoSync: s.OnNoSync, AutoFailover: s.AutoFailover, Images: s.Images, ReceiverBytes: s.ReceiverBytes, KeepReceivers: s.KeepReceivers,
		Compression: s.Compression, JournalReplays: s.JournalReplays,
		Switchback: s.Switchback, SwitchbackAfter: client.Duration(s.SwitchbackAfter),
		Blocks: s.Blocks, MaximumBlocks: s.MaximumBlocks, JournalFull: s.JournalFull, ReceiverAge: client.Duration(s.ReceiverAge),
		Feeds: feeds[string](s.Feeds), Keys: keysOf(s.Keys)}
}
