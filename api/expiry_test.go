package api

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/understudy-ha/understudy/client"
)

// A time to live becomes a time at the first node, once: tried again or forwarded it is the same time, whatever the clocks say then.
func TestTimeToLive(t *testing.T) {
	var clock atomic.Int64 // seconds
	now := func() time.Time { return time.Unix(clock.Add(100), 7) }
	primary := start(t, newFake(), func(o *Options) { o.Now = func() time.Time { return time.Unix(1e9, 0) } })
	f := newFake()
	asked := 0
	f.ask = func(context.Context) error {
		if asked++; asked < 3 {
			return &Elsewhere{} // nobody is primary yet
		}
		return &Elsewhere{HTTP: primary.address}
	}
	n := start(t, f, func(o *Options) { o.Node, o.Now = "b", now })
	c := n.client(t)
	if _, err := c.Put(t.Context(), "f", []byte("k"), []byte("v"), client.WriteOptions{TTL: 30 * time.Second, Wait: time.Minute}); err != nil {
		t.Fatal(err)
	}
	want := `put f "k" until 1970-01-01T00:02:10.000000007Z`
	if got := primary.take(); !slices.Equal(got, []string{want}) {
		t.Errorf("at the primary: %q, want %q", got, want)
	}
	if got := f.take(); !slices.Equal(got, []string{want, want, want}) {
		t.Errorf("at the first node: %q", got)
	}
	if _, err := c.Put(t.Context(), "f", []byte("k"), []byte("v"), client.WriteOptions{Expiry: time.Unix(5, 6)}); err != nil { // past
		t.Fatal(err)
	}
	if got := primary.take(); !slices.Equal(got, []string{`put f "k" until 1970-01-01T00:00:05.000000006Z`}) {
		t.Errorf("at the primary: %q", got)
	}
	r, err := c.Get(t.Context(), "f", []byte("k"), client.ReadOptions{})
	if err != nil || !r.Expiry.Equal(time.Unix(9, 0)) || r.Kind != client.KindHash {
		t.Errorf("%+v, %v", r, err)
	}
}

// What cannot be an expiry is refused, and nothing is written.
func TestExpiryIsChecked(t *testing.T) {
	n := start(t, newFake(), nil)
	for _, c := range []struct {
		query  string
		header []string
	}{
		{query: "?ttl="}, {query: "?ttl=0s"}, {query: "?ttl=-1s"}, {query: "?ttl=30"}, {query: "?ttl=never"}, {query: "?ttl=2562047h"},
		{header: []string{""}}, {header: []string{"soon"}}, {header: []string{"2026-11-22"}}, {header: []string{"1970-01-01T00:00:00Z"}},
		{header: []string{"1969-12-31T23:00:00Z"}}, {header: []string{"2263-01-01T00:00:00Z"}},
		{header: []string{"2026-11-22T15:04:05Z", "2026-11-22T15:04:06Z"}},
		{query: "?ttl=30s", header: []string{"2026-11-22T15:04:05Z"}},
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, "http://"+n.address+"/v1/files/f/records/k"+c.query, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		if c.header != nil {
			req.Header[client.HeaderExpiry] = c.header
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		if resp.Body.Close(); resp.StatusCode != http.StatusBadRequest {
			t.Errorf("%s %q: status %d", c.query, c.header, resp.StatusCode)
		}
	}
	if got := n.take(); len(got) > 0 {
		t.Errorf("something was written: %q", got)
	}
	c := n.client(t)
	if _, err := c.Put(t.Context(), "f", []byte("k"), nil, client.WriteOptions{TTL: time.Second, Expiry: time.Now()}); client.CodeOf(err) != client.CodeInvalid || errors.Is(err, client.ErrUnknownOutcome) {
		t.Errorf("both: %v", err)
	}
}
