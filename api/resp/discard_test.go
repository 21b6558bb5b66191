package resp

import (
	"errors"
	"io"
	"strings"
	"testing"
)

// A client that sends too much, and reads only when all is sent, hears why, and then the end of the connection, not a reset.
func TestTooMuchIsAnswered(t *testing.T) {
	w := newWorld(t, 1)
	const most = 16 << 20
	c := w.nodes[0].dial(t)
	if got := c.do("SET", "k", strings.Repeat("x", most-64)); got != "OK" {
		t.Fatalf("a value below the limit: %.80s", got)
	}
	for name, words := range map[string][]string{
		"one argument": {"SET", "k", strings.Repeat("x", most+1)},
		"all of them":  {"MSET", "a", strings.Repeat("x", most), "b", strings.Repeat("x", most)},
	} {
		c := w.nodes[0].dial(t)
		if _, err := c.conn.Write([]byte(frame(words...))); err != nil {
			t.Errorf("%s: the client could not send it all: %v", name, err)
		}
		if got := c.read(); !strings.HasPrefix(got, "-ERR Protocol error: ") || !strings.Contains(got, "bytes") {
			t.Errorf("%s: %.80s", name, got)
		}
		if _, err := c.in.ReadByte(); !errors.Is(err, io.EOF) {
			t.Errorf("%s: after the reply: %v, want the end of the connection", name, err)
		}
	}
	s := w.nodes[0].server
	_ = c.conn.Close()
	soon(t, "all memory is given back", func() bool { return s.memory.used.Load() <= lastBuffer })
}

// Proves BX-5: whose outcome is unknown hears its position as a receipt is asked for, also when another node did it.
func TestUnknownOutcomeHasItsPosition(t *testing.T) {
	w := newWorld(t, 2)
	for i, n := range w.nodes {
		c := n.dial(t)
		w.lost = errors.New("the lease ended")
		if got, at := c.do("INCR", "k"), "default@1."+itoa(i+1); !strings.HasPrefix(got, "-UNKNOWNOUTCOME the write at "+at+" ") || !strings.Contains(got, "`understudy receipt "+at+"`") {
			t.Errorf("node %s: %s", n.id, got)
		}
	}
	if got := (&Unknown{Err: errors.New("the lease ended")}).Error(); strings.Contains(got, "0.0") {
		t.Errorf("without a position: %s", got)
	}
}

// CLIENT LIST tells the connections of other nodes' relays from those of clients, and INFO does not count them.
func TestRelaysAreMarked(t *testing.T) {
	w := newWorld(t, 2)
	if got := w.nodes[1].dial(t).do("SET", "k", "v"); got != "OK" { // relayed to a
		t.Fatal(got)
	}
	c := w.nodes[0].dial(t)
	relays := 0
	for line := range strings.Lines(c.do("CLIENT", "LIST")) {
		switch relay := strings.Contains(line, " name=understudy-relay "); {
		case relay != strings.Contains(line, " flags=S "):
			t.Errorf("a relay is marked in part: %s", line)
		case relay:
			relays++
		}
	}
	if relays != 1 {
		t.Errorf("%d relays are shown", relays)
	}
	if got := c.do("INFO", "clients"); !strings.Contains(got, "connected_clients:1\r\n") {
		t.Errorf("INFO clients: %q", got)
	}
}
