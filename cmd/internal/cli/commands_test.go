package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/understudy-ha/understudy/client"
)

// fakeNode answers as a node would, from a table of routes: "METHOD /path" to what is answered.
func fakeNode(t *testing.T, routes map[string]any) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer, ok := routes[r.Method+" "+r.URL.Path]
		if !ok {
			answer = &client.Error{Code: client.CodeUnknownPath, Detail: r.Method + " " + r.URL.Path}
		}
		status := http.StatusOK
		if e, bad := answer.(*client.Error); bad {
			status = e.Code.Status()
			e.Status = status
			w.Header().Set("Content-Type", "application/problem+json")
		}
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(answer)
	}))
	t.Cleanup(s.Close)
	return s.URL
}

// run runs one command line against a fake node.
func run(t *testing.T, url string, args ...string) (code int, out, errOut string) {
	t.Helper()
	var o, e bytes.Buffer
	code = Main(append(args, "--addr", url), strings.NewReader("from standard input"), &o, &e)
	return code, o.String(), e.String()
}

func wantRun(t *testing.T, url string, want int, holds []string, args ...string) {
	t.Helper()
	code, out, errOut := run(t, url, args...)
	if code != want {
		t.Errorf("%v: exit code %d, want %d\n%s%s", args, code, want, out, errOut)
	}
	for _, h := range holds {
		if !strings.Contains(out+errOut, h) && !strings.Contains(strings.Join(strings.Fields(out+errOut), " "), h) { // prose is broken into lines
			t.Errorf("%v: the output lacks %q:\n%s%s", args, h, out, errOut)
		}
	}
}

func someStatus() client.Status {
	return client.Status{
		Node: "b", Cluster: "dev", RaftLeader: "a",
		Nodes: []client.NodeStatus{
			{ID: "a", Kind: "data", State: "alive", Lease: "held", HTTP: "127.0.0.1:7400"},
			{ID: "b", Kind: "data", State: "alive", Lease: "held", HTTP: "127.0.0.1:7410"},
			{ID: "c", Kind: "data", State: "alive", Lease: "held", HTTP: "127.0.0.1:7420"},
		},
		Groups: []client.GroupStatus{{
			Name: "default", Spec: client.GroupSpec{Secondaries: 1, Preferred: "a"}, Phase: "opened", Primary: "a", Epoch: 3, InSync: []string{"b"},
			Roles:    map[string]string{"a": "primary", "b": "secondary", "c": "standby"},
			Position: "default@3.12345", Sequence: 12345, Confirmed: 12345, Committed: 12345, Applied: 12345,
			Targets: []client.Target{
				{Node: "c", State: "async", Received: 12000, Durable: 12000, Applied: 11000, LagEntries: 345, LagBytes: 65536, LagSeconds: 0.25},
				{Node: "b", State: "sync", Received: 12345, Durable: 12345, Applied: 12345},
			},
		}},
	}
}

func TestStatusOutput(t *testing.T) {
	st := someStatus()
	_, out, _ := run(t, fakeNode(t, map[string]any{"GET /v1/status": st}), "status")
	want := `Cluster dev: 3 nodes, Raft leader a, as node b sees it
All is well.

NODE  STATE  LEASE  KIND  HTTP
a     alive  held   data  127.0.0.1:7400
b     alive  held   data  127.0.0.1:7410
c     alive  held   data  127.0.0.1:7420

Group default: primary a, in sync b, epoch 3, opened
  NODE  ROLE       STATE  RECEIVED  DURABLE  APPLIED                  LAG  BEHIND
  a     primary    -        12,345   12,345   12,345                    -       -
  b     secondary  sync     12,345   12,345   12,345                 none     0 s
  c     standby    async    12,000   12,000   11,000  345 entries, 64 KiB  250 ms
  position default@3.12345; deposited 12,345, confirmed 12,345, committed 12,345
`
	if out != want {
		t.Errorf("got\n%s\nwant\n%s", out, want)
	}
}

