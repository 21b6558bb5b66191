package cluster

import (
	"context"
	"time"

	"github.com/hashicorp/raft"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
)

// managerTick is how long the manager sleeps at most; what it waits for usually wakes it earlier.
const managerTick = 100 * time.Millisecond

// lead follows Raft's notices of leadership and runs the manager while this node leads. It always drains notices: Raft
// blocks when nobody reads them.
func (c *Cluster) lead(notices <-chan bool) {
	stop := func() {}
	for {
		select {
		case leads := <-notices:
			stop()
			stop = func() {}
			if leads {
				var ctx context.Context
				ctx, stop = context.WithCancel(c.ctx)
				c.spawn(func() { c.manage(ctx) })
			}
		case <-c.ctx.Done():
			stop()
			return
		}
	}
}

// manager is the memory of the leader's loop: when it first saw what it waits for, by its own clock.
type manager struct {
	stages  map[ident.GroupName]sighting // the present stage: an epoch, before or after somebody was chosen for it
	reports map[ident.GroupName]sighting // the first report of the present fence
}

type sighting struct {
	epoch  ident.Epoch
	chosen bool
	at     time.Duration
}

// see returns for how long the group has been in its present stage. A promotion begins a new one: covers have ended by
// then, and whom it chose had no reason yet to renew for this group.
func (m *manager) see(g *fsm.Group, now time.Duration) time.Duration {
	s := sighting{epoch: g.Epoch, chosen: g.Phase != fsm.PhaseFenced, at: now}
	if have, ok := m.stages[g.Spec.Name]; ok && have.epoch == s.epoch && have.chosen == s.chosen {
		return now - have.at
	}
	m.stages[g.Spec.Name] = s
	return 0
}

// manage is the thin loop around decide. Two may overlap when leadership comes and goes; their commands are
// compare-and-set.
func (c *Cluster) manage(ctx context.Context) {
	for {
		err := c.raft.Barrier(settle).Error() // the state has to be up to date before it is acted upon
		if err == nil {
			break
		}
		if ctx.Err() != nil || c.raft.State() != raft.Leader {
			return
		}
		c.log.Debug("barrier of a new leader failed", "error", err)
	}
	c.log.Info("manages the cluster")
	m := manager{stages: map[ident.GroupName]sighting{}, reports: map[ident.GroupName]sighting{}}
	for ctx.Err() == nil {
		v, changed, wait := c.look(&m)
		failed := false
		for _, cmd := range decide(v) {
			failed = !c.act(ctx, cmd) || failed
		}
		if failed { // a refusal counts as a change of the state: do not let it wake the loop at once
			changed = nil
			wait = managerTick
		}
		select {
		case <-changed:
		case <-c.gossip.kick:
		case <-time.After(wait):
		case <-ctx.Done():
		}
	}
}

// look takes in what there is to decide from, and when to look again.
func (c *Cluster) look(m *manager) (view, <-chan struct{}, time.Duration) {
	st, changed := c.board.read()
	now := c.o.Host.Clock.Boot()
	wait := managerTick
	v := view{state: st, now: c.o.Host.Clock.Now(), dead: c.dead, silent: c.silent, groups: map[ident.GroupName]groupView{}}
	for name, g := range st.Groups {
		age := m.see(g, now)
		own := groupView{fresh: age < c.timing.Lease, stuck: age >= c.timing.Takeover}
		if g.Phase == fsm.PhaseFenced && len(g.Reports) > 0 {
			first := m.reports[name]
			if first.epoch != g.Epoch {
				first = sighting{epoch: g.Epoch, at: now}
				m.reports[name] = first
			}
			own.waited = now-first.at >= c.timing.Reports
		}
		over, rest, _ := c.leases.coverEnded(name)
		own.covered = !over
		if !over {
			wait = min(wait, rest)
		}
		v.groups[name] = own
	}
	return v, changed, max(wait, time.Millisecond)
}

// act proposes one decision. It tells whether the decision was applied.
func (c *Cluster) act(ctx context.Context, cmd fsm.Command) bool {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	res, err := c.Propose(ctx, cmd)
	switch {
	case err != nil:
		c.log.Warn("decision not applied", "error", err)
	case res.Refused != "":
		c.log.Debug("decision refused", "refused", res.Refused, "detail", res.Detail)
	case cmd.Fence != nil:
		c.log.Info("fenced", "group", cmd.Fence.Group, "epoch", res.Epoch, "reason", cmd.Fence.Reason)
	case cmd.Promote != nil:
		c.log.Info("promoted", "group", cmd.Promote.Group, "epoch", cmd.Promote.Epoch, "peer", cmd.Promote.To, "loss", cmd.Promote.Loss)
	case cmd.AbortSwitch != nil:
		c.log.Info("switch-over aborted", "group", cmd.AbortSwitch.Group, "operation", cmd.AbortSwitch.Operation, "reason", cmd.AbortSwitch.Reason)
	}
	return err == nil && res.Refused == ""
}

// dead tells whether gossip has seen a node die. A node never heard of is not dead: this node may have just started.
func (c *Cluster) dead(n ident.NodeID) bool {
	return n != c.o.Node && c.gossip.state(n).state == MemberDead
}

// silent tells whether a node has not renewed its lease for as long as one lasts.
func (c *Cluster) silent(n ident.NodeID) bool { return n != c.o.Node && !c.leases.mayHold(n) }
