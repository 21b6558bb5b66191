package client

import (
	"context"
	"time"
)

// Where a copy can be told to begin, beside the number of a receiver: CopyStartRequest.From.
const (
	StartKnown    = "known"    // the receiver known to the target: where its copy ends, as without being told
	StartFirst    = "first"    // the first receiver that the primary holds
	StartAttached = "attached" // the receiver that is written at present
)

// CopyStartRequest says with which receiver a node's copy of the primary's journal is to begin.
type CopyStartRequest struct {
	Target string `json:"target"`
	From   string `json:"from"` // known | first | attached, or the number of a receiver
}

// CopyStart says where a copy goes on.
type CopyStart struct {
	Journal  string `json:"journal"`
	Target   string `json:"target"`
	Receiver uint32 `json:"receiver,omitempty"` // the one that was named; 0 with known
	From     uint64 `json:"from"`               // first sequence that is shipped to the target
	Kept     bool   `json:"kept"`               // the copy had the start of that receiver, and goes on where it ends
	Note     string `json:"note"`
}

// StartCopy has a node's copy of the journal of node, which must be the primary, begin with a receiver, and returns once it does.
// ErrPrecondition says why it may not, and nothing has changed. wait 0: 30 s.
func (c *Client) StartCopy(ctx context.Context, group, node string, r CopyStartRequest, wait time.Duration) (CopyStart, error) {
	x, err := post(r, "v1", "groups", group, "journals", node, "start")
	if err != nil {
		return CopyStart{}, err
	}
	if x.wait = wait; x.wait <= 0 {
		x.wait = 30 * time.Second
	}
	return ask[CopyStart](ctx, c, x)
}
