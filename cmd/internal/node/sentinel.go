package node

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/understudy-ha/understudy/api"
	"github.com/understudy-ha/understudy/api/resp"
	"github.com/understudy-ha/understudy/client"
	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/replica"
)

// masters tells Redis clients who plays what: a group is a master of Sentinel, its copies are the replicas.
type masters struct{ n *Node }

func (m masters) Groups() []resp.Group {
	st, _ := m.n.cluster.State()
	out := make([]resp.Group, 0, len(st.Groups))
	for _, name := range slices.Sorted(maps.Keys(st.Groups)) {
		out = append(out, m.group(st, st.Groups[name]))
	}
	return out
}

func (m masters) group(st *fsm.State, g *fsm.Group) resp.Group {
	out := resp.Group{Name: string(g.Spec.Name), Epoch: uint64(g.Epoch)}
	if g.Phase == fsm.PhaseOpened {
		out.Primary = string(g.Primary)
	}
	for _, id := range g.InSync {
		out.InSync = append(out.InSync, string(id))
	}
	known := map[ident.NodeID]resp.Node{}
	if rep := m.n.replicas.get(g.Spec.Name); rep != nil {
		s := rep.Status()
		out.Serving, out.Last = s.Serving && g.Primary == m.n.config.Node, s.Committed
		known[m.n.config.Node] = resp.Node{Offset: uint64(s.Applied.History), Lag: int64(s.LagSeconds), Linked: g.InSet(m.n.config.Node) || follows(s)}
		for _, t := range s.Targets {
			known[t.Node] = resp.Node{Offset: uint64(t.Held.History), Lag: int64(t.LagSeconds), Linked: linked(string(t.State), t.LagEntries)}
		}
	}
	for _, id := range slices.Sorted(maps.Keys(st.Nodes)) {
		n := st.Nodes[id]
		if n.Kind != fsm.KindData {
			continue
		}
		node, is := known[id]
		if !is {
			node.Lag, node.Linked = -1, g.InSet(id)
		}
		node.ID, node.RunID, node.Address, node.Alive = string(id), runID(string(n.Directory)), n.Addresses.Redis, m.n.cluster.Alive(id)
		out.Nodes = append(out.Nodes, node)
	}
	return out
}

func (m masters) Copies(ctx context.Context, group string) []resp.Node {
	st, _ := m.n.cluster.State()
	g := st.Groups[ident.GroupName(group)]
	if g == nil {
		return nil
	}
	nodes := m.group(st, g).Nodes
	there := m.n.completeStatus(ctx, st, g, m.n.hearsay.of)
	if there.Stale {
		return nodes
	}
	for i := range nodes {
		for _, t := range there.Targets {
			if t.Node != nodes[i].ID {
				continue
			}
			nodes[i].Lag, nodes[i].Linked = int64(t.LagSeconds), linked(t.State, t.LagEntries)
			if _, held, err := ident.ParsePosition(t.Position); err == nil {
				nodes[i].Offset = uint64(held.History)
			}
		}
	}
	return nodes
}

// nearlyLevel is how many entries a backup that another one feeds may be behind: of the others it is known whether they are through with what
// they had missed.
const nearlyLevel = 1000

// linked tells whether a target of the primary, by its state, looks as a replica of Redis does whose link is up: whatever its role, it is
// connected, and is not still receiving what it had missed. One that is nearly level may be read from.
func linked(state string, behind uint64) bool {
	switch replica.TargetState(state) {
	case replica.TargetSync, replica.TargetAsync:
		return true
	case replica.TargetFed:
		return behind < nearlyLevel
	}
	return false
}

// follows tells the same of this node by what it knows itself. A primary has no link.
func follows(s replica.Status) bool {
	return s.Role == replica.RoleBackup && s.Reconciled && !s.NeedsPriming && ownResync(s) == nil && s.LagSeconds >= 0 && s.LagSeconds < staleLink
}

// staleLink is after how many seconds without knowing to be level a copy looks cut off, as a replica of Redis does after repl-timeout.
const staleLink = 60

// runID makes the 40 hexadecimal digits that Redis clients expect of the id of a data directory; "" when that is something else.
func runID(directory string) string {
	id := strings.ReplaceAll(directory, "-", "")
	if len(id) != 32 || strings.Trim(id, "0123456789abcdef") != "" {
		return ""
	}
	return id + "00000000"
}

func (m masters) Changed() <-chan struct{} {
	_, changed := m.n.cluster.State()
	return changed
}

func (m masters) Holders(ctx context.Context, group string, at ident.Position) (int, error) {
	if group == string(localGroup) {
		return 0, resp.ErrAlone
	}
	rep, err := records(m).replica(group)
	if err != nil {
		return 0, err
	}
	s := rep.Status()
	if !s.Serving {
		return m.holdersThere(ctx, ident.GroupName(group), at)
	}
	n := 0
	for _, t := range s.Targets {
		if t.Held.Compare(at) >= 0 {
			n++
		}
	}
	return n, nil
}

// holdersThere asks the primary, which alone knows what the others hold.
func (m masters) holdersThere(ctx context.Context, group ident.GroupName, at ident.Position) (int, error) {
	there := m.n.elsewhere(group)
	if there.HTTP == "" {
		return 0, records(m).elsewhere(group)
	}
	ctx, cancel := context.WithTimeout(ctx, askPart)
	defer cancel()
	s, err := m.n.peers.at(there.HTTP).Group(ctx, string(group))
	if err != nil {
		return 0, refusal(err)
	}
	if !s.Local.Serving {
		return 0, records(m).elsewhere(group)
	}
	return holdersOf(s.Targets, at), nil
}

// holdersOf counts the targets that hold everything up to the position. One that says nothing legible does not count.
func holdersOf(targets []client.Target, at ident.Position) int {
	n := 0
	for _, t := range targets {
		if _, held, err := ident.ParsePosition(t.Position); err == nil && held.Compare(at) >= 0 {
			n++
		}
	}
	return n
}

func (m masters) Failover(ctx context.Context, group string) error {
	_, ready, err := roles(m).Switchover(ctx, group, client.SwitchoverRequest{})
	var other *api.Elsewhere
	if errors.As(err, &other) && other.HTTP != "" { // only the primary knows who is level with it
		_, err = m.n.peers.at(other.HTTP).Switchover(ctx, group, client.SwitchoverRequest{}, time.Millisecond)
		var e *client.Error
		if errors.As(err, &e) && len(e.Checks) > 0 {
			ready = &client.Readiness{Group: group, Checks: e.Checks}
		}
	}
	if client.CodeOf(err) == client.CodeBusy {
		return &resp.Refusal{Code: "INPROG", Text: "Failover already in progress"} // in the words of Redis
	}
	if err != nil && ready != nil {
		return &resp.Refusal{Code: "NOGOODSLAVE", Text: failedChecks(*ready)}
	}
	if err != nil {
		return refusal(err)
	}
	return nil
}
