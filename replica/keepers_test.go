package replica

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/understudy-ha/understudy/fsm"
)

// Proves TR-5, RJ-5: a node is away for long, a consumer holds what it has not read, and a program objects to deletions. At the cap
// writes are refused, each of the three alone is enough for that, nothing that is kept goes, and each step is told: the status
// says what helps. Nobody is dropped while that would not help. With the last of the three gone writes go on by themselves.
func TestWhoKeepsAFullJournal(t *testing.T) {
	c := newCluster(t, small(fsm.JournalFullDrop), "a", "b")
	a := c.nodes["a"]
	c.inSync("a", "b")
	a.mustPut("first", "v")
	c.level("b")
	c.renew("a", "b")
	c.must(fsm.Command{SetHold: &fsm.SetHold{Group: orders, Name: "reader", Position: a.rep.Status().Applied, Until: time.Now().Add(time.Hour)}})
	deny := errors.New("the tape has not got it yet")
	a.veto.Store(&deny)
	c.nodes["b"].stop()
	_, err := fill(t, a)
	if !errors.Is(err, ErrJournalFull) || !NotDone(err) {
		t.Fatalf("at the cap: %v", err)
	}
	own, _ := a.rep.Journal("a")
	oldest := own.Receivers()[0].Number
	full := func(when string, who ...string) {
		t.Helper()
		c.renew("a")
		c.goesOn("a")
		if _, err := a.put("more", strings.Repeat("v", 64<<10)); !errors.Is(err, ErrJournalFull) {
			t.Fatalf("%s: %v", when, err)
		}
		told := a.rep.Status().Full(true)
		for _, help := range append(who, "maximum_blocks") {
			if !strings.Contains(told, help) {
				t.Errorf("%s the status does not say %q: %s", when, help, told)
			}
		}
		for _, other := range []string{"consumer reader", "node b", "hooks.before_delete"} {
			if named := strings.Contains(told, other); named != slices.Contains(who, other) {
				t.Errorf("%s: %s is named %v: %s", when, other, named, told)
			}
		}
		if now := own.Receivers()[0].Number; now != oldest {
			t.Fatalf("%s: receiver %s went", when, oldest)
		}
		if _, ok := a.event(EventJournalFull); !ok {
			t.Errorf("%s: nobody was told that it is full", when)
		}
	}
	full("with all three", "consumer reader", "understudy journal holds orders --remove reader", "node b", "bring the node back", "journal_full=drop")
	if g := c.plane.group(); len(g.Dropped) != 0 {
		t.Fatalf("dropped although a consumer keeps the receiver: %+v", g.Dropped)
	}
	if _, ok := a.event(EventVetoed); ok {
		t.Error("the program was asked for what others need")
	}
	h, _ := c.plane.group().Hold("reader")
	c.must(fsm.Command{RemoveHold: &fsm.RemoveHold{Group: orders, Name: "reader", Version: h.Version}})
	c.eventually("the one that is away is dropped", func() bool { c.renew("a"); return len(c.plane.group().Dropped) == 1 })
	c.eventually("the program objects", func() bool { c.renew("a"); _, ok := a.event(EventVetoed); return ok })
	full("with the program alone", "hooks.before_delete", deny.Error())
	if e, _ := a.event(EventVetoed); !strings.Contains(e.Detail, deny.Error()) {
		t.Errorf("told: %+v", e)
	}
	a.veto.Store(nil)
	c.eventually("writes go on by themselves", func() bool {
		c.renew("a")
		_, err := a.put("after", strings.Repeat("v", 64<<10))
		return err == nil
	})
	c.eventually("it was told", func() bool { _, ok := a.event(EventJournalFree); return ok })
	a.mustGet("first", "v", false)
}
