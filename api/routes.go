package api

import (
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/gorilla/mux"

	"github.com/understudy-ha/understudy/client"
)

// Body limits in bytes.
const (
	noBody    = 0
	jsonBody  = 1 << 20
	valueBody = client.MaxValue

	transactionBody = client.MaxTransactionBody
)

// route is one row of the table. Each GET route answers HEAD too.
type route struct {
	method string
	path   string                              // template of gorilla/mux
	params []string                            // query parameters; any other is refused
	body   int64                               // highest number of bytes in the body
	wait   time.Duration                       // default of ?wait=; 0: Limits.Wait, or not at all when the route polls
	polls  bool                                // ?wait= is for the result, and Limits.Wait comes on top; else it is the deadline
	once   bool                                // keeps idempotency keys
	reads  bool                                // changes nothing, although its method might
	health bool                                // answers OPTIONS too, the default method of HAProxy's checks
	serve  func(*API, *request) (reply, error) // called again after an *Elsewhere
}

// routes is the whole interface.
func routes() []route {
	const (
		get, put, post, del = http.MethodGet, http.MethodPut, http.MethodPost, http.MethodDelete
		patch               = http.MethodPatch

		group   = "/v1/groups/{group}"
		journal = group + "/journals/{node}"
		records = "/v1/files/{file}/records"
		record  = records + "/{key:.*}"
	)
	health := func(condition string, params ...string) route {
		return route{method: get, path: "/" + condition, params: append(params, "group"), health: true,
			serve: func(a *API, r *request) (reply, error) { return a.health(r, condition) }}
	}
	return []route{
		{method: get, path: records, params: []string{"prefix", "from", "limit", "group", "local", "max_lag", "wait"}, serve: (*API).listRecords},
		{method: get, path: record, params: []string{"local", "max_lag", "group", "wait"}, serve: (*API).getRecord},
		{method: put, path: record, params: []string{"wait", "ttl"}, body: valueBody, once: true, serve: (*API).putRecord},
		{method: del, path: record, params: []string{"group", "wait"}, once: true, serve: (*API).deleteRecord},
		{method: post, path: "/v1/transactions", params: []string{"wait"}, body: transactionBody, once: true, serve: (*API).transact},

		{method: get, path: "/v1/receipts/{position:.*}", params: []string{"wait"}, polls: true, serve: (*API).receipt},

		{method: get, path: "/v1/status", params: []string{"local"}, serve: (*API).status},
		{method: get, path: "/v1/nodes", params: []string{"local"}, serve: (*API).nodes},
		{method: post, path: "/v1/nodes/{node}/release", params: []string{"wait"}, body: jsonBody, serve: (*API).release},
		{method: put, path: "/v1/nodes/{node}/maintenance", body: jsonBody, serve: (*API).beginMaintenance},
		{method: del, path: "/v1/nodes/{node}/maintenance", serve: (*API).endMaintenance},
		{method: put, path: "/v1/pause", body: jsonBody, serve: (*API).beginPause},
		{method: del, path: "/v1/pause", serve: (*API).endPause},
		{method: get, path: "/v1/groups", params: []string{"local"}, serve: (*API).groups},
		{method: post, path: "/v1/groups", body: jsonBody, wait: 15 * time.Second, serve: (*API).createGroup},
		{method: get, path: group, serve: (*API).group},
		{method: patch, path: group, body: jsonBody, serve: (*API).changeGroup},
		{method: del, path: group, params: []string{"dry_run"}, wait: 20 * time.Second, serve: (*API).deleteGroup},
		{method: post, path: group + "/nodes/{node}/readmit", serve: (*API).readmit},
		{method: get, path: group + "/holds", serve: (*API).holds},
		{method: put, path: group + "/holds/{name}", body: jsonBody, serve: (*API).setHold},
		{method: del, path: group + "/holds/{name}", serve: (*API).removeHold},
		{method: get, path: group + "/resync", serve: (*API).resync},
		{method: get, path: group + "/why", params: []string{"to"}, serve: (*API).why},
		{method: get, path: group + "/history", serve: (*API).history},

		{method: post, path: group + "/switchover", params: []string{"wait"}, body: jsonBody, wait: 30 * time.Second, polls: true, serve: (*API).switchover},
		{method: del, path: group + "/switchover", serve: (*API).cancelSwitchover},
		{method: post, path: group + "/switchback", params: []string{"wait"}, body: jsonBody, wait: 30 * time.Second, polls: true, serve: (*API).switchback},
		{method: post, path: group + "/failover", params: []string{"wait"}, body: jsonBody, wait: 30 * time.Second, polls: true, serve: (*API).failover},
		{method: get, path: "/v1/operations", serve: (*API).operations},
		{method: get, path: "/v1/operations/{id}", params: []string{"wait"}, polls: true, serve: (*API).operation},
		{method: get, path: "/v1/events", params: []string{"since", "severity", "group", "kind", "follow", "wait"}, polls: true, serve: (*API).events},

		{method: get, path: group + "/journals", serve: (*API).journals},
		{method: get, path: group + "/archive", params: []string{"node", "after", "limit", "wait"}, serve: (*API).archived},
		{method: get, path: journal + "/receivers", serve: (*API).receivers},
		{method: get, path: journal + "/receivers/{number}/content", params: []string{"wait"}, wait: 10 * time.Minute, serve: (*API).content},
		{method: get, path: journal + "/entries", params: append(entryParams(), journalParams()...), serve: (*API).entries},
		{method: get, path: group + "/entries", params: entryParams(), serve: (*API).facts},
		{method: post, path: journal + "/verify", params: []string{"wait"}, wait: 10 * time.Minute, reads: true, serve: (*API).verify},
		{method: post, path: journal + "/repair", params: []string{"wait"}, wait: 10 * time.Minute, serve: (*API).repair},
		{method: post, path: journal + "/start", params: []string{"wait"}, body: jsonBody, wait: 30 * time.Second, serve: (*API).startCopy},
		{method: post, path: group + "/journals/local/change-receiver", serve: (*API).changeReceiver},
		{method: post, path: group + "/journals/local/entries", params: []string{"wait"}, body: valueBody, once: true, serve: (*API).depositEntry},
		{method: get, path: group + "/backouts", serve: (*API).backouts},
		{method: get, path: group + "/backouts/{id}", serve: (*API).backout},
		{method: get, path: group + "/digest", params: []string{"wait"}, wait: 2 * time.Minute, serve: (*API).digest},

		health("primary"), health("secondary"), health("standby"), health("replica", "lag"),
		health("health"), health("livez"), health("readyz"),
		{method: get, path: "/metrics", serve: (*API).metrics},
	}
}

