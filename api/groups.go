package api

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/understudy-ha/understudy/client"
	"github.com/understudy-ha/understudy/internal/ident"
)

// Groups changes groups while they run, and keeps what consumers hold of their journals. Errors are as in Data.
type Groups interface {
	// ChangeGroup gives the named keys of a group the values in spec; ifVersion, when it is not nil, must be the spec's.
	// Codes unknown_group, invalid, precondition.
	ChangeGroup(ctx context.Context, group string, keys []string, spec client.GroupSpec, ifVersion *uint64, by string) (client.GroupChange, error)
	// DeleteGroup deletes a group without records, or, on a dry run, says what keeps it from that. Codes unknown_group; exists when it
	// holds records; busy, precondition.
	DeleteGroup(ctx context.Context, group string, dryRun bool, by string) (client.GroupDeletion, error)
	// Readmit lets a dropped node take part again; code precondition when its copy does not connect.
	Readmit(ctx context.Context, group, node, by string) (client.Readmission, error)
	// Holds lists the holds of a group by name.
	Holds(ctx context.Context, group string) ([]client.Hold, error)
	// SetHold sets or moves a hold to a position of the group.
	SetHold(ctx context.Context, group, name string, at ident.Position, r client.HoldRequest) (client.Hold, error)
	// RemoveHold removes a hold, if there is one.
	RemoveHold(ctx context.Context, group, name string) error
}

// usualHold is how long a hold lasts that does not say so: a reader that is forgotten must not fill the disks.
const usualHold = 24 * time.Hour

func (a *API) changeGroup(r *request) (reply, error) {
	group, err := r.group()
	if err != nil {
		return nil, err
	}
	var fields map[string]json.RawMessage
	if err := r.decode(&fields); err != nil {
		return nil, err
	}
	keys := slices.Sorted(maps.Keys(fields))
	for _, key := range keys {
		if string(fields[key]) == "null" { // the default
			delete(fields, key)
		}
	}
	keys = slices.DeleteFunc(keys, func(k string) bool { return k == client.PatchIfVersion })
	if len(keys) == 0 {
		return nil, invalid("nothing is to be changed", `name what to change, such as {"delivery":"async"}`)
	}
	for i, key := range keys {
		known := slices.Contains(specKeys(), key)
		if !known {
			return nil, invalid(fmt.Sprintf("field %q is no key of a group", shorten(keys[i])), "see docs/openapi.yaml for the fields")
		}
	}
	var patch struct {
		client.GroupSpec
		IfVersion *uint64 `json:"if_version"`
	}
	valued := *r // r keeps what was sent: it may be forwarded, where a null counts again
	if valued.body, err = json.Marshal(fields); err != nil {
		return nil, err
	}
	if err := valued.decode(&patch); err != nil {
		return nil, err
	}
	c, err := a.o.Roles.ChangeGroup(r.Context(), group, keys, patch.GroupSpec, patch.IfVersion, origin(r.RemoteAddr))
	if err == nil {
		a.asked(r, group)
	}
	return answer(c, err)
}

// specKeys lists the keys of a group.
func specKeys() []string {
	return []string{"name", "order", "files", "keys", "preferred", "delivery", "secondaries", "on_no_sync", "auto_failover", "images", "receiver_bytes", "keep_receivers",
		"switchback", "switchback_after", "blocks", "maximum_blocks", "journal_full", "receiver_age", "compression", "journal_replays", "feeds"}
}

func (a *API) deleteGroup(r *request) (reply, error) {
	group, err := r.group()
	if err != nil {
		return nil, err
	}
	dry, err := r.flag("dry_run")
	if err != nil {
		return nil, err
	}
	d, err := a.o.Roles.DeleteGroup(r.Context(), group, dry, origin(r.RemoteAddr))
	if err == nil && !dry {
		a.asked(r, group)
	}
	return answer(d, err)
}

func (a *API) readmit(r *request) (reply, error) {
	group, err := r.group()
	if err != nil {
		return nil, err
	}
	node, err := r.variable("node")
	if err != nil {
		return nil, err
	}
	x, err := a.o.Roles.Readmit(r.Context(), group, node, origin(r.RemoteAddr))
	if err == nil {
		a.asked(r, group)
	}
	return answer(x, err)
}

func (a *API) holds(r *request) (reply, error) {
	group, err := r.group()
	if err != nil {
		return nil, err
	}
	return items(a.o.Roles.Holds(r.Context(), group))
}

func (a *API) setHold(r *request) (reply, error) {
	group, name, err := r.hold()
	if err != nil {
		return nil, err
	}
	var h client.HoldRequest
	if err := r.decode(&h); err != nil {
		return nil, err
	}
	of, at, err := ident.ParsePosition(h.Position)
	switch {
	case h.Position == "":
		return nil, invalid("the position is missing", `say how far the consumer has read: {"position":"`+group+`@3.42","for":"24h"}`)
	case err != nil || of != "" && string(of) != group:
		return nil, invalid("position "+shorten(h.Position)+" is none of this group", "want "+group+"@EPOCH.H, such as "+group+"@3.42, or 0.0 for the beginning")
	case h.For < 0 || time.Duration(h.For) > longestOrder:
		return nil, invalid("for="+h.For.String()+" is not possible", "want more than 0s, and at most "+longestOrder.String())
	case h.For == 0:
		h.For = client.Duration(usualHold)
	}
	if h.By == "" {
		h.By = origin(r.RemoteAddr)
	}
	return answer(a.o.Roles.SetHold(r.Context(), group, name, at, h))
}

func (a *API) removeHold(r *request) (reply, error) {
	group, name, err := r.hold()
	if err != nil {
		return nil, err
	}
	if err := a.o.Roles.RemoveHold(r.Context(), group, name); err != nil {
		return nil, err
	}
	return done(nil)
}

// hold returns group and name in the path.
func (r *request) hold() (group, name string, err error) {
	if group, err = r.group(); err != nil {
		return "", "", err
	}
	name, err = r.variable("name")
	return group, name, err
}
