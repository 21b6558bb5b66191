package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"

	"github.com/understudy-ha/understudy/client"
)

func (a *API) status(r *request) (reply, error) {
	local, err := r.flag("local")
	if err != nil {
		return nil, err
	}
	return answer(a.o.Roles.Status(r.Context(), local))
}

func (a *API) nodes(r *request) (reply, error) {
	local, err := r.flag("local")
	if err != nil {
		return nil, err
	}
	s, err := a.o.Roles.Status(r.Context(), local)
	return items(s.Nodes, err)
}

func (a *API) groups(r *request) (reply, error) {
	local, err := r.flag("local")
	if err != nil {
		return nil, err
	}
	s, err := a.o.Roles.Status(r.Context(), local)
	return items(s.Groups, err)
}

func (a *API) group(r *request) (reply, error) {
	name, err := r.group()
	if err != nil {
		return nil, err
	}
	return answer(a.o.Roles.Group(r.Context(), name))
}

func (a *API) resync(r *request) (reply, error) {
	name, err := r.group()
	if err != nil {
		return nil, err
	}
	return answer(a.o.Roles.Resync(r.Context(), name))
}

func (a *API) why(r *request) (reply, error) {
	name, err := r.group()
	if err != nil {
		return nil, err
	}
	return answer(a.o.Roles.Why(r.Context(), name, r.query.Get("to")))
}

func (a *API) history(r *request) (reply, error) {
	name, err := r.group()
	if err != nil {
		return nil, err
	}
	return items(a.o.Roles.History(r.Context(), name))
}

func (a *API) createGroup(r *request) (reply, error) {
	var spec client.GroupSpec
	if err := r.decode(&spec); err != nil {
		return nil, err
	}
	if spec.Name == "" {
		return nil, invalid("the group has no name", `send at least {"name":"orders"}`)
	}
	if err := a.o.Roles.CreateGroup(r.Context(), spec); err != nil {
		return nil, err
	}
	a.asked(r, spec.Name)
	return jsonReply(http.StatusCreated, spec, "Location", "/v1/groups/"+spec.Name)
}

func (a *API) switchover(r *request) (reply, error) {
	name, err := r.group()
	if err != nil {
		return nil, err
	}
	var s client.SwitchoverRequest
	if err := r.decode(&s); err != nil {
		return nil, err
	}
	if err := r.named("to"); err != nil {
		return nil, err
	}
	return a.startSwitchover(r, name, s)
}

// switchback is a switch-over to the preferred node.
func (a *API) switchback(r *request) (reply, error) {
	name, err := r.group()
	if err != nil {
		return nil, err
	}
	var s client.SwitchoverRequest
	if err := r.decode(&s); err != nil {
		return nil, err
	}
	if s.To != "" {
		return nil, invalid("a switch-back goes to the preferred node", "leave out to, or use switchover")
	}
	g, err := a.o.Roles.Group(r.Context(), name)
	switch {
	case err != nil:
		return nil, err
	case g.Spec.Preferred == "":
		return nil, &client.Error{Code: client.CodePrecondition, Detail: fmt.Sprintf("group %s has no preferred node", name), Remedy: "use switchover with to"}
	case g.Spec.Preferred == g.Primary:
		return nil, &client.Error{Code: client.CodePrecondition, Detail: fmt.Sprintf("%s, the preferred node of group %s, is its primary already", g.Primary, name), Remedy: "nothing is to be done"}
	}
	s.To = g.Spec.Preferred
	return a.startSwitchover(r, name, s)
}

func (a *API) startSwitchover(r *request, name string, s client.SwitchoverRequest) (reply, error) {
	if s.By == "" {
		s.By = origin(r.RemoteAddr)
	}
	op, ready, err := a.o.Roles.Switchover(r.Context(), name, s)
	if err != nil {
		return nil, withChecks(err, ready)
	}
	if s.DryRun {
		switch {
		case ready == nil:
			return nil, &client.Error{Code: client.CodeInternal, Detail: "the dry run has no result"}
		case !ready.Ready:
			return nil, withChecks(&client.Error{Code: client.CodePrecondition, Detail: "group " + name + " cannot be switched over now"}, ready)
		}
		return jsonReply(http.StatusOK, ready)
	}
	if op.State == client.OperationScheduled { // nobody waits for days
		a.asked(r, name)
		return jsonReply(http.StatusAccepted, op, "Location", "/v1/operations/"+strconv.FormatUint(op.ID, 10))
	}
	return a.started(r, name, op)
}

// withChecks gives a precondition error the checks that failed.
func withChecks(err error, ready *client.Readiness) error {
	var e *client.Error
	if ready == nil || !errors.As(err, &e) || e.Code != client.CodePrecondition || len(e.Checks) > 0 {
		return err
	}
	full := *e
	full.Checks = ready.Checks
	return &full
}

// started follows an operation for as long as the client waits. From here on there is no error: the operation runs, and a
// client that heard an error might start another one.
func (a *API) started(r *request, group string, op client.Operation) (reply, error) {
	a.asked(r, group)
	if !op.Finished() && r.wait > 0 {
		ctx, cancel := context.WithTimeout(r.drain, r.wait)
		defer cancel()
		now, err := a.o.Roles.Operation(ctx, op.ID, r.wait)
		if err == nil {
			op = now
		} else {
			a.o.Logger.Debug("operation goes on unobserved", "group", group, "operation", op.ID, "error", err)
		}
	}
	if op.Finished() {
		return jsonReply(http.StatusOK, op)
	}
	return jsonReply(http.StatusAccepted, op, "Location", "/v1/operations/"+strconv.FormatUint(op.ID, 10), "Retry-After", "1")
}

// asked logs what an operator asked for, once it was accepted.
func (a *API) asked(r *request, group string) {
	a.o.Logger.Info("operator request accepted", "group", group, "method", r.Method, "path", r.URL.Path, "from", r.RemoteAddr)
}

func (a *API) cancelSwitchover(r *request) (reply, error) {
	name, err := r.group()
	if err != nil {
		return nil, err
	}
	if err := a.o.Roles.CancelSwitchover(r.Context(), name); err != nil {
		return nil, err
	}
	a.asked(r, name)
	return done(nil)
}

func (a *API) failover(r *request) (reply, error) {
	name, err := r.group()
	if err != nil {
		return nil, err
	}
	var f client.FailoverRequest
	if err := r.decode(&f); err != nil {
		return nil, err
	}
	if err := r.acceptedLoss(name, &f); err != nil {
		return nil, err
	}
	switch f.To {
	case "":
		return nil, invalid("a failover needs to know where to", `send {"to":"NODE"}, or {"to":"*"} for any candidate that loses nothing`)
	case client.AnyNode:
		f.To = ""
	}
	if f.DryRun {
		return answer(a.o.Roles.ForecastFailover(r.Context(), name, f))
	}
	op, err := a.o.Roles.Failover(r.Context(), name, f)
	if err != nil {
		return nil, err
	}
	return a.started(r, name, op)
}

func (a *API) operations(r *request) (reply, error) {
	return items(a.o.Roles.Operations(r.Context()))
}

func (a *API) operation(r *request) (reply, error) {
	text, err := r.variable("id")
	if err != nil {
		return nil, err
	}
	id, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return nil, invalid(fmt.Sprintf("%q is not the number of an operation", shorten(text)), "want its number, as GET /v1/operations lists it")
	}
	return answer(a.o.Roles.Operation(r.drain, id, r.wait))
}
