package node

import (
	"context"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/understudy-ha/understudy/client"
)

// keptEvents bounds the event log of a node.
const keptEvents = 2000

// events is the node's event log: the newest events in memory, each also a line of the log.
type events struct {
	log  hclog.Logger
	node string
	now  func() time.Time

	mu      sync.Mutex
	next    uint64 // id of the next event, from 1
	kept    []client.Event
	changed chan struct{} // closed at the next event
}

func newEvents(log hclog.Logger, node string, now func() time.Time) *events {
	return &events{log: log, node: node, now: now, next: 1, changed: make(chan struct{})}
}

// add records an event. Severity is info, warning or error.
func (e *events) add(severity, group, kind, message string, fields map[string]string) {
	args := []any{"event", kind}
	if group != "" {
		args = append(args, "group", group)
	}
	for k, v := range fields {
		args = append(args, k, v)
	}
	switch severity {
	case "error":
		e.log.Error(message, args...)
	case "warning":
		e.log.Warn(message, args...)
	default:
		e.log.Info(message, args...)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.kept = append(e.kept, client.Event{ID: e.next, Time: e.now(), Node: e.node, Severity: severity, Group: group, Kind: kind, Message: message, Fields: fields})
	e.next++
	if len(e.kept) > keptEvents {
		e.kept = append([]client.Event(nil), e.kept[len(e.kept)-keptEvents:]...)
	}
	close(e.changed)
	e.changed = make(chan struct{})
}

// after returns the events with an id above since; when there is none it waits for one, at most for wait.
func (e *events) after(ctx context.Context, since uint64, wait time.Duration) ([]client.Event, error) {
	timeout := time.NewTimer(wait)
	defer timeout.Stop()
	for {
		e.mu.Lock()
		var out []client.Event
		for _, ev := range e.kept {
			if ev.ID > since {
				out = append(out, ev)
			}
		}
		changed := e.changed
		e.mu.Unlock()
		if len(out) > 0 || wait <= 0 {
			return out, nil
		}
		select {
		case <-changed:
		case <-timeout.C:
			return nil, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}
