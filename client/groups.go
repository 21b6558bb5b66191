package client

import (
	"context"
	"net/http"
	"net/url"
	"time"
)

// GroupPatch changes a group while it runs. As JSON it is a merge patch (RFC 7396): the keys of a GroupSpec to be changed, null
// for the default, and if_version.
type GroupPatch map[string]any

// PatchIfVersion is the key of a GroupPatch that makes it conditional on GroupStatus.SpecVersion.
const PatchIfVersion = "if_version"

// GroupChange is the answer to a GroupPatch.
type GroupChange struct {
	Group   string    `json:"group"`
	Spec    GroupSpec `json:"spec"`    // as it is now
	Version uint64    `json:"version"` // of the spec
	Changed []string  `json:"changed"` // keys that have another value now
	Note    string    `json:"note"`    // what it means, and what to do next
}

// DroppedNode is a node that receivers are not kept for any more: it filled the primary's journal while it was absent.
type DroppedNode struct {
	Node     string    `json:"node"`
	Epoch    uint64    `json:"epoch"` // in which it was dropped
	At       time.Time `json:"at"`
	Reason   string    `json:"reason"`
	LastCopy bool      `json:"last_copy"` // nobody but the primary had a copy then
}

// Readmission is the answer to the readmission of a dropped node.
type Readmission struct {
	Group string `json:"group"`
	Node  string `json:"node"`
	Note  string `json:"note"`
}

// Hold keeps receivers for a consumer of the journal until it has read them.
type Hold struct {
	Name     string    `json:"name"`
	Position string    `json:"position"` // the consumer has everything up to here
	Until    time.Time `json:"until"`    // it is over then
	Since    time.Time `json:"since"`
	Moved    time.Time `json:"moved"` // set last
	By       string    `json:"by,omitempty"`
}

// HoldRequest sets or moves a hold. Each setting lets it last anew.
type HoldRequest struct {
	Position string   `json:"position"` // history position that the consumer has read up to, such as "orders@3.42"; "0.0": nothing
	For      Duration `json:"for,omitzero"`
	By       string   `json:"by,omitempty"` // left out: the address that the request came from
}

// ChangeGroup changes keys of a group while it runs. ErrInvalid names what cannot be changed, and why; ErrPrecondition says
// that the version is another one.
func (c *Client) ChangeGroup(ctx context.Context, group string, p GroupPatch) (GroupChange, error) {
	return order[GroupChange](ctx, c, http.MethodPatch, p, "v1", "groups", group)
}

// Readmit lets a dropped node take part in a group again, if its copy still connects; else ErrPrecondition.
func (c *Client) Readmit(ctx context.Context, group, node string) (Readmission, error) {
	x, err := post(nil, "v1", "groups", group, "nodes", node, "readmit")
	if err != nil {
		return Readmission{}, err
	}
	return ask[Readmission](ctx, c, x)
}

// Holds lists what consumers hold of a group's journals, by name.
func (c *Client) Holds(ctx context.Context, group string) ([]Hold, error) {
	return list[Hold](ctx, c, get("v1", "groups", group, "holds"))
}

// SetHold sets or moves a hold.
func (c *Client) SetHold(ctx context.Context, group, name string, r HoldRequest) (Hold, error) {
	return order[Hold](ctx, c, http.MethodPut, r, "v1", "groups", group, "holds", name)
}

// RemoveHold removes a hold. Removing what is not there does no harm.
func (c *Client) RemoveHold(ctx context.Context, group, name string) error {
	_, err := c.do(ctx, exchange{method: http.MethodDelete, path: pathOf("v1", "groups", group, "holds", name), query: url.Values{}})
	return err
}

// GroupDeletion is what the deletion of a group has done, or what keeps it from being done.
type GroupDeletion struct {
	Group    string            `json:"group"`
	Deleted  bool              `json:"deleted"`
	At       *time.Time        `json:"at,omitempty"`   // when it was deleted
	Epoch    uint64            `json:"epoch"`          // the last one
	Blockers []DeletionBlocker `json:"blockers"`       // of a dry run: all that keeps it from being deleted now
	Records  uint64            `json:"records"`        // that it holds, those that have expired and are not deleted yet included
	File     string            `json:"file,omitempty"` // of one of them
	Key      string            `json:"key,omitempty"`  // of that record, with replacement characters where it is not text
	Note     string            `json:"note"`           // what becomes of its files
}

// DeletionBlocker is a reason for which a group is not deleted.
type DeletionBlocker struct {
	Code string `json:"code"` // "records", or the reason that the control plane gives
	Text string `json:"text"` // with what helps
}

// DeleteGroup deletes a group without records, for ever: its name is never used again. ErrExists names a record that it holds;
// ErrPrecondition and ErrBusy list in Error.Checks what else keeps it. Nothing has changed then.
func (c *Client) DeleteGroup(ctx context.Context, group string) (GroupDeletion, error) {
	return ask[GroupDeletion](ctx, c, exchange{method: http.MethodDelete, path: pathOf("v1", "groups", group), query: url.Values{}})
}

// DryRunDelete says what keeps a group from being deleted; nothing is changed.
func (c *Client) DryRunDelete(ctx context.Context, group string) (GroupDeletion, error) {
	return ask[GroupDeletion](ctx, c, exchange{method: http.MethodDelete, path: pathOf("v1", "groups", group), query: url.Values{"dry_run": {"true"}}})
}
