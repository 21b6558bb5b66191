package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/understudy-ha/understudy/client"
	"github.com/understudy-ha/understudy/replica"
)

// DeleteHook is a program that is asked before a detached receiver is deleted. It gets the receiver as JSON on its standard
// input; exit code 0 allows the deletion, everything else vetoes it, and it is asked again later. Nothing but the deletion waits
// for it.
type DeleteHook struct {
	Command []string      `yaml:"command,omitempty"` // program and arguments; the program with its whole path; empty: nobody is asked
	Timeout time.Duration `yaml:"timeout,omitempty"` // then it is killed, which is a veto; default 10 s
}

// check says what is wrong with the hook.
func (h DeleteHook) check() (p []error) {
	add := func(key, format string, args ...any) {
		p = append(p, fmt.Errorf("hooks.before_delete.%s: %w", key, fmt.Errorf(format, args...)))
	}
	switch {
	case len(h.Command) == 0 && h.Timeout != 0:
		add("command", "is missing; name a program and its arguments, such as [/usr/local/bin/is-archived]")
	case len(h.Command) > 0 && !strings.HasPrefix(h.Command[0], "/"):
		add("command", "%q: name the program with its whole path", h.Command[0])
	}
	if h.Timeout < 0 || h.Timeout > maxHookTimeout {
		add("timeout", "%s: want at most %s", h.Timeout, maxHookTimeout)
	}
	return p
}

// doomedReceiver is what the program gets.
type doomedReceiver struct {
	Node  string `json:"node"`
	Group string `json:"group"`
	client.Receiver
}

// limit is how long the program may take.
func (h DeleteHook) limit() time.Duration {
	if h.Timeout == 0 {
		return hookTimeout
	}
	return h.Timeout
}

// veto asks the program; nil when there is none.
func (n *Node) veto() func(context.Context, replica.Doomed) error {
	h := n.config.Hooks.BeforeDelete
	if len(h.Command) == 0 {
		return nil
	}
	limit := h.limit()
	return func(ctx context.Context, d replica.Doomed) error {
		input, err := json.Marshal(doomedReceiver{Node: string(n.config.Node), Group: string(d.Journal.Group), Receiver: receiver(d.Journal, d.Receiver)})
		if err != nil {
			return fmt.Errorf("receiver cannot be given to %s: %w", h.Command[0], err)
		}
		ctx, cancel := context.WithTimeout(ctx, limit)
		defer cancel()
		out, err := runProgram(ctx, h.Command, input, nil)
		switch {
		case err == nil:
			return nil
		case errors.Is(ctx.Err(), context.DeadlineExceeded):
			return fmt.Errorf("%s did not end within %s and was killed", h.Command[0], limit)
		}
		if out = strings.TrimSpace(out); out != "" {
			return fmt.Errorf("%s objects: %w: %s", h.Command[0], err, out)
		}
		return fmt.Errorf("%s objects: %w", h.Command[0], err)
	}
}
