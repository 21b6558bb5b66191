package client

import (
	"context"
	"iter"
	"strings"
	"time"
)

// EventQuery says which events are wanted. The zero value wants all that a node keeps.
type EventQuery struct {
	Since    uint64   // only events with a higher id
	Kinds    []string // empty: all; such as SRPRIMARY
	Group    string   // "": all; events that concern no single group come in any case
	Severity string   // at least this; "": info
}

// Events lists the answering node's events with an id above since, oldest first. With none it waits up to wait for one.
func (c *Client) Events(ctx context.Context, since uint64, wait time.Duration) ([]Event, error) {
	return c.FindEvents(ctx, EventQuery{Since: since}, wait)
}

// FindEvents is Events for some events only.
func (c *Client) FindEvents(ctx context.Context, q EventQuery, wait time.Duration) ([]Event, error) {
	x := get("v1", "events")
	setNumber(x.query, "since", q.Since)
	setText(x.query, "kind", strings.Join(q.Kinds, ","))
	setText(x.query, "group", q.Group)
	setText(x.query, "severity", q.Severity)
	x.wait = wait
	return list[Event](ctx, c, x)
}

// Follow iterates over the answering node's events above since, for as long as the context lives. Give the client one
// address: ids are those of one node.
func (c *Client) Follow(ctx context.Context, since uint64) iter.Seq2[Event, error] {
	return c.FollowEvents(ctx, EventQuery{Since: since})
}

// FollowEvents is Follow for some events only.
func (c *Client) FollowEvents(ctx context.Context, q EventQuery) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		for {
			events, err := c.FindEvents(ctx, q, pollWait)
			if err != nil {
				yield(Event{}, err)
				return
			}
			for _, e := range events {
				q.Since = max(q.Since, e.ID)
				if !yield(e, nil) {
					return
				}
			}
		}
	}
}
