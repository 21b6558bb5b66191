package node

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/understudy-ha/understudy/client"
	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
)

// changeable are the keys of a group that may change while it runs, and how each is taken over.
func changeable() map[string]func(to, from *fsm.GroupSpec) {
	return map[string]func(to, from *fsm.GroupSpec){
		"delivery":         func(to, from *fsm.GroupSpec) { to.Delivery = from.Delivery },
		"secondaries":      func(to, from *fsm.GroupSpec) { to.Secondaries = from.Secondaries },
		"on_no_sync":       func(to, from *fsm.GroupSpec) { to.OnNoSync = from.OnNoSync },
		"auto_failover":    func(to, from *fsm.GroupSpec) { to.AutoFailover = from.AutoFailover },
		"images":           func(to, from *fsm.GroupSpec) { to.Images = from.Images },
		"preferred":        func(to, from *fsm.GroupSpec) { to.Preferred = from.Preferred },
		"switchback":       func(to, from *fsm.GroupSpec) { to.Switchback = from.Switchback },
		"switchback_after": func(to, from *fsm.GroupSpec) { to.SwitchbackAfter = from.SwitchbackAfter },
		"keep_receivers":   func(to, from *fsm.GroupSpec) { to.KeepReceivers = from.KeepReceivers },
		"receiver_bytes":   func(to, from *fsm.GroupSpec) { to.ReceiverBytes = from.ReceiverBytes },
		"blocks":           func(to, from *fsm.GroupSpec) { to.Blocks = from.Blocks },
		"maximum_blocks":   func(to, from *fsm.GroupSpec) { to.MaximumBlocks = from.MaximumBlocks },
		"journal_full":     func(to, from *fsm.GroupSpec) { to.JournalFull = from.JournalFull },
		"compression":      func(to, from *fsm.GroupSpec) { to.Compression = from.Compression },
		"journal_replays":  func(to, from *fsm.GroupSpec) { to.JournalReplays = from.JournalReplays },
		"receiver_age":     func(to, from *fsm.GroupSpec) { to.ReceiverAge = from.ReceiverAge },
		"feeds":            func(to, from *fsm.GroupSpec) { to.Feeds = from.Feeds },
	}
}

// fixed says why a key does not change.
func fixed(key string) string {
	switch key {
	case "name":
		return "it is part of every position and of the paths of the journals"
	case "order":
		return "it is the order in which groups start, and part of what decides which group owns a file"
	case "files", "keys":
		return "files that move to another group take their records along, which this version does not do"
	}
	return "it is no key of a group"
}

