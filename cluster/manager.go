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
	epochs  map[ident.GroupName]sighting // the present epoch
	reports map[ident.GroupName]sighting // the first report of the present fence
}

type sighting struct {
	epoch ident.Epoch
	at    time.Duration
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
	m := manager{epochs: map[ident.GroupName]sighting{}, reports: map[ident.GroupName]sighting{}}
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
	v := view{state: st, now: c.o.Host.Clock.Now(), dead: c.dead, groups: map[ident.GroupName]groupView{}}
	for name, g := range st.Groups {
		seen := m.epochs[name]
		if seen.epoch != g.Epoch || seen.at == 0 {
			seen = sighting{epoch: g.Epoch, at: now}
			m.epochs[name] = seen
		}
		var own groupView
		own.fresh = now-seen.at < c.timing.Lease
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
