package api

import (
	"context"
	"strconv"

	"github.com/understudy-ha/understudy/client"
)

// Lives ends the lives of processes that are known to be dead. Errors are as in Data.
type Lives interface {
	// Release ends the lease of that life of the node; code precondition when the node's newest life is another one, or is
	// this process. Releasing it again does no harm.
	Release(ctx context.Context, node string, life uint64) (client.Release, error)
}

func (a *API) release(r *request) (reply, error) {
	node, err := r.variable("node")
	if err != nil {
		return nil, err
	}
	var q client.ReleaseRequest
	if err := r.decode(&q); err != nil {
		return nil, err
	}
	life, err := strconv.ParseUint(q.Incarnation, 16, 64)
	if err != nil || life == 0 {
		return nil, invalid("incarnation "+strconv.Quote(shorten(q.Incarnation))+" is none",
			"send what stands in the file incarnation of the dead node's data directory; `understudy release --config FILE` does it all")
	}
	a.o.Logger.Info("release of a dead process asked for", "peer", node, "life", q.Incarnation, "from", r.RemoteAddr)
	return answer(a.o.Roles.Release(r.Context(), node, life))
}