func TestStatusNamesWhatIsWrong(t *testing.T) {
	st := someStatus()
	st.RaftLeader = ""
	st.Nodes[2].State = "dead"
	g := &st.Groups[0]
	g.InSync, g.Phase, g.Stale, g.Held = nil, "fenced", true, 3
	g.Targets[0].State, g.Targets[0].Error = "connecting", "connection refused"
	g.Targets[1].LagEntries, g.Targets[1].LagBytes = 1, 100
	g.Resync = &client.Resync{Node: "c", Phase: "catchup", Percent: 41.7, At: "default@3.10", To: "default@3.24", Rate: 1234, ETA: 2.5}
	wantRun(t, fakeNode(t, map[string]any{"GET /v1/status": st}), 0, []string{
		"1 entry, 100 B", "last known", "ATTENTION: node b knows no Raft leader", "ATTENTION: node c is dead", "a failover runs", "no in-sync secondary (1 wanted)",
		"c receives nothing: connection refused", "3 writes are held", "the primary could not be asked",
		"resync of c: catchup 42 %, at default@3.10 of default@3.24, 1,234 entries/s, 2.50 s left",
	}, "status")
}

// Proves TR-7: who finds writes waiting sees that their group is being deleted.
func TestStatusOfAClosingGroup(t *testing.T) {
	st := someStatus()
	st.Groups[0].Closing = true
	_, out, _ := run(t, fakeNode(t, map[string]any{"GET /v1/status": st}), "status")
	if text := strings.Join(strings.Fields(out), " "); !strings.Contains(text, "ATTENTION: group default: it is being deleted: its writes wait until a has said whether it holds records") {
		t.Errorf("%s", out)
	}
}

// What is wrong in several groups alike is said once, and names them.
func TestStatusSaysOnceWhatGroupsShare(t *testing.T) {
	st := someStatus()
	st.Groups[0].Targets[0].State, st.Groups[0].Targets[0].Error = "connecting", "connection refused"
	other := st.Groups[0]
	other.Name, other.Held = "orders", 3
	st.Groups = append(st.Groups, other)
	_, out, _ := run(t, fakeNode(t, map[string]any{"GET /v1/status": st}), "status")
	for _, want := range []string{"ATTENTION: groups default, orders: c receives nothing: connection refused\n", "ATTENTION: group orders: 3 writes are held\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("the output lacks %q:\n%s", want, out)
		}
	}
	if n := strings.Count(out, "receives nothing"); n != 1 {
		t.Errorf("it is said %d times:\n%s", n, out)
	}
}

func TestStatusOfOneGroup(t *testing.T) {
	url := fakeNode(t, map[string]any{
		"GET /v1/groups/default": someStatus().Groups[0],
		"GET /v1/groups/other":   &client.Error{Code: client.CodeUnknownGroup, Detail: "there is no group other", Remedy: "the groups are: default"},
	})
	wantRun(t, url, 0, []string{"All is well.", "primary a"}, "status", "default")
	wantRun(t, url, 0, []string{`"primary": "a"`}, "status", "default", "-o", "json")
	wantRun(t, url, exitPrecondition, []string{"understudy: there is no group other\n  code:    unknown_group\n  remedy:  the groups are: default"}, "status", "other")
}

func someOperation(state string, committed bool) client.Operation {
	at := time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)
	o := client.Operation{
		ID: 7, Kind: "switchover", Group: "default", From: "a", To: "b", State: state, Step: "open", Committed: committed, Started: at,
		Steps: []client.Step{
			{Name: "prepare", At: at, Node: "b", Detail: "no lag"},
			{Name: "hold", At: at.Add(8 * time.Millisecond), Node: "a"},
			{Name: "open", At: at.Add(20 * time.Millisecond), Node: "b"},
		},
	}
	if state != client.OperationRunning {
		o.Ended = at.Add(31 * time.Millisecond)
	}
	return o
}

