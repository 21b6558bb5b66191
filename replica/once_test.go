package replica

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/journal/entry"
	"github.com/understudy-ha/understudy/replica/store"
)

func once(key string, request byte) *Once {
	return &Once{Key: key, Request: [32]byte{request}, Keep: time.Hour}
}

// twoFiles is a transaction that can be recognized in the history.
func twoFiles(value string, o *Once) Transaction {
	return Transaction{Once: o, Writes: []Write{
		{File: "f", Key: []byte("k"), Value: []byte(value)}, {File: "g", Key: []byte("none"), Delete: true}, {File: "g", Key: []byte("k"), Value: []byte(value)},
	}}
}

// times counts how often a value was written, over the whole history.
func (n *node) times(value string) (count int) {
	for _, s := range n.history() {
		if s == "k="+value {
			count++
		}
	}
	return count
}

// A repeated request gets the first receipt and is not done again, at the same primary, after a switch-over and after a failover; the
// same key with another request is refused. Proves TR-3.
func TestOnce(t *testing.T) {
	c := newCluster(t, fsm.GroupSpec{}, "a", "b")
	a, b := c.nodes["a"], c.nodes["b"]
	c.inSync("a", "b")
	a.mustPut("k", "before")
	first, err := a.rep.Write(t.Context(), twoFiles("v", once("key", 1)))
	if err != nil || first.Replayed || first.Created || !first.Found || len(first.Changes) != 3 || first.Changes[1] != (Changed{}) || !first.Changes[2].Created {
		t.Fatalf("%+v %v", first, err)
	}
	image, _, err := a.rep.Read(t.Context(), "g", []byte("k"), false)
	if err != nil || image.Position != first.Position {
		t.Fatalf("the receipt says %s, the record %s, %v", first.Position, image.Position, err)
	}
	absent := twoFiles("x", once("refused", 1))
	absent.Conditions = []Condition{{File: "f", Key: []byte("k")}, {File: "f", Key: []byte("k"), Absent: true}}
	_, err = a.rep.Write(t.Context(), absent)
	var refused *ConditionError
	if !errors.As(err, &refused) {
		t.Fatal(err)
	}
	user, err := a.rep.DepositOnce(t.Context(), entry.Type{'X', 'Y'}, []byte("payload"), once("user", 1))
	if err != nil {
		t.Fatal(err)
	}
	again := func(n *node) {
		t.Helper()
		r, err := n.rep.Write(t.Context(), twoFiles("v", once("key", 1)))
		want := first
		want.Replayed = true
		if err != nil || fmt.Sprint(r) != fmt.Sprint(want) {
			t.Errorf("at %s: %+v, %v; the first receipt was %+v", n.id, r, err, first)
		}
		if _, err := n.rep.Write(t.Context(), twoFiles("other", once("key", 2))); !errors.Is(err, ErrKeyReused) || !NotDone(err) {
			t.Errorf("the key with another request: %v", err)
		}
		_, err = n.rep.Write(t.Context(), absent)
		var still *ConditionError
		if !errors.As(err, &still) || still.Index != refused.Index || still.Position != refused.Position || still.Exists != refused.Exists || !bytes.Equal(still.Key, refused.Key) {
			t.Errorf("at %s the refusal is %+v, it was %+v", n.id, err, refused)
		}
		if r, err := n.rep.DepositOnce(t.Context(), entry.Type{'X', 'Y'}, []byte("payload"), once("user", 1)); err != nil || r.Position != user.Position || r.Sequence != user.Sequence || !r.Replayed {
			t.Errorf("at %s the user entry is %+v, %v; it was %+v", n.id, r, err, user)
		}
	}
	again(a)
	// What refused it does not matter any more: the first look decides.
	if _, err := a.rep.Write(t.Context(), Transaction{Writes: []Write{{File: "f", Key: []byte("k"), Delete: true}}}); err != nil {
		t.Fatal(err)
	}
	again(a)
	c.switchover("b")
	again(b)
	c.level("a")
	c.keepInSync("a", "b")
	b.crash(0)
	c.failover("a", false)
	c.serves("a")
	again(a)
	if n := a.times("v"); n != 2 { // in two files
		t.Errorf("the value stands %d times in the history", n)
	}
	if _, err := a.rep.Write(t.Context(), twoFiles("x", once("another", 1))); err != nil {
		t.Error(err)
	}
	if n := a.times("x"); n != 2 {
		t.Errorf("the value stands %d times in the history", n)
	}
}

