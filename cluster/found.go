package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/hashicorp/raft"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
)

// bootstrap writes the first Raft configuration, with this node as the only voter, and binds the directory to the new
// cluster. Raft has not run yet, so a crash in between is undone by the next start.
func (c *Cluster) bootstrap(conf *raft.Config, trans raft.Transport, id ident.ClusterID) error {
	first := raft.Configuration{Servers: []raft.Server{{
		Suffrage: raft.Voter, ID: conf.LocalID, Address: raft.ServerAddress(c.o.Addresses.Raft),
	}}}
	if err := raft.BootstrapCluster(conf, c.store.log, c.store.stable(), c.store.snaps, trans, first); err != nil {
		return fmt.Errorf("bootstrap raft: %w", err)
	}
	return c.o.Identity.SetClusterID(id)
}

// alone tells whether this node bootstraps and is still the only server: then founding may not have been finished.
func (c *Cluster) alone() (bool, error) {
	f := c.raft.GetConfiguration()
	if err := f.Error(); err != nil {
		return false, err
	}
	s := f.Configuration().Servers
	return c.o.Bootstrap && len(s) == 1 && s[0].ID == raft.ServerID(c.o.Directory), nil
}

// found makes the first entries of a new cluster: itself and this node. Each step is skipped when it was done already.
func (c *Cluster) found(ctx context.Context) error {
	err := c.must(ctx, fsm.Command{CreateCluster: &fsm.CreateCluster{Cluster: c.clusterID(), Name: c.o.Name}}, func(st *fsm.State) bool { return st.Cluster != "" })
	if err != nil {
		return fmt.Errorf("create cluster: %w", err)
	}
	reg := c.registration()
	err = c.must(ctx, fsm.Command{RegisterNode: &reg}, func(st *fsm.State) bool { return st.Nodes[reg.ID] != nil && registered(st.Nodes[reg.ID], reg) })
	if err != nil {
		return fmt.Errorf("register this node: %w", err)
	}
	return nil
}

// createGroups creates the configured groups. The lease must have been renewed, so that this life is known.
func (c *Cluster) createGroups(ctx context.Context) error {
	for {
		st, changed := c.board.read()
		if n := st.Nodes[c.o.Node]; n != nil && n.Incarnation == c.o.Incarnation {
			break
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("wait for the first lease: %w", ctx.Err())
		}
	}
	specs, err := c.planGroups(ctx)
	if err != nil {
		return err
	}
	var later []fsm.GroupSpec
	for _, spec := range specs {
		if spec.Preferred != c.o.Node {
			later = append(later, spec)
		} else if err := c.createGroup(ctx, spec); err != nil {
			return err
		}
	}
	if len(later) > 0 {
		c.spawn(func() { c.createLater(later) })
	}
	return nil
}

// planGroups plans all configured groups at once, before there is any, so that none takes records of another one that has to wait for
// its node. It returns them in the order in which they start.
func (c *Cluster) planGroups(ctx context.Context) ([]fsm.GroupSpec, error) {
	var specs, missing []fsm.GroupSpec
	st, _ := c.board.read()
	known := func(st *fsm.State, name ident.GroupName) bool {
		_, planned := st.Plan(name)
		_, deleted := st.Retirement(name)
		return planned || deleted || st.Groups[name] != nil
	}
	for _, spec := range c.o.Groups {
		if gone, deleted := st.Retirement(spec.Name); deleted {
			c.log.Info("a configured group was deleted, and is not created again", "group", spec.Name, "deleted", gone.At)
			continue
		}
		if spec.Preferred == "" {
			spec.Preferred = c.o.Node
		}
		spec = spec.Normalize()
		specs = append(specs, spec)
		if !known(st, spec.Name) {
			missing = append(missing, spec)
		}
	}
	slices.SortStableFunc(specs, func(a, b fsm.GroupSpec) int { return fsm.BySpec(&a, &b) })
	if len(missing) == 0 {
		return specs, nil
	}
	err := c.must(ctx, fsm.Command{PlanGroups: &fsm.PlanGroups{Specs: missing}}, func(st *fsm.State) bool {
		return !slices.ContainsFunc(missing, func(s fsm.GroupSpec) bool { return !known(st, s.Name) })
	})
	if err != nil {
		return nil, fmt.Errorf("plan the configured groups: %w", err)
	}
	return specs, nil
}

// createLater creates groups that prefer other nodes, once those have joined. If this node ends before, the groups are
// missing and an operator creates them.
func (c *Cluster) createLater(specs []fsm.GroupSpec) {
	for len(specs) > 0 && c.ctx.Err() == nil {
		st, changed := c.board.read() // once for all: who has just joined gets them in their order
		specs = slices.DeleteFunc(specs, func(spec fsm.GroupSpec) bool {
			if n := st.Nodes[spec.Preferred]; n == nil || n.Incarnation == 0 || n.Released {
				return false
			}
			err := c.createGroup(c.ctx, spec)
			if err != nil {
				c.log.Error("configured group not created: create it by hand", "group", spec.Name, "error", err)
			}
			return true
		})
		if len(specs) == 0 {
			return
		}
		select {
		case <-changed:
		case <-c.ctx.Done():
		}
	}
}

// createGroup creates one group, with the present life of its preferred node as primary.
func (c *Cluster) createGroup(ctx context.Context, spec fsm.GroupSpec) error {
	st, _ := c.board.read()
	cmd := fsm.Command{CreateGroup: &fsm.CreateGroup{Spec: spec.Normalize(), Planned: true}}
	if n := st.Nodes[spec.Preferred]; n != nil {
		cmd.CreateGroup.Incarnation = n.Incarnation
	}
	if err := c.must(ctx, cmd, func(st *fsm.State) bool { return st.Groups[spec.Name] != nil }); err != nil {
		return fmt.Errorf("create group %q: %w", spec.Name, err)
	}
	return nil
}

// must proposes cmd until the state shows it done.
func (c *Cluster) must(ctx context.Context, cmd fsm.Command, done func(*fsm.State) bool) error {
	for {
		if st, _ := c.board.read(); done(st) {
			return nil
		}
		res, err := c.Propose(ctx, cmd) // with a new id each time
		var unknown *UnknownOutcomeError
		switch {
		case (errors.As(err, &unknown) || errors.Is(err, ErrNoQuorum)) && ctx.Err() == nil:
			continue
		case err != nil:
			return err
		case res.Refused != "":
			if st, _ := c.board.read(); done(st) {
				return nil
			}
			return fmt.Errorf("refused: %s %s", res.Refused, res.Detail)
		}
	}
}
