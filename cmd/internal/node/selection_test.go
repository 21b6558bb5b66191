package node

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/understudy-ha/understudy/client"
	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
)

// stateOf is a state with groups, and with plans for those whose names begin with p.
func stateOf(specs ...fsm.GroupSpec) *fsm.State {
	st := &fsm.State{Groups: map[ident.GroupName]*fsm.Group{}}
	for _, s := range specs {
		if strings.HasPrefix(string(s.Name), "p") {
			st.Planned = append(st.Planned, fsm.Plan{Spec: s})
			continue
		}
		st.Groups[s.Name] = &fsm.Group{Spec: s}
	}
	return st
}

// TestOwner: patterns and ranges of keys together say whose a record is; narrower groups are asked before those that take all, planned
// ones as if they were there. Proves TR-7, HB-2.
func TestOwner(t *testing.T) {
	st := stateOf(
		fsm.GroupSpec{Name: "default", Order: 1, Files: []string{"*", "!tmp*"}},
		fsm.GroupSpec{Name: "orders", Order: 5, Files: []string{"ord*", "invoice", "!ordinary"}},
		fsm.GroupSpec{Name: "low", Files: []string{"big"}, Keys: fsm.KeyRange{From: "b", To: "m"}},
		fsm.GroupSpec{Name: "high", Files: []string{"big"}, Keys: fsm.KeyRange{From: "p"}},
		fsm.GroupSpec{Name: "system", Files: []string{"system.*"}},
		fsm.GroupSpec{Name: "planned", Files: []string{"new*"}},
	)
	s := newSelection(st)
	for record, want := range map[string]ident.GroupName{
		"orders k": "orders", "invoice k": "orders", "ordinary k": "default", "customers k": "default",
		"tmp1 k": "", "local.x k": "", "system.x k": "system", "new k": "planned",
		"big a": "default", "big b": "low", "big lzz": "low", "big m": "default", "big ozz": "default", "big p": "high", "big \xff": "high",
	} {
		file, key, _ := strings.Cut(record, " ")
		if got, ok := s.owner(file, []byte(key)); got != want || ok != (want != "") {
			t.Errorf("%q belongs to %q, want %q", record, got, want)
		}
	}
	if got := text(s.spans("big")); got != "-b default,b-m low,m-p default,p- high" {
		t.Errorf("the parts of big: %s", got)
	}
	for ask, want := range map[string]string{
		" ": "-b default,b-m low,m-p default,p- high", " c": "b-m low,m-p default,p- high", " m": "m-p default,p- high", "c ": "b-m low",
		"m z": "", "m ": "m-p default", "z ": "p- high", "\xff ": "p- high",
	} {
		prefix, from, _ := strings.Cut(ask, " ")
		if got := text(within(s.spans("big"), []byte(prefix), []byte(from))); got != want {
			t.Errorf("with prefix %q from %q: %s, want %s", prefix, from, got, want)
		}
	}
	if got := fmt.Sprint(owners(s.spans("big"))); got != "[default low high]" {
		t.Errorf("owners %s", got)
	}
	if got := owners(s.spans("tmp1")); len(got) != 0 {
		t.Errorf("tmp1 is owned by %v", got)
	}
}

func text(spans []span) string {
	var all []string
	for _, p := range spans {
		all = append(all, fmt.Sprintf("%s-%s %s", p.keys.From, p.keys.To, p.group))
	}
	return strings.Join(all, ",")
}

// TestOwnership: by any state a record has one owner at most, the same on every node; the spans of a file are all its keys, without a gap and
// without an overlap, and agree with the owner. Proves TR-7, HB-2.
func TestOwnership(t *testing.T) {
	bounds := []fsm.KeyBound{"", "a", "b", "ba", "c", "\xff"}
	rapid.Check(t, func(t *rapid.T) {
		var specs []fsm.GroupSpec
		for i := range rapid.IntRange(0, 5).Draw(t, "groups") {
			s := fsm.GroupSpec{Name: ident.GroupName(rapid.SampledFrom([]string{"g", "p"}).Draw(t, "kind") + fmt.Sprint(i)), Order: rapid.IntRange(0, 2).Draw(t, "order"),
				Files: rapid.SliceOfN(rapid.SampledFrom([]string{"*", "f", "f*", "!f", "local.*", "!*g"}), 1, 3).Draw(t, "files"),
				Keys:  fsm.KeyRange{From: rapid.SampledFrom(bounds).Draw(t, "from"), To: rapid.SampledFrom(bounds).Draw(t, "to")}}
			if s.CheckSelection() == nil {
				specs = append(specs, s)
			}
		}
		st := stateOf(specs...)
		slices.Reverse(specs)
		one, other := newSelection(st), newSelection(stateOf(specs...))
		file := rapid.SampledFrom([]string{"f", "fg", "x", "local.f"}).Draw(t, "file")
		key := []byte(rapid.SampledFrom([]string{"\x00", "a", "a\x00", "b", "baa", "c", "zz", "\xff", "\xff\xff"}).Draw(t, "key"))
		name, ok := one.owner(file, key)
		if again, _ := other.owner(file, key); again != name {
			t.Fatalf("%q of %s belongs to %q and to %q", key, file, name, again)
		}
		if ok != slices.ContainsFunc(specs, func(s fsm.GroupSpec) bool { return s.Selects(file, key) }) {
			t.Fatalf("%q of %s: owner %q", key, file, name)
		}
		spans := one.spans(file)
		holding := 0
		for i, p := range spans {
			if i == 0 && p.keys.From != "" || i > 0 && (p.keys.From != spans[i-1].keys.To || p.keys.From == "" || p.group == spans[i-1].group) {
				t.Fatalf("spans %s", text(spans))
			}
			if p.keys.Contains(key) {
				holding++
				if p.group != name {
					t.Fatalf("%q of %s belongs to %q, by its span to %q: %s", key, file, name, p.group, text(spans))
				}
			}
		}
		if holding != 1 || spans[len(spans)-1].keys.To != "" {
			t.Fatalf("%d spans of %s hold %q", holding, text(spans), key)
		}
	})
}

