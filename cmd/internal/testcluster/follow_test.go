package testcluster

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/understudy-ha/understudy/client"
	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
)

// listener follows the history and keeps what it is given.
type listener struct {
	client *client.Client
	stop   context.CancelFunc
	done   sync.WaitGroup

	mu        sync.Mutex
	positions []ident.Position
	keys      map[string]int // how often a record's entry came
	err       error
}

// follow follows the history through any node of ids, from the first fact on.
func (c *Cluster) follow(ids ...ident.NodeID) *listener {
	var addresses []string
	for _, id := range ids {
		addresses = append(addresses, c.Node(id).config.Listen.HTTP)
	}
	ctx, cancel := context.WithCancel(c.t.Context())
	l := &listener{client: client.New(addresses...), stop: cancel, keys: map[string]int{}}
	l.done.Go(func() {
		for e, err := range l.client.FollowHistory(ctx, "default", client.FollowOptions{}) {
			l.mu.Lock()
			if err != nil {
				l.err = err
			} else {
				_, p, bad := ident.ParsePosition(e.Position)
				if bad != nil || !e.Confirmed {
					c.t.Errorf("entry %+v: %v", e, bad)
				}
				l.positions = append(l.positions, p)
				if e.Code == "R" {
					l.keys[e.Text]++
				}
			}
			l.mu.Unlock()
		}
	})
	return l
}

func (l *listener) close() {
	l.stop()
	l.done.Wait()
	l.client.Close()
}

// has tells what is missing of the acknowledged writes.
func (l *listener) has(w *writer) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return fmt.Errorf("the stream ended: %w", l.err)
	}
	missing := 0
	for key := range w.acked {
		if l.keys[key] == 0 {
			missing++
		}
	}
	if missing > 0 {
		return fmt.Errorf("%d of %d acknowledged writes were not given", missing, len(w.acked))
	}
	return nil
}

// check holds what a listener was given against the history: each fact of the history once, in order, without a gap, and nothing else.
func (l *listener) check(t *testing.T, table ident.HistoryTable) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, p := range l.positions {
		if p.History != ident.History(i+1) {
			t.Fatalf("fact %d is %s: a gap or a repetition; before it %v", i+1, p, l.positions[max(0, i-3):i])
		}
		if !table.Contains(p) {
			t.Errorf("%s was given and is not part of the history", p)
		}
	}
	for key, n := range l.keys {
		if n != 1 {
			t.Errorf("%s was given %d times", key, n)
		}
	}
}

// Proves RJ-14 and RJ-4: followers of the history, at each node alone and through all of them, get every acknowledged fact once, in order and
// nothing that was backed out, across a planned switch-over and the death of the primary under writes.
func TestFollowersAcrossSwitches(t *testing.T) {
	c := Start(t, Options{})
	all := c.options.Nodes
	listeners := []*listener{c.follow(all...), c.follow("a"), c.follow("b"), c.follow("c")}
	defer func() {
		for _, l := range listeners {
			l.close()
		}
	}()
	w := c.write(4)
	more := func(what string, n int) {
		t.Helper()
		before := w.count()
		c.Wait(what, 30*time.Second, func() error {
			if now := w.count(); now < before+n {
				return fmt.Errorf("%d acknowledged since", now-before)
			}
			return nil
		})
	}
	more("writes go on", 100)
	if op, err := c.primary().Client().Switchover(t.Context(), "default", client.SwitchoverRequest{}, 30*time.Second); err != nil {
		t.Fatalf("%+v %v", op, err)
	}
	more("writes go on after the switch-over", 100)
	p := c.primary()
	p.Crash()
	more("writes go on after the crash", 100)
	p.Start()
	c.Wait("the cluster is settled again", 60*time.Second, func() error {
		c.relax(w)
		return c.settled()
	})
	w.finish()
	late := c.follow(p.ID) // from the first fact on, at the node that came back
	listeners = append(listeners, late)
	for i, l := range listeners {
		c.Wait(fmt.Sprintf("listener %d has everything", i), 60*time.Second, func() error { return l.has(w) })
	}
	state, _ := c.primary().running.State()
	history := state.Groups["default"].History
	for _, l := range listeners {
		l.check(t, history)
	}
	cl := c.primary().Client()
	for key := range listeners[0].keys { // the others were given the same facts
		c.Wait("a record can be read", 30*time.Second, func() error { // a busy machine may cost the primary its lease for a moment
			_, err := cl.Get(t.Context(), "load", []byte(key), client.ReadOptions{})
			if client.CodeOf(err) == client.CodeNotFound {
				t.Fatalf("%s was given, and is not there: %v", key, err)
			}
			return err
		})
	}
	c.resumesAnywhere(listeners[0].positions)
	t.Logf("%d facts, %d acknowledged writes, history %v", len(listeners[0].positions), len(w.acked), history)
}

