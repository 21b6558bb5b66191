package client

import (
	"context"
	"time"
)

// Outcomes of a write, as in Receipt.
const (
	OutcomeDone      = "done"      // it is part of the committed history
	OutcomeNotDone   = "not_done"  // it is not, and never will be
	OutcomeUndecided = "undecided" // still open: ask again, or wait
)

// Receipt tells what has become of a write that was answered with ErrUnknownOutcome.
type Receipt struct {
	Position  string `json:"position"`  // that was asked for, "orders@3.42"
	Outcome   string `json:"outcome"`   // one of the Outcome constants
	Committed string `json:"committed"` // end of the history that the answering node knows to be committed
	Epoch     uint64 `json:"epoch"`     // of the group, at that node
	Node      string `json:"node"`      // who says so
}

// Receipt asks what has become of the write at a position, such as Error.Position of an ErrUnknownOutcome. While that is
// undecided it waits, at most for wait.
func (c *Client) Receipt(ctx context.Context, position string, wait time.Duration) (Receipt, error) {
	x := get("v1", "receipts", position)
	x.wait = wait
	return ask[Receipt](ctx, c, x)
}
