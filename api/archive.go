package api

import (
	"context"

	"github.com/understudy-ha/understudy/client"
)

// Archives answers for what is archived of this node's groups. Errors are as in Data.
type Archives interface {
	// Archived lists at most q.Limit receivers, which is set; code unsupported when this node has no archive, unavailable when the storage
	// does not answer.
	Archived(ctx context.Context, group string, q client.ArchiveQuery) (client.ArchivePage, error)
}

const (
	archivedUsual = 100
	archivedMost  = 1000
)

// archived lists what is archived of a group.
func (a *API) archived(r *request) (reply, error) {
	group, err := r.group()
	if err != nil {
		return nil, err
	}
	limit, err := r.limit(archivedUsual, archivedMost)
	if err != nil {
		return nil, err
	}
	p, err := a.o.Journals.Archived(r.Context(), group, client.ArchiveQuery{Node: r.query.Get("node"), After: r.query.Get("after"), Limit: limit})
	if p.Items == nil {
		p.Items = []client.ArchivedReceiver{}
	}
	return answer(p, err)
}