// facts asks a node for a page. A primary on a busy machine may be without a lease for a moment: then it says that it does not know, and is asked
// again.
func (c *Cluster) facts(id ident.NodeID, after string, limit int) (p client.HistoryPage) {
	c.t.Helper()
	c.Wait("node "+string(id)+" knows what is committed", 20*time.Second, func() (err error) {
		p, err = c.Node(id).Client().Facts(c.t.Context(), "default", after, client.EntryFilter{Limit: limit})
		switch {
		case err != nil && client.CodeOf(err) != client.CodeUnavailable:
			c.t.Fatalf("node %s, after %s: %v", id, after, err)
		case err == nil && len(p.Items) == 0 && p.More:
			err = errors.New("there is more")
		}
		return err
	})
	return p
}

// resumesAnywhere goes on after many positions at every node, in the middle of bundles too, and reads all page by page.
func (c *Cluster) resumesAnywhere(all []ident.Position) {
	c.t.Helper()
	for _, id := range c.options.Nodes {
		for i := 0; i+1 < len(all); i += 1 + len(all)/60 {
			p := c.facts(id, all[i].String(), 1)
			if want := all[i+1].Format("default"); len(p.Items) != 1 || p.Items[0].Position != want || p.Next != want || !p.More && i+2 < len(all) {
				c.t.Fatalf("node %s, after %s: %+v, want %s", id, all[i], p, want)
			}
		}
		n, after := 0, ""
		for more := true; more; {
			p := c.facts(id, after, 37)
			for _, e := range p.Items {
				if e.Position != all[n].Format("default") {
					c.t.Fatalf("node %s gives %s, want %s", id, e.Position, all[n])
				}
				n++
			}
			after, more = p.Next, p.More
		}
		if n != len(all) {
			c.t.Errorf("node %s gave %d facts in pages, %d in a stream", id, n, len(all))
		}
	}
}

// A reader whose facts were deleted is told after what it can go on; the same of a journal.
func TestFollowWhatWasDeleted(t *testing.T) {
	c := Start(t, Options{Group: fsm.GroupSpec{ReceiverBytes: 64 << 10, KeepReceivers: 1}})
	cl := c.Node("b").Client()
	c.Wait("receivers are deleted", 60*time.Second, func() error {
		for i := range 20 {
			if _, err := c.Node("a").Client().Put(t.Context(), "f", []byte{byte(i)}, make([]byte, 8<<10), client.WriteOptions{}); err != nil {
				return err
			}
		}
		r, err := cl.Receivers(t.Context(), "default", "a")
		if err == nil && r[0].Number == 1 {
			err = errors.New("the first one is there")
		}
		return err
	})
	next := func(what string, items iter.Seq2[client.Entry, error]) (client.Entry, error) {
		for e, err := range items {
			return e, err
		}
		t.Fatalf("%s: nothing", what)
		return client.Entry{}, nil
	}
	// Receivers are deleted still: who goes on after what it was told may be told so again, of a place further on.
	resume := func(what, after string, follow func(client.FollowOptions) iter.Seq2[client.Entry, error]) (e client.Entry, from string, told int) {
		t.Helper()
		for ; ; told++ {
			e, err := next(what, follow(client.FollowOptions{After: after}))
			if err == nil {
				return e, after, told
			}
			var gone *client.Error
			if !errors.Is(err, client.ErrGone) || !errors.As(err, &gone) || gone.Remedy == "" || gone.Position == after {
				t.Fatalf("%s after %q: %v", what, after, err)
			}
			after = gone.Position
		}
	}
	history := func(o client.FollowOptions) iter.Seq2[client.Entry, error] {
		return cl.FollowHistory(t.Context(), "default", o)
	}
	of := func(o client.FollowOptions) iter.Seq2[client.Entry, error] {
		return cl.FollowJournal(t.Context(), "default", "a", o)
	}
	if e, from, told := resume("history", "default@1.1", history); told == 0 || e.Code == "" {
		t.Errorf("history after %s, told %d times: %+v", from, told, e)
	}
	if e, from, _ := resume("all that is held", "", history); e.Code == "" {
		t.Errorf("all that is held, after %s: %+v", from, e)
	}
	if e, from, told := resume("journal", "1", of); told == 0 || fmt.Sprint(e.Sequence-1) != from || e.Type != "PR" {
		t.Errorf("journal after %s, told %d times: %+v", from, told, e)
	}
}

