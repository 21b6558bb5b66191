package cluster

import (
	"context"
	"errors"
	"time"

	"github.com/understudy-ha/understudy/fsm"
)

// renew keeps this life's lease alive. The lease itself is counted where the command is applied, so an attempt whose
// answer is late or lost still counts from its own clock reading, if it was committed. It ends with the life.
func (c *Cluster) renew(ctx context.Context) {
	failing := false
	var unseen uint64 // see blind
	var number uint64 // of the last renewal of this life
	for ctx.Err() == nil {
		began := time.Now()
		if blind(c.board, unseen) {
			c.await(ctx, unseen)
			continue
		}
		number++
		refused, err := c.renewOnce(ctx, number)
		var unknown *UnknownOutcomeError
		if errors.As(err, &unknown) {
			unseen = max(unseen, unknown.Unseen)
		}
		if ctx.Err() != nil {
			return
		}
		if refused == fsm.RefusedIncarnation {
			// Nothing brings it back: a renewal of a shorter life may have been on its way for longer than this one's first.
			st, _ := c.board.read()
			if n := st.Nodes[c.o.Node]; n != nil && n.Incarnation > c.o.Incarnation {
				c.fatal(&LifeOverError{Life: c.o.Incarnation, Latest: n.Incarnation})
			} else {
				c.fatal(ErrLifeOver)
			}
			return
		}
		switch bad := err != nil || refused != ""; {
		case bad && !failing:
			c.log.Warn("lease not renewed", "refused", refused, "error", err, "remaining", c.leases.remaining())
			failing = true
		case !bad && failing:
			c.log.Info("lease renewed again")
			failing = false
		}
		select {
		case <-time.After(c.timing.Renew - time.Since(began)):
		case <-c.hurry: // a role was given to this node, which can do nothing without a lease on it
		case <-ctx.Done():
		}
	}
}

// blind tells whether a renewal was applied by the leader and is not visible here, because this node's own Raft has stopped: its
// disk is full, or failed. Such a renewal covers the node everywhere but here: it keeps the others from taking over a role that
// this node, without a lease by its own count, cannot hold. So the node asks for no more of them until it sees that one.
func blind(b *board, unseen uint64) bool {
	st, _ := b.read()
	return st.Applied < unseen
}

// await returns when the state here has counted that far.
func (c *Cluster) await(ctx context.Context, unseen uint64) {
	c.log.Warn("the state here has stopped: the lease is not renewed until it goes on", "applied_by_leader", unseen)
	for {
		st, changed := c.board.read()
		if st.Applied >= unseen {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// renewOnce sends one renewal. What it tells is read after its number was taken, so that a higher number tells newer figures.
func (c *Cluster) renewOnce(ctx context.Context, number uint64) (refused string, err error) {
	if err := c.o.Host.Failpoint("cluster.renew:" + string(c.o.Node)); err != nil {
		return "", err
	}
	cmd := fsm.Command{ID: c.o.Host.Random(), Renew: &fsm.Renew{Node: c.o.Node, Directory: c.o.Directory, Incarnation: c.o.Incarnation, Number: number}}
	if c.o.Flushed != nil {
		cmd.Renew.Flushed = c.o.Flushed()
	}
	if c.o.Copies != nil {
		cmd.Renew.Copies = c.o.Copies()
	}
	// A new attempt has a newer clock reading, so it is not worth waiting long for an old one.
	ctx, cancel := context.WithTimeout(ctx, c.timing.Lease/2)
	defer cancel()
	c.leases.begin(cmd.ID)
	res, err := c.Propose(ctx, cmd)
	return res.Refused, err
}

// observe is told every applied command, on Raft's goroutine. Leases are counted before the state is published, so whoever
// sees the new state sees what it did to the leases.
func (c *Cluster) observe(_ uint64, cmd fsm.Command, res fsm.Result, st *fsm.State) {
	c.leases.observe(cmd, res, st)
	c.board.applied(cmd.ID, res, st)
	if res.Refused != "" || cmd.CreateGroup == nil && cmd.Promote == nil && cmd.Handover == nil {
		return
	}
	for _, g := range st.Groups {
		if g.Holds(c.o.Node, c.o.Incarnation) && !c.leases.holds(g.Spec.Name, g.Epoch) {
			select {
			case c.hurry <- struct{}{}:
			default:
			}
			return
		}
	}
}

// restored is told that a snapshot replaced the state.
func (c *Cluster) restored(st *fsm.State) {
	c.leases.restored(st)
	c.board.publish(st)
}
