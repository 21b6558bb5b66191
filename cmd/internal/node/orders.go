package node

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/understudy-ha/understudy/client"
	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
)

// orderTries is how often an order is proposed anew because another one came first.
const orderTries = 5

// ends returns when an order is over; zero: when an operator says so.
func (n *Node) ends(q client.OrderRequest) (time.Time, error) {
	now := n.host.Clock.Now()
	until := q.Until
	if q.For > 0 {
		until = now.Add(time.Duration(q.For))
	}
	if !until.IsZero() && !until.After(now) {
		return until, &client.Error{Code: client.CodeInvalid, Detail: fmt.Sprintf("until %s is over", until.Format(time.RFC3339)), Remedy: "name a later time, or use for"}
	}
	return until.UTC(), nil
}

// ordered proposes an order upon the state as it stands, again when another order came first. A nil command: nothing is to
// be done.
func (n *Node) ordered(ctx context.Context, command func(*fsm.State) (*fsm.Command, error)) error {
	var res fsm.Result
	var err error
	for range orderTries {
		st, _ := n.cluster.State()
		cmd, bad := command(st)
		if bad != nil || cmd == nil {
			return bad
		}
		if res, err = n.propose(ctx, *cmd); res.Refused != fsm.RefusedControl {
			return err
		}
	}
	return err
}

func (r roles) Pause(ctx context.Context, q client.OrderRequest) (client.PauseState, error) {
	until, err := r.n.ends(q)
	if err != nil {
		return client.PauseState{}, err
	}
	err = r.n.ordered(ctx, func(st *fsm.State) (*fsm.Command, error) {
		return &fsm.Command{SetPause: &fsm.SetPause{Version: st.PauseVersion, On: true, Reason: q.Reason, By: q.By, Until: until}}, nil
	})
	return r.pauseState(), err
}

func (r roles) Resume(ctx context.Context) (client.PauseState, error) {
	err := r.n.ordered(ctx, func(st *fsm.State) (*fsm.Command, error) {
		if st.Pause == nil {
			return nil, nil
		}
		return &fsm.Command{SetPause: &fsm.SetPause{Version: st.PauseVersion}}, nil
	})
	return r.pauseState(), err
}

func (r roles) pauseState() client.PauseState {
	st, _ := r.n.cluster.State()
	out := client.PauseState{Pause: pauseOf(st)}
	if out.Pause == nil {
		out.Note = "automatic failover, switch-back and replacement may begin"
		return out
	}
	out.Note = "no automatic failover, switch-back or replacement begins; a primary that dies now has no successor until the pause ends or an operator acts"
	if begun := underWay(st); len(begun) > 0 {
		out.Note += "; what has begun goes on: " + strings.Join(begun, ", ")
	}
	out.Warning = pauseWarning(st)
	return out
}

// pauseWarning names the groups that have fewer in-sync secondaries than wanted while somebody else could become one: nobody
// does before the pause ends, not even a secondary that was being restarted when it began.
func pauseWarning(st *fsm.State) string {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(st.Groups)) {
		g := st.Groups[name]
		var kept []string
		may := 0
		for _, id := range slices.Sorted(maps.Keys(st.Nodes)) {
			switch n := st.Nodes[id]; {
			case n.Kind != fsm.KindData || id == g.Primary:
			case g.InSet(id) || st.Pause.MayJoin(g, id):
				may++
			default:
				kept = append(kept, string(id))
			}
		}
		if g.Spec.Delivery == fsm.DeliveryAsync || may >= g.Spec.Secondaries || len(kept) == 0 {
			continue
		}
		text := fmt.Sprintf("group %s keeps %d of %d in-sync secondaries; outside the set when the pause began, and kept out of it until the end: %s",
			name, may, g.Spec.Secondaries, strings.Join(kept, ", "))
		switch {
		case may > 0:
		case g.Spec.OnNoSync == fsm.NoSyncHold:
			text += "; writes wait meanwhile"
		case g.Spec.OnNoSync == fsm.NoSyncRefuse:
			text += "; writes are refused meanwhile"
		default:
			text += "; writes are acknowledged without a shadow meanwhile"
		}
		out = append(out, text)
	}
	if len(out) == 0 {
		return ""
	}
	return strings.Join(out, "; ") + ". Resume, wait until the sets are whole, and pause again"
}

