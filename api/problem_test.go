package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/understudy-ha/understudy/client"
)

// send does a plain request, so that tests see the bytes on the wire.
func (n *testNode) send(t *testing.T, method, path string, body io.Reader, headers ...string) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, n.url(path), body)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := httpClient(t).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = resp.Body.Close() })
	return resp
}

// problemOf reads an answer that must be a complete problem body.
func problemOf(t *testing.T, resp *http.Response) (p struct {
	Type, Title string
	client.Error
}) {
	t.Helper()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if got := resp.Header.Get("Content-Type"); got != "application/problem+json" {
		t.Fatalf("content type %q, body %q", got, raw)
	}
	if err := json.Unmarshal(raw, &p); err != nil {
		t.Fatal(err)
	}
	if p.Status != resp.StatusCode || p.Title == "" || p.Detail == "" || p.Node == "" || p.Type != "urn:understudy:problem:"+string(p.Code) {
		t.Errorf("status %d, problem %s", resp.StatusCode, raw)
	}
	return p
}

// Every condition keeps its code and its sentinel across the network, and says what to do.
func TestEveryErrorCrossesTheNetwork(t *testing.T) {
	f := newFake()
	n := start(t, f, nil)
	c := n.client(t)
	for _, tc := range []struct {
		code     client.Code
		sentinel error
		status   int
	}{
		{client.CodeInvalid, client.ErrInvalid, 400},
		{client.CodeNotFound, client.ErrNotFound, 404},
		{client.CodeUnknownGroup, client.ErrUnknownGroup, 404},
		{client.CodeUnknownNode, client.ErrUnknownNode, 404},
		{client.CodeTooLarge, client.ErrTooLarge, 413},
		{client.CodeExists, client.ErrExists, 409},
		{client.CodeBusy, client.ErrBusy, 409},
		{client.CodePrecondition, client.ErrPrecondition, 412},
		{client.CodeNotPrimary, client.ErrNotPrimary, 421},
		{client.CodeNoPrimary, client.ErrNoPrimary, 503},
		{client.CodeNoQuorum, client.ErrNoQuorum, 503},
		{client.CodeNoSync, client.ErrNoSync, 503},
		{client.CodeUnavailable, client.ErrUnavailable, 503},
		{client.CodeStale, client.ErrStale, 503},
		{client.CodeStorageFull, client.ErrStorageFull, 507},
		{client.CodeUnknownOutcome, client.ErrUnknownOutcome, 504},
		{client.CodeCorrupt, client.ErrCorrupt, 500},
		{client.CodeUnsupported, client.ErrUnsupported, 501},
		{client.CodeInternal, client.ErrInternal, 500},
	} {
		t.Run(string(tc.code), func(t *testing.T) {
			f.err = fmt.Errorf("while writing: %w", &client.Error{
				Code: tc.code, Reason: "because", Position: "default@3.43", Checks: []client.Check{{Name: "lag", Value: "5", Limit: "0"}},
			})
			_, err := c.Put(t.Context(), "f", []byte("k"), nil, client.WriteOptions{})
			var e *client.Error
			if !errors.Is(err, tc.sentinel) || !errors.As(err, &e) {
				t.Fatalf("got %v", err)
			}
			if e.Status != tc.status || e.Code != tc.code || e.Reason != "because" || e.Position != "default@3.43" || len(e.Checks) != 1 || e.Node != "a" {
				t.Errorf("got %+v", e)
			}
			if e.Remedy == "" && tc.code != client.CodeInvalid && tc.code != client.CodeNotFound && tc.code != client.CodeTooLarge && tc.code != client.CodeUnsupported {
				t.Error("no remedy")
			}
			// The bare sentinel means the same.
			f.err = fmt.Errorf("while writing: %w", tc.sentinel)
			if _, err := c.Put(t.Context(), "f", []byte("k"), nil, client.WriteOptions{}); !errors.Is(err, tc.sentinel) {
				t.Errorf("sentinel: got %v", err)
			}
		})
	}
}

func TestOtherErrors(t *testing.T) {
	f := newFake()
	n := start(t, f, nil)
	for _, tc := range []struct {
		name, method string
		err          error
		code         client.Code
	}{
		{"unforeseen", "GET", errors.New("boom"), client.CodeInternal},
		{"unforeseen, of a write", "PUT", errors.New("boom"), client.CodeUnknownOutcome},
		{"a write out of time", "PUT", fmt.Errorf("wait for commit: %w", context.DeadlineExceeded), client.CodeUnknownOutcome},
		{"a read out of time", "GET", context.DeadlineExceeded, client.CodeUnavailable},
		{"a status that is no error", "GET", &client.Error{Status: 200, Code: client.CodeBusy}, client.CodeBusy},
		{"no code", "GET", &client.Error{Detail: "?"}, client.CodeInternal},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f.err = tc.err
			resp := n.send(t, tc.method, "/v1/files/f/records/k", nil)
			if p := problemOf(t, resp); p.Code != tc.code || p.Status != tc.code.Status() {
				t.Errorf("got %+v", p)
			}
		})
	}
}

func TestPanicIsAProblem(t *testing.T) {
	f := newFake()
	f.ask = func(context.Context) error { panic("oops") }
	n := start(t, f, nil)
	if p := problemOf(t, n.send(t, "GET", "/v1/files/f/records/k", nil)); p.Code != client.CodeInternal || p.Reason != "oops" {
		t.Errorf("read: %+v", p)
	}
	if p := problemOf(t, n.send(t, "PUT", "/v1/files/f/records/k", nil)); p.Code != client.CodeUnknownOutcome {
		t.Errorf("write: %+v", p)
	}
}

func TestUnknownPathsAndMethods(t *testing.T) {
	n := start(t, newFake(), nil)
	if p := problemOf(t, n.send(t, "GET", "/v2/status", nil)); p.Code != client.CodeUnknownPath || p.Status != 404 {
		t.Errorf("path: %+v", p)
	}
	resp := n.send(t, "PATCH", "/v1/files/f/records/k", nil)
	if p := problemOf(t, resp); p.Code != client.CodeMethodNotAllowed || p.Status != 405 {
		t.Errorf("method: %+v", p)
	}
	if got := resp.Header.Get("Allow"); got != "GET, PUT, DELETE" {
		t.Errorf("Allow: %q", got)
	}
	resp = n.send(t, "HEAD", "/v1/files/f/records/k", nil)
	if resp.StatusCode != 200 || resp.Header.Get(client.HeaderPosition) != "default@3.41" || resp.ContentLength != 8 {
		t.Errorf("HEAD: %d %v", resp.StatusCode, resp.Header)
	}
}

// A page of another origin must not write; programs, which say nothing of an origin, may.
func TestOtherOrigins(t *testing.T) {
	f := newFake()
	n := start(t, f, nil)
	resp := n.send(t, "POST", "/v1/groups/default/switchover", strings.NewReader("{}"), "Origin", "http://elsewhere.example", "Sec-Fetch-Site", "cross-site")
	if p := problemOf(t, resp); p.Status != http.StatusForbidden {
		t.Errorf("got %+v", p)
	}
	if asked := f.take(); asked != nil {
		t.Errorf("asked %q", asked)
	}
	if resp := n.send(t, "GET", "/v1/status", nil, "Origin", "http://elsewhere.example"); resp.StatusCode != 200 {
		t.Errorf("read: %d", resp.StatusCode)
	}
}
