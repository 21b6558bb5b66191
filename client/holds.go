package client

import (
	"bytes"
	"context"
	"net/http"
	"time"
)

// Hold keeps receivers on the data nodes for a named consumer: nothing after its position is deleted while it lasts.
type Hold struct {
	Name     string    `json:"name"`
	Position string    `json:"position"` // the consumer has everything up to here
	Until    time.Time `json:"until,omitzero"`
}

// HoldRequest sets or renews a hold.
type HoldRequest struct {
	Position string `json:"position"`
	For      string `json:"for,omitempty"` // a duration such as 24h: it ends by itself unless it is renewed
}

// SetHold sets the hold of a consumer, or renews it. A cluster that keeps no holds answers ErrNotFound (unknown_path) or
// ErrUnsupported.
func (c *Client) SetHold(ctx context.Context, group, name string, r HoldRequest) (Hold, error) {
	h := Hold{Name: name, Position: r.Position}
	x, err := post(r, "v1", "groups", group, "holds", name)
	if err != nil {
		return h, err
	}
	x.method = http.MethodPut
	a, err := c.do(ctx, x)
	if err != nil || len(bytes.TrimSpace(a.body)) == 0 {
		return h, err
	}
	return h, a.decode(&h)
}

// Holds lists the holds of a group.
func (c *Client) Holds(ctx context.Context, group string) ([]Hold, error) {
	return list[Hold](ctx, c, get("v1", "groups", group, "holds"))
}

// RemoveHold ends the hold of a consumer.
func (c *Client) RemoveHold(ctx context.Context, group, name string) error {
	x := get("v1", "groups", group, "holds", name)
	x.method = http.MethodDelete
	_, err := c.do(ctx, x)
	return err
}
