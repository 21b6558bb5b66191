package cli

import (
	"bufio"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/understudy-ha/understudy/client"
)

// historyNode serves a history of n facts, as pages and as streams; it cuts every stream after cut facts, when that is not 0.
func historyNode(t *testing.T, n, cut int, holds http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.Contains(r.URL.Path, "/holds"):
			holds(w, r)
		case r.URL.Path == "/v1/nodes":
			_, _ = fmt.Fprint(w, `{"items":[]}`)
		default:
			_, text, _ := strings.Cut(r.URL.Query().Get("after"), ".")
			after, _ := strconv.Atoi(text)
			follow := r.URL.Query().Has("follow")
			page := client.HistoryPage{Next: fmt.Sprintf("default@1.%d", n)}
			given := 0
			for h := after + 1; h <= n && (cut == 0 || given < cut); h++ {
				e := client.Entry{Sequence: uint64(h), Position: fmt.Sprintf("default@1.%d", h), Code: "U", Type: "A1"}
				page.Items, page.Next = append(page.Items, e), e.Position
				given++
				if follow {
					_ = json.NewEncoder(w).Encode(e)
				}
			}
			if !follow {
				page.More = after+given < n
				_ = json.NewEncoder(w).Encode(page)
				return
			}
			if after+given == n {
				_, _ = fmt.Fprintf(w, "{\"heartbeat\":{\"after\":\"default@1.%d\"}}\n", n)
				_ = http.NewResponseController(w).Flush()
				<-r.Context().Done()
			}
		}
	}))
	t.Cleanup(s.Close)
	return s.URL
}

func noHolds(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(http.StatusNotFound)
	_, _ = fmt.Fprint(w, `{"status":404,"code":"unknown_path"}`)
}

// Proves RJ-14: a consumer that is killed at random points loses nothing, and repeats one batch at most each time.
func TestConsumerKilledAnywhere(t *testing.T) {
	const facts, kills, batch = 1500, 8, 40
	url := historyNode(t, facts, 333, noHolds)
	dir := t.TempDir()
	out, state := filepath.Join(dir, "out"), filepath.Join(dir, "state")
	start := func() *exec.Cmd {
		cmd := exec.Command(os.Args[0], "journal", "receive", "default", "--follow", "--addr", url, "--state", state, "--batch", strconv.Itoa(batch),
			"--batch-wait", "50ms", "--exec", "cat >> '"+out+"'")
		cmd.Env = append(os.Environ(), childMode+"=cli")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		return cmd
	}
	stands := func() string { raw, _ := os.ReadFile(state); return strings.TrimSpace(string(raw)) }
	for range kills {
		before := stands()
		cmd := start()
		eventually(t, "it goes on", func() bool { return stands() != before || stands() == fmt.Sprintf("default default@1.%d", facts) })
		time.Sleep(time.Duration(rand.IntN(20)) * time.Millisecond) // anywhere
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	for wait := 50 * time.Millisecond; ; wait *= 2 { // all may have been taken before it began, and then nobody knows when it hears signals
		cmd := start()
		eventually(t, "everything was taken", func() bool { return stands() == fmt.Sprintf("default default@1.%d", facts) })
		time.Sleep(wait)
		_ = cmd.Process.Signal(os.Interrupt)
		err := cmd.Wait()
		if err == nil {
			break
		}
		if wait > 5*time.Second {
			t.Fatalf("SIGINT: %v", err)
		}
	}
	file, err := os.Open(out)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	seen, total := map[uint64]int{}, 0
	for lines := bufio.NewScanner(file); lines.Scan(); total++ {
		var e client.Entry
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			t.Fatalf("line %d: %q: %v", total+1, lines.Text(), err)
		}
		seen[e.Sequence]++
	}
	for h := range uint64(facts) {
		if seen[h+1] == 0 {
			t.Fatalf("fact %d was lost", h+1)
		}
	}
	if total > facts+kills*batch {
		t.Errorf("%d lines: more than a batch was repeated for each of %d kills", total, kills)
	}
	t.Logf("%d facts, %d lines, %d kills", facts, total, kills)
}

// Proves RJ-14: a batch is repeated until the program takes it; one that it never takes ends the consumer, which says where it stands.
func TestConsumerRepeatsABatch(t *testing.T) {
	url := historyNode(t, 10, 0, noHolds)
	state := filepath.Join(t.TempDir(), "state")
	wantRun(t, url, exitDone, []string{"default@1.1 default@1.4 4", "again in", "default@1.9 default@1.10 2 default@1.10"}, "journal", "receive", "default", "--batch", "4", "--state", state,
		"--exec", `echo $UNDERSTUDY_FIRST $UNDERSTUDY_LAST $UNDERSTUDY_COUNT $UNDERSTUDY_POSITION; test $UNDERSTUDY_ATTEMPT -ge 2`)
	if raw, err := os.ReadFile(state); err != nil || string(raw) != "default default@1.10\n" {
		t.Errorf("%q, %v", raw, err)
	}
	wantRun(t, url, exitIncomplete, []string{"exit status 7", "everything up to default@1.5 was taken"}, "journal", "receive", "default", "--after", "default@1.5", "--retries", "1", "--exec", "exit 7")
	wantRun(t, url, exitDone, []string{`"position":"default@1.10"`}, "journal", "receive", "default", "--after", "default@1.9")
	wantRun(t, url, exitUsage, []string{"no place in other"}, "journal", "receive", "other", "--state", state)
	wantRun(t, url, exitUsage, []string{"name it"}, "journal", "receive", "default", "--from", "3")
	wantRun(t, url, exitUsage, []string{"--batch-bytes"}, "journal", "receive", "default", "--batch-bytes", "many")
}

