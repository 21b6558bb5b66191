package cluster

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	stdlog "log"
	"net"
	"strings"
	"syscall"
	"testing"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// How grave a complaint is depends on its cause: what concerns another node is no error of this one, what concerns its own disk is.
func TestComplaintsWeighByTheirCause(t *testing.T) {
	refused := &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
	closed := fmt.Errorf("read: %w", net.ErrClosed)
	disk := errors.New("input/output error")
	for name, tc := range map[string]struct {
		args            []any
		running, ending hclog.Level
	}{
		"a peer that is down":         {[]any{"peer", "b", "error", refused}, hclog.Warn, hclog.Debug},
		"a peer that ends":            {[]any{"peer", "b", "error", io.EOF}, hclog.Warn, hclog.Debug},
		"a peer that says no":         {[]any{"target", "b", "error", errors.New("rejected")}, hclog.Warn, hclog.Debug},
		"a peer with a newer term":    {[]any{"peer", "b"}, hclog.Warn, hclog.Debug},
		"a connection that was ended": {[]any{"error", closed}, hclog.Warn, hclog.Debug},
		"the end of the transport":    {[]any{"error", raft.ErrTransportShutdown}, hclog.Warn, hclog.Debug},
		"the disk":                    {[]any{"index", 7, "error", disk}, hclog.Error, hclog.Error},
		"something else":              {nil, hclog.Error, hclog.Error},
	} {
		if got := weigh(hclog.Error, tc.args, false); got != tc.running {
			t.Errorf("%s: %s, want %s", name, got, tc.running)
		}
		if got := weigh(hclog.Error, tc.args, true); got != tc.ending {
			t.Errorf("%s, while it closes: %s, want %s", name, got, tc.ending)
		}
	}
	if got := weigh(hclog.Warn, []any{"peer", "b"}, false); got != hclog.Warn {
		t.Errorf("a warning became %s", got)
	}
}

// Gossip's own lines keep their order of weight below an error.
func TestGossipNeverSaysError(t *testing.T) {
	var out bytes.Buffer
	closing := false
	l := stdlog.New(chatter{hclog.New(&hclog.LoggerOptions{Output: &out, Level: hclog.Debug}), func() bool { return closing }}, "", 0)
	l.Print("[ERR] memberlist: no ping")
	l.Print("[DEBUG] memberlist: details")
	l.Print("no level")
	closing = true
	l.Print("[ERR] memberlist: closed connection")
	var got []string
	for line := range strings.Lines(out.String()) {
		got = append(got, strings.Join(strings.Fields(line)[1:], " "))
	}
	want := "[WARN] memberlist: no ping|[DEBUG] memberlist: details|[INFO] no level|[DEBUG] memberlist: closed connection"
	if strings.Join(got, "|") != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