// Proves the exit codes of design section 7 for everything that a switch-over can come to.
func TestSwitchoverExitCodes(t *testing.T) {
	checks := []client.Check{
		{Name: "lease", OK: true, Value: "1.7 s"},
		{Name: "lag", OK: false, Value: "512 MiB", Limit: "64 MiB", Detail: "wait until the target has caught up"},
	}
	for _, tc := range []struct {
		name   string
		answer any
		code   int
		holds  []string
	}{
		{"done", someOperation(client.OperationDone, true), 0, []string{"switchover 7 a → b: done, 31.0 ms", "prepare", "8.0 ms", "no lag"}},
		{"running", someOperation(client.OperationRunning, false), exitRunning, []string{"understudy operation wait 7"}},
		{"rolled back", someOperation(client.OperationRolledBack, false), exitRolledBack, []string{"was rolled back"}},
		{"superseded", someOperation(client.OperationFailed, true), exitIncomplete, []string{"passed its commit point"}},
		{"failed", someOperation(client.OperationFailed, false), exitFailure, []string{"failed"}},
		{"checks", &client.Error{Code: client.CodePrecondition, Detail: "not ready", Checks: checks}, exitPrecondition, []string{"FAILED", "512 MiB", "wait until the target"}},
		{"busy", &client.Error{Code: client.CodeBusy, Detail: "operation 6 runs"}, exitPrecondition, []string{"operation 6 runs"}},
		{"unknown group", &client.Error{Code: client.CodeUnknownGroup, Detail: "no group", Remedy: "GET /v1/groups lists the groups"}, exitPrecondition, []string{"no group", "unknown_group", "`understudy group list` lists the groups"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			url := fakeNode(t, map[string]any{"POST /v1/groups/default/switchover": tc.answer, "GET /v1/operations/7": tc.answer})
			wantRun(t, url, tc.code, tc.holds, "switchover", "default", "--to", "b", "--wait", "50ms")
		})
	}
	url := fakeNode(t, map[string]any{"POST /v1/groups/default/switchover": client.Readiness{
		Group: "default", From: "a", To: "b", Ready: true, EstimatedPause: client.Duration(25 * time.Millisecond), EntriesToDrain: 1, Checks: checks[:1]}})
	wantRun(t, url, 0, []string{"is possible", "pause about 25.0 ms, 1 entry to drain, loss none"}, "switchover", "default", "--dry-run")
	url = fakeNode(t, map[string]any{"POST /v1/groups/default/switchover": client.Readiness{Group: "default", From: "a", To: "b", Checks: checks}})
	wantRun(t, url, exitPrecondition, []string{"not possible now", "nothing was changed"}, "switchover", "default", "--dry-run")
}

func TestSwitchbackGoesToThePreferredNode(t *testing.T) {
	g := someStatus().Groups[0]
	url := fakeNode(t, map[string]any{"GET /v1/groups/default": g})
	wantRun(t, url, 0, []string{"a is primary of group default already"}, "switchback", "default")
	g.Primary = "b"
	url = fakeNode(t, map[string]any{"GET /v1/groups/default": g, "POST /v1/groups/default/switchover": someOperation(client.OperationDone, true)})
	wantRun(t, url, 0, []string{"done"}, "switchback", "default")
	g.Spec.Preferred = ""
	url = fakeNode(t, map[string]any{"GET /v1/groups/default": g})
	wantRun(t, url, exitPrecondition, []string{"has no preferred node"}, "switchback", "default")
}

