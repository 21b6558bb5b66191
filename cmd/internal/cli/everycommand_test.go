package cli

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/understudy-ha/understudy/client"
)

// spoken is how a command is called in the test of all commands.
type spoken struct {
	args string // behind the command; DIR is a directory with a configuration and a file
	code int    // when the node answers what it has
}

// everyCommand has a row for each command. Those that run a cluster or measure the machine are called so that they refuse.
var everyCommand = map[string]spoken{
	"understudy backout list":           {"default", 0},
	"understudy backout show":           {"default x1", 0},
	"understudy bench journal":          {"--dir DIR/none/none", exitPrecondition},
	"understudy bench switchover":       {"--rounds -1", exitUsage},
	"understudy cancel":                 {"default", 0},
	"understudy config validate":        {"DIR/node.yaml", 0},
	"understudy delete":                 {"orders k1", 0},
	"understudy demo":                   {"--nodes 1", exitUsage},
	"understudy dev":                    {"--nodes 0 --data DIR/dev", exitUsage},
	"understudy events":                 {"", 0},
	"understudy failover":               {"default --to b", 0},
	"understudy get":                    {"orders k1", 0},
	"understudy group create":           {"other --files other", 0},
	"understudy group delete":           {"default", 0},
	"understudy group list":             {"", 0},
	"understudy group readmit":          {"default c", 0},
	"understudy group set":              {"default delivery=async", 0},
	"understudy group show":             {"default", 0},
	"understudy history":                {"default", 0},
	"understudy journal archive list":   {"default", 0},
	"understudy journal archive verify": {"default --url file://DIR/archive", exitFailure},
	"understudy journal change":         {"default", 0},
	"understudy journal dump":           {"default", 0},
	"understudy journal entries":        {"default", 0},
	"understudy journal export":         {"default/a --data DIR/none --to DIR/out", exitFailure},
	"understudy journal holds":          {"default", 0},
	"understudy journal import":         {"DIR/none --data DIR/none", exitFailure},
	"understudy journal list":           {"default", 0},
	"understudy journal receive":        {"default --from 1", exitUsage},
	"understudy journal receivers":      {"default/a", 0},
	"understudy journal repair":         {"default/a", 0},
	"understudy journal restore":        {"--group default --from-data DIR/none --out DIR/new", exitPrecondition},
	"understudy journal restored":       {"DIR/none", exitFailure},
	"understudy journal save":           {"default/a 3 DIR/saved", 0},
	"understudy journal send":           {"default --type A1 --text hello", 0},
	"understudy journal size":           {"--message-bytes 200 --rate 500 --outage 8h", 0},
	"understudy journal start":          {"default --target c --from first", 0},
	"understudy journal verify":         {"default/a", 0},
	"understudy list":                   {"orders", 0},
	"understudy load":                   {"DIR/node.yaml", 0},
	"understudy maintenance":            {"b on --reason disk", 0},
	"understudy measure":                {"--nodes 1", exitUsage},
	"understudy operation show":         {"7", 0},
	"understudy operation wait":         {"7 --wait 100ms", 0},
	"understudy pause":                  {"--reason disk", 0},
	"understudy put":                    {"orders k1 v", 0},
	"understudy receipt":                {"default@4.42", 0},
	"understudy release":                {"--config DIR/node.yaml --wait 50ms", 0},
	"understudy resume":                 {"", 0},
	"understudy server":                 {"--config DIR/none.yaml", exitUsage},
	"understudy status":                 {"", 0},
	"understudy switchback":             {"default", 0},
	"understudy switchover":             {"default", 0},
	"understudy version":                {"", 0},
	"understudy why":                    {"default", 0},
}