// underWay lists the operations that run.
func underWay(st *fsm.State) (out []string) {
	for _, name := range slices.Sorted(maps.Keys(st.Groups)) {
		if op := st.Groups[name].Operation; op != nil {
			out = append(out, fmt.Sprintf("%s %d of group %s", op.Kind, op.ID, name))
		}
	}
	return out
}

func (r roles) Maintain(ctx context.Context, node string, q client.OrderRequest) (client.MaintenanceState, error) {
	until, err := r.n.ends(q)
	if err != nil {
		return client.MaintenanceState{}, err
	}
	id := ident.NodeID(node)
	err = r.n.ordered(ctx, func(st *fsm.State) (*fsm.Command, error) {
		x := st.Nodes[id]
		if x == nil {
			return nil, unknownNode(st, node)
		}
		return &fsm.Command{SetMaintenance: &fsm.SetMaintenance{Node: id, Version: x.MaintenanceVersion, On: true, Reason: q.Reason, By: q.By, Until: until}}, nil
	})
	if err != nil {
		return client.MaintenanceState{}, err
	}
	return r.maintenanceState(id), nil
}

func (r roles) EndMaintenance(ctx context.Context, node string) (client.MaintenanceState, error) {
	id := ident.NodeID(node)
	err := r.n.ordered(ctx, func(st *fsm.State) (*fsm.Command, error) {
		x := st.Nodes[id]
		switch {
		case x == nil:
			return nil, unknownNode(st, node)
		case x.Maintenance == nil:
			return nil, nil
		}
		return &fsm.Command{SetMaintenance: &fsm.SetMaintenance{Node: id, Version: x.MaintenanceVersion}}, nil
	})
	if err != nil {
		return client.MaintenanceState{}, err
	}
	return r.maintenanceState(id), nil
}

func unknownNode(st *fsm.State, node string) error {
	return &client.Error{Code: client.CodeUnknownNode, Detail: fmt.Sprintf("there is no node %q", node),
		Remedy: "the nodes are " + list(slices.Sorted(maps.Keys(st.Nodes)))}
}

// dataNodes names those that a role may be given to.
func dataNodes(st *fsm.State) string {
	var all []ident.NodeID
	for _, n := range st.Nodes {
		if n.Kind == fsm.KindData {
			all = append(all, n.ID)
		}
	}
	slices.Sort(all)
	return "the data nodes are " + list(all)
}

// maintenanceState says what the maintenance of a node means as things stand.
func (r roles) maintenanceState(id ident.NodeID) client.MaintenanceState {
	st, _ := r.n.cluster.State()
	n := st.Nodes[id]
	out := client.MaintenanceState{Node: string(id), Maintenance: orderOf(n.Maintenance), Primary: []string{}}
	var only []string
	for _, name := range slices.Sorted(maps.Keys(st.Groups)) {
		g := st.Groups[name]
		switch {
		case g.Phase != fsm.PhaseFenced && g.Primary == id:
			out.Primary = append(out.Primary, string(name))
		case g.InSet(id) && len(g.InSync) == 2:
			only = append(only, string(name))
		}
	}
	switch {
	case n.Maintenance == nil && n.Kind == fsm.KindWitness:
		out.Note = fmt.Sprintf("node %s is a witness: it votes, and takes no role", id)
	case n.Maintenance == nil:
		out.Note = fmt.Sprintf("node %s may be chosen as every other", id)
	case len(out.Primary) > 0:
		out.Note = fmt.Sprintf("node %s goes on as primary of %s: maintenance takes no role away. Hand the role over before you stop it: POST /v1/groups/%s/switchover",
			id, strings.Join(out.Primary, ", "), strings.Join(out.Primary, "/switchover, POST /v1/groups/"))
	case len(only) > 0:
		out.Note = fmt.Sprintf("node %s is the only in-sync secondary of %s: it goes on to be one until another node has taken its place, and is still chosen if the primary dies before",
			id, strings.Join(only, ", "))
	case n.Kind == fsm.KindWitness:
		out.Note = fmt.Sprintf("node %s is a witness: it takes no role anyway, and goes on to vote", id)
	default:
		out.Note = fmt.Sprintf("node %s is chosen by itself only if nobody else may be; it goes on to vote and to receive", id)
	}
	return out
}