func TestOtherCommandsPrintWhatTheyGet(t *testing.T) {
	at := time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)
	key := client.MakeKey([]byte("k1"))
	list := func(v any) map[string]any { return map[string]any{"items": v} }
	nodes := []client.NodeStatus{{ID: "a", Kind: "data"}}
	url := fakeNode(t, map[string]any{
		"GET /v1/nodes":                                          map[string]any{"items": nodes},
		"GET /v1/operations":                                     list([]client.Operation{someOperation(client.OperationDone, true)}),
		"GET /v1/operations/7":                                   someOperation(client.OperationDone, true),
		"GET /v1/operations/8":                                   &client.Error{Code: client.CodeNotFound, Detail: "no operation 8"},
		"DELETE /v1/groups/default/switchover":                   map[string]any{},
		"POST /v1/groups/default/failover":                       someOperation(client.OperationDone, true),
		"GET /v1/groups/default/why":                             client.Readiness{Group: "default", From: "a", To: "b", Ready: true},
		"GET /v1/groups/default/history":                         list([]client.Certificate{{Kind: "failover", Epoch: 4, From: "a", To: "b", SW: "default@4.9", Loss: "none", At: at, Opened: at.Add(2 * time.Second), Better: []string{"c"}}}),
		"GET /v1/events":                                         list([]client.Event{{ID: 1, Time: at, Node: "a", Severity: "info", Kind: "role", Message: "quiet"}, {ID: 2, Time: at, Node: "a", Severity: "error", Kind: "disk", Message: "loud", Fields: map[string]string{"seq": "9"}}}),
		"GET /v1/groups/default":                                 someStatus().Groups[0],
		"GET /v1/groups/default/journals":                        list([]client.Journal{{ID: "default/a", Kind: "local", State: "ACTIVE", Last: 42, Bytes: 2048, Error: "disk is gone"}}),
		"GET /v1/groups/default/journals/a/receivers":            list([]client.Receiver{{Journal: "default/a", Number: 3, First: 10, Last: 42, Attached: true}}),
		"GET /v1/groups/default/journals/local/entries":          list([]client.Entry{{Sequence: 42, Position: "default@4.42", Code: "R", Type: "UP", File: "orders", Key: key, Before: &client.Image{}, After: &client.Image{Value: []byte("three apples")}}}),
		"POST /v1/groups/default/journals/local/change-receiver": client.Receiver{Journal: "default/a", Number: 4},
		"POST /v1/groups/default/journals/a/start":               client.CopyStart{Journal: "default/a", Target: "c", Receiver: 4, From: 101, Note: "the copy begins with receiver 000004"},
		"POST /v1/groups/default/journals/a/verify":              client.Verification{Journal: "default/a", OK: true},
		"GET /v1/groups/default/backouts":                        list([]client.Backout{{ID: "x1", Journal: "default/a", From: "default@1.19", To: "default@0.0", Undone: 6, Lost: 5, Unheard: 3}}),
		"GET /v1/groups/default/backouts/x1":                     client.Backout{ID: "x1", Group: "default", Journal: "default/a", Lost: 2, Unheard: 1, Entries: []client.BackoutEntry{{Sequence: 20, Type: "PT", Key: key, Undone: true}, {Sequence: 21, Type: "PT", Key: key, Unheard: true}}},
		"PUT /v1/files/orders/records/k1":                        client.WriteResult{Position: "default@4.43", Journal: "default/a", Sequence: 43},
		"DELETE /v1/files/orders/records/k1":                     client.WriteResult{Position: "default@4.44", Journal: "default/a", Sequence: 44},
		"GET /v1/files/orders/records":                           client.RecordPage{Records: []client.Record{{Key: key, Value: []byte("three apples"), Position: "default@4.43"}}},
	})
	nodes[0].HTTP = url
	for _, tc := range []struct {
		args  string
		code  int
		holds []string
	}{
		{"operation show", 0, []string{"a → b", "31.0 ms"}},
		{"operation show 7", 0, []string{"prepare"}},
		{"operation wait 7", 0, []string{"done"}},
		{"operation wait 8", 1, []string{"no operation 8"}},
		{"journal start default --target c --from attached", 0, []string{"Node c is sent journal default/a from sequence 101 on: the copy begins with receiver 000004."}},
		{"journal start default", 2, []string{"target"}},
		{"cancel default", 0, []string{"was rolled back. Nothing changed."}},
		{"failover default --to b", 0, []string{"done"}},
		{"why default", 0, []string{"is possible"}},
		{"history default", 0, []string{"default@4.9", "2.00 s", "better: c"}},
		{"events", 0, []string{"quiet", "loud  seq=9"}},
		{"journal list default", 0, []string{"ACTIVE", "2 KiB", "ATTENTION: journal default/a: disk is gone"}},
		{"journal receivers default/a", 0, []string{"000003", "attached"}},
		{"journal entries default", 0, []string{"R UP", "orders", "12  three apples (12 B) unconfirmed"}},
		{"journal dump default", 0, []string{"default@4.42", "three apples"}},
		{"journal change default", 0, []string{"Receiver 000004 is attached"}},
		{"journal verify default/a", 0, []string{"Journal default/a is sound."}},
		{"backout list default", 0, []string{"x1", "default@1.19 → the beginning       6                   3     2"}},
		{"backout show default x1", 0, []string{"LOST", "no, never acknowledged", "1 lost"}},
		{"backout show default x1 --on z", exitUsage, []string{"no such node; there are a"}},
		{"put orders k1 v", 0, []string{"updated at default@4.43, entry 43 of journal default/a"}},
		{"put orders k1 v --if-position default@4.42 --idempotency-key once", 0, []string{"updated at default@4.43"}},
		{"put orders k1 v --if-absent --if-position default@4.42", exitUsage, []string{"both --if-absent and --if-position"}},
		{"delete orders k1", 0, []string{"deleted at default@4.44"}},
		{"list orders", 0, []string{"k1", "12 B", "three apples"}},
	} {
		wantRun(t, url, tc.code, tc.holds, strings.Fields(tc.args)...)
		if tc.code == 0 {
			_, out, errOut := run(t, url, append(strings.Fields(tc.args), "-o", "json")...)
			if !json.Valid([]byte(out)) {
				t.Errorf("%s -o json is no JSON:\n%s%s", tc.args, out, errOut)
			}
		}
	}
}