// wordsOf fills a row's arguments in.
func wordsOf(t *testing.T, path string) (words []string, dir string) {
	t.Helper()
	dir = t.TempDir()
	text := "node: z\ncluster: test\ndata: " + filepath.Join(dir, "data") + "\nbootstrap: true\n"
	if err := os.WriteFile(filepath.Join(dir, "node.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return strings.Fields(strings.TrimPrefix(path, "understudy ") + " " + strings.ReplaceAll(everyCommand[path].args, "DIR", dir)), dir
}

// wantJSON holds what a command printed to be values of JSON, one behind the other, and returns how many.
func wantJSON(t *testing.T, where, text string) (n int) {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(text))
	for {
		var v any
		err := d.Decode(&v)
		if errors.Is(err, io.EOF) {
			return n
		}
		if err != nil {
			t.Errorf("%s is no JSON: %v\n%s", where, err, text)
			return n
		}
		n++
	}
}

// Proves that a program can read every command: with -o json it prints JSON and nothing else, to standard output and to standard error;
// what fails, on the way or on the command line, is an object with error and exit. A new command needs a row in the table.
func TestEveryCommandSpeaksJSON(t *testing.T) {
	url := fakeNode(t, everyRoute(t))
	busy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		problem(w, &client.Error{Code: client.CodePrecondition, Detail: "not now", Remedy: "later"})
	}))
	t.Cleanup(busy.Close)
	offline := map[string]bool{"version": true, "size": true, "validate": true, "release": true} // what asks no node succeeds without one
	seen := map[string]bool{}
	for _, c := range leaves(newRoot(&app{})) {
		path := c.CommandPath()
		seen[path] = true
		row, ok := everyCommand[path]
		if !ok {
			t.Errorf("%s has no row", path)
			continue
		}
		t.Run(strings.ReplaceAll(strings.TrimPrefix(path, "understudy "), " ", "-"), func(t *testing.T) {
			for name, addr := range map[string]string{"answered": url, "refused": busy.URL} {
				words, _ := wordsOf(t, path)
				code, out, errOut := run(t, addr, append(words, "-o", "json")...)
				printed, told := wantJSON(t, name+": standard output", out), wantJSON(t, name+": standard error", errOut)
				switch {
				case name == "answered" && code != row.code:
					t.Errorf("answered: exit code %d, want %d\n%s%s", code, row.code, out, errOut)
				case name != "answered" && code == 0 && !offline[c.Name()]:
					t.Errorf("%s: exit code 0\n%s", name, out)
				}
				if code == 0 && told > 0 || code != 0 && printed+told == 0 {
					t.Errorf("%s: exit code %d with\n%s\nand told\n%s", name, code, out, errOut)
				}
				wantErrorObject(t, name, code, printed, errOut)
			}
			words, _ := wordsOf(t, path)
			for name, wrong := range map[string][]string{
				"an unknown flag first": append(append([]string{}, words...), "--bogus", "-o", "json"),
				"an unknown flag last":  append(append([]string{}, words...), "--output=json", "--bogus"),
				"arguments too many":    append(append([]string{}, words...), "-o", "json", "one", "two", "three", "four"),
			} {
				if path == "understudy group set" && name == "arguments too many" {
					continue // it takes any number
				}
				code, out, errOut := run(t, url, wrong...)
				if code != exitUsage || out != "" {
					t.Errorf("%s: exit code %d, printed %q", name, code, out)
				}
				wantJSON(t, name, errOut)
				wantErrorObject(t, name, code, 0, errOut)
			}
		})
	}
	for path := range everyCommand {
		if !seen[path] {
			t.Errorf("there is no command %q any more", path)
		}
	}
}

// wantErrorObject looks for the object that says how a command failed. One that has printed its result may leave it out.
func wantErrorObject(t *testing.T, name string, code, printed int, errOut string) {
	t.Helper()
	if code == 0 || printed > 0 && errOut == "" {
		return
	}
	var last struct {
		Error string `json:"error"`
		Exit  int    `json:"exit"`
	}
	for d := json.NewDecoder(strings.NewReader(errOut)); d.More(); {
		if err := d.Decode(&last); err != nil {
			return // told already
		}
	}
	if last.Error == "" || last.Exit != code {
		t.Errorf("%s: exit code %d, told %s", name, code, errOut)
	}
}

