package client

import (
	"context"
	"time"
)

// ArchivedReceiver is one receiver in the archive of the answering node.
type ArchivedReceiver struct {
	Journal  string    `json:"journal"` // "default/a"
	Receiver uint32    `json:"receiver"`
	First    uint64    `json:"first"` // sequence numbers
	Last     uint64    `json:"last"`
	Start    string    `json:"start"`             // history position before its first fact
	End      string    `json:"end,omitempty"`     // after its last fact; "" when the next receiver is not at hand
	Chain    string    `json:"chain"`             // after its last entry, hexadecimal
	Name     string    `json:"name"`              // of the object
	Bytes    int64     `json:"bytes"`             // compressed, as it stands there
	Written  time.Time `json:"written,omitzero"`  // by the storage's clock
	Verified bool      `json:"verified"`          // this life of the node has read all of it back; known of receivers that it still holds
	Damaged  string    `json:"damaged,omitempty"` // what is wrong with its header
}

// ArchivePage is a part of what is archived, by journal and receiver.
type ArchivePage struct {
	URL   string             `json:"url"` // of the archive, without what may be secret
	Items []ArchivedReceiver `json:"items"`
	Next  string             `json:"next,omitempty"` // go on with after; "": there is no more
}

// ArchiveQuery says what of the archive is listed.
type ArchiveQuery struct {
	Node  string        // only what this node wrote; "": of all
	After string        // the name after which to go on
	Limit int           // at most so many; 0: 100, the most are 1000
	Wait  time.Duration // the storage may take so long; 0: the node's usual time for a request
}

// ArchiveStatus is what the answering node knows of the archive of one group.
type ArchiveStatus struct {
	URL       string            `json:"url"`                // without what may be secret
	Pending   int               `json:"pending"`            // detached receivers here that do not count as archived yet
	Newest    map[string]uint32 `json:"newest"`             // by journal, of what this life of the node read back
	Failure   string            `json:"failure,omitempty"`  // why the last attempt failed, of any group; "" when it went well
	Failed    time.Time         `json:"failed,omitzero"`    // the last failure, also when it went well since
	Failures  int64             `json:"failures"`           // since the node started, of any group
	Succeeded time.Time         `json:"succeeded,omitzero"` // the last look at all journals that ended well
}

// Archived lists what is archived of a group's journals. Code unsupported: the answering node has no archive.
func (c *Client) Archived(ctx context.Context, group string, q ArchiveQuery) (ArchivePage, error) {
	x := get("v1", "groups", group, "archive")
	setText(x.query, "node", q.Node)
	setText(x.query, "after", q.After)
	setNumber(x.query, "limit", uint64(max(q.Limit, 0)))
	x.wait = q.Wait
	return ask[ArchivePage](ctx, c, x)
}
