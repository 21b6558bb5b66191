package node

import (
	"context"
	"fmt"
	"io"
	"slices"

	"github.com/understudy-ha/understudy/client"
	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal"
	"github.com/understudy-ha/understudy/replica"
)

// twins returns the other data nodes as holders of copies of a journal, the one that wrote it first. What was replayed here has none: others
// have journals of that name that are their own.
func (n *Node) twins(id ident.JournalID) []journal.Twin {
	if id.Node == replica.Replays {
		return nil
	}
	st, _ := n.cluster.State()
	var out []journal.Twin
	for _, x := range twinNodes(st.Nodes, n.config.Node, id.Node) {
		out = append(out, farTwin{node: x.ID, id: id, client: n.peers.at(x.Addresses.HTTP)})
	}
	return out
}

// twinNodes returns the nodes that can be asked for a copy of what author wrote: author first, then by name.
func twinNodes(all map[ident.NodeID]*fsm.Node, self, author ident.NodeID) (nodes []*fsm.Node) {
	for _, x := range all {
		if x.ID != self && x.Kind == fsm.KindData && x.Addresses.HTTP != "" {
			nodes = append(nodes, x)
		}
	}
	slices.SortFunc(nodes, func(a, b *fsm.Node) int {
		switch {
		case a.ID == b.ID:
			return 0
		case a.ID == author, b.ID != author && a.ID < b.ID:
			return -1
		}
		return 1
	})
	return nodes
}

// farTwin is the copy of a journal that another node holds, asked over HTTP.
type farTwin struct {
	node   ident.NodeID
	id     ident.JournalID
	client *client.Client
}

func (t farTwin) Name() string { return string(t.node) }

func (t farTwin) Numbers(ctx context.Context) ([]ident.ReceiverNumber, error) {
	all, err := t.client.Receivers(ctx, string(t.id.Group), string(t.id.Node))
	if err != nil {
		return nil, err
	}
	out := make([]ident.ReceiverNumber, 0, len(all))
	for _, r := range all {
		out = append(out, ident.ReceiverNumber(r.Number))
	}
	return out, nil
}

func (t farTwin) Receiver(ctx context.Context, n ident.ReceiverNumber) (journal.TwinContent, error) {
	c := &farContent{ctx: ctx, twin: t, number: n}
	return c, c.fetch(0, journal.HeaderSize)
}

// farPiece is how much is asked for at once; it bounds what a repair keeps in memory of another node's answer.
const farPiece = 1 << 20

// farContent is one receiver of a farTwin, read piece by piece.
type farContent struct {
	ctx    context.Context
	twin   farTwin
	number ident.ReceiverNumber
	size   int64
	piece  []byte
	at     int64 // of the piece
}

func (c *farContent) fetch(at, n int64) error {
	b, size, err := c.twin.client.ReceiverContent(c.ctx, string(c.twin.id.Group), string(c.twin.id.Node), uint32(c.number), at, n)
	if err != nil {
		return fmt.Errorf("fetch receiver %s of journal %s: %w", c.number, c.twin.id, err)
	}
	c.piece, c.at, c.size = b, at, size
	return nil
}

func (c *farContent) ReadAt(p []byte, at int64) (n int, err error) {
	for n < len(p) && at < c.size {
		if at < c.at || at >= c.at+int64(len(c.piece)) {
			if err := c.fetch(at, max(farPiece, int64(len(p)-n))); err != nil {
				return n, err
			}
			if len(c.piece) == 0 {
				return n, io.EOF
			}
		}
		k := copy(p[n:], c.piece[at-c.at:])
		n, at = n+k, at+int64(k)
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (c *farContent) Size() int64  { return c.size }
func (c *farContent) Close() error { return nil }