// Proves RJ-4: what the source has not on its own disk is never given without include=all, by a list or a stream; with it, its
// removal is told.
func TestUnconfirmedIsHeldBack(t *testing.T) {
	c := Start(t, Options{Timing: steady()})
	a, b := c.Node("a"), c.Node("b")
	put := func(key string) {
		t.Helper()
		c.Wait("a write is done", 30*time.Second, func() error { // again when a busy machine cost the primary its lease: then there are two entries
			_, err := a.Client().Put(t.Context(), "f", []byte(key), []byte("v"), client.WriteOptions{})
			return err
		})
	}
	put("confirmed")
	var mu sync.Mutex
	seen := map[bool][]string{}
	ctx, cancel := context.WithCancel(t.Context())
	var following sync.WaitGroup
	defer following.Wait()
	defer cancel()
	for _, every := range []bool{false, true} {
		following.Go(func() {
			for e, err := range b.Client().FollowJournal(ctx, "default", "a", client.FollowOptions{EntryFilter: client.EntryFilter{IncludeAll: every, Code: "R"}}) {
				if err != nil {
					return
				}
				mu.Lock()
				seen[every] = append(seen[every], e.Text)
				mu.Unlock()
			}
		})
	}
	keys := func(every bool) []string { mu.Lock(); defer mu.Unlock(); return slices.Clone(seen[every]) }
	c.Wait("the confirmed entry is given", 20*time.Second, func() error {
		if len(keys(false)) == 0 || len(keys(true)) == 0 {
			return fmt.Errorf("%v %v", keys(false), keys(true))
		}
		return nil
	})
	a.Disk().Hang("journal.sync:default/a")
	go func() {
		_, _ = a.Client().Put(ctx, "f", []byte("unconfirmed"), []byte("v"), client.WriteOptions{Wait: time.Second})
	}()
	c.Wait("the unconfirmed entry is given to who asks for all", 20*time.Second, func() error {
		if !slices.Contains(keys(true), "unconfirmed") {
			return errors.New("it is not")
		}
		return nil
	})
	if slices.Contains(keys(false), "unconfirmed") {
		t.Error("an unconfirmed entry was given to one who did not ask for it")
	}
	list, err := b.Client().Entries(t.Context(), "default", "a", client.EntryFilter{Code: "R"})
	if err != nil || len(list) == 0 || slices.ContainsFunc(list, func(e client.Entry) bool { return !e.Confirmed || e.Text != "confirmed" }) {
		t.Errorf("listed %+v, %v", list, err)
	}
	a.Crash()
}

// Proves RJ-14: user entries of an application, deposited through any node, come to a follower in order, with their data.
func TestUserEntriesFlow(t *testing.T) {
	c := Start(t, Options{Timing: steady()})
	var want []string
	for i := range 20 {
		n := c.Node(c.options.Nodes[i%3])
		text := fmt.Sprintf("message %d \x00", i)
		if _, err := n.Client().DepositEntry(t.Context(), "default", client.DepositRequest{Type: "M1", Data: []byte(text)}); err != nil {
			t.Fatal(err)
		}
		if _, err := n.Client().DepositEntry(t.Context(), "default", client.DepositRequest{Type: "M2", Text: "other"}); err != nil {
			t.Fatal(err)
		}
		want = append(want, text)
	}
	for _, id := range c.options.Nodes {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		var got []string
		last := ""
		for e, err := range c.Node(id).Client().FollowHistory(ctx, "default", client.FollowOptions{EntryFilter: client.EntryFilter{Code: "U", Type: "M1"}}) {
			if err != nil {
				t.Fatalf("node %s: %v after %d", id, err, len(got))
			}
			got = append(got, string(e.Data))
			if last = e.Position; len(got) == len(want) {
				break
			}
		}
		cancel()
		if !slices.Equal(got, want) {
			t.Errorf("node %s gave %q", id, got)
		}
		c.Wait(fmt.Sprintf("node %s knows that what came after the last one is committed", id), 20*time.Second, func() error {
			p, err := c.Node(id).Client().Facts(t.Context(), "default", last, client.EntryFilter{})
			switch {
			case client.CodeOf(err) == client.CodeUnavailable:
				return err
			case err == nil && len(p.Items) == 0: // a copy hears of it a moment after the answer
				return errors.New("it does not")
			case err != nil || len(p.Items) != 1 || p.Items[0].Type != "M2" || p.More:
				t.Fatalf("after the last one: %+v, %v", p, err)
			}
			return nil
		})
	}
	_, err := c.Node("b").Client().Facts(t.Context(), "default", "default@1.0", client.EntryFilter{})
	var e *client.Error
	if !errors.As(err, &e) || e.Code != client.CodePrecondition || !strings.HasPrefix(e.Position, "default@") {
		t.Errorf("a position that is none: %v", err)
	}
}

// Proves RJ-14: a primary that does not know any more what is committed, since its lease ran out, says so: no page of facts is an end that is none.
func TestFactsOfAPrimaryWithoutLease(t *testing.T) {
	c := Start(t, Options{})
	a := c.Node("a")
	for i := range 5 {
		c.record(a, "f", string(rune('0'+i)), []byte("v"))
	}
	after := "default@1.2"
	if p := c.facts("a", after, 1); len(p.Items) != 1 || !p.More {
		t.Fatalf("%+v", p)
	}
	c.Cut("a", "b", true)
	c.Cut("a", "c", true)
	c.Wait("a does not know what is committed", 20*time.Second, func() error {
		p, err := a.Client().Facts(t.Context(), "default", after, client.EntryFilter{Limit: 1})
		if client.CodeOf(err) == client.CodeUnavailable {
			return nil
		}
		if err != nil || len(p.Items) != 1 || !p.More {
			t.Fatalf("a page without a lease: %+v, %v", p, err)
		}
		return errors.New("it has a lease")
	})
}
