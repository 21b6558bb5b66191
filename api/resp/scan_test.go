package resp

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// fill puts records of one file.
func (w *world) fill(file string, keys ...string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	g := w.groups[groupOfFile(file)]
	if g.files[file] == nil {
		g.files[file] = map[string]Record{}
	}
	for _, k := range keys {
		g.files[file][k] = Record{Value: []byte("v")}
	}
}

// scanAll scans to the end, each step on the next of the clients, and counts how often each name came.
func scanAll(t testing.TB, between func(), clients []*wireClient, options ...string) map[string]int {
	t.Helper()
	seen, cursor := map[string]int{}, "0"
	for i := 0; ; i++ {
		if i > 10_000 {
			t.Fatal("the scan does not end")
		}
		got := clients[i%len(clients)].do(append([]string{"SCAN", cursor}, options...)...)
		if strings.HasPrefix(got, "-") {
			t.Fatalf("SCAN %s: %s", cursor, got)
		}
		next, names, _ := strings.Cut(strings.TrimPrefix(got, "["), " ")
		for _, n := range strings.Fields(strings.Trim(names, "[]")) {
			seen[n]++
		}
		if cursor = next; cursor == "0" {
			return seen
		}
		between()
	}
}

// Proves BX-5: a scan over files of groups with different primaries finds everything, also when each step is asked of another node and the
// primary changes between steps; a cursor's key that is deleted costs nothing but repetition.
func TestScanSurvivesChanges(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := newWorld(t, 3, func(o *Options) { o.Limits.Linger = time.Millisecond })
		defer func() {
			for _, n := range w.nodes {
				n.stop()
			}
		}()
		want := map[string]bool{}
		for _, file := range []string{"default", "orders", "items", "over"} {
			n := rapid.IntRange(0, 60).Draw(rt, file)
			for i := range n {
				key := fmt.Sprintf("%s%d", rapid.SampledFrom([]string{"", "k", "customer-", "\xff\xfe"}).Draw(rt, "prefix"), i)
				w.fill(file, key)
				want[string(nameOf(file, []byte(key)))] = true
			}
		}
		w.fill("default", "gone1", "gone2", "customer-gone")
		clients := []*wireClient{w.nodes[0].dial(t), w.nodes[1].dial(t), w.nodes[2].dial(t)}
		steps := 0
		seen := scanAll(t, func() {
			steps++
			if rapid.IntRange(0, 3).Draw(rt, "move") == 0 {
				w.move("default", w.nodes[steps%3].id, false)
			}
			if steps == 3 {
				for _, k := range []string{"gone1", "gone2", "customer-gone"} {
					clients[0].do("DEL", k)
				}
			}
		}, clients, "COUNT", itoa(rapid.IntRange(1, 20).Draw(rt, "count")))
		for name := range want {
			if seen[name] == 0 {
				rt.Fatalf("%q was not found", name)
			}
		}
	})
}

// Proves BX-5: without changes each name comes once, and what MATCH and TYPE leave out does not come.
func TestScanOnce(t *testing.T) {
	w := newWorld(t, 1)
	for i := range 500 {
		w.fill("default", fmt.Sprintf("key:%d", i), fmt.Sprintf("plain%d", i))
	}
	c := w.nodes[0].dial(t)
	c.do("HSET", "hash", "f", "v")
	clients := []*wireClient{c}
	none := func() {}
	for name, n := range scanAll(t, none, clients, "COUNT", "7") {
		if n != 1 {
			t.Errorf("%s came %d times", name, n)
		}
	}
	if n := len(scanAll(t, none, clients)); n != 1001 {
		t.Errorf("%d names", n)
	}
	if got := scanAll(t, none, clients, "TYPE", "hash"); len(got) != 1 || got["hash"] != 1 {
		t.Errorf("hashes: %v", got)
	}
	if n := len(scanAll(t, none, clients, "MATCH", "default:key:4?")); n != 10 {
		t.Errorf("%d names match", n)
	}
	if got := c.do("DBSIZE"); got != ":1001" {
		t.Errorf("DBSIZE: %s", got)
	}
	if got := strings.Fields(c.do("KEYS", "plain*")); len(got) != 500 {
		t.Errorf("KEYS: %d", len(got))
	}
}