// memory is a node that keeps records, and fails as told.
type memory struct {
	mu      sync.Mutex
	records map[string][]byte
	puts    int
	lie     func(put int) error // asked before the n-th write is stored
}

func (m *memory) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch r.Method {
	case http.MethodPut:
		m.puts++
		if m.lie != nil {
			if err := m.lie(m.puts); err != nil {
				problem(w, err)
				return
			}
		}
		raw, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		_, had := m.records[r.URL.Path]
		m.records[r.URL.Path] = raw
		if !had {
			w.WriteHeader(http.StatusCreated)
		}
		fmt.Fprintf(w, `{"position":"default@1.%d","journal":"default/a","sequence":%d}`, m.puts, m.puts)
	default:
		raw, ok := m.records[r.URL.Path]
		if !ok {
			problem(w, &client.Error{Code: client.CodeNotFound})
			return
		}
		_, _ = w.Write(raw)
	}
}

func problem(w http.ResponseWriter, err error) {
	var e *client.Error
	errors.As(err, &e)
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(e.Code.Status())
	_ = json.NewEncoder(w).Encode(e)
}

func newMemory(t *testing.T) (*memory, string) {
	m := &memory{records: map[string][]byte{}}
	s := httptest.NewServer(m)
	t.Cleanup(s.Close)
	return m, s.URL
}

