package resp

import (
	"errors"
	"strings"
	"testing"
)

// Proves HB-2, BX-5: the position of a local write whose outcome is unknown names its node, since each node has one of the same numbers.
func TestUnknownLocalOutcomeNamesItsNode(t *testing.T) {
	w := newWorld(t, 1)
	n := w.nodes[0]
	n.server.o.Local = "default"
	c := n.dial(t)
	w.lost = errors.New("the disk failed")
	if got, at := c.do("INCR", "k"), "default/"+n.id+"@1.1"; !strings.HasPrefix(got, "-UNKNOWNOUTCOME the write at "+at+" ") || !strings.Contains(got, "`understudy receipt "+at+"`") {
		t.Error(got)
	}
}
