package client

import (
	"context"
	"errors"
	"time"
)

// settleWait is how long a node is asked to wait for a decision, each time.
const settleWait = 5 * time.Second

// Settle finds out what has become of a write that returned err, as long as ctx lives. After nil or an error that says that surely nothing was
// done it asks nobody. An ErrUnknownOutcome that says where the write would stand is settled by its receipt, at any node, or, of local files,
// at the one that took the write; the answer is
// OutcomeDone or OutcomeNotDone. One that does not say so, since the connection broke before the node could, stays undecided: Settle
// returns err itself. Writes with an idempotency key need no Settle: repeat them with the same key.
func (c *Client) Settle(ctx context.Context, err error) (Receipt, error) {
	outcome := OutcomeOf(err)
	if outcome != OutcomeUndecided {
		return Receipt{Outcome: outcome}, nil
	}
	e, ok := asError(err)
	if !ok || !errors.Is(err, ErrUnknownOutcome) || e.Position == "" {
		return Receipt{Outcome: OutcomeUndecided}, err
	}
	pause := firstPause
	for {
		wait := settleWait
		if end, limited := ctx.Deadline(); limited {
			wait = min(wait, max(time.Until(end), time.Millisecond))
		}
		r, err := c.Receipt(ctx, e.Position, wait)
		if err == nil && r.Outcome != OutcomeUndecided || err != nil && (!CodeOf(err).NotDone() || errors.Is(err, ErrInvalid) || errors.Is(err, ErrGone)) {
			return r, err
		}
		select {
		case <-time.After(jittered(pause)):
		case <-ctx.Done():
			if err == nil {
				err = e
			}
			return Receipt{Position: e.Position, Outcome: OutcomeUndecided}, err
		}
		pause = min(2*pause, lastPause)
	}
}