// Proves BX-5: KEYS is bounded.
func TestKeysIsBounded(t *testing.T) {
	w := newWorld(t, 1, func(o *Options) { o.Limits.Keys = 2000 })
	for i := range 5000 {
		w.fill("default", fmt.Sprint(i))
	}
	if got := w.nodes[0].dial(t).do("KEYS", "*"); !strings.HasPrefix(got, "-ERR there are too many keys") {
		t.Errorf("KEYS: %.100s", got)
	}
}

// Proves BX-5: a cursor that stands for two keys is not given for the second while the first is remembered.
func TestCursorsStandAlone(t *testing.T) {
	c := &cursors{}
	f := file{name: "default", code: fileCode("default")}
	first, alone := c.after(f, Bound{Key: []byte("a"), After: true})
	if !alone || first>>63 != 0 {
		t.Fatalf("%d %v", first, alone)
	}
	c.keys[first] = Key{File: "default", Key: []byte("twin")}
	if _, alone := c.after(f, Bound{Key: []byte("a"), After: true}); alone {
		t.Fatal("a cursor was given for two keys")
	}
	for i := range 10 * maxCursors {
		c.after(f, Bound{Key: []byte(fmt.Sprint(i)), After: true})
	}
	if len(c.keys) > maxCursors {
		t.Errorf("%d cursors are remembered", len(c.keys))
	}
}

