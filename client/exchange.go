package client

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// maxAnswer bounds an answer in memory, so that a broken peer cannot exhaust it. Nodes bound pages far below.
const maxAnswer = 256 << 20

// Back-off between rounds over all addresses.
const (
	firstPause = 20 * time.Millisecond
	lastPause  = 500 * time.Millisecond
)

// exchange is one request, to be sent to whichever node answers.
type exchange struct {
	method string
	path   string // escaped
	query  url.Values
	body   []byte
	raw    bool          // body is a record's value, not JSON
	wait   time.Duration // sent as ?wait=; 0: the node's default
	health bool          // 503 is an answer
}

// answer is what came back, read completely.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// decode reads a JSON answer into v.
func (a answer) decode(v any) error {
	if err := json.Unmarshal(a.body, v); err != nil {
		return &Error{
			Status: a.status, Code: CodeInternal, Detail: "the node's answer could not be read",
			Remedy: "check that the address belongs to a node of this version", cause: err,
		}
	}
	return nil
}

// safe tells whether repeating the exchange cannot do harm, whatever happened to an earlier try.
func (x exchange) safe() bool { return x.method == http.MethodGet }

// do sends x until a node answers: to the next address when one cannot be reached, and again after a pause when the answer
// says that surely nothing was done. A request that changes something is not repeated once it was on its way.
func (c *Client) do(ctx context.Context, x exchange) (answer, error) {
	if c.bad != nil {
		return answer{}, c.bad
	}
	giveUp := time.Now().Add(c.retry)
	pause := firstPause
	for try := 1; ; try++ {
		at := c.current.Load()
		a, sent, err := c.try(ctx, c.bases[int(at)%len(c.bases)], x)
		if err == nil {
			return a, nil
		}
		e, answered := asError(err)
		switch {
		case answered:
			if !e.Code.NotDone() {
				return answer{}, err
			}
		case sent && !x.safe():
			return answer{}, &Error{
				Code: CodeUnknownOutcome, Detail: fmt.Sprintf("%s %s was sent, but the answer is missing", x.method, x.path),
				Remedy: "read what it should have changed before you repeat it", cause: err,
			}
		}
		if ctx.Err() != nil {
			return answer{}, err
		}
		c.current.CompareAndSwap(at, (at+1)%uint32(len(c.bases)))
		if try%len(c.bases) != 0 {
			continue // the others first
		}
		if c.retry < 0 || time.Now().Add(pause).After(giveUp) {
			if !answered {
				err = &Error{Code: CodeUnavailable, Detail: "no node answers at " + strings.Join(c.bases, ", "),
					Remedy: "check the addresses and that the nodes run", cause: err}
			}
			return answer{}, err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return answer{}, err
		}
		pause = min(2*pause, lastPause)
	}
}

// try sends x to one node. The error is an *Error when the node answered with a problem; sent tells whether any of the
// request may have left this process.
func (c *Client) try(ctx context.Context, base string, x exchange) (a answer, sent bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout+x.wait)
	defer cancel()
	var onItsWay atomic.Bool // since net/http last chose a connection: it takes another one only when nothing was sent
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GetConn: func(string) { onItsWay.Store(false) },
		GotConn: func(httptrace.GotConnInfo) { onItsWay.Store(true) },
	})

	req, err := x.request(ctx, base)
	if err != nil {
		return answer{}, false, &Error{Code: CodeInvalid, Detail: "the request cannot be formed", cause: err}
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return answer{}, onItsWay.Load(), err
	}
	defer func() { _ = resp.Body.Close() }() // read to its end below, or useless
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return answer{}, true, err
	}
	a = answer{status: resp.StatusCode, header: resp.Header, body: body}
	switch {
	case len(body) > maxAnswer:
		return answer{}, true, &Error{Status: a.status, Code: CodeTooLarge, Detail: "the answer is too large", Remedy: "ask for less with limit"}
	case a.status < 300, x.health && a.status == http.StatusServiceUnavailable && !a.problem():
		return a, true, nil
	}
	return answer{}, true, a.failure(x)
}

