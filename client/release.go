package client

import "context"

// ReleaseRequest says which life of a node is over.
type ReleaseRequest struct {
	Incarnation string `json:"incarnation"` // of the dead process: 16 hexadecimal digits, as in the file `incarnation` of its data directory
}

// Release is the answer to a crash release.
type Release struct {
	Node        string   `json:"node"`
	Incarnation string   `json:"incarnation"`
	Groups      []string `json:"groups"` // whose primary that life was: they fail over now
}

// ReasonOtherLife is the reason of a refused release when the node's newest life is another one: nothing is to be released.
const ReasonOtherLife = "other_life"

// ReleaseNode ends the lease of one life of a node at once, so that its roles need not wait for the lease to run out. Only
// who knows that the process is dead may say so: its parent after it has waited for it, or who holds the exclusive lock of
// the node's data directory and has read the incarnation there. Releasing the same life again does no harm. ErrPrecondition
// with Error.Reason ReasonOtherLife: that life is not the node's newest.
func (c *Client) ReleaseNode(ctx context.Context, node, incarnation string) (Release, error) {
	x, err := post(ReleaseRequest{Incarnation: incarnation}, "v1", "nodes", node, "release")
	if err != nil {
		return Release{}, err
	}
	return ask[Release](ctx, c, x)
}
