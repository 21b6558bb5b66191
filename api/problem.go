package api

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"

	"github.com/understudy-ha/understudy/client"
)

// problem is the body of every error (RFC 9457).
type problem struct {
	Type  string `json:"type"`
	Title string `json:"title"`
	*client.Error
}

// problem answers with e.
func (a *API) problem(w http.ResponseWriter, r *http.Request, e *client.Error) {
	e = a.complete(e)
	body, err := json.Marshal(problem{Type: "urn:understudy:problem:" + string(e.Code), Title: e.Code.Title(), Error: e})
	if err != nil { // strings and numbers only: cannot happen
		body = []byte(`{"code":"internal"}`)
	}
	h := w.Header()
	h.Set("Content-Type", "application/problem+json")
	if e.Replayed {
		h.Set(client.HeaderReplayed, "true")
	}
	if e.Applied != "" { // what a copy does not have is said with its age, as what it has
		h.Set(client.HeaderApplied, e.Applied)
		h.Set(client.HeaderAge, strconv.FormatFloat(e.Age, 'f', 3, 64))
	}
	if e.Status == http.StatusServiceUnavailable {
		h.Set("Retry-After", "1")
	}
	w.WriteHeader(e.Status)
	_, _ = w.Write(append(body, '\n')) // the client may be gone
	if e.Status >= http.StatusInternalServerError && e.Status != http.StatusServiceUnavailable {
		a.o.Logger.Warn("request failed", "method", r.Method, "path", shorten(r.URL.EscapedPath()), "status", e.Status, "code", e.Code, "error", e)
	}
}

// complete returns a copy of e in which nothing is missing.
func (a *API) complete(e *client.Error) *client.Error {
	c := *e
	if c.Code == "" {
		c.Code = client.CodeInternal
	}
	if c.Status < 400 || c.Status > 599 {
		c.Status = c.Code.Status()
	}
	if c.Node == "" {
		c.Node = a.o.Node
	}
	if c.Detail == "" {
		c.Detail = c.Code.Title()
	}
	if c.Remedy == "" {
		c.Remedy = remedy(c.Code)
		if c.Code == client.CodePrecondition && len(c.Checks) == 0 {
			c.Remedy = "GET /v1/groups/GROUP/why and GET /v1/status show what is the case now"
		}
	}
	return &c
}

// toError turns what a handler returned into the error that is answered.
func toError(err error, writes bool) *client.Error {
	var e *client.Error
	if errors.As(err, &e) {
		return e
	}
	if code := client.CodeOf(err); code != client.CodeInternal {
		return &client.Error{Code: code, Detail: err.Error()}
	}
	if !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, context.Canceled) {
		if writes && !errors.Is(err, client.ErrInternal) { // nobody said that nothing was done
			return &client.Error{Code: client.CodeUnknownOutcome, Detail: err.Error(), Reason: "the node met an error it does not know"}
		}
		return &client.Error{Code: client.CodeInternal, Detail: err.Error()}
	}
	late := &client.Error{Code: client.CodeUnavailable, Detail: "the time for the request ran out, or this node is stopping", Reason: err.Error()}
	if writes {
		late.Code = client.CodeUnknownOutcome
	}
	return late
}

// remedy says what to do next where the one who found the error did not.
func remedy(c client.Code) string {
	switch c {
	case client.CodeUnknownGroup:
		return "GET /v1/groups lists the groups"
	case client.CodeUnknownNode:
		return "GET /v1/nodes lists the nodes"
	case client.CodeInvalid:
		return "correct it and send it again; docs/openapi.yaml says what each path takes"
	case client.CodeNotFound:
		return "check the name: it may be misspelt, or what it named is gone"
	case client.CodeTooLarge:
		return "send less at once; docs/http.md lists the limits"
	case client.CodeUnsupported:
		return "use a program of the same version as the node, or leave it out"
	case client.CodeGone:
		return "begin again with what is still held: GET /v1/groups/GROUP/journals tells from where on"
	case client.CodeExists:
		return "choose another name, or change the existing one"
	case client.CodeBusy:
		return "wait for the running operation (GET /v1/operations), or cancel it"
	case client.CodePrecondition:
		return "see checks, and GET /v1/groups/GROUP/why"
	case client.CodeNotPrimary, client.CodeNoPrimary:
		return "surely nothing was done: repeat the request, with a longer ?wait= if a switch takes longer; GET /v1/status tells who is primary"
	case client.CodeNoQuorum:
		return "surely nothing was done: start or reconnect nodes until a majority runs, then repeat the request"
	case client.CodeNoSync:
		return "surely nothing was done: bring a secondary back, or set on_no_sync to degrade"
	case client.CodeUnavailable:
		return "surely nothing was done: repeat the request later"
	case client.CodeStale:
		return "read without local=true, or allow a larger max_lag"
	case client.CodeStorageFull:
		return "surely nothing was done: free space on the data directory's disk"
	case client.CodeJournalFull:
		return "surely nothing was done: bring the node back that receivers are kept for, move or remove a consumer's hold, raise maximum_blocks, free space on the disk, or set journal_full to drop; GET /v1/groups/GROUP/journals shows the room"
	case client.CodeKeyReused:
		return "make a new key for each write, and use it again only to repeat that write unchanged"
	case client.CodeUnknownOutcome:
		return "it may have been done: ask GET /v1/receipts/POSITION when a position is named, or read what it should have changed, before you repeat it"
	case client.CodeCorrupt:
		return "keep the files, and see the node's log and GET /v1/events for the place"
	case client.CodeInternal:
		return "see the node's log"
	}
	return ""
}
