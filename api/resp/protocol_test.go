package resp

import (
	"strings"
	"testing"
	"time"

	"github.com/understudy-ha/understudy/internal/ident"
)

// Proves CL-7: commands are relayed to nodes of the same protocol only, whichever side is the newer one, or from before the number.
func TestRelayToOtherProtocol(t *testing.T) {
	for _, x := range []struct{ from, to ident.Protocol }{{3, 3}, {0, 0}, {4, 3}, {3, 4}, {0, 3}, {3, 0}} {
		w := newWorld(t, 2, func(o *Options) {
			o.Limits.Wait = time.Second
			if o.Protocol = x.to; o.Node == "b" {
				o.Protocol = x.from
			}
		})
		got := w.nodes[1].dial(t).do("SET", "k", "v")
		if same := x.from == x.to; same != (got == "OK") {
			t.Errorf("protocol %s to %s: SET: %s", x.from, x.to, got)
		}
		if x.from != x.to {
			if got := w.nodes[0].dial(t).do("GET", "k"); got != "nil" {
				t.Errorf("protocol %s to %s: the record is there: %s", x.from, x.to, got)
			}
		}
	}
	w := newWorld(t, 1, func(o *Options) { o.Protocol = 3 })
	c := w.nodes[0].dial(t)
	for _, said := range [][]string{{"0"}, {"0", "4"}, {"0", "2"}, {"0", "x"}, {"0", "259"}} {
		got := c.do(append([]string{"UNDERSTUDY", "RELAY"}, said...)...)
		if !strings.HasPrefix(got, "-OTHERBUILD node a speaks inter-node protocol 3") {
			t.Errorf("RELAY %v: %s", said, got)
		}
	}
	if got := c.do("UNDERSTUDY", "RELAY", "0", "3"); got != ":3" {
		t.Errorf("got %s", got)
	}
	if got := c.do("UNDERSTUDY", "RELAY", "1000"); got != "OK" { // of a batch
		t.Errorf("got %s", got)
	}
}
