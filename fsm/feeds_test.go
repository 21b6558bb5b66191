package fsm

import (
	"strings"
	"testing"

	"github.com/understudy-ha/understudy/internal/ident"
)

type feedsOf = map[ident.NodeID]ident.NodeID

// Proves RJ-3: nobody feeds himself, over others neither, and the keys are names.
func TestCheckFeeds(t *testing.T) {
	for text, feeds := range map[string]feedsOf{
		"":                     {"c": "b", "d": "c", "e": "c"},
		"cannot feed itself":   {"c": "c"},
		"by itself":            {"c": "b", "b": "c"},
		"over d, by itself":    {"b": "d", "d": "c", "c": "b"},
		"is not a name":        {"c": "no/name"},
		"want at most 64":      many(65),
		"over n1, by itself: ": {"x": "y", "n0": "n1", "n1": "n0"},
	} {
		err := GroupSpec{Name: "orders", Feeds: feeds}.Normalize().Validate()
		if text == "" && err != nil || text != "" && (err == nil || !strings.Contains(err.Error(), text)) {
			t.Errorf("%v: %v, want %q", feeds, err, text)
		}
	}
}

func many(n int) feedsOf {
	out := feedsOf{}
	for i := range n {
		out[ident.NodeID("t"+strings.Repeat("x", i%40)+string(rune('a'+i%26))+strings.Repeat("y", i/26))] = "b"
	}
	for i := 0; len(out) < n; i++ {
		out[ident.NodeID("z"+strings.Repeat("z", i))] = "b"
	}
	return out
}

// The feeder of a node is a backup that takes part.
func TestFeederOf(t *testing.T) {
	g := &Group{Primary: "a", Spec: GroupSpec{Feeds: feedsOf{"c": "b", "d": "a", "a": "b", "e": "c"}}, Dropped: []Dropped{{Node: "e"}}}
	for target, want := range (feedsOf{"c": "b", "d": "", "a": "", "b": "", "e": ""}) {
		if got := g.FeederOf(target); got != want {
			t.Errorf("%s: %q, want %q", target, got, want)
		}
	}
	g.Dropped = []Dropped{{Node: "b"}}
	if got := g.FeederOf("c"); got != "" {
		t.Errorf("a node that was dropped feeds: %q", got)
	}
}

// Who feeds whom changes at any time, and back; it stands in snapshots, and a spec without it looks as before.
func TestChangeFeeds(t *testing.T) {
	f := draining(t)
	set, version := f.group().InSync, f.group().SetVersion
	plain := f.bytes()
	to := f.group().Spec
	to.Feeds = feedsOf{"c": "b"}
	change := func() { f.must(Command{ChangeSpec: &ChangeSpec{Group: "g", Version: f.group().SpecVersion, Spec: to}}) }
	change()
	if g := f.group(); g.FeederOf("c") != "b" || g.SpecVersion != 1 || g.SetVersion != version || len(g.InSync) != len(set) {
		t.Fatalf("%+v", g)
	}
	to.Feeds["c"] = "a"
	if f.group().Spec.Feeds["c"] != "b" {
		t.Error("the state shares a map with who changed it")
	}
	again, err := Decode(strings.NewReader(f.bytes()))
	if err != nil || again.Groups["g"].Spec.Feeds["c"] != "b" {
		t.Fatalf("%v, %+v", err, again)
	}
	to.Feeds = feedsOf{}
	change()
	if strings.Contains(plain, "feeds") || strings.Contains(f.bytes(), "feeds") {
		t.Error("a spec without feeds says so")
	}
	f = empty(t)
	early := spec("g", "a")
	early.Feeds = feedsOf{"c": "later"}
	f.must(Command{CreateGroup: &CreateGroup{Spec: early, Incarnation: lifeA}})
	early.Name, early.Feeds = "h", feedsOf{"c": "w"}
	if r := f.do(Command{CreateGroup: &CreateGroup{Spec: early, Incarnation: lifeA}}); r.Refused != RefusedUnknown {
		t.Errorf("a group fed by a witness: %+v", r)
	}
}
