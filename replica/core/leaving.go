package core

import (
	"slices"
	"time"

	"github.com/understudy-ha/understudy/internal/ident"
)

// LeavePatience is how long a member that is being stopped stays for somebody who is not level yet to take its place. It goes
// on to acknowledge meanwhile, so that no write waits for this.
const LeavePatience = 2 * time.Second

// leaver returns the member that is taken out because it is being stopped, "" for nobody. It asks for that while it still
// acknowledges, so writes go on until Raft has decided, and after it. It stays while another node may come into its place, and
// under hold and refuse while it is the last one that is well: writes go on for as long as it is there. enough says that as many
// others are in as are wanted. Nobody else is level, or he would be waited for first.
func leaver(rule SetRule, members []Member, enough bool) ident.NodeID {
	if rule.Leaving || rule.Switching {
		return ""
	}
	coming := !enough && slices.ContainsFunc(members, func(m Member) bool {
		return !m.InSet && m.Alive && !m.Resting && !m.Maintenance && !m.Fed && !m.Barred && !m.Leaving
	})
	for _, m := range members {
		other := slices.ContainsFunc(members, func(o Member) bool { return o.Node != m.Node && o.well(rule) })
		switch {
		case !m.InSet || !m.Leaving || m.Node == rule.Target:
		case rule.Protect && !other:
		case coming && m.LeavingFor < LeavePatience:
		default:
			return m.Node
		}
	}
	return ""
}