// orderOf translates an order; nil for none.
func orderOf(o *fsm.Order) *client.Order {
	if o == nil {
		return nil
	}
	return &client.Order{Reason: o.Reason, By: o.By, Since: o.Since, Until: o.Until}
}

// pauseOf returns the pause, nil for none.
func pauseOf(st *fsm.State) *client.Order {
	if st.Pause == nil {
		return nil
	}
	return orderOf(&st.Pause.Order)
}

// orderText says who ordered something, until when and why.
func orderText(o *fsm.Order) string {
	s := o.Reason
	if o.By != "" {
		s += ", by " + o.By
	}
	if !o.Until.IsZero() {
		s += ", until " + o.Until.Format(time.RFC3339)
	}
	return s
}

// orderNotes says what operators ordered, as far as it concerns a group, and what that means for it.
func orderNotes(pause *fsm.Pause, g *fsm.Group, nodes map[ident.NodeID]*fsm.Node) (out []string) {
	if pause != nil {
		out = append(out, fmt.Sprintf("paused (%s): no automatic failover, switch-back or replacement begins; this command works all the same", orderText(&pause.Order)))
	}
	for _, id := range slices.Sorted(maps.Keys(nodes)) {
		n := nodes[id]
		switch {
		case !n.InMaintenance() || n.Kind != fsm.KindData:
		case g.Primary == id && g.Phase != fsm.PhaseFenced:
			out = append(out, fmt.Sprintf("%s, the primary, is in maintenance (%s): hand the role over before it is stopped", id, orderText(n.Maintenance)))
		default:
			out = append(out, fmt.Sprintf("%s is in maintenance (%s): chosen by itself only if nobody else may be", id, orderText(n.Maintenance)))
		}
	}
	if g.Spec.Switchback == fsm.SwitchbackAuto && g.Primary != g.Spec.Preferred {
		out = append(out, fmt.Sprintf("the role returns to %s by itself once it was level and well for %s", g.Spec.Preferred, g.Spec.SwitchbackAfter))
	}
	return out
}

// orderChanges compares what was ordered and is, and returns an event for each difference. The versions count.
type orderChanges struct {
	pause       uint64
	maintenance map[ident.NodeID]uint64
}

func (o *orderChanges) see(n *Node, st *fsm.State) {
	first := o.maintenance == nil
	if first {
		o.maintenance = map[ident.NodeID]uint64{}
	}
	if !first && st.PauseVersion != o.pause {
		if p := st.Pause; p != nil {
			n.events.add("warning", "", "PAUSED", "automatic failover, switch-back and replacement are paused: "+orderText(&p.Order), map[string]string{"by": p.By})
		} else {
			n.events.add("info", "", "RESUMED", "the pause is over: automatic actions may begin again", nil)
		}
	}
	o.pause = st.PauseVersion
	for _, id := range slices.Sorted(maps.Keys(st.Nodes)) {
		x := st.Nodes[id]
		if !first && x.MaintenanceVersion != o.maintenance[id] {
			if m := x.Maintenance; m != nil {
				n.events.add("warning", "", "MAINTENANCE", fmt.Sprintf("node %s is in maintenance: %s", id, orderText(m)), map[string]string{"peer": string(id), "by": m.By})
			} else {
				n.events.add("info", "", "MAINTENANCE_OVER", fmt.Sprintf("the maintenance of node %s is over", id), map[string]string{"peer": string(id)})
			}
		}
		o.maintenance[id] = x.MaintenanceVersion
	}
}
