package node

import (
	"context"
	"fmt"
	"time"

	"github.com/understudy-ha/understudy/client"
	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/replica"
)

// Bounds of a plan.
const (
	planLimit  = 10 * time.Second       // from the plan to the group, else it is given up
	answerTime = 5 * time.Second        // of one answer
	answerWait = 100 * time.Millisecond // after one that failed
)

// answerPlans answers for the groups that this node is the primary of, whenever a group is planned that may take records from
// them, until ctx ends.
func (n *Node) answerPlans(ctx context.Context) error {
	if n.config.Kind != fsm.KindData {
		return nil
	}
	for {
		st, changed := n.cluster.State()
		var again <-chan time.Time
		for _, q := range asked(st, n.config.Node) {
			if err := n.answerPlan(ctx, q); err != nil && ctx.Err() == nil {
				n.log.Debug("a plan is not answered yet", "group", q.group, "planned", q.plan.Spec.Name, "error", err)
				again = time.After(answerWait)
			}
		}
		select {
		case <-changed:
		case <-again:
		case <-ctx.Done():
			return nil
		}
	}
}

// question is a plan that a group is asked about, in the epoch of its primary.
type question struct {
	plan  fsm.Plan
	group ident.GroupName
	epoch ident.Epoch
}

// asked lists what a node has to answer as primary.
func asked(st *fsm.State, self ident.NodeID) (all []question) {
	for _, p := range st.Planned {
		for _, name := range p.Ask {
			if g := st.Groups[name]; g.Phase == fsm.PhaseOpened && g.Primary == self {
				all = append(all, question{p, name, g.Epoch})
			}
		}
	}
	return all
}

// answerPlan looks whether a group holds records of a planned one. This node's state shows the plan, so the sequencer refuses such
// records from now on; the barrier ends once what it took before is committed and in the store. A later primary has seen the plan
// before it opens. So what is not there now never will be.
func (n *Node) answerPlan(ctx context.Context, q question) error {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	rep := n.replicas.get(q.group)
	if rep == nil {
		return replica.ErrNotAttached
	}
	if _, err := rep.Write(ctx, replica.Transaction{Program: func(*replica.View) error { return nil }}); err != nil {
		return fmt.Errorf("wait for the writes before: %w", err)
	}
	holds, err := heldFor(ctx, n.selection(), rep, q.group, q.plan.Spec.Name)
	if err != nil {
		return fmt.Errorf("look for records: %w", err)
	}
	res, err := n.cluster.Propose(ctx, fsm.Command{AnswerPlan: &fsm.AnswerPlan{Plan: q.plan.ID, Group: q.group, Epoch: q.epoch, Node: n.config.Node, Holds: holds}})
	if err != nil {
		return err
	}
	n.log.Info("answered for a planned group", "group", q.group, "planned", q.plan.Spec.Name, "holds", holds, "refused", res.Refused)
	return nil
}

func foundText(group, to ident.GroupName, file string, key []byte) string {
	return fmt.Sprintf("group %s holds records that would be group %s's, such as key %.100q of file %q", group, to, key, file)
}

// createPlanned plans a group, waits until nobody holds records of it, and creates it.
func (n *Node) createPlanned(ctx context.Context, spec fsm.GroupSpec, life ident.Incarnation) error {
	if st, _ := n.cluster.State(); st.Groups[spec.Name] == nil {
		if _, err := n.propose(ctx, fsm.Command{PlanGroups: &fsm.PlanGroups{Specs: []fsm.GroupSpec{spec}}}); err != nil {
			return err
		}
		if err := n.awaitPlan(ctx, spec.Name); err != nil {
			return err
		}
	}
	_, err := n.propose(ctx, fsm.Command{CreateGroup: &fsm.CreateGroup{Spec: spec, Incarnation: life, Planned: true}})
	return err
}

// awaitPlan waits until a planned group may be created, and gives the plan up when that takes too long.
func (n *Node) awaitPlan(ctx context.Context, name ident.GroupName) error {
	st, changed := n.cluster.State()
	p, planned := st.Plan(name)
	late := time.NewTimer(planLimit)
	defer late.Stop()
	for planned && len(p.Ask) > 0 {
		var gone error
		select {
		case <-changed:
		case <-late.C:
			gone = context.DeadlineExceeded
		case <-ctx.Done():
			gone = context.Cause(ctx)
		}
		if gone != nil {
			return n.giveUp(ctx, p, gone)
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
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), answerTime)
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
