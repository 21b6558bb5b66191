package api

import (
	"context"
	"strconv"

	"github.com/understudy-ha/understudy/client"
)

// Starter tells copies where to begin. Errors are as in Data.
type Starter interface {
	// StartCopy has a node's copy of the primary's journal begin with a receiver. The request was checked. Codes unknown_node,
	// precondition: it may not, or did not answer, and nothing has changed.
	StartCopy(ctx context.Context, group, node string, q client.CopyStartRequest) (client.CopyStart, error)
}

func (a *API) startCopy(r *request) (reply, error) {
	group, node, err := r.journal(a.o.Node)
	if err != nil {
		return nil, err
	}
	var q client.CopyStartRequest
	if err := r.decode(&q); err != nil {
		return nil, err
	}
	if q.Target == "" {
		return nil, invalid("no target is given", "name the node whose copy is meant")
	}
	switch q.From {
	case client.StartKnown, client.StartFirst, client.StartAttached:
	default:
		if _, err := strconv.ParseUint(q.From, 10, 32); err != nil {
			return nil, invalid("from "+strconv.Quote(shorten(q.From)), "want known, first, attached or the number of a receiver")
		}
	}
	x, err := a.o.Journals.StartCopy(r.Context(), group, node, q)
	if err == nil {
		a.asked(r, group)
	}
	return answer(x, err)
}
