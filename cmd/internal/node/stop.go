package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/understudy-ha/understudy/client"
	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
)

// ErrStay is the cause of a stop at which the roles stay where they are: the whole cluster is being stopped. Whoever ends
// the context of Run with another cause, or none, gets a hand-over first.
var ErrStay = errors.New("stops without handing its roles over")

// HandOver gives this node's primary roles to in-sync secondaries by planned switch-overs, one group after the other, until
// ctx ends. A group without a secondary that could take the role at once stays here: if it can, it fails over when this node
// has ended. It returns how many roles were handed over.
func (n *Node) HandOver(ctx context.Context) (moved int) {
	for _, g := range n.ownGroups() {
		began := time.Now()
		op, err := n.handOver(ctx, g)
		if err != nil {
			severity, why := "warning", err.Error()
			if n.allStop() {
				severity, why = "info", "all other data nodes stop, or have stopped, too"
			}
			n.events.add(severity, string(g), "NOT_HANDED_OVER", fmt.Sprintf("%s stops as primary of group %s without a hand-over: %s", n.config.Node, g, why), nil)
			continue
		}
		moved++
		n.events.add("info", string(g), "HANDED_OVER", fmt.Sprintf("%s handed group %s over to %s before its stop, in %s", n.config.Node, g, op.To,
			time.Since(began).Round(time.Millisecond)), map[string]string{"operation": fmt.Sprint(op.ID), "to": op.To})
	}
	return moved
}

// ownGroups are the groups whose primary this life is, in their order.
func (n *Node) ownGroups() []ident.GroupName {
	st, _ := n.cluster.State()
	var own []*fsm.Group
	for _, g := range st.Groups {
		if g.Holds(n.config.Node, n.directory.life) {
			own = append(own, g)
		}
	}
	slices.SortFunc(own, func(a, b *fsm.Group) int {
		return cmp.Or(cmp.Compare(a.Spec.Order, b.Spec.Order), cmp.Compare(a.Spec.Name, b.Spec.Name))
	})
	names := make([]ident.GroupName, len(own))
	for i, g := range own {
		names[i] = g.Spec.Name
	}
	return names
}

// handOver hands one group over and returns the finished operation. When ctx ends before the commit point the switch-over is
// rolled back; after it the new primary serves without this node.
func (n *Node) handOver(ctx context.Context, group ident.GroupName) (client.Operation, error) {
	r := roles{n}
	ready, g, err := n.heir(group)
	if err != nil {
		return client.Operation{}, err
	}
	end, ok := ctx.Deadline()
	if !ok || time.Until(end) <= 0 {
		return client.Operation{}, errors.New("there is no time left for it")
	}
	pause := min(defaultMaxPause, time.Until(end))
	res, err := n.propose(ctx, fsm.Command{StartSwitch: &fsm.StartSwitch{Group: group, Epoch: g.Epoch, To: ident.NodeID(ready.To), MaxPause: pause,
		Deadline: n.host.Clock.Now().Add(time.Until(end)), Reason: fmt.Sprintf("%s is being stopped", n.config.Node), Automatic: true}}) // during a pause roles stay
	if err != nil {
		return client.Operation{}, err
	}
	op, err := r.Operation(ctx, res.Operation, time.Until(end))
	if err == nil && !op.Finished() && !op.Committed {
		err = n.takeBack(group, op.ID)
	}
	switch {
	case err != nil:
		return op, err
	case op.State == client.OperationRolledBack || op.State == client.OperationFailed:
		return op, fmt.Errorf("switch-over %d to %s was %s: %s", op.ID, op.To, op.State, op.Error)
	}
	return op, nil
}

// heir chooses to whom a group is handed over: the usual target of a switch-over, else any in-sync secondary that is ready.
func (n *Node) heir(group ident.GroupName) (client.Readiness, *fsm.Group, error) {
	r := roles{n}
	_, g, err := n.group(string(group))
	if err != nil {
		return client.Readiness{}, nil, err
	}
	why := errors.New("it has no in-sync secondary")
	for _, to := range append([]ident.NodeID{""}, g.InSync...) {
		if to == n.config.Node {
			continue
		}
		ready, g, err := r.assess(string(group), string(to))
		switch {
		case err != nil:
			return client.Readiness{}, nil, err
		case ready.To == "" || !g.InSet(ident.NodeID(ready.To)):
		case !ready.Ready:
			why = fmt.Errorf("%s cannot take it: %s", ready.To, failedChecks(ready))
		default:
			return ready, g, nil
		}
	}
	return client.Readiness{}, nil, why
}

// takeBack aborts a switch-over for which there is no more time, so that it does not go on while this node closes.
func (n *Node) takeBack(group ident.GroupName, id uint64) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_, err := n.propose(ctx, fsm.Command{AbortSwitch: &fsm.AbortSwitch{Group: group, Operation: id, Reason: fmt.Sprintf("%s stops, and there is no more time", n.config.Node)}})
	st, _ := n.cluster.State()
	if op := findOperation(st, id); op != nil && op.Committed {
		return nil // it was handed over in the last moment
	}
	return errors.Join(fmt.Errorf("switch-over %d did not end in time", id), err)
}

// failedChecks lists in words what speaks against a switch-over.
func failedChecks(r client.Readiness) string {
	var failed []string
	for _, c := range r.Checks {
		if !c.OK {
			failed = append(failed, fmt.Sprintf("%s is %s, want %s", c.Name, c.Value, c.Limit))
		}
	}
	return strings.Join(failed, "; ")
}
