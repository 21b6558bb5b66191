package api

import (
	"context"
	"net"
	"time"

	"github.com/understudy-ha/understudy/client"
)

// Orders takes what operators order for a while, and forecasts what a failover may lose. Errors are as in Data.
type Orders interface {
	// Pause begins a pause, or gives the running one another reason and end. Reason, By and the end are checked.
	Pause(ctx context.Context, r client.OrderRequest) (client.PauseState, error)
	// Resume ends the pause, if there is one.
	Resume(ctx context.Context) (client.PauseState, error)
	// Maintain puts a node into maintenance; code unknown_node.
	Maintain(ctx context.Context, node string, r client.OrderRequest) (client.MaintenanceState, error)
	// EndMaintenance takes a node out of maintenance, if it is in it; code unknown_node.
	EndMaintenance(ctx context.Context, node string) (client.MaintenanceState, error)
	// ForecastFailover says what a failover with loss allowed may lose; it changes nothing.
	ForecastFailover(ctx context.Context, group string, r client.FailoverRequest) (client.LossForecast, error)
}

// longestOrder bounds for how long something is ordered: a pause of years is a mistake in the unit.
const longestOrder = 366 * 24 * time.Hour

// order reads a request that orders something for a while.
func (r *request) order() (client.OrderRequest, error) {
	var o client.OrderRequest
	if err := r.decode(&o); err != nil {
		return o, err
	}
	switch {
	case o.Reason == "":
		return o, invalid("the reason is missing", `say why, for whoever looks at the status: {"reason":"new switches","for":"2h"}`)
	case o.For > 0 && !o.Until.IsZero():
		return o, invalid("both for and until are set", "say how long, or until when")
	case time.Duration(o.For) > longestOrder:
		return o, invalid("for="+o.For.String()+" is too long", "at most "+longestOrder.String()+"; leave for and until out if only you should end it")
	}
	if o.By == "" {
		o.By = origin(r.RemoteAddr)
	}
	return o, nil
}

// origin is where a request came from, without the port.
func origin(remote string) string {
	if host, _, err := net.SplitHostPort(remote); err == nil {
		return host
	}
	return remote
}

func (a *API) beginPause(r *request) (reply, error) {
	o, err := r.order()
	if err != nil {
		return nil, err
	}
	p, err := a.o.Roles.Pause(r.Context(), o)
	if err == nil {
		a.asked(r, "")
	}
	return answer(p, err)
}

func (a *API) endPause(r *request) (reply, error) {
	p, err := a.o.Roles.Resume(r.Context())
	if err == nil {
		a.asked(r, "")
	}
	return answer(p, err)
}

func (a *API) beginMaintenance(r *request) (reply, error) {
	node, err := r.variable("node")
	if err != nil {
		return nil, err
	}
	o, err := r.order()
	if err != nil {
		return nil, err
	}
	m, err := a.o.Roles.Maintain(r.Context(), node, o)
	if err == nil {
		a.asked(r, "")
	}
	return answer(m, err)
}

func (a *API) endMaintenance(r *request) (reply, error) {
	node, err := r.variable("node")
	if err != nil {
		return nil, err
	}
	m, err := a.o.Roles.EndMaintenance(r.Context(), node)
	if err == nil {
		a.asked(r, "")
	}
	return answer(m, err)
}

// acceptedLoss refuses a failover that may lose entries unless the operator has confirmed what the forecast showed.
func (r *request) acceptedLoss(group string, f *client.FailoverRequest) error {
	const look = `ask with "dry_run":true first: it names the position, and what to send`
	switch {
	case !f.AllowDataLoss && f.DryRun:
		return invalid("a dry run of a failover is a forecast of loss", `send "allow_data_loss":true with it; a failover without it loses nothing that was acknowledged`)
	case !f.AllowDataLoss && (f.Confirm != "" || f.AcceptLossBeyond != "" || f.AcceptLossHighest != "" || f.AcceptUnable):
		return invalid("loss is confirmed but not allowed", `send "allow_data_loss":true, or leave confirm, accept_loss_* and accept_unable out`)
	case f.AllowDataLoss && f.To == client.AnyNode:
		return invalid("data loss is accepted for one named node only", `send {"to":"NODE"}`)
	case !f.AllowDataLoss || f.DryRun:
		return nil
	case f.Confirm != group:
		return invalid("the loss is not confirmed", `send the name of the group as "confirm"; `+look)
	case f.AcceptLossBeyond == "":
		return invalid("the loss is not accepted", `send the position beyond which entries may be lost as "accept_loss_beyond"; `+look)
	}
	if f.By == "" {
		f.By = origin(r.RemoteAddr)
	}
	return nil
}
