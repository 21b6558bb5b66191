package client

import (
	"context"
	"iter"
	"time"
)

// Events lists the answering node's events with an id above since, oldest first. With none it waits up to wait for one.
func (c *Client) Events(ctx context.Context, since uint64, wait time.Duration) ([]Event, error) {
	x := get("v1", "events")
	setNumber(x.query, "since", since)
	x.wait = wait
	return list[Event](ctx, c, x)
}

// Follow iterates over the answering node's events above since, for as long as the context lives. Give the client one
// address: ids are those of one node.
func (c *Client) Follow(ctx context.Context, since uint64) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		for {
			events, err := c.Events(ctx, since, pollWait)
			if err != nil {
				yield(Event{}, err)
				return
			}
			for _, e := range events {
				since = max(since, e.ID)
				if !yield(e, nil) {
					return
				}
			}
		}
	}
}
