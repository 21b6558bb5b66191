package client

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// pollWait is how long one request waits at a node while the client waits for longer: below the limits of proxies.
const pollWait = 20 * time.Second

// Status describes the cluster. What only a primary knows is fetched from it by the node that answers.
func (c *Client) Status(ctx context.Context) (Status, error) {
	return ask[Status](ctx, c, get("v1", "status"))
}

// LocalStatus is Status as the answering node alone knows it.
func (c *Client) LocalStatus(ctx context.Context) (Status, error) {
	x := get("v1", "status")
	x.query.Set("local", "true")
	return ask[Status](ctx, c, x)
}

// Nodes lists the members of the cluster.
func (c *Client) Nodes(ctx context.Context) ([]NodeStatus, error) {
	return list[NodeStatus](ctx, c, get("v1", "nodes"))
}

// Groups lists the groups.
func (c *Client) Groups(ctx context.Context) ([]GroupStatus, error) {
	return list[GroupStatus](ctx, c, get("v1", "groups"))
}

// Group describes one group; ErrUnknownGroup.
func (c *Client) Group(ctx context.Context, group string) (GroupStatus, error) {
	return ask[GroupStatus](ctx, c, get("v1", "groups", group))
}

// CreateGroup adds a group; ErrExists when there is one of that name.
func (c *Client) CreateGroup(ctx context.Context, spec GroupSpec) error {
	x, err := post(spec, "v1", "groups")
	if err != nil {
		return err
	}
	_, err = c.do(ctx, x)
	return err
}

// Resync describes the running resynchronization of a group.
func (c *Client) Resync(ctx context.Context, group string) (Resync, error) {
	return ask[Resync](ctx, c, get("v1", "groups", group, "resync"))
}

// Why says whether the group could be switched over to a node now, and why not; to "" means the best candidate.
func (c *Client) Why(ctx context.Context, group, to string) (Readiness, error) {
	x := get("v1", "groups", group, "why")
	setText(x.query, "to", to)
	return ask[Readiness](ctx, c, x)
}

// Switchover starts a planned switch-over and follows it up to wait; 0 returns as soon as it has started. An operation
// that is not Finished goes on by itself: WaitOperation. ErrPrecondition carries the failed checks in Error.Checks, and
// nothing has changed. For a dry run use DryRun. With r.At it is only scheduled, and returned as OperationScheduled at once;
// ErrBusy when the group has another one.
func (c *Client) Switchover(ctx context.Context, group string, r SwitchoverRequest, wait time.Duration) (Operation, error) {
	r.DryRun = false
	return c.operate(ctx, r, wait, group, "switchover")
}

// DryRun checks a switch-over without doing it. Failed checks are no error here: see Readiness.Ready.
func (c *Client) DryRun(ctx context.Context, group string, r SwitchoverRequest) (Readiness, error) {
	r.DryRun = true
	x, err := post(r, "v1", "groups", group, "switchover")
	if err != nil {
		return Readiness{}, err
	}
	ready, err := ask[Readiness](ctx, c, x)
	if e, ok := asError(err); ok && e.Code == CodePrecondition && len(e.Checks) > 0 {
		return Readiness{Group: group, To: r.To, Checks: e.Checks}, nil
	}
	return ready, err
}

// Switchback is Switchover to the preferred node; r.To stays empty.
func (c *Client) Switchback(ctx context.Context, group string, r SwitchoverRequest, wait time.Duration) (Operation, error) {
	r.DryRun = false
	return c.operate(ctx, r, wait, group, "switchback")
}

// CancelSwitchover rolls the running switch-over back, and calls a scheduled one off; ErrPrecondition when the running one is past its
// commit point, or when there is none.
func (c *Client) CancelSwitchover(ctx context.Context, group string) error {
	_, err := c.do(ctx, exchange{method: http.MethodDelete, path: pathOf("v1", "groups", group, "switchover"), query: url.Values{}})
	return err
}

// Failover starts a failover by hand and follows it as Switchover does.
func (c *Client) Failover(ctx context.Context, group string, r FailoverRequest, wait time.Duration) (Operation, error) {
	return c.operate(ctx, r, wait, group, "failover")
}

// operate posts a request that starts an operation, and follows the operation for as long as the caller waits.
func (c *Client) operate(ctx context.Context, r any, wait time.Duration, group, verb string) (Operation, error) {
	x, err := post(r, "v1", "groups", group, verb)
	if err != nil {
		return Operation{}, err
	}
	end := time.Now().Add(wait)
	if x.wait = min(wait, pollWait); x.wait <= 0 {
		x.wait = time.Millisecond // the node's default is longer
	}
	op, err := ask[Operation](ctx, c, x)
	for err == nil && !op.Finished() && op.State != OperationScheduled && time.Now().Before(end) {
		op, err = c.Operation(ctx, op.ID, min(time.Until(end), pollWait))
	}
	return op, err
}

// Operations lists running and past operations, newest first.
func (c *Client) Operations(ctx context.Context) ([]Operation, error) {
	return list[Operation](ctx, c, get("v1", "operations"))
}

// Operation returns one operation, as soon as it is finished or as it is after wait.
func (c *Client) Operation(ctx context.Context, id uint64, wait time.Duration) (Operation, error) {
	x := get("v1", "operations", strconv.FormatUint(id, 10))
	x.wait = wait
	return ask[Operation](ctx, c, x)
}

// WaitOperation returns once the operation is finished, or with the context's error.
func (c *Client) WaitOperation(ctx context.Context, id uint64) (Operation, error) {
	for {
		op, err := c.Operation(ctx, id, pollWait)
		if err != nil || op.Finished() {
			return op, err
		}
		if err := ctx.Err(); err != nil {
			return op, err
		}
	}
}

// History lists every promotion of a group, oldest first.
func (c *Client) History(ctx context.Context, group string) ([]Certificate, error) {
	return list[Certificate](ctx, c, get("v1", "groups", group, "history"))
}

// Health asks one of the health paths, such as "primary". group "" means every group; lag, for "replica", is a number of
// entries or a duration, "" for no limit. A condition that does not hold is no error.
func (c *Client) Health(ctx context.Context, condition, group, lag string) (Health, error) {
	x := get(condition)
	x.health = true
	setText(x.query, "group", group)
	setText(x.query, "lag", lag)
	return ask[Health](ctx, c, x)
}

// Metrics returns the node's metrics in the Prometheus text format.
func (c *Client) Metrics(ctx context.Context) ([]byte, error) {
	a, err := c.do(ctx, get("metrics"))
	return a.body, err
}
