package fsm

import (
	"bytes"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/understudy-ha/understudy/internal/ident"
)

// tells is a renewal of a in its life lifeA, with a number, that tells how far its copy of b's journal and its store reach.
func tells(number uint64, end int) Command {
	return Command{Renew: &Renew{Node: "a", Directory: "dir-a", Incarnation: lifeA, Number: number,
		Flushed: map[ident.GroupName]ident.Position{"g": position(1, ident.History(end))}, Copies: map[ident.GroupName]Ends{"g": {"b": ident.Sequence(end)}}}}
}

// TestLateRenewal: a renewal that arrives after a later one of its life covers nothing, and what it tells does not count any more. A copy
// that was removed and begun anew reaches less far than before: by the older figures others would delete what it needs. Proves RJ-5, TR-5.
func TestLateRenewal(t *testing.T) {
	f := opened(t)
	knows := func(number uint64, end int) {
		t.Helper()
		if n := f.Nodes["a"]; n.Number != number || n.Copies["g"]["b"] != ident.Sequence(end) || n.Flushed["g"] != position(1, ident.History(end)) {
			t.Fatalf("want the figures of renewal %d, which end at %d: %+v", number, end, n)
		}
	}
	covers := func(r Result) bool { return len(r.Covers) == 1 && r.Covers[0] == "g" && !r.Passed }
	first, second := tells(1, 900), tells(2, 3)
	if r := f.must(second); !covers(r) {
		t.Fatalf("%+v", r)
	}
	knows(2, 3)
	for _, late := range []Command{first, second} { // later than the one after it, and twice
		counted := f.Nodes["a"].Renewal
		if r := f.must(late); !r.Passed || r.Covers != nil || r.Ended != nil {
			t.Fatalf("a renewal that was passed: %+v", r)
		}
		knows(2, 3)
		if f.Nodes["a"].Renewal != counted+1 {
			t.Fatal("programs that know no numbers count it, so all do")
		}
	}
	if r := f.must(tells(7, 8)); !covers(r) { // some may be lost
		t.Fatalf("%+v", r)
	}
	knows(7, 8)
	// The next life counts anew, and one of a program that sends no numbers has no order.
	next := tells(1, 5)
	next.Renew.Incarnation = lifeA + 1
	if r := f.must(next); r.Passed || len(r.Ended) != 1 {
		t.Fatalf("%+v", r)
	}
	knows(1, 5)
	for _, end := range []int{9, 4} {
		old := tells(0, end)
		old.Renew.Incarnation = lifeA + 1
		if r := f.must(old); r.Passed {
			t.Fatalf("%+v", r)
		}
		knows(1, end)
	}
	earlier := tells(9, 1)
	if r := f.do(earlier); r.Refused != RefusedIncarnation {
		t.Fatalf("an earlier life, whatever its number: %+v", r)
	}
	older := tells(0, 2)
	older.Renew.Incarnation = lifeA + 2
	f.must(older)
	knows(0, 2)
}

// TestRenewalAcrossSnapshot: the order holds over a snapshot; one of before there were numbers is read, and any renewal counts after it.
func TestRenewalAcrossSnapshot(t *testing.T) {
	f := opened(t)
	before := f.bytes()
	if strings.Contains(before, `"number"`) {
		t.Fatal("a state without numbers is not what it was before there were any")
	}
	f.must(tells(2, 3))
	for _, c := range []struct {
		from   string
		passed bool
	}{{before, false}, {f.bytes(), true}} {
		s, err := Decode(bytes.NewReader([]byte(c.from)))
		if err != nil {
			t.Fatal(err)
		}
		late := tells(1, 900)
		late.Version = CommandVersion
		if r := s.Apply(late); r.Refused != "" || r.Passed != c.passed || (s.Nodes["a"].Copies["g"]["b"] == 900) == c.passed {
			t.Fatalf("%+v, %+v", r, s.Nodes["a"])
		}
	}
}

// checkRenewal checks the order of renewals: within a life the number never falls, and figures change only with one that was not passed.
func checkRenewal(t *rapid.T, before, s *State, c Command, r Result) {
	for id, n := range s.Nodes {
		o := before.Nodes[id]
		if o == nil {
			continue
		}
		own := c.Renew != nil && c.Renew.Node == id && r.Refused == ""
		if n.Incarnation == o.Incarnation && n.Number < o.Number {
			t.Fatalf("renewal %d of %s after %d: %+v", n.Number, id, o.Number, c)
		}
		if (!own || r.Passed) && !(reflect.DeepEqual(n.Copies, o.Copies) && reflect.DeepEqual(n.Flushed, o.Flushed) && n.Number == o.Number) {
			t.Fatalf("the figures of %s changed: %+v", id, c)
		}
		if own && r.Passed != (o.Incarnation == c.Renew.Incarnation && c.Renew.Number > 0 && c.Renew.Number <= o.Number) {
			t.Fatalf("renewal %d after %d: %+v", c.Renew.Number, o.Number, r)
		}
	}
	if r.Passed && len(r.Covers)+len(r.Ended) > 0 {
		t.Fatalf("a renewal that was passed: %+v", r)
	}
}
