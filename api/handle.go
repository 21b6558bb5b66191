package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"
	"time"

	"github.com/understudy-ha/understudy/client"
)

// grace is what a forwarded request gets beyond its deadline, so that it hears the other node say that its time is over
// rather than losing the answer.
const grace = 500 * time.Millisecond

// drainKey is the context key of the context that ends when the listener stops.
type drainKey struct{}

// handle makes a handler of a route: limits and checks first, then the route's own function, then the answer.
func (a *API) handle(rt route) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer a.recovered(w, r)
		a.common(w)
		a.tellProtocol(w, r)
		release, err := a.bodies.take(bodyBytes(r, rt.body))
		if err != nil {
			a.problem(w, r, toError(err, false))
			return
		}
		defer release()
		req, cancel, err := a.read(w, r, rt)
		if err != nil {
			a.problem(w, r, toError(err, false))
			return
		}
		defer cancel()
		rep, err := a.resolve(rt, req)
		if err != nil {
			a.problem(w, r, toError(err, req.writes()))
			return
		}
		rep(w)
	})
}

// common sets the headers of every answer.
func (a *API) common(w http.ResponseWriter) {
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set(client.HeaderNode, a.o.Node)
}

// recovered keeps a defect in one handler from looking like a broken connection.
func (a *API) recovered(w http.ResponseWriter, r *http.Request) {
	cause := recover()
	if cause == nil {
		return
	}
	if err, ok := cause.(error); ok && errors.Is(err, http.ErrAbortHandler) {
		panic(http.ErrAbortHandler) // deliberate: net/http closes the connection
	}
	a.o.Logger.Error("handler panicked", "method", r.Method, "path", shorten(r.URL.EscapedPath()), "panic", cause, "stack", string(debug.Stack()))
	code := client.CodeInternal
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		code = client.CodeUnknownOutcome
	}
	a.problem(w, r, &client.Error{Code: code, Detail: "the node has a defect", Reason: fmt.Sprint(cause)})
}

// read checks query, hops and body, and gives the request its deadline.
func (a *API) read(w http.ResponseWriter, r *http.Request, rt route) (*request, context.CancelFunc, error) {
	query, err := checkQuery(rt, r.URL.RawQuery)
	if err != nil {
		return nil, nil, err
	}
	hops, err := a.checkHops(r.Header)
	if err != nil {
		return nil, nil, err
	}
	if err := checkOnce(rt, r.Header); err != nil {
		return nil, nil, err
	}
	usual := rt.wait
	if usual == 0 && !rt.polls {
		usual = a.o.Limits.Wait
	}
	wait, err := duration(query, "wait", usual)
	if err == nil && wait > a.o.Limits.MaxWait {
		err = invalid("wait="+wait.String()+" is too long", "at most "+a.o.Limits.MaxWait.String()+"; ask again for longer")
	}
	if err != nil {
		return nil, nil, err
	}
	body, err := readBody(w, r, rt.body)
	if err != nil {
		return nil, nil, err
	}
	span := wait
	if rt.polls {
		span += a.o.Limits.Wait
	}
	now := time.Now()
	// The listener's own deadline is meant for short requests. Only recorders in tests refuse.
	_ = http.NewResponseController(w).SetWriteDeadline(now.Add(span + a.o.Limits.WriteTimeout))

	req := &request{end: now.Add(span), wait: wait, route: rt, hops: hops, body: body, query: query}
	far, cancel := context.WithDeadline(r.Context(), req.end.Add(grace))
	ctx, cancelOwn := far, context.CancelFunc(func() {})
	if !rt.polls {
		ctx, cancelOwn = context.WithDeadline(far, req.end)
	}
	life, stopLife := context.WithCancel(r.Context())
	stop := func() bool { return true }
	if listener, ok := r.Context().Value(drainKey{}).(context.Context); ok {
		stop = context.AfterFunc(listener, stopLife)
	}
	drain, stopDrain := context.WithDeadline(life, req.end.Add(grace))
	if hops > 0 {
		ctx = context.WithValue(ctx, forwardedKey{}, true)
	}
	req.Request, req.far, req.drain, req.life = r.WithContext(ctx), far, drain, life
	return req, func() { stop(); stopDrain(); stopLife(); cancelOwn(); cancel() }, nil
}

// bodyBytes is what a body may take in memory.
func bodyBytes(r *http.Request, limit int64) int64 {
	if r.ContentLength >= 0 {
		return min(r.ContentLength, limit)
	}
	return limit
}
