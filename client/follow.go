package client

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Bounds of a stream.
const (
	streamSilence = 20 * time.Second // nodes send a sign of life every 5 s
	maxLine       = 128 << 20        // an entry with two images of the largest size has less
)

// FollowOptions say what is followed.
type FollowOptions struct {
	EntryFilter // of it: Code, Type, File, Key, KeyPrefix, Images; of a journal also From, PositionFrom, Since, IncludeAll, Newest

	// After is where to begin: of a history a position such as "orders@3.42", of a journal a sequence number or a position; what
	// follows it is given. "now": only what is new. "": all that is held.
	After    string
	Notice   func(Notice)  // hears what is no entry, between entries; nil: nobody
	Patience time.Duration // the iteration ends with an error when for so long no node could go on; 0: never
}

// Notice is something about a stream that is no entry. Exactly one of Heartbeat, Rewound and Err is set.
type Notice struct {
	Node      string     // address of the node that says so
	Heartbeat *Heartbeat // its After can be kept as the place to go on
	Rewound   *Rewound   // of a journal with IncludeAll: entries that were given are gone
	Err       error      // why another node, or the same one again, is asked
}

// FollowHistory iterates over the facts of a group's history, for as long as the context lives: committed ones only, each once, in
// order, over switch-overs and failovers. It goes from node to node by itself, and on where it was. An application that
// keeps Entry.Position together with what it made of the entry, and begins After it the next time, takes each fact exactly once.
//
// The last pair has the error that ended it: that of the context; ErrGone when no node holds the next fact any more (Error.Position
// is where one can go on); ErrPrecondition when the history has left After aside, since an operator accepted a loss or
// delivery was asynchronous (Error.Position is the last position shared); or that of a request that makes no sense.
func (c *Client) FollowHistory(ctx context.Context, group string, o FollowOptions) iter.Seq2[Entry, error] {
	return c.follow(ctx, get("v1", "groups", group, "entries"), o, func(e *Entry) string { return e.Position })
}

// FollowJournal iterates over the entries of one journal, that of node, as FollowHistory does over the history: but these are the entries
// that node wrote, whatever became of them, and they end when it is no longer primary. Most applications want FollowHistory.
func (c *Client) FollowJournal(ctx context.Context, group, node string, o FollowOptions) iter.Seq2[Entry, error] {
	if node == Local && len(c.bases) > 1 {
		return func(yield func(Entry, error) bool) {
			yield(Entry{}, &Error{Code: CodeInvalid, Detail: "which journal is local depends on the node that answers", Remedy: "name the node that wrote it, or give one address"})
		}
	}
	return c.follow(ctx, get("v1", "groups", group, "journals", node, "entries"), o, func(e *Entry) string { return strconv.FormatUint(e.Sequence, 10) })
}

// Facts lists committed facts of a group's history after a position, in order; "" begins with the first one held.
func (c *Client) Facts(ctx context.Context, group, after string, f EntryFilter) (HistoryPage, error) {
	x := get("v1", "groups", group, "entries")
	f.ask(x.query)
	setText(x.query, "after", after)
	return ask[HistoryPage](ctx, c, x)
}

func (c *Client) follow(ctx context.Context, x exchange, o FollowOptions, token func(*Entry) string) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		o.EntryFilter.ask(x.query)
		x.query.Set("follow", "true")
		f := follower{c: c, x: x, after: o.After, notice: o.Notice, token: token, yield: yield}
		if f.notice == nil {
			f.notice = func(Notice) {}
		}
		if err := f.run(ctx, o.Patience); err != nil {
			yield(Entry{}, err)
		}
	}
}

// errEnough: whoever iterates wants no more.
var errEnough = errors.New("enough")

// follower goes on with one stream from node to node.
type follower struct {
	c      *Client
	x      exchange
	after  string // given up to here
	token  func(*Entry) string
	notice func(Notice)
	yield  func(Entry, error) bool
	heard  bool // something since the last connection was made
}

