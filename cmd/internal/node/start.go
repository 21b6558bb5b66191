package node

import (
	"context"
	"errors"
	"fmt"

	"github.com/understudy-ha/understudy/client"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/replica"
)

// StartCopy is answered by the primary, which ships the journal.
func (j journals) StartCopy(ctx context.Context, group, node string, q client.CopyStartRequest) (client.CopyStart, error) {
	st, g, err := j.n.group(group)
	if err != nil {
		return client.CopyStart{}, err
	}
	for _, id := range []string{node, q.Target} {
		if st.Nodes[ident.NodeID(id)] == nil {
			return client.CopyStart{}, unknownNode(st, id)
		}
	}
	rep := j.n.replicas.get(g.Spec.Name)
	if g.Primary != j.n.config.Node || rep == nil {
		return client.CopyStart{}, j.n.elsewhere(g.Spec.Name)
	}
	if ident.NodeID(node) != g.Primary {
		return client.CopyStart{}, &client.Error{Code: client.CodePrecondition, Detail: fmt.Sprintf("node %s is not the primary of group %s: only a copy of the journal of %s can be told where to begin", node, group, g.Primary),
			Remedy: fmt.Sprintf("name the journal of %s", g.Primary)}
	}
	s, err := rep.StartCopy(ctx, ident.NodeID(q.Target), q.From)
	var no *replica.StartRefusedError
	switch {
	case errors.As(err, &no):
		return client.CopyStart{}, &client.Error{Code: client.CodePrecondition, Detail: fmt.Sprintf("the copy of node %s was not told to begin elsewhere", q.Target), Reason: no.Why, Remedy: no.Remedy}
	case err != nil:
		return client.CopyStart{}, j.n.explain(g.Spec.Name, err)
	}
	out := client.CopyStart{Journal: s.Journal.String(), Target: q.Target, Receiver: uint32(s.Receiver), From: uint64(s.From), Kept: s.Kept}
	switch {
	case s.Receiver == 0:
		out.Note = "the copy goes on where it ends"
	case s.Kept:
		out.Note = fmt.Sprintf("the copy has the start of receiver %s already, and goes on where it ends", s.Receiver)
	default:
		out.Note = fmt.Sprintf("the copy begins with receiver %s; if the store of node %s lacks something before it, its status says that it needs priming", s.Receiver, q.Target)
	}
	j.n.log.Info("a copy was told where to begin", "group", group, "peer", q.Target, "from", q.From, "note", out.Note)
	return out, nil
}
