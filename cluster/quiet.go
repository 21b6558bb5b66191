package cluster

import (
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
)

// repeatAfter is how long a message about the same peer stays out of the log. Raft says several times a second that it
// cannot reach a node that is down, for as long as it is.
const repeatAfter = 30 * time.Second

// quiet is a logger that drops warnings and errors that it has said a moment ago. What is dropped is counted, and the next
// one says how many there were. Their level is that of their cause.
type quiet struct {
	hclog.Logger
	closing func() bool

	mu   sync.Mutex
	said map[string]*repeated
}

// repeated is one message with the peer that it is about.
type repeated struct {
	at      time.Time
	dropped int
}

// maxRepeated bounds what is remembered. A log that repeats so many different messages is not made quieter.
const maxRepeated = 256

func newQuiet(l hclog.Logger, closing func() bool) *quiet {
	return &quiet{Logger: l, closing: closing, said: map[string]*repeated{}}
}

func (q *quiet) Warn(msg string, args ...any) {
	q.complain(hclog.Warn, msg, args)
}

func (q *quiet) Error(msg string, args ...any) {
	q.complain(hclog.Error, msg, args)
}

func (q *quiet) complain(level hclog.Level, msg string, args []any) {
	if fresh, ok := q.fresh(msg, args); ok {
		q.Logger.Log(weigh(level, args, q.closing()), msg, fresh...)
	}
}

// fresh tells whether a message has not been said lately.
func (q *quiet) fresh(msg string, args []any) ([]any, bool) {
	key := msg + about(args)
	now := time.Now()
	q.mu.Lock()
	defer q.mu.Unlock()
	have := q.said[key]
	if have == nil {
		if len(q.said) >= maxRepeated {
			clear(q.said)
		}
		q.said[key] = &repeated{at: now}
		return args, true
	}
	if now.Sub(have.at) < repeatAfter {
		have.dropped++
		return nil, false
	}
	if have.dropped > 0 {
		args = append(append([]any(nil), args...), "repeated", have.dropped)
	}
	*have = repeated{at: now}
	return args, true
}

// about picks the arguments that say which peer a message is about; the others, such as times, change with each repetition.
func about(args []any) string {
	var b strings.Builder
	for i := 0; i+1 < len(args); i += 2 {
		switch name, _ := args[i].(string); name {
		case "peer", "server-id", "id", "to", "candidate", "target":
			fmt.Fprintf(&b, " %v", args[i+1])
		}
	}
	return b.String()
}