func TestLoadWritesEveryFile(t *testing.T) {
	dir := t.TempDir()
	for name, content := range map[string]string{"one": "1", "sub/two": "22", "sub/deep/empty": ""} {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o750), os.WriteFile(path, []byte(content), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("one", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	m, url := newMemory(t)
	m.lie = func(put int) error { // a write of unknown outcome is repeated
		if put == 1 {
			return &client.Error{Code: client.CodeUnknownOutcome}
		}
		return nil
	}
	wantRun(t, url, 0, []string{"3 records loaded into docs (3 new), 3 B in"}, "load", dir, "--file", "docs")
	if string(m.records["/v1/files/docs/records/sub/two"]) != "22" {
		t.Errorf("records: %v", m.records)
	}
	wantRun(t, url, 0, []string{`"created": 0`, `"loaded": 3`}, "load", dir, "--file", "docs", "-o", "json")
	m.lie = func(int) error { return &client.Error{Code: client.CodeStorageFull, Detail: "disk is full"} }
	wantRun(t, url, exitIncomplete, []string{"3 files failed:", "sub/two: disk is full", "run the same command again"}, "load", dir)
	wantRun(t, url, exitPrecondition, []string{"no such file"}, "load", filepath.Join(dir, "none"))
	wantRun(t, url, exitPrecondition, []string{"there is no file below"}, "load", t.TempDir())
}

// Proves that scripts can tell "surely not done" from everything else.
func TestExitCodesOfNodesAnswers(t *testing.T) {
	for code, want := range map[client.Code]int{
		client.CodeNoQuorum: exitPrecondition, client.CodeNoPrimary: exitPrecondition, client.CodeUnknownNode: exitPrecondition,
		client.CodeStale: exitPrecondition, client.CodeNoSync: exitPrecondition, client.CodeTooLarge: exitUsage, client.CodeUnsupported: exitUsage,
		client.CodeUnknownOutcome: exitRunning, client.CodeInternal: exitFailure, client.CodeNotFound: exitFailure,
	} {
		if got := exitCode(&client.Error{Code: code}); got != want {
			t.Errorf("%s: exit code %d, want %d", code, got, want)
		}
	}
	wantRun(t, "http://127.0.0.1:1", exitUsage, []string{"FILE has 300 bytes"}, "put", strings.Repeat("f", 300), "k", "x")
	wantRun(t, "http://127.0.0.1:1", exitUsage, []string{"KEY has"}, "put", "f", strings.Repeat("k", client.MaxKey+1), "x")
	no := client.Readiness{Group: "default", From: "a", To: "b", Checks: []client.Check{{Name: "target_alive", Detail: "start it"}}}
	wantRun(t, fakeNode(t, map[string]any{"GET /v1/groups/default/why": no}), exitPrecondition, []string{"not possible now", "start it"}, "why", "default")
}

// A server that cannot start because a port is taken has changed nothing, and says so by its exit code.
func TestServerPortTaken(t *testing.T) {
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = busy.Close() }()
	file := filepath.Join(t.TempDir(), "understudy.yaml")
	text := fmt.Sprintf("node: a\ncluster: x\ndata: %s\nbootstrap: true\nlisten: {http: %s, gossip: 127.0.0.1:0, raft: 127.0.0.1:0, ship: 127.0.0.1:0}\n", filepath.Join(t.TempDir(), "data"), busy.Addr())
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("UNDERSTUDY_LEES", "3s")
	wantRun(t, "http://127.0.0.1:1", exitPrecondition, []string{"stop what uses that port", "UNDERSTUDY_LEES"}, "server", "--config", file)
}

// A cluster is ready when what was asked for protects its writes.
func TestServingWantsSecondaries(t *testing.T) {
	st := someStatus()
	if err := serving(st, 3); err != nil {
		t.Error(err)
	}
	st.Groups[0].InSync = nil
	if err := serving(st, 3); err == nil || !strings.Contains(err.Error(), "0 of 1 secondary in sync") {
		t.Errorf("without a secondary: %v", err)
	}
}

func TestPutReadsStandardInput(t *testing.T) {
	m, url := newMemory(t)
	wantRun(t, url, 0, []string{"created at default@1.1"}, "put", "orders", "k")
	if got := string(m.records["/v1/files/orders/records/k"]); got != "from standard input" {
		t.Errorf("got %q", got)
	}
	wantRun(t, url, 0, []string{"from standard input"}, "get", "orders", "k")
	wantRun(t, url, 1, nil, "get", "orders", "none")
}