// A key whose first request is on its way waits for its outcome, and hears it. Proves TR-3.
func TestOnceInFlight(t *testing.T) {
	c := newCluster(t, fsm.GroupSpec{OnNoSync: fsm.NoSyncHold}, "a", "b")
	a := c.nodes["a"]
	c.inSync("a", "b")
	write := func(wait time.Duration) (Receipt, error) {
		ctx, cancel := context.WithTimeout(context.Background(), wait)
		defer cancel()
		return a.rep.Write(ctx, twoFiles("v", once("key", 1)))
	}
	before := a.rep.Status().Sequence
	err := c.cutOff(a, c.nodes["b"], func(ctx context.Context) error {
		_, err := a.rep.Write(ctx, twoFiles("v", once("key", 1)))
		return err
	})
	var unknown, still *UnknownOutcomeError
	if !errors.As(err, &unknown) {
		t.Fatal(err)
	}
	session := a.rep.primary.Load()
	if !session.paused.Load() { // on_no_sync takes nothing any more; before that a second one is seen in flight
		if _, err := write(50 * time.Millisecond); errors.As(err, &still) && still.Position != unknown.Position {
			t.Fatalf("the second one is at %s, the first at %s", still.Position, unknown.Position)
		}
	}
	c.wires.sever("a", "b", false)
	r, err := write(patience)
	if err != nil || !r.Replayed || r.Position != unknown.Position {
		t.Fatalf("%+v %v, want %s", r, err, unknown.Position)
	}
	if s := a.rep.Status().Sequence; s != before+4 {
		t.Errorf("entries up to %s, was %s: it was done more than once", s, before)
	}

	// Many at once, in one bundle and over several: one is done, all hear the same.
	session = a.rep.primary.Load()
	session.hold(true)
	const clients = 20
	receipts := make(chan Receipt, 2*clients)
	var all sync.WaitGroup
	for i := range 2 * clients {
		if i == clients {
			c.eventually("all wait", func() bool { return session.queue.length() == clients })
			session.hold(false)
		}
		all.Go(func() {
			r, err := a.rep.Write(t.Context(), twoFiles("w", once("many", 1)))
			if err != nil {
				t.Error(err)
			}
			receipts <- r
		})
	}
	all.Wait()
	firsts := 0
	at := (<-receipts)
	if !at.Replayed {
		firsts++
	}
	for range 2*clients - 1 {
		r := <-receipts
		if r.Position != at.Position || r.Sequence != at.Sequence {
			t.Errorf("%+v and %+v", r, at)
		}
		if !r.Replayed {
			firsts++
		}
	}
	if n := a.times("w"); firsts != 1 || n != 2 {
		t.Errorf("%d were the first, and the value stands %d times in the history", firsts, n)
	}
}

