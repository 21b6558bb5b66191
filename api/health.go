package api

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/understudy-ha/understudy/client"
)

// healthTime bounds the work of a health path: a checker that hears nothing takes a node for dead anyway.
const healthTime = 2 * time.Second

// lagLimit is the value of ?lag=: a number of entries, or a duration. Zero fields do not limit.
type lagLimit struct {
	set     bool
	entries uint64
	age     time.Duration
	byAge   bool
}

func parseLag(text string) (lagLimit, error) {
	if text == "" {
		return lagLimit{}, nil
	}
	if n, err := strconv.ParseUint(text, 10, 64); err == nil {
		return lagLimit{set: true, entries: n}, nil
	}
	if d, err := time.ParseDuration(text); err == nil && d >= 0 {
		return lagLimit{set: true, age: d, byAge: true}, nil
	}
	return lagLimit{}, invalid("lag="+shorten(text)+" is neither a number nor a duration", "want a number of entries, such as 100, or a duration, such as 2s")
}

// exceeded says by how much the copy is behind the limit; "" when it is not.
func (l lagLimit) exceeded(c client.Copy) string {
	switch {
	case l.set && l.byAge && c.LagSeconds > l.age.Seconds():
		return fmt.Sprintf("%.1f s behind, at most %s wanted", c.LagSeconds, l.age)
	case l.set && !l.byAge && c.LagEntries > l.entries:
		return fmt.Sprintf("%d entries behind, at most %d wanted", c.LagEntries, l.entries)
	}
	return ""
}

// health answers a health path: 200 when the condition holds, else 503.
func (a *API) health(r *request, condition string) (reply, error) {
	limit, err := parseLag(r.query.Get("lag"))
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(r.Context(), healthTime)
	defer cancel()
	h, err := a.examine(ctx, condition, r.query.Get("group"), limit)
	if err != nil {
		return nil, err
	}
	status := http.StatusOK
	if !h.Holds {
		status = http.StatusServiceUnavailable
	}
	return jsonReply(status, h)
}

// examine finds out whether the condition holds for the group, or for every group. The conditions:
//
//	livez      the process answers; looks at nothing else
//	readyz     this node takes part: it knows the Raft leader and its copies are open; its copy of each group is readable
//	health     a Raft leader is known, each group has an open primary, and this node's copy is neither stopped nor in need of
//	           priming, nor primary without a lease. A group without enough in-sync secondaries is healthy, and marked degraded
//	primary    this node takes the writes now: opened, reconciled, lease valid
//	secondary  this node is an in-sync shadow in good order
//	standby    this node is a spare in good order
//	replica    this node is a secondary or standby that may answer reads, and no further behind than ?lag=
func (a *API) examine(ctx context.Context, condition, group string, limit lagLimit) (client.Health, error) {
	h := client.Health{Node: a.o.Node, Condition: condition}
	if condition == "livez" {
		h.Holds = true
		return h, nil
	}
	s, err := a.o.Roles.Status(ctx, true)
	if err == nil && condition == "readyz" {
		err = a.o.Roles.Ready(ctx)
	}
	if err != nil {
		h.Reason = err.Error()
		return h, nil
	}
	h.Holds, h.Warnings = true, warnings(s)
	for _, g := range s.Groups {
		if group != "" && g.Name != group {
			continue
		}
		gh := client.GroupHealth{
			Group: g.Name, Role: g.Local.Role, Primary: g.Primary, Epoch: g.Epoch,
			Degraded:   len(g.InSync) < g.Spec.Secondaries && g.Spec.Delivery != "async",
			LagEntries: g.Local.LagEntries, LagSeconds: g.Local.LagSeconds,
		}
		gh.Reason = unmet(condition, g, limit)
		gh.Holds = gh.Reason == ""
		if !gh.Holds && h.Holds {
			h.Holds, h.Reason = false, "group "+g.Name+": "+gh.Reason
		}
		h.Groups = append(h.Groups, gh)
	}
	switch {
	case len(h.Groups) == 0 && group != "" && len(s.Groups) > 0:
		return h, &client.Error{Code: client.CodeUnknownGroup, Detail: "there is no group " + shorten(group)}
	case len(h.Groups) == 0 && group != "":
		h.Holds, h.Reason = false, "there is no group "+shorten(group)
	case len(h.Groups) == 0 && condition != "health" && condition != "readyz":
		h.Holds, h.Reason = false, "there is no group"
	case condition == "health" && s.RaftLeader == "":
		h.Holds, h.Reason = false, "no Raft leader is known"
	}
	return h, nil
}

// warnings lists what operators ordered for a while: it decides nothing here, and should not be forgotten.
func warnings(s client.Status) []string {
	var all []string
	if p := s.Pause; p != nil {
		all = append(all, "automatic failover is paused: "+p.Reason)
	}
	for _, n := range s.Nodes {
		if n.Maintenance != nil {
			all = append(all, "node "+n.ID+" is in maintenance: "+n.Maintenance.Reason)
		}
	}
	for _, g := range s.Groups {
		for _, d := range g.Dropped {
			all = append(all, "node "+d.Node+" was dropped from group "+g.Name+": "+d.Reason)
		}
		if g.Full != "" {
			all = append(all, "writes of group "+g.Name+" are refused: "+g.Full)
		}
	}
	return all
}

// unmet says why the condition does not hold for the group on this node; "" when it does.
func unmet(condition string, g client.GroupStatus, limit lagLimit) string {
	c := g.Local
	disorder := c.Error
	if disorder == "" && c.NeedsPriming {
		disorder = "this copy needs priming"
	}
	switch condition {
	case "readyz":
		if c.Role == "" || c.Role == client.RoleWitness || c.Serving || c.Readable {
			return ""
		}
		return "this copy is not reconciled yet"
	case "health":
		switch {
		case disorder != "":
			return disorder
		case g.Primary == "" || g.Phase != "opened":
			return "no primary is open"
		case c.Role == client.RolePrimary && !c.Serving:
			return "this node is primary but does not serve yet, or its lease ran out"
		}
		return ""
	case "primary":
		switch {
		case c.Serving:
			return ""
		case c.Role == client.RolePrimary:
			return "this node is primary but does not serve yet, or its lease ran out"
		}
		return other(g)
	case "replica":
		if c.Role != client.RoleSecondary && c.Role != client.RoleStandby {
			return other(g)
		}
		if disorder == "" && !c.Readable {
			disorder = "this copy is not reconciled yet"
		}
		if disorder == "" {
			disorder = limit.exceeded(c)
		}
		return disorder
	}
	if c.Role != condition { // secondary, standby
		return other(g)
	}
	return disorder
}

// other names the role this node has instead.
func other(g client.GroupStatus) string {
	role := g.Local.Role
	if role == "" {
		role = "without a copy"
	}
	if g.Primary == "" {
		return "this node is " + role + "; nobody is primary"
	}
	if role == client.RolePrimary {
		return "this node is the primary"
	}
	return "this node is " + role + "; the primary is " + g.Primary
}
