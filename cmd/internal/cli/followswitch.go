package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/understudy-ha/understudy/client"
)

// seekSwitch bounds how long a switch-over is looked for of which it is not known whether it began: Raft elects a leader within it.
const seekSwitch = 15 * time.Second

// switcher asks for switch-overs and follows each to its end. An answer that is missing, or that says that Raft's leader changed, ends nothing:
// the operation stands in Raft, and every node tells of it.
type switcher struct {
	cl   *client.Client
	seek time.Duration // seekSwitch but in tests
}

// run returns the operation as Client.Switchover does. Nothing is asked for twice. The error is the first one when nobody knows of an operation.
func (s switcher) run(ctx context.Context, group string, r client.SwitchoverRequest, wait time.Duration) (client.Operation, error) {
	end := time.Now().Add(wait)
	before, known := s.newest(ctx, group)
	op, err := s.cl.Switchover(ctx, group, r, wait)
	if err == nil || !known || client.OutcomeOf(err) != client.OutcomeUndecided {
		return op, err
	}
	id := s.find(ctx, group, r.To, before)
	if id == 0 {
		return op, err
	}
	return s.follow(ctx, id, end)
}

// newest is the highest number of an operation of the group; false when nobody tells.
func (s switcher) newest(ctx context.Context, group string) (id uint64, known bool) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	all, err := s.cl.Operations(ctx)
	for _, o := range all {
		if o.Group == group {
			id = max(id, o.ID)
		}
	}
	return id, err == nil
}

// find looks for the switch-over that was asked for after before; 0 when none turns up. Whoever else asked for the same one meanwhile has the
// same operation: a group runs one.
func (s switcher) find(ctx context.Context, group, to string, before uint64) uint64 {
	for end := time.Now().Add(s.seek); ; {
		ask, cancel := context.WithTimeout(ctx, askTimeout)
		all, err := s.cl.Operations(ask)
		cancel()
		if err == nil {
			for _, o := range all {
				if o.Group == group && o.ID > before && o.Kind == "switchover" && (to == "" || o.To == to) {
					return o.ID
				}
			}
		}
		if !s.rest(ctx, end) {
			return 0
		}
	}
}

// follow asks any node until the operation is over, or it is end.
func (s switcher) follow(ctx context.Context, id uint64, end time.Time) (client.Operation, error) {
	for {
		const piece = 10 * time.Second
		ask, cancel := context.WithTimeout(ctx, piece+askTimeout)
		op, err := s.cl.Operation(ask, id, max(time.Millisecond, min(piece, time.Until(end))))
		cancel()
		if err == nil && op.Finished() {
			return op, nil
		}
		if !s.rest(ctx, end) {
			if err != nil {
				return op, fmt.Errorf("switch-over %d began, and nobody tells its end: %w", id, err)
			}
			return op, nil
		}
	}
}

// rest waits for a moment; false when it is end.
func (s switcher) rest(ctx context.Context, end time.Time) bool {
	if !time.Now().Before(end) {
		return false
	}
	select {
	case <-time.After(100 * time.Millisecond):
		return true
	case <-ctx.Done():
		return false
	}
}
