package cluster

import (
	"context"
	"time"

	"github.com/hashicorp/raft"

	"github.com/understudy-ha/understudy/cluster/core"
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

// manage is the thin loop around core.Decide. Two may overlap when leadership comes and goes; their commands are
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
	seen := core.NewSightings()
	for ctx.Err() == nil {
		v, changed, wait := c.look(seen)
		failed := false
		for _, cmd := range core.Decide(v) {
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
func (c *Cluster) look(seen *core.Sightings) (core.View, <-chan struct{}, time.Duration) {
	st, changed := c.board.read()
	now := c.o.Host.Clock.Boot()
	wait := managerTick
	v := core.View{State: st, Now: c.o.Host.Clock.Now(), Dead: c.dead, Silent: c.silent, Groups: map[ident.GroupName]core.GroupView{}}
	patience := core.Patience{Lease: c.timing.Lease, Reports: c.timing.Reports, Takeover: c.timing.Takeover}
	for name, g := range st.Groups {
		_, rest, _ := c.leases.coverEnded(name)
		if rest > 0 {
			wait = min(wait, rest)
		}
		own := seen.Look(g, now, patience, rest)
		own.Evidence = seen.Against(g, st.Nodes[g.Primary], c.dead(g.Primary), rest, c.leases.seen(name), now, v.Now)
		own.Steady = seen.Steady(g, st.Nodes[g.Spec.Preferred], v.Returning(g), now)
		v.Groups[name] = own
	}
	return v, changed, max(wait, time.Millisecond)
}

// act proposes one decision. It tells whether the decision was applied.
func (c *Cluster) act(ctx context.Context, cmd fsm.Command) bool {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	res, err := c.Propose(ctx, cmd)
	switch {
	case ended(err):
		c.log.Debug("decision not applied: this node stops", "error", err)
	case err != nil:
		c.log.Warn("decision not applied", "error", err)
	case res.Refused != "":
		c.log.Debug("decision refused", "refused", res.Refused, "detail", res.Detail)
	case cmd.Fence != nil:
		c.log.Info("fenced", "group", cmd.Fence.Group, "epoch", res.Epoch, "reason", cmd.Fence.Reason, "evidence", cmd.Fence.Evidence)
	case cmd.Promote != nil:
		c.log.Info("promoted", "group", cmd.Promote.Group, "epoch", cmd.Promote.Epoch, "peer", cmd.Promote.To, "why", cmd.Promote.Why, "loss", cmd.Promote.Loss)
	case cmd.StartSwitch != nil && cmd.StartSwitch.Schedule != 0:
		c.log.Info("scheduled switch-over started", "group", cmd.StartSwitch.Group, "operation", res.Operation, "peer", cmd.StartSwitch.To)
	case cmd.DelaySchedule != nil:
		c.log.Warn("scheduled switch-over waits", "group", cmd.DelaySchedule.Group, "operation", cmd.DelaySchedule.Operation, "reason", cmd.DelaySchedule.Waits)
	case cmd.CancelSchedule != nil:
		c.log.Warn("scheduled switch-over given up", "group", cmd.CancelSchedule.Group, "operation", cmd.CancelSchedule.Operation, "reason", cmd.CancelSchedule.Reason)
	case cmd.StartSwitch != nil:
		c.log.Info("switch-back started", "group", cmd.StartSwitch.Group, "operation", res.Operation, "peer", cmd.StartSwitch.To)
	case cmd.CreateGroup != nil:
		c.log.Info("a planned group was created", "group", cmd.CreateGroup.Spec.Name, "peer", cmd.CreateGroup.Spec.Preferred)
	case cmd.DropClosing != nil:
		c.log.Warn("a group is not deleted", "group", cmd.DropClosing.Group, "reason", cmd.DropClosing.Reason)
	case cmd.SetPause != nil:
		c.log.Info("the pause is over: automatic actions may begin again")
	case cmd.SetMaintenance != nil:
		c.log.Info("the maintenance is over", "peer", cmd.SetMaintenance.Node)
	case cmd.AbortSwitch != nil:
		c.log.Info("switch-over aborted", "group", cmd.AbortSwitch.Group, "operation", cmd.AbortSwitch.Operation, "reason", cmd.AbortSwitch.Reason)
	}
	return err == nil && res.Refused == ""
}

// dead tells whether gossip has seen a node die, and its lease was not renewed since. A node never heard of is not dead: this
// node may have just started.
func (c *Cluster) dead(n ident.NodeID) bool {
	seen := c.gossip.state(n)
	return n != c.o.Node && seen.state == MemberDead && !c.leases.renewedSince(n, seen.lost)
}

// silent tells whether a node has not renewed its lease for as long as one lasts.
func (c *Cluster) silent(n ident.NodeID) bool { return n != c.o.Node && !c.leases.mayHold(n) }
