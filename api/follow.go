package api

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/understudy-ha/understudy/client"
)

// Streams answers for entries as they come. Errors are as in Data; those of a stream that cannot begin, too. The filters were
// checked.
type Streams interface {
	// FollowJournal gives what node wrote, as held here. It begins after the token, or where the filter says.
	FollowJournal(ctx context.Context, group, node string, f client.EntryFilter, after string) (EntryStream, error)
	// FollowHistory gives the facts of the history after the token; it never answers *Elsewhere.
	FollowHistory(ctx context.Context, group string, f client.EntryFilter, after string) (EntryStream, error)
	// Facts lists facts of the history after the token, at most f.Limit, which is set.
	Facts(ctx context.Context, group string, f client.EntryFilter, after string) (client.HistoryPage, error)
}

// EntryStream belongs to one goroutine.
type EntryStream interface {
	// Next returns what there is next and waits for it until ctx ends; after that it goes on where it was. Code gone: what is next was
	// deleted; the error's Position is where one can go on.
	Next(ctx context.Context) (StreamStep, error)
	// After is the token behind the last step: whoever begins there goes on.
	After() string
	Close()
}

// StreamStep is a part of a stream: some entries, which need not be any, or a rewind.
type StreamStep struct {
	Entries []client.Entry
	Rewound *client.Rewound
}

// lastWord is how long a stream may take to say that it ends.
const lastWord = 500 * time.Millisecond

// entries lists entries of one journal, or streams them.
func (a *API) entries(r *request) (reply, error) {
	group, node, err := r.journal(a.o.Node)
	if err != nil {
		return nil, err
	}
	f, follow, browser, err := r.wants(group)
	if err != nil {
		return nil, err
	}
	if !follow {
		if r.query.Has("after") {
			return nil, invalid("after is for streams", "add follow=true, or begin with from or position_from")
		}
		p, err := a.o.Journals.Entries(r.Context(), group, node, f)
		if p.Items == nil {
			p.Items = []client.Entry{}
		}
		return answer(p, err)
	}
	after := r.resume(browser)
	if after != "" && after != "now" {
		if _, err := strconv.ParseUint(after, 10, 64); err != nil {
			if _, err := positionOf("after", after, group); err != nil {
				return nil, invalid("after="+shorten(after)+" is no place in a journal", "want a sequence number, a history position such as "+group+"@3.42, or now")
			}
		}
	}
	return a.streamReply(r, group, browser, func(e *client.Entry) string { return strconv.FormatUint(e.Sequence, 10) }, func(ctx context.Context) (EntryStream, error) {
		return a.o.Journals.FollowJournal(ctx, group, node, f, after)
	})
}

// facts lists facts of the history of a group, or streams them.
func (a *API) facts(r *request) (reply, error) {
	group, err := r.group()
	if err != nil {
		return nil, err
	}
	f, follow, browser, err := r.wants(group)
	if err != nil {
		return nil, err
	}
	after := r.resume(browser)
	if after != "" && after != "now" {
		if _, err := positionOf("after", after, group); err != nil {
			return nil, err
		}
	}
	if !follow {
		p, err := a.o.Journals.Facts(r.Context(), group, f, after)
		if p.Items == nil {
			p.Items = []client.Entry{}
		}
		return answer(p, err)
	}
	return a.streamReply(r, group, browser, func(e *client.Entry) string { return e.Position }, func(ctx context.Context) (EntryStream, error) {
		return a.o.Journals.FollowHistory(ctx, group, f, after)
	})
}

// wants reads which entries are asked for, and whether as a stream.
func (r *request) wants(group string) (f client.EntryFilter, follow, browser bool, err error) {
	if f, err = r.filter(group); err == nil {
		follow, browser, err = r.follows()
	}
	return f, follow, browser, err
}

// follows tells whether a stream is wanted, and in the form for browsers. A stream has no end, so what bounds a list is refused.
func (r *request) follows() (follow, browser bool, err error) {
	if follow, err = r.flag("follow"); err != nil {
		return false, false, err
	}
	browser = acceptsEventStream(r.Header)
	if follow = follow || browser; !follow {
		return false, false, nil
	}
	for _, name := range []string{"to", "position_to", "until", "limit", "order", "receiver", "transaction"} {
		if r.query.Has(name) {
			return true, browser, invalid(name+" does not go with follow", "leave one of them out; wait bounds a stream in time")
		}
	}
	return true, browser, nil
}

// resume is the token after which to go on: a browser that reconnects says so in a header.
func (r *request) resume(browser bool) string {
	if id := r.Header.Get("Last-Event-ID"); browser && id != "" {
		return id
	}
	return r.query.Get("after")
}