// A named consumer begins where its hold says, renews it, and warns once of a cluster that keeps none.
func TestNamedConsumer(t *testing.T) {
	var set atomic.Pointer[client.HoldRequest]
	url := historyNode(t, 10, 0, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			_, _ = fmt.Fprint(w, `{"items":[{"name":"other","position":"default@1.2"},{"name":"billing","position":"default@1.7"}]}`)
			return
		}
		var h client.HoldRequest
		if r.URL.Path != "/v1/groups/default/holds/billing" || r.Method != http.MethodPut || json.NewDecoder(r.Body).Decode(&h) != nil {
			t.Errorf("%s %s", r.Method, r.URL.Path)
		}
		set.Store(&h)
	})
	code, out, errOut := run(t, url, "journal", "receive", "default", "--name", "billing", "--hold-for", "2h")
	if code != exitDone || strings.Count(out, "\n") != 3 || !strings.Contains(out, "default@1.8") {
		t.Errorf("%d %s%s", code, out, errOut)
	}
	if h := set.Load(); h == nil || h.Position != "default@1.10" || h.For != client.Duration(2*time.Hour) {
		t.Errorf("hold %+v", h)
	}
	code, _, errOut = run(t, historyNode(t, 3, 0, noHolds), "journal", "receive", "default", "--name", "billing")
	if code != exitDone || strings.Count(errOut, "warning") != 1 || !strings.Contains(errOut, "--state") {
		t.Errorf("%d %s", code, errOut)
	}
}

// Proves RJ-14: entries are sent in the order of the lines; an error names its line and what was sent before it.
func TestJournalSend(t *testing.T) {
	var got []client.DepositRequest
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var d client.DepositRequest
		if err := json.NewDecoder(r.Body).Decode(&d); err != nil || r.URL.Path != "/v1/groups/default/journals/local/entries" {
			if r.Method == http.MethodPost {
				t.Errorf("%s: %v", r.URL.Path, err)
			}
			return
		}
		if string(d.Data) == "bad" {
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(http.StatusBadRequest)
			_, _ = fmt.Fprint(w, `{"code":"invalid","detail":"bad entry"}`)
			return
		}
		got = append(got, d)
		_, _ = fmt.Fprintf(w, `{"position":"default@3.%d","journal":"default/a","sequence":%d}`, len(got), len(got)+100)
	}))
	defer s.Close()
	feed := func(input string, args ...string) (int, string) {
		var out strings.Builder
		got = nil
		code := Main(append(append([]string{"journal", "send", "default"}, args...), "--addr", s.URL), strings.NewReader(input), &out, &out)
		return code, out.String()
	}
	if code, out := feed("one\ntwo\n\xff\n", "--type", "A1"); code != exitDone || len(got) != 3 || string(got[2].Data) != "\xff" || got[0].Type != "A1" || !strings.Contains(out, "3 entries sent, the last at default@3.3") {
		t.Errorf("%d %s %+v", code, out, got)
	}
	if code, out := feed("one\nbad\nthree\n", "--type", "A1"); code != exitUsage || len(got) != 1 || !strings.Contains(out, "line 2: bad entry") || !strings.Contains(out, "1 entry was sent, the last at default@3.1") {
		t.Errorf("%d %s %+v", code, out, got)
	}
	if code, out := feed(`{"text":"x"}`+"\n\n"+`{"type":"B2","data":"AAE="}`, "--type", "A1", "--json", "-o", "json"); code != exitDone || len(got) != 2 || got[1].Type != "B2" || string(got[1].Data) != "\x00\x01" || strings.Count(out, "\n") != 2 {
		t.Errorf("%d %s %+v", code, out, got)
	}
	if code, out := feed("{}\n{", "--json"); code != exitUsage || !strings.Contains(out, "line 2") {
		t.Errorf("%d %s", code, out)
	}
	if code, out := feed("ignored", "--type", "A1", "--text", "hello"); code != exitDone || len(got) != 1 || got[0].Text != "hello" || out != "default@3.1  default/a:101\n" {
		t.Errorf("%d %s %+v", code, out, got)
	}
	if code, _ := feed("x"); code != exitUsage {
		t.Errorf("without a type: %d", code)
	}
}
