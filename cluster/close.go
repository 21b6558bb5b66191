package cluster

import (
	"context"
	"errors"
	"time"

	"github.com/hashicorp/raft"

	"github.com/understudy-ha/understudy/fsm"
)

const (
	releaseTimeout  = 500 * time.Millisecond
	transferTimeout = time.Second
)

// Close leaves the cluster in order: the lease is given up and released, so that others need not wait for its end, gossip
// hears of it, and Raft gets another leader. Role sessions must have ended. It returns the first real error.
func (c *Cluster) Close() error { return c.end(true) }

// Abandon ends everything at once, as a crash would: nobody is told.
func (c *Cluster) Abandon() error { return c.end(false) }

func (c *Cluster) end(orderly bool) error {
	c.closing.Do(func() { c.closed = c.shut(orderly) })
	return c.closed
}

// shut closes in this order: leases and renewals first, so that nothing is served or renewed after the release; Raft
// before the port, which carries it, and before the store, whose loss it does not survive.
func (c *Cluster) shut(orderly bool) error {
	c.leases.drop()
	c.renewal()
	if orderly && c.raft != nil {
		c.release()
		c.handLeadership()
	}
	c.spawned.Lock()
	c.cancel()
	c.spawned.Unlock()
	var errs []error
	if c.gossip != nil {
		errs = append(errs, c.gossip.close(orderly))
	}
	if c.raft != nil {
		errs = append(errs, c.raft.Shutdown().Error())
		c.trans.drain()
	}
	errs = append(errs, c.port.close())
	c.work.Wait()
	if c.store != nil {
		errs = append(errs, c.store.close())
	}
	return errors.Join(errs...)
}

// release tells the others that this life is over. A renewal still under way is refused after it.
func (c *Cluster) release() {
	if addr, _ := c.raft.LeaderWithID(); addr == "" {
		return // nobody to tell
	}
	ctx, cancel := context.WithTimeout(c.ctx, releaseTimeout)
	defer cancel()
	_, err := c.Propose(ctx, fsm.Command{Release: &fsm.Release{Node: c.o.Node, Incarnation: c.o.Incarnation}})
	if err != nil {
		c.log.Debug("lease not released, it runs out", "error", err)
	}
}

// handLeadership spares the others an election.
func (c *Cluster) handLeadership() {
	if c.raft.State() != raft.Leader {
		return
	}
	f := c.raft.GetConfiguration()
	if f.Error() != nil || len(f.Configuration().Servers) < 2 {
		return
	}
	done := make(chan error, 1)
	c.spawn(func() { done <- c.raft.LeadershipTransfer().Error() })
	select {
	case err := <-done:
		if err != nil {
			c.log.Debug("leadership not handed on", "error", err)
		}
	case <-time.After(transferTimeout):
	}
}