// TestMerge: pages over several groups are in key order, whole, without what is not the part's, and go on where they ended. Proves TR-7.
func TestMerge(t *testing.T) {
	spans := []span{{fsm.KeyRange{To: "c"}, "x"}, {fsm.KeyRange{From: "c", To: "f"}, "y"}, {fsm.KeyRange{From: "f", To: "h"}, ""}, {fsm.KeyRange{From: "h"}, "x"}}
	held := map[ident.GroupName][]string{"x": {"a", "b", "h", "i", "k"}, "y": {"c", "d", "e"}}
	get := func(group ident.GroupName, o client.ListOptions) (page client.RecordPage, err error) {
		page.Node, page.Applied, page.Age = "of "+string(group), string(group)+"@1.1", map[ident.GroupName]float64{"x": 1, "y": 2}[group]
		for _, k := range held[group] {
			switch {
			case k < string(o.From):
			case len(page.Records) == o.Limit:
				next := client.MakeKey([]byte(k))
				page.Next = &next
				return page, nil
			default:
				page.Records = append(page.Records, client.Record{Key: client.MakeKey([]byte(k))})
			}
		}
		return page, nil
	}
	for limit := 1; limit < 10; limit++ {
		var got []string
		var from []byte
		for pages := 0; ; pages++ {
			page, err := merge("f", "a", within(spans, nil, from), client.ListOptions{From: from, Limit: limit}, get)
			if err != nil || len(page.Records) > limit || pages > 20 {
				t.Fatalf("limit %d: %+v, %v", limit, page, err)
			}
			for _, r := range page.Records {
				got = append(got, r.Text)
			}
			if limit == 9 && (len(page.Parts) != 3 || page.Parts[1].Applied != "y@1.1" || page.Parts[1].Keys.From != "c" || page.Age != 2 || page.Applied != "") {
				t.Errorf("parts %+v, age %v", page.Parts, page.Age)
			}
			if page.Next == nil {
				break
			}
			from = page.Next.Bytes()
		}
		if strings.Join(got, "") != "abcdehik" {
			t.Errorf("by %d: %q", limit, got)
		}
	}
	away := errors.New("away")
	if _, err := merge("f", "a", spans, client.ListOptions{Limit: 9}, func(g ident.GroupName, _ client.ListOptions) (client.RecordPage, error) {
		if g == "y" {
			return client.RecordPage{}, away
		}
		return client.RecordPage{Age: -1}, nil
	}); !errors.Is(err, away) {
		t.Errorf("a part is missing, and the page says %v", err)
	}
}

// TestStartOrder: replicas and role sessions begin in the order of the groups, the group system first. Proves IC-1.
func TestStartOrder(t *testing.T) {
	st := stateOf(fsm.GroupSpec{Name: "b", Order: 1}, fsm.GroupSpec{Name: "a", Order: 1}, fsm.GroupSpec{Name: "first", Order: -1}, fsm.GroupSpec{Name: "system"})
	var got []ident.GroupName
	for _, g := range toStart(st, map[ident.GroupName]bool{"a": true}) {
		got = append(got, g.Spec.Name)
	}
	if fmt.Sprint(got) != "[system first b]" {
		t.Errorf("starts %v", got)
	}
}

// TestAsked: only the primary of a group that has opened answers for it. Proves TR-7.
func TestAsked(t *testing.T) {
	st := stateOf(fsm.GroupSpec{Name: "x"}, fsm.GroupSpec{Name: "y"}, fsm.GroupSpec{Name: "z"})
	for name, g := range st.Groups {
		g.Phase, g.Primary, g.Epoch = fsm.PhaseOpened, "a", 4
		if name == "y" {
			g.Phase = fsm.PhasePromoted
		}
		if name == "z" {
			g.Primary = "b"
		}
	}
	st.Planned = []fsm.Plan{{ID: 9, Spec: fsm.GroupSpec{Name: "p"}, Ask: []ident.GroupName{"x", "y", "z"}}}
	if got := asked(st, "a", nil); len(got) != 1 || got[0].group != "x" || got[0].epoch != 4 || got[0].plans[0].ID != 9 {
		t.Errorf("a is asked %+v", got)
	}
}