func (x exchange) request(ctx context.Context, base string) (*http.Request, error) {
	target := base + x.path
	query := x.query
	if x.wait > 0 {
		if query == nil {
			query = url.Values{}
		}
		query.Set("wait", x.wait.String())
	}
	if len(query) > 0 {
		target += "?" + query.Encode()
	}
	var body io.Reader
	if x.body != nil {
		body = bytes.NewReader(x.body)
	}
	req, err := http.NewRequestWithContext(ctx, x.method, target, body)
	if err != nil {
		return nil, err
	}
	req.Header.Set("User-Agent", "understudy-client")
	switch {
	case x.raw:
		req.Header.Set("Content-Type", "application/octet-stream")
	case x.body != nil:
		req.Header.Set("Content-Type", "application/json")
	}
	return req, nil
}

func (a answer) problem() bool {
	t, _, err := mime.ParseMediaType(a.header.Get("Content-Type"))
	return err == nil && t == "application/problem+json"
}

// failure turns an answer that is no success into an *Error. What is no problem body comes from something between us and
// the node, which may have passed a change on before it failed.
func (a answer) failure(x exchange) *Error {
	e := &Error{}
	if a.problem() && json.Unmarshal(a.body, e) == nil && e.Code != "" {
		e.Status = a.status
		return e
	}
	text := strings.ToValidUTF8(string(a.body[:min(len(a.body), 200)]), "?")
	e = &Error{Status: a.status, Code: CodeInternal, Detail: fmt.Sprintf("%s %s: status %d", x.method, x.path, a.status),
		Reason: strings.TrimSpace(text), Remedy: "check that the address belongs to a node"}
	if !x.safe() && a.status >= 500 {
		e.Code = CodeUnknownOutcome
	}
	return e
}

// pathOf joins segments to an escaped path.
func pathOf(segments ...string) string {
	var b strings.Builder
	for _, s := range segments {
		b.WriteByte('/')
		b.WriteString(escape(s))
	}
	return b.String()
}

// escape percent-encodes everything but letters, digits and "-_~.", and the dots too of "." and "..", which programs on the
// way would resolve.
func escape(s string) string {
	const hex = "0123456789ABCDEF"
	dots := s == "." || s == ".."
	var b strings.Builder
	for i := range len(s) {
		switch ch := s[i]; {
		case 'a' <= ch && ch <= 'z', 'A' <= ch && ch <= 'Z', '0' <= ch && ch <= '9',
			ch == '-', ch == '_', ch == '~', ch == '.' && !dots:
			b.WriteByte(ch)
		default:
			b.WriteByte('%')
			b.WriteByte(hex[ch>>4])
			b.WriteByte(hex[ch&15])
		}
	}
	return b.String()
}

// ask does x and decodes the answer.
func ask[T any](ctx context.Context, c *Client, x exchange) (T, error) {
	var v T
	a, err := c.do(ctx, x)
	if err != nil {
		return v, err
	}
	return v, a.decode(&v)
}

// list does x and unwraps the items.
func list[T any](ctx context.Context, c *Client, x exchange) ([]T, error) {
	v, err := ask[Items[T]](ctx, c, x)
	return v.Items, err
}

// get is the exchange that reads path.
func get(segments ...string) exchange {
	return exchange{method: http.MethodGet, path: pathOf(segments...), query: url.Values{}}
}

// post is the exchange that sends v as JSON; nil: no body.
func post(v any, segments ...string) (exchange, error) {
	x := exchange{method: http.MethodPost, path: pathOf(segments...), query: url.Values{}}
	if v != nil {
		body, err := json.Marshal(v)
		if err != nil {
			return x, &Error{Code: CodeInvalid, Detail: "the request cannot be written as JSON", cause: err}
		}
		x.body = body
	}
	return x, nil
}

func setNumber(q url.Values, name string, v uint64) {
	if v != 0 {
		q.Set(name, strconv.FormatUint(v, 10))
	}
}

func setText(q url.Values, name, v string) {
	if v != "" {
		q.Set(name, v)
	}
}
