package oracle

import (
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// op makes an operation; call and ret are its place in the order of events.
func op(client int, kind Kind, key, value string, outcome Outcome, call, ret int64) Operation {
	return Operation{Client: client, Kind: kind, Key: key, Value: value, Found: kind == Read && value != "", Outcome: outcome, Call: call, Return: ret}
}

func check(t *testing.T, name string, err error, want string) {
	t.Helper()
	switch {
	case want == "" && err != nil:
		t.Errorf("%s: a good history is refused: %v", name, err)
	case want != "" && err == nil:
		t.Errorf("%s: a bad history passes", name)
	case want != "" && !strings.Contains(err.Error(), want):
		t.Errorf("%s: want %q, have %v", name, want, err)
	}
}

// Proves S5: the register check finds reads that fit into no order.
func TestLinearizable(t *testing.T) {
	for _, c := range []struct {
		name string
		ops  []Operation
		want string
	}{
		{"read what was written", []Operation{op(1, Write, "k", "1", OK, 1, 2), op(2, Read, "k", "1", OK, 3, 4)}, ""},
		{"overlapping read sees either", []Operation{op(1, Write, "k", "1", OK, 1, 5), op(2, Read, "k", "", OK, 2, 3), op(3, Read, "k", "1", OK, 4, 6)}, ""},
		{"stale read", []Operation{op(1, Write, "k", "1", OK, 1, 2), op(1, Write, "k", "2", OK, 3, 4), op(2, Read, "k", "1", OK, 5, 6)}, "not linearizable"},
		{"lost write", []Operation{op(1, Write, "k", "1", OK, 1, 2), op(2, Read, "k", "", OK, 3, 4)}, "not linearizable"},
		{"back and forth", []Operation{op(1, Write, "k", "1", OK, 1, 9), op(2, Read, "k", "1", OK, 2, 3), op(3, Read, "k", "", OK, 4, 5)}, "not linearizable"},
		{"a failed write shows", []Operation{op(1, Write, "k", "1", Failed, 1, 2), op(2, Read, "k", "1", OK, 3, 4)}, "not linearizable"},
		{"an unknown write may show late", []Operation{op(1, Write, "k", "1", Unknown, 1, 2), op(2, Read, "k", "", OK, 3, 4), op(2, Read, "k", "1", OK, 5, 6)}, ""},
		{"an unknown write shows once only", []Operation{op(1, Write, "k", "1", Unknown, 1, 2), op(1, Write, "k", "2", OK, 3, 4), op(2, Read, "k", "1", OK, 5, 6),
			op(1, Write, "k", "3", OK, 7, 8), op(2, Read, "k", "1", OK, 9, 10)}, "not linearizable"},
		{"delete", []Operation{op(1, Write, "k", "1", OK, 1, 2), op(1, Delete, "k", "", OK, 3, 4), op(2, Read, "k", "1", OK, 5, 6)}, "not linearizable"},
		{"keys are judged apart", []Operation{op(1, Write, "k", "1", OK, 1, 2), op(2, Read, "l", "", OK, 3, 4)}, ""},
		{"a local read may be old", []Operation{op(1, Write, "k", "1", OK, 1, 2), op(2, Local, "k", "", OK, 3, 4)}, ""},
	} {
		check(t, c.name, Linearizable(c.ops, 5*time.Second), c.want)
	}
}

// Proves S3 and S4: the set check finds lost, invented, altered and repeated elements.
func TestSet(t *testing.T) {
	at := func(o Operation, position string) Operation { o.Position = position; return o }
	one := []Element{{Key: "k", Value: "k", Position: "g@1.1"}}
	for _, c := range []struct {
		name  string
		ops   []Operation
		final []Element
		want  string
	}{
		{"all there", []Operation{at(op(1, Write, "k", "k", OK, 1, 2), "g@1.1")}, one, ""},
		{"lost", []Operation{op(1, Write, "k", "k", OK, 1, 2)}, nil, "lost element"},
		{"refused but there", []Operation{op(1, Write, "k", "k", Failed, 1, 2)}, one, "phantom element"},
		{"invented", nil, one, "phantom element: k was never written"},
		{"unknown and there", []Operation{op(1, Write, "k", "k", Unknown, 1, 2)}, one, ""},
		{"unknown and not there", []Operation{op(1, Write, "k", "k", Unknown, 1, 2)}, nil, ""},
		{"done twice", []Operation{at(op(1, Write, "k", "k", OK, 1, 2), "g@1.7")}, one, "repeated element"},
		{"altered", []Operation{op(1, Write, "k", "x", OK, 1, 2)}, one, "altered element"},
		{"twice in the answer", []Operation{op(1, Write, "k", "k", OK, 1, 2)}, append(one, one...), "duplicate element"},
		{"stale read", []Operation{op(1, Write, "k", "k", OK, 1, 2), op(2, Read, "k", "", OK, 3, 4)}, one, "stale read"},
		{"read too early to see it", []Operation{op(1, Write, "k", "k", OK, 1, 4), op(2, Read, "k", "", OK, 2, 3)}, one, ""},
		{"dirty read", []Operation{op(1, Write, "k", "k", Unknown, 1, 2), op(2, Read, "k", "k", OK, 3, 4)}, nil, "dirty read"},
		{"dirty local read", []Operation{op(1, Write, "k", "k", Unknown, 1, 2), {Kind: Local, Key: "k", Found: true, Outcome: OK}}, nil, "dirty read"},
	} {
		check(t, c.name, Set(c.ops, c.final), c.want)
	}
	var many []Operation
	for i := range 9 {
		many = append(many, op(1, Write, string(rune('a'+i)), "", OK, 1, 2))
	}
	check(t, "a long list is cut", Set(many, nil), "lost element: 4 more")
}

func TestBankAndMonotonic(t *testing.T) {
	check(t, "sum holds", Bank([]Balance{{"a", 100, 10}, {"b", 100, 10}}, 100, 10), "")
	check(t, "money made", Bank([]Balance{{"a", 101, 10}}, 100, 10), "wrong sum")
	check(t, "account missing", Bank([]Balance{{"a", 100, 9}}, 100, 10), "wrong sum")
	check(t, "grows", Monotonic([]Sample{{1, "a"}, {5, "b"}, {1, "a"}, {2, "a"}}), "")
	check(t, "goes back", Monotonic([]Sample{{1, "a"}, {5, "b"}, {3, "a"}, {4, "b"}}), "went back: b saw 4 after 5")
}

// Proves S10 and S24: copies are compared where they overlap.
func TestCopies(t *testing.T) {
	same := Digest{Node: "a", Position: "g@1.5", Records: 3, Sum: "x"}
	other := same
	other.Node = "b"
	check(t, "equal", SameDigests([]Digest{same, other}, 2), "")
	other.Sum = "y"
	check(t, "divergent", SameDigests([]Digest{same, other}, 2), "divergent copies")
	other.Position = "g@1.6"
	check(t, "not level", SameDigests([]Digest{same, other}, 2), "copies apart")

	journal := func(node, name string, from uint64, content ...string) Journal {
		j := Journal{Node: node, Name: name}
		for i, c := range content {
			j.Entries = append(j.Entries, Entry{Sequence: from + uint64(i), Position: "1." + c[:1], Content: c})
		}
		return j
	}
	check(t, "copies of one length", SameJournals([]Journal{journal("a", "g/a", 1, "1x", "2y"), journal("b", "g/a", 1, "1x", "2y")}), "")
	check(t, "one is shorter", SameJournals([]Journal{journal("a", "g/a", 1, "1x", "2y"), journal("b", "g/a", 2, "2y")}), "")
	check(t, "another content", SameJournals([]Journal{journal("a", "g/a", 1, "1x", "2y"), journal("b", "g/a", 1, "1x", "2z")}), "journals differ")
	check(t, "position in another journal", SameJournals([]Journal{journal("a", "g/a", 1, "1x"), journal("b", "g/b", 9, "1y")}), "position means two things")
	gap := journal("a", "g/a", 1, "1x", "2y")
	gap.Entries[1].Sequence = 7
	check(t, "gap", SameJournals([]Journal{gap}), "gap")
}

func TestGuards(t *testing.T) {
	ops := []Operation{op(1, Write, "k", "1", OK, 1, 2), op(1, Write, "k", "2", Failed, 3, 4)}
	check(t, "something happened", NotEmpty(ops, 1, Write), "")
	check(t, "failures do not count", NotEmpty(ops, 2, Write), "nothing was tested")
	check(t, "no reads", NotEmpty(ops, 1, Write, Read), "0 of kind read")
	check(t, "faults worked", Active(map[string]int{"cut": 3}, []string{"cut", "cut"}), "")
	check(t, "a fault did nothing", Active(map[string]int{"cut": 3}, []string{"cut", "slow"}), "a fault did nothing: slow")
}

func TestRecorder(t *testing.T) {
	now := time.Duration(0)
	r := NewRecorder(func() time.Duration { now++; return now })
	a := r.Begin(Operation{Client: 1, Kind: Write, Key: "k", Value: "1"})
	b := r.Begin(Operation{Client: 2, Kind: Read, Key: "k"})
	r.End(a, OK, func(o *Operation) { o.Position = "g@1.1" })
	ops := r.Operations()
	if len(ops) != 2 || ops[0].Call != 1 || ops[0].Return != 3 || ops[0].Position != "g@1.1" || ops[0].Ended <= ops[0].Began {
		t.Errorf("recorded %+v", ops)
	}
	if ops[1].Outcome != Unknown || ops[1].Return != 0 {
		t.Errorf("an operation that never ended is %+v", ops[1])
	}
	r.End(b, Failed, nil)
	var out strings.Builder
	if err := Save(&out, r.Operations()); err != nil || strings.Count(out.String(), "\n") != 2 {
		t.Errorf("saved %q, %v", out.String(), err)
	}
}
