package api

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptrace"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/understudy-ha/understudy/client"
	"github.com/understudy-ha/understudy/internal/host"
)

// Pauses between two looks at who is primary, when no change is signalled.
const (
	firstPause = 2 * time.Millisecond
	lastPause  = 250 * time.Millisecond
)

// aboutToServe is how long a forwarded request waits at a node that by its own state is the primary, and does not serve yet: it has just been
// given the role. One that is cut off thinks so for longer, and the sender may know better.
const aboutToServe = 100 * time.Millisecond

// maxForwarded bounds the answer to a forwarded change, which is kept in memory to be sure that it is complete.
const maxForwarded = 4 << 20

// errNotThere says that a forwarded request surely was not done where it was sent.
var errNotThere = errors.New("not done there")

// resolve lets the route answer, here or where its *Elsewhere points to. Only the node that the client spoke to (no hops)
// waits, so one clock decides when it is over.
func (a *API) resolve(rt route, r *request) (reply, error) {
	pause, about := firstPause, time.Now().Add(aboutToServe)
	for {
		changed := a.changed() // before the question, so that no change is missed
		rep, err := rt.serve(a, r)
		var other *Elsewhere
		if !errors.As(err, &other) {
			return rep, a.why503(r, err)
		}
		if other.HTTP != "" && !other.Retry && r.hops < maxHops {
			rep, err := a.forward(r, other.HTTP)
			if !errors.Is(err, errNotThere) {
				return rep, err
			}
		}
		if r.hops > 0 && (!other.Retry || time.Now().After(about)) {
			return nil, &client.Error{Code: client.CodeNotPrimary, Detail: other.Error(), Reason: fmt.Sprintf("the request was forwarded %d times", r.hops)}
		}
		if err := a.pause(r, changed, &pause); err != nil {
			a.counters.failed.Inc()
			return nil, a.why503(r, &client.Error{Code: client.CodeNoPrimary, Detail: "no node took the request in time", Reason: err.Error()})
		}
	}
}

// why503 says no_quorum of a request that surely was not done in time, when that is the cause: then waiting longer does not
// help. Readiness is asked after the time, so that a short election is not taken for it.
func (a *API) why503(r *request, err error) error {
	code := client.CodeOf(err)
	if code != client.CodeNoPrimary && code != client.CodeUnavailable || time.Now().Before(r.end) {
		return err
	}
	var e *client.Error
	if ready := a.o.Roles.Ready(r.far); errors.As(ready, &e) && e.Code == client.CodeNoQuorum {
		return e
	}
	return err
}

// changed returns a channel that is closed at the next change of roles; nil when nobody signals it.
func (a *API) changed() <-chan struct{} {
	if a.o.Changed == nil {
		return nil
	}
	return a.o.Changed()
}

// pause waits for a change of roles, or a while; an error says why there is no more waiting.
func (a *API) pause(r *request, changed <-chan struct{}, pause *time.Duration) error {
	left := time.Until(r.end)
	if left <= 0 {
		return errors.New("the time for the request ran out while no primary could be reached")
	}
	t := time.NewTimer(min(*pause, left))
	defer t.Stop()
	*pause = min(2**pause, lastPause)
	select {
	case <-changed:
	case <-t.C:
	case <-r.drain.Done():
		return errors.New("this node is stopping, or the client has left")
	}
	return nil
}