// everyRoute is what a node that does everything answers.
func everyRoute(t *testing.T) map[string]any {
	t.Helper()
	list := func(v ...any) map[string]any { return map[string]any{"items": append([]any{}, v...)} }
	key := client.MakeKey([]byte("k1"))
	op := someOperation(client.OperationDone, true)
	g := someStatus().Groups[0]
	routes := map[string]any{
		"GET /v1/status":                     someStatus(),
		"GET /v1/groups":                     list(g),
		"POST /v1/groups":                    map[string]any{},
		"GET /v1/groups/default":             g,
		"DELETE /v1/groups/default":          client.GroupDeletion{Group: "default", Deleted: true, Blockers: []client.DeletionBlocker{}},
		"PATCH /v1/groups/default":           client.GroupChange{Group: "default", Changed: []string{"delivery"}},
		"GET /v1/groups/default/why":         client.Readiness{Group: "default", Ready: true},
		"GET /v1/groups/default/history":     list(client.Certificate{Kind: "create", Epoch: 1}),
		"GET /v1/groups/default/holds":       list(client.Hold{Name: "billing"}),
		"GET /v1/groups/default/journals":    list(client.Journal{ID: "default/a"}),
		"GET /v1/groups/default/backouts":    list(client.Backout{ID: "x1"}),
		"GET /v1/groups/default/backouts/x1": client.Backout{ID: "x1"},
		"GET /v1/groups/default/archive":     client.ArchivePage{URL: "file:///archive"},
		"GET /v1/groups/default/entries":     list(),
		"GET /v1/operations/7":               op,
		"GET /v1/events":                     list(client.Event{ID: 1, Kind: "OPENED"}),
		"GET /v1/receipts/default@4.42":      client.Receipt{Position: "default@4.42", Outcome: client.OutcomeDone},
		"PUT /v1/pause":                      client.Order{Reason: "disk"},
		"DELETE /v1/pause":                   map[string]any{},
		"PUT /v1/nodes/b/maintenance":        client.Order{Reason: "disk"},

		"POST /v1/groups/default/switchover":      op,
		"DELETE /v1/groups/default/switchover":    map[string]any{},
		"POST /v1/groups/default/switchback":      op,
		"POST /v1/groups/default/failover":        op,
		"POST /v1/groups/default/nodes/c/readmit": client.Readmission{Group: "default", Node: "c"},

		"GET /v1/groups/default/journals/a/receivers":            list(client.Receiver{Journal: "default/a", Number: 3}),
		"GET /v1/groups/default/journals/a/receivers/3/content":  "bytes",
		"GET /v1/groups/default/journals/local/entries":          list(client.Entry{Sequence: 42, Position: "default@4.42", Code: "R", Type: "UP", File: "orders", Key: key}),
		"POST /v1/groups/default/journals/local/entries":         client.WriteResult{Position: "default@4.43"},
		"POST /v1/groups/default/journals/local/change-receiver": client.Receiver{Journal: "default/a", Number: 4},
		"POST /v1/groups/default/journals/a/start":               client.CopyStart{Journal: "default/a", Target: "c"},
		"POST /v1/groups/default/journals/a/verify":              client.Verification{Journal: "default/a", OK: true},
		"POST /v1/groups/default/journals/a/repair":              client.Repair{Journal: "default/a", OK: true},

		"GET /v1/files/orders/records":            client.RecordPage{Records: []client.Record{{Key: key, Position: "default@4.43"}}},
		"GET /v1/files/orders/records/k1":         "three apples",
		"PUT /v1/files/orders/records/k1":         client.WriteResult{Position: "default@4.43"},
		"DELETE /v1/files/orders/records/k1":      client.WriteResult{Position: "default@4.44"},
		"PUT /v1/files/default/records/node.yaml": client.WriteResult{Position: "default@4.45"},
	}
	nodes := someStatus().Nodes[:1]
	self := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if answer, ok := routes[r.Method+" "+r.URL.Path]; ok {
			_ = json.NewEncoder(w).Encode(answer)
			return
		}
		problem(w, &client.Error{Code: client.CodeUnknownPath})
	}))
	t.Cleanup(self.Close)
	nodes[0].HTTP = self.URL
	routes["GET /v1/nodes"] = list(nodes[0])
	return routes
}
