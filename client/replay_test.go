package client

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// A request with a key that was sent over a kept connection is sent again by net/http, by itself, when that breaks. When the second
// connection is refused, the first try may still have been done. Proves TR-3.
func TestKeyedWriteOverAKeptConnection(t *testing.T) {
	for _, method := range []string{http.MethodPut, http.MethodDelete} {
		var s *httptest.Server
		s = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodGet {
				answers(200, written)(w, r)
				return
			}
			_ = s.Listener.Close()
			hangsUp(w, r)
		}))
		defer s.Close()
		c := connect(t, Options{Addresses: []string{strings.TrimPrefix(s.URL, "http://")}, Retry: 50 * time.Millisecond})
		if _, err := c.Get(t.Context(), "f", []byte("k"), ReadOptions{}); err != nil {
			t.Fatal(err)
		}
		var err error
		if o := (WriteOptions{IdempotencyKey: once}); method == http.MethodPut {
			_, err = c.Put(t.Context(), "f", []byte("k"), []byte("v"), o)
		} else {
			_, err = c.Delete(t.Context(), "f", []byte("k"), o)
		}
		if !errors.Is(err, ErrUnknownOutcome) || OutcomeOf(err) != OutcomeUndecided {
			t.Errorf("%s: %v", method, err)
		}
	}
}