func (r roles) ChangeGroup(ctx context.Context, group string, keys []string, want client.GroupSpec, ifVersion *uint64, by string) (client.GroupChange, error) {
	table := changeable()
	for _, key := range keys {
		if table[key] == nil {
			return client.GroupChange{}, &client.Error{Code: client.CodeInvalid, Detail: fmt.Sprintf("%s of group %s cannot be changed while it runs", key, group), Reason: fixed(key),
				Remedy: "create another group (POST /v1/groups)"}
		}
	}
	_, g, err := r.n.group(group)
	if err != nil {
		return client.GroupChange{}, err
	}
	from := specOf(want)
	if slices.Contains(keys, "delivery") && g.Phase == fsm.PhaseOpened && g.Primary != r.n.config.Node {
		return client.GroupChange{}, r.n.elsewhere(g.Spec.Name) // who has to obey says so, and can still reach a majority
	}
	var before fsm.GroupSpec
	err = r.n.ordered(ctx, func(st *fsm.State) (*fsm.Command, error) {
		g := st.Groups[ident.GroupName(group)]
		if g == nil {
			_, _, err := r.n.group(group)
			return nil, err
		}
		if ifVersion != nil && *ifVersion != g.SpecVersion {
			return nil, &client.Error{Code: client.CodePrecondition, Detail: fmt.Sprintf("the spec of group %s is at version %d, not %d", group, g.SpecVersion, *ifVersion),
				Remedy: "look at the group and decide anew"}
		}
		before = g.Spec
		to := g.Spec
		asked := from
		asked.Feeds = mergeFeeds(g.Spec.Feeds, from.Feeds)
		for _, key := range keys {
			table[key](&to, &asked)
		}
		if to.Switchback != fsm.SwitchbackAuto && !slices.Contains(keys, "switchback_after") {
			to.SwitchbackAfter = 0
		}
		if to.Preferred == "" {
			return nil, &client.Error{Code: client.CodeInvalid, Detail: "a group needs a preferred node", Remedy: "name a data node"}
		}
		if to = to.Normalize(); to.Validate() != nil {
			return nil, &client.Error{Code: client.CodeInvalid, Detail: to.Validate().Error()}
		}
		return &fsm.Command{ChangeSpec: &fsm.ChangeSpec{Group: g.Spec.Name, Version: g.SpecVersion, Spec: to, By: by}}, nil
	})
	if err != nil {
		return client.GroupChange{}, err
	}
	if _, g, err = r.n.group(group); err != nil {
		return client.GroupChange{}, err
	}
	out := client.GroupChange{Group: group, Spec: spec(g.Spec), Version: g.SpecVersion, Changed: []string{}}
	for _, key := range keys {
		a := before
		table[key](&a, &g.Spec)
		if fmt.Sprintf("%+v", a) != fmt.Sprintf("%+v", before) {
			out.Changed = append(out.Changed, key)
		}
	}
	out.Note = changeNote(before, g)
	if len(out.Changed) > 0 {
		r.n.log.Info("a group was changed", "group", group, "keys", strings.Join(out.Changed, ","), "version", out.Version, "by", by)
	}
	return out, nil
}

// changeNote says what a change means.
func changeNote(before fsm.GroupSpec, g *fsm.Group) string {
	var notes []string
	switch {
	case before.Delivery == g.Spec.Delivery:
	case g.Spec.Delivery == fsm.DeliveryAsync:
		notes = append(notes, "from now on a write is acknowledged once it is on the primary's disk: nobody else is promoted automatically")
	default:
		notes = append(notes, fmt.Sprintf("secondaries join the in-sync set as soon as they are level; until then on_no_sync (%s) decides about writes, and nobody else is promoted automatically", g.Spec.OnNoSync))
	}
	if g.Spec.MaximumBlocks > 0 && g.Spec.MaximumBlocks != before.MaximumBlocks {
		notes = append(notes, "receivers that nobody needs go as soon as a journal comes near the cap, whatever keep_receivers says")
	}
	notes = append(notes, feedsNote(before, g)...)
	if len(notes) == 0 {
		return "done"
	}
	return strings.Join(notes, "; ")
}

// specOf is what somebody asked for, with nothing filled in.
func specOf(s client.GroupSpec) fsm.GroupSpec {
	return fsm.GroupSpec{Name: ident.GroupName(s.Name), Order: s.Order, Files: s.Files, Preferred: ident.NodeID(s.Preferred),
		Delivery: fsm.Delivery(s.Delivery), Secondaries: s.Secondaries, OnNoSync: s.OnNoSync, AutoFailover: s.AutoFailover,
		Images: s.Images, ReceiverBytes: s.ReceiverBytes, KeepReceivers: s.KeepReceivers, Compression: s.Compression, JournalReplays: s.JournalReplays,
		Switchback: s.Switchback, SwitchbackAfter: time.Duration(s.SwitchbackAfter),
		Blocks: s.Blocks, MaximumBlocks: s.MaximumBlocks, JournalFull: s.JournalFull, ReceiverAge: time.Duration(s.ReceiverAge),
		Feeds: feeds[ident.NodeID](s.Feeds)} // without Keys: their text may be wrong
}

