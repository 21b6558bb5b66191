package testcluster

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/understudy-ha/understudy/client"
	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
)

// browser reads the history as a browser's event source does: event by event, and after a connection that ended from the last id it had.
type browser struct {
	listener
	last  string
	times int // connections that went on from an id
}

// read reads the stream of a node until has, or until it ends; then it says why. The connection is ended in any case.
func (b *browser) read(ctx context.Context, n *Node, has func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+n.running.HTTP()+"/v1/groups/default/entries", nil)
	if err != nil {
		return err
	}
	req.Header.Set("Accept", "text/event-stream")
	if b.last != "" {
		req.Header.Set("Last-Event-ID", b.last)
		b.times++
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }() // the stream is given up
	if kind := resp.Header.Get("Content-Type"); resp.StatusCode != http.StatusOK || kind != "text/event-stream" {
		return fmt.Errorf("status %s, %s", resp.Status, kind)
	}
	var kind, data string
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, 1<<20)
	id := b.last
	for !has() && lines.Scan() {
		field, value, _ := strings.Cut(lines.Text(), ":")
		value = strings.TrimPrefix(value, " ")
		switch {
		case lines.Text() == "": // the event is whole: only now its id counts
			b.last = id
			if data != "" {
				if err := b.take(kind, data); err != nil {
					return err
				}
			}
			kind, data = "", ""
		case field == "event":
			kind = value
		case field == "id":
			id = value
		case field == "data":
			data = value
		}
	}
	if has() {
		return nil
	}
	return fmt.Errorf("the stream ended: %v", lines.Err())
}

func (b *browser) take(kind, data string) error {
	if kind != "" {
		return fmt.Errorf("%s: %s", kind, data)
	}
	var e client.Entry
	if err := json.Unmarshal([]byte(data), &e); err != nil {
		return err
	}
	_, p, err := ident.ParsePosition(e.Position)
	if err != nil || !e.Confirmed {
		return fmt.Errorf("entry %s: %v", data, err)
	}
	b.positions = append(b.positions, p)
	if e.Code == "R" {
		b.keys[e.Text]++
	}
	return nil
}

// Proves RJ-14: a browser that reads the history at one node and goes on at another with the id of the last event it had gets every fact
// once and in order, across a planned switch-over under writes.
func TestEventStreamAcrossASwitch(t *testing.T) {
	c := Start(t, Options{Group: fsm.GroupSpec{Preferred: "a"}})
	w := c.write(2)
	b := &browser{listener: listener{keys: map[string]int{}}}
	reads := func(id ident.NodeID, more int) {
		t.Helper()
		want := len(b.positions) + more
		c.Wait(fmt.Sprintf("%d facts more at node %s", more, id), time.Minute, func() error {
			return b.read(t.Context(), c.Node(id), func() bool { return len(b.positions) >= want })
		})
	}
	reads("a", 50)
	before := w.count()
	c.handTo("b")
	c.Wait("writes go on", time.Minute, func() error {
		if n := w.count(); n < before+50 {
			return fmt.Errorf("%d acknowledged since", n-before)
		}
		return nil
	})
	for _, id := range c.options.Nodes { // the old primary too, which is a backup now
		reads(id, 50)
	}
	w.finish()
	c.Wait("everything acknowledged was given", time.Minute, func() error {
		return b.read(t.Context(), c.primary(), func() bool { return len(b.keys) >= len(w.acked) && b.has(w) == nil })
	})
	state, _ := c.primary().running.State()
	history := state.Groups["default"].History
	b.check(t, history)
	if last := b.positions[len(b.positions)-1]; last.Epoch < 2 || b.times < 4 {
		t.Errorf("the last fact is %s after %d connections that went on: the test proves nothing", last, b.times)
	}
	t.Logf("%d facts, %d acknowledged writes, history %v", len(b.positions), len(w.acked), history)
}
