package client

import (
	"context"
	"net/url"
	"strconv"
	"time"
)

// Local names the answering node's own journal where a method wants the node that wrote a journal.
const Local = "local"

// Journals lists the journals of a group that the answering node holds.
func (c *Client) Journals(ctx context.Context, group string) ([]Journal, error) {
	return list[Journal](ctx, c, get("v1", "groups", group, "journals"))
}

// Receivers lists the receivers of what node wrote, as the answering node holds them, oldest first.
func (c *Client) Receivers(ctx context.Context, group, node string) ([]Receiver, error) {
	return list[Receiver](ctx, c, get("v1", "groups", group, "journals", node, "receivers"))
}

// Entries lists entries of what node wrote, as the answering node holds them: the first page of EntryPage.
func (c *Client) Entries(ctx context.Context, group, node string, f EntryFilter) ([]Entry, error) {
	p, err := c.EntryPage(ctx, group, node, f)
	return p.Items, err
}

// EntryPage lists entries of what node wrote, as the answering node holds them. With Next set it may go on; such an answer may
// hold fewer entries than the limit, even none.
func (c *Client) EntryPage(ctx context.Context, group, node string, f EntryFilter) (EntryPage, error) {
	x := get("v1", "groups", group, "journals", node, "entries")
	f.ask(x.query)
	return ask[EntryPage](ctx, c, x)
}

// ask writes the filter as parameters.
func (f EntryFilter) ask(q url.Values) {
	setNumber(q, "from", f.From)
	setNumber(q, "to", f.To)
	setText(q, "position_from", f.PositionFrom)
	setText(q, "position_to", f.PositionTo)
	setNumber(q, "transaction", f.Transaction)
	setText(q, "receiver", f.Receiver)
	setText(q, "code", f.Code)
	setText(q, "type", f.Type)
	setText(q, "file", f.File)
	setText(q, "key", string(f.Key))
	setText(q, "key_prefix", string(f.KeyPrefix))
	setText(q, "images", f.Images)
	setNumber(q, "newest", uint64(max(f.Newest, 0)))
	for name, t := range map[string]time.Time{"since": f.Since, "until": f.Until} {
		if !t.IsZero() {
			q.Set(name, t.Format(time.RFC3339Nano))
		}
	}
	if f.IncludeAll {
		q.Set("include", "all")
	}
	if f.Descending {
		q.Set("order", "descending")
	}
	if f.Limit != 0 {
		q.Set("limit", strconv.Itoa(f.Limit))
	}
}

// ChangeReceiver attaches a new receiver to the answering node's own journal.
func (c *Client) ChangeReceiver(ctx context.Context, group string) (Receiver, error) {
	x, err := post(nil, "v1", "groups", group, "journals", Local, "change-receiver")
	if err != nil {
		return Receiver{}, err
	}
	return ask[Receiver](ctx, c, x)
}

// DepositEntry deposits a user entry and returns once it is committed.
func (c *Client) DepositEntry(ctx context.Context, group string, r DepositRequest) (WriteResult, error) {
	return c.DepositEntryWith(ctx, group, r, WriteOptions{})
}

// DepositEntryWith is DepositEntry with options, of which the conditions are not used.
func (c *Client) DepositEntryWith(ctx context.Context, group string, r DepositRequest, o WriteOptions) (WriteResult, error) {
	x, err := post(r, "v1", "groups", group, "journals", Local, "entries")
	if err != nil {
		return WriteResult{}, err
	}
	x.wait = o.Wait
	w, err := c.write(ctx, x, WriteOptions{IdempotencyKey: o.IdempotencyKey})
	w.Created = false
	return w, err
}

// Verify lets the answering node read a whole journal and check it; ErrCorrupt names the damaged place. Wait bounds the
// work; 0: the node's maximum of ten minutes.
func (c *Client) Verify(ctx context.Context, group, node string, wait time.Duration) (Verification, error) {
	x, err := post(nil, "v1", "groups", group, "journals", node, "verify")
	if err != nil {
		return Verification{}, err
	}
	if x.wait = wait; x.wait <= 0 {
		x.wait = 10 * time.Minute
	}
	return ask[Verification](ctx, c, x)
}

// Backouts lists the back-out reports of the answering node, newest first, without their entries.
func (c *Client) Backouts(ctx context.Context, group string) ([]Backout, error) {
	return list[Backout](ctx, c, get("v1", "groups", group, "backouts"))
}

// Backout returns one back-out report with its entries.
func (c *Client) Backout(ctx context.Context, group, id string) (Backout, error) {
	return ask[Backout](ctx, c, get("v1", "groups", group, "backouts", id))
}

// Digest computes the digest of the answering node's own copy.
func (c *Client) Digest(ctx context.Context, group string) (Digest, error) {
	x := get("v1", "groups", group, "digest")
	x.wait = 2 * time.Minute // it reads the whole copy
	return ask[Digest](ctx, c, x)
}