func (r roles) Readmit(ctx context.Context, group, node, by string) (client.Readmission, error) {
	st, g, err := r.n.group(group)
	if err != nil {
		return client.Readmission{}, err
	}
	id := ident.NodeID(node)
	switch {
	case st.Nodes[id] == nil:
		return client.Readmission{}, unknownNode(st, node)
	case !g.IsDropped(id):
		return client.Readmission{}, &client.Error{Code: client.CodePrecondition, Detail: fmt.Sprintf("node %s is not dropped from group %s", node, group), Remedy: "nothing is to be done"}
	}
	rep := r.n.replicas.get(g.Spec.Name)
	if g.Phase != fsm.PhaseOpened || g.Primary != r.n.config.Node || rep == nil {
		return client.Readmission{}, r.n.elsewhere(g.Spec.Name) // the primary knows what is still kept
	}
	if why := rep.Disconnected(st.Nodes[id]); why != "" {
		return client.Readmission{}, &client.Error{Code: client.CodePrecondition, Detail: fmt.Sprintf("the copy of node %s does not connect any more: %s", node, why),
			Remedy: "start a node with an empty data directory and a new `node` id, and take this one out"}
	}
	if _, err := r.n.propose(ctx, fsm.Command{Readmit: &fsm.Readmit{Group: g.Spec.Name, Epoch: g.Epoch, Node: id, By: by}}); err != nil {
		return client.Readmission{}, err
	}
	return client.Readmission{Group: group, Node: node,
		Note: fmt.Sprintf("receivers are kept for node %s again, and it is shipped to; should its copy not connect after all, it goes on to need priming", node)}, nil
}

func (r roles) Holds(_ context.Context, group string) ([]client.Hold, error) {
	_, g, err := r.n.group(group)
	if err != nil {
		return nil, err
	}
	return holds(g), nil
}

func holds(g *fsm.Group) []client.Hold {
	out := make([]client.Hold, 0, len(g.Consumers))
	for _, h := range g.Consumers {
		out = append(out, holdOf(g, h))
	}
	return out
}

func holdOf(g *fsm.Group, h fsm.Hold) client.Hold {
	return client.Hold{Name: h.Name, Position: h.Position.Format(g.Spec.Name), Until: h.Until, Since: h.Since, Moved: h.Moved, By: h.By}
}

func (r roles) SetHold(ctx context.Context, group, name string, at ident.Position, q client.HoldRequest) (client.Hold, error) {
	if _, _, err := r.n.group(group); err != nil {
		return client.Hold{}, err
	}
	until := r.n.host.Clock.Now().Add(time.Duration(q.For)).UTC()
	err := r.n.ordered(ctx, func(st *fsm.State) (*fsm.Command, error) {
		g := st.Groups[ident.GroupName(group)]
		if g == nil {
			_, _, err := r.n.group(group)
			return nil, err
		}
		have, _ := g.Hold(name)
		return &fsm.Command{SetHold: &fsm.SetHold{Group: g.Spec.Name, Name: name, Version: have.Version, Position: at, Until: until, By: q.By}}, nil
	})
	if err != nil {
		return client.Hold{}, err
	}
	_, g, err := r.n.group(group)
	if err != nil {
		return client.Hold{}, err
	}
	h, ok := g.Hold(name)
	if !ok { // removed at the same moment
		h = fsm.Hold{Name: name, Position: at, Until: until, By: q.By}
	}
	return holdOf(g, h), nil
}

func (r roles) RemoveHold(ctx context.Context, group, name string) error {
	if _, _, err := r.n.group(group); err != nil {
		return err
	}
	return r.n.ordered(ctx, func(st *fsm.State) (*fsm.Command, error) {
		g := st.Groups[ident.GroupName(group)]
		if g == nil {
			return nil, nil
		}
		have, ok := g.Hold(name)
		if !ok {
			return nil, nil
		}
		return &fsm.Command{RemoveHold: &fsm.RemoveHold{Group: ident.GroupName(group), Name: name, Version: have.Version}}, nil
	})
}
