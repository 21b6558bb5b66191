package fsm

import (
	"encoding/json"
	"path"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/understudy-ha/understudy/internal/ident"
)

// TestSelectsFile: a pattern selects, an excluding one overrules it, and what is kept apart is selected by its own prefix only. Proves HB-2.
func TestSelectsFile(t *testing.T) {
	for _, c := range []struct {
		patterns, file string
		want           bool
	}{
		{"*", "orders", true},
		{"*", "a/b", true},
		{"a?b", "a/b", true},
		{"*", "local.cache", false},
		{"*", "system.users", false},
		{"*", "local", true},
		{"*", "systems", true},
		{"l*", "local.cache", false},
		{"[l]ocal.*", "local.cache", false},
		{"local.*", "local.cache", true},
		{"* local.c*", "local.cache", true},
		{"* local.c*", "local.other", false},
		{"local.*", "orders", false},
		{"* !tmp*", "tmp1", false},
		{"!tmp* *", "tmp1", false},
		{"* !tmp*", "orders", true},
		{"local.* !local.x", "local.x", false},
		{"orders-[0-9]*", "orders-7a", true},
		{"orders-[0-9]*", "orders-x", false},
		{"orders-[^0-9]", "orders-x", true},
		{`a\*b`, "a*b", true},
		{`a\*b`, "axb", false},
		{`\!x`, "!x", true},
		{"*a*b*", "xxaxxbxx", true},
		{"*a*b", "xxaxxbxx", false},
		{"ö?", "öä", true},
	} {
		s := GroupSpec{Files: strings.Fields(c.patterns)}
		if got := s.SelectsFile(c.file); got != c.want {
			t.Errorf("%s selects %q: %v", c.patterns, c.file, got)
		}
	}
	for _, bad := range []string{"!", "![", "!a"} {
		if err := (GroupSpec{Name: "g", Files: []string{bad}}).Normalize().Validate(); err == nil {
			t.Errorf("%q alone is taken", bad)
		}
	}
}

var globAlphabet = []string{"a", "b", "*", "?", "[ab]", "[^a]", `\*`, "local."}

func drawGlob(t *rapid.T, name string) string {
	return strings.Join(rapid.SliceOfN(rapid.SampledFrom(globAlphabet), 1, 5).Draw(t, name), "")
}

func drawName(t *rapid.T) string {
	return strings.Join(rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "c", "*", "local."}), 0, 6).Draw(t, "file"), "")
}

// TestGlobs: without slashes the patterns are those of path.Match; two patterns that match one name meet. Proves HB-2.
func TestGlobs(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p, q, name := drawGlob(t, "p"), drawGlob(t, "q"), drawName(t)
		want, err := path.Match(p, name)
		if err != nil || globMatches(p, name) != want {
			t.Fatalf("%q matches %q: %v, want %v, %v", p, name, !want, want, err)
		}
		if globMatches(p, name) && globMatches(q, name) && !globsMeet(p, q) {
			t.Fatalf("%q and %q match %q, and do not meet", p, q, name)
		}
	})
	for _, c := range []struct {
		p, q string
		want bool
	}{{"*", "x", true}, {"a*", "b*", false}, {"a*", "*b", true}, {"a?", "a", false}, {"[ab]", "c", false}, {"orders*", "ord*s-1", true}, {"a*c", "a*d", false}} {
		if globsMeet(c.p, c.q) != c.want || globsMeet(c.q, c.p) != c.want {
			t.Errorf("%q and %q meet: %v", c.p, c.q, !c.want)
		}
	}
}

func drawSpec(t *rapid.T, name ident.GroupName) GroupSpec {
	s := GroupSpec{Name: name, Order: rapid.IntRange(0, 1).Draw(t, "order"), Files: []string{drawGlob(t, "pattern")}}
	if rapid.Bool().Draw(t, "takes all") {
		s.Files[0] = "*"
	}
	if rapid.Bool().Draw(t, "excludes") {
		s.Files = append(s.Files, excluding+drawGlob(t, "excluded"))
	}
	bound := rapid.SampledFrom([]KeyBound{"", "b", "d", "f", "\xff\x00"})
	if s.Keys = (KeyRange{From: bound.Draw(t, "from"), To: bound.Draw(t, "to")}); s.Keys.check() != nil {
		s.Keys = KeyRange{}
	}
	return s
}