// router joins the table to handlers. Paths are matched as they were sent, still percent-encoded and never cleaned, since a
// key may hold any bytes.
func (a *API) router(table []route) http.Handler {
	m := mux.NewRouter().UseEncodedPath().SkipClean(true)
	for _, rt := range table {
		methods := []string{rt.method}
		if rt.method == http.MethodGet {
			methods = append(methods, http.MethodHead)
		}
		if rt.health {
			methods = append(methods, http.MethodOptions)
		}
		m.Handle(rt.path, a.handle(rt)).Methods(methods...)
	}
	m.NotFoundHandler = a.refuse(func(r *http.Request) *client.Error {
		return &client.Error{Code: client.CodeUnknownPath, Detail: "there is no " + shorten(r.URL.EscapedPath()),
			Remedy: "see docs/openapi.yaml for all paths; the status is at /v1/status"}
	})
	m.MethodNotAllowedHandler = a.refuse(func(r *http.Request) *client.Error {
		return &client.Error{Code: client.CodeMethodNotAllowed, Detail: r.Method + " is not possible on " + shorten(r.URL.EscapedPath()),
			Remedy: "use " + strings.Join(allowed(m, r), " or ")}
	})
	return m
}

// refuse answers requests that no route takes.
func (a *API) refuse(why func(*http.Request) *client.Error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.common(w)
		e := why(r)
		if e.Code == client.CodeMethodNotAllowed {
			w.Header().Set("Allow", strings.TrimPrefix(strings.ReplaceAll(e.Remedy, " or ", ", "), "use "))
		}
		a.problem(w, r, e)
	})
}

// allowed lists the methods that the path of r takes.
func allowed(m *mux.Router, r *http.Request) []string {
	var methods []string
	for _, method := range []string{http.MethodGet, http.MethodPut, http.MethodPost, http.MethodPatch, http.MethodDelete} {
		probe := *r
		probe.Method = method
		var match mux.RouteMatch
		if m.Match(&probe, &match) && match.MatchErr == nil && !slices.Contains(methods, method) {
			methods = append(methods, method)
		}
	}
	return methods
}

// shorten keeps a text that came from outside readable in an answer.
func shorten(s string) string {
	if len(s) > 100 {
		return s[:100] + "…"
	}
	return s
}
