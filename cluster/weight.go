package cluster

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// weigh says how grave a complaint of a library is for an operator, by its cause; the library does not know it. What says that another
// node cannot be reached, does not agree or has ended a connection is no error of this node: it goes on, and what follows from it is
// decided and told elsewhere. While this node closes, such things are what it has brought about itself.
func weigh(level hclog.Level, args []any, closing bool) hclog.Level {
	ofPeer, cause := false, error(nil)
	for i := 0; i+1 < len(args); i += 2 {
		switch name, _ := args[i].(string); name {
		case "peer", "target":
			ofPeer = true
		case "error":
			cause, _ = args[i+1].(error)
		}
	}
	if !ofPeer && !connectionEnded(cause) {
		return level
	}
	if closing {
		return hclog.Debug
	}
	return min(level, hclog.Warn)
}

// connectionEnded tells whether an error is the end of a connection, or of this node's own work: nothing that was stored is at stake.
func connectionEnded(err error) bool {
	var broken net.Error
	switch {
	case err == nil:
		return false
	case errors.As(err, &broken), errors.Is(err, net.ErrClosed), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.ErrClosedPipe):
		return true
	}
	return ended(err)
}

// ended tells whether an error says only that this node is stopping.
func ended(err error) bool {
	return errors.Is(err, raft.ErrTransportShutdown) || errors.Is(err, raft.ErrRaftShutdown) || errors.Is(err, context.Canceled) || errors.Is(err, ErrClosed)
}

// chatter takes the lines of the gossip library, which puts their level in front. Gossip is a hint about others and decides nothing: what
// fails in it is no error. While this node closes it is not even worth a warning.
type chatter struct {
	log     hclog.Logger
	closing func() bool
}

func (c chatter) Write(b []byte) (int, error) {
	text := strings.TrimSpace(string(b))
	level := hclog.Info
	if rest, found := strings.CutPrefix(text, "["); found {
		if name, message, found := strings.Cut(rest, "] "); found {
			text = message
			switch name {
			case "DEBUG":
				level = hclog.Debug
			case "WARN", "ERR", "ERROR":
				if level = hclog.Warn; c.closing() {
					level = hclog.Debug
				}
			}
		}
	}
	c.log.Log(level, text)
	return len(b), nil
}