// forward sends the request to another node and returns its answer. errNotThere: it was surely not done.
func (a *API) forward(r *request, address string) (reply, error) {
	keyed := r.Header.Get(client.HeaderIdempotencyKey) != ""
	var sent atomic.Bool // since net/http last chose a connection: it takes another one only when nothing was sent, or with a key
	ctx := httptrace.WithClientTrace(r.far, &httptrace.ClientTrace{
		GetConn: func(string) {
			if !keyed {
				sent.Store(false)
			}
		},
		GotConn: func(httptrace.GotConnInfo) { sent.Store(true) },
	})
	out, err := http.NewRequestWithContext(ctx, r.Method, "http://"+address, bytes.NewReader(r.body))
	if err != nil {
		return nil, fmt.Errorf("%w: address %q: %w", errNotThere, address, err)
	}
	query := maps.Clone(r.query)
	if !r.route.polls && slices.Contains(r.route.params, "wait") {
		query.Set("wait", max(time.Until(r.end), time.Millisecond).String())
	}
	out.URL.Path, out.URL.RawPath, out.URL.RawQuery = r.URL.Path, r.URL.RawPath, query.Encode()
	copyHeaders(out.Header, r.Header)
	out.Header.Set(headerHops, a.hops[r.hops+1])

	resp, err := a.peers.Do(out)
	switch {
	case err != nil && (!sent.Load() || !r.writes()):
		a.o.Logger.Debug("could not forward", "address", address, "error", err)
		return nil, fmt.Errorf("%w: %w", errNotThere, err)
	case err != nil:
		return nil, a.lost(address, err)
	}
	a.counters.forwarded.Inc()
	if resp.StatusCode == http.StatusMisdirectedRequest || resp.StatusCode == http.StatusRequestTimeout { // the latter: see parting.go
		closeBody(resp)
		return nil, errNotThere
	}
	if a.older(resp) {
		closeBody(resp)
		return nil, errNotThere
	}
	if r.writes() {
		return a.keep(address, resp)
	}
	return func(w http.ResponseWriter) { pass(w, resp) }, nil
}

// lost says that a change was sent and nobody knows what became of it.
func (a *API) lost(address string, err error) error {
	a.counters.failed.Inc()
	return &client.Error{Code: client.CodeUnknownOutcome, Detail: "the request was forwarded to " + address + ", but the answer is missing", Reason: err.Error()}
}

// keep reads the whole answer to a change: one that breaks off says nothing about the outcome.
func (a *API) keep(address string, resp *http.Response) (reply, error) {
	defer closeBody(resp)
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxForwarded+1))
	if err == nil && len(body) > maxForwarded {
		err = fmt.Errorf("it has more than %d bytes", maxForwarded)
	}
	if err != nil {
		return nil, a.lost(address, err)
	}
	return func(w http.ResponseWriter) {
		copyHeaders(w.Header(), resp.Header)
		w.WriteHeader(resp.StatusCode)
		_, _ = w.Write(body) // the client may be gone
	}, nil
}

// pass streams the answer to a read. One that breaks off must not look complete.
func pass(w http.ResponseWriter, resp *http.Response) {
	defer closeBody(resp)
	copyHeaders(w.Header(), resp.Header)
	if resp.ContentLength >= 0 {
		w.Header().Set("Content-Length", strconv.FormatInt(resp.ContentLength, 10))
	}
	w.WriteHeader(resp.StatusCode)
	if _, err := io.Copy(w, resp.Body); err != nil {
		panic(http.ErrAbortHandler)
	}
}

// closeBody ends an answer; what is wrong with the connection was seen while reading, or does not matter any more.
func closeBody(resp *http.Response) { _ = resp.Body.Close() }

// copyHeaders copies what concerns both ends. What concerns one connection stays, and so does what a browser says about the
// page it shows: the first node has judged that. X-Idempotency-Key says nothing to nodes, but net/http would repeat for it what was sent.
func copyHeaders(to, from http.Header) {
	for name, values := range from {
		switch name {
		case "Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization", "Proxy-Connection", "Te", "Trailer",
			"Transfer-Encoding", "Upgrade", "Content-Length", "Expect", "Accept-Encoding", "Date", "Origin", "X-Idempotency-Key", headerHops:
		default:
			if !strings.HasPrefix(name, "Sec-") {
				to[name] = slices.Clone(values)
			}
		}
	}
}

// newPeers returns the client by which requests are forwarded.
func newPeers(n host.Network) *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			DialContext:            func(ctx context.Context, _, address string) (net.Conn, error) { return n.Dial(ctx, address) },
			MaxIdleConnsPerHost:    64,
			IdleConnTimeout:        30 * time.Second, // below the listeners', so that it is us who close
			MaxResponseHeaderBytes: 64 << 10,
			DisableCompression:     true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}
