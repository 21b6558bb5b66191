package api

import (
	"context"
	"encoding/json"
	"fmt"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/understudy-ha/understudy/client"
)

// streamIdle is how long a stream of events stays silent before it sends a sign of life.
const streamIdle = 10 * time.Second

// eventQuery is what a client wants to see.
type eventQuery struct {
	since    uint64
	severity int // index in severities: at least this
	group    string
	kinds    []string // empty: all
}

func severities() []string {
	return []string{client.SeverityInfo, client.SeverityWarning, client.SeverityError, client.SeverityCritical}
}

// takes tells whether the client wants e. An event without a group concerns all of them.
func (q eventQuery) takes(e client.Event) bool {
	return slices.Index(severities(), e.Severity) >= q.severity && (q.group == "" || e.Group == "" || e.Group == q.group) &&
		(len(q.kinds) == 0 || slices.Contains(q.kinds, e.Kind))
}

// next returns the wanted events above q.since and moves q.since. With none it waits until end, at most.
func (a *API) next(ctx context.Context, q *eventQuery, end time.Time) ([]client.Event, error) {
	for {
		events, err := a.o.Roles.Events(ctx, q.since, max(time.Until(end), 0))
		if err != nil {
			return nil, err
		}
		var wanted []client.Event
		for _, e := range events {
			q.since = max(q.since, e.ID)
			if q.takes(e) {
				wanted = append(wanted, e)
			}
		}
		if len(wanted) > 0 || len(events) == 0 || !time.Now().Before(end) {
			return wanted, nil
		}
	}
}

// events lists this node's events, by a long poll (wait) or as a stream (follow): server-sent events when the client
// accepts them, else a JSON object a line.
func (a *API) events(r *request) (reply, error) {
	since, err := r.number("since")
	if err != nil {
		return nil, err
	}
	severity, err := r.choice("severity", severities()...)
	if err != nil {
		return nil, err
	}
	follow, err := r.flag("follow")
	if err != nil {
		return nil, err
	}
	q := &eventQuery{since: since, severity: slices.Index(severities(), severity), group: r.query.Get("group")}
	if kinds := r.query.Get("kind"); kinds != "" {
		if q.kinds, err = eventKinds(kinds); err != nil {
			return nil, err
		}
	}
	browser := acceptsEventStream(r.Header)
	if follow || browser {
		if id, err := strconv.ParseUint(r.Header.Get("Last-Event-ID"), 10, 64); err == nil {
			q.since = id // a browser that reconnects
		}
		return func(w http.ResponseWriter) { a.stream(w, r, q, browser) }, nil
	}
	return items(a.next(r.drain, q, time.Now().Add(r.wait)))
}

// eventKinds reads a list of kinds. One that no node tells would be waited for in vain.
func eventKinds(list string) (kinds []string, err error) {
	known := client.EventKinds()
	for k := range strings.SplitSeq(list, ",") {
		k = strings.TrimSpace(k)
		if !slices.Contains(known, k) {
			if upper := strings.ToUpper(k); slices.Contains(known, upper) {
				return nil, invalid(fmt.Sprintf("kind=%s is no kind of events", shorten(k)), "did you mean "+upper+"? Kinds are written in capitals")
			}
			return nil, &client.Error{Code: client.CodeInvalid, Detail: fmt.Sprintf("kind=%s is no kind of events", shorten(k)), Reason: "no node tells such an event", Remedy: "the kinds are " + strings.Join(known, ", ")}
		}
		kinds = append(kinds, k)
	}
	return kinds, nil
}

func acceptsEventStream(h http.Header) bool {
	return slices.ContainsFunc(strings.Split(h.Get("Accept"), ","), func(part string) bool {
		t, _, err := mime.ParseMediaType(part)
		return err == nil && t == "text/event-stream"
	})
}

// stream sends events as they come, for ?wait= when that is given, else until the client leaves or the listener stops.
func (a *API) stream(w http.ResponseWriter, r *request, q *eventQuery, browser bool) {
	kind, idle := "application/x-ndjson", "\n"
	if browser {
		kind, idle = "text/event-stream", ":\n\n"
	}
	w.Header().Set("Content-Type", kind)
	w.WriteHeader(http.StatusOK)
	ctx, cancel := r.life, context.CancelFunc(func() {})
	if r.wait > 0 {
		ctx, cancel = context.WithTimeout(ctx, r.wait)
	}
	defer cancel()
	conn := http.NewResponseController(w)
	send := func(text string) bool {
		_ = conn.SetWriteDeadline(time.Now().Add(streamIdle)) // refused by recorders in tests only
		_, err := w.Write([]byte(text))
		return err == nil && conn.Flush() == nil
	}
	for ok := send(""); ok; {
		events, err := a.next(ctx, q, time.Now().Add(streamIdle))
		if err != nil {
			return // the client left, its time is over, or the node stops: the stream ends, the client asks again
		}
		text := idle
		if len(events) > 0 {
			text = ""
		}
		for _, e := range events {
			line, err := json.Marshal(e)
			if err != nil {
				a.o.Logger.Error("event cannot be sent", "error", err)
				continue
			}
			if browser {
				text += fmt.Sprintf("id: %d\ndata: %s\n\n", e.ID, line)
			} else {
				text += string(line) + "\n"
			}
		}
		ok = send(text)
	}
}
