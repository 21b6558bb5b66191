package node

import (
	"context"
	"errors"
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"

	"github.com/understudy-ha/understudy/api"
	"github.com/understudy-ha/understudy/client"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/replica"
)

// refusing is a node whose writes end with one error.
type refusing struct {
	api.Data
	api.Roles
	err func() error
}

func (r refusing) Put(context.Context, string, []byte, []byte, api.WriteOptions) (client.WriteResult, error) {
	return client.WriteResult{}, r.err()
}

func (r refusing) Ready(context.Context) error { return nil }

// Proves S4 from the replica to the client: every error of a write says "not done" only when nothing was sequenced, whatever
// it is wrapped in, and what was sequenced is undecided, with its position.
func TestWriteErrorsKeepTheirClass(t *testing.T) {
	at := ident.Position{Epoch: 3, History: 42}
	lease := fmt.Errorf("%w: %w", replica.ErrNoLease, context.DeadlineExceeded)
	for _, tc := range []struct {
		name string
		err  error
		want string
	}{
		{"not primary", replica.ErrNotPrimary, client.OutcomeNotDone},
		{"no lease", lease, client.OutcomeNotDone},
		{"waited in vain", fmt.Errorf("%w: %w", replica.ErrNotSequenced, context.DeadlineExceeded), client.OutcomeNotDone},
		{"the client left the queue", fmt.Errorf("%w: %w", replica.ErrNotSequenced, context.Canceled), client.OutcomeNotDone},
		{"no sync", replica.ErrNoSync, client.OutcomeNotDone},
		{"queue full", replica.ErrQueueFull, client.OutcomeNotDone},
		{"too large", fmt.Errorf("%w: 17 MiB", replica.ErrTooLarge), client.OutcomeNotDone},
		{"invalid", replica.ErrInvalid, client.OutcomeNotDone},
		{"condition", replica.ErrCondition, client.OutcomeNotDone},
		{"which condition", &replica.ConditionError{File: "f", Key: []byte("k")}, client.OutcomeNotDone},
		{"key of another request", replica.ErrKeyReused, client.OutcomeNotDone},
		{"closed", replica.ErrClosed, client.OutcomeNotDone},
		{"not attached", replica.ErrNotAttached, client.OutcomeNotDone},
		{"sequenced, then the role was lost", &replica.UnknownOutcomeError{Position: at, Reason: replica.ErrNotPrimary}, client.OutcomeUndecided},
		{"sequenced, then the client left", &replica.UnknownOutcomeError{Position: at, Reason: context.Canceled}, client.OutcomeUndecided},
		{"sequenced, then time was over", fmt.Errorf("write: %w", &replica.UnknownOutcomeError{Position: at, Reason: context.DeadlineExceeded}), client.OutcomeUndecided},
		{"sequenced, then no sync", &replica.UnknownOutcomeError{Position: at, Reason: replica.ErrNoSync}, client.OutcomeUndecided},
		{"sequenced, with two reasons", errors.Join(replica.ErrNotPrimary, &replica.UnknownOutcomeError{Position: at, Reason: replica.ErrNoLease}), client.OutcomeUndecided},
		{"the journal failed", &replica.FatalError{Part: "journal orders/a", Err: errors.New("no space left on device")}, client.OutcomeUndecided},
		{"time is over, nobody says more", context.DeadlineExceeded, client.OutcomeUndecided},
		{"the client left, nobody says more", context.Canceled, client.OutcomeUndecided},
		{"an error that nobody knows", errors.New("boom"), client.OutcomeUndecided},
	} {
		t.Run(tc.name, func(t *testing.T) {
			n := &Node{}
			answer := func() error {
				if replica.NotDone(tc.err) && (errors.Is(tc.err, replica.ErrNotPrimary) || errors.Is(tc.err, replica.ErrNoLease)) {
					return &api.Elsewhere{} // the node asks its state who is
				}
				return n.explainWrite("orders", tc.err)
			}
			r := refusing{err: answer}
			interfaces := api.New(api.Options{Node: "a", Data: r, Roles: r, Logger: hclog.NewNullLogger()})
			server := httptest.NewServer(interfaces.Handler())
			defer server.Close()
			c := client.NewWith(client.Options{Addresses: []string{strings.TrimPrefix(server.URL, "http://")}, Retry: -1})
			defer c.Close()
			_, err := c.Put(t.Context(), "f", []byte("k"), []byte("v"), client.WriteOptions{Wait: 1e6})
			if got := client.OutcomeOf(err); got != tc.want {
				t.Fatalf("%v is %s at the client (%v), want %s", tc.err, got, err, tc.want)
			}
			var unknown *replica.UnknownOutcomeError
			var e *client.Error
			if errors.As(tc.err, &unknown) && (!errors.As(err, &e) || e.Position != "orders@3.42" || !strings.Contains(e.Remedy, "receipts/orders@3.42")) {
				t.Errorf("the answer %+v does not say where it stands", e)
			}
		})
	}
}
