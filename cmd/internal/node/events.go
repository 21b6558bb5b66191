package node

import (
	"context"
	"maps"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/understudy-ha/understudy/client"
)

// keptEvents bounds the events in memory, those of earlier lives included.
const keptEvents = 2000

// events is the node's event log: the newest events in memory, each also a line of the log, and soon a line of the event
// file. Adding one never waits for a disk or for anybody who listens.
type events struct {
	log  hclog.Logger
	node string
	now  func() time.Time

	mu      sync.Mutex
	next    uint64 // id of the next event, from 1; ids ascend over restarts, with gaps
	kept    []client.Event
	changed chan struct{} // closed at the next event
}

func newEvents(log hclog.Logger, node string, now func() time.Time) *events {
	return &events{log: log, node: node, now: now, next: 1, changed: make(chan struct{})}
}

// recall puts what earlier lives of the node kept before everything of this one. The ids leave room for events that those
// had told somebody and did not get onto the disk.
func (e *events) recall(past []client.Event) {
	if len(past) == 0 {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.next = past[len(past)-1].ID + keptEvents
	for i := range e.kept {
		e.kept[i].ID = e.next
		e.next++
	}
	e.kept = append(past, e.kept...)
	e.boundLocked()
}

func (e *events) boundLocked() {
	if len(e.kept) > keptEvents {
		e.kept = append([]client.Event(nil), e.kept[len(e.kept)-keptEvents:]...)
	}
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
	case client.SeverityError, client.SeverityCritical:
		e.log.Error(message, args...)
	case client.SeverityWarning:
		e.log.Warn(message, args...)
	default:
		e.log.Info(message, args...)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.kept = append(e.kept, client.Event{ID: e.next, Time: e.now(), Node: e.node, Severity: severity, Group: group, Kind: kind, Message: message, Fields: maps.Clone(fields)})
	e.next++
	e.boundLocked()
	close(e.changed)
	e.changed = make(chan struct{})
}

// since returns the events with an id above id, and a channel closed at the next one.
func (e *events) since(id uint64) ([]client.Event, <-chan struct{}) {
	e.mu.Lock()
	defer e.mu.Unlock()
	var out []client.Event
	for _, ev := range e.kept {
		if ev.ID > id {
			out = append(out, ev)
		}
	}
	return out, e.changed
}

// last returns the id of the newest event.
func (e *events) last() uint64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.next - 1
}

// after returns the events with an id above since; when there is none it waits for one, at most for wait.
func (e *events) after(ctx context.Context, since uint64, wait time.Duration) ([]client.Event, error) {
	timeout := time.NewTimer(wait)
	defer timeout.Stop()
	for {
		out, changed := e.since(since)
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