// A request whose outcome is unknown is asked again at the new primary: done once, whether the tail lives on or not. Proves TR-3.
func TestOnceAcrossFailover(t *testing.T) {
	for _, reaches := range []bool{true, false} {
		t.Run(fmt.Sprint("reaches the target ", reaches), func(t *testing.T) {
			c := newCluster(t, fsm.GroupSpec{}, "a", "b", "c")
			a, b := c.nodes["a"], c.nodes["b"]
			c.keepInSync("a", "b")
			a.mustPut("k", "old")
			if !reaches {
				c.plane.isolate("a", true) // else the set would shrink
				c.wires.sever("a", "b", true)
				c.wires.sever("a", "c", true)
			} else {
				release := a.hang()
				defer release()
				a.mute.Store(true)
			}
			last := a.rep.Status().Sequence
			done := make(chan error, 1)
			a.wg.Go(func() {
				_, err := a.rep.Write(context.Background(), twoFiles("new", once("key", 1)))
				done <- err
			})
			c.eventually("the write is sequenced", func() bool { return a.rep.Status().Sequence > last })
			if reaches {
				copied, _ := b.rep.Journal("a")
				c.eventually("the write is at b", func() bool {
					v, _ := copied.View()
					return v.Durable > last
				})
			}
			c.plane.isolate("a", true)
			c.failover("b", false)
			c.serves("b")
			if reaches {
				copied, _ := b.rep.Journal("a")
				c.eventually("the tail of the copy is gone", func() bool {
					v, _ := copied.View()
					return v.Last <= last
				})
			}
			r, err := b.rep.Write(t.Context(), twoFiles("new", once("key", 1)))
			if err != nil || r.Replayed != reaches || r.Sequence == 0 || r.Journal.Node != "b" { // the tail lives on in b's journal
				t.Fatalf("%+v %v", r, err)
			}
			if n := b.times("new"); n != 2 {
				t.Errorf("the value stands %d times in the history", n)
			}
			c.plane.isolate("a", false)
			c.wires.sever("a", "b", false)
			c.wires.sever("a", "c", false)
			var unknown *UnknownOutcomeError
			if err := <-done; !reaches && !errors.As(err, &unknown) {
				t.Errorf("the first one ended with %v", err)
			}
		})
	}
}

// Keys are records that expire, are part of the digest, and cannot be reached under their file's name. Proves TR-3.
func TestOnceRecords(t *testing.T) {
	c := newCluster(t, fsm.GroupSpec{}, "a", "b")
	a := c.nodes["a"]
	c.inSync("a", "b")
	key := once("key", 1)
	r, err := a.rep.Write(t.Context(), twoFiles("v", key))
	if err != nil {
		t.Fatal(err)
	}
	image, err := a.rep.data.Get(KeysFile, []byte("key"))
	if err != nil || image.Expiry != image.Time+int64(key.Keep) || image.Position.History != r.Position.History-3 {
		t.Fatalf("%+v %v", image, err)
	}
	if files, err := a.rep.Files(); err != nil || len(files) != 2 {
		t.Errorf("files %q, %v", files, err)
	}
	if d, err := a.rep.Digest(t.Context()); err != nil || d.Files != 3 || d.Records != 3 {
		t.Errorf("digest %+v, %v", d, err)
	}
	c.level("b")
	if _, _, err := a.rep.Read(t.Context(), KeysFile, []byte("key"), false); !errors.Is(err, ErrInvalid) {
		t.Errorf("read: %v", err)
	}
	if _, err := a.rep.List(t.Context(), KeysFile, nil, nil, 10, false); !errors.Is(err, ErrInvalid) {
		t.Errorf("list: %v", err)
	}
	if _, err := a.rep.Write(t.Context(), Transaction{Writes: []Write{{File: KeysFile, Key: []byte("key")}}}); !errors.Is(err, ErrInvalid) {
		t.Errorf("write: %v", err)
	}
	c.walls["a"].set(2 * time.Hour) // its time is over
	if again, err := a.rep.Write(t.Context(), twoFiles("v", key)); err != nil || again.Replayed || again.Position == r.Position {
		t.Errorf("after its time: %+v %v", again, err)
	}
	c.walls["a"].set(4 * time.Hour)
	c.eventually("the expirer has removed the key", func() bool {
		_, err := a.rep.data.Get(KeysFile, []byte("key"))
		return errors.Is(err, store.ErrNotFound)
	})
	for _, bad := range []*Once{{}, {Key: "k"}, {Key: "k\n", Keep: 1}, {Key: "ä", Keep: 1}, {Key: strings.Repeat("k", MaxOnceKey+1), Keep: 1}} {
		if _, err := a.rep.Write(t.Context(), twoFiles("v", bad)); !errors.Is(err, ErrInvalid) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}
