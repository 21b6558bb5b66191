package node

import (
	"fmt"
	"slices"
	"sort"

	"github.com/understudy-ha/understudy/client"
	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
)

// maxSwitchLag is how many entries a target may be behind when a switch-over is started.
const maxSwitchLag = fsm.MaxSwitchLag

// facts are what the readiness of a planned switch-over is judged by.
type facts struct {
	assignment fsm.Assignment
	to         ident.NodeID
	lease      error                  // nil: the primary's lease is valid now
	writes     string                 // what becomes of writes for want of an in-sync secondary; "": not known
	leader     ident.NodeID           // Raft leader, "" when none is known
	lag        map[ident.NodeID]int64 // entries each target lacks; absent: no session
	alive      func(ident.NodeID) bool
}

// switchTarget chooses where a switch-over goes when the operator named nobody: to the preferred node if it is an in-sync
// secondary, else to the in-sync secondary with the lowest priority number. A node in maintenance takes no role.
func switchTarget(a fsm.Assignment) (ident.NodeID, bool) {
	g := a.Group
	var candidates []ident.NodeID
	for _, n := range g.InSync {
		if n != g.Primary && a.Nodes[n] != nil && !a.Nodes[n].InMaintenance() && !a.Nodes[n].IsLeaving() {
			candidates = append(candidates, n)
		}
	}
	if slices.Contains(candidates, g.Spec.Preferred) {
		return g.Spec.Preferred, true
	}
	sort.Slice(candidates, func(i, j int) bool {
		x, y := a.Nodes[candidates[i]], a.Nodes[candidates[j]]
		if x.Priority != y.Priority {
			return x.Priority < y.Priority
		}
		return x.ID < y.ID
	})
	if len(candidates) == 0 {
		return "", false
	}
	return candidates[0], true
}

// readiness lists every condition of a planned switch-over with its value and limit. The dry run, `why` and the start of a
// switch-over all use it. The target need not be in the in-sync set: everything is drained to it before the commit point,
// and the handover makes it a member.
func readiness(f facts) client.Readiness {
	g := f.assignment.Group
	r := client.Readiness{Group: string(g.Spec.Name), From: string(g.Primary), To: string(f.to)}
	check := func(name string, ok bool, value, limit, detail string) {
		c := client.Check{Name: name, OK: ok, Value: value, Limit: limit}
		if !ok {
			c.Detail = detail
		}
		r.Checks = append(r.Checks, c)
	}
	check("group_open", g.Phase == fsm.PhaseOpened, string(g.Phase), string(fsm.PhaseOpened), failingOver(f))
	running := "none"
	if g.Operation != nil {
		running = fmt.Sprintf("%s %d at step %s", g.Operation.Kind, g.Operation.ID, g.Operation.Step)
	}
	check("no_operation", g.Operation == nil, running, "none", "wait for it, or cancel a switch-over with DELETE /v1/groups/"+string(g.Spec.Name)+"/switchover")
	leader := string(f.leader)
	if leader == "" {
		leader = "none"
	}
	check("raft_leader", f.leader != "", leader, "a leader", "the nodes cannot reach a majority: check which of them run, and the network between them")
	lease := "held"
	if f.lease != nil {
		lease = f.lease.Error()
	}
	check("primary_lease", f.lease == nil, lease, "held", "the primary cannot renew its lease: check its connection to the Raft leader")

	if f.writes != "" {
		check("writes", true, f.writes, "open, or alone", "")
	}
	target := f.assignment.Nodes[f.to]
	value := "data node"
	switch {
	case target == nil:
		value = "unknown"
	case target.Kind != fsm.KindData:
		value = string(target.Kind)
	case f.to == g.Primary:
		value = "is primary already"
	}
	known := target != nil && target.Kind == fsm.KindData && f.to != g.Primary
	check("target", known, value, "another data node", "name a data node that is not the primary with \"to\"")
	if !known {
		return summarize(r)
	}
	alive := f.alive(f.to)
	check("target_alive", alive, word(alive, "alive", "not alive"), "alive", fmt.Sprintf("start node %s, or repair the network to it", f.to))
	check("target_in_sync", true, word(slices.Contains(g.InSync, f.to), "in the set", "joins the set first"), "", "")
	check("target_maintenance", !target.InMaintenance(), word(target.InMaintenance(), "on", "off"), "off", "end the maintenance of the node first")
	if target.IsLeaving() {
		check("target_leaving", false, "being stopped", "stays", "wait until the node has been started again")
	}
	if g.IsDropped(f.to) {
		check("target_dropped", false, "dropped", "not dropped", "readmit the node if its copy still connects (POST …/nodes/NODE/readmit), or prime it anew")
	}
	lag, session := f.lag[f.to]
	value = noSession
	if session {
		value = fmt.Sprintf("%d entries", lag)
	}
	check("target_lag", session && lag <= maxSwitchLag, value, fmt.Sprintf("%d entries", maxSwitchLag), "wait until the target has caught up (see …/resync)")
	return summarize(r)
}

// noSession is the lag of a target that is not connected.
const noSession = "no session"

// connects tells whether nothing is missing but the connection to the target.
func connects(r client.Readiness) bool {
	missing := 0
	for _, c := range r.Checks {
		if !c.OK {
			if missing++; c.Name != "target_lag" || c.Value != noSession {
				return false
			}
		}
	}
	return missing > 0
}

// failingOver says what a group that is not open is waiting for.
func failingOver(f facts) string {
	g := f.assignment.Group
	text := "a failover is under way"
	if op := g.Operation; op != nil {
		text += fmt.Sprintf(" since %s (%s)", clock(op.Started), op.Reason)
	}
	if g.Phase == fsm.PhasePromoted {
		return fmt.Sprintf("%s: %s was chosen and recovers; wait until the group is open again", text, g.Primary)
	}
	if to, _, _, ok, why := fsm.ChooseCandidate(g, f.assignment.Nodes, f.alive, true); !ok {
		return fmt.Sprintf("%s: nobody can be chosen yet: %s", text, why)
	} else {
		return fmt.Sprintf("%s: %s is about to be chosen; wait until the group is open again", text, to)
	}
}

func summarize(r client.Readiness) client.Readiness {
	r.Ready = true
	for _, c := range r.Checks {
		r.Ready = r.Ready && c.OK
	}
	return r
}

func word(b bool, yes, no string) string {
	if b {
		return yes
	}
	return no
}
