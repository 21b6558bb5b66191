package api

import (
	"context"
	"fmt"

	"github.com/understudy-ha/understudy/client"
)

// forwardedKey marks the context of a request that another node has passed on.
type forwardedKey struct{}

// Forwarded tells whether another node has passed the request on. It did so for a file of a group: what is local to this node is not meant.
func Forwarded(ctx context.Context) bool {
	yes, _ := ctx.Value(forwardedKey{}).(bool)
	return yes
}

// localGroup reads ?group=, which names the local files of the node that is asked, or nothing.
func (r *request) localGroup() (string, error) {
	switch g := r.query.Get("group"); {
	case g == "" && !r.query.Has("group"):
		return "", nil
	case g == client.LocalGroup:
		return g, nil
	default:
		return "", invalid(fmt.Sprintf("group=%s", shorten(g)), "only group=local is possible here: what this node keeps for itself; a file belongs to at most one group, so leave it out otherwise")
	}
}

// listedGroup reads ?group= of a list: one group's part of the file, or what the node that is asked keeps for itself.
func (r *request) listedGroup() (string, error) {
	g := r.query.Get("group")
	if g == "" && r.query.Has("group") {
		return "", invalid("group is empty", "name the group whose records of the file are wanted, or local; leave it out for all")
	}
	return g, nil
}

// receiptHeaders are the headers of a receipt.
func receiptHeaders(position, local string) []string {
	h := []string{client.HeaderPosition, position}
	if local != "" {
		h = append(h, client.HeaderLocal, local)
	}
	return h
}
