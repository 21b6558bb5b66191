package resp

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"
)

// Proves BX-5, TR-7: what another node answers to a scan is believed only when it is an answer: names that are none, keys that do not go up and
// a list that is none would leave records out, or the scan would not end.
func TestAnswersToAScan(t *testing.T) {
	for name, c := range map[string]struct {
		r     reply
		valid bool
	}{
		"nothing":           {array{}, false},
		"no list":           {bulk("x"), false},
		"a null":            {null{}, false},
		"no code":           {array{bulk("x")}, false},
		"no files":          {array{integer(0)}, true},
		"files":             {array{integer(0), bulk("x"), bulk("y")}, true},
		"more to come":      {array{integer(6), bulk("x")}, true},
		"back to the start": {array{integer(5), bulk("x")}, false},
		"a negative code":   {array{integer(-1), bulk("x")}, false},
		"a code too high":   {array{integer(lastCode + 1), bulk("x")}, false},
		"no name":           {array{integer(0), bulk("")}, false},
		"a number":          {array{integer(0), integer(1)}, false},
	} {
		if _, _, err := filesOf(c.r, 5); (err == nil) != c.valid {
			t.Errorf("files, %s: %v", name, err)
		}
	}
	for name, c := range map[string]struct {
		r     reply
		valid bool
	}{
		"nothing":          {array{}, false},
		"no list":          {failure("ERR"), false},
		"an end":           {array{integer(1)}, true},
		"keys":             {array{integer(0), bulk("n"), integer(0), bulk("o"), integer(1)}, true},
		"half a record":    {array{integer(0), bulk("n")}, false},
		"no flag":          {array{bulk("0"), bulk("n"), integer(0)}, false},
		"no key":           {array{integer(0), null{}, integer(0)}, false},
		"no kind":          {array{integer(0), bulk("n"), bulk("0")}, false},
		"the key again":    {array{integer(0), bulk("m"), integer(0)}, false},
		"a key before":     {array{integer(0), bulk("a"), integer(0)}, false},
		"keys not in line": {array{integer(0), bulk("o"), integer(0), bulk("n"), integer(0)}, false},
	} {
		if _, _, err := pageOf(c.r, Bound{Key: []byte("m"), After: true}); (err == nil) != c.valid {
			t.Errorf("page, %s: %v", name, err)
		}
	}
	if page, _, err := pageOf(array{integer(0), bulk("m"), integer(0)}, Bound{Key: []byte("m")}); err != nil || len(page) != 1 {
		t.Errorf("the first key there may be: %v", err)
	}
}

