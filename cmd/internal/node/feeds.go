package node

import (
	"fmt"
	"maps"
	"slices"

	"github.com/understudy-ha/understudy/client"
	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/replica"
)

// feeds turns who feeds whom from the one kind of string into the other; nil stays nil.
func feeds[To, From ~string](feeds map[From]From) map[To]To {
	if feeds == nil {
		return nil
	}
	out := make(map[To]To, len(feeds))
	for target, feeder := range feeds {
		out[To(target)] = To(feeder)
	}
	return out
}

// mergeFeeds changes who feeds whom as a merge patch says: a target without a feeder goes back to the primary, and so does everybody
// without a patch.
func mergeFeeds(have, patch map[ident.NodeID]ident.NodeID) map[ident.NodeID]ident.NodeID {
	if patch == nil {
		return nil
	}
	out := maps.Clone(have)
	if out == nil {
		out = map[ident.NodeID]ident.NodeID{}
	}
	for target, feeder := range patch {
		if feeder == "" {
			delete(out, target)
			continue
		}
		out[target] = feeder
	}
	return out
}

// target is what one node knows of another one that it ships to.
func target(group ident.GroupName, t replica.TargetStatus) client.Target {
	return client.Target{Node: string(t.Node), State: string(t.State), FedBy: string(t.FedBy), Delivery: string(t.Delivery), Received: uint64(t.Received), Durable: uint64(t.Durable),
		Confirmed: uint64(t.Confirmed), Applied: uint64(t.Applied), Position: t.Held.Format(group), LagEntries: t.LagEntries, LagBytes: uint64(max(t.LagBytes, 0)), LagSeconds: t.LagSeconds, Error: t.Reason}
}

// feedsNote says what a change of who feeds whom means.
func feedsNote(before fsm.GroupSpec, g *fsm.Group) (notes []string) {
	for _, target := range slices.Sorted(maps.Keys(g.Spec.Feeds)) {
		if feeder := g.Spec.Feeds[target]; before.Feeds[target] != feeder {
			notes = append(notes, fmt.Sprintf("%s feeds %s while it is a backup itself; %s joins the in-sync set only if nobody else is left", feeder, target, target))
		}
	}
	return notes
}
