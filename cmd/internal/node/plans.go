package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/understudy-ha/understudy/client"
	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
)

// Bounds of a request that creates a group.
const (
	planLimit   = 10 * time.Second // from the request to the group, else the plan is given up
	giveUpLimit = 5 * time.Second  // what giving up may take on top
)

// createPlanned plans a group, waits until nobody holds records of it, and creates it, all within planLimit.
func (n *Node) createPlanned(ctx context.Context, spec fsm.GroupSpec) error {
	ctx, cancel := context.WithTimeout(ctx, planLimit)
	defer cancel()
	if st, _ := n.cluster.State(); st.Groups[spec.Name] == nil {
		if why := n.absent(st, spec.Preferred); why != "" {
			if _, planned := st.Plan(spec.Name); planned {
				return waitsFor(spec, why)
			}
			return &client.Error{Code: client.CodePrecondition, Detail: fmt.Sprintf("group %s was not created: %s, and it would have no primary", spec.Name, why),
				Reason: fsm.RefusedIncarnation, Remedy: fmt.Sprintf("start node %s, or prefer another one, and ask again", spec.Preferred)}
		}
		if _, err := n.propose(ctx, fsm.Command{PlanGroups: &fsm.PlanGroups{Specs: []fsm.GroupSpec{spec}}}); err != nil {
			return err
		}
		if err := n.awaitPlan(ctx, spec.Name); err != nil {
			return err
		}
	}
	st, _ := n.cluster.State()
	var life ident.Incarnation // of now: the node may have restarted meanwhile
	if p := st.Nodes[spec.Preferred]; p != nil {
		life = p.Incarnation
	}
	if why := n.absent(st, spec.Preferred); why != "" && st.Groups[spec.Name] == nil {
		return waitsFor(spec, why)
	}
	_, err := n.propose(ctx, fsm.Command{CreateGroup: &fsm.CreateGroup{Spec: spec, Incarnation: life, Planned: true}})
	var e *client.Error
	if errors.As(err, &e) && e.Reason == fsm.RefusedIncarnation {
		return waitsFor(spec, e.Detail)
	}
	return err
}

// absent says why a node cannot be a group's first primary now; "" when it can, as far as is known here.
func (n *Node) absent(st *fsm.State, id ident.NodeID) string {
	switch p := st.Nodes[id]; {
	case p == nil:
		return fmt.Sprintf("node %s, which it prefers, is not registered", id)
	case p.Renewal == 0:
		return fmt.Sprintf("node %s, which it prefers, never had a lease", id)
	case p.Released:
		return fmt.Sprintf("node %s, which it prefers, is stopped", id)
	case !n.cluster.LeaseHeld(id):
		return fmt.Sprintf("node %s, which it prefers, is down: its lease has expired", id)
	}
	return ""
}

// waitsFor says that a plan stays, since all have answered it, and the node that it prefers is gone.
func waitsFor(spec fsm.GroupSpec, why string) error {
	return &client.Error{Code: client.CodePrecondition, Detail: fmt.Sprintf("group %s is planned, and its records wait: %s", spec.Name, why),
		Reason: fsm.RefusedIncarnation, Remedy: fmt.Sprintf("start node %s, or ask again with the same files and keys and another preferred node: it goes on from there", spec.Preferred)}
}

// awaitPlan waits until a planned group may be created, and gives the plan up when ctx ends before.
func (n *Node) awaitPlan(ctx context.Context, name ident.GroupName) error {
	st, changed := n.cluster.State()
	p, planned := st.Plan(name)
	for planned && len(p.Ask) > 0 {
		select {
		case <-changed:
		case <-ctx.Done():
			return n.giveUp(ctx, p, context.Cause(ctx))
		}
		id := p.ID
		st, changed = n.cluster.State()
		if p, planned = st.Plan(name); planned && p.ID == id || st.Groups[name] != nil {
			continue
		}
		return &client.Error{Code: client.CodeExists, Detail: fmt.Sprintf("group %s was not created: %s", name, st.WhyDeclined(id)),
			Remedy: "delete those records, or copy them elsewhere, create the group, and write them again; or choose patterns and keys that leave them where they are"}
	}
	return nil
}

// giveUp drops a plan whose groups have not answered in time, so that its records are not kept from everybody.
func (n *Node) giveUp(ctx context.Context, p fsm.Plan, cause error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), giveUpLimit)
	defer cancel()
	_, err := n.propose(ctx, fsm.Command{DropPlan: &fsm.DropPlan{Plan: p.ID, Reason: "no answer in time"}})
	if st, _ := n.cluster.State(); st.Groups[p.Spec.Name] != nil {
		return nil
	}
	e := &client.Error{Code: client.CodeUnavailable, Detail: fmt.Sprintf("group %s was not created: the primaries of %v did not say in time whether they hold records of it", p.Spec.Name, p.Ask),
		Reason: cause.Error(), Remedy: "wait until those groups have a primary, and ask again"}
	if err != nil {
		e.Detail = fmt.Sprintf("group %s is planned, and its records wait: the primaries of %v have yet to say whether they hold some", p.Spec.Name, p.Ask)
		e.Remedy = "ask again: it goes on from there"
	}
	return e
}

// plannedGroups are those that are planned, as a status shows them.
func plannedGroups(st *fsm.State) []client.PlannedGroup {
	var out []client.PlannedGroup
	for _, p := range st.Planned {
		x := client.PlannedGroup{Spec: spec(p.Spec), Asks: []string{}}
		for _, g := range p.Ask {
			x.Asks = append(x.Asks, string(g))
		}
		out = append(out, x)
	}
	return out
}