// run returns why the iteration ends; nil when nobody wants to hear it.
func (f *follower) run(ctx context.Context, patience time.Duration) error {
	c := f.c
	if c.bad != nil {
		return c.bad
	}
	refused := map[string]error{} // what each node said that waiting does not change, since something was heard
	last := time.Now()
	pause := firstPause
	for {
		at := c.current.Load() % uint32(len(c.bases))
		base := c.bases[at]
		f.heard = false
		err := f.stream(ctx, base)
		if f.heard {
			last, pause = time.Now(), firstPause
			clear(refused)
		}
		switch {
		case errors.Is(err, errEnough):
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case ends(err):
			return err
		}
		f.notice(Notice{Node: strings.TrimPrefix(base, "http://"), Err: err})
		if refuses(err) {
			refused[base] = err
		} else {
			delete(refused, base)
		}
		if len(refused) == len(c.bases) {
			return furthest(refused, err)
		}
		if patience > 0 && time.Since(last) > patience {
			if _, said := asError(err); said {
				return err
			}
			return &Error{Code: CodeUnavailable, Detail: fmt.Sprintf("no node could go on for %s", patience), Remedy: "check the addresses and that the nodes run", cause: err}
		}
		c.current.CompareAndSwap(at, (at+1)%uint32(len(c.bases)))
		select {
		case <-time.After(jittered(pause)):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		pause = min(2*pause, lastPause)
	}
}

// ends tells whether no node can say anything else.
func ends(err error) bool {
	switch CodeOf(err) {
	case CodeInvalid, CodePrecondition, CodeUnsupported, CodeMethodNotAllowed, CodeTooLarge:
		return true
	}
	return false
}

// refuses tells whether waiting does not change what this node said; another one may say something else.
func refuses(err error) bool {
	switch e, said := asError(err); {
	case !said:
		return false
	default:
		return e.Status != 0 && !e.Code.NotDone()
	}
}

// furthest is the error of the node that can still go on soonest, if one says so.
func furthest(refused map[string]error, otherwise error) error {
	for _, err := range refused {
		if errors.Is(err, ErrGone) {
			return err
		}
	}
	return otherwise
}

// stream reads one stream to its end and returns why it ended; never nil.
func (f *follower) stream(ctx context.Context, base string) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silence := time.AfterFunc(streamSilence, func() {
		cancel(&Error{Code: CodeUnavailable, Detail: fmt.Sprintf("nothing was heard from %s for %s", base, streamSilence)})
	})
	defer silence.Stop()
	x := f.x
	x.query = url.Values{}
	for name, values := range f.x.query {
		x.query[name] = values
	}
	if f.after != "" {
		x.query.Set("after", f.after)
		for _, name := range []string{"from", "newest"} { // where it began the first time
			x.query.Del(name)
		}
	}
	req, err := x.request(ctx, base)
	if err != nil {
		return &Error{Code: CodeInvalid, Detail: "the request cannot be formed", cause: err}
	}
	resp, err := f.c.http.Do(req)
	if err != nil {
		return because(ctx, err)
	}
	defer func() { _ = resp.Body.Close() }() // nothing is lost: whatever was not read is asked for again
	if resp.StatusCode != http.StatusOK {
		body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
		if err != nil {
			return because(ctx, err)
		}
		return answer{status: resp.StatusCode, header: resp.Header, body: body}.failure(x)
	}
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(make([]byte, 0, 64<<10), maxLine)
	for lines.Scan() {
		silence.Stop() // what is done with an entry may take its time
		if err := f.line(base, lines.Bytes()); err != nil {
			return err
		}
		silence.Reset(streamSilence)
	}
	err = lines.Err()
	if err == nil {
		err = io.ErrUnexpectedEOF // a stream says why it ends
	}
	return because(ctx, err)
}

// because returns the cause of ctx instead of what came of it.
func because(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

// line takes one line of a stream.
func (f *follower) line(base string, raw []byte) error {
	if len(bytes.TrimSpace(raw)) == 0 {
		f.heard = true
		return nil
	}
	var l StreamLine
	if err := json.Unmarshal(raw, &l); err != nil {
		return &Error{Code: CodeInternal, Detail: "a line of the stream could not be read", Remedy: "check that the address belongs to a node of this version", cause: err}
	}
	node := strings.TrimPrefix(base, "http://")
	switch {
	case l.End != nil:
		if l.End.After != "" {
			f.after = l.End.After
		}
		if l.End.Error == nil {
			return io.ErrUnexpectedEOF
		}
		l.End.Error.Status = l.End.Error.Code.Status()
		return l.End.Error
	case l.Heartbeat != nil:
		f.heard = true
		if l.Heartbeat.After != "" {
			f.after = l.Heartbeat.After
		}
		f.notice(Notice{Node: node, Heartbeat: l.Heartbeat})
	case l.Rewound != nil:
		f.heard = true
		f.after = strconv.FormatUint(l.Rewound.After, 10)
		f.notice(Notice{Node: node, Rewound: l.Rewound})
	default:
		f.heard = true
		if !f.yield(l.Entry, nil) {
			return errEnough
		}
		f.after = f.token(&l.Entry)
	}
	return nil
}