// Proves BX-5, TR-7: however many files there are, a node is told of some at a time, and a scan finds them all, also behind a whole window
// in which there is nothing any more.
func TestScanOfManyFiles(t *testing.T) {
	const most = 20
	w := newWorld(t, 3, func(o *Options) { o.Limits.Files = most })
	const files = 15 * most
	last := ""
	for i := range files {
		name := fmt.Sprint("f", i)
		w.fill(name, "k")
		w.fill(fmt.Sprint("o", i), "k")
		if last == "" || fileCode(name) > fileCode(last) {
			last = name
		}
	}
	w.move("default", "b", false)
	w.move("other", "c", false)
	var clients []*wireClient
	for _, n := range w.nodes {
		clients = append(clients, n.dial(t))
	}
	for _, count := range []string{"3", "10000"} {
		if got := scanAll(t, func() {}, clients, "COUNT", count); len(got) != 2*files {
			t.Errorf("COUNT %s: %d of %d names", count, len(got), 2*files)
		}
	}
	peer := w.nodes[1].dial(t)
	peer.do("UNDERSTUDY", "RELAY", "1000")
	peer.send(frame("UNDERSTUDY", "FILES", "0", "default"))
	r, err := readReply(peer.in, 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	if names, next, err := filesOf(r, 0); err != nil || next == 0 || len(names) > most || len(names) < most/2 {
		t.Errorf("%d names at once, the others from %d: %v", len(names), next, err)
	}
	w.mu.Lock()
	for _, g := range w.groups {
		for name, records := range g.files {
			if name != last {
				records["k"] = Record{Expiry: 1}
			}
		}
	}
	w.mu.Unlock()
	for range 2 {
		if got := scanAll(t, func() {}, clients); len(got) != 1 || got[last+":k"] != 1 {
			t.Errorf("one name behind many files that have none: %v", got)
		}
		w.mu.Lock()
		clear(w.groups["other"].files) // then there is one list only, which is cut already
		w.mu.Unlock()
	}
}

// Proves BX-5: a window never ends within a code, so that a scan goes on behind it, and there is nothing behind the last code.
func TestWindowOfOneCode(t *testing.T) {
	const most = 3
	named := func(code uint64, n int) (names []string) {
		for i := 0; len(names) < n; i++ {
			if name := fmt.Sprint(i); fileCode(name) == code {
				names = append(names, name)
			}
		}
		return names
	}
	names := append(named(9, most+1), named(10, 1)...)
	files, next := window(names, 0, most)
	if len(files) != most+1 || next != 10 {
		t.Errorf("%d files, the next code is %d", len(files), next)
	}
	if files, next = window(names, next, most); len(files) != 1 || next != 0 {
		t.Errorf("then %d files, the next code is %d", len(files), next)
	}
	if files, next = window(named(lastCode, most+2), 0, most); len(files) != most+2 || next != 0 {
		t.Errorf("%d files of the last code, the next code is %d", len(files), next)
	}
}

// Proves BX-5: two files that a cursor cannot tell apart at their beginnings do not make a scan go round in circles, and none is left out.
func TestScanOfFilesWithOneMark(t *testing.T) {
	seen := map[[2]uint64]string{}
	var one, two string
	for i := 0; one == ""; i++ {
		name := fmt.Sprint("f", i)
		id := [2]uint64{fileCode(name), fileMark(name)}
		if twin := seen[id]; twin != "" {
			one, two = twin, name
		}
		seen[id] = name
	}
	w := newWorld(t, 2)
	w.fill(one, "a", "b", "c")
	w.fill(two, "a", "b", "c")
	w.fill("other", "k")
	for _, count := range []string{"1", "2", "3", "4"} {
		if got := scanAll(t, func() {}, []*wireClient{w.nodes[1].dial(t)}, "COUNT", count); len(got) != 7 {
			t.Errorf("COUNT %s: %v", count, got)
		}
	}
}

// Proves HB-2, TR-7: what nodes ask each other for a scan is for nodes, and what is local to a node is told to no other one.
func TestFilesAreForNodes(t *testing.T) {
	w := newWorld(t, 1, func(o *Options) { o.Local = "default" })
	w.fill("f", "k")
	w.fill("o", "k")
	c := w.nodes[0].dial(t)
	for _, words := range [][]string{{"UNDERSTUDY", "FILES", "0", "other"}, {"UNDERSTUDY", "PAGE", "o", "", "0", "10"}} {
		if got := c.do(words...); !strings.HasPrefix(got, "-ERR unknown subcommand") {
			t.Errorf("a client is told: %s", got)
		}
	}
	c.do("UNDERSTUDY", "RELAY", "1000")
	for words, want := range map[string]string{
		"FILES 0 other": "[:0 o]", "FILES 0 default": "-ELSEWHERE ", "FILES 0 other default": "-ELSEWHERE ", "FILES x other": "-" + string(errNotInteger),
		"PAGE o  0 10": "[:1 k :0]", "PAGE f  0 10": "-ELSEWHERE ",
	} {
		if got := c.do(append([]string{"UNDERSTUDY"}, strings.Split(words, " ")...)...); got != want {
			t.Errorf("%s: %s, want %s", words, got, want)
		}
	}
}

// lateStore answers for one file when half of the time for the command is over.
type lateStore struct {
	Store
	late string
}

func (s lateStore) Scan(ctx context.Context, file string, from Bound, limit int, local bool) ([]Scanned, bool, error) {
	if end, limited := ctx.Deadline(); limited && file == s.late {
		time.Sleep(time.Until(end)/2 + 10*time.Millisecond)
	}
	return s.Store.Scan(ctx, file, from, limit, local)
}

// Proves BX-5, TR-7: a step that takes long says how far it came instead of trying again from its beginning, though it has found nothing.
func TestScanThatTakesLong(t *testing.T) {
	files, _ := window([]string{"f1", "f2", "f3"}, 0, 3)
	w := newWorld(t, 1, func(o *Options) {
		o.Limits.Wait = 2 * time.Second
		o.Store = lateStore{o.Store, files[1].name}
	})
	for _, f := range files {
		w.fill(f.name, "k")
	}
	c := w.nodes[0].dial(t)
	got := c.do("SCAN", "0", "MATCH", "none")
	cursor, names, _ := strings.Cut(strings.TrimPrefix(got, "["), " ")
	code, _, _ := splitCursor(mustCursor(t, cursor))
	if names != "[]]" || code != files[2].code {
		t.Errorf("a step that takes long: %s", got)
	}
	if got := c.do("SCAN", cursor, "MATCH", "none"); got != "[0 []]" {
		t.Errorf("the next step: %s", got)
	}
}

func mustCursor(t *testing.T, text string) uint64 {
	t.Helper()
	c, valid := cursorOf([]byte(text))
	if !valid {
		t.Fatalf("%q is no cursor", text)
	}
	return c
}
