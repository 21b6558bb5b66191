package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"mime"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// maxAnswer bounds an answer in memory, so that a broken peer cannot exhaust it. Nodes bound pages far below.
const maxAnswer = 256 << 20

// Back-off between rounds over all addresses: from half of it to all of it, so that clients that failed together do not come back together.
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
	span   string        // sent as Range; "": everything
	header http.Header   // sent too; several tries share it
	once   bool          // it has an idempotency key: repeating it cannot do it twice
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
// says that surely nothing was done. A request that changes something is not repeated once it was on its way, unless it has an
// idempotency key: then it is, until a node knows its outcome. What a node said counts for more than that another one cannot be
// reached.
func (c *Client) do(ctx context.Context, x exchange) (answer, error) {
	if c.bad != nil {
		return answer{}, c.bad
	}
	if c.probe && !x.safe() && len(c.bases) > 1 {
		_, _ = c.readRound(ctx, exchange{method: http.MethodGet, path: "/livez", health: true}, &failures{}) // only to find a node that answers
	}
	giveUp := time.Now().Add(c.retry)
	pause := firstPause
	var unknown *Error
	for {
		round := c.changeRound
		if x.safe() {
			round = c.readRound
		}
		f := failures{once: x.once, unknown: unknown}
		a, err := round(ctx, x, &f)
		if err == nil || f.final {
			return a, err
		}
		if unknown == nil && f.unknown != nil {
			giveUp = time.Now().Add(c.retry) // a try may have taken all the time
		}
		unknown = f.unknown
		if ctx.Err() != nil || c.retry < 0 || time.Now().Add(pause).After(giveUp) {
			return answer{}, f.best(ctx)
		}
		select {
		case <-time.After(jittered(pause)):
		case <-ctx.Done():
			return answer{}, f.best(ctx)
		}
		pause = min(2*pause, lastPause)
	}
}

// jittered is a random time from half of pause to all of it.
func jittered(pause time.Duration) time.Duration { return pause/2 + rand.N(pause/2+1) }

// failures are what one round over all addresses came to.
type failures struct {
	final    bool     // there is nothing to repeat
	answered *Error   // what a node said
	silent   []string // each address that gave no answer, and why
	cause    error    // the last such reason

	once    bool   // see exchange
	unknown *Error // a try, also of an earlier round, may have been done: only what its key is kept with ends the exchange
}

// add notes a failed try and tells whether it ends the exchange.
func (f *failures) add(base string, err error) bool {
	if e, ok := asError(err); ok {
		if f.once && OutcomeOf(e) == OutcomeUndecided {
			f.unknown = e
			return false
		}
		f.final = !e.Code.NotDone()
		if f.unknown != nil {
			f.final = e.Code.decided()
		}
		if f.answered == nil || f.final || e.Code == CodeNoQuorum {
			f.answered = e
		}
		return f.final
	}
	f.silent, f.cause = append(f.silent, strings.TrimPrefix(base, "http://")+" ("+briefly(err)+")"), err
	return false
}

// best is the error that says most.
func (f *failures) best(ctx context.Context) error {
	switch {
	case f.unknown != nil && !f.final:
		return f.unknown
	case f.answered != nil:
		return f.answered
	case ctx.Err() != nil && f.cause == nil:
		f.cause = ctx.Err()
	}
	return &Error{Code: CodeUnavailable, Detail: "no node answers at " + strings.Join(f.silent, ", "),
		Remedy: "check the addresses and that the nodes run", cause: f.cause}
}

// briefly says in a few words why an address gave no answer.
func briefly(err error) string {
	var timeout net.Error
	var op *net.OpError
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connection refused"
	case errors.Is(err, context.Canceled):
		return "given up"
	case errors.As(err, &timeout) && timeout.Timeout():
		return "no answer in time"
	case errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET):
		return "the connection was closed without an answer"
	case errors.As(err, &op):
		return op.Err.Error()
	}
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err.Error()
	}
	return err.Error()
}

// changeRound sends a change to one address after the other, until it may have been sent.
func (c *Client) changeRound(ctx context.Context, x exchange, f *failures) (answer, error) {
	for range c.bases {
		at := c.current.Load()
		base := c.bases[int(at)%len(c.bases)]
		a, sent, err := c.try(ctx, base, x)
		if err == nil {
			return a, nil
		}
		if _, answered := asError(err); sent && !answered {
			lost := &Error{
				Code: CodeUnknownOutcome, Detail: fmt.Sprintf("%s %s was sent, but the answer is missing", x.method, x.path),
				Remedy: "read what it should have changed before you repeat it", cause: err,
			}
			if !x.once {
				f.final = true
				return answer{}, lost
			}
			lost.Remedy = "repeat it with the same idempotency key"
			err = lost
		}
		if f.add(base, err) || ctx.Err() != nil {
			return answer{}, f.best(ctx)
		}
		c.current.CompareAndSwap(at, (at+1)%uint32(len(c.bases)))
	}
	return answer{}, f.best(ctx)
}

// readRound sends a read to one address after the other. One that says nothing for a while costs only that while: the next
// is asked too, and whoever answers first is heard. It joins what it started.
func (c *Client) readRound(ctx context.Context, x exchange, f *failures) (answer, error) {
	ctx, cancel := context.WithCancel(ctx)
	var asking sync.WaitGroup
	defer asking.Wait()
	defer cancel()
	type result struct {
		at  uint32
		a   answer
		err error
	}
	count := uint32(len(c.bases))
	results := make(chan result, count)
	first, asked, running := c.current.Load(), uint32(0), 0
	next := func() {
		at := (first + asked) % count
		asked++
		running++
		asking.Go(func() {
			a, _, err := c.try(ctx, c.bases[at], x)
			results <- result{at, a, err}
		})
	}
	silence := time.NewTimer(c.hedge + x.wait)
	defer silence.Stop()
	next()
	for {
		select {
		case r := <-results:
			running--
			if r.err == nil || f.add(c.bases[r.at], r.err) {
				c.current.Store(r.at)
				return r.a, r.err
			}
			if asked == count && running == 0 {
				c.current.CompareAndSwap(first, (first+1)%count)
				return answer{}, f.best(ctx)
			}
			if asked == count {
				continue
			}
		case <-silence.C:
			if asked == count && f.answered != nil {
				return answer{}, f.answered // what is still silent would hardly say more
			}
		}
		if asked < count {
			next()
		}
		silence.Reset(c.hedge + x.wait)
	}
}

// try sends x to one node. The error is an *Error when the node answered with a problem; sent tells whether any of the
// request may have left this process.
func (c *Client) try(ctx context.Context, base string, x exchange) (a answer, sent bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout+x.wait)
	defer cancel()
	var onItsWay atomic.Bool // since net/http last chose a connection: it takes another one only when nothing was sent, or with a key
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GetConn: func(string) {
			if !x.once {
				onItsWay.Store(false)
			}
		},
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
		if query = maps.Clone(x.query); query == nil { // several tries share x
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
	maps.Copy(req.Header, x.header)
	if x.span != "" {
		req.Header.Set("Range", x.span)
	}
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
