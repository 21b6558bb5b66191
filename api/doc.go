// Package api is the HTTP interface of a node: records, roles, journals, operations, events, health paths and metrics. It
// knows neither cluster nor replica: what it needs comes in as the interfaces Data, Roles and Journals, and what it speaks
// are the JSON types of package client.
//
// One table (routes.go) names every route with its parameters, its body limit and its handler; docs/openapi.yaml describes
// the same table and a test holds the two together. A handler gets a checked request and returns a reply or an error, it
// writes nothing itself: so an error can still become a problem body (problem.go), and an *Elsewhere can still be forwarded
// (forward.go) after the handler has run.
//
// # Forwarding
//
// A handler that answers *Elsewhere has done nothing. The request, whose body is in memory, then goes to the node that is
// named, with Understudy-Hops counting how often it was passed on (at most 3). Only the node that the client spoke to waits:
// when nobody is primary, when the named node cannot be reached, or when it says not_primary (421), it waits for a change of
// roles and asks itself again, until the request's deadline (?wait=, 5 s by default), then answers 503 no_primary. Once any
// of a changing request was sent and the answer is missing, the client hears unknown_outcome (504), and nothing is repeated.
//
// # Health paths
//
// /primary /secondary /standby /replica /health /livez /readyz answer 200 when the condition holds and 503 otherwise, with
// a client.Health as body, from this node's own knowledge only. Without ?group= a condition must hold for every group of
// the cluster, and the four that name a role need at least one group. See health.go for each condition.
//
// # Limits
//
// Serve sets a limit on everything: connections, header bytes, times for header, body and answer, idle time; each route has
// a body limit, all bodies together have one (Limits.Bodies), and every request has a deadline.
package api