// Proves BX-5: patterns are those of Redis, and none takes long.
func TestPatterns(t *testing.T) {
	for _, tc := range []struct {
		pattern, name string
		want          bool
	}{
		{"*", "", true}, {"", "", true}, {"", "a", false}, {"a*c", "abbc", true}, {"a*c", "abbd", false}, {"a?c", "abc", true}, {"a?c", "ac", false},
		{"[abc]", "b", true}, {"[^abc]", "b", false}, {"[a-c]x", "bx", true}, {"[c-a]x", "bx", true}, {`\*`, "*", true}, {`\*`, "a", false},
		{`[\]]`, "]", true}, {"h[^e]llo", "hallo", true}, {"h*llo*", "heeeello!", true}, {"[a", "a", true}, {"[", "[", false}, {`\`, `\`, true},
		{strings.Repeat("a*", 2000) + "b", strings.Repeat("a", 4000), false},
	} {
		if got := matches([]byte(tc.pattern), []byte(tc.name)); got != tc.want {
			t.Errorf("%.20q and %.20q: %v", tc.pattern, tc.name, got)
		}
	}
}

// Proves BX-5: a node whose copy lacks a file, because it is behind, leaves none of its records out.
func TestScanAtACopyThatIsBehind(t *testing.T) {
	behind := false // the second node has no files
	w := newWorld(t, 2, func(o *Options) {
		if o.Node == "b" {
			o.Store = withoutFiles{o.Store, &behind}
		}
	})
	w.move("other", "a", false)
	c := w.nodes[1].dial(t)
	for i := range 20 {
		c.do("SET", "p:"+itoa(i), "v")
	}
	behind = true
	seen := map[string]bool{}
	for cursor := "0"; ; {
		c.send(frame("SCAN", cursor, "COUNT", "7"))
		r, err := readReply(c.in, 1<<20)
		page, is := r.(array)
		if err != nil || !is {
			t.Fatalf("%v, %v", r, err)
		}
		for _, n := range page[1].(array) {
			seen[string(n.(bulk))] = true
		}
		if cursor = string(page[0].(bulk)); cursor == "0" {
			break
		}
	}
	if len(seen) != 20 {
		t.Errorf("SCAN finds %d of 20", len(seen))
	}
}

// Proves BX-5, TR-7: with several primaries a scan finds every file that was there when it began, at every node: one whose copies lack them,
// also when files of two primaries have the same code, and when a file appears in the middle.
func TestScanOfSeveralPrimaries(t *testing.T) {
	w := newWorld(t, 3, func(o *Options) { o.Store = withoutFiles{o.Store, new(true)} })
	byCode := map[uint64]string{}
	var first, second string // of one code, the first one a's, the second b's
	for i := 0; first == ""; i++ {
		for _, name := range []string{fmt.Sprint("n", i), fmt.Sprint("o", i)} {
			if twin := byCode[fileCode(name)]; twin != "" && groupOfFile(twin) != groupOfFile(name) {
				first, second = min(twin, name), max(twin, name)
				break
			}
			byCode[fileCode(name)] = name
		}
	}
	want := 0
	for _, file := range []string{first, second, "orders", "items", "over", "default"} {
		for i := range 23 {
			w.fill(file, fmt.Sprint("k", i))
			want++
		}
	}
	for _, n := range w.nodes {
		clients := []*wireClient{n.dial(t)}
		for _, count := range []string{"1", "5", "23", "1000"} {
			if seen := scanAll(t, func() {}, clients, "COUNT", count); len(seen) != want {
				t.Errorf("node %s, COUNT %s: %d of %d names", n.id, count, len(seen), want)
			}
		}
		if seen := scanAll(t, func() {}, clients, "MATCH", "*:k7"); len(seen) != 5 {
			t.Errorf("node %s: %d names match, want 5: %v", n.id, len(seen), seen)
		}
		if got := strings.Fields(clients[0].do("KEYS", "*")); len(got) != want {
			t.Errorf("node %s: KEYS finds %d of %d", n.id, len(got), want)
		}
	}
	everywhere := []*wireClient{w.nodes[0].dial(t), w.nodes[1].dial(t), w.nodes[2].dial(t)}
	steps := 0
	seen := scanAll(t, func() {
		if steps++; steps%4 == 0 {
			w.fill(fmt.Sprint("late", steps), "k")
		}
	}, everywhere, "COUNT", "3")
	for _, file := range []string{first, second, "orders", "items", "over"} {
		for i := range 23 {
			if name := fmt.Sprintf("%s:k%d", file, i); seen[name] == 0 {
				t.Errorf("%s was not found while files appeared", name)
			}
		}
	}
}

// Proves BX-5: a scan that cannot ask a primary for its files says so instead of leaving them out.
func TestScanWithoutAPrimary(t *testing.T) {
	w := newWorld(t, 3, func(o *Options) { o.Limits.Wait = 50 * time.Millisecond })
	w.fill("default", "k")
	w.move("other", "", false)
	for _, n := range w.nodes {
		if got := n.dial(t).do("SCAN", "0"); !strings.HasPrefix(got, "-TRYAGAIN") {
			t.Errorf("node %s: %s", n.id, got)
		}
	}
	if c := w.nodes[1].dial(t); c.do("READONLY") != "OK" || c.do("SCAN", "0") != "[0 [k]]" {
		t.Error("a client that reads copies is answered from one")
	}
}

type withoutFiles struct {
	Store
	behind *bool
}

func (s withoutFiles) Files(ctx context.Context, group string, local bool) ([]string, error) {
	if *s.behind && local {
		return nil, nil
	}
	return s.Store.Files(ctx, group, local)
}

// Proves BX-5 and TR-7: files of different primaries that stand between each other are gone through also where nothing of them is wanted, at every node.
func TestScanOfFewKeysAmongManyPrimaries(t *testing.T) {
	w := newWorld(t, 3, func(o *Options) { o.Limits.Wait = time.Second })
	for i := range 120 {
		w.fill(fmt.Sprint("f", i), "k")
		w.fill(fmt.Sprint("o", i), "k")
	}
	w.fill("own", "one")
	if fileCode("f29") != fileCode("o1") { // of two primaries, and neither can look behind its own
		t.Fatal("choose two other files that share a code")
	}
	twins := 0
	for i := range 25 {
		w.fill("f29", "k", fmt.Sprint("x", i))
		w.fill("o1", "k", fmt.Sprint("x", i))
		twins += 2
	}
	var clients []*wireClient
	for _, n := range w.nodes {
		clients = append(clients, n.dial(t))
	}
	if got := scanAll(t, func() {}, clients, "COUNT", "7"); len(got) != 241+twins {
		t.Errorf("each step at another node: %d names", len(got))
	}
	for i, n := range w.nodes {
		c := clients[i]
		for pattern, want := range map[string]int{"own:*": 1, "o7:*": 1, "f7:*": 1, "none:*": 0, "o1:x*": twins / 2, "*": 241 + twins} {
			if got := c.do("KEYS", pattern); len(strings.Fields(strings.Trim(got, "[]"))) != want || strings.HasPrefix(got, "-") {
				t.Errorf("KEYS %s at %s: %.200s", pattern, n.id, got)
			}
			if got := scanAll(t, func() {}, []*wireClient{c}, "MATCH", pattern); len(got) != want {
				t.Errorf("SCAN MATCH %s at %s finds %d names, want %d", pattern, n.id, len(got), want)
			}
		}
	}
}
