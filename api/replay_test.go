package api

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/understudy-ha/understudy/client"
)

// net/http sends a request by itself again over a new connection when it has a header that is said to make that harmless. Of
// a forwarded write with a key nobody says then that it was not done; without one of ours it is sent once, whatever other header it has.
// Proves TR-3.
func TestForwardedOverAKeptConnection(t *testing.T) {
	for _, header := range []string{client.HeaderIdempotencyKey, "X-Idempotency-Key"} {
		for _, refuses := range []bool{true, false} {
			for _, method := range []string{"PUT", "DELETE"} {
				var taken atomic.Int32
				network := &flaky{}
				s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					_, _ = io.Copy(io.Discard, r.Body)
					if taken.Add(1) == 1 {
						return // the connection is kept
					}
					network.dead.Store(refuses)
					panic(http.ErrAbortHandler)
				}))
				f := newFake()
				var asked atomic.Int32
				f.ask = func(context.Context) error {
					if asked.Add(1) > 2 {
						return nil // this node has become the primary
					}
					return &Elsewhere{HTTP: s.Listener.Addr().String()}
				}
				n := start(t, f, func(o *Options) { o.Network = network })
				closeBody(n.send(t, "PUT", "/v1/files/f/records/k", strings.NewReader("v")))
				p := problemOf(t, n.send(t, method, "/v1/files/f/records/k", nil, header, "key"))
				if p.Code != client.CodeUnknownOutcome || asked.Load() != 2 {
					t.Errorf("%s with %s: %+v", method, header, p)
				}
				if header != client.HeaderIdempotencyKey && taken.Load() != 2 {
					t.Errorf("%s with %s was sent %d times", method, header, taken.Load()-1)
				}
				s.Close()
			}
		}
	}
}
