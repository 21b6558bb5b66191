package client

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// RotPlace is a place on a node's disk that does not hold what was written there.
type RotPlace struct {
	Journal  string `json:"journal"`  // "default/a"
	Receiver uint32 `json:"receiver"` // 0: the journal's state file
	Offset   int64  `json:"offset"`   // of the first bad bundle or byte
	Kind     string `json:"kind"`     // flipped | torn | truncated | missing | header | foreign | behind | state | closed
	First    uint64 `json:"first"`    // what cannot be read because of it; both 0: nothing
	Last     uint64 `json:"last"`
	Repaired bool   `json:"repaired"`
	From     string `json:"from,omitempty"`   // nodes whose copies completed it
	Detail   string `json:"detail,omitempty"` // what is wrong, and why it was not repaired
}

// Repair is the result of a check of one journal with the repair of what it found.
type Repair struct {
	Journal   string     `json:"journal"`
	Receivers int        `json:"receivers"` // checked
	OK        bool       `json:"ok"`        // nothing is rotten any more
	Rot       []RotPlace `json:"rot"`       // what was found
}

// Scrub is what a node's check of its journals in the background is at.
type Scrub struct {
	Rate     int64      `json:"rate"`               // bytes per second; 0: switched off
	Running  bool       `json:"running"`            // a pass is under way
	Journal  string     `json:"journal,omitempty"`  // where it is
	Receiver uint32     `json:"receiver,omitempty"` //
	Checked  int64      `json:"checked"`            // bytes that the pass under way has read
	Total    int64      `json:"total"`              // that there were when it began
	Passes   uint64     `json:"passes"`             // finished since the node started
	Finished time.Time  `json:"finished,omitzero"`  // the last one
	Bytes    uint64     `json:"bytes"`              // read since the node started
	Found    uint64     `json:"found"`              // places found since the node started
	Repaired uint64     `json:"repaired"`
	Rot      []RotPlace `json:"rot"` // what is rotten now
}

// Repair lets the answering node check what node wrote now, and repair what is rotten from other nodes' copies. Wait bounds the
// work; 0: the node's maximum of ten minutes.
func (c *Client) Repair(ctx context.Context, group, node string, wait time.Duration) (Repair, error) {
	x, err := post(nil, "v1", "groups", group, "journals", node, "repair")
	if err != nil {
		return Repair{}, err
	}
	if x.wait = wait; x.wait <= 0 {
		x.wait = 10 * time.Minute
	}
	return ask[Repair](ctx, c, x)
}

// ReceiverContent reads n bytes at offset of a receiver of what node wrote, as the answering node has them on its disk: the header,
// then whole bundles. Size is that of all. What is read may be rotten: check it. At or beyond the end there are no bytes.
func (c *Client) ReceiverContent(ctx context.Context, group, node string, number uint32, offset, n int64) (b []byte, size int64, err error) {
	x := get("v1", "groups", group, "journals", node, "receivers", strconv.FormatUint(uint64(number), 10), "content")
	x.span = fmt.Sprintf("bytes=%d-%d", offset, offset+max(n, 1)-1)
	a, err := c.do(ctx, x)
	var e *Error
	if errors.As(err, &e) && e.Status == http.StatusRequestedRangeNotSatisfiable {
		return nil, offset, nil
	}
	if err != nil {
		return nil, 0, err
	}
	if a.status != http.StatusPartialContent {
		return a.body, int64(len(a.body)), nil
	}
	_, total, ok := strings.Cut(a.header.Get("Content-Range"), "/")
	if size, err = strconv.ParseInt(total, 10, 64); err != nil || !ok {
		return nil, 0, &Error{Status: a.status, Code: CodeInternal, Detail: "the node's answer does not say how long the receiver is",
			Remedy: "check that the address belongs to a node of this version", cause: err}
	}
	return a.body, size, nil
}
