package fsm

import (
	"fmt"
	"maps"
	"slices"

	"github.com/understudy-ha/understudy/internal/ident"
)

// maxFeeds bounds how many nodes of a group are fed by others than the primary.
const maxFeeds = 64

// FeederOf returns the backup that the spec has feed a node: "" when nobody but the primary does. A feeder that is primary feeds
// as the primary, and a node that was dropped neither feeds nor is fed.
func (g *Group) FeederOf(n ident.NodeID) ident.NodeID {
	f := g.Spec.Feeds[n]
	if f == "" || f == g.Primary || n == g.Primary || g.IsDropped(f) || g.IsDropped(n) {
		return ""
	}
	return f
}

// checkFeeds checks who feeds whom: names, nobody himself, and no ring, whose nodes would all wait for each other.
func (s GroupSpec) checkFeeds() (errs []error) {
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if len(s.Feeds) > maxFeeds {
		bad("feeds: %d nodes, want at most %d", len(s.Feeds), maxFeeds)
		return errs
	}
	for _, target := range slices.Sorted(maps.Keys(s.Feeds)) {
		feeder := s.Feeds[target]
		for _, n := range []ident.NodeID{target, feeder} {
			if err := checkName(string(n)); err != nil {
				bad("feeds: %w", err)
			}
		}
		if feeder == target {
			bad("feeds: node %s cannot feed itself: name another data node, or leave it to the primary", target)
			continue
		}
		for n, steps := feeder, 0; n != "" && steps <= len(s.Feeds); n, steps = s.Feeds[n], steps+1 {
			if n == target {
				bad("feeds: node %s would be fed, over %s, by itself: end the chain at a node that the primary feeds", target, feeder)
				break
			}
		}
	}
	return errs
}

// CheckFeeds says what is wrong with who feeds whom in a spec.
func (s GroupSpec) CheckFeeds() error {
	if errs := s.checkFeeds(); len(errs) > 0 {
		return errs[0]
	}
	return nil
}

// withFeeders refuses a spec that names others than data nodes in feeds. A group may be made before its nodes have joined: then
// those that are not registered yet are let pass.
func (s *State) withFeeders(spec GroupSpec, joined bool) refusal {
	for _, target := range slices.Sorted(maps.Keys(spec.Feeds)) {
		for _, n := range []ident.NodeID{target, spec.Feeds[target]} {
			if s.Nodes[n] == nil && !joined {
				continue
			}
			if _, r := s.dataNode(n); r != nil {
				r.Detail = fmt.Sprintf("feeds: %s", r.Detail)
				return r
			}
		}
	}
	return nil
}
