package client

import (
	"context"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// Headers of answers about records.
const (
	HeaderPosition = "Understudy-Position" // of the record's last change
	HeaderApplied  = "Understudy-Applied"  // position of the copy that was read
	HeaderAge      = "Understudy-Age"      // how old that copy may be, in seconds
	HeaderTime     = "Understudy-Time"     // of the record's last change, RFC 3339
	HeaderExpiry   = "Understudy-Expiry"   // of the record, RFC 3339; missing: never. Of a write, too
	HeaderKind     = "Understudy-Kind"     // of the record, a number; missing: KindBytes
	HeaderNode     = "Understudy-Node"     // who answered
	HeaderLocal    = "Understudy-Local"    // the one node that has the record; missing: a group has it
)

func record(method, file string, key []byte, value []byte, wait time.Duration) exchange {
	return exchange{
		method: method, path: pathOf("v1", "files", file, "records", string(key)), query: url.Values{},
		body: value, raw: value != nil, wait: wait,
	}
}

// Put writes a record and returns once the write is committed. ErrUnknownOutcome: it may have been done. A record that was there
// is replaced with its expiry: without one in o it never expires.
func (c *Client) Put(ctx context.Context, file string, key, value []byte, o WriteOptions) (WriteResult, error) {
	if value == nil {
		value = []byte{}
	}
	x := record(http.MethodPut, file, key, value, o.Wait)
	if o.TTL != 0 {
		x.query.Set("ttl", o.TTL.String())
	}
	if !o.Expiry.IsZero() {
		x.set(HeaderExpiry, o.Expiry.UTC().Format(time.RFC3339Nano))
	}
	return c.write(ctx, x, o)
}

// Delete deletes a record and returns once that is committed; ErrNotFound when there was none.
func (c *Client) Delete(ctx context.Context, file string, key []byte, o WriteOptions) (WriteResult, error) {
	x := record(http.MethodDelete, file, key, nil, o.Wait)
	setText(x.query, "group", o.Group)
	return c.write(ctx, x, o)
}

func (c *Client) write(ctx context.Context, x exchange, o WriteOptions) (WriteResult, error) {
	c.qualify(&x, o)
	var w WriteResult
	a, err := c.do(ctx, x)
	if err == nil {
		err = a.decode(&w)
		w.Created, w.Replayed = a.status == http.StatusCreated, a.replayed()
	}
	return w, err
}

// Get reads a record; ErrNotFound when there is none, ErrStale when a local copy is older than o.MaxLag.
func (c *Client) Get(ctx context.Context, file string, key []byte, o ReadOptions) (Record, error) {
	x := record(http.MethodGet, file, key, nil, o.Wait)
	if o.Local {
		x.query.Set("local", "true")
	}
	if o.MaxLag > 0 {
		x.query.Set("max_lag", o.MaxLag.String())
	}
	setText(x.query, "group", o.Group)
	a, err := c.do(ctx, x)
	if err != nil {
		return Record{}, err
	}
	r := Record{
		File: file, Key: MakeKey(key), Value: a.body, Node: a.header.Get(HeaderNode), Local: a.header.Get(HeaderLocal),
		Position: a.header.Get(HeaderPosition), Applied: a.header.Get(HeaderApplied),
	}
	r.Age, _ = strconv.ParseFloat(a.header.Get(HeaderAge), 64) // zero when a node does not say
	r.Time, _ = time.Parse(time.RFC3339Nano, a.header.Get(HeaderTime))
	r.Expiry, _ = time.Parse(time.RFC3339Nano, a.header.Get(HeaderExpiry))
	kind, _ := strconv.ParseUint(a.header.Get(HeaderKind), 10, 8)
	r.Kind = uint8(kind)
	return r, nil
}

// List returns one page of a file's records in key order.
func (c *Client) List(ctx context.Context, file string, o ListOptions) (RecordPage, error) {
	x := get("v1", "files", file, "records")
	x.wait = o.Wait
	setText(x.query, "prefix", string(o.Prefix))
	setText(x.query, "from", string(o.From))
	setText(x.query, "group", o.Group)
	if o.Limit != 0 {
		x.query.Set("limit", strconv.Itoa(o.Limit))
	}
	if o.Local {
		x.query.Set("local", "true")
	}
	if o.MaxLag > 0 {
		x.query.Set("max_lag", o.MaxLag.String())
	}
	return ask[RecordPage](ctx, c, x)
}

// All iterates over a file's records in key order, page by page. Pages are read one after the other, each current when it
// was read: the whole is no snapshot. After an error the iteration ends.
func (c *Client) All(ctx context.Context, file string, o ListOptions) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		for {
			page, err := c.List(ctx, file, o)
			if err != nil {
				yield(Record{}, err)
				return
			}
			for _, r := range page.Records {
				if !yield(r, nil) {
					return
				}
			}
			if page.Next == nil {
				return
			}
			o.From = page.Next.Bytes()
		}
	}
}
