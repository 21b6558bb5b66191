package faultlab

import (
	"strings"
	"testing"
	"time"

	"github.com/understudy-ha/understudy/cmd/internal/oracle"
)

// moment makes an operation that lasts from began to ended, in seconds.
func moment(kind oracle.Kind, key, value, position string, began, ended int) oracle.Operation {
	return oracle.Operation{
		Kind: kind, Key: key, Value: value, Position: position, Outcome: oracle.OK, Found: value != "", Copy: "b",
		Began: time.Duration(began) * time.Second, Ended: time.Duration(ended) * time.Second, Call: int64(2 * began), Return: int64(2*ended) + 1,
	}
}

// TestJudgeBites: each check of the lab finds the history it is there for, and lets a good one pass.
func TestJudgeBites(t *testing.T) {
	w := func(value, position string, began, ended int) oracle.Operation {
		return moment(oracle.Write, "counter/c", value, position, began, ended)
	}
	local := func(value string, began, ended int) oracle.Operation {
		return moment(oracle.Local, "counter/c", value, "", began, ended)
	}
	refused := w("3", "", 20, 21)
	refused.Outcome = oracle.Failed
	for _, tc := range []struct {
		name    string
		history []oracle.Operation
		want    string // in the error; "": there is none
	}{
		{"good", []oracle.Operation{w("1", "default@1.5", 0, 1), w("2", "default@2.9", 5, 6), local("1", 6, 7), local("2", 8, 9)}, ""},
		{"overlapping writes may stand either way", []oracle.Operation{w("1", "default@1.6", 0, 5), w("2", "default@1.5", 1, 6)}, ""},
		{"twice at one place", []oracle.Operation{w("1", "default@1.5", 0, 1), w("2", "default@1.5", 5, 6)}, "both acknowledged at"},
		{"against time", []oracle.Operation{w("1", "default@2.7", 0, 1), w("2", "default@1.8", 5, 6)}, "the earlier"},
		{"no position", []oracle.Operation{w("1", "", 0, 1)}, "not a position"},
		{"an old copy", []oracle.Operation{w("1", "default@1.5", 0, 1), w("2", "default@1.6", 2, 3), local("1", 9, 10)}, "stale copy"},
		{"an empty old copy", []oracle.Operation{w("1", "default@1.5", 0, 1), local("", 9, 10)}, "stale copy"},
		{"a copy of what was refused", []oracle.Operation{w("1", "default@1.5", 0, 1), refused, local("3", 22, 23)}, "dirty copy"},
		{"a copy from the future", []oracle.Operation{local("1", 2, 3), w("1", "default@1.5", 4, 5)}, "dirty copy"},
	} {
		var text string
		for _, err := range []error{agedCopies(tc.history), inOrder(tc.history)} {
			if err != nil {
				text += err.Error()
			}
		}
		if tc.want == "" && text != "" || !strings.Contains(text, tc.want) {
			t.Errorf("%s: %q, want %q", tc.name, text, tc.want)
		}
	}
}

// TestPlansFollowFromTheirSeed: a seed always means the same plan, and the plans of many seeds meet every fault in every phase.
func TestPlansFollowFromTheirSeed(t *testing.T) {
	met := map[string]bool{}
	for seed := range uint64(3000) {
		p := NewPlan(seed)
		if again := NewPlan(seed); p.String() != again.String() {
			t.Fatalf("seed %d means two plans:\n%s\n%s", seed, p, again)
		}
		for _, s := range p.Steps {
			met[p.Phase+" "+s.Fault] = true
		}
	}
	for _, ph := range phases() {
		for _, f := range catalogue() {
			if !met[ph.name+" "+f.Name] {
				t.Errorf("no plan has %s in phase %s", f.Name, ph.name)
			}
		}
	}
}