// streamReply opens a stream, so that what keeps it from beginning is a problem with a status, and answers with it.
func (a *API) streamReply(r *request, group string, browser bool, token func(*client.Entry) string, open func(context.Context) (EntryStream, error)) (reply, error) {
	release, err := a.streams.take(1)
	if err != nil {
		return nil, &client.Error{Code: client.CodeUnavailable, Detail: "too many streams at once", Reason: fmt.Sprintf("this node serves %d", a.o.Limits.Streams),
			Remedy: "follow at another node, or let several readers share one stream"}
	}
	s, err := open(r.Context())
	if err != nil {
		release()
		return nil, err
	}
	return func(w http.ResponseWriter) {
		defer release()
		defer s.Close()
		open := a.counters.streams.WithLabelValues(group)
		open.Inc()
		defer open.Dec()
		kind := "application/x-ndjson"
		if browser {
			kind = "text/event-stream"
		}
		w.Header().Set("Content-Type", kind)
		w.WriteHeader(http.StatusOK)
		if r.Method == http.MethodHead {
			return
		}
		life, cancel := r.life, context.CancelFunc(func() {})
		if r.query.Has("wait") {
			life, cancel = context.WithTimeout(life, r.wait)
		}
		defer cancel()
		out := newOutlet(w, r.life, a.o.Limits.Stall)
		defer out.stop()
		l := lines{out: bufio.NewWriterSize(out, 64<<10), browser: browser, token: token, sent: a.counters.entries.WithLabelValues(group)}
		end := a.run(life, s, &l, out)
		if r.life.Err() != nil {
			end.Error = &client.Error{Code: client.CodeUnavailable, Detail: "this node is stopping", Remedy: "go on at another node, or here when it is back"}
		}
		if end.Error != nil {
			end.Error = a.complete(end.Error)
		}
		_ = l.end(end) // the client may be gone
		_ = out.Flush()
	}, nil
}

// run sends what comes until something ends it, and returns what to say last.
func (a *API) run(life context.Context, s EntryStream, l *lines, out *outlet) *client.StreamEnd {
	sent := l.heartbeat(s.After()) // at once: where it begins
	for sent == nil {
		if sent = l.out.Flush(); sent == nil {
			sent = out.Flush()
		}
		if sent != nil {
			break
		}
		ctx, cancel := context.WithTimeout(life, a.o.Limits.Heartbeat)
		step, err := s.Next(ctx)
		quiet := ctx.Err() != nil
		cancel()
		switch {
		case err == nil:
			sent = l.step(step, s.After())
		case life.Err() != nil:
			return &client.StreamEnd{After: s.After()}
		case quiet:
			sent = l.heartbeat(s.After())
		default:
			return &client.StreamEnd{After: s.After(), Error: toError(err, false)}
		}
	}
	return &client.StreamEnd{After: s.After()} // the client has left, or takes nothing: nobody hears this
}

// outlet writes to a client. One that takes nothing for a while is cut, so that it holds no memory for ever; when the node
// stops, it has a last moment.
type outlet struct {
	w     io.Writer
	conn  *http.ResponseController
	stall time.Duration
	stop  func() bool

	mu      sync.Mutex
	leaving bool // the deadline stays
}

func newOutlet(w http.ResponseWriter, life context.Context, stall time.Duration) *outlet {
	o := &outlet{w: w, conn: http.NewResponseController(w), stall: stall}
	o.stop = context.AfterFunc(life, func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.leaving = true
		_ = o.conn.SetWriteDeadline(time.Now().Add(lastWord)) // refused by recorders in tests only
	})
	return o
}

// patient gives the client its time anew.
func (o *outlet) patient() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.leaving {
		_ = o.conn.SetWriteDeadline(time.Now().Add(o.stall))
	}
}

func (o *outlet) Write(b []byte) (int, error) {
	o.patient()
	return o.w.Write(b)
}

// Flush sends what the server still keeps.
func (o *outlet) Flush() error {
	o.patient()
	return o.conn.Flush()
}

// lines writes a stream in one of its two forms.
type lines struct {
	out     *bufio.Writer
	browser bool
	token   func(*client.Entry) string
	sent    prometheus.Counter // entries; of whole lines
}

// step writes entries, or a rewind.
func (l *lines) step(s StreamStep, after string) error {
	if s.Rewound != nil {
		return l.line("rewound", after, s.Rewound)
	}
	for i := range s.Entries {
		if err := l.line("", l.token(&s.Entries[i]), &s.Entries[i]); err != nil {
			return err
		}
		l.sent.Inc()
	}
	return nil
}

// heartbeat writes a sign of life. A browser's only moves the place where it goes on.
func (l *lines) heartbeat(after string) error {
	if l.browser {
		_, err := fmt.Fprintf(l.out, ": heartbeat\nid: %s\n\n", after)
		return err
	}
	return l.line("heartbeat", after, &client.Heartbeat{Time: time.Now().UTC(), After: after})
}

// end writes why the stream is over.
func (l *lines) end(e *client.StreamEnd) error {
	if err := l.line("end", e.After, e); err != nil {
		return err
	}
	return l.out.Flush()
}

// line writes one line, or one event, of a kind; "": an entry.
func (l *lines) line(kind, id string, v any) error {
	if l.browser {
		if kind != "" {
			_, _ = fmt.Fprintf(l.out, "event: %s\n", kind) // an error stays with the writer
		}
		_, _ = fmt.Fprintf(l.out, "id: %s\ndata: ", id)
	} else if kind != "" {
		_, _ = fmt.Fprintf(l.out, "{%q:", kind)
	}
	raw, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, _ = l.out.Write(raw)
	switch {
	case l.browser:
		_, err = l.out.WriteString("\n\n")
	case kind != "":
		_, err = l.out.WriteString("}\n")
	default:
		err = l.out.WriteByte('\n')
	}
	return err
}
