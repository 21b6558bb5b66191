package api

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/understudy-ha/understudy/client"
	"github.com/understudy-ha/understudy/internal/ident"
)

// Proves CL-7: a node does nothing for a forwarded request or a question of a node of another protocol, whichever is the newer one. A
// build from before the protocol refuses what this one forwards.
func TestForwardToOtherProtocol(t *testing.T) {
	for _, x := range []struct{ from, to ident.Protocol }{{3, 3}, {0, 0}, {4, 3}, {3, 4}, {0, 3}, {3, 0}} {
		primary := start(t, newFake(), func(o *Options) { o.Protocol = x.to })
		f := newFake()
		f.ask = elsewhere(primary.address)
		n := start(t, f, func(o *Options) { o.Node, o.Protocol = "b", x.from })
		_, err := n.client(t).Put(t.Context(), "f", []byte("k"), []byte("v"), client.WriteOptions{Wait: 50 * time.Millisecond})
		asked := primary.take()
		switch same := x.from == x.to; {
		case same && (err != nil || len(asked) != 1):
			t.Errorf("protocol %s to %s: %v, asked %q", x.from, x.to, err, asked)
		case !same && (!errors.Is(err, client.ErrNoPrimary) || len(asked) != 0): // surely not done
			t.Errorf("protocol %s to %s: %v, asked %q", x.from, x.to, err, asked)
		}

		question := httptest.NewRequest(http.MethodGet, "http://"+primary.address+"/v1/status", nil)
		question.RequestURI = ""
		Asks(question.Header, x.from)
		answer, err := http.DefaultClient.Do(question)
		if err != nil {
			t.Fatal(err)
		}
		if _ = answer.Body.Close(); (answer.StatusCode == http.StatusOK) != (x.from == x.to) {
			t.Errorf("protocol %s asks %s: %d", x.from, x.to, answer.StatusCode)
		}
	}
}

// A request that is wrong in itself is answered as wrong also when it was forwarded: that is no old build.
func TestForwardedBadRequest(t *testing.T) {
	primary := start(t, newFake(), func(o *Options) { o.Protocol = 3 })
	resp := primary.send(t, "PUT", "/v1/files/f/records/k?nonsense=1", strings.NewReader("v"), headerHops, "1/3")
	if resp.StatusCode != http.StatusBadRequest || resp.Header.Get(headerHops) != "3" {
		t.Errorf("got %d %v", resp.StatusCode, resp.Header)
	}
	if p := problemOf(t, primary.send(t, "GET", "/v1/status", nil, headerHops, "many/3")); p.Status != 400 {
		t.Errorf("got %d", p.Status)
	}
}