// TestMeetMissesNothing: a record in two selections is always noticed, whatever it is called. Proves TR-7, HB-2.
func TestMeetMissesNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := drawSpec(t, "a"), drawSpec(t, "b")
		file, key := drawName(t), []byte(rapid.SampledFrom([]string{"a", "b", "c", "d", "e", "f", "\xff", "\xff\x00", "\xff\x01"}).Draw(t, "key"))
		if _, may := Meet(&a, &b); a.Selects(file, key) && b.Selects(file, key) && !may {
			t.Fatalf("%q of %q is in %v and %v", key, file, a, b)
		}
	})
}

// TestSelectionsMeet: usual selections do not keep each other from being created. Proves TR-7, HB-2.
func TestSelectionsMeet(t *testing.T) {
	for _, c := range []struct {
		a, b             string
		keysA, keysB     KeyRange
		meet, ambiguous2 bool
	}{
		{a: "*", b: "orders*", meet: true},
		{a: "*", b: "*", meet: true, ambiguous2: true},
		{a: "*", b: "system.*"},
		{a: "* !orders*", b: "orders*"},
		{a: "* !orders*", b: "orders-[0-9]"},
		{a: "* !orders", b: "orders*", meet: true},
		{a: "orders*", b: "orders-1", meet: true, ambiguous2: true},
		{a: "orders", b: "orders", keysA: KeyRange{To: "m"}, keysB: KeyRange{From: "m"}},
		{a: "orders", b: "orders", keysA: KeyRange{To: "n"}, keysB: KeyRange{From: "m"}, meet: true, ambiguous2: true},
		{a: "orders", b: "stock"},
	} {
		x := GroupSpec{Name: "x", Files: strings.Fields(c.a), Keys: c.keysA}
		y := GroupSpec{Name: "y", Files: strings.Fields(c.b), Keys: c.keysB}
		_, meet := Meet(&x, &y)
		_, ambiguous := Ambiguous(&x, &y)
		if meet != c.meet || ambiguous != c.ambiguous2 {
			t.Errorf("%s (%s) and %s (%s): meet %v, ambiguous %v", c.a, c.keysA, c.b, c.keysB, meet, ambiguous)
		}
	}
}

// TestKeyBounds: a bound survives its text, whatever its bytes. Proves TR-7.
func TestKeyBounds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		bound := KeyBound(rapid.OneOf(rapid.Custom(func(t *rapid.T) string { return string(rapid.SliceOf(rapid.Byte()).Draw(t, "bytes")) }), rapid.SampledFrom([]string{"hex:", "hex:zz", "m"})).Draw(t, "bound"))
		r := KeyRange{From: bound}
		raw, err := json.Marshal(r)
		var back KeyRange
		if err == nil {
			err = json.Unmarshal(raw, &back)
		}
		if err != nil || back != r {
			t.Fatalf("%q became %q by %s, %v", r, back, raw, err)
		}
	})
	for keys, want := range map[KeyRange]string{{From: "b", To: "a"}: "keys", {From: "a", To: "a"}: "keys", {From: KeyBound(strings.Repeat("x", maxBound+1))}: "keys", {From: "a", To: "b"}: ""} {
		err := GroupSpec{Name: "g", Keys: keys}.Normalize().Validate()
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v", keys, err)
		}
	}
	var b KeyBound
	if err := b.UnmarshalText([]byte("hex:0")); err == nil {
		t.Error("half a byte is taken")
	}
}

// TestOrder: groups start by order number, then by name; the group system is before all others unless it says otherwise. Proves IC-1.
func TestOrder(t *testing.T) {
	of := func(specs ...GroupSpec) (names []ident.GroupName) {
		s := &State{Groups: map[ident.GroupName]*Group{}}
		for _, x := range specs {
			s.Groups[x.Name] = &Group{Spec: x}
		}
		for _, g := range s.InOrder() {
			names = append(names, g.Spec.Name)
		}
		return names
	}
	for _, c := range []struct {
		specs []GroupSpec
		want  string
	}{
		{[]GroupSpec{{Name: "b"}, {Name: "a"}, {Name: "system"}}, "[system a b]"},
		{[]GroupSpec{{Name: "a", Order: -5}, {Name: "b", Order: -9}, {Name: "system"}}, "[system b a]"},
		{[]GroupSpec{{Name: "a", Order: 1}, {Name: "system", Order: 2}, {Name: "z", Order: 0}}, "[z a system]"},
	} {
		if got := of(c.specs...); len(got) != len(c.specs) || text(got) != c.want {
			t.Errorf("%v, want %s", got, c.want)
		}
	}
}

func text(names []ident.GroupName) string {
	var all []string
	for _, n := range names {
		all = append(all, string(n))
	}
	return "[" + strings.Join(all, " ") + "]"
}
