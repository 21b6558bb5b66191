package client

import (
	"context"
	"net/http"
	"net/url"
	"time"
)

// Order is what an operator ordered for a while: a pause, or the maintenance of a node.
type Order struct {
	Reason string    `json:"reason"`
	By     string    `json:"by,omitempty"`
	Since  time.Time `json:"since"`
	Until  time.Time `json:"until,omitzero"` // it ends by itself then; zero: only an operator ends it
}

// OrderRequest begins a pause or a maintenance, or gives a running one another reason and end.
type OrderRequest struct {
	Reason string    `json:"reason"`         // for whoever looks at the status; must not be empty
	By     string    `json:"by,omitempty"`   // left out: the address that the request came from
	For    Duration  `json:"for,omitzero"`   // it ends by itself after so long
	Until  time.Time `json:"until,omitzero"` // or then; zero, as For: only an operator ends it
}

// PauseState is the answer to the beginning or end of a pause.
type PauseState struct {
	Pause *Order `json:"pause"` // null: not paused
	Note  string `json:"note"`  // what that means

	Warning string `json:"warning,omitempty"` // groups that lack in-sync secondaries and get no other ones until the pause ends
}

// MaintenanceState is the answer to the beginning or end of a node's maintenance.
type MaintenanceState struct {
	Node        string   `json:"node"`
	Maintenance *Order   `json:"maintenance"` // null: not in maintenance
	Primary     []string `json:"primary"`     // groups whose primary the node is: it goes on to be
	Note        string   `json:"note"`        // what that means, and what to do next
}

// Pause keeps automatic failovers, switch-backs and replacements from beginning in the whole cluster. Commands of operators
// work on, and what has begun goes on.
func (c *Client) Pause(ctx context.Context, r OrderRequest) (PauseState, error) {
	return order[PauseState](ctx, c, http.MethodPut, r, "v1", "pause")
}

// Resume ends the pause. Ending what is not paused does no harm.
func (c *Client) Resume(ctx context.Context) (PauseState, error) {
	return order[PauseState](ctx, c, http.MethodDelete, nil, "v1", "pause")
}

// Maintain puts a node into maintenance: no role goes there by itself as long as another node may take it. A primary
// stays primary.
func (c *Client) Maintain(ctx context.Context, node string, r OrderRequest) (MaintenanceState, error) {
	return order[MaintenanceState](ctx, c, http.MethodPut, r, "v1", "nodes", node, "maintenance")
}

// EndMaintenance takes a node out of maintenance. Ending what is over does no harm.
func (c *Client) EndMaintenance(ctx context.Context, node string) (MaintenanceState, error) {
	return order[MaintenanceState](ctx, c, http.MethodDelete, nil, "v1", "nodes", node, "maintenance")
}

func order[T any](ctx context.Context, c *Client, method string, body any, path ...string) (T, error) {
	x := exchange{method: method, path: pathOf(path...), query: url.Values{}}
	if body != nil {
		p, err := post(body, path...)
		if err != nil {
			var zero T
			return zero, err
		}
		p.method = method
		x = p
	}
	return ask[T](ctx, c, x)
}
